"""What is asked for beside the mean, and rows that weigh, in every kind of thing and however it is cut."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ema_cli import Smoother, smooth

COLUMNS: dict[str, list[Any]] = {"x": [1.0, 5.0, 3.0], "n": [1, 3, 0], "key": ["a", "a", "b"]}
WEIGHED = [1.0, (0.5 * 1 + 3 * 5) / 3.5, None]
FRAMES: list[Callable[..., Any]] = [pd.DataFrame, pl.DataFrame, pa.table, pa.record_batch]


def listed(frame: Any, name: str) -> list[Any]:
    values = frame.column(name).to_pylist() if isinstance(frame, pa.Table | pa.RecordBatch) else frame[name]
    return [None if value is None or np.isnan(value) else value for value in values]


def names_of(frame: Any) -> list[str]:
    return list(frame.schema.names if isinstance(frame, pa.Table | pa.RecordBatch) else frame.columns)


@pytest.mark.parametrize("kind", FRAMES)
def test_weights_by_name(kind: Callable[..., Any]) -> None:
    y = smooth(kind(COLUMNS), alpha=0.5, adjust=True, weights="n")
    assert names_of(y) == ["x"]
    assert listed(y, "x") == pytest.approx(WEIGHED)
    assert listed(smooth(kind(COLUMNS), alpha=0.5, weights="n", by="key"), "x")[2] is None
    smoother = Smoother(alpha=0.5, adjust=True)
    frame = kind(COLUMNS)
    rows = [frame.slice(k, 1) if hasattr(frame, "slice") else frame[k : k + 1] for k in range(3)]
    pieces = [smoother.update(row, weights="n") for row in rows]
    assert [value for piece in pieces for value in listed(piece, "x")] == pytest.approx(WEIGHED)


@pytest.mark.parametrize(
    "weights",
    [[1, 3, 0], (1.0, 3.0, np.nan), np.array([1, 3, 0]), pd.Series([1, 3, None]), pl.Series([1, 3, None])],
)
def test_weights_of_every_kind(weights: Any) -> None:
    y = smooth(np.array(COLUMNS["x"]), alpha=0.5, adjust=True, weights=weights)
    np.testing.assert_allclose(y, [1.0, 15.5 / 3.5, np.nan], rtol=1e-15)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, -1, 1], r"row 1 \(counted from 0\): a weight of -1"),
        ([1, np.inf, 1], "row 1 .*a weight of inf"),
        (["a", "b", "c"], "weights of type string: no numbers"),
        ([1, 2], "weights has 2 rows, x has 3"),
        ("n", "weights='n' names a column, and list has no names"),
    ],
)
def test_weights_that_are_none(weights: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        smooth([1.0, 2.0, 3.0], alpha=0.5, weights=weights)


def numbers(rows: int) -> pd.DataFrame:
    rng = np.random.default_rng(4)
    values = rng.normal(size=(rows, 3))
    values[rng.random(values.shape) < 0.2] = np.nan
    return pd.DataFrame(values, columns=["a", "b", "c"])


def test_pairs_of_columns_are_those_of_pandas() -> None:
    frame = numbers(50)
    y = smooth(frame, span=6, adjust=True, missing="decay", cov=True, corr=True, fill=True)
    pairs = [f"{one}_{other}" for one, other in combinations("abc", 2)]
    assert y.columns.tolist()[3:] == [f"{pair}_{part}" for pair in pairs for part in ("cov", "corr")]
    window = frame.ewm(span=6)
    for one, other in combinations("abc", 2):
        for part in ("cov", "corr"):
            wanted = getattr(window[one], part)(frame[other])
            np.testing.assert_allclose(y[f"{one}_{other}_{part}"], wanted, rtol=1e-9, atol=1e-12)


def test_pairs_keep_the_kind_of_dtype() -> None:
    frame = numbers(5).astype({"a": "Float64", "b": "double[pyarrow]"})
    y = smooth(frame, alpha=0.5, corr=True, std=True)
    kinds = {name: str(dtype) for name, dtype in y.dtypes.items()}
    assert kinds["a_b_corr"] == kinds["a_c_corr"] == kinds["a_std"] == "Float64"
    assert kinds["b_c_corr"] == kinds["b_ema"] == "double[pyarrow]"
    assert kinds["c_std"] == "float64"
    table = smooth(pa.Table.from_pandas(numbers(5)), alpha=0.5, cov=True)
    assert table.column_names == ["a_ema", "b_ema", "c_ema", "a_b_cov", "a_c_cov", "b_c_cov"]


def test_pairs_where_there_are_none() -> None:
    with pytest.raises(ValueError, match="cov is of pairs of columns, and there is but one"):
        smooth([1.0, 2.0], alpha=0.5, cov=True)
    with pytest.raises(ValueError, match="an array of more dimensions has none"):
        smooth(np.zeros((4, 2, 2)), alpha=0.5, axis=0, corr=True)
    assert smooth(np.zeros((4, 2)), alpha=0.5, axis=1, corr=True).shape == (10, 2)


@pytest.mark.parametrize("x", [pd.Series([1.0, 5.0], name="x"), pl.Series("x", [1.0, 5.0])])
def test_names_by_pattern(x: Any) -> None:
    y = smooth(x, alpha=0.5, name="{col}_trend")
    assert isinstance(y, type(x))
    assert y.name == "x_trend"
    both = smooth(x, alpha=[0.5, 1], name="{what}({col}, {weight})")
    assert list(both.columns) == ["ema(x, 0.5)", "ema(x, 1)"]
    frame = smooth(pl.DataFrame({"x": x.to_list()}), alpha=0.5, name="{col}*")
    assert frame.columns == ["x*"]
    assert smooth([1.0, 5.0], alpha=0.5, name="{col}*").tolist() == [1.0, 3.0]


@pytest.mark.parametrize("kind", FRAMES)
def test_new_columns_of_one_name(kind: Callable[..., Any]) -> None:
    smoother = Smoother(alpha=0.5, name="trend")
    with pytest.raises(ValueError, match="2 new columns would be called 'trend'"):
        smoother.update(kind(COLUMNS))
    assert smoother.update([1.0, 5.0]).tolist() == [1.0, 3.0]  # nothing was folded in
    clash = kind({"a": [1.0, 2.0], "b_c": [3.0, 1.0], "a_b": [1.0, 2.0], "c": [2.0, 5.0]})
    with pytest.raises(ValueError, match="2 new columns would be called 'a_b_c_corr'"):
        smooth(clash, alpha=0.5, corr=True)


@pytest.mark.parametrize("kind", FRAMES)
def test_looking_both_ways(kind: Callable[..., Any]) -> None:
    y = smooth(kind({"x": [1.0, 5.0, 3.0]}), alpha=0.5, centered=True)
    assert listed(y, "x") == pytest.approx(
        [(1 + 2.5 + 0.75) / 1.75, (0.5 + 5 + 1.5) / 2, (0.25 + 2.5 + 3) / 1.75]
    )
    with pytest.raises(ValueError, match="needs the whole series"):
        Smoother(alpha=0.5, centered=True)


STATISTICS: list[dict[str, Any]] = [
    {"sum": True, "var": True, "bias": True},
    {"cov": True, "corr": True},
    {"double": True, "triple": True, "min_periods": 3},
    {"alpha": [0.3, 0.6], "diff": True, "sum": True, "missing": "decay"},
    {"adjust": True, "sum": True, "corr": True, "missing": "decay", "fill": True},
]


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(STATISTICS),
    st.integers(0, 1000),
    st.lists(st.integers(0, 50), max_size=4),
    st.booleans(),
    st.booleans(),
)
def test_however_cut_the_same_bits(
    asked: dict[str, Any], seed: int, cuts: list[int], keyed: bool, weighed: bool
) -> None:
    options: dict[str, Any] = {"alpha": 0.3} | asked
    rng = np.random.default_rng(seed)
    x = np.round(rng.normal(size=(50, 2)), 2)
    x[rng.random(x.shape) < 0.2] = np.nan
    roles: dict[str, Any] = {"by": rng.integers(0, 3, 50)} if keyed else {}
    roles |= {"weights": np.round(rng.random(50), 1)} if weighed else {}
    whole = smooth(x, **roles, **options)
    smoother, parts = Smoother(**options), []
    for begin, end in pairwise(sorted({0, 50, *(cut % 51 for cut in cuts)})):
        parts.append(smoother.update(x[begin:end], **{name: one[begin:end] for name, one in roles.items()}))
        state = dict(json.loads(json.dumps(smoother.state_dict(), default=lambda array: array.tolist())))
        smoother = Smoother(**options)
        smoother.load_state_dict(state)
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_chunks_with_weights_and_without() -> None:
    smoother = Smoother(alpha=0.5)
    smoother.update([1.0], weights=[2.0])
    before = smoother.state_dict()
    with pytest.raises(ValueError, match="rows without weights, where the chunks before were with"):
        smoother.update([1.0])
    assert smoother.state_dict().keys() == before.keys()
    other = Smoother(alpha=0.5)
    other.update([1.0])
    with pytest.raises(ValueError, match=r"before were without(.|\n)*try: update\(x\), or weights from"):
        other.update([1.0], weights=[2.0])
    failed = Smoother(alpha=0.5)
    with pytest.raises(ValueError, match="a weight of -1"):
        failed.update([1.0], weights=[-1.0])
    assert failed.update([1.0]).tolist() == [1.0]
