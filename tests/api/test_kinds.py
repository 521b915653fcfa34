"""What goes in comes out: pandas, polars, Arrow, torch and NumPy, with names, index and kind of dtype."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from polars.testing import assert_frame_equal, assert_series_equal

from ema_cli import Smoother, smooth

X = [1.0, 5.0, None, 3.0]
Y = [1.0, 3.0, None, 3.0]  # at alpha ½
DAYS = [date(2024, 1, day) for day in (1, 2, 3, 5)]
KEYS = ["a", "b", "a", "b"]
BY_KEY = [1.0, 5.0, None, 4.0]


def plain(y: Any) -> list[Any]:
    """The numbers of a series of any kind, None where missing."""
    values = y.to_pylist() if isinstance(y, pa.Array | pa.ChunkedArray) else list(y)
    return [None if value is None or value is pd.NA or np.isnan(value) else float(value) for value in values]


KINDS = (pd.Series, pd.api.extensions.ExtensionArray, pl.Series, pa.Array, pa.ChunkedArray)
SERIES: list[tuple[Any, Any]] = [
    (pd.Series(X, name="x"), "float64"),
    (pd.Series(X, name="x", dtype="Float64"), "Float64"),
    (pd.Series(X, name="x", dtype="Float32"), "Float64"),
    (pd.Series(X, name="x", dtype="Int64"), "Float64"),
    (pd.Series(X, name="x", dtype="UInt8"), "Float64"),
    (pd.Series(X, name="x", dtype="int8[pyarrow]"), "double[pyarrow]"),
    (pd.Series(X, name="x", dtype=pd.ArrowDtype(pa.decimal128(5, 2))), "double[pyarrow]"),
    (pd.Series(X, name="x", dtype=object), "float64"),
    (pd.Series(X, name="x", dtype="Sparse[float]"), "float64"),
    (pd.array(X, dtype="Int64"), "Float64"),
    (pd.array(X, dtype="double[pyarrow]"), "double[pyarrow]"),
    (pl.Series("x", X), pl.Float64),
    (pl.Series("x", [1, 5, None, 3], dtype=pl.Int16), pl.Float64),
    (pl.Series("x", [1, 5, None, 3], dtype=pl.Int128), pl.Float64),
    (pl.Series("x", X, dtype=pl.Float32), pl.Float64),
    (pl.Series("x", [1, 5, None, 3]).cast(pl.Decimal(10, 2)), pl.Float64),
    (pl.Series("x", X, dtype=pl.Object), pl.Float64),
    (pl.Series("x", [1.0, 5.0, float("nan"), 3.0]), pl.Float64),
    (pa.array(X), pa.float64()),
    (pa.array([1, 5, None, 3]), pa.float64()),
    (pa.array(np.array([1, 5, np.nan, 3], np.float16), from_pandas=True), pa.float64()),
    (pa.array([1, 5, None, 3], pa.decimal128(20, 3)), pa.float64()),
    (pa.chunked_array([[1.0, 5.0], [None, 3.0]]), pa.float64()),
]


@pytest.mark.parametrize(
    ("x", "dtype"), SERIES, ids=lambda x: f"{type(x).__module__}-{getattr(x, 'dtype', x)}"
)
def test_a_series_stays_what_it_is(x: Any, dtype: Any) -> None:
    y = smooth(x, alpha=0.5)
    kind = next(kind for kind in KINDS if isinstance(x, kind))
    assert isinstance(y, kind)
    assert plain(y) == Y
    assert (y.type if isinstance(y, pa.Array | pa.ChunkedArray) else y.dtype) == dtype
    assert getattr(y, "name", None) == getattr(x, "name", None)
    assert plain(smooth(x, alpha=0.5, by=KEYS)) == BY_KEY


@pytest.mark.parametrize(
    ("x", "dtype"), SERIES, ids=lambda x: f"{type(x).__module__}-{getattr(x, 'dtype', x)}"
)
def test_a_series_in_pieces(x: Any, dtype: Any) -> None:
    smoother = Smoother(alpha=0.5)
    pieces = [smoother.update(x[begin:end]) for begin, end in pairwise((0, 1, 3, 4))]
    assert [value for piece in pieces for value in plain(piece)] == Y
    assert all((getattr(piece, "type", None) or piece.dtype) == dtype for piece in pieces)


def test_extension_arrays_stay_such() -> None:
    assert isinstance(smooth(pd.array([1, 2], dtype="Int64"), alpha=0.5), pd.arrays.FloatingArray)
    assert isinstance(
        smooth(pd.array([1.0], dtype="double[pyarrow]"), alpha=1), pd.arrays.ArrowExtensionArray
    )


COLUMNS: dict[str, list[Any]] = {
    "day": DAYS,
    "key": KEYS,
    "x": X,
    "flag": [True, False, None, True],
    "n": [2, 4, 6, 8],
}
FRAMES: list[Callable[[], Any]] = [
    lambda: pd.DataFrame(COLUMNS),
    lambda: pd.DataFrame(COLUMNS).convert_dtypes(),
    lambda: pd.DataFrame(COLUMNS).convert_dtypes(dtype_backend="pyarrow"),
    lambda: pl.DataFrame(COLUMNS),
    lambda: pa.table(COLUMNS),
    lambda: pa.record_batch(COLUMNS),
]
IDS = ["numpy", "nullable", "arrow-backed", "polars", "table", "batch"]


def names_of(frame: Any) -> list[str]:
    return list(frame.schema.names if isinstance(frame, pa.Table | pa.RecordBatch) else frame.columns)


def values_of(frame: Any, name: str) -> list[Any]:
    return plain(frame.column(name) if isinstance(frame, pa.Table | pa.RecordBatch) else frame[name])


@pytest.mark.parametrize("make", FRAMES, ids=IDS)
def test_a_frame_keeps_to_its_columns_of_numbers(make: Callable[[], Any]) -> None:
    y = smooth(make(), alpha=0.5)
    assert type(y) is type(make())
    assert names_of(y) == ["x", "n"]
    assert values_of(y, "x") == Y
    assert values_of(y, "n") == [2, 3, 4.5, 6.25]
    several = smooth(make(), alpha=[0.5, 1], residual=True)
    assert names_of(several)[:4] == ["x_ema_0.5", "x_residual_0.5", "x_ema_1", "x_residual_1"]
    assert values_of(several, "x_ema_0.5") == Y


@pytest.mark.parametrize("make", FRAMES, ids=IDS)
def test_columns_of_a_frame_by_name(make: Callable[[], Any]) -> None:
    y = smooth(make(), halflife="1d", times="day", by="key")
    assert names_of(y) == ["x", "n"]
    assert values_of(y, "x") == pytest.approx([1.0, 5.0, None, 5 / 8 + 3 * 7 / 8])
    assert names_of(smooth(make(), alpha=0.5, by=["key", "n"])) == ["x"]
    assert names_of(smooth(make(), alpha=0.5, order="n")) == ["x"]
    there = "there are: 'day', 'key', 'x', 'flag', 'n'"
    with pytest.raises(ValueError, match=rf"by='kye': no column or index level of that name; {there}"):
        smooth(make(), alpha=0.5, by="kye")


@pytest.mark.parametrize("make", FRAMES, ids=IDS)
def test_a_frame_in_pieces(make: Callable[[], Any]) -> None:
    frame, smoother = make(), Smoother(halflife="1d")
    rows = [frame.slice(k, 1) if hasattr(frame, "slice") else frame[k : k + 1] for k in range(4)]
    pieces = [smoother.update(row, times="day", by="key") for row in rows]
    assert [value for piece in pieces for value in values_of(piece, "x")] == pytest.approx(
        [1.0, 5.0, None, 5 / 8 + 3 * 7 / 8]
    )
    assert all(type(piece) is type(frame) for piece in pieces)


def test_dtypes_stay_column_by_column() -> None:
    frame = pd.DataFrame(
        {"a": [1, 2], "b": pd.array([1, None], "Int64"), "c": pd.array([1, 2], "int8[pyarrow]")}
    )
    assert list(smooth(frame, alpha=0.5).dtypes.astype(str)) == ["float64", "Float64", "double[pyarrow]"]
    both = smooth(frame, alpha=0.5, std=True)
    assert list(both.columns) == ["a_ema", "a_std", "b_ema", "b_std", "c_ema", "c_std"]
    assert both["b_std"].dtype == "Float64"
    assert both["c_std"].dtype == "double[pyarrow]"
    assert pd.isna(both["b_ema"][1])


def test_nullable_frames_keep_index_and_labels() -> None:
    columns = pd.MultiIndex.from_tuples([("u", 1), ("u", 1)], names=["m", "n"])
    frame = pd.DataFrame(
        [[1, 2], [3, 6]], index=pd.Index(["p", "q"], name="i"), columns=columns, dtype="Int64"
    )
    expected = pd.DataFrame([[1, 2], [2, 4]], index=frame.index, columns=columns, dtype="Float64")
    pd.testing.assert_frame_equal(smooth(frame, alpha=0.5), expected)


def test_objects_that_are_numbers_are_a_column_of_numbers() -> None:
    frame = pd.DataFrame({"a": [None, 1], "b": [None, None], "c": ["x", 1], "d": [None, True]}, dtype=object)
    assert list(smooth(frame, alpha=0.5).columns) == ["a"]
    with pytest.raises(ValueError, match=r"row 2 .*column 'a': 'x' of type str"):
        smooth(pd.DataFrame({"a": [None, 1, "x"]}, dtype=object), alpha=0.5)


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame, pa.table])
def test_a_column_that_was_smoothed_may_be_empty_later(kind: Any) -> None:
    smoother = Smoother(alpha=0.5)
    smoother.update(kind({"a": [1.0], "b": [1.0]}))
    y = smoother.update(kind({"a": [3.0], "b": [None]}))
    assert values_of(y, "a") == [2.0]
    assert values_of(y, "b") == [None]


def test_polars_objects_in_full() -> None:
    x = pl.Series("x", [1.0, None, 5.0])
    assert_series_equal(smooth(x, alpha=0.5), pl.Series("x", [1.0, None, 3.0]))
    assert_series_equal(smooth(x, alpha=0.5, fill=True), pl.Series("x", [1.0, 1.0, 3.0]))
    expected = pl.DataFrame({"x_ema": [1.0, None, 3.0], "x_std": [None, None, 8**0.5]})
    assert_frame_equal(smooth(x, alpha=0.5, std=True), expected)
    assert smooth(pl.Series([1.0]), alpha=[0.5, 1]).columns == ["ema_0.5", "ema_1"]


def test_arrow_tables_keep_what_is_pandas_index_and_other_metadata() -> None:
    frame = pd.DataFrame({"x": pd.array([1, 3], "Int64"), "t": ["a", "b"]}, index=pd.Index([7, 8], name="i"))
    table = pa.Table.from_pandas(frame)
    table = table.replace_schema_metadata({**table.schema.metadata, b"own": b"note"})
    y = smooth(table, alpha=0.5)
    assert y.schema.metadata[b"own"] == b"note"
    pd.testing.assert_frame_equal(y.to_pandas(), pd.DataFrame({"x": [1.0, 2.0]}, index=frame.index))
    plain_index = pa.Table.from_pandas(frame.reset_index(drop=True)[["x"]])
    pd.testing.assert_frame_equal(smooth(plain_index, alpha=0.5).to_pandas(), pd.DataFrame({"x": [1.0, 2.0]}))
    assert smooth(pa.array([1.0, 3.0]), alpha=[0.5, 1]).column_names == ["ema_0.5", "ema_1"]


def test_what_offers_itself_to_arrow_comes_back_as_arrows() -> None:
    class Relation:
        def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
            return pa.table({"x": [1.0, 3.0]}).__arrow_c_stream__(requested_schema)

    assert smooth(Relation(), alpha=0.5).to_pydict() == {"x": [1.0, 2.0]}


def test_names_that_are_there_twice() -> None:
    table = pa.Table.from_arrays([pa.array([1.0]), pa.array([2.0])], ["a", "a"])
    assert smooth(table, alpha=0.5).column_names == ["a", "a"]
    with pytest.raises(ValueError, match="several columns have that name"):
        smooth(table, alpha=0.5, by="a")


# -- NumPy


@pytest.mark.parametrize("kind", ["bfloat16", "float8_e4m3fn", "int4"])
def test_types_of_ml_dtypes(kind: str) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    y = smooth(np.array([1, 5, 3]).astype(getattr(ml_dtypes, kind)), alpha=0.5)
    assert y.dtype == np.float64
    assert y.tolist() == [1, 3, 3]


def test_an_axis() -> None:
    x = np.random.default_rng(1).normal(size=(3, 4, 5))
    whole = smooth(x, alpha=0.5, axis=1)
    assert whole.shape == x.shape
    for i, k in np.ndindex(3, 5):
        assert np.array_equal(whole[i, :, k], smooth(x[i, :, k], alpha=0.5))
    assert np.array_equal(smooth(x, alpha=0.5, axis=-2), whole)
    flat = x[0]
    assert np.array_equal(smooth(flat, alpha=0.5, axis=1), smooth(flat.T, alpha=0.5).T)
    assert np.array_equal(smooth(flat, alpha=[0.5, 1], axis=1), smooth(flat.T, alpha=[0.5, 1]).T)
    assert np.array_equal(smooth(flat, alpha=0.5, axis=-2), smooth(flat, alpha=0.5))
    several = smooth(x, alpha=[0.5, 1], axis=1)
    assert several.shape == (3, 4, 5, 2)
    assert np.array_equal(several[..., 0], whole)
    assert smooth(x[:, :, 0], alpha=0.5, axis=1, by=KEYS).shape == (3, 4)
    smoother = Smoother(alpha=0.5)
    parts = [smoother.update(x[:, some], axis=1) for some in (slice(0, 1), slice(1, 4))]
    assert np.array_equal(np.concatenate(parts, axis=1), whole)


@pytest.mark.parametrize(
    ("x", "axis", "message"),
    [
        ([[1.0]], 2, "axis=2: the array has 2 dimensions"),
        ([1.0], "x", "axis='x': not a whole number"),
        (pd.DataFrame({"a": [1.0]}), 1, r"axis=1: rows run down a DataFrame(.|\n)*smooth\(x.T"),
        (pl.Series([1.0]), 1, "axis=1: rows run down a Series"),
        ([[1.0], [2.0, 3.0]], None, "rows of different lengths"),
    ],
)
def test_no_such_axis(x: Any, axis: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        smooth(x, alpha=0.5, axis=axis)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (pl.LazyFrame({"a": [1.0]}), r"LazyFrame holds no rows yet\n  try: smooth\(x.collect\(\), …\)"),
        (pl.col("a"), r"Expr holds no rows yet\n  try: expr.map_batches"),
        (pd.DataFrame({"a": [1.0]}).groupby("a"), "DataFrameGroupBy holds no rows yet\n  try: .*by="),
        (pd.Series([1.0]).groupby([1]), "SeriesGroupBy"),
        (pa.table({"a": [1.0]}).to_reader(), r"RecordBatchReader holds no rows yet\n  try: .*read_all"),
        ({"a": [1.0]}, "dict can't be smoothed"),
        ({1.0, 2.0}, "set can't be smoothed"),
        ((k for k in (1.0, 2.0)), "generator can't be smoothed"),
        (pd.Timestamp("2024"), "Timestamp can't be smoothed"),
        (pd.DataFrame, "type can't be smoothed"),
    ],
)
def test_things_of_the_wrong_kind(x: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        smooth(x, alpha=0.5)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (pl.Series("s", ["1"]), r"column 's' of dtype String: no numbers\n  try: .cast\(pl.Float64\)"),
        (pl.Series([True]), "of dtype Boolean: no numbers"),
        (pl.DataFrame({"a": ["x"]}), r"none holds numbers; there are 'a' \(String\)"),
        (pa.array(["1"]), r"of dtype string: no numbers\n  try: .cast\(pyarrow.float64\(\)\)"),
        (pa.table({"a": [True]}), r"none holds numbers; there are 'a' \(bool\)"),
        (pd.Categorical([1, 2]), "of dtype category: no numbers"),
        (np.array([(1, 2.0)], "i4,f8"), "no numbers"),
        (pl.Series([1.0, float("inf")], strict=False), r"row 1 \(counted from 0\): inf is no finite number"),
        (pa.table({"a": [1.0], "b": [float("inf")]}), r"row 0 .*column 'b': inf"),
    ],
)
def test_what_is_no_number(x: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        smooth(x, alpha=0.5)


@pytest.mark.parametrize(
    "alpha",
    [
        np.float32(0.5),
        np.array(0.5),
        np.array([0.5]),
        pd.Series([0.5]),
        (0.5,),
        np.float64(0.5),
        pl.Series([0.5]),
    ],
)
def test_a_weight_of_every_kind(alpha: Any) -> None:
    assert plain(smooth([1.0, 5.0], alpha=alpha)) == [1.0, 3.0]


def test_weights_that_are_none() -> None:
    with pytest.raises(ValueError, match="an array of 2 dimensions"):
        smooth([1.0], alpha=np.array([[0.5]]))  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "halflife",
    [
        timedelta(days=1),
        pd.Timedelta(days=1),
        np.timedelta64(1, "D"),
        np.array(24, "timedelta64[h]"),
        pd.offsets.Hour(24),
        "1 day",
        "1 days 00:00:00",
        "24:00:00",
        "24:00",
        "P1D",
        "PT24H",
        "0 days 23:59:60.0",
    ],
)
def test_durations_of_every_kind(halflife: Any) -> None:
    assert smooth([1.0, 5.0], halflife=halflife, times=DAYS[:2]).tolist() == [1.0, 3.0]


def without_unit(count: int) -> np.timedelta64:
    """A duration of nothing in particular, which later NumPys discourage."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return np.timedelta64(count)


@pytest.mark.parametrize(
    ("halflife", "message"),
    [
        (np.timedelta64("NaT", "s"), "halflife NaT: not a number"),
        (pd.NaT, "halflife NaT"),
        (without_unit(5), "a number without a unit"),
        (np.timedelta64(2, "M"), "months and years have no fixed length"),
        ("P", "halflife P: not a number"),
    ],
)
def test_durations_that_are_none(halflife: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        smooth([1.0, 5.0], halflife=halflife, times=DAYS[:2])


TIMES: list[Any] = [
    pd.PeriodIndex(DAYS, freq="D"),
    pd.Series(pd.PeriodIndex(DAYS, freq="D")),
    list(pd.PeriodIndex(DAYS, freq="D")),
    np.array(DAYS, "datetime64[D]"),
    np.array(DAYS, "datetime64[D]") - np.datetime64("2024-01-01"),
    [np.timedelta64(k, "D") for k in (0, 1, 2, 4)],
    [timedelta(days=k) for k in (0, 1, 2, 4)],
    pd.TimedeltaIndex(pd.to_timedelta([0, 1, 2, 4], unit="D")),
    pd.DatetimeIndex(DAYS),
    pl.Series(DAYS),
    pa.chunked_array([DAYS[:1], DAYS[1:]]),
]


@pytest.mark.parametrize("times", TIMES, ids=lambda times: type(times).__name__)
def test_times_of_every_kind(times: Any) -> None:
    y = smooth(np.array([1.0, 5.0, 3.0, 3.0]), halflife="1d", times=times)
    assert y.tolist() == pytest.approx([1.0, 3.0, 3.0, 3.0], rel=1e-15)


def test_a_time_that_is_none() -> None:
    for times in (
        [pd.NaT, DAYS[1]],
        [None, np.datetime64("2024-01-02")],
        np.array(["NaT", "2024-01-02"], "datetime64[ns]"),
    ):
        with pytest.raises(ValueError, match=r"row 0 .*the time is missing"):
            smooth([1.0, 2.0], halflife="1d", times=times)
        y = smooth([1.0, 2.0], halflife="1d", times=times, invalid="missing")
        np.testing.assert_array_equal(y, [np.nan, 2.0])


# -- what is imported


@pytest.mark.parametrize(
    "code",
    [
        "from ema_cli import smooth, Smoother; smooth([1.0], alpha=0.5); Smoother(alpha=0.5).update([1.0])",
        "import pyarrow; from ema_cli import smooth; smooth(pyarrow.nulls(3, 'float64'), alpha=0.5)",
        "import numpy; from ema_cli import smooth; smooth(numpy.ones((3, 2)), alpha=0.5, std=True)",
    ],
)
def test_nothing_is_imported_that_nobody_brought(code: str) -> None:
    code += "; import sys; assert not {'pandas', 'polars', 'torch', 'ml_dtypes'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
