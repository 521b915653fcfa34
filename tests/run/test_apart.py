"""A writer in a process of its own: the same bytes, the same errors, and nothing left behind."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ema_cli.errors import DataError, EmaError, FileTrouble, OptionError, Place
from tests.conftest import Workshop, children, wait_for

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="needs Linux and two cores"
)
# The real command, but that any input counts as large, and no room is enough for more than some rows.
FORCED = """
import sys
from ema_cli.process import set_process_defaults
set_process_defaults()
from ema_cli.run import apart, overlap
overlap.LARGE_INPUT = overlap.SMALL_INPUT = 0
apart.SLOT_BYTES = int(sys.argv.pop(1))
forks = []
made = apart.Apart.__init__
apart.Apart.__init__ = lambda self, sink: (forks.append(1), made(self, sink))[1]
from ema_cli import console
leave = console.leave
console.leave = lambda code: leave(code if forks else 99)
from ema_cli.cli import main
main()
"""


class Apart(Workshop):
    """Runs ema-smooth with its writer apart; exit code 99 if it was not."""

    room = 1 << 20

    def command(self, *arguments: str | os.PathLike[str]) -> list[str]:
        return [sys.executable, "-c", FORCED, str(self.room), *map(str, arguments)]


@pytest.fixture
def apart(tmp_path: Path) -> Apart:
    return Apart(tmp_path)


TABLES = {
    "plain": "a,b\n" + "".join(f"{k},{k % 13}.5\n" for k in range(200_000)),
    "quoted, CRLF, BOM": '\ufeffa,b\r\n"x, ""y""",1\r\n"two\nlines",2\r\n\r\nz,3',
    "gaps": "a,b\n" + "x,1\ny,\nz,NA\n" * 50_000,
    "long records": "a,b\n" + "".join(f"{'x' * 300_000},{k}\n" for k in range(9)),
    "no rows": "a,b\n",
}
OPTIONS = [
    (), ("--residual", "--std", "--fill"), ("--only",), ("--to", "tsv"), ("--digits", "2"), ("--by", "a"),
]  # fmt: skip


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_the_same_bytes(table: str, options: tuple[str, ...], apart: Apart, shop: Workshop) -> None:
    apart.write("in.csv", TABLES[table])
    arguments = ("in.csv", "-c", "b", "--alpha", "0.1", *options)
    expected = shop.run(*arguments).out
    no_rows = table == "no rows"
    for room in (64, 100_000, 1 << 20):
        apart.room = room
        assert apart.run(*arguments, code=None if no_rows else 0).out == expected
        apart.run(*arguments, "-o", "out.txt", code=None if no_rows else 0)
        assert apart.read("out.txt") == expected


def test_a_state_goes_on_and_parts_are_one_series(apart: Apart, shop: Workshop) -> None:
    lines = TABLES["plain"].splitlines(keepends=True)
    apart.write("1.csv", "".join(lines[:90_000]))
    apart.write("2.csv", lines[0] + "".join(lines[90_000:]))
    whole = shop.run("1.csv", "2.csv", "-c", "b", "--alpha", "0.1").out
    assert apart.run("1.csv", "2.csv", "-c", "b", "--alpha", "0.1").out == whole
    first = apart.run("1.csv", "-c", "b", "--alpha", "0.1", "--state", "s").out
    second = apart.run("2.csv", "--alpha", "0.1", "--state", "s").out
    assert first + second.split(b"\n", 1)[1] == whole


def test_rows_above_a_fault_are_written_and_the_fault_is_named(apart: Apart, shop: Workshop) -> None:
    apart.write("in.csv", TABLES["plain"] + "7,oops\n8,9\n")
    arguments = ("in.csv", "-c", "b", "--alpha", "0.1")
    told, found = shop.run(*arguments, code=1), apart.run(*arguments, code=1)
    assert (found.out, found.err) == (told.out, told.err)
    assert "line 200002" in found.err
    apart.write("out.csv", "old")
    apart.run(*arguments, "-o", "out.csv", code=1)
    assert apart.read("out.csv") == b"old"
    assert apart.names() == ["in.csv", "out.csv"]


def test_what_the_system_refuses_the_writer_is_told_as_ever(apart: Apart) -> None:
    apart.write("in.csv", TABLES["plain"])
    apart.write("out.csv", "old")
    command = apart.command("in.csv", "-c", "b", "--alpha", "0.1", "-o", "out.csv")
    limited = ["sh", "-c", 'ulimit -f 100; exec "$@"', "sh", *command]
    done = subprocess.run(
        limited, cwd=apart.folder, env=apart.environment, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (1, b"ema-smooth: out.csv: file too large\n")
    assert apart.read("out.csv") == b"old"
    assert apart.names() == ["in.csv", "out.csv"]


def test_a_reader_that_leaves_ends_it_by_sigpipe(apart: Apart) -> None:
    apart.write("in.csv", TABLES["plain"])
    process = apart.start("in.csv", "-c", "b", "--alpha", "0.1")
    assert process.stdout is not None
    assert process.stdout.read(5) == b"a,b,b"
    process.stdout.close()
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (-signal.SIGPIPE, b"")


def child_of(process: subprocess.Popen[bytes]) -> int:
    """The process that a process has forked, once it has."""
    return wait_for(lambda: children(process.pid), 6)[0]


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def blocked(apart: Apart, *arguments: str) -> tuple[subprocess.Popen[bytes], int]:
    """A run that waits for its reader, and its writer."""
    apart.write("in.csv", TABLES["plain"])
    process = apart.start("in.csv", "-c", "b", "--alpha", "0.1", *arguments)
    return process, child_of(process)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whoever_ends_the_run_ends_the_writer(number: signal.Signals, apart: Apart) -> None:
    process, writer = blocked(apart)
    with process:
        process.send_signal(number)
        assert process.wait(60) == (130 if number == signal.SIGINT else -number)
        wait_for(lambda: is_gone(writer), 5)


def test_a_writer_that_is_killed_is_an_error(apart: Apart) -> None:
    process, writer = blocked(apart)
    os.kill(writer, signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"the process that writes was killed" in err
    apart.write("out.csv", "old")
    process = long_run(apart)
    os.kill(child_of(process), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, apart.read("out.csv")) == (1, b"old")
    assert apart.names() == ["in.csv", "out.csv"]


def long_run(apart: Apart) -> subprocess.Popen[bytes]:
    """A run of some seconds into out.csv, in a session of its own."""
    apart.write("in.csv", TABLES["plain"] * 40)
    return subprocess.Popen(
        apart.command("in.csv", "-c", "b", "--alpha", "0.1", "--invalid", "missing", "-o", "out.csv"),
        cwd=apart.folder, env=apart.environment, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def test_ctrl_c_on_a_terminal_reaches_both_and_leaves_nothing(apart: Apart) -> None:
    process = long_run(apart)
    child_of(process)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, b"")
    assert apart.names() == ["in.csv"]


@pytest.mark.parametrize("error", [
    EmaError("p", "h"), OptionError("p"), DataError("p", Place("f", 3, "c"), "h"), FileTrouble("f", "p", "h"),
])  # fmt: skip
def test_errors_travel_between_processes(error: EmaError) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert (str(back), back.__dict__, back.args) == (str(error), error.__dict__, error.args)
