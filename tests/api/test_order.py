"""`order=`, `late=`, `time_format=`, `time_zone=`: as the command does, however the rows are cut."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ema_cli import Smoother, smooth
from ema_cli.api.chunks import LARGE_TILE
from ema_cli.errors import StateError

NAN = np.nan
STEPS = [1, 2, 4, 3, 5]
X = [1.0, 5.0, 3.0, 100.0, 3.0]


def test_a_row_that_goes_back() -> None:
    with pytest.raises(ValueError, match=r"row 3 .*: the order goes backwards(.|\n)*late='skip'"):
        smooth(X, alpha=0.5, order=STEPS)
    np.testing.assert_array_equal(smooth(X, alpha=0.5, order=STEPS, late="skip"), [1, 3, 3, NAN, 3])
    assert smooth(X, alpha=0.5, order=STEPS, late="restart").tolist() == [1, 3, 3, 100, 51.5]
    assert smooth(X, alpha=0.5, order=STEPS, late="skip", by=[0, 0, 0, 1, 0]).tolist() == [1, 3, 3, 100, 3]
    assert smooth(X[:3], alpha=0.5, order=[1, 1, 1]).tolist() == [1, 3, 3]


def test_times_that_go_back() -> None:
    options: dict[str, Any] = {"halflife": "1s", "time_unit": "s", "times": [0, 1, 2, 0, 3]}
    with pytest.raises(
        ValueError, match=r"row 3 .*the time goes backwards(.|\n)*sort by time, .*late='skip'"
    ):
        smooth(X, **options)
    np.testing.assert_array_equal(smooth(X, late="skip", **options), [1, 3, 3, NAN, 3])
    assert smooth(X, late="restart", **options).tolist() == pytest.approx([1, 3, 3, 100, 100 / 8 + 3 * 7 / 8])


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"step": STEPS, "x": X}),
        pl.DataFrame({"step": STEPS, "x": X}),
        pa.table({"step": STEPS, "x": X}),
        pd.DataFrame({"step": [f"2024-01-0{step}" for step in STEPS], "x": X}),
        pd.DataFrame({"step": pd.to_datetime([f"2024-01-0{step}" for step in STEPS]), "x": X}),
    ],
)
def test_an_order_by_name(frame: Any) -> None:
    y = smooth(frame, alpha=0.5, order="step", late="skip")
    assert len(y.schema if isinstance(y, pa.Table) else y.columns) == 1
    np.testing.assert_array_equal(np.asarray(y["x"].to_numpy(), float), [1, 3, 3, NAN, 3])


def test_an_order_that_is_missing() -> None:
    with pytest.raises(ValueError, match=r"row 1 .*missing, and rows are ordered by it"):
        smooth(X[:3], alpha=0.5, order=[1, None, 2])
    y = smooth(X[:3], alpha=0.5, order=[1, None, 2], invalid="missing")
    np.testing.assert_array_equal(y, [1, NAN, 2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"late": "skip"}, r"late='skip': late by what\?"),
        ({"late": "drop"}, "late='drop': not one of error, skip, restart"),
        ({"order": "when"}, "order='when' names a column, and list has no names"),
        (
            {"order": STEPS, "alpha": "auto", "late": "restart"},
            "does not go with late='restart'",
        ),
        ({"time_format": "%Q"}, r"time_format '%Q'|%Q is not read"),
        ({"time_format": "%Y", "time_unit": "s"}, "time_unit is of numbers, time_format of text"),
        ({"time_zone": "Mars/Olympus"}, "Mars/Olympus"),
    ],
)
def test_options_that_say_nothing(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        smooth(X, **({"alpha": 0.5} | options))


def test_times_and_order_at_once() -> None:
    with pytest.raises(ValueError, match="rows are ordered by these"):
        smooth(X, halflife="1s", times=STEPS, time_unit="s", order=STEPS)


def test_the_weight_is_found_in_the_rows_that_count() -> None:
    x = np.cumsum(np.random.default_rng(3).normal(size=200))
    steps = np.arange(200)
    late = np.insert(x, 100, 1e6), np.insert(steps, 100, 5)
    found = smooth(late[0], alpha="auto", order=late[1], late="skip")
    assert np.array_equal(np.delete(found, 100), smooth(x, alpha="auto"))


# -- how times are written


def test_times_as_they_are_written() -> None:
    german = ["01.05.2021 10:00", "01.05.2021 11:00"]
    y = smooth([1.0, 5.0], halflife="1h", times=german, time_format="%d.%m.%Y %H:%M")
    assert y.tolist() == [1, 3]
    assert smooth([1.0, 5.0], halflife="1d", times=[44000, 44001], time_format="excel").tolist() == [1, 3]
    with pytest.raises(ValueError, match=r"row 0 .*time '01.05.2021 10:00' is not a time(.|\n)*time_format="):
        smooth([1.0, 5.0], halflife="1h", times=german)


NIGHT = ["2024-10-27 02:30", "2024-10-27 02:30", "2024-10-27 03:30"]


def test_the_hour_that_comes_twice() -> None:
    options: dict[str, Any] = {"halflife": "1h", "time_zone": "Europe/Berlin"}
    assert smooth([1.0, 5.0, 3.0], times=NIGHT, **options).tolist() == [1, 3, 3]
    smoother = Smoother(**options)
    assert [smoother.update([x], [time])[0] for x, time in zip([1.0, 5.0, 3.0], NIGHT, strict=True)] == [
        1,
        3,
        3,
    ]


# -- in pieces


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["skip", "restart"]),
    st.sampled_from(["order", "times"]),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 1)), min_size=1, max_size=30),
    st.lists(st.integers(0, 30), max_size=4),
    st.booleans(),
)
def test_however_cut_the_same_bits(
    late: Any, role: str, rows: list[tuple[int, int]], cuts: list[int], keyed: bool
) -> None:
    options: dict[str, Any] = {"halflife": "2s", "time_unit": "s"} if role == "times" else {"alpha": 0.3}
    options |= {"late": late, "std": True}
    x, steps, keys = (
        np.arange(len(rows)) ** 2.0,
        np.array([row[0] for row in rows]),
        np.array([r[1] for r in rows]),
    )
    given: dict[str, Any] = {role: steps} | ({"by": keys} if keyed else {})
    whole = smooth(x, **given, **options)
    smoother, parts = Smoother(**options), []
    for begin, end in pairwise(sorted({0, len(x), *(cut % (len(x) + 1) for cut in cuts)})):
        now = {name: array[begin:end] for name, array in given.items()}
        parts.append(smoother.update(x[begin:end], **now))
        state = dict(json.loads(json.dumps(smoother.state_dict(), default=lambda array: array.tolist())))
        smoother = Smoother(**options)
        smoother.load_state_dict(state)
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_an_error_far_down_changes_nothing() -> None:
    count = LARGE_TILE + 5000
    x, steps = np.arange(float(count)), np.arange(count)
    smoother = Smoother(alpha=0.5)
    smoother.update(x[:10], order=steps[:10])
    late = steps.copy()
    late[-1] = 3
    before = smoother.state_dict()
    with pytest.raises(ValueError, match=f"row {count - 11} .*the order goes backwards"):
        smoother.update(x[10:], order=late[10:])
    after = smoother.state_dict()
    assert after.keys() == before.keys()
    assert all(np.array_equal(after[name], before[name]) for name in before)
    whole = smooth(x, alpha=0.5, order=steps)
    assert smoother.update(x[10:], order=steps[10:]).tobytes() == whole[10:].tobytes()


def test_a_wide_table_that_goes_back_far_down_changes_nothing() -> None:
    rows = LARGE_TILE // 10 + 100
    times = np.arange(rows)
    smoother = Smoother(halflife="5s", time_unit="s")
    smoother.update(np.ones((1, 10)), times[:1])
    before = smoother.state_dict()
    times[-1] = 0
    with pytest.raises(ValueError, match="backwards"):
        smoother.update(np.zeros((rows, 10)), times)
    assert all(np.array_equal(value, before[name]) for name, value in smoother.state_dict().items())


def test_chunks_of_another_order() -> None:
    smoother = Smoother(alpha=0.5)
    smoother.update([1.0], order=[1])
    with pytest.raises(ValueError, match="rows without an order, where the chunks before were with"):
        smoother.update([1.0])
    with pytest.raises(ValueError, match="an order of times, where the chunks before had numbers"):
        smoother.update([1.0], order=["2024-01-01"])
    other = Smoother(alpha=0.5)
    other.update([1.0])
    with pytest.raises(ValueError, match="rows with an order, where the chunks before were without"):
        other.update([1.0], order=[1])


def test_the_state_knows_them() -> None:
    smoother = Smoother(alpha=0.5, late="skip", time_zone="Europe/Berlin", time_format="%Y-%m-%d")
    smoother.update([1.0], order=["2024-01-02"])
    file = io.BytesIO()
    np.savez(file, **smoother.state_dict())
    file.seek(0)
    again = Smoother(alpha=0.5, late="skip", time_zone="Europe/Berlin", time_format="%Y-%m-%d")
    again.load_state_dict(dict(np.load(file)))
    assert np.isnan(again.update([1.0], order=["2024-01-01"])[0])
    with pytest.raises(StateError, match=r"time_format was %Y-%m-%d, is not given(.|\n)*late was skip"):
        Smoother(alpha=0.5).load_state_dict(smoother.state_dict())
    damaged = {name: value for name, value in smoother.state_dict().items() if name != "order.last"}
    with pytest.raises(StateError, match="damaged"):
        again.load_state_dict(damaged)
