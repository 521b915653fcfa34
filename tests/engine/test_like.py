"""`--like`: each set against the system itself, on random series with gaps."""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st

from ema_cli import smooth
from ema_cli.like import SETS, TIMED, describe

Floats = Any
SEEDS = st.integers(0, 10_000)
WEIGHTS: list[tuple[str, str, float]] = [
    # ours, polars' word for it, value
    ("alpha", "alpha", 0.5),
    ("alpha", "alpha", 0.07),
    ("alpha", "alpha", 1.0),
    ("span", "span", 9.5),
    ("com", "com", 2.0),
    ("halflife", "half_life", 3.3),
]


def walk(seed: int, gaps: float = 0.3) -> Floats:
    """A random walk of 1 to 120 values, some missing, leading ones too."""
    rng = np.random.default_rng(seed)
    x = np.cumsum(rng.normal(size=rng.integers(1, 121))) + rng.normal() * 100
    x[rng.random(len(x)) < gaps] = np.nan
    return x


def assert_same(ours: Any, theirs: Any, x: Floats, tolerance: float = 1e-12) -> None:
    """Blanks in the same places, values within the tolerance of the largest magnitude."""
    ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
    largest = np.nanmax(np.abs(x), initial=1.0)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * largest)


# -- pandas


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.sampled_from(WEIGHTS), st.integers(0, 5))
def test_pandas(seed: int, weight: tuple[str, str, float], periods: int) -> None:
    x, option = walk(seed), {weight[0]: weight[2]}
    theirs = pd.Series(x).ewm(**option, min_periods=periods)
    ours = smooth(pd.Series(x, name="x"), like="pandas", std=True, min_periods=periods, **option)
    assert_same(ours["x_ema"], theirs.mean(), x)
    # One value has no deviation. On the rows that hold it, pandas' rounded weights may leave a 0 instead.
    some = np.cumsum(~np.isnan(x)) > 1
    assert_same(ours["x_std"], theirs.std().where(some), x, 1e-9)


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.floats(0.2, 50))
def test_pandas_with_times(seed: int, hours: float) -> None:
    x = walk(seed)
    minutes = np.cumsum(np.random.default_rng(seed).choice([0, 1, 30, 400], size=len(x)))
    times = pd.Timestamp("2024-03-01") + pd.to_timedelta(minutes, unit="min")
    halflife = pd.Timedelta(hours, "h").round("ms")
    theirs = pd.Series(x).ewm(halflife=halflife, times=times).mean()
    assert_same(smooth(x, like="pandas", halflife=halflife, times=times), theirs, x)


@settings(deadline=None, max_examples=20)
@given(SEEDS)
def test_pandas_by_group(seed: int) -> None:
    x = walk(seed)
    keys = np.random.default_rng(seed).choice(["a", "b", "c"], size=len(x))
    theirs = pd.Series(x).groupby(keys).transform(lambda part: part.ewm(alpha=0.2).mean())
    assert_same(smooth(x, like="pandas", alpha=0.2, by=keys), theirs, x)


# -- polars


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.sampled_from(WEIGHTS), st.integers(1, 5))
def test_polars(seed: int, weight: tuple[str, str, float], periods: int) -> None:
    x = walk(seed)
    ours, theirs, value = weight
    series = pl.Series(x).fill_nan(None)
    mean = series.ewm_mean(**{theirs: value}, min_samples=periods)
    assert_same(smooth(x, like="polars", min_periods=periods, **{ours: value}), mean.to_numpy(), x)


@settings(deadline=None, max_examples=20)
@given(SEEDS)
def test_polars_std(seed: int) -> None:
    x = walk(seed)
    theirs = pl.Series(x).fill_nan(None).ewm_std(alpha=0.2).to_numpy()
    ours = smooth(pd.Series(x, name="x"), like="polars", alpha=0.2, std=True)
    assert_same(ours["x_std"], theirs, x, 1e-7)


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.integers(1, 100_000))
def test_polars_by_time(seed: int, seconds: int) -> None:
    x = walk(seed)
    steps = np.random.default_rng(seed).choice([1, 30, 400, 90_000], size=len(x))  # polars loses ties
    times = pd.Timestamp("2024-03-01") + pd.to_timedelta(np.cumsum(steps), unit="s")
    series, clock = pl.Series(x).fill_nan(None), pl.Series(times.to_numpy())
    theirs = series.ewm_mean_by(clock, half_life=f"{seconds}s").to_numpy()
    assert_same(smooth(x, like="polars", halflife=f"{seconds}s", times=times), theirs, x)


# -- TA-Lib


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.integers(2, 40), st.integers(0, 5))
def test_talib(seed: int, span: int, leading: int) -> None:
    x = walk(seed, gaps=0.0)
    x[:leading] = np.nan
    if len(x) <= leading:
        return
    assert_same(smooth(x, like="talib", span=span), talib.EMA(x, span), x)


def test_a_gap_ends_talibs_average_and_not_ours() -> None:
    x = np.array([1.0, 2.0, 3.0, np.nan, 4.0])
    assert np.isnan(talib.EMA(x, 2)[3:]).all()
    assert smooth(x, like="talib", span=2)[4] == pytest.approx(2.5 + (4 - 2.5) * 2 / 3)


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.integers(2, 30))
def test_talib_dema_and_tema(seed: int, span: int) -> None:
    x = walk(seed, gaps=0.0)
    frame = pd.DataFrame({"x": x})
    assert_same(smooth(frame, like="talib-dema", span=span)["x_dema"], talib.DEMA(x, span), x)
    assert_same(smooth(frame, like="talib-tema", span=span)["x_tema"], talib.TEMA(x, span), x)


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.integers(2, 30))
def test_talib_rma(seed: int, n: int) -> None:
    """TA-Lib has Wilder's smoothing inside of others: the ATR is that of the true range."""
    close = walk(seed, gaps=0.0)
    high, low = close + np.abs(np.sin(close)), close - np.abs(np.cos(close))
    ranges = talib.TRANGE(high, low, close)
    assert_same(smooth(ranges, like="talib-rma", wilder=n), talib.ATR(high, low, close, n), ranges)


def test_talib_rma_is_wilders() -> None:
    with pytest.raises(ValueError, match="wilder"):
        smooth([1.0, 2.0], like="talib-rma", span=14)


# -- ClickHouse: https://clickhouse.com/docs, reference of aggregate functions, its examples


def test_clickhouse() -> None:
    """exponentialMovingAverage(5)(temperature, timestamp), to all digits that are printed there."""
    temperatures = [95] * 3 + [96] * 4 + [97] * 4 + [98] * 4 + [99] * 3 + [100] * 2
    assert smooth(temperatures, like="clickhouse", halflife=5)[-1] == pytest.approx(
        92.25779635374204, rel=1e-15
    )


def test_clickhouse_by_time() -> None:
    """exponentialTimeDecayedAvg(10)(value, time), as rounded there; its x is a time constant."""
    got = smooth([1.0] + 11 * [0.0], like="clickhouse", tau="10s", times=range(12), time_unit="s")
    want = [1, 0.475, 0.301, 0.214, 0.162, 0.128, 0.104, 0.086, 0.072, 0.061, 0.052, 0.045]
    assert np.round(got, 3).tolist() == want


# -- InfluxDB: https://docs.influxdata.com, Flux, exponentialMovingAverage(), its rules and example


def test_influxdb() -> None:
    """A three point average of the sample data: the mean of three, then k = ½; Flux has no rows before."""
    got = smooth([-2, 10, 7, 17, 15, 4], like="influxdb", span=3)
    np.testing.assert_array_equal(got, [np.nan, np.nan, 5, 11, 13, 8.5])
    with_null = smooth([-2, None, 10, 7, None, 17], like="influxdb", span=3)
    np.testing.assert_array_equal(with_null, [np.nan, np.nan, np.nan, 5, np.nan, 11])


# -- QuestDB: EmaDoubleWindowFunctionFactory.java, computeNext


def questdb(values: Sequence[float], alphas: Sequence[float]) -> list[float]:
    """The first value as it is, then α·x + (1−α)·before; a missing one keeps what was before."""
    held, out = math.nan, []
    for value, alpha in zip(values, alphas, strict=True):
        if math.isfinite(value):
            held = value if math.isnan(held) else alpha * value + (1 - alpha) * held
        out.append(held)
    return out


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.integers(1, 40))
def test_questdb(seed: int, period: int) -> None:
    x = walk(seed)
    assert_same(smooth(x, like="questdb", span=period), questdb(x, len(x) * [2 / (period + 1)]), x)


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.integers(1, 100))
def test_questdb_by_time(seed: int, seconds: int) -> None:
    """The elapsed time is since the last row that had a value; there are no two of the same time."""
    x = walk(seed)
    times = np.cumsum(np.random.default_rng(seed).integers(1, 90, len(x)))
    some = ~np.isnan(x)
    since = np.zeros(len(x))
    since[some] = np.diff(times[some], prepend=times[some][:1])
    ours = smooth(x, like="questdb", tau=f"{seconds}s", times=times, time_unit="s")
    assert_same(ours, questdb(x, -np.expm1(-since / seconds)), x)


# -- TensorBoard


def tensorboard(values: Sequence[float], weight: float) -> list[float]:
    """Its scalar chart's smoothing, line for line: vz_line_chart2/line-chart.ts, resmoothDataset."""
    last, count, out = 0.0, 0, []
    constant = all(value == values[0] for value in values)
    for value in values:
        if constant or not math.isfinite(value):
            out.append(value)
            continue
        last = last * weight + (1 - weight) * value
        count += 1
        debias = 1.0 if weight == 1 else 1 - weight**count
        out.append(last / debias)
    return out


@settings(deadline=None, max_examples=60)
@given(SEEDS, st.sampled_from([0.0, 0.3, 0.6, 0.9, 0.99, 0.999]), st.booleans())
def test_tensorboard(seed: int, weight: float, constant: bool) -> None:
    x = walk(seed)
    if constant:
        x[:] = x[np.flatnonzero(~np.isnan(x))[:1]].sum()
    # 1 − weight^n loses digits in TensorBoard's own arithmetic: 1/(1 − 0.999) of them at first.
    assert_same(smooth(x, like="tensorboard", decay=weight), tensorboard(x.tolist(), weight), x, 1e-11)


# -- Miller


@pytest.mark.skipif(shutil.which("mlr") is None, reason="Miller is not installed; Debian calls it miller")
@pytest.mark.parametrize("seed", range(6))
def test_miller(seed: int) -> None:
    x = walk(seed, gaps=0.0)
    alphas = ["0.1", "0.35", "1"]
    text = "x\n" + "".join(f"{value!r}\n" for value in x.tolist())
    run = ["mlr", "--csv", "--ofmt", "%.17g", "step", "-a", "ewma", "-d", ",".join(alphas), "-f", "x"]
    lines = subprocess.run(run, input=text, capture_output=True, text=True, check=True).stdout.split()
    theirs = [[float(cell) for cell in line.split(",")[1:]] for line in lines[1:]]
    assert_same(smooth(x, like="miller", alpha=alphas), theirs, x)


# -- all


def test_every_set_is_held_here() -> None:
    text = globals()
    together = {"talib-dema": "talib_dema_and_tema", "talib-tema": "talib_dema_and_tema"}
    names = [together.get(name, name.replace("-", "_")) for name in SETS]
    assert all(f"test_{name}" in text for name in names)
    assert all(f"test_{name}_by_time" in text or f"test_{name}_with_times" in text for name in TIMED)
    assert set(TIMED) <= set(SETS)


def test_what_a_set_stands_for() -> None:
    assert describe("pandas") == "--adjust --missing decay --fill"
    assert describe("talib") == "--init sma"
    assert describe("polars", timed=True) == "the default"
