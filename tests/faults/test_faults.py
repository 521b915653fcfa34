"""What may happen to a run, done to real ones: killed, starved of disk, left by its reader, its input cut.

EMA_KILLS and EMA_KILL_MB set how often and over how large a file runs are killed (a few, 3 MB).
"""

from __future__ import annotations

import gzip
import os
import random
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Workshop, children, is_gone, wait_for

KILLS = int(os.environ.get("EMA_KILLS", "8"))
MEGABYTES = int(os.environ.get("EMA_KILL_MB", "3"))
needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="looks into /proc")
INTERRUPTS = [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130), (signal.SIGHUP, -signal.SIGHUP)]


def write_table(path: Path, megabytes: float, seed: int = 7) -> None:
    chance = random.Random(seed)
    rows = [
        f"{k},{chance.random():.6f},{chance.choice('abc')},{chance.gauss(0, 9):.3f}\n" for k in range(4000)
    ]
    block = "".join(rows)
    with path.open("w") as file:
        file.write("t,x,key,y\n")
        for _ in range(max(1, int(megabytes * 1e6 / len(block)))):
            file.write(block)


OPTIONS = [
    "in.csv",
    "-c",
    "x",
    "-c",
    "y",
    "--alpha",
    "0.05",
    "--std",
    "--by",
    "key",
    "--state",
    "state",
    "-o",
    "out.csv",
]


def finished(shop: Workshop) -> tuple[bytes, bytes, float]:
    """What an undisturbed run leaves after an earlier one: output, state, and how long it takes."""
    shop.write("first.csv", "t,x,key,y\n1,2,a,3\n")
    shop.run("first.csv", *OPTIONS[1:-2])
    before = shop.read("state")
    begin = time.perf_counter()
    shop.run(*OPTIONS)
    took = time.perf_counter() - begin
    out, after = shop.read("out.csv"), shop.read("state")
    shop.write("state", before)
    shop.write("out.csv", "old\n")
    return out, after, took


def check_halves(shop: Workshop, out: bytes, states: tuple[bytes, bytes]) -> bool:
    """Output and state are old or new, and never is the state ahead of the output. True if both are new."""
    found, state = shop.read("out.csv"), shop.read("state")
    assert found in (b"old\n", out), "a torn output"
    assert state in states, "a wrong state"
    assert not (state == states[1] and found != out), "a state without its output"
    return state == states[1]


def test_killed_at_any_moment_and_run_again(shop: Workshop) -> None:
    write_table(shop.folder / "in.csv", MEGABYTES)
    out, after, took = finished(shop)
    before = shop.read("state")
    chance = random.Random(11)
    for number in range(KILLS):
        with shop.start(*OPTIONS) as process:
            # Every other one in the last tenth, where output and state are put in place.
            time.sleep(took * (chance.uniform(0.9, 1.05) if number % 2 else chance.uniform(0, 1)))
            process.kill()
        if not check_halves(shop, out, (before, after)):
            shop.run(*OPTIONS)
            assert (shop.read("out.csv"), shop.read("state")) == (out, after)
        shop.write("state", before)
        shop.write("out.csv", "old\n")
        for litter in shop.folder.glob(".*.part"):  # the one thing that SIGKILL may leave
            litter.unlink()


@pytest.mark.parametrize(("number", "code"), INTERRUPTS, ids=["SIGTERM", "Ctrl-C", "SIGHUP"])
def test_interrupted_at_any_moment_leaves_no_litter(shop: Workshop, number: int, code: int) -> None:
    write_table(shop.folder / "in.csv", 3)
    out, after, took = finished(shop)
    before, names = shop.read("state"), shop.names()
    chance = random.Random(number)
    for _ in range(max(4, KILLS // 3)):
        with shop.start(*OPTIONS) as process:
            time.sleep(took * chance.uniform(0.15, 1.05))
            process.send_signal(number)
            begin = time.perf_counter()
            _, said = process.communicate(timeout=20)
            assert time.perf_counter() - begin < 2
        assert process.returncode in (0, code, -number)  # -number: while Python was still loading
        assert said == b"" or process.returncode == -number  # when it may say so itself
        # It may have been done when the signal came.
        assert check_halves(shop, out, (before, after)) or process.returncode != 0
        assert [
            name for name in shop.names() if name != "state.lock" or process.returncode == -number
        ] == names
        shop.write("state", before)
        shop.write("out.csv", "old\n")


@pytest.mark.parametrize(("number", "code"), INTERRUPTS, ids=["SIGTERM", "Ctrl-C", "SIGHUP"])
def test_a_live_pipe_is_interrupted_at_once(shop: Workshop, number: int, code: int) -> None:
    with shop.start("--alpha", "0.1", "--state", "s", "-o", "out.csv") as process:
        assert process.stdin is not None
        process.stdin.write(b"v\n1\n2\n")
        process.stdin.flush()
        wait_for(lambda: any(name.endswith(".part") for name in shop.names()))
        process.send_signal(number)
        begin = time.perf_counter()
        assert process.wait(10) == code
        assert time.perf_counter() - begin < 2
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert shop.names() == []


def test_an_interrupt_that_is_ignored_stays_so(shop: Workshop) -> None:
    """As under nohup, or a script's `&`."""
    command = ["sh", "-c", 'trap "" INT HUP; exec "$@"', "sh", *shop.command("--alpha", "0.1")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, bufsize=0, env=shop.environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"v\n1\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"v,v_ema\n"
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGHUP)
        out, _ = process.communicate(b"2\n", timeout=20)
    assert process.returncode == 0
    assert out == b"1,1.0\n2,1.1\n"


# -- disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 KB, where the test may make one."""
    where = tmp_path / "disk"
    where.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", where], capture_output=True, check=False
    ).returncode:
        pytest.skip("may not mount a file system")
    yield where
    subprocess.run(["umount", where], check=True)


@pytest.mark.parametrize(
    "name", ["out.csv", "out.csv.gz", "out.csv.zst", "out.csv.xz", "out.csv.bz2", "out.parquet"]
)
def test_a_full_disk_changes_nothing(shop: Workshop, small_disk: Path, name: str) -> None:
    # Nothing in it repeats, so that no compression makes it small.
    chance = random.Random(1)
    shop.write("in.csv", "x,y\n" + "".join(f"{chance.random()},{chance.random()}\n" for _ in range(20_000)))
    (small_disk / name).write_text("old\n")
    result = shop.run(
        "in.csv", "--alpha", "0.1", "-c", "x", "-c", "y", "-o", small_disk / name, "--state", "s", code=1
    )
    assert "no space left" in result.err
    assert name in result.err
    assert [(path.name, path.read_text()) for path in small_disk.iterdir()] == [(name, "old\n")]
    assert shop.names() == ["disk", "in.csv"]


def test_a_disk_too_full_for_the_state_keeps_the_output_old(shop: Workshop, small_disk: Path) -> None:
    """They change together or not at all, so that a rerun is right."""
    rows = "".join(f"{k},{k}\n" for k in range(40_000))
    shop.write("in.csv", "key,v\n" + rows)
    shop.write("out.csv", "old\n")
    arguments = ["in.csv", "--alpha", "0.1", "--by", "key", "-o", "out.csv", "--state", small_disk / "s"]
    result = shop.run(*arguments, code=1)
    assert "no space left" in result.err
    assert shop.read("out.csv") == b"old\n"
    assert list(small_disk.iterdir()) == []


def test_a_full_disk_in_a_batch(shop: Workshop, small_disk: Path) -> None:
    write_table(shop.folder / "large.csv", 2)
    shop.write("small.csv", "x\n1\n")
    result = shop.run(
        "large.csv", "small.csv", "--alpha", "0.1", "-c", "x", "--output-dir", small_disk / "out", code=1
    )
    assert "no space left" in result.err
    assert [path.name for path in (small_disk / "out").iterdir()] == ["small.csv"]


def test_dev_full(shop: Workshop) -> None:
    shop.write("in.csv", "v\n1\n")
    assert "no space left" in shop.run("in.csv", "--alpha", "0.1", "-o", "/dev/full", code=1).err


def test_a_read_only_folder(shop: Workshop, small_disk: Path) -> None:
    shop.write("in.csv", "v\n1\n")
    (small_disk / "out.csv").write_text("old\n")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for options in (
        ["-o", small_disk / "out.csv"],
        ["--state", small_disk / "s"],
        ["-o", "out.csv", "--state", small_disk / "s"],
        ["--output-dir", small_disk],
        ["--output-dir", small_disk / "new"],
    ):
        result = shop.run("in.csv", "--alpha", "0.1", *options, code=1)
        assert "read-only" in result.err
        assert result.out == b""
    assert (small_disk / "out.csv").read_text() == "old\n"
    assert shop.names() == ["disk", "in.csv"]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_without_permission(shop: Workshop) -> None:
    shop.write("in.csv", "v\n1\n")
    closed = shop.folder / "closed"
    closed.mkdir(mode=0o555)
    for options in (["-o", "closed/out.csv"], ["--state", "closed/s"], ["--output-dir", "closed"]):
        assert "permission denied" in shop.run("in.csv", "--alpha", "0.1", *options, code=1).err
    assert not list(closed.iterdir())


# -- pipes


def test_head_ends_it_without_a_word(shop: Workshop) -> None:
    write_table(shop.folder / "in.csv", 3)
    script = '"$@" | head -n 1; echo "${PIPESTATUS[0]}"'
    done = subprocess.run(
        ["bash", "-c", script, "bash", *shop.command("in.csv", "--alpha", "0.1", "-c", "x")],
        capture_output=True, cwd=shop.folder, env=shop.environment, check=True,
    )  # fmt: skip
    assert done.stdout == b"t,x,key,y,x_ema\n" + str(128 + signal.SIGPIPE).encode() + b"\n"
    assert done.stderr == b""


def test_the_write_that_finds_the_pipe_closed_is_the_last(shop: Workshop) -> None:
    """Not the one after it, which in a slow log may be hours later."""
    with shop.start("--alpha", "0.1", "--state", "s") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"v\n1\n")
        process.stdin.flush()
        assert process.stdout.readline() + process.stdout.readline() == b"v,v_ema\n1,1.0\n"
        process.stdout.close()
        process.stdin.write(b"2\n")
        process.stdin.flush()
        assert process.wait(10) == -signal.SIGPIPE
        process.stdin.close()
    assert shop.names() == []


@needs_proc
def test_a_reader_that_stops_reading(shop: Workshop) -> None:
    """Then nothing more is read either: memory stays as it is, and SIGTERM still ends it at once."""
    write_table(shop.folder / "in.csv", 30)
    with shop.start("in.csv", "--alpha", "0.1", "-c", "x") as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.5)
        first = resident(process.pid)
        time.sleep(0.5)
        assert resident(process.pid) <= first + (1 << 20)
        assert first < 250 << 20
        process.terminate()
        assert process.wait(5) == -signal.SIGTERM


def resident(process: int) -> int:
    pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def test_standard_streams_that_are_closed(shop: Workshop) -> None:
    """A file that is opened must not get the number of one of them, and messages into it."""
    shop.write("in.csv", "v\n1\n")
    for closed, code in (
        (">&-", 1),
        ("-o out.csv >&- 2>&- <&-", 0),
        ("-o out.csv -v 2>&-", 0),
        ("--state s >&-", 1),
    ):
        command = " ".join(shop.command("in.csv", "--alpha", "0.1")) + " " + closed
        done = subprocess.run(
            ["sh", "-c", command], capture_output=True, cwd=shop.folder, env=shop.environment, check=False
        )
        assert done.returncode == code, closed
        assert b"Traceback" not in done.stderr
    assert shop.read("out.csv") == b"v,v_ema\n1,1.0\n"
    assert shop.names() == ["in.csv", "out.csv"]
    command = " ".join(shop.command("--alpha", "0.1")) + " <&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, env=shop.environment, check=False)
    assert done.returncode == 1
    assert b"stdin" in done.stderr


# -- inputs


def test_an_input_cut_in_a_record(shop: Workshop) -> None:
    result = shop.run("--alpha", "0.1", "-c", "a", "--state", "s", stdin=b"a,b\n1,2\n3", code=1)
    assert "line 3" in result.err
    assert result.out == b"a,b,a_ema\n1,2,1.0\n"
    assert shop.names() == []


@pytest.mark.parametrize("cut", [5, 12, 3000, -5])
def test_an_input_cut_in_a_gzip_member(shop: Workshop, cut: int) -> None:
    text = "v\n" + "".join(f"{random.Random(k).random()}\n" for k in range(1000))
    shop.write("in.csv.gz", gzip.compress(text[:99].encode()) + gzip.compress(text[99:].encode())[:cut])
    shop.write("out.csv", "old\n")
    result = shop.run("in.csv.gz", "--alpha", "0.1", "-o", "out.csv", "--state", "s", code=1)
    assert "in.csv.gz" in result.err
    assert "cut short" in result.err
    assert shop.names() == ["in.csv.gz", "out.csv"]
    assert shop.read("out.csv") == b"old\n"


def test_an_input_that_becomes_shorter_while_it_is_read(shop: Workshop) -> None:
    write_table(shop.folder / "in.csv", 20)
    with shop.start("in.csv", "--alpha", "0.1", "-c", "x", "--state", "s") as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.truncate(shop.folder / "in.csv", 15_000_000)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"in.csv: became shorter" in said
    assert shop.names() == ["in.csv"]


def test_an_input_that_vanishes_or_grows_while_it_is_read(shop: Workshop) -> None:
    """What is open stays readable; what is appended in time is read too, as by cat."""
    write_table(shop.folder / "in.csv", 20)
    whole = shop.read("in.csv") + b"4000,0.5,a,1.5\n"
    shop.write("whole.csv", whole)
    expected = shop.run("whole.csv", "--alpha", "0.1", "-c", "x").out
    with shop.start("in.csv", "--alpha", "0.1", "-c", "x") as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        with (shop.folder / "in.csv").open("ab") as file:
            file.write(b"4000,0.5,a,1.5\n")
        (shop.folder / "in.csv").unlink()
        out = process.stdout.read()
        assert process.wait(60) == 0
    assert first + out == expected


# -- outputs


def test_onto_its_own_input(shop: Workshop) -> None:
    write_table(shop.folder / "in.csv", 3)
    expected = shop.run("in.csv", "--alpha", "0.1", "-c", "x").out
    shop.run("in.csv", "--alpha", "0.1", "-c", "x", "-o", "in.csv")
    assert shop.read("in.csv") == expected
    shop.write("bad.csv", "v\n1\nx\n")
    shop.run("bad.csv", "--alpha", "0.1", "-o", "bad.csv", code=1)
    assert shop.read("bad.csv") == b"v\n1\nx\n"
    assert shop.names() == ["bad.csv", "in.csv"]


def test_onto_a_symlink_and_keeping_the_mode(shop: Workshop) -> None:
    shop.write("in.csv", "v\n1\n")
    target = shop.write("folder/target.csv", "old\n")
    target.chmod(0o640)
    owner = (12, 34) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(target, *owner)
    (shop.folder / "link").symlink_to("folder/target.csv")
    (shop.folder / "dangling").symlink_to("folder/new.csv")
    shop.run("in.csv", "--alpha", "0.1", "-o", "link")
    shop.run("in.csv", "--alpha", "0.1", "-o", "dangling")
    assert (shop.folder / "link").is_symlink()
    assert (shop.folder / "dangling").is_symlink()
    assert shop.read("folder/target.csv") == shop.read("folder/new.csv") == b"v,v_ema\n1,1.0\n"
    found = target.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o640, *owner)
    assert sorted(path.name for path in (shop.folder / "folder").iterdir()) == ["new.csv", "target.csv"]


def test_a_new_file_has_the_mode_that_the_umask_leaves(shop: Workshop) -> None:
    shop.write("in.csv", "v\n1\n")
    command = "umask 027; " + " ".join(
        shop.command("in.csv", "--alpha", "0.1", "-o", "out.csv", "--state", "s")
    )
    subprocess.run(["sh", "-c", command], cwd=shop.folder, env=shop.environment, check=True)
    assert stat.S_IMODE((shop.folder / "out.csv").stat().st_mode) == 0o640
    assert stat.S_IMODE((shop.folder / "s").stat().st_mode) == 0o640


def test_onto_a_fifo_and_dev_null(shop: Workshop) -> None:
    shop.write("in.csv", "v\n1\n")
    fifo = shop.folder / "fifo"
    os.mkfifo(fifo)
    with shop.start("in.csv", "--alpha", "0.1", "-o", "fifo") as process, fifo.open("rb") as reader:
        assert reader.read() == b"v,v_ema\n1,1.0\n"
        assert process.wait(10) == 0
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    shop.run("in.csv", "--alpha", "0.1", "-o", "/dev/null")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    shop.run("in.csv", "--alpha", "0.1", "-o", shop.folder, code=1)


def test_a_name_as_long_as_names_can_be(shop: Workshop) -> None:
    name = "ü" * 120 + ".csv"
    shop.write("in.csv", "v\n1\n")
    shop.run("in.csv", "--alpha", "0.1", "-o", name)
    assert shop.names() == ["in.csv", name]


# -- batches


@pytest.mark.parametrize(("number", "code"), INTERRUPTS, ids=["SIGTERM", "Ctrl-C", "SIGHUP"])
@pytest.mark.parametrize("jobs", ["1", "3"])
@needs_proc
def test_a_batch_is_interrupted_with_all_its_workers(
    shop: Workshop, number: int, code: int, jobs: str
) -> None:
    for k in range(4):
        write_table(shop.folder / f"{k}.csv", 8, seed=k)
    with shop.start(
        *[f"{k}.csv" for k in range(4)], "-c", "x", "--alpha", "0.1", "--output-dir", "out", "-j", jobs
    ) as process:
        expected = 0 if jobs == "1" else 3
        # They start one after another, and the first is at work before the last is there.
        wait_for(lambda: list(shop.folder.glob("out/.*.part")) and len(children(process.pid)) == expected)
        workers = children(process.pid)
        process.send_signal(number)
        assert process.wait(10) == code
        _, said = process.communicate()
    assert said == b""
    assert not list(shop.folder.glob("out/.*"))
    assert all(map(is_gone, workers))


@needs_proc
def test_workers_go_when_their_parent_is_killed(shop: Workshop) -> None:
    for k in range(3):
        write_table(shop.folder / f"{k}.csv", 2, seed=k)
    with shop.start(
        "0.csv", "1.csv", "2.csv", "-c", "x", "--alpha", "0.1", "--output-dir", "out", "-j", "2"
    ) as process:
        wait_for(lambda: len(children(process.pid)) == 2)
        workers = children(process.pid)
        process.kill()
    wait_for(lambda: all(map(is_gone, workers)))


def has_open(process: int, path: Path) -> bool:
    try:
        return path in {link.readlink() for link in Path(f"/proc/{process}/fd").iterdir()}
    except OSError:  # it is at work, or gone
        return False


@needs_proc
def test_a_worker_that_is_killed_costs_its_file_only(shop: Workshop) -> None:
    fifo = shop.folder / "0.csv"
    os.mkfifo(fifo)
    for k in range(1, 6):
        shop.write(f"{k}.csv", f"x\n{k}\n")
    names = [f"{k}.csv" for k in range(6)]
    held = os.open(fifo, os.O_RDWR)  # or whoever opens it would wait, and could not be told from the other
    with shop.start(*names, "--alpha", "0.1", "--output-dir", "out", "-j", "2") as process:
        wait_for(lambda: len(list(shop.folder.glob("out/[1-5].csv"))) == 5)
        (waiting,) = (worker for worker in children(process.pid) if has_open(worker, fifo))
        os.kill(waiting, signal.SIGKILL)
        _, said = process.communicate(timeout=20)
    os.close(held)
    assert process.returncode == 1
    assert b"0.csv: its process was killed" in said
    assert b"5 of 6 files written" in said


def test_a_pipe_that_somebody_has_made_non_blocking(shop: Workshop) -> None:
    """When nothing is there yet it is not at its end; and one that is full takes more later."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    command = shop.command("--alpha", "0.1")
    with subprocess.Popen(command, stdin=reader, stdout=subprocess.PIPE, env=shop.environment) as process:
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        time.sleep(0.3)
        os.write(writer, b"v\n1\n")
        time.sleep(0.1)
        os.write(writer, b"2\n")
        os.close(writer)
        os.close(reader)
        assert process.wait(20) == 0
        assert process.stdout.read() == b"v,v_ema\n1,1.0\n2,1.1\n"
