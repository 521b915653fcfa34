"""Law 2 for the engine: however the rows are cut, keyed or paused, the same bits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ema_cli.engine.engine import TILE
from tests.engine.engine_cases import Case, cases, clock, examples, numbers, run

MODES: list[dict[str, Any]] = [
    {"alpha": ("0.1", "0.7")},
    {"alpha": ("0.1", "1e-4", "0.7"), "std": True},
    {"alpha": ("0.1",), "std": True, "adjust": True},
    {"alpha": ("0.3",), "missing": "decay", "std": True, "init": "zero", "fill": True},
    {"alpha": ("0.01",), "missing": "decay", "adjust": True, "min_periods": 7},
    {"span": "700", "init": "sma", "std": True},
    {"alpha": ("0.02", "0.3"), "init": "sma:33"},
    {"halflife": ("1us", "1s"), "std": True, "reset_gap": "2ms"},
    {"halflife": ("20us",), "adjust": True, "std": True, "fill": True},
]


def same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def assert_same(case: Case, cuts: list[int], pauses: int) -> None:
    whole, state = run(case, [])
    pieces, cut_state = run(case, cuts, pauses)
    differ = np.flatnonzero((whole.view(np.int64) != pieces.view(np.int64)).any(axis=1))
    assert not differ.size, f"row {differ[0]}: {pieces[differ[0]]}, not {whole[differ[0]]}"
    for name, array in state.items():
        assert same_bits(array, cut_state[name]), f"{name}: {cut_state[name]}, not {array}"


def big_case(mode: dict[str, Any], rows: int, keys: int = 0) -> Case:
    rng = np.random.default_rng(3)
    values = numbers(rng, "small", (rows, 1))
    values[rng.random(rows) < 0.03] = np.nan
    codes = rng.integers(0, keys, rows) if keys else None
    return Case(mode, values, clock(rng, rows) if "halflife" in mode else None, codes)


@examples(150)
@given(cases(more=True), st.data())
def test_however_it_is_cut(case: Case, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(case.values)), max_size=8))
    assert_same(case, cuts, data.draw(st.sampled_from([0, 1, 2])))


@pytest.mark.parametrize("adjust", [False, True])
@pytest.mark.parametrize("alpha", ["0", "0.5", "1"])
def test_the_sign_of_zero(alpha: str, adjust: bool) -> None:
    values = np.array([-0.0, 0.0, -0.0, -0.0, 1.0, -0.0] * 6)[:, np.newaxis]
    case = Case({"alpha": (alpha,), "adjust": adjust, "std": True}, values)
    for cuts in ([1], [16], [17], list(range(1, 36))):
        assert_same(case, cuts, 1)


@examples(30)
@given(cases(max_rows=300, more=True), st.sampled_from([0, 3]))
def test_row_by_row(case: Case, pauses: int) -> None:
    assert_same(case, list(range(1, len(case.values))), pauses)


@examples(40)
@given(cases(max_rows=130, keyed=True, more=True))
def test_a_key_is_a_series_of_its_own(case: Case) -> None:
    """Its rows among others', however interleaved, are what they are alone; and so is each column."""
    together, _ = run(case, [])
    width = len(case.average.names(""))
    assert case.keys is not None
    for key in np.unique(case.keys).tolist():
        mine = replace(case.picked(case.keys == key), keys=None)
        alone, _ = run(mine, [])
        assert same_bits(np.ascontiguousarray(together[case.keys == key]), alone)
        for column in range(case.values.shape[1]):
            values, options = (
                mine.values[:, column : column + 1],
                mine.options | {"cov": False, "corr": False},
            )
            single, _ = run(replace(mine, values=values, options=options), [])
            assert same_bits(np.ascontiguousarray(alone[:, column * width : (column + 1) * width]), single)


@examples(30)
@given(cases(max_rows=300, std=True))
def test_a_weight_or_the_std_more_changes_nothing(case: Case) -> None:
    together, _ = run(case, [])
    decays = case.average.decays
    fields = together.reshape(len(together), -1, len(decays), 2)
    for k, decay in enumerate(decays):
        options = case.options | {decay.family: (decay.text,), "std": False}
        alone, _ = run(Case(options, case.values, case.times, case.keys, case.seed), [])
        assert same_bits(np.ascontiguousarray(fields[:, :, k, 0]), alone)


@pytest.mark.parametrize("keys", [0, 1, 7, 3000])
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_whole_tiles(mode: dict[str, Any], keys: int) -> None:
    """Full tiles against pieces of every size, across their ends: many blocks, many keys."""
    case = big_case(mode, TILE + 5_000, keys)
    tiles, few = [TILE], [1, 2, 50, 4_000, 4_097, 21_000, 30_000, 60_000, TILE + 1]
    (whole, state), (pieces, cut_state) = run(case, tiles), run(case, few, pauses=2)
    assert same_bits(whole, pieces)
    assert all(same_bits(state[name], cut_state[name]) for name in state)


@pytest.mark.parametrize("adjust", [False, True])
@pytest.mark.parametrize("alpha", ["1e-4", "0.1", "0.6"])
def test_many_long_series_are_what_each_is_alone(alpha: str, adjust: bool) -> None:
    """Above the last level few series go on number by number, many side by side; the bits are the same."""
    rng = np.random.default_rng(5)
    rows, keys = 9_000, 40
    values = numbers(rng, "wide", (rows * keys, 1))
    codes = np.repeat(np.arange(keys), rows)
    plain: dict[str, Any] = {"alpha": (alpha,), "adjust": adjust}
    full = plain | {"std": True}
    together, _ = run(Case(plain, values, None, codes), [])
    with_std, _ = run(Case(full, values, None, codes), [])
    assert same_bits(together, np.ascontiguousarray(with_std[:, :1]))
    for key in (0, 17, keys - 1):
        mine = codes == key
        alone, _ = run(Case(plain, values[mine]), [5_000])
        assert same_bits(together[mine], alone)
        alone_with_std, _ = run(Case(full, values[mine]), [5_000])
        assert same_bits(with_std[mine], alone_with_std)
