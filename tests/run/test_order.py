"""Rows that go back, hours that come twice, rows without a time: by a plain loop, however they are cut."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ema_cli.average import make_average
from ema_cli.engine.engine import KeyedRows
from ema_cli.formats.base import Clock
from ema_cli.job import Job
from ema_cli.keys import KeyTable
from ema_cli.run.order import LateError, RowOrder
from ema_cli.run.pipeline import run
from tests.conftest import Workshop

HOUR = 3600 * 10**9


def look(
    order: RowOrder, rows: list[tuple[int, str]], table: KeyTable, **clock: np.ndarray
) -> tuple[list[bool], np.ndarray | None]:
    """Late rows and the times meant, of rows that are remembered."""
    keys = table.encode([pa.array([key for _, key in rows])]) if rows else None
    times = np.array([value for value, _ in rows], np.int64)
    found = order.look(times, Clock(**clock), keys, len(rows))
    found.accept()
    return ([False] * len(rows) if found.late is None else found.late.tolist()), found.times


def cut(rows: list[tuple[int, str]], places: list[int]) -> list[slice]:
    places = sorted({0, len(rows), *(place % (len(rows) + 1) for place in places)})
    return [slice(a, b) for a, b in pairwise(places)]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(-3, 3), st.sampled_from("abc")), max_size=30),
    st.lists(st.integers(0, 30), max_size=4),
    st.sampled_from(["skip", "restart"]),
    st.booleans(),
)
def test_late_rows_are_what_a_loop_says(
    rows: list[tuple[int, str]], places: list[int], late: str, by_state: bool
) -> None:
    last: dict[str, int] = {}
    expected = []
    for value, key in rows:
        expected.append(value < last.get(key, value))
        last[key] = value if late == "restart" else max(value, last.get(key, value))
    order, table, found = RowOrder(late, of_times=True, zoned=False), KeyTable(), []
    for piece in cut(rows, places):
        found += look(order, rows[piece], table)[0]
        if by_state:
            state, order = order.state(), RowOrder(late, of_times=True, zoned=False)
            order.restore(state)
    assert found == expected


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(-2, 9), st.sampled_from("ab")), max_size=30),
    st.lists(st.integers(0, 30), max_size=4),
)
def test_the_second_reading_is_what_a_loop_says(rows: list[tuple[int, str]], places: list[int]) -> None:
    """Quarters of an hour; those from 0 to 3 come twice."""
    last: dict[str, int] = {}
    reading: dict[str, bool] = {}
    expected = []
    for quarter, key in rows:
        before = last.get(key, -99)
        if not 0 <= quarter < 4:
            reading[key] = False
        elif quarter <= before:
            reading[key] = True
        elif not 0 <= before < 4:
            reading[key] = False
        last[key] = quarter
        expected.append(quarter + 4 * reading[key])
    order, table, found = RowOrder("error", of_times=True, zoned=True), KeyTable(), []
    for piece in cut(rows, places):
        part = [(quarter * HOUR // 4, key) for quarter, key in rows[piece]]
        later = np.array([HOUR if 0 <= quarter < 4 else 0 for quarter, _ in rows[piece]], np.int64)
        times = look(order, part, table, later=later)[1]
        assert times is not None
        found += (times // (HOUR // 4)).tolist()
    assert found == expected


def test_an_error_remembers_nothing() -> None:
    order = RowOrder("error", of_times=False, zoned=False)
    steps = np.array([1.0, 5.0])
    order.look(None, Clock(order=steps), None, 2).accept()
    with pytest.raises(LateError) as caught:
        order.look(None, Clock(order=np.array([5.0, 6.0, 2.0])), None, 3)
    assert caught.value.row == 2
    again = order.look(None, Clock(order=np.array([5.0])), None, 1)
    assert again.late is None
    keys = KeyedRows(np.array([1, 0], np.uint16), np.array([0, 7]))
    order.look(None, Clock(order=np.array([1.0, 6.0])), keys, 2).accept()
    assert order.state()["last"].tolist() == [6.0, 0, 0, 0, 0, 0, 0, 1.0]


# -- the command


def table(seed: int, rows: int = 300) -> list[str]:
    """Rows of two keys: steps that go back, times of an autumn night, some of them missing."""
    chance, out = random.Random(seed), []
    minutes = {"a": 0, "b": 17}
    for k in range(rows):
        key = chance.choice("ab")
        minutes[key] += chance.choice([0, 3, 11, 20])
        local = minutes[key] - (60 if minutes[key] > 180 else 0) + 24 * 60 * 30 + 22 * 60
        stamp = f"{local // 1440:02d}.10.2021 {local // 60 % 24:02d}:{local % 60:02d}"
        stamp = chance.choice([stamp] * 9 + ["?"])
        step = k // 2 if chance.random() > 0.1 else chance.randrange(k + 1)
        cell = "" if chance.random() < 0.1 else f"{chance.gauss(3, 2):.4f}"
        out.append(f"{stamp},{step},{key},{cell}\n")
    return out


HEADER = "t,step,k,v\n"
ZONED = {"time": "t", "time_format": "%d.%m.%Y %H:%M", "time_zone": "Europe/Berlin", "invalid": "missing"}
MODES: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "steps, skipped": ({"alpha": ["0.3"], "std": True}, {"order": "step", "late": "skip"}),
    "steps, skipped, decay": ({"alpha": ["0.3"], "missing": "decay"}, {"order": "step", "late": "skip"}),
    "steps by key": ({"span": ["5"], "fill": True}, {"order": "step", "late": "skip", "by": ("k",)}),
    "clock by key": ({"halflife": ["20min"], "fill": True}, ZONED | {"by": ("k",), "late": "skip"}),
    "steps, afresh": ({"span": ["5"], "std": True}, {"order": "step", "late": "restart"}),
    "steps by key, afresh": (
        {"alpha": ["0.3"], "missing": "decay", "adjust": True, "fill": True},
        {"order": "step", "late": "restart", "by": ("k",)},
    ),
    "clock by key, afresh": ({"halflife": ["20min"]}, ZONED | {"by": ("k",), "late": "restart"}),
    "clock": ({"halflife": ["20min"], "adjust": True}, ZONED | {"late": "skip"}),
}


def job(mode: str, **more: object) -> Job:
    average, options = MODES[mode]
    return Job(make_average(average, timed="time" in options), columns=("v",), **(options | more))  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(3))
def test_pieces_through_a_state_are_one_run(mode: str, seed: int, tmp_path: Path) -> None:
    rows, chance = table(seed), random.Random(seed)
    (tmp_path / "all.csv").write_text(HEADER + "".join(rows))
    whole = replace(job(mode), inputs=(str(tmp_path / "all.csv"),), output=str(tmp_path / "whole.csv"))
    run(whole)
    joined = b""
    for piece in cut([(0, "")] * len(rows), [chance.randrange(len(rows)) for _ in range(5)]):
        (tmp_path / "piece.csv").write_text(HEADER + "".join(rows[piece]))
        target = str(tmp_path / "out.csv")
        part = replace(whole, inputs=(str(tmp_path / "piece.csv"),), output=target)
        run(replace(part, state=str(tmp_path / "state")))
        joined += Path(target).read_bytes().split(b"\n", 1)[1]
    assert joined == (tmp_path / "whole.csv").read_bytes().split(b"\n", 1)[1]


def test_a_slow_pipe_is_a_file(shop: Workshop) -> None:
    rows = table(9, 60)
    shop.write("all.csv", HEADER + "".join(rows))
    options = ["-c", "v", "--by", "k", "--time", "t", "--time-format", "%d.%m.%Y %H:%M"]
    options += ["--time-zone", "Europe/Berlin", "--invalid", "missing", "--late", "skip", "--halflife", "1h"]
    whole = shop.run("all.csv", *options)
    child = shop.start(*options)
    assert child.stdin is not None
    for row in [HEADER, *rows]:
        child.stdin.write(row.encode())
        child.stdin.flush()
        time.sleep(0.002)
    out, err = child.communicate(timeout=60)
    assert out == whole.out
    assert whole.err.replace("all.csv", "stdin") == err.decode()


def test_a_row_without_a_time_is_as_if_it_were_not_there(shop: Workshop) -> None:
    rows = table(4)
    sound = [row for row in rows if not row.startswith("?")]
    options = ["--only", "-c", "v", "--by", "k", "--time", "t", "--time-format", "%d.%m.%Y %H:%M"]
    options += ["--time-zone", "Europe/Berlin", "--late", "skip", "--halflife", "1h", "--std"]
    shop.write("all.csv", HEADER + "".join(rows))
    shop.write("sound.csv", HEADER + "".join(sound))
    found = shop.run("all.csv", *options, "--invalid", "missing")
    lines = found.out.splitlines()
    assert [line for line in lines if not line.startswith(b"?")] == shop.run(
        "sound.csv", *options
    ).out.splitlines()
    assert all(line.endswith(b",,") for line in lines if line.startswith(b"?"))
    assert "rows without a time left out; the first: all.csv, line" in found.err
    assert "'?'" in found.err


def test_order_by_parquet(shop: Workshop) -> None:
    steps = pa.table({"step": [1, 2, 1, 3], "v": [4.0, 2.0, 100.0, 1.0]})
    pq.write_table(steps, shop.folder / "s.parquet")
    done = shop.run("s.parquet", "--order", "step", "--late", "skip", "--alpha", "0.5")
    assert done.out == b"step,v,v_ema\n1,4.0,4.0\n2,2.0,3.0\n1,100.0,\n3,1.0,2.0\n"
    assert "s.parquet, row 3, column 'step': '1'" in done.err
    failed = shop.run("s.parquet", "--order", "step", "--alpha", "0.5", code=1)
    assert "row 3, column 'step': '1' goes backwards" in failed.err
    days = pa.table({"d": pa.array([3, 2, 4], pa.date32()), "v": [1.0, 2.0, 3.0]})
    pq.write_table(days, shop.folder / "d.parquet")
    done = shop.run("d.parquet", "--order", "d", "--late", "skip", "--alpha", "0.5", "--only")
    assert done.out == b"v_ema\n1.0\n\n2.0\n"
    assert "'1970-01-03'" in done.err


def test_dates_are_an_order_too(shop: Workshop) -> None:
    shop.write("d.csv", "day,v\n2021-01-02,1\n2021-01-01,5\n2021-01-03,3\n")
    done = shop.run("d.csv", "--order", "day", "--late", "skip", "--alpha", "0.5")
    assert done.out == b"day,v,v_ema\n2021-01-02,1,1.0\n2021-01-01,5,\n2021-01-03,3,2.0\n"
    shop.write("m.csv", "step,v\n1,1\n,5\n,\n2,3\n")
    done = shop.run("m.csv", "--order", "step", "--alpha", "0.5", code=1)
    assert "line 3, column 'step': missing" in done.err
    done = shop.run("m.csv", "--order", "step", "--alpha", "0.5", "--invalid", "missing")
    assert done.out == b"step,v,v_ema\n1,1,1.0\n,5,\n,,\n2,3,2.0\n"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--late", "skip"], "late by which column"),
        (["--time-format", "%Y"], "without --time"),
        (["--time-unit", "s"], "without --time"),
        (["--order", "a", "--time-unit", "s"], "without --time"),
        (["--time", "a", "--time", "b", "--time", "c"], "three times"),
        (["--time", "a", "--time", "b", "--time-unit", "s"], "two columns"),
        (["--time", "a", "--order", "b"], "ordered by that"),
        (["--time", "a", "--time-format", "%Q"], "%Q is not read"),
        (["--time", "a", "--time-unit", "s", "--time-format", "%Y"], "--time-format of text"),
        (["--time", "a", "--time-zone", "Mars"], "no such time zone"),
    ],
)
def test_options_that_do_not_fit_together(shop: Workshop, options: list[str], says: str) -> None:
    shop.write("m.csv", "a,b\n1,2\n")
    weight = ["--halflife", "1s"] if "--time" in options else ["--alpha", "0.1"]
    done = shop.run("m.csv", *weight, *options, code=2)
    assert says in done.err
    assert done.out == b""


def test_times_of_a_text_keep_their_kind_in_parquet(shop: Workshop) -> None:
    """Without a zone they are a wall clock's, as they stand; one column can't hold both kinds."""
    options = ["-c", "v", "--time", "t", "--halflife", "1h", "-o", "o.parquet"]
    shop.write("m.csv", "t,v\n,\n2021-10-31 02:30,1\n2021-10-31 02:30,2\nx,3\n")
    shop.run("m.csv", *options, "--time-zone", "Europe/Berlin", "--invalid", "missing")
    found = pq.read_table(shop.folder / "o.parquet")
    assert found.schema.field("t").type == pa.timestamp("ns")
    assert found["t"].cast(pa.string()).to_pylist() == [None, *["2021-10-31 02:30:00.000000000"] * 2, None]
    assert found["v_ema"].to_pylist() == [None, 1.0, 1.5, None]
    shop.write("z.csv", "t,v\n2021-10-31T02:30Z,1\n2021-10-31T03:30+00:00,2\n")
    shop.run("z.csv", *options)
    assert pq.read_table(shop.folder / "o.parquet").schema.field("t").type == pa.timestamp("ns", "UTC")
    shop.write("b.csv", "t,v\n2021-10-31 02:30,1\n2021-10-31T03:30Z,2\n")
    failed = shop.run("b.csv", *options, code=1)
    assert "b.csv, line 3, column 't': '2021-10-31T03:30Z' names its zone" in failed.err
    shop.write("d.csv", "d,t,v\n2021-10-31,02:30,1\n")
    shop.run("d.csv", "--time", "d", *options)
    assert pq.read_table(shop.folder / "o.parquet").schema.field("d").type == pa.string()


@pytest.mark.parametrize("by", [(), ("k",)])
def test_a_series_that_begins_afresh_is_one_of_its_own(by: tuple[str, ...], tmp_path: Path) -> None:
    """As if a further key were counted up with every step that goes back."""
    rows, numbered = table(7), []
    last: dict[str, int] = {}
    number: dict[str, int] = {}
    for row in rows:
        _, step, key, _ = row.split(",")
        key = key if by else ""
        number[key] = number.get(key, 0) + (int(step) < last.get(key, 0))
        last[key] = int(step)
        numbered.append(f"{number[key]},{row}")
    average = make_average({"span": ["5"], "std": True, "init": "sma", "fill": True}, timed=False)
    outputs = []
    for name, header, lines, options in (
        ("a", HEADER, rows, {"order": "step", "late": "restart", "by": by}),
        ("b", "n," + HEADER, numbered, {"by": ("n", *by)}),
    ):
        (tmp_path / name).write_text(header + "".join(lines))
        target = tmp_path / f"{name}.out"
        done = run(Job(average, (str(tmp_path / name),), output=str(target), columns=("v",), **options))  # type: ignore[arg-type]
        outputs.append([line.rsplit(",", 2)[1:] for line in target.read_text().splitlines()])
        assert bool(done.notes) is (name == "a")
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize(
    "options",
    [
        ["--order", "a", "--late", "skip", "--alpha", "0.1"],
        ["--newest-first", "--alpha", "0.1"],
        ["--time", "a", "--time-unit", "s", "--late", "restart", "--halflife", "1s"],
        ["--time", "a", "--time-zone", "Europe/Berlin", "--halflife", "1s"],
    ],
)
def test_what_a_cluster_is_not_told_of_is_refused(shop: Workshop, options: list[str]) -> None:
    pytest.importorskip("distributed")
    shop.write("m.csv", "a,b\n1,2\n")
    done = shop.run("m.csv", *options, "--output-dir", "o", "--chain", "--dask", "local:1", code=2)
    assert "which --dask with --chain does not do" in done.err or "--newest-first" in done.err
    assert shop.names() == ["m.csv"]
