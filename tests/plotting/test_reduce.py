"""Reducing for drawing: extremes survive, gaps stay gaps, and it doesn't matter how the rows came."""

from __future__ import annotations

import itertools
import tracemalloc
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ema_cli.plotting.reduce import ROWS_A_BUCKET, Reduced, Reducer, keep, shift_for

Values = NDArray[np.float64]
CELLS = st.one_of(st.just(float("nan")), st.integers(-5, 5).map(float))


@st.composite
def tables(draw: st.DrawFn, least: int = 0) -> tuple[NDArray[np.int64], Values]:
    """Rows at ascending places, some at the same one, and one to three series with blanks."""
    rows = draw(st.integers(least, 120))
    series = draw(st.integers(1, 3))
    steps = draw(st.lists(st.integers(0, 9), min_size=rows, max_size=rows))
    x = draw(st.integers(-1000, 1000)) + np.cumsum(np.array(steps, np.int64))
    cells = draw(st.lists(CELLS, min_size=rows * series, max_size=rows * series))
    return x.astype(np.int64), np.array(cells).reshape(rows, series)


def reduced(x: NDArray[np.int64], values: Values, buckets: int, cuts: list[int]) -> Reduced:
    reducer = Reducer(values.shape[1], buckets)
    edges = [0, *sorted(cut % (len(x) + 1) for cut in cuts), len(x)]
    for begin, end in itertools.pairwise(edges):
        reducer.add(x[begin:end], values[begin:end])
    return reducer.result()


def same(one: Reduced, other: Reduced) -> bool:
    arrays = [(one.x, other.x), (one.values, other.values), (one.lonely, other.lonely)]
    equal = all(np.array_equal(a, b, equal_nan=a.dtype == float) for a, b in arrays)
    return equal and (one.shift, one.rows) == (other.shift, other.rows)


@given(tables(), st.integers(2, 8), st.lists(st.integers(0, 200), max_size=6))
def test_however_the_rows_are_cut_the_result_is_the_same(
    table: tuple[NDArray[np.int64], Values], buckets: int, cuts: list[int]
) -> None:
    assert same(reduced(*table, buckets, cuts), reduced(*table, buckets, []))


@given(tables(least=1), st.integers(0, 4), st.integers(0, 4))
def test_reducing_what_was_reduced_is_reducing_all(
    table: tuple[NDArray[np.int64], Values], fine: int, more: int
) -> None:
    x, values = table
    kept = keep(x, values, fine)
    again = np.zeros(len(x), bool)
    again[np.flatnonzero(kept)[keep(x[kept], values[kept], fine + more)]] = True
    assert np.array_equal(again, keep(x, values, fine + more))


@given(tables(least=1), st.integers(0, 6))
def test_every_bucket_keeps_its_ends_and_extremes(
    table: tuple[NDArray[np.int64], Values], shift: int
) -> None:
    x, values = table
    kept = keep(x, values, shift)
    for bucket in np.unique(x >> shift):
        inside = x >> shift == bucket
        for k in range(values.shape[1]):
            every, shown = values[inside, k], values[inside & kept, k]
            there, seen = every[~np.isnan(every)], shown[~np.isnan(shown)]
            assert len(there) == 0 or len(seen) > 0
            if len(there):
                ends = (there[0], there[-1], there.min(), there.max())
                assert ends == (seen[0], seen[-1], seen.min(), seen.max())


@given(tables(least=1), st.integers(0, 6))
def test_gaps_stay_gaps(table: tuple[NDArray[np.int64], Values], shift: int) -> None:
    """Two neighbours in different buckets are joined after reducing just if they were before."""
    x, values = table
    kept = keep(x, values, shift)
    for k in range(values.shape[1]):
        there = np.flatnonzero(~np.isnan(values[:, k]) & kept)
        for one, next_one in itertools.pairwise(there):
            if x[one] >> shift != x[next_one] >> shift:
                blank_before = np.isnan(values[one:next_one, k]).any()
                assert np.isnan(values[one:next_one, k][kept[one:next_one]]).any() == blank_before


@given(tables(), st.integers(2, 8))
def test_few_rows_are_all_kept_and_many_are_bounded(
    table: tuple[NDArray[np.int64], Values], buckets: int
) -> None:
    x, values = table
    result = reduced(x, values, buckets, [])
    if len(x) <= ROWS_A_BUCKET * buckets:
        assert result.shift is None
        assert np.array_equal(result.x, x)
    else:
        assert len(result.x) <= 6 * buckets * values.shape[1]


@given(st.integers(-(2**62), 2**62), st.integers(0, 2**62), st.integers(2, 5000))
def test_buckets_are_as_narrow_as_their_number_allows(first: int, width: int, buckets: int) -> None:
    last = first + width
    shift = shift_for(first, last, buckets)
    assert (last >> shift) - (first >> shift) < buckets
    assert shift == 0 or (last >> (shift - 1)) - (first >> (shift - 1)) >= buckets


@given(tables(least=1))
def test_lonely_values_are_counted_over_all_batches(table: tuple[NDArray[np.int64], Values]) -> None:
    x, values = table
    for k, column in enumerate(values.T):
        blank = np.concatenate(([True], np.isnan(column)))
        runs = np.count_nonzero(blank[:-1] & ~blank[1:])
        assert reduced(x, values, 4, [1, 5, 7]).lonely[k] == (2 * runs > np.count_nonzero(~blank[1:]))


def test_a_series_alone_drops_what_others_needed() -> None:
    x = np.arange(100_000, dtype=np.int64)
    values = np.random.default_rng(1).normal(size=(100_000, 3))
    result = reduced(x, values, 256, [])
    needed = result.needed([1])
    assert len(needed) <= 4 * 256
    expected = keep(x, values[:, 1:2], result.shift or 0)
    assert np.array_equal(result.values[needed, 1], values[expected, 1])


def test_memory_does_not_grow_with_the_rows() -> None:
    def peak(rows: int) -> int:
        reducer = Reducer(2, 1024)
        generator = np.random.default_rng(2)
        tracemalloc.start()
        for begin in range(0, rows, 20_000):
            x = np.arange(begin, begin + 20_000, dtype=np.int64)
            reducer.add(x, generator.normal(size=(20_000, 2)))
        assert len(reducer.result().x) <= 12 * 1024
        most: Any = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return int(most)

    assert peak(2_000_000) < 1.2 * peak(200_000)
