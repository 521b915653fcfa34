"""The two-sided average against the sum that defines it, and however its input is cut."""

from __future__ import annotations

from decimal import MAX_EMAX, MIN_EMIN, localcontext
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ema_cli import smooth
from ema_cli.average import make_average
from ema_cli.centered import Centered
from ema_cli.engine.engine import KeyedRows
from ema_cli.errors import OptionError
from tests.engine.engine_cases import KINDS, LENGTHS, Case, clock, examples, numbers
from tests.engine.test_engine import BESIDE, DENORMAL, LIMIT, LOST_WEIGHT, assert_close, check_pair_row, lost
from tests.reference import centered_rows


@st.composite
def centered(draw: st.DrawFn, max_rows: int) -> Case:
    timed = draw(st.booleans())
    options: dict[str, Any] = {"centered": True, "std": draw(st.booleans())}
    if timed:
        options |= {"halflife": draw(st.sampled_from([("1us",), ("7ns", "3s"), ("2d",)]))}
        options["reset_gap"] = draw(st.sampled_from([None, None, "50us", "1s"]))
    else:
        options |= {"alpha": draw(st.sampled_from([("0.1",), ("1e-3", "0.7"), ("1",), ("0",)]))}
        options["missing"] = draw(st.sampled_from(["skip", "decay"]))
    rows = draw(st.sampled_from([n for n in LENGTHS if n <= max_rows]))
    columns = draw(st.sampled_from([1, 2]))
    options |= dict.fromkeys(draw(st.lists(st.sampled_from(["sum", "cov", "corr"][: 2 * columns - 1]))), True)
    seed = draw(st.integers(0, 2**31))
    rng = np.random.default_rng(seed)
    values = numbers(rng, draw(st.sampled_from(KINDS)), (rows, columns))
    values[rng.random(values.shape) < draw(st.sampled_from([0.0, 0.05, 0.4, 0.95]))] = np.nan
    keys = rng.integers(0, draw(st.sampled_from([2, 40])), rows) if draw(st.booleans()) else None
    weights = rng.choice([1.0, 3.0, 0.0, np.nan, 1e-3], rows) if draw(st.booleans()) else None
    return Case(options, values, clock(rng, rows) if timed else None, keys, seed, weights)


def both_ways(case: Case, cuts: list[int]) -> np.ndarray:
    """The new columns, tile by tile there and back."""
    both = Centered(case.average, case.values.shape[1])
    parts, names = [], np.unique(case.keys) if case.keys is not None else None
    for begin, end in pairwise([0, *sorted(cuts), len(case.values)]):
        part = case.part(begin, end)
        if begin == end:
            continue
        keys = None
        if part.keys is not None and names is not None:
            known, codes = np.unique(part.keys, return_inverse=True)
            keys = KeyedRows(codes.astype(np.uint16), np.searchsorted(names, known))
        given = part.table, part.times, keys
        parts.append((*given, both.forward(*given)))
    return np.concatenate([both.fields(*part) for part in reversed(parts)][::-1])


def oracle(case: Case, mine: np.ndarray, column: np.ndarray, weight: int, **more: Any) -> list[Any]:
    decay, average = case.average.decays[weight], case.average
    options: dict[str, Any] = {"weights": None if case.weights is None else case.weights[mine].tolist()}
    if case.times is None:
        options |= {"alpha": decay.alpha, "missing": average.missing}
    else:
        options |= {"times": case.times[mine].tolist(), "halflife": decay.halflife_ns}
        options["reset_gap"] = average.reset_gap
    return centered_rows(column.tolist(), **(options | more))


@given(centered(max_rows=33))
@examples(100)
def test_it_is_the_sum_that_defines_it(case: Case) -> None:
    average, columns = case.average, case.values.shape[1]
    names = average.all_names([f"v{k}" for k in range(columns)])
    fields = dict(zip(names, both_ways(case, []).T, strict=True))
    groups = np.zeros(len(case.values), int) if case.keys is None else case.keys
    with localcontext(prec=60, Emin=MIN_EMIN, Emax=MAX_EMAX):
        for key in np.unique(groups).tolist():
            mine = np.flatnonzero(groups == key)
            for weight, decay in enumerate(average.decays):
                end = f"_{decay.text}" if len(average.decays) > 1 else ""
                for k in range(columns):
                    parts = {part: fields[f"v{k}_{part}{end}"][mine] for part in average.parts}
                    check_rows(oracle(case, mine, case.values[mine, k], weight), parts)
                for part in average.pair_parts:
                    x, y = case.values[mine].T
                    missing = np.isnan(x) | np.isnan(y)
                    x, y = (np.where(missing, np.nan, side) for side in (x, y))
                    rows = oracle(case, mine, x, weight, partner=y.tolist())
                    one, other = (oracle(case, mine, side, weight) for side in (x, y))
                    for at, sides in enumerate(zip(rows, one, other, strict=True)):
                        check_pair_row(
                            case, sides, {part: fields[f"v0_v1_{part}{end}"][mine][at]}, f"row {at}"
                        )


def check_rows(rows: list[Any], parts: dict[str, np.ndarray]) -> None:
    for at, row in enumerate(rows):
        for part, values in parts.items():
            got = float(values[at])
            if row is None or (part == "std" and row.std is None):
                assert np.isnan(got), f"row {at}, {part}: {got}, not blank"
                continue
            scale = LIMIT * row.largest + LOST_WEIGHT * row.reach + DENORMAL
            if part == "ema":
                assert_close(got, row.mean, scale, f"row {at}")
            elif part == "sum":
                assert_close(got, row.mean * row.total, scale * row.total, f"row {at}, sum")
            elif part == "std":
                scale = LIMIT * row.root_mean_square + lost(row, BESIDE)
                assert_close(got, row.std, scale, f"row {at}, std")


@given(centered(max_rows=520), st.data())
@examples(60)
def test_however_it_is_cut(case: Case, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(case.values)), max_size=6))
    assert both_ways(case, []).tobytes() == both_ways(case, cuts).tobytes()


@given(centered(max_rows=300))
@examples(30)
def test_in_python_it_is_the_same(case: Case) -> None:
    options = {
        name: list(value) if isinstance(value, tuple) else value for name, value in case.options.items()
    }
    got = smooth(case.values, times=case.times, by=case.keys, weights=case.weights, **options,
                 **({} if case.times is None else {"time_unit": "ns"}))  # fmt: skip
    assert got.reshape(len(case.values), -1).tobytes() == both_ways(case, []).tobytes()


def test_turned_round_it_is_the_same_to_the_last_digits() -> None:
    values = np.random.default_rng(4).standard_normal((5_000, 1))
    there, back = smooth(values, alpha=0.05, centered=True), smooth(values[::-1], alpha=0.05, centered=True)
    np.testing.assert_allclose(there, back[::-1], rtol=0, atol=1e-15)


def test_a_constant_stays_that_constant_and_a_weight_of_one_is_a_copy() -> None:
    values = np.full(9_000, 0.1)
    values[::5] = np.nan
    assert set(smooth(values, alpha=0.03, centered=True)[~np.isnan(values)]) == {0.1}
    wide = numbers(np.random.default_rng(2), "special", (500, 1))
    assert smooth(wide, alpha=1.0, centered=True).tobytes() == wide.tobytes()


@pytest.mark.parametrize(
    "options",
    [{"fill": True}, {"double": True}, {"init": "zero"}, {"min_periods": 2}, {"alpha": "auto"}],
    ids=str,
)
def test_what_has_no_meaning_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="centered"):
        make_average({"alpha": 0.1, "centered": True} | options)


def test_light_rows_between_silences_have_the_std_of_both_sides() -> None:
    """Shares that are small, but larger than the least one beside a row of little weight."""
    times = np.array([0, 1022, 2044]).view("datetime64[ns]")
    options = {"halflife": "1ns", "times": times, "centered": True, "std": True}
    fields = smooth(np.array([1.0, 2.0, 10.0]), weights=np.array([1.0, 0.001, 1.0]), **options)
    np.testing.assert_allclose(fields[1], [2.0, (65 / 4) ** 0.5], rtol=1e-12)
