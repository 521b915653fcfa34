"""The engine against the libraries whose averages it claims to compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from ema_cli.average import make_average
from ema_cli.trends import Trends
from tests.engine.engine_cases import clock

ALPHAS = (0.003, 0.1, 0.37, 0.5, 0.9, 0.999)
SEEDS = range(6)


def series(seed: int, rows: int = 700) -> np.ndarray:
    """A random walk with gaps, some of them long, and at times at the start."""
    rng = np.random.default_rng(seed)
    values = 50.0 + np.cumsum(rng.standard_normal(rows))
    values[rng.random(rows) < (0.0, 0.1, 0.6)[seed % 3]] = np.nan
    values[: (0, 4)[seed % 2]] = np.nan
    values[300:340] = np.nan
    return values


def ours(values: np.ndarray, times: np.ndarray | None = None, **options: Any) -> np.ndarray:
    average = make_average(options, timed=times is not None)
    return Trends(average, 1).update(values[:, np.newaxis], times)


def assert_same(got: np.ndarray, want: np.ndarray, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=0)


def assert_same_std(got: np.ndarray, want: np.ndarray, peer: Any) -> None:
    """As `assert_same`, where the peer (pandas, of the same weights) has so many digits itself.

    pandas and polars divide by (Σw)² − Σw², a difference: where one value has nearly all the weight, as
    after a long gap, they lose the digits that it loses.
    """
    left = np.nan_to_num((peer.std(bias=True) / peer.std()).to_numpy() ** 2)  # 1 − Σw²
    some = ~np.isnan(want) & (left > 1e-13)
    assert some.sum() > 100
    error = np.abs(got[some] - want[some]) / want[some]
    assert (error < 1e-12 + 2e-15 / left[some]).all()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("adjust", [False, True])
@pytest.mark.parametrize("ignore_na", [False, True])
def test_pandas(seed: int, adjust: bool, ignore_na: bool) -> None:
    values = series(seed)
    missing = "skip" if ignore_na else "decay"
    for alpha in ALPHAS:
        if alpha == 0.5 and not adjust and not ignore_na:
            continue  # pandas#66521: wrong there since 3.0
        got = ours(values, alpha=alpha, adjust=adjust, missing=missing, std=True, fill=True, min_periods=2)
        peer = pd.Series(values).ewm(alpha=alpha, adjust=adjust, ignore_na=ignore_na, min_periods=2)
        assert_same(got[:, 0], peer.mean().to_numpy())
        assert_same_std(got[:, 1], peer.std().to_numpy(), peer)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ignore_na", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_pandas_pairs_and_sums(seed: int, ignore_na: bool, bias: bool) -> None:
    values = np.column_stack((series(seed), np.cos(series(seed + 1)) + series(seed) / 30))
    missing = "skip" if ignore_na else "decay"
    one, other = (pd.Series(column) for column in values.T)
    for alpha in ALPHAS:
        options = {"alpha": alpha, "adjust": True, "missing": missing, "fill": True}
        average = make_average(options | {"cov": True, "corr": True, "sum": True, "bias": bias})
        fields = Trends(average, 2).update(values)
        peer = one.ewm(alpha=alpha, adjust=True, ignore_na=ignore_na)
        assert_same(fields[:, 1], peer.sum().to_numpy(), 1e-10)  # pandas' 1 − 0.999 has 13 digits
        both = ~np.isnan(values).any(axis=1) & (np.cumsum(~np.isnan(values).any(axis=1)) > 1)
        biased, want = (
            peer.cov(other, bias=True).to_numpy()[both],
            peer.cov(other, bias=bias).to_numpy()[both],
        )
        # Unbiased, pandas divides by a difference that loses the digits which one value's weight takes.
        left = np.abs(biased / want)
        some = left > 1e-13
        error = np.abs(fields[both, 4] - want)[some]
        scale = float(np.nanmax(np.abs(values[:, 0])) * np.nanmax(np.abs(values[:, 1])))
        assert some.sum() > 100
        assert (error <= (1e-11 + 4e-15 / left[some]) * np.abs(want[some]) + 1e-13 * scale / left[some]).all()
        if alpha < 0.9:
            np.testing.assert_allclose(fields[both, 5], peer.corr(other).to_numpy()[both], rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_pandas_by_time(seed: int) -> None:
    """Its `times=` is the bias-corrected average, with ties each of full weight."""
    values, times = series(seed), clock(np.random.default_rng(seed), 700)
    times -= times[0]  # pandas takes them as float64: dates of today would lose 128 ns
    peer = pd.Series(values).ewm(halflife="40us", times=pd.to_datetime(times))
    got = ours(values, times, halflife="40us", adjust=True, fill=True)
    first = int(np.flatnonzero(~np.isnan(values))[0])
    assert_same(got[first:, 0], peer.mean().to_numpy()[first:])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("adjust", [False, True])
@pytest.mark.parametrize("ignore_nulls", [False, True])
def test_polars(seed: int, adjust: bool, ignore_nulls: bool) -> None:
    pl = pytest.importorskip("polars")
    values = series(seed)
    column = pl.Series(values).fill_nan(None)
    for alpha in ALPHAS:
        got = ours(values, alpha=alpha, adjust=adjust, missing="skip" if ignore_nulls else "decay", std=True)
        settings = {"alpha": alpha, "adjust": adjust, "ignore_nulls": ignore_nulls}
        assert_same(got[:, 0], column.ewm_mean(**settings).to_numpy())
        std = column.ewm_std(**settings, min_samples=2).to_numpy()
        std[np.isnan(values)] = np.nan
        assert_same_std(
            got[:, 1], std, pd.Series(values).ewm(alpha=alpha, adjust=adjust, ignore_na=ignore_nulls)
        )


@pytest.mark.parametrize("seed", SEEDS)
def test_polars_by_time(seed: int) -> None:
    pl = pytest.importorskip("polars")
    values = series(seed)
    times = np.unique(clock(np.random.default_rng(seed), 3_000))[:700]  # it has no rule for ties
    values = values[: len(times)]
    frame = pl.DataFrame({"t": times, "x": values}).with_columns(
        pl.col("t").cast(pl.Datetime("ns")), pl.col("x").fill_nan(None)
    )
    want = frame.select(pl.col("x").ewm_mean_by("t", half_life="40us"))["x"].to_numpy()
    assert_same(ours(values, times, halflife="40us")[:, 0], want)


@pytest.mark.parametrize("span", [1, 2, 12, 200])
def test_talib(span: int) -> None:
    talib = pytest.importorskip("talib")
    values = series(0)
    values = values[~np.isnan(values)]
    got = ours(values, span=str(span), init="sma")[:, 0]
    want = values if span == 1 else talib.EMA(values, timeperiod=span)  # it has no period of 1
    assert_same(got, want)
