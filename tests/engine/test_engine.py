"""Law 5: the engine against the oracle, in every mode."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import MAX_EMAX, MIN_EMIN, Decimal, localcontext
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ema_cli.average import make_average
from ema_cli.engine.engine import BackwardsTimeError, Engine, KeyedRows
from ema_cli.engine.rows import Tile
from ema_cli.trends import Trends
from tests.engine.engine_cases import ALPHAS, Case, cases, clock, examples, numbers, run
from tests.reference import Exact, exact_rows

LIMIT = Decimal("1e-12")
# What float64 cannot hold: numbers, and weights of values, below its normal range have no twelve digits.
DENORMAL = Decimal("1e-320")
LOST_WEIGHT = Decimal(2) ** -1021
# On either side of a silence a little is left, however long it is, beside rows of any weight.
BESIDE = 64
LARGEST = Decimal(float(np.finfo(float).max))


def oracle(case: Case, values: Any, times: np.ndarray | None, weight: int, **more: Any) -> list[Exact | None]:
    """more: other options of the oracle's, in place of the case's."""
    average = case.average
    decay = average.decays[weight]
    options: dict[str, Any] = {"fill": average.fill, "min_periods": average.min_periods}
    options |= {"adjust": average.adjust}
    if case.weights is not None:
        options["weights"] = case.weights.tolist()
    if times is None:
        options |= {"alpha": decay.alpha, "init": average.init, "missing": average.missing}
        options["span"] = decay.seed or None
    else:
        options |= {"times": times.tolist(), "halflife": decay.halflife_ns}
        options |= {"reset_gap": average.reset_gap, "init": average.init, "time_step": average.time_step}
    return exact_rows(values.tolist() if hasattr(values, "tolist") else values, **(options | more))


def assert_close(got: float, want: Decimal | None, scale: Decimal, what: str) -> None:
    """scale: what twelve digits are counted from; `LOST_WEIGHT` and `DENORMAL` allowed for by the caller."""
    if want is None:
        assert np.isnan(got), f"{what}: {got}, not blank"
        return
    if scale > LARGEST:  # whatever was lost on the way, float64 has no numbers to tell
        return
    if abs(want) > LARGEST:
        assert got == math.copysign(math.inf, want), f"{what}: {got}, not {want}"
        return
    assert np.isfinite(got), f"{what}: {got}, not {want}"
    error = abs(Decimal(got) - want)
    assert error <= scale, f"{what}: {got}, not {float(want)} ({error / scale} times the limit)"


def lost(row: Exact, beside: int = 1) -> Decimal:
    """What float64's range may cost a std. beside: how much lighter than a row its own side may be, where two
    are joined."""
    share = beside * LOST_WEIGHT.sqrt() * row.reach + DENORMAL
    return (min(share / row.bias.sqrt(), row.reach) if row.bias else share) + DENORMAL


def assert_row(mean: float, std: float | None, want: Exact | None, where: str) -> None:
    if want is None:
        assert np.isnan(mean), f"{where}: {mean}, not blank"
        assert std is None or np.isnan(std), f"{where}: std {std}, not blank"
        return
    assert_close(mean, want.mean, LIMIT * want.largest + LOST_WEIGHT * want.reach + DENORMAL, where)
    if std is not None:
        assert_close(std, want.std, LIMIT * want.root_mean_square + lost(want), where + ", std")


def check(case: Case) -> None:
    """Every number of the case is the oracle's."""
    got, _ = run(case, [])
    weights, columns = len(case.average.decays), case.values.shape[1]
    fields = got.reshape(len(got), columns, weights, -1)
    groups = np.zeros(len(got), int) if case.keys is None else case.keys
    with localcontext(prec=60, Emin=MIN_EMIN, Emax=MAX_EMAX):
        for key in np.unique(groups).tolist():
            mine = np.flatnonzero(groups == key)
            times = None if case.times is None else case.times[mine]
            for column in range(columns):
                for weight in range(weights):
                    rows = oracle(case, case.values[mine, column], times, weight)
                    for at, want in zip(mine.tolist(), rows, strict=True):
                        mean, *std = fields[at, column, weight].tolist()
                        where = f"row {at}, column {column}, weight {weight}"
                        assert_row(mean, std[0] if std else None, want, where)


@examples(150)
@given(cases(max_rows=33))
def test_short_series_are_the_oracles(case: Case) -> None:
    check(case)


@examples(12)
@given(cases(max_rows=300))
def test_longer_series_are_the_oracles(case: Case) -> None:
    check(case)


@examples(100)
@given(cases(max_rows=33, keyed=False, more=True))
def test_what_else_there_is_is_the_oracles(case: Case) -> None:
    got, average = run(case, [])[0], case.average
    names = average.all_names([f"v{k}" for k in range(case.values.shape[1])])
    fields = dict(zip(names, got.T.tolist(), strict=True))
    with localcontext(prec=60, Emin=MIN_EMIN, Emax=MAX_EMAX):
        for weight, decay in enumerate(average.decays):
            end = f"_{decay.text}" if len(average.decays) > 1 else ""
            for k, column in enumerate(case.values.T):
                check_column(
                    case, column, weight, {part: fields[f"v{k}_{part}{end}"] for part in average.parts}
                )
            if average.paired:
                for one, other in combinations(range(case.values.shape[1]), 2):
                    parts = {part: fields[f"v{one}_v{other}_{part}{end}"] for part in average.pair_parts}
                    check_pair(case, case.values[:, one], case.values[:, other], weight, parts)


def check_column(case: Case, column: np.ndarray, weight: int, parts: dict[str, list[float]]) -> None:
    """Trend, sum and averages of averages of one column."""
    rows = oracle(case, column, case.times, weight)
    plain = oracle(case, column, case.times, weight, adjust=True, init="first", span=None)
    once = again(case, oracle(case, column, case.times, weight, fill=False, min_periods=0), weight)
    twice = again(case, once, weight)
    for at, row in enumerate(rows):
        for part, values in parts.items():
            if part == "ema":
                assert_row(values[at], None, row, f"row {at}")
            elif part == "sum":
                exact = plain[at]
                assert (exact is None) == np.isnan(values[at])
                if exact is not None:
                    total = exact.total
                    if case.average.missing == "decay":  # what is held has faded
                        alpha = Decimal(case.average.decays[weight].alpha)
                        ago = rows_since(case, column, at)
                        total *= (1 - alpha) ** ago if ago else 1
                    tiny = (LOST_WEIGHT * exact.reach + DENORMAL) * exact.total + DENORMAL
                    scale = LIMIT * exact.largest * total + tiny
                    assert_close(values[at], exact.mean * total, scale, f"row {at}, sum")
            elif part in ("dema", "tema"):
                check_again(values[at], part, (row, held(case, once, at), held(case, twice, at)), at)


def rows_since(case: Case, column: np.ndarray, at: int) -> int:
    """Rows since the last value."""
    missing = np.isnan(column) if case.weights is None else np.isnan(column) | ~(case.weights > 0)
    return int(at - np.flatnonzero(~missing[: at + 1])[-1])


def again(case: Case, rows: list[Exact | None], weight: int) -> list[Exact | None]:
    """The averages of averages."""
    means = [math.nan if row is None else row.mean for row in rows]
    return oracle(case, means, case.times, weight, fill=False, min_periods=0)


def held(case: Case, rows: list[Exact | None], at: int) -> Exact | None:
    """What is shown of a row: with `fill` what the last one that is there says."""
    while case.average.fill and at and rows[at] is None:
        at -= 1
    return rows[at]


def check_again(got: float, part: str, rows: tuple[Exact | None, ...], at: int) -> None:
    y, once, twice = rows
    if y is None or once is None or (part == "tema" and twice is None):
        assert np.isnan(got), f"row {at}, {part}: {got}, not blank"
        return
    want = 2 * y.mean - once.mean
    if part == "tema" and twice is not None:
        want = 3 * y.mean - 3 * once.mean + twice.mean
    assert_close(got, want, 8 * LIMIT * y.reach + DENORMAL, f"row {at}, {part}")


def check_pair(case: Case, x: np.ndarray, y: np.ndarray, weight: int, parts: dict[str, list[float]]) -> None:
    """Covariance and correlation of two columns."""
    missing = np.isnan(x) | np.isnan(y)
    both = [np.where(missing, np.nan, values) for values in (x, y)]
    one, other = (oracle(case, values, case.times, weight) for values in both)
    pairs = oracle(case, both[0], case.times, weight, partner=both[1].tolist())
    for at, sides in enumerate(zip(pairs, one, other, strict=True)):
        check_pair_row(case, sides, {part: values[at] for part, values in parts.items()}, f"row {at}")


def check_pair_row(case: Case, sides: tuple[Exact | None, ...], got: dict[str, float], where: str) -> None:
    """sides: what the oracle says of the pair, and of each column alone."""
    row, a, b = sides
    if row is None or a is None or b is None:
        assert all(np.isnan(value) for value in got.values())
        return
    if not row.bias:
        assert np.isnan(got.get("corr", math.nan))
        return
    beside = BESIDE if case.average.centered else 1
    errors = [LIMIT * side.root_mean_square + lost(side, beside) for side in (a, b)]
    scale = errors[0] * (b.root_mean_square + errors[1]) + errors[1] * a.root_mean_square
    unbiased = row.covariance / row.bias
    assert a.std is not None
    assert b.std is not None
    for part, value in got.items():
        if part == "cov":
            share = row.bias if case.average.bias else 1
            least = LOST_WEIGHT * a.reach * b.reach  # what a silence leaves, however long
            assert_close(value, unbiased * share, scale * share + least + DENORMAL, f"{where}, cov")
        elif a.std * b.std > 100 * scale:  # what is far from constant, to as many digits as that leaves
            product = a.std * b.std
            assert_close(value, unbiased / product, LIMIT + 2 * scale / product, f"{where}, corr")


def one(values: list[float] | np.ndarray, **options: Any) -> list[float]:
    """One series' averages."""
    column = np.asarray(values, float)[:, np.newaxis]
    return Trends(make_average(options), 1).update(column)[:, 0].tolist()


@pytest.mark.parametrize(
    ("options", "want"),
    [
        ({}, 3.0),
        ({"missing": "decay"}, 11 / 3),
        ({"adjust": True}, 11 / 3),
        ({"adjust": True, "missing": "decay"}, 4.2),
        ({"init": "zero"}, 2.75),
    ],
    ids=str,
)
def test_the_worked_example(options: dict[str, Any], want: float) -> None:
    """[1, NaN, 5] at α = ½, as docs/semantics.md has it."""
    got = one([1.0, math.nan, 5.0], alpha=0.5, **options)
    assert np.isnan(got[1])
    assert got[2] == pytest.approx(want, rel=1e-15)
    assert one([1.0, math.nan, 5.0], alpha=0.5, fill=True, **options)[1] == got[0]


@pytest.mark.parametrize("missing", ["skip", "decay"])
@pytest.mark.parametrize("adjust", [False, True])
@pytest.mark.parametrize("constant", [0.1, 1 / 3, -7.7, 1e300, 1e-300, 5e-324])
def test_a_constant_series_stays_that_constant(constant: float, adjust: bool, missing: str) -> None:
    values = np.full((9_000, 1), constant)
    values[np.random.default_rng(1).random(9_000) < 0.1] = np.nan
    average = make_average({"alpha": ALPHAS, "adjust": adjust, "missing": missing, "std": True})
    fields = Trends(average, 1).update(values).reshape(len(values), len(ALPHAS), 2)
    seen = ~np.isnan(values[:, 0])
    assert (fields[seen, :, 0] == constant).all()
    std = fields[seen, :, 1]
    assert (std[~np.isnan(std)] == 0.0).all()


@pytest.mark.parametrize("adjust", [False, True])
def test_a_constant_series_by_time_stays_that_constant(adjust: bool) -> None:
    times = clock(np.random.default_rng(5), 9_000)
    average = make_average({"halflife": ("1ns", "40us", "2d"), "adjust": adjust, "std": True}, timed=True)
    fields = Trends(average, 1).update(np.full((9_000, 1), 0.1), times).reshape(-1, 2)
    assert (fields[:, 0] == 0.1).all()
    assert (fields[~np.isnan(fields[:, 1]), 1] == 0.0).all()


@pytest.mark.parametrize("missing", ["skip", "decay"])
@pytest.mark.parametrize("adjust", [False, True])
def test_alpha_one_is_a_copy(adjust: bool, missing: str) -> None:
    values = numbers(np.random.default_rng(2), "wide", (5_000, 1))
    values[::7] = np.nan
    got = one(values[:, 0], alpha=1.0, adjust=adjust, missing=missing)
    np.testing.assert_array_equal(got, values[:, 0])


def test_alpha_zero_holds_the_first() -> None:
    values = numbers(np.random.default_rng(2), "small", (5_000, 1))[:, 0]
    assert set(one(values, alpha=0.0)) == {values[0]}
    assert set(one(values, alpha=0.0, init="2.5")) == {2.5}
    assert one(values, alpha=0.0, adjust=True)[-1] == pytest.approx(values.mean(), abs=1e-14)


@pytest.mark.parametrize("alpha", [1e-30, 1e-50, 5e-324, 1 - 2**-53])
def test_weights_at_the_ends_of_float64(alpha: float) -> None:
    """So small that nothing moves, or bias-corrected the plain mean; so large that it is nearly a copy."""
    values = numbers(np.random.default_rng(2), "small", (5_000, 1))[:, 0]
    want = values if alpha > 0.5 else np.full(5_000, values[0])
    np.testing.assert_allclose(one(values, alpha=alpha), want, atol=1e-14)
    want = values if alpha > 0.5 else np.cumsum(values) / np.arange(1, 5_001)
    np.testing.assert_allclose(one(values, alpha=alpha, adjust=True), want, atol=1e-14)


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("adjust", [False, True])
def test_a_time_that_goes_backwards_changes_nothing(adjust: bool, keyed: bool) -> None:
    average = make_average({"halflife": "1s", "adjust": adjust, "fill": True, "std": True}, timed=True)
    values = np.array([[1.0], [2.0], [math.nan]])
    keys = KeyedRows(np.array([0, 1, 0], np.uint16), np.array([0, 1])) if keyed else None
    trends = Trends(average, 1)
    trends.update(values, np.array([10, 20, 30]), keys)
    before = trends.state()
    before = {name: array.copy() for name, array in before.items()}
    for times, row in (([40, 50, 39], 2), ([29, 50, 60], 0)):
        with pytest.raises(BackwardsTimeError) as error:
            trends.update(values, np.array(times), keys)
        assert error.value.row == row
        after = trends.state()
        assert all(np.array_equal(before[name], after[name], equal_nan=True) for name in before)
    if keyed:  # the clock of another key does not count
        trends.update(values, np.array([30, 20, 30]), keys)


def test_a_column_with_a_weight_of_its_own_is_as_it_is_alone() -> None:
    average = replace(make_average({"alpha": "auto", "std": True}), min_periods=2)
    values = numbers(np.random.default_rng(8), "small", (700, 3))
    values[::5, 1] = np.nan
    alphas = [0.1, 0.9, 0.03]
    together = Trends(average, 3, alphas).update(values)
    for k, alpha in enumerate(alphas):
        alone = Trends(average.with_alpha(alpha), 1).update(values[:, k : k + 1])
        np.testing.assert_array_equal(together[:, 2 * k : 2 * k + 2], alone)


def test_one_table_of_averages_and_fields() -> None:
    """Residual and bands are made of the trend and the std."""
    average = make_average({"alpha": ("0.1", "0.5"), "residual": True, "std": True, "bands": 2.0})
    values = numbers(np.random.default_rng(8), "small", (50, 2))
    fields = Trends(average, 2).update(values).reshape(50, 2, 2, 5)
    mean, residual, std, lower, upper = np.moveaxis(fields, -1, 0)
    np.testing.assert_array_equal(residual, values[:, :, np.newaxis] - mean)
    np.testing.assert_array_equal(lower, mean - 2.0 * std)
    np.testing.assert_array_equal(upper, mean + 2.0 * std)
    assert np.isnan(std[0]).all()


def test_no_rows_and_no_values() -> None:
    engine = Engine(make_average({"alpha": 0.1, "std": True}), 2)
    assert engine.update(Tile(np.empty((0, 2))))["mean"].shape == (1, 2, 0)
    moments = engine.update(Tile(np.full((3, 2), np.nan)))
    assert set(moments) == {"mean", "deviation", "bias"}
    assert all(np.isnan(array).all() for array in moments.values())
    assert engine.state.trimmed()["seen"].tolist() == [0, 0]


@pytest.mark.parametrize("alpha", ["1e-6", "1e-4", "0.1", "0.97"])
@pytest.mark.parametrize("adjust", [False, True])
def test_errors_do_not_grow_with_the_rows(alpha: str, adjust: bool) -> None:
    """A million rows far from 0, against sums of twice the digits (NumPy's longdouble where it has more)."""
    if np.finfo(np.longdouble).eps > 1e-18:
        pytest.skip("longdouble is float64 here")
    rows = 1_200_000
    values = 1e6 + numbers(np.random.default_rng(4), "drift", (rows, 1)) * 1e-9
    trends = Trends(make_average({"alpha": alpha, "adjust": adjust}), 1)
    got = np.concatenate([trends.update(values[at : at + 50_000]) for at in range(0, rows, 50_000)])[:, 0]
    a = np.longdouble(float(alpha))
    average, mass = np.longdouble(values[0, 0]), np.longdouble(1)
    worst = 0.0
    for x, y in zip(values[1:, 0].astype(np.longdouble), got[1:], strict=True):
        mass = (1 - a) * mass + 1 if adjust else 1 / a
        average += (x - average) / mass
        worst = max(worst, abs(float((y - average) / average)))
    assert worst < 2e-15


def test_wilders_published_way() -> None:
    """N = 4: the mean of the first four, then a quarter of what is new (Wilder, New Concepts, 1978)."""
    values = np.array([2.0, 4, 6, 8, 10, 1, 3])[:, np.newaxis]
    got = Trends(make_average({"wilder": 4}), 1).update(values)[:, 0]
    np.testing.assert_array_equal(got, [np.nan, np.nan, np.nan, 5, 6.25, 4.9375, 4.453125])


@pytest.mark.parametrize("halflives", [1_000, 3_000_000])
@pytest.mark.parametrize("adjust", [False, True])
def test_two_observations_have_a_std_whatever_the_silence(halflives: int, adjust: bool) -> None:
    average = make_average({"halflife": "1ns", "std": True, "adjust": adjust}, timed=True)
    fields = Trends(average, 1).update(np.array([[1.0], [4.0]]), np.array([0, halflives]))
    np.testing.assert_allclose(fields[1], [4.0, 3 / math.sqrt(2)], rtol=1e-14)


@pytest.mark.parametrize("options", [{}, {"adjust": True}, {"missing": "decay"}, {"std": True}])
def test_up_to_the_largest_numbers(options: dict[str, Any]) -> None:
    most = np.finfo(float).max
    values = np.array([most, -most, most, 1.5e308, -1.7e308] * 9)[:, np.newaxis]
    got = Trends(make_average({"alpha": 0.3} | options), 1).update(values)[:, 0]
    want = [
        float(row.mean) for row in exact_rows(values[:, 0].tolist(), alpha=0.3, adjust="adjust" in options)
    ]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12 * most)


def test_a_weight_of_one_is_a_copy() -> None:
    values = np.array([3.0, -0.0, 1e16, 1.0, 5e-324, -0.0, 2**53 + 1.0])[:, np.newaxis]
    for options in ({}, {"adjust": True}, {"missing": "decay"}, {"missing": "decay", "adjust": True}):
        got = Trends(make_average({"alpha": 1} | options), 1).update(values)
        assert got.tobytes() == values.tobytes()


def test_nothing_is_held_over_a_restart_at_the_first_row_of_a_part() -> None:
    average = make_average({"span": "1", "fill": True})
    trends = Trends(average, 1)
    trends.update(np.array([[1.0]]))
    assert np.isnan(trends.update(np.array([[np.nan]]), restarts=np.array([True])))


@given(cases(more=True), st.data())
@examples(60)
def test_a_series_that_restarts_is_a_new_one(case: Case, data: st.DataObject) -> None:
    """However it is cut, and as if the rows from there on had been alone."""
    rows = len(case.values)
    begins = np.zeros(rows, bool)
    begins[data.draw(st.lists(st.integers(0, rows - 1), max_size=3))] = True
    cut = data.draw(st.integers(0, rows))
    one, other = (Trends(case.average, case.values.shape[1]) for _ in range(2))
    keys = None if case.keys is None else KeyedRows(*numbered(case.keys))
    if keys is not None:
        begins &= case.keys == case.keys[0]
    whole = one.update(case.table, case.times, keys, begins)
    parts = []
    for part in (slice(0, cut), slice(cut, rows)):
        mine = None if case.keys is None else KeyedRows(*numbered(case.keys[part], case.keys))
        times = None if case.times is None else case.times[part]
        parts.append(other.update(case.table[part], times, mine, begins[part]).copy())
    assert np.concatenate(parts).tobytes() == whole.tobytes()
    mine = np.ones(rows, bool) if case.keys is None else case.keys == case.keys[0]
    at = np.flatnonzero(mine & begins)
    if len(at):
        mine[: at[-1]] = False
        times = None if case.times is None else case.times[mine]
        alone = Trends(case.average, case.values.shape[1]).update(case.table[mine], times)
        assert np.ascontiguousarray(whole[mine]).tobytes() == np.ascontiguousarray(alone).tobytes()


def test_a_restart_and_a_silence_in_one_tile() -> None:
    """Of the pieces of one series the last one alone is remembered."""
    average = make_average({"halflife": "1ns", "reset_gap": "50us"}, timed=True)
    values, times = np.array([[1.0], [2], [4], [8]]), np.array([47, 48, 49, 50])
    restarts = np.array([False, True, False, False])
    whole = Trends(average, 1).update(values, times, restarts=restarts)
    trends = Trends(average, 1)
    trends.update(values[:3], times[:3], restarts=restarts[:3])
    assert trends.update(values[3:], times[3:])[0] == whole[3]


def numbered(keys: np.ndarray, known: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Codes that count the keys there are, and their slots: places among all that are known."""
    names, codes = np.unique(keys, return_inverse=True)
    return codes.astype(np.uint16), np.searchsorted(np.unique(keys if known is None else known), names)


def test_engines_of_one_thread_may_work_in_others() -> None:
    """At the same time: the buffers are those of the thread that works, not of the one that made it."""
    average = make_average({"alpha": "0.1", "adjust": True, "std": True})
    values = numbers(np.random.default_rng(0), "small", (60_000, 1))
    want, several = Trends(average, 1).update(values), [Trends(average, 1) for _ in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda trends: trends.update(values), several):
            np.testing.assert_array_equal(got, want)
