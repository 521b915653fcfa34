"""`--alpha auto` against brute force and the real statsmodels."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.tsa.holtwinters import SimpleExpSmoothing

from ema_cli.auto import Tiles, best_alphas
from ema_cli.average import make_average
from ema_cli.engine.engine import KeyedRows
from ema_cli.errors import OptionError
from ema_cli.keys import KeyTable
from tests.conftest import SAMPLES

DATA = SAMPLES
Floats = Any


def tiles_of(values: Floats, size: int = 65_536, keys: list[str] | None = None) -> Tiles:
    table = np.asarray(values, float)
    table = table[:, np.newaxis] if table.ndim == 1 else table

    def tiles() -> Iterator[tuple[Floats, KeyedRows | None]]:
        known = KeyTable()
        for begin in range(0, len(table), size):
            part = None if keys is None else known.encode([pa.array(keys[begin : begin + size])])
            yield table[begin : begin + size], part

    return tiles


def squared_error(x: Floats, alpha: float, adjust: bool = False, ignore_na: bool = True) -> float:
    """By pandas: its average, one value before."""
    x = pd.Series(x, dtype=float)
    if alpha == 0:
        level = x.dropna().expanding().mean().reindex(x.index) if adjust else x * 0 + x.dropna().iloc[0]
    else:
        level = x.ewm(alpha=alpha, adjust=adjust, ignore_na=ignore_na).mean()
    seen = x.notna()
    return float(np.nansum((x[seen].to_numpy()[1:] - level[seen].to_numpy()[:-1]) ** 2))


def best(x: Floats, **options: Any) -> float:
    return best_alphas(tiles_of(x), make_average({"alpha": "auto"} | options), 1)[0]


def by_statsmodels(x: Floats) -> float:
    model = SimpleExpSmoothing(x, initialization_method="known", initial_level=x[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of convergence, on series that have no one best weight
        return float(model.fit().params["smoothing_level"])


def series(kind: str, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=400)
    return {
        "walk": np.cumsum(noise),
        "noisy walk": np.cumsum(noise * 0.3) + rng.normal(size=400),
        "noise": 50 + noise,
        "steps": np.repeat(rng.normal(size=20) * 5, 20) + 0.2 * noise,
        "heavy": rng.standard_t(2, size=400),
        "seasonal": np.sin(np.arange(400) / 9) * 3 + noise,
        "zigzag": np.arange(400) % 2 + 0.01 * noise,
    }[kind]


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("kind", ["walk", "noisy walk", "noise", "steps", "heavy", "seasonal", "zigzag"])
def test_no_worse_than_statsmodels(kind: str, seed: int) -> None:
    x = series(kind, seed)
    assert squared_error(x, best(x)) <= squared_error(x, by_statsmodels(x)) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("name", "column"),
    [("co2.csv", "co2"), ("fx_rates.csv", None), ("training_loss.csv", None), ("weather.csv", None)],
)
def test_no_worse_than_statsmodels_on_the_sample_data(name: str, column: str | None) -> None:
    table = pd.read_csv(DATA / name).head(3000)
    column = column or table.select_dtypes("float").columns[0]
    x = table[column].dropna().to_numpy(float)
    assert squared_error(x, best(x)) <= squared_error(x, by_statsmodels(x)) * (1 + 1e-9)


@pytest.mark.parametrize("options", [{}, {"adjust": True}, {"missing": "decay"}, {"like": "pandas"}])
@pytest.mark.parametrize("seed", range(3))
def test_the_recursion_that_is_asked_for_is_what_is_optimised(options: dict[str, Any], seed: int) -> None:
    x = series("noisy walk", seed)[:120]
    x[np.random.default_rng(seed).random(120) < 0.2] = np.nan
    adjust = bool(options.get("adjust") or options.get("like"))
    ignore_na = options in ({}, {"adjust": True})
    found = squared_error(x, best(x, **options), adjust, ignore_na)
    brute = min(squared_error(x, a, adjust, ignore_na) for a in np.linspace(0.001, 1, 2000))
    assert found <= brute * (1 + 1e-9)


def test_a_value_to_begin_with() -> None:
    x = np.array([10.0, 10.5, 9.5, 10.0, 10.1])
    # From 0 the average can only predict by following at once.
    assert best(x, init="zero") > 0.8
    assert best(x) < 0.5


def test_columns_have_weights_of_their_own_and_keys_share_one() -> None:
    walk, noise = series("noisy walk", 3), series("noise", 4)
    average = make_average({"alpha": "auto"})
    both = best_alphas(tiles_of(np.column_stack((walk, noise))), average, 2)
    assert both == [best(walk), best(noise)]
    keys = ["a", "b"] * 400
    mixed = np.column_stack((walk, noise)).reshape(-1)
    shared = best_alphas(tiles_of(mixed, keys=keys), average, 1)[0]

    def total(alpha: float) -> float:
        return squared_error(walk, alpha) + squared_error(noise, alpha)

    assert total(shared) <= min(total(alpha) for alpha in np.linspace(0.001, 1, 500)) * (1 + 1e-9)


@settings(deadline=None, max_examples=8)
@given(st.integers(7, 50), st.booleans())
def test_the_cut_makes_no_difference(size: int, keyed: bool) -> None:
    x = series("noisy walk", 5)[:100]
    x[10:20] = np.nan
    keys = ["abc"[k % 3] for k in range(100)] if keyed else None
    average = make_average({"alpha": "auto"})
    cut = best_alphas(tiles_of(x, size, keys), average, 1)[0]
    assert cut == best_alphas(tiles_of(x, keys=keys), average, 1)[0]


@pytest.mark.parametrize("keyed", [False, True])
def test_the_cut_makes_no_difference_to_sums_over_many_rows(keyed: bool) -> None:
    x = np.random.default_rng(9).normal(size=70_000).cumsum() * 0.01
    x += np.random.default_rng(10).normal(size=len(x))
    keys = [f"k{k % 7}" for k in range(len(x))] if keyed else None
    average = make_average({"alpha": "auto"})
    whole, cut = (best_alphas(tiles_of(x, size, keys), average, 1) for size in (65_536, 9_973))
    assert whole == cut


def test_beside_another_weight() -> None:
    x = series("noisy walk", 6)
    assert best(x, alpha=["0.5", "auto"]) == best(x)


@pytest.mark.parametrize("factor", [1e-290, 1e290])
def test_extreme_values(factor: float) -> None:
    x = series("noisy walk", 7)
    assert best(x * factor) == pytest.approx(best(x), rel=2e-6)


@pytest.mark.parametrize("x", [[], [1.0], [np.nan, 2.0], [3.0] * 50, [np.nan] * 3])
def test_where_all_are_equally_good_the_answer_is_one(x: list[float]) -> None:
    assert best(np.array(x)) == 1.0


def test_many_keys_take_fewer_weights_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x = series("noisy walk", 8)
    monkeypatch.setattr("ema_cli.auto.MOST_PLACES", 4)
    assert best(x) == pytest.approx(_unlimited(x), rel=2e-6)


def _unlimited(x: Floats) -> float:
    grid = np.linspace(0.0005, 1, 4000)
    near = grid[np.argmin([squared_error(x, alpha) for alpha in grid])]
    fine = np.linspace(near - 3e-4, near + 3e-4, 601)
    errors = np.array([squared_error(x, alpha) for alpha in fine])
    a, b, _ = np.polyfit(fine - near, errors / errors.min() - 1, 2)
    return float(near - b / (2 * a))


def test_the_weight_can_be_typed_again() -> None:
    alpha = best(series("noisy walk", 9))
    assert len(repr(alpha)) <= 12
    assert make_average({"alpha": repr(alpha)}).decays[0].alpha == alpha


def test_times_are_refused() -> None:
    average = make_average({"halflife": "1h"}, timed=True)
    with pytest.raises(OptionError, match="counts rows"):
        best_alphas(tiles_of([1.0]), average, 1)
