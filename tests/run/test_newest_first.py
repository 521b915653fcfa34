"""`--newest-first`: the numbers of the reversed table, in the input's order, whatever the input is."""

from __future__ import annotations

import gzip
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from ema_cli.average import make_average
from ema_cli.formats.text import source as text_source
from ema_cli.job import Job
from ema_cli.run.pipeline import run
from tests.conftest import Workshop

HEADER = "t,key,a,b\n"
MODES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({"alpha": ["0.2"], "std": True}, {}),
    "several weights": ({"alpha": ["0.1", "0.7"], "adjust": True, "residual": True}, {}),
    "decay": ({"span": ["9"], "missing": "decay", "fill": True}, {}),
    "sma": ({"span": ["9"], "init": "sma"}, {"by": ("key",)}),
    "auto": ({"alpha": ["auto"]}, {}),
    "time": ({"halflife": ["40s"]}, {"time": "t", "time_unit": "s"}),
    "time by key": ({"halflife": ["40s"], "adjust": True}, {"time": "t", "time_unit": "s", "by": ("key",)}),
    "late": ({"alpha": ["0.2"]}, {"order": "a", "late": "skip", "by": ("key",), "columns": ("b",)}),
}


def table(count: int, seed: int) -> list[str]:
    """Rows in falling order of time, with gaps and equal times."""
    chance, now, rows = random.Random(seed), 0, []
    for _ in range(count):
        now += chance.choice([0, 1, 7, 30])
        cells = [repr(chance.gauss(5, 3)), "" if chance.random() < 0.15 else repr(chance.gauss(5, 3))]
        rows.append(f"{now},{chance.choice('pq')},{','.join(cells)}\n")
    return rows[::-1]


def job(mode: str, source: Path, target: Path, **more: Any) -> Job:
    average, options = MODES[mode]
    options = {"columns": ("a", "b")} | options | more
    inputs = options.pop("inputs", (str(source),))
    return Job(make_average(average, timed="time" in options), inputs, output=str(target), **options)


def smoothed(mode: str, rows: list[str], folder: Path, **more: Any) -> list[str]:
    (folder / "in.csv").write_text(HEADER + "".join(rows))
    run(job(mode, folder / "in.csv", folder / "out.csv", **more))
    return (folder / "out.csv").read_text().splitlines(keepends=True)[1:]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("block", [1 << 20, 700])
def test_it_is_the_reversed_table(
    mode: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_source, "BLOCK_BYTES", block)
    rows = table(400, 1)
    assert smoothed(mode, rows, tmp_path, newest_first=True) == smoothed(mode, rows[::-1], tmp_path)[::-1]


def test_more_rows_than_are_held_at_once(tmp_path: Path) -> None:
    rows = table(150_000, 2)
    assert (
        smoothed("plain", rows, tmp_path, newest_first=True) == smoothed("plain", rows[::-1], tmp_path)[::-1]
    )


@pytest.mark.parametrize("mode", ["plain", "time by key", "late"])
def test_pieces_through_a_state(mode: str, tmp_path: Path) -> None:
    """Older rows first: the last piece of the table is smoothed first."""
    rows = table(300, 3)
    whole = smoothed(mode, rows, tmp_path, newest_first=True)
    found: list[str] = []
    for begin, end in [(200, 300), (199, 200), (80, 199), (0, 80)]:
        found[:0] = smoothed(
            mode, rows[begin:end], tmp_path, newest_first=True, state=str(tmp_path / "state")
        )
    assert found == whole


def test_parts_of_one_series(tmp_path: Path) -> None:
    rows = table(300, 4)
    whole = smoothed("time by key", rows, tmp_path, newest_first=True)
    names = []
    for k, (begin, end) in enumerate([(0, 100), (100, 101), (101, 300)]):
        (tmp_path / f"{k}.csv").write_text(HEADER + "".join(rows[begin:end]))
        names.append(str(tmp_path / f"{k}.csv"))
    run(job("time by key", tmp_path, tmp_path / "out.csv", inputs=tuple(names), newest_first=True))
    assert (tmp_path / "out.csv").read_text().splitlines(keepends=True)[1:] == whole


@pytest.mark.parametrize("to", ["csv", "parquet"])
def test_parquet_is_text(to: str, tmp_path: Path) -> None:
    rows = table(2_000, 5)
    average = replace(job("plain", tmp_path / "in.csv", tmp_path / "o.parquet"), newest_first=True)
    (tmp_path / "in.csv").write_text(HEADER + "".join(rows))
    read = pa.csv.read_csv(tmp_path / "in.csv")
    pq.write_table(read, tmp_path / "in.parquet", row_group_size=300)
    run(average)
    expected = pq.read_table(tmp_path / "o.parquet")
    target = tmp_path / f"p.{to}"
    run(replace(average, inputs=(str(tmp_path / "in.parquet"),), output=str(target)))
    found = pa.csv.read_csv(target) if to == "csv" else pq.read_table(target)
    for name in ("a_ema", "a_std", "b_ema", "b_std"):
        one, other = (t[name].to_numpy(zero_copy_only=False) for t in (expected, found))
        assert np.array_equal(one, other, equal_nan=True)
    assert found["t"].to_pylist() == read["t"].to_pylist()


def test_pipes_and_compressed_files(shop: Workshop) -> None:
    rows = table(120, 6)
    data = (HEADER + "".join(rows)).encode()
    shop.write("in.csv", data)
    shop.write("in.csv.gz", gzip.compress(data))
    options = ["--newest-first", "-c", "a", "--alpha", "0.3"]
    whole = shop.run("in.csv", *options)
    assert shop.run("in.csv.gz", *options).out == whole.out
    assert shop.run(*options, stdin=gzip.compress(data)).out == whole.out
    child = shop.start(*options)
    assert child.stdin is not None
    for line in data.splitlines(keepends=True):
        child.stdin.write(line)
        child.stdin.flush()
        time.sleep(0.001)
    assert child.communicate(timeout=60) == (whole.out, b"")
    shop.run("in.csv", *options, "-o", "in.csv")
    assert shop.read("in.csv") == whole.out
    assert shop.names() == ["in.csv", "in.csv.gz"]


def test_what_is_wrong_is_told_by_its_place_and_nothing_is_written(shop: Workshop) -> None:
    options = ["--newest-first", "--halflife", "1h", "--time", "t", "-c", "v"]
    shop.write("up.csv", "t,v\n2021-01-01,1\n2021-01-02,2\n2021-01-03,3\n")
    failed = shop.run("up.csv", *options, code=1)
    assert "up.csv, line 3, column 't': the time goes backwards" in failed.err
    assert "no --newest-first" in failed.err
    assert failed.out == b""
    shop.write("bad.csv", "t,v\n2021-01-03,1\n\n2021-01-02,x\n2021-01-01,3\n")
    failed = shop.run("bad.csv", *options, "-o", "out.csv", code=1)
    assert "bad.csv, line 4, column 'v': not a number: 'x'" in failed.err
    shop.write("gap.csv", "t,v\n2021-01-03,\n2021-01-02,2\n2021-01-01,\n")
    failed = shop.run("gap.csv", *options, "--missing", "error", code=1)
    assert "gap.csv, line 4, column 'v': a missing value" in failed.err
    assert shop.names() == ["bad.csv", "gap.csv", "up.csv"]
    late = shop.run("up.csv", *options, "--late", "skip")
    assert late.out == b"t,v,v_ema\n2021-01-01,1,\n2021-01-02,2,\n2021-01-03,3,3.0\n"
    assert (
        "2 rows left out, where it goes back; the first: up.csv, line 3, column 't': '2021-01-02'" in late.err
    )


def test_what_goes_with_it(shop: Workshop) -> None:
    shop.write("a.csv", "t,v\n2,1\n1,2\n")
    chained = shop.run("a.csv", "--newest-first", "--alpha", "1", "--output-dir", "o", "--chain", code=2)
    assert "--chain" in chained.err
    shop.run("a.csv", "--newest-first", "-c", "v", "--alpha", "0.5", "--output-dir", "o")
    assert shop.read("o/a.csv") == b"t,v,v_ema\n2,1,1.5\n1,2,2.0\n"
    assert shop.run("--newest-first", "-c", "v", "--alpha", "1", stdin=b"t,v\n").out == b"t,v,v_ema\n"
    said = shop.run("a.csv", "--newest-first", "-c", "v", "--alpha", "0.5", "--plot", "-", "-v")
    assert "2 rows, 0 missing cells" in said.err
