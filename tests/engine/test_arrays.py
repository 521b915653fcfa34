"""`smooth`: kinds and names, what is no number, times and keys in all the ways Python has them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import ema_cli
from ema_cli import EmaError, smooth
from ema_cli.api.chunks import LARGE_TILE

X = [1.0, 5.0, 3.0]
Y = [1.0, 3.0, 3.0]  # at alpha ½


def frame() -> pd.DataFrame:
    return pd.DataFrame({"a": X, "b": [2.0, np.nan, 4.0]}, index=[7, 8, 9])


# -- kinds


@pytest.mark.parametrize(
    "x",
    [
        X,
        tuple(X),
        np.array(X),
        np.array(X, np.float32),
        np.array(X, np.float16),
        np.array(X, np.longdouble),
        np.array([1, 5, 3], np.uint8),
        np.array([1, 5, 3]),
        np.array(X)[::-1][::-1],
        [1, Decimal(5), Fraction(3)],
        np.array([1, 5.0, np.int8(3)], object),
        pd.Index(X),
    ],
)
def test_one_dimension_in_one_out(x: Any) -> None:
    y = smooth(x, alpha=0.5)
    assert type(y) is np.ndarray
    assert y.dtype == np.float64
    assert y.tolist() == Y


def test_two_dimensions() -> None:
    y = smooth(np.array([[1, 10], [5, 50], [3, 30]]), alpha=0.5)
    assert y.tolist() == [[1, 10], [3, 30], [3, 30]]
    assert smooth([[1], [5]], alpha=0.5).shape == (2, 1)


def test_a_single_number() -> None:
    y = smooth(4, alpha=0.5, init="zero")
    assert type(y) is float
    assert y == 2.0


@pytest.mark.parametrize("x", [[], np.empty((0, 2)), pd.Series([], dtype=float), frame().iloc[:0]])
def test_no_rows(x: Any) -> None:
    y = smooth(x, alpha=0.5)
    assert type(y) is (np.ndarray if isinstance(x, list) else type(x))
    assert y.shape == np.shape(x)
    assert smooth(x, alpha=[0.1, 0.2]).shape == (0, 4 if np.ndim(x) == 2 else 2)


def test_series_keeps_index_and_name() -> None:
    x = pd.Series(X, index=pd.Index(["p", "q", "r"], name="i"), name="x")
    pd.testing.assert_series_equal(smooth(x, alpha=0.5), pd.Series(Y, index=x.index, name="x"))


def test_frame_keeps_index_and_columns() -> None:
    x = frame()
    x.columns = pd.MultiIndex.from_tuples([("u", 1), ("v", 2)], names=["m", "n"])
    y = smooth(x, alpha=0.5)
    assert y.index.equals(x.index)
    assert y.columns.equals(x.columns)
    assert y.columns.names == ["m", "n"]
    assert y.iloc[:, 0].tolist() == Y
    assert smooth(x, alpha=[0.5, 1]).columns.tolist() == [
        "u_1_ema_0.5",
        "u_1_ema_1",
        "v_2_ema_0.5",
        "v_2_ema_1",
    ]


def test_the_input_is_not_touched() -> None:
    x = np.array([1.0, np.inf, 2.0])
    smooth(x, alpha=0.5, invalid="missing")
    assert np.isinf(x[1])
    series = pd.Series([1.0, np.inf])
    smooth(series, alpha=0.5, invalid="missing")
    assert np.isinf(series[1])


def test_duplicate_column_names_are_fine() -> None:
    x = pd.DataFrame([[1.0, 2.0], [3.0, 4.0]], columns=["a", "a"])
    assert smooth(x, alpha=0.5).to_numpy().tolist() == [[1, 2], [2, 3]]


# -- several columns for one


def test_names_of_several_are_those_of_the_command() -> None:
    x = pd.Series(X, name="x")
    y = smooth(x, alpha=["0.10", 0.5], residual=True)
    assert y.columns.tolist() == ["x_ema_0.10", "x_residual_0.10", "x_ema_0.5", "x_residual_0.5"]
    assert y["x_ema_0.5"].tolist() == Y
    assert y["x_residual_0.5"].tolist() == [0, 2, 0]
    assert smooth(x, span=3, bands=2).columns.tolist() == ["x_ema", "x_lower", "x_upper"]
    assert smooth(x.rename(None), span=3, std=True).columns.tolist() == ["ema", "std"]
    assert smooth(x, alpha=[0.5]).tolist() == Y


def test_several_of_an_array_stand_side_by_side() -> None:
    x = np.array([[1.0, 10.0], [5.0, 50.0]])
    y = smooth(x, alpha=[0.5, 1.0], residual=True)
    assert y.tolist() == [[1, 0, 1, 0, 10, 0, 10, 0], [3, 2, 5, 0, 30, 20, 50, 0]]
    assert smooth(x[:, 0], alpha=[0.5, 1]).tolist() == [[1, 1], [3, 5]]
    assert smooth(5.0, alpha=[0.5, 1]).tolist() == [5, 5]


# -- missing and invalid


@pytest.mark.parametrize(
    "x",
    [
        [1.0, None, 5.0],
        [1, pd.NA, 5],
        [1, np.nan, 5],
        np.ma.masked_array([1, 9, 5], [False, True, False]),
        np.ma.masked_array([1.0, 9.0, 5.0], [False, True, False]),
        pl.Series([1, None, 5]),
        pd.Series([1, None, 5], dtype="Int64"),
        pd.Series([1, None, 5], dtype="Float32"),
        pd.Series([1, None, 5], dtype="int8[pyarrow]"),
        pd.Series([1, None, 5], dtype=pd.ArrowDtype(pa.decimal128(5, 2))),
        pd.Series([1, pd.NA, 5], dtype=object),
        pd.Series([1, np.nan, 5], dtype="Sparse[float]"),
    ],
)
def test_every_kind_of_missing_value(x: Any) -> None:
    y = smooth(x, alpha=0.5)
    np.testing.assert_array_equal(np.asarray(y, float), [1, np.nan, 3])
    np.testing.assert_array_equal(np.asarray(smooth(x, alpha=0.5, fill=True), float), [1, 1, 3])


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (pd.Series(["1"], name="s", dtype="string"), r"column 's' of dtype string: no numbers"),
        (pd.Series([True], name="s"), r"column 's' of dtype bool"),
        (pd.Series([True, None], name="s", dtype="boolean"), r"column 's' of dtype boolean"),
        (pd.Series([1, 2], name="s", dtype="category"), r"column 's' of dtype category"),
        (pd.Series([1j], name="s"), r"column 's' of dtype complex128"),
        (pd.Series(pd.to_datetime(["2020"]), name="s"), r"column 's' of dtype datetime64"),
        (pd.DataFrame({"a": [True], "b": ["x"]}), r"none holds numbers; there are 'a' \(bool\), 'b' \("),
        (
            pd.Series([1, "x"], name="s", dtype=object),
            r"row 1 .*column 's': 'x' of type str \(dtype object\)",
        ),
        (pd.Series([1, True], name="s", dtype=object), r"row 1 .*True of type bool"),
        ([1, "x"], r"of dtype <U"),
        ([True, False], r"of dtype bool"),
        (np.array([1j]), r"of dtype complex128"),
        (np.array(["2020"], "datetime64[D]"), r"of dtype datetime64"),
        ([1, object()], r"row 1 \(counted from 0\): <object"),
        ([[1, 2], [3, None], [4, "x"]], r"row 2 \(counted from 0\), column 1: 'x'"),
        (np.zeros((1, 1, 1)), r"3 dimensions"),
        (np.zeros((3, 0)), r"no column to smooth"),
        (pd.DataFrame(index=[1]), r"no column to smooth"),
        ([1.0, np.inf], r"row 1 \(counted from 0\): inf is no finite number"),
        ([[1.0, 2.0], [3.0, -np.inf]], r"row 1 \(counted from 0\), column 1: -inf"),
        ([1, 10**400], r"row 1"),
        (pd.DataFrame({"a": [1.0], "b": [np.inf]}), r"row 0 .*column 'b'"),
    ],
)
def test_what_is_no_number(x: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        smooth(x, alpha=0.5)


def test_invalid_as_missing() -> None:
    np.testing.assert_array_equal(smooth([1, np.inf, 5], alpha=0.5, invalid="missing"), [1, np.nan, 3])


def test_missing_as_an_error() -> None:
    with pytest.raises(ValueError, match=r"row 1 .*column 'b': a missing value"):
        smooth(frame(), alpha=0.5, missing="error")
    assert smooth(X, alpha=0.5, missing="error").tolist() == Y


def test_bands_beyond_float64_are_infinite() -> None:
    y = smooth([8e307, -8e307], alpha=0.5, bands=4)
    assert y[1].tolist() == [0.0, -np.inf, np.inf]


# -- options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no weight given"),
        ({"alpha": 10}, r"alpha=10: must be between 0 and 1(.|\n)*span=10"),
        ({"span": "20min"}, r"span='20min'(.|\n)*halflife='20min'"),
        ({"alpha": True}, "alpha True: not a number"),
        ({"alpha": 0.1, "span": 3}, "alpha and span say the same"),
        ({"halflife": "5min"}, "rows need times"),
        ({"halflife": timedelta(minutes=5)}, "halflife='5min' is a duration"),
        ({"alpha": 0.1, "min_periods": -1}, "min_periods -1: must be a whole number"),
        ({"alpha": 0.1, "invalid": "drop"}, "not one of error, missing"),
        ({"alpha": 0.1, "time_unit": "m"}, "not one of s, ms, us, ns"),
        (
            {"alpha": 0.1, "like": "pandas", "missing": "skip"},
            "like='pandas' means missing='decay', not missing='skip'",
        ),
        ({"alpha": 0.1, "init": "zero", "adjust": True}, "does not go with adjust"),
        ({"alpha": 0.1, "init": "smaa"}, "init='first', or init='sma:20'"),
        ({"alpha": 0.1, "cov": True}, "cov is of pairs of columns"),
        ({"span": 3, "like": "talib-rma"}, "like='talib-rma' needs wilder"),
    ],
)
def test_bad_options_are_value_errors_in_pythons_words(options: Any, message: str) -> None:
    with pytest.raises(EmaError, match=message) as raised:
        smooth(X, **options)
    assert isinstance(raised.value, ValueError)
    assert "--" not in str(raised.value)


def test_an_option_there_is_not() -> None:
    with pytest.raises(TypeError, match="no option 'alhpa'; did you mean 'alpha'"):
        smooth(X, alhpa=0.1)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="no option 'weigths'; did you mean 'weights'"):
        smooth(X, alpha=0.1, weigths=X)  # type: ignore[call-overload]


def test_none_is_not_given() -> None:
    assert smooth(X, alpha=0.5, span=None, adjust=None, like=None, min_periods=None).tolist() == Y


def test_alpha_auto_is_found_for_each_column() -> None:
    walk = np.cumsum(np.random.default_rng(1).normal(size=300))
    noise = np.random.default_rng(2).normal(size=300)
    y = smooth(np.column_stack((walk, noise)), alpha="auto")
    assert np.array_equal(y[:, 0], smooth(walk, alpha="auto"))
    assert np.array_equal(y[:, 1], smooth(noise, alpha="auto"))
    assert np.std(y[:, 1]) < 0.5
    assert np.max(np.abs(y[:, 0] - walk)) < 1
    both = smooth(pd.Series(noise, name="x"), alpha=["auto", 0.5])
    assert both.columns.tolist() == ["x_ema_auto", "x_ema_0.5"]
    assert np.array_equal(both["x_ema_0.5"], smooth(noise, alpha=0.5))


# -- times

START = 1_700_000_000
SECONDS = [START, START + 10, START + 30]
BY_TIME = smooth(np.array(X), halflife="10s", times=np.array(SECONDS, "datetime64[s]"))

STAMPS = pd.to_datetime(SECONDS, unit="s")
TIMES: list[Any] = [
    *(np.array(SECONDS, "datetime64[s]").astype(f"datetime64[{unit}]") for unit in ("s", "ms", "us", "ns")),
    STAMPS,
    STAMPS.tz_localize("UTC").tz_convert("Asia/Kathmandu"),
    STAMPS.to_series(),
    STAMPS.as_unit("ms").to_series(),
    list(STAMPS),
    [datetime.fromtimestamp(second, UTC) for second in SECONDS],
    [stamp.isoformat() for stamp in STAMPS],
    pd.Series([f"{stamp.isoformat()}Z" for stamp in STAMPS]),
    pa.array(STAMPS),
    pa.array(SECONDS, pa.timestamp("s")),
    (pl.Series(SECONDS) * 1000).cast(pl.Duration("ms")),
    pd.Series(STAMPS).astype("timestamp[ns][pyarrow]"),
]


def test_irregular_times() -> None:
    assert BY_TIME.tolist() == pytest.approx([1.0, 3.0, 3.0], rel=1e-15)


@pytest.mark.parametrize("times", TIMES)
def test_every_kind_of_time(times: Any) -> None:
    assert np.array_equal(smooth(np.array(X), halflife="10s", times=times), BY_TIME)


@pytest.mark.parametrize(
    ("times", "unit"),
    [
        (SECONDS, "s"),
        (np.array(SECONDS, float), "s"),
        (pd.Series(SECONDS), "s"),
        (np.array(SECONDS) * 1000, "ms"),
        (np.array(SECONDS) * 10**9, "ns"),
        ([0, 10, 30], "s"),
        (np.array([0.0, 0.01, 0.03]) * 1000, "s"),
    ],
)
def test_times_that_are_numbers(times: Any, unit: Any) -> None:
    assert np.array_equal(smooth(X, halflife="10s", times=times, time_unit=unit), BY_TIME)


def test_days_hours_and_half_lives_of_every_kind() -> None:
    days = np.array(["2024-01-01", "2024-01-02", "2024-01-04"], "datetime64[D]")
    expected = smooth(X, halflife="1d", times=days)
    assert expected.tolist() == pytest.approx([1.0, 3.0, 3.0], rel=1e-15)
    for unit in ("h", "m", "s"):
        assert np.array_equal(smooth(X, halflife="24h", times=days.astype(f"datetime64[{unit}]")), expected)
    halves: list[Any] = [
        timedelta(days=1),
        pd.Timedelta("1D"),
        np.timedelta64(1, "D"),
        np.timedelta64(24, "h"),
    ]
    for half in halves:
        assert np.array_equal(smooth(X, halflife=half, times=days), expected)
    several = smooth(pd.Series(X, name="x"), halflife=[timedelta(days=1), "90min"], times=days)
    assert several.columns.tolist() == ["x_ema_1d", "x_ema_90min"]


def test_times_of_a_frame_by_name() -> None:
    table = pd.DataFrame({"when": STAMPS, "x": X})
    y = smooth(table, halflife="10s", times="when")
    assert y.columns.tolist() == ["x"]
    assert np.array_equal(y["x"], BY_TIME)
    indexed = table.set_index("when")
    assert np.array_equal(smooth(indexed, halflife="10s", times="when")["x"], BY_TIME)
    assert np.array_equal(smooth(indexed["x"], halflife="10s", times="when"), BY_TIME)
    assert np.array_equal(smooth(indexed["x"], halflife="10s", times=indexed.index), BY_TIME)
    assert np.array_equal(smooth(table["x"], halflife="10s", times=table["when"]), BY_TIME)


def test_a_silence_starts_afresh() -> None:
    y = smooth(X, halflife="10s", times=SECONDS, time_unit="s", reset_gap=timedelta(seconds=15))
    assert y.tolist() == pytest.approx([1.0, 3.0, 3.0])
    assert smooth([1.0, 5.0, 7.0], halflife="10s", times=SECONDS, time_unit="s", reset_gap="15s")[2] == 7.0


@pytest.mark.parametrize(
    ("times", "options", "message"),
    [
        ([0, 2, 1], {"time_unit": "s"}, r"row 2 \(counted from 0\): the time goes backwards(.|\n)*by="),
        ([0, 1, 2], {}, r"row 0 .*time '0' is a number(.|\n)*time_unit with"),
        ([0, None, 2], {"time_unit": "s"}, r"row 1 .*the time is missing"),
        ([0.0, np.nan, 2.0], {"time_unit": "s"}, r"row 1 .*missing"),
        (np.array(["2020", "2021", "NaT"], "datetime64[D]"), {}, r"row 2 .*missing"),
        (pd.to_datetime(["2020", None, "2021"]), {}, r"row 1 .*missing"),
        (np.array(["1066", "2020", "2021"], "datetime64[s]"), {}, r"row 0 .*1677 to 2262"),
        (["2020-01-01", "soon", "2021-01-01"], {}, r"row 1 .*'soon' is not a time"),
        ([0, 1], {"time_unit": "s"}, r"times has 2 rows, x has 3"),
        ([[0], [1], [2]], {"time_unit": "s"}, r"times must have one dimension"),
        ([0, "a", 2], {"time_unit": "s"}, r"times: (.|\n)*one type"),
        ([True, True, True], {"time_unit": "s"}, r"of type bool"),
        ("when", {}, r"times='when' names a column, and list has no names"),
    ],
)
def test_bad_times(times: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        smooth(X, halflife="10s", times=times, **options)


def test_times_need_a_half_life_that_is_a_duration() -> None:
    with pytest.raises(ValueError, match="needs a half-life that is a duration"):
        smooth(X, halflife=10, times=STAMPS)


# -- keys

KEYS = ["a", "b", "a", "b", "a"]
V = [1.0, 10.0, 5.0, 30.0, 3.0]
BY_KEY = [1.0, 10.0, 3.0, 20.0, 3.0]


@pytest.mark.parametrize(
    "by",
    [
        KEYS,
        tuple(KEYS),
        np.array(KEYS),
        np.array(KEYS, object),
        pd.Series(KEYS),
        pd.Series(KEYS, dtype="category"),
        pd.Series(KEYS, dtype="string[python]"),
        pd.Index(KEYS),
        pa.array(KEYS),
        pl.Series(KEYS),
        [1, 2, 1, 2, 1],
        [1.5, 2.5, 1.5, 2.5, 1.5],
        [True, False, True, False, True],
        pd.to_datetime(["2020", "2021", "2020", "2021", "2020"]),
        ["a", None, "a", None, "a"],
        ["", None, "", None, ""],
        ["7", "007", "7", "007", "7"],
        [b"7", b"\xff", b"7", b"\xff", b"7"],
        [KEYS, ["x"] * 5],
        [np.array(["x"] * 5), pd.Series(KEYS)],
        (KEYS, KEYS),
        pd.DataFrame({"p": KEYS, "q": 1}),
    ],
)
def test_every_kind_of_key(by: Any) -> None:
    assert smooth(np.array(V), alpha=0.5, by=by).tolist() == BY_KEY
    assert smooth(pd.Series(V), alpha=0.5, by=by).tolist() == BY_KEY


def test_keys_of_several_columns_are_not_joined() -> None:
    assert smooth([1.0, 3.0], alpha=0.5, by=[["a", "a,b"], ["b,c", "c"]]).tolist() == [1, 3]


def table() -> pd.DataFrame:
    return pd.DataFrame({"key": KEYS, "other": [1, 1, 1, 2, 1], "x": V})


GROUPED: list[tuple[Callable[[pd.DataFrame], Any], Any]] = [
    (lambda t: t[["key", "x"]], "key"),
    (lambda t: t[["key", "x"]], ["key"]),
    (lambda t: t.set_index("key")[["x"]], "key"),
    (lambda t: t.set_index(["key", "other"])[["x"]], "key"),
    (lambda t: t.set_index("key")["x"], "key"),
    (lambda t: t.set_index(["other", "key"])["x"], ["key"]),
    (lambda t: t["x"], table()["key"]),
    (lambda t: t[["x"]].rename(columns={"x": 5}), table()["key"].tolist()),
    (lambda t: t[["key", "x"]].rename(columns={"key": 0}), 0),
    (lambda t: pd.concat({"top": t[["key", "x"]]}, axis=1), ("top", "key")),
]


@pytest.mark.parametrize(("shape", "by"), GROUPED)
def test_keys_of_pandas(shape: Callable[[pd.DataFrame], Any], by: Any) -> None:
    x = shape(table())
    y = smooth(x, alpha=0.5, by=by)
    assert np.ravel(y).tolist() == BY_KEY
    assert y.index.equals(x.index)


def test_keys_of_pandas_agree_with_groupby() -> None:
    x = table()
    y = smooth(x, alpha=0.3, by=["key", "other"])
    expected = x.groupby(["key", "other"])["x"].transform(
        lambda part: part.ewm(alpha=0.3, adjust=False).mean()
    )
    np.testing.assert_allclose(y["x"], expected, rtol=1e-14)


def test_each_key_has_its_own_clock() -> None:
    times = [0, 0, 10, 5, 20]
    y = smooth(V, halflife="10s", by=KEYS, times=times, time_unit="s")
    a = smooth(V[::2], halflife="10s", times=times[::2], time_unit="s")
    assert y[::2].tolist() == a.tolist()
    with pytest.raises(ValueError, match=r"row 4 .*backwards") as raised:
        smooth(V, halflife="10s", by=KEYS, times=[0, 0, 10, 5, 9], time_unit="s")
    assert "by=" not in str(raised.value)


@pytest.mark.parametrize(
    ("x", "by", "message"),
    [
        (table(), "keys", r"by='keys': no column or index level .*there are: 'key', 'other', 'x'"),
        (table(), ["key", "nope"], r"by='nope': no column"),
        (table()["x"], "key", r"there are: none"),
        (V, "key", r"by='key' names a column, and list has no names"),
        (V, ["a"], r"by has 1 rows, x has 5"),
        (V, np.zeros((5, 2)), r"by must have one dimension"),
        (V, ["a", 1, "a", 1, "a"], r"by: (.|\n)*one type"),
        (V, [[1], [2], [1], [2], [1]], r"by has 1 rows"),
        (V, pa.array([[1], [2], [1], [2], [1]]), r"can't be keys"),
        (table()["x"], pd.Series(KEYS, index=range(1, 6)), r"different indexes"),
        (pd.concat([table(), table()[["key"]]], axis=1), "key", r"several columns"),
    ],
)
def test_bad_keys(x: Any, by: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        smooth(x, alpha=0.5, by=by)


# -- the rest


def test_more_rows_than_a_tile() -> None:
    x = np.random.default_rng(3).normal(size=200_001)
    keys = np.arange(len(x)) % 7
    expected = pd.Series(x).ewm(alpha=0.01, adjust=False).mean()
    np.testing.assert_allclose(smooth(x, alpha=0.01), expected, rtol=0, atol=1e-13)
    grouped = smooth(x, alpha=0.01, by=keys)
    assert np.array_equal(grouped[3::7], smooth(x[3::7], alpha=0.01))
    times = np.arange(len(x))
    times[150_000] = 0
    with pytest.raises(ValueError, match="row 150000 "):
        smooth(x, halflife="1s", times=times, time_unit="s")


def test_the_public_names() -> None:
    assert set(ema_cli.__all__) <= set(dir(ema_cli))
    with pytest.raises(AttributeError, match="no attribute 'smoth'"):
        _ = ema_cli.smoth
    assert "see `Options`" in str(smooth.__doc__)
    assert "Weight of the newest value" in str(ema_cli.Options.__doc__)  # for help(ema_cli.Options)


def test_what_is_imported_when() -> None:
    code = """
import sys
import ema_cli
assert not {"numpy", "pandas", "pyarrow"} & set(sys.modules), "import ema_cli"
from ema_cli import Smoother, smooth
smooth([1.0, None, 2.0], alpha=[0.5, "auto"], std=True)
s = Smoother(alpha=0.1)
s.update(1.0)
Smoother(alpha=0.1).load_state_dict(s.state_dict())
assert not {"pandas", "click"} & set(sys.modules), "without times and keys, where Arrow imports pandas itself"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("gaps", [0.0, 0.1])
@pytest.mark.parametrize(
    "options", [{"alpha": 0.1}, {"alpha": [0.1, 0.5]}, {"alpha": 0.1, "std": True}], ids=str
)
def test_a_large_matrix_is_its_columns(gaps: float, options: dict[str, Any]) -> None:
    """Of more values than are folded at once."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(LARGE_TILE // 2 + 1_000, 3))
    x[rng.random(x.shape) < gaps] = np.nan
    together = smooth(x, **options)
    apart = [smooth(x[:, k], **options).reshape(len(x), -1) for k in range(3)]
    np.testing.assert_array_equal(together, np.concatenate(apart, axis=1))
