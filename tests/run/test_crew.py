"""Several processes at work on one input: the same bytes, the same errors, and nothing left behind."""

from __future__ import annotations

import gzip
import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import pytest

from ema_cli.errors import DataError, EmaError, FileTrouble, OptionError, Place
from tests.conftest import Workshop, children, is_gone, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes as Linux shows them")
# The real command, but that any input is large, there are two helpers whatever the machine, and all rows wait
# until these are there. Exit code 99 if none had a part in it.
FORCED = """
import sys
from ema_cli.process import set_process_defaults
set_process_defaults()
from ema_cli import console
from ema_cli.formats import blocks
from ema_cli.formats.text import source
from ema_cli.run import crew, helper
block, room, helpers, each, forked = (int(sys.argv.pop(1)) for _ in range(5))
crew.LEAST_BYTES, crew.LEAST_ROWS = 1, 1
crew.helpers_for = lambda size, processes: min(helpers, size // each)
helper.may_fork = lambda: bool(forked)
source.BLOCK_BYTES = crew.LEAST_BLOCK = blocks.BlocksOfLines.most = block
helper.REGION_BYTES = room
grow, ask, leave, asked = crew.Crew._grow, crew.Crew._ask, console.leave, []

def grow_and_wait(self, size):
    grow(self, size)
    while not all(helper.ready for helper in self.helpers):
        self._listen(patient=True)

crew.Crew._grow = grow_and_wait
crew.Crew._ask = lambda self, *rest: (asked.append(1), ask(self, *rest))[1]
console.leave = lambda code: leave(code if asked or code else 99)
from ema_cli.cli import main
main()
"""


class Crewed(Workshop):
    """Runs ema-smooth with helpers; exit code 99 if they had nothing to do."""

    block, room, helpers, each, forked = 1 << 20, 32 << 20, 2, 1, False

    def command(self, *arguments: str | os.PathLike[str]) -> list[str]:
        sizes = (f"{size:d}" for size in (self.block, self.room, self.helpers, self.each, self.forked))
        return [sys.executable, "-c", FORCED, *sizes, *map(str, arguments)]


@pytest.fixture
def crew(tmp_path: Path) -> Crewed:
    return Crewed(tmp_path)


@pytest.fixture(params=[True, False], ids=["forked", "spawned"])
def both(crew: Crewed, request: pytest.FixtureRequest) -> Crewed:
    """With helpers started in either way."""
    crew.forked = request.param
    return crew


PLAIN = "a,b\n" + "".join(f"{k},{k % 13}.5\n" for k in range(200_000))
ROWS = range(4000)
ENDS = "\r\n", "\r\n\r\n"
# Series that interleave, gaps, a cell that is no number, quotes, blank lines, times that repeat.
RICH = "key,time,step,x,y\n" + "".join(
    f'"k {k % 7}",2024-01-{1 + k // 1000:02d}T{k // 60 % 24:02d}:{k // 2 * 2 % 60:02d}:00,{k},'
    f"{'' if k % 11 == 0 else k % 13 - 6.25},{'?' if k == 1500 else k / 1000}{ENDS[k % 97 == 0]}"
    for k in ROWS
)
NUMBERS = ("-c", "x", "-c", "y", "--invalid", "missing")
LINES = "".join(f'{{"x": {k % 13}.5, "k": "k{k % 3}", "y": {{"z": {k}}}}}\n' for k in ROWS)
SPACED = "a    x\n" + "".join(f"r{k}   {k % 5}.25\n" for k in ROWS)
CASES = {
    "all columns": (PLAIN[:60_000], ()),
    "several weights": (RICH, (*NUMBERS, "--alpha", "0.5", "--residual", "--std", "--bands", "2", "--fill")),
    "gaps decay": (RICH, (*NUMBERS, "--missing", "decay", "--adjust", "--min-periods", "3")),
    "pairs and sums": (RICH, (*NUMBERS, "--corr", "--cov", "--sum", "--var", "--weights", "step")),
    "averages of averages": (RICH, (*NUMBERS, "--by", "key", "--double", "--triple", "--missing", "decay")),
    "a difference": (
        RICH,
        (*NUMBERS, "--alpha", "0.5", "--alpha", "0.1", "--diff", "--name", "{what} {col} {weight}"),
    ),
    "keys": (RICH, (*NUMBERS, "--by", "key", "--only")),
    "two key columns": (RICH, (*NUMBERS, "--by", "key", "--by", "step")),
    "times": (RICH, (*NUMBERS, "--time", "time", "--late", "skip", "--halflife", "1h")),
    "times and keys": (RICH, (*NUMBERS, "--time", "time", "--by", "key", "--late", "restart", "--tau", "2h")),
    "an order": (RICH, (*NUMBERS, "--order", "step", "--init", "sma:5")),
    "weights": (RICH, ("-c", "x", "--weights", "step", "--sum", "--triple", "--adjust")),
    "pairs": (RICH, (*NUMBERS, "--cov", "--corr", "--by", "key")),
    "the difference of two": (RICH, (*NUMBERS, "--span", "5", "--span", "9", "--diff", "--double")),
    "centered": (RICH, (*NUMBERS, "--centered")),
    "newest first": (RICH, (*NUMBERS, "--newest-first")),
    "auto": (RICH, ("-c", "x", "--alpha", "auto")),
    "digits, TSV": (RICH, (*NUMBERS, "--digits", "3", "--to", "tsv")),
    "to JSON lines": (
        RICH,
        (*NUMBERS, "--to", "jsonl", "--time", "time", "--late", "skip", "--halflife", "9h"),
    ),
    "JSON lines": (LINES, ("--from", "jsonl", "-c", "x", "-c", "y.z")),
    "JSON lines by key": (LINES, ("--from", "jsonl", "-c", "x", "--by", "k", "--only")),
    "JSON lines to CSV": (LINES, ("--from", "jsonl", "--to", "csv", "-c", "y.z", "--by", "k")),
    "a weight a file": (RICH, (*NUMBERS, "--by-file", "--only")),
    "comments": (PLAIN[:60_000].replace("\n7", "\n# no record\n7"), ("--comment", "#", "-c", "b")),
    "ragged": (PLAIN[:60_000].replace(".5\n", "\n") + "1\n", ("--ragged", "pad", "-c", "b")),
    "spaces": (SPACED, ("-d", "spaces")),
    "units": (SPACED.replace("    ", ",").replace("   ", ",$"), ("--strip", "$", "-c", "x")),
    "the header again": ((PLAIN[:20_000].rpartition("\n")[0] + "\n") * 3, ("-c", "b")),
    "line ends in fields": ("a,b\n" + '"two\nlines, ""x""",1\ny,2\n' * 3000, ("-c", "b")),
    "quotes that are letters": ("a,b\n" + 'six" by "eight,1\n5",2\n"q\n",3\n' * 3000, ("-c", "b")),
    "long records": ("a,b\n" + "".join(f"{'x' * 30_000},{k}\n" for k in range(90)), ("-c", "b")),
    "no last line end": (PLAIN[:60_000].rpartition(".")[0], ("-c", "b")),
}


@pytest.mark.parametrize("case", CASES)
def test_the_same_bytes(case: str, crew: Crewed, shop: Workshop) -> None:
    table, options = CASES[case]
    crew.write("in.csv", table)
    weight = () if {"--alpha", "--halflife", "--tau", "--span"} & {*options} else ("--alpha", "0.1")
    arguments = ("in.csv", *weight, *options)
    told = shop.run(*arguments, "-j", "1")
    state = () if "--centered" in options else ("--state", "run.state")
    shop.run(*arguments, *state, "-o", "one.txt", "-j", "1")
    kept = crew.read("run.state") if state else b""
    for crew.helpers, crew.block, crew.forked in ((1, 20_000, False), (2, 5000, True)):
        Path(crew.folder, "run.state").unlink(missing_ok=True)
        # To stdout in turn, and into a file at its place.
        found = crew.run(*arguments)
        assert (found.out, found.err) == (told.out, told.err)
        crew.run(*arguments, *state, "-o", "many.txt")
        assert crew.read("many.txt") == told.out
        assert not state or crew.read("run.state") == kept


@pytest.mark.parametrize("options", [(), ("--by-file", "--only"), ("--invalid", "missing"), ("--by", "step")])
def test_several_inputs_that_each_are_shared(options: tuple[str, ...], crew: Crewed, shop: Workshop) -> None:
    # The second has no last line end, runs begin anew, and a cell is bad; the last one ends within a record.
    tables = [[f"{k},{k % 9}.25\n" for k in range(begin, 4000)] for begin in (0, 1000, 2000)]
    tables[2][1500] = "x,?\n"
    for k, table in enumerate(tables):
        crew.write(f"{k}.csv", "step,v\n" + "".join(table).removesuffix("\n" * (k == 1)))
    crew.write("3.csv", ("step,v\n" + "1,2\n" * 9999)[:20_003])
    arguments = ("0.csv", "1.csv", "2.csv", "3.csv", "-c", "v", "--alpha", "0.1", *options)
    told = shop.run(*arguments, "-j", "1", code=None)
    for crew.helpers, crew.block, crew.forked in ((1, 5000, True), (2, 5000, False)):
        found = crew.run(*arguments, code=told.code)
        assert (found.out, found.err) == (told.out, told.err)


def test_a_pipe_a_small_room_and_several_inputs(crew: Crewed, shop: Workshop) -> None:
    lines = PLAIN.splitlines(keepends=True)
    crew.write("1.csv", "".join(lines[:90_000]))
    crew.write("2.csv", lines[0] + "".join(lines[90_000:]))
    crew.block = 1 << 16
    whole = shop.run("1.csv", "2.csv", "-c", "b", "--alpha", "0.1", "-j", "1").out
    assert crew.run("1.csv", "2.csv", "-c", "b", "--alpha", "0.1").out == whole
    assert crew.run("-c", "b", "--alpha", "0.1", stdin=PLAIN.encode()).out == whole
    crew.room = 200_000  # for a block, but not for all that is in it
    assert crew.run("1.csv", "2.csv", "-c", "b", "--alpha", "0.1").out == whole
    assert crew.run("-c", "b", "--alpha", "0.1", stdin=PLAIN.encode(), code=None).out == whole


@pytest.mark.parametrize(("system", "code"), [("darwin", 0), ("windows", 99)])
def test_on_other_systems_too(system: str, code: int, tmp_path: Path, shop: Workshop) -> None:
    """A simulated Windows refuses the library the file that is its shared memory here, though not there; so
    that shows what is done where there can be no helpers."""
    crew = Crewed(tmp_path, system)
    crew.write("in.csv", RICH)
    crew.block = 20_000
    arguments = ("in.csv", *NUMBERS, "--alpha", "0.1", "--by", "key")
    told = shop.run(*arguments).out
    assert crew.run(*arguments, code=code).out == told
    crew.run(*arguments, "-o", "out.csv", code=code)
    assert crew.read("out.csv") == told
    assert crew.names() == ["in.csv", "out.csv"]


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_the_longer_a_pipe_the_more_helpers(packed: bool, crew: Crewed, shop: Workshop) -> None:
    sent = gzip.compress(PLAIN.encode()) if packed else PLAIN.encode()
    crew.block, crew.each = 1 << 16, 1 << 18  # the second one from half a megabyte of text on
    with crew.start("-c", "b", "--alpha", "0.1") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        feed = threading.Thread(target=feed_all, args=[process.stdin, sent])
        feed.start()
        found = b""
        while len(found) < 2 << 20:  # a pipe gives what it has
            found += process.stdout.read((2 << 20) - len(found))
        helpers_of(process)
        found += process.stdout.read()
        feed.join()
        assert (process.wait(60), process.stderr.read()) == (0, b"")
    assert found == shop.run("-c", "b", "--alpha", "0.1", stdin=PLAIN.encode()).out


def test_stdin_that_is_a_file_is_read_from_where_it_was_left(both: Crewed, shop: Workshop) -> None:
    begin = b"not for us\n"
    path = both.write("in.csv", begin + PLAIN.encode())
    both.block = 1 << 18
    with path.open("rb") as file:
        file.seek(len(begin))
        arguments = ("-c", "b", "--alpha", "0.1")
        done = subprocess.run(
            both.command(*arguments),
            cwd=both.folder, env=both.environment, stdin=file, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == shop.run(*arguments, stdin=PLAIN.encode()).out


def test_a_file_that_changes_while_it_is_shared(both: Crewed, shop: Workshop) -> None:
    """One that loses its name is read all the same; one that is cut short is an error."""
    path, arguments = both.write("in.csv", PLAIN * 6), ("in.csv", "-c", "b", "--alpha", "0.1")
    told = shop.run(*arguments).out
    both.block = 1 << 18
    for change in (Path.unlink, lambda path: os.truncate(path, 1_000_000)):
        both.write("in.csv", PLAIN * 6)
        with both.start(*arguments) as process:
            helpers_of(process)
            change(path)
            out, err = process.communicate(timeout=60)
            if change is Path.unlink:
                assert (process.returncode, out, err) == (0, told, b"")
            else:
                assert (process.returncode, err) == (
                    1,
                    b"ema-smooth: in.csv: became shorter while it was read\n",
                )
                assert told.startswith(out)


def feed_all(pipe: IO[bytes], data: bytes) -> None:
    with pipe:
        pipe.write(data)


def test_a_live_pipe_is_answered_at_once_with_helpers_too(both: Crewed) -> None:
    both.block = 1 << 16
    with both.start("-c", "b", "--alpha", "0.1", "-v") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        sent, got = PLAIN.encode(), b""
        for begin in range(0, len(sent), 500_000):
            process.stdin.write(sent[begin : begin + 500_000])
            process.stdin.flush()
            whole = sent[: begin + 500_000].count(b"\n")

            def answered(whole: int = whole) -> bool:
                nonlocal got
                got += process.stdout.read() or b"" if process.stdout is not None else b""
                return got.count(b"\n") == whole

            wait_for(answered)
        process.stdin.write(b"7,8\n")
        process.stdin.flush()
        wait_for(lambda: answered(len(PLAIN.splitlines()) + 1))
        process.stdin.close()
        assert process.wait(60) == 0


def test_rows_above_a_fault_are_written_and_the_fault_is_named(both: Crewed, shop: Workshop) -> None:
    both.write("in.csv", PLAIN + "7,oops\n8,9\n")
    arguments = ("in.csv", "-c", "b", "--alpha", "0.1")
    told, found = shop.run(*arguments, code=1), both.run(*arguments, code=1)
    assert (found.out, found.err) == (told.out, told.err)
    assert "line 200002" in found.err
    both.write("out.csv", "old")
    both.run(*arguments, "-o", "out.csv", code=1)
    assert both.read("out.csv") == b"old"
    assert both.names() == ["in.csv", "out.csv"]


def test_a_line_that_is_no_json_is_named(crew: Crewed, shop: Workshop) -> None:
    crew.write("in.jsonl", LINES + "[]\n" + LINES)
    crew.block = 20_000
    arguments = ("in.jsonl", "-c", "x", "--alpha", "0.1")
    told, found = shop.run(*arguments, code=1), crew.run(*arguments, code=1)
    assert (found.out, found.err) == (told.out, told.err)
    assert f"line {len(ROWS) + 1}" in found.err


def test_what_the_system_refuses_a_helper_is_told_as_ever(both: Crewed) -> None:
    both.write("in.csv", PLAIN)
    both.write("out.csv", "old")
    # The memory that processes share counts as a file, and has to be allowed.
    both.room, both.block = 1 << 20, 1 << 16
    command = both.command("in.csv", "-c", "b", "--alpha", "0.1", "-o", "out.csv")
    limited = ["sh", "-c", 'ulimit -f 6500; exec "$@"', "sh", *command]
    done = subprocess.run(
        limited, cwd=both.folder, env=both.environment, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (1, b"ema-smooth: out.csv: file too large\n")
    assert both.read("out.csv") == b"old"
    assert both.names() == ["in.csv", "out.csv"]


def test_a_reader_that_leaves_ends_it_by_sigpipe(both: Crewed) -> None:
    both.write("in.csv", PLAIN)
    process = both.start("in.csv", "-c", "b", "--alpha", "0.1")
    assert process.stdout is not None
    assert process.stdout.read(5) == b"a,b,b"
    process.stdout.close()
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (-signal.SIGPIPE, b"")


def helpers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """The helpers of a process, once it has them.

    Where they are spawned there is another child, the library's resource tracker, which is no more than a
    copy of the process at first.
    """
    assert isinstance(process.args, list)
    forked = process.args[7] == "1"

    def found() -> list[int]:
        started = [pid for pid in children(process.pid) if forked or b"spawn_main" in said(pid)]
        return started if len(started) == Crewed.helpers else []

    return wait_for(found)


def said(pid: int) -> bytes:
    """The command line of a process."""
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def blocked(crew: Crewed, *arguments: str) -> subprocess.Popen[bytes]:
    """A run that waits for its reader."""
    crew.write("in.csv", PLAIN)
    crew.block = 1 << 18
    process = crew.start("in.csv", "-c", "b", "--alpha", "0.1", *arguments)
    helpers_of(process)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whoever_ends_the_run_ends_all(number: signal.Signals, both: Crewed) -> None:
    process = blocked(both)
    started = children(process.pid)
    with process:
        process.send_signal(number)
        assert process.wait(60) == (130 if number == signal.SIGINT else -number)
        wait_for(lambda: all(map(is_gone, started)), 5)


def test_a_helper_that_is_killed_is_an_error(both: Crewed) -> None:
    process = blocked(both)
    started = children(process.pid)
    os.kill(helpers_of(process)[1], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (1, KILLED)
    wait_for(lambda: all(map(is_gone, started)), 5)
    both.write("out.csv", "old")
    process = long_run(both)
    os.kill(helpers_of(process)[0], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err, both.read("out.csv")) == (1, KILLED, b"old")
    assert both.names() == ["in.csv", "out.csv"]


KILLED = b"""\
ema-smooth: a process that shares the work was killed; is there too little memory?
  try: -j 1, for one process
"""


def long_run(crew: Crewed) -> subprocess.Popen[bytes]:
    """A run of some seconds into out.csv, in a session of its own."""
    crew.write("in.csv", PLAIN * 40)
    return subprocess.Popen(
        crew.command("in.csv", "-c", "b", "--alpha", "0.1", "--invalid", "missing", "-o", "out.csv"),
        cwd=crew.folder, env=crew.environment, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def test_ctrl_c_on_a_terminal_reaches_all_and_leaves_nothing(both: Crewed) -> None:
    process = long_run(both)
    helpers_of(process)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, b"")
    assert both.names() == ["in.csv"]


@pytest.mark.parametrize("error", [
    EmaError("p", "h"), OptionError("p"), DataError("p", Place("f", 3, "c"), "h"), FileTrouble("f", "p", "h"),
])  # fmt: skip
def test_errors_travel_between_processes(error: EmaError) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert (str(back), back.__dict__, back.args) == (str(error), error.__dict__, error.args)


def test_small_inputs_and_one_process_start_none(shop: Workshop) -> None:
    shop.write("small.csv", PLAIN)
    shop.write("large.csv", PLAIN * 12)
    for options in (("small.csv",), ("large.csv", "-j", "1", "--invalid", "missing")):
        with shop.start(*options, "-c", "b", "--alpha", "0.1") as process:
            assert process.stdout is not None
            process.stdout.read(1000)
            assert children(process.pid) == []
            process.stdout.read()
