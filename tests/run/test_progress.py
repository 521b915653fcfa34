"""The bar: what it says, when it is there, and that nothing of it is left."""

from __future__ import annotations

import gzip
import io
import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ema_cli.errors import Place
from ema_cli.formats.base import Batch
from ema_cli.io.atomic import total_size
from ema_cli.job import Summary
from ema_cli.run.progress import Progress, make_progress, size_text, time_text
from tests.conftest import SAMPLES, Workshop

ERASE = "\r\x1b[K"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def batch(size: int, rows: int = 10) -> Batch:
    nothing = np.empty((rows, 0))
    return Batch(rows, nothing, None, [], None, lambda _row, _column=None: Place(), 0, size)  # type: ignore[arg-type]


def see(bar: Progress, size: int) -> None:
    bar.saw(batch(size), np.empty((10, 0)))


def test_short_runs_show_nothing() -> None:
    out, clock = io.StringIO(), Clock()
    bar = Progress(out, 1000, clock=clock)
    clock.now = 1.9
    see(bar, 900)
    bar.end(Summary())
    assert out.getvalue() == ""


def test_runs_that_take_long_show_bytes_rate_and_time_left() -> None:
    out, clock = io.StringIO(), Clock()
    bar = Progress(out, 4_000_000, clock=clock)
    clock.now = 10.0
    see(bar, 1_000_000)
    assert out.getvalue() == f"{ERASE} 25% [######..................] 1 MB, 10 rows, 100 kB/s, 30 s left"


def test_large_inputs_show_at_once_and_draw_ten_times_a_second_at_most() -> None:
    out, clock = io.StringIO(), Clock()
    bar = Progress(out, 100 << 20, clock=clock)
    for step in range(1000):
        clock.now = step / 1000
        see(bar, step << 16)
    assert 9 <= out.getvalue().count(ERASE) <= 10


def test_it_is_gone_at_the_end() -> None:
    out = io.StringIO()
    bar = Progress(out, None, at_once=True, clock=Clock())
    see(bar, 5)
    bar.end(Summary())
    bar.erase()
    assert out.getvalue().endswith(ERASE)
    assert out.getvalue().count(ERASE) == 2


def test_of_a_pipe_there_is_no_total() -> None:
    assert "left" not in Progress(io.StringIO(), None).text(3.0)
    reader, writer = os.pipe()
    try:
        assert total_size([f"/dev/fd/{reader}"]) is None
    finally:
        os.close(reader)
        os.close(writer)


def test_total_is_that_of_all_inputs(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"12345")
    assert total_size([str(tmp_path / "a"), str(tmp_path / "b")]) == 10
    assert total_size([str(tmp_path / "a"), str(tmp_path / "c")]) is None


def test_there_is_none_where_stderr_is_no_terminal() -> None:
    assert make_progress(["-"], io.StringIO(), None) is None
    assert make_progress(["-"], None, True) is None
    assert make_progress(["-"], io.StringIO(), False) is None
    assert make_progress(["-"], io.StringIO(), True) is not None


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1234, "1.23 kB"), (999_999, "1 MB"), (5.5e13, "55 TB")]
)
def test_sizes_in_words(size: float, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (61, "1:01 min"), (3700, "1:01 h"), (-1, "0 s")])
def test_times_in_words(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


def on_terminal(
    command: list[str], folder: Path, environment: dict[str, str], *, both: bool = False
) -> tuple[int, str]:
    """Run a command whose stderr is a terminal, and its stdout too where `both` is wanted, else out.csv.

    Its exit code and what the terminal got.
    """
    parent, child = pty.openpty()
    with (folder / "out.csv").open("wb") as out:
        stdout = child if both else out
        process = subprocess.Popen(command, stdout=stdout, stderr=child, cwd=folder, env=environment)
    os.close(child)
    seen = b""
    while select.select([parent], [], [], 60)[0]:
        try:
            data = os.read(parent, 4096)
        except OSError:  # Linux: the other end is closed
            break
        if not data:
            break
        seen += data
    os.close(parent)
    return process.wait(), seen.decode()


def test_on_a_terminal_it_is_drawn_and_erased(shop: Workshop) -> None:
    command = shop.command(SAMPLES / "fx_rates.csv", "-c", "usd", "--alpha", "0.1", "--progress")
    code, seen = on_terminal(command, shop.folder, {**shop.environment, "TERM": "xterm"})
    assert code == 0
    assert "5,121 rows" in seen
    assert "100% [########" in seen
    assert seen.endswith(ERASE)
    plain = shop.run(SAMPLES / "fx_rates.csv", "-c", "usd", "--alpha", "0.1")
    assert shop.read("out.csv") == plain.out


def test_on_a_terminal_small_inputs_show_nothing(shop: Workshop) -> None:
    command = shop.command(SAMPLES / "fx_rates.csv", "-c", "usd", "--alpha", "0.1")
    assert on_terminal(command, shop.folder, {**shop.environment, "TERM": "xterm"}) == (0, "")


@pytest.mark.parametrize(
    ("where", "drawn"),
    [(("-o", "o.csv"), True), (("--output-dir", "out"), True), ((), False), (("-o", "-"), False)],
)
def test_the_bar_depends_on_where_the_data_goes(shop: Workshop, where: tuple[str, ...], drawn: bool) -> None:
    """At a terminal, which is stdout and stderr, as when somebody types a command."""
    code = "from ema_cli.run import progress; progress.PATIENCE = 0; from ema_cli.cli import main; main()"
    command = [
        sys.executable,
        "-c",
        code,
        str(SAMPLES / "fx_rates.csv"),
        "-c",
        "usd",
        "--alpha",
        "0.1",
        *where,
    ]
    environment = {**shop.environment, "TERM": "xterm"}
    exit_code, seen = on_terminal(command, shop.folder, environment, both=True)
    assert exit_code == 0
    assert ("100% [####" in seen) == drawn


def test_an_error_stands_on_a_line_of_its_own(shop: Workshop) -> None:
    rows = b"x\n" + b"1\n" * 70_000
    shop.write("bad.csv", rows + b"oops\n")
    command = shop.command("bad.csv", "--alpha", "0.1", "--progress")
    code, seen = on_terminal(command, shop.folder, {**shop.environment, "TERM": "xterm"})
    assert code == 1
    assert f"{ERASE}ema-smooth: bad.csv, line 70002" in seen


def test_asked_for_without_a_terminal_it_is_lines(shop: Workshop) -> None:
    done = shop.run(SAMPLES / "fx_rates.csv", "-c", "usd", "--alpha", "0.1", "--progress")
    assert done.err.splitlines()[-1].startswith("100% [####")
    assert "\x1b" not in done.err


def test_of_a_compressed_file_the_bytes_on_the_disk_count(shop: Workshop) -> None:
    text = (SAMPLES / "fx_rates.csv").read_bytes()
    packed = shop.write("fx.csv.gz", gzip.compress(text))
    done = shop.run(packed, "-c", "usd", "--alpha", "0.1", "--progress")
    assert f"] {size_text(packed.stat().st_size)}," in done.err.splitlines()[-1]


def test_of_a_pipe_it_says_bytes_and_rows(shop: Workshop) -> None:
    done = shop.run("--alpha", "0.1", "--progress", stdin=b"x\n1\n2\n")
    assert done.err.splitlines()[-1].startswith("6 B, 2 rows, ")


def test_a_batch_counts_its_files(shop: Workshop) -> None:
    for name in ("a", "b", "c"):
        shop.write(f"{name}.csv", "x\n1\n")
    files = ("a.csv", "b.csv", "c.csv")
    done = shop.run(*files, "--alpha", "0.1", "--output-dir", "out", "--progress")
    assert done.err.startswith(" 33% [########................] 4 B, 1 file, ")
    command = shop.command(*files, "--alpha", "0.1", "--output-dir", "out", "--progress", "-j", "2")
    code, seen = on_terminal(command, shop.folder, {**shop.environment, "TERM": "xterm"})
    assert code == 0
    assert seen.endswith(f"{ERASE}ema-smooth: out: 3 of 3 files written, 3 rows\r\n")
