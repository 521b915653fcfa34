"""What polars' own tests of `ewm_mean`, `ewm_sum`, `ewm_var`, `ewm_std` and their `_by` forms hold, as facts.

Inputs and expected numbers are those of py-polars/tests/unit/operations/test_ewm.py, test_ewm_by.py and
py-polars/tests/unit/functions/test_ewm_by.py in github.com/pola-rs/polars, read at commit 4db92c12. Each is
held against ours and against the polars that is installed; what polars means otherwise is at the end, and in
docs/peers-tests.md.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from ema_cli import smooth

N = None
GAPS = [N, 1.0, 5.0, 7.0, N, 2.0, 5.0, 4.0]
LATE = [N, N, 5.0, 7.0, N, 2.0, 1.0, 4.0]


def same(found: pl.Series, wanted: pl.Series, rel: float = 1e-6, absolute: float = 0.0) -> None:
    """The same numbers, and null at the same places."""
    assert found.dtype == pl.Float64
    assert found.is_null().to_list() == wanted.is_null().to_list()
    np.testing.assert_allclose(found.to_numpy(), wanted.to_numpy(), rel, absolute)


def theirs(series: pl.Series, name: str, *given: Any, **options: Any) -> pl.Series:
    """What the polars that is installed says, if it is of the time of these tests."""
    if int(pl.__version__.partition(".")[0]) < 2:
        pytest.skip("an older polars, whose words and whose deviation of a single value are others")
    found: pl.Series = getattr(series, name)(*given, **options)
    return found


def ours(series: pl.Series, statistic: str, options: dict[str, Any]) -> pl.Series:
    """One statistic, with polars' words for the options."""
    given = dict(options)
    words = {"min_samples": "min_periods", "half_life": "halflife"}
    asked = {words.get(name, name): value for name, value in given.items() if name != "ignore_nulls"}
    asked.setdefault("adjust", True)
    asked["missing"] = "skip" if given.get("ignore_nulls") else "decay"
    if statistic == "mean":
        return smooth(series, **asked)
    found = smooth(series, **asked, **{statistic: True})
    name = next(name for name in found.columns if name.endswith(statistic))
    return found[name].alias(series.name)


# (input, statistic, options, expected)
VECTORS: list[tuple[list[Any], str, dict[str, Any], list[Any]]] = [
    ([2, 5, 3], "mean", {"alpha": 0.5}, [2.0, 4.0, 3.4285714285714284]),
    ([2, 5, 3], "mean", {"com": 2.0}, [2.0, 3.8, 3.421053]),
    ([2, 5, 3], "mean", {"alpha": 0.5, "adjust": False}, [2.0, 3.5, 3.25]),
    ([2, 3, 5, 7, 4], "mean", {"alpha": 0.5, "min_samples": 2}, [N, 2.666667, 4.0, 5.6, 4.774194]),
    ([2, 3, 5, 7, 4], "mean", {"alpha": 0.5, "min_samples": 3}, [N, N, 4.0, 5.6, 4.774194]),
    (
        *(GAPS, "mean", {"alpha": 0.5, "ignore_nulls": True}),
        [N, 1.0, 11 / 3, 5.571428571428571, N, 11 / 3, 4.354838709677419, 4.174603174603175],
    ),
    (
        *(GAPS, "mean", {"alpha": 0.5, "ignore_nulls": False}),
        [N, 1.0, 3.666666666666667, 5.571428571428571, N, 3.08695652173913, 4.2, 4.092436974789916],
    ),
    (
        *(GAPS, "mean", {"alpha": 0.5, "adjust": False, "ignore_nulls": True}),
        [N, 1.0, 3.0, 5.0, N, 3.5, 4.25, 4.125],
    ),
    (
        *(GAPS, "mean", {"alpha": 0.5, "adjust": False, "ignore_nulls": False}),
        [N, 1.0, 3.0, 5.0, N, 3.0, 4.0, 4.0],
    ),
    ([N, 1.0, 1.0, 1.0], "mean", {"alpha": 0.5, "min_samples": 1, "ignore_nulls": True}, [N, 1.0, 1.0, 1.0]),
    ([N, 1.0, 1.0, 1.0], "mean", {"alpha": 0.5, "min_samples": 2, "ignore_nulls": True}, [N, N, 1.0, 1.0]),
    ([1.0, N, N, N], "mean", {"alpha": 0.5, "min_samples": 1, "ignore_nulls": True}, [1.0, N, N, N]),
    ([1.0, N, N, N], "mean", {"alpha": 0.5, "min_samples": 2, "ignore_nulls": True}, [N, N, N, N]),
    (
        *([1.0, N, 2.0, N, 3.0], "mean", {"alpha": 0.5, "min_samples": 1, "ignore_nulls": True}),
        [1.0, N, 1.6666666666666665, N, 2.4285714285714284],
    ),
    (
        *([1.0, N, 2.0, N, 3.0], "mean", {"alpha": 0.5, "min_samples": 2, "ignore_nulls": True}),
        [N, N, 1.6666666666666665, N, 2.4285714285714284],
    ),
    ([1, 2, 3, 4, 5], "sum", {"alpha": 0.5}, [1.0, 2.5, 4.25, 6.125, 8.0625]),
    ([2, 5, 3], "sum", {"alpha": 0.5, "ignore_nulls": True}, [2.0, 6.0, 6.0]),
    ([2, 5, 3], "sum", {"alpha": 0.5, "min_samples": 2, "ignore_nulls": True}, [N, 6.0, 6.0]),
    (LATE, "sum", {"alpha": 0.5, "ignore_nulls": False}, [N, N, 5.0, 9.5, N, 4.375, 3.1875, 5.59375]),
    (LATE, "sum", {"alpha": 0.5, "ignore_nulls": True}, [N, N, 5.0, 9.5, N, 6.75, 4.375, 6.1875]),
    ([2, 5, 3], "var", {"alpha": 0.5}, [N, 4.5, 1.9285714285714288]),
    ([2, 5, N, 3], "var", {"alpha": 0.5, "ignore_nulls": True}, [N, 4.5, N, 1.9285714285714288]),
    ([2, 5, N, 3], "var", {"alpha": 0.5, "ignore_nulls": False}, [N, 4.5, N, 1.7307692307692308]),
    ([2, 5, N, 3], "std", {"alpha": 0.5, "ignore_nulls": False}, [N, 4.5**0.5, N, 1.7307692307692308**0.5]),
]


@pytest.mark.parametrize(("x", "statistic", "options", "expected"), VECTORS)
def test_what_polars_expects(
    x: list[Any], statistic: str, options: dict[str, Any], expected: list[Any]
) -> None:
    series, wanted = pl.Series("a", x), pl.Series("a", expected, dtype=pl.Float64)
    same(ours(series, statistic, options), wanted)
    same(theirs(series, f"ewm_{statistic}", **options), wanted)


@pytest.mark.parametrize("min_samples", [1, 2, 3])
def test_leading_nulls_until_there_are_enough_values(min_samples: int) -> None:
    x = pl.Series([1, 2, 3, 4])
    assert ours(x, "mean", {"com": 3, "min_samples": min_samples}).null_count() == min_samples - 1


def test_a_column_of_several_chunks() -> None:
    frame = pl.DataFrame({"b": [6.0, 5.0, 4.0, 3.0], "c": [1.0, 2.0, 3.0, 4.0]}).select(pl.all().log().diff())
    chunked = pl.concat([frame[:2], frame[2:]], rechunk=False)
    assert chunked.n_chunks() > 1
    found = smooth(chunked, com=20, adjust=True, missing="decay", std=True).select("b_std", "c_std")
    assert found.null_count().sum_horizontal()[0] == 4  # of the diff's null, and of a single value, in each
    for name in ("b", "c"):
        same(found[f"{name}_std"], theirs(chunked[name], "ewm_std", com=20, ignore_nulls=False), rel=1e-12)


@pytest.mark.parametrize("statistic", ["mean", "var", "std", "sum"])
@pytest.mark.parametrize("family", [{"com": 2.5}, {"span": 4.0}, {"half_life": 0.7}, {"half_life": 3.0}])
def test_the_same_as_polars_on_any_numbers(statistic: str, family: dict[str, Any]) -> None:
    rng = np.random.default_rng(hash((statistic, *family)) % 2**32)
    for ignore_nulls in (True, False):
        for adjust in (True, False) if statistic != "sum" else (True,):
            for bias in (True, False) if statistic in ("var", "std") else (None,):
                values = np.where(rng.random(60) < 0.25, np.nan, rng.uniform(-1e8, 1e8, 60))
                series = pl.Series("x", values, nan_to_null=True)
                options: dict[str, Any] = family | {"ignore_nulls": ignore_nulls, "min_samples": 3}
                options |= {} if statistic == "sum" else {"adjust": adjust}
                options |= {} if bias is None else {"bias": bias}
                expected = theirs(series, f"ewm_{statistic}", **options).fill_nan(None)
                same(ours(series, statistic, options), expected, rel=1e-9, absolute=1e-3)


# -- by time

DAYS = [N, date(2020, 1, 4), date(2020, 1, 11), date(2020, 1, 16), date(2020, 1, 18)]
VALUES = [3.0, 1.0, 2.0, N, 4.0]
BY_DAY = [N, 1.0, 1.9116116523516815, N, 3.815410804703363]
TWO_DAYS = timedelta(days=2)


def by_time(values: pl.Series, times: Any, half_life: Any = TWO_DAYS, **options: Any) -> pl.Series:
    """A missing time leaves its row out, as in polars."""
    found: pl.Series = smooth(values, times=times, halflife=half_life, invalid="missing", **options)
    return found


def test_by_dates() -> None:
    frame = pl.DataFrame({"values": VALUES, "times": DAYS})
    wanted = pl.DataFrame({"values": BY_DAY})["values"]
    same(by_time(frame["values"], frame["times"]), wanted)
    same(frame["values"].ewm_mean_by(frame["times"], half_life=TWO_DAYS), wanted)
    named = smooth(frame, times="times", halflife=TWO_DAYS, invalid="missing")
    same(named["values"], wanted)


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Kathmandu"])
@pytest.mark.parametrize("half_life", [TWO_DAYS, "2d", "48h0ns"])
def test_by_times_of_every_unit_and_zone(unit: Any, zone: str | None, half_life: Any) -> None:
    naive = [N if day is N else datetime(day.year, day.month, day.day) for day in DAYS]
    times = pl.Series(naive, dtype=pl.Datetime(unit)).dt.replace_time_zone(zone)
    same(by_time(pl.Series(VALUES), times, half_life), pl.Series(BY_DAY))
    if zone != "Asia/Kathmandu" or half_life == "48h0ns":  # where a day is no duration to polars
        same(pl.Series(VALUES).ewm_mean_by(times, half_life=half_life), pl.Series(BY_DAY))


@pytest.mark.parametrize("kind", [pl.Int64, pl.Int32, pl.UInt64, pl.UInt32])
def test_by_whole_numbers(kind: Any) -> None:
    times = pl.Series([N, 4, 11, 16, 18], dtype=kind)
    same(by_time(pl.Series(VALUES), times, "2s", time_unit="s"), pl.Series(BY_DAY))
    same(pl.Series(VALUES).ewm_mean_by(times, half_life="2i"), pl.Series(BY_DAY))


def test_by_time_a_constant_stays_one_and_nothing_stays_nothing() -> None:
    days = [date(2020, 1, 4), date(2020, 1, 11), date(2020, 1, 16)]
    assert by_time(pl.Series([1, 1, 1]), days).to_list() == [1.0, 1.0, 1.0]
    assert by_time(pl.Series([], dtype=pl.Float64), pl.Series([], dtype=pl.Date)).to_list() == []


def test_by_time_either_may_be_missing() -> None:
    for x, t in (([1, 2, 3], [1, 2, N]), ([1, 2, N], [1, 2, 3])):
        wanted = pl.Series([1.0, 2 - 0.5**0.5, N])
        same(by_time(pl.Series(x), pl.Series(t), "2s", time_unit="s"), wanted)
        same(pl.Series(x).ewm_mean_by(pl.Series(t), half_life="2i"), wanted)


def test_by_even_times_is_the_recursion() -> None:
    x = pl.Series(np.random.default_rng(5).uniform(-100, 100, 50))
    found = by_time(x, pl.Series(range(50)), "7s", time_unit="s")
    same(found, x.ewm_mean(half_life=7, adjust=False, ignore_nulls=False))


def test_sums_by_time() -> None:
    times = pl.Series([0, 1, 2, 5, 6, 10])
    cases = [
        ([1, 1, 1, 1, 1, 1], [1.0, 1.5, 1.75, 1.21875, 1.609375, 1.1005859375]),
        ([1, 2, 3, 4, 5, 6], [1.0, 2.5, 4.25, 4.53125, 7.265625, 6.4541015625]),
    ]
    for x, wanted in cases:
        found = smooth(pl.Series("x", x), times=times, halflife="1s", time_unit="s", sum=True)["x_sum"]
        same(found, pl.Series("x_sum", wanted))
        same(theirs(pl.Series(x), "ewm_sum_by", times, half_life="1i"), pl.Series(wanted))
    days = [datetime(2020, 1, day, tzinfo=UTC) for day in (4, 11, 16)]
    found = smooth(pl.Series("x", [1, 1, 1]), times=days, halflife=TWO_DAYS, sum=True)["x_sum"]
    assert found.to_list() == pytest.approx([1.0, 1.088388, 1.192402], abs=1e-6)


# -- what polars means otherwise


def test_rows_that_go_back_are_an_error_where_polars_sorts() -> None:
    x, t = pl.Series([3.0, 2.0]), pl.Series([3, 1])
    assert x.ewm_mean_by(t, half_life="2i").to_list() == [2.5, 2.0]
    with pytest.raises(ValueError, match=r"row 1 .*the time goes backwards"):
        by_time(x, t, "2s", time_unit="s")
    order = t.arg_sort()
    found = by_time(x.gather(order), t.gather(order), "2s", time_unit="s").gather(order.arg_sort())
    assert found.to_list() == [2.5, 2.0]


def test_no_weight_at_all_is_a_weight() -> None:
    with pytest.raises(ValueError, match="0 < `alpha` <= 1"):
        pl.Series([1.0]).ewm_mean(alpha=0.0)
    assert smooth(pl.Series([1.0, 5.0]), alpha=0.0).to_list() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"com": 0.5, "alpha": 0.5}, "alpha and com say the same thing"),
        ({"span": 1.5, "halflife": 0.75}, "span and halflife say the same thing"),
        ({"com": -0.5}, "com -0.5: must be 0 or more rows"),
        ({"span": 0.5}, "span=0.5: must be 1 or more rows"),
        ({"halflife": 0}, "halflife=0: must be more than 0 rows"),
        *(({"alpha": alpha}, "must be between 0 and 1") for alpha in (-0.5, -0.0000001, 1.0000001, 1.5)),
    ],
)
def test_options_that_polars_refuses_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        smooth(pl.Series(range(10)), **options)
    polars = {"half_life" if name == "halflife" else name: value for name, value in options.items()}
    with pytest.raises(ValueError, match=r"mutually exclusive|require"):
        pl.Series(range(10)).ewm_mean(**polars)


def test_times_of_another_length_and_values_that_are_lists() -> None:
    with pytest.raises(ValueError, match="times has 3 rows, x has 2"):
        by_time(pl.Series([0, N]), pl.Series([date(2020, 1, 5)] * 3), "4d")
    with pytest.raises(ValueError, match=r"List\(Int64\).*no numbers"):
        smooth(pl.Series([[1, 2], [3, 4]]), alpha=0.5)
    with pytest.raises(ValueError, match=r"not a duration|not a number"):
        by_time(pl.Series([1, 2]), pl.Series([0, 1]), "-2s", time_unit="s")
