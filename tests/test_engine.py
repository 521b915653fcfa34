"""Law 5: the engine against the oracle, in every mode."""

from __future__ import annotations

from decimal import Decimal, localcontext
from typing import Any

import numpy as np
from hypothesis import given

from tests.engine_cases import Case, cases, examples, run
from tests.reference import Exact, exact_rows

LIMIT = Decimal("1e-12")
# What float64 cannot hold: numbers, and weights of values, below its normal range have no twelve digits.
DENORMAL = Decimal("1e-320")
LOST_WEIGHT = Decimal(2) ** -1021


def oracle(case: Case, values: np.ndarray, times: np.ndarray | None, weight: int) -> list[Exact | None]:
    average = case.average
    decay = average.decays[weight]
    options: dict[str, Any] = {"fill": average.fill, "min_periods": average.min_periods}
    if times is None:
        options |= {"alpha": decay.alpha, "init": average.init, "missing": average.missing}
        options["span"] = average.seed_rows or None
    else:
        options |= {"times": times.tolist(), "halflife": int(decay.halflife_ns or 0)}
        options["reset_gap"] = average.reset_gap
    return exact_rows(values.tolist(), adjust=average.adjust, **options)


def assert_close(got: float, want: Decimal | None, scale: Decimal, what: str) -> None:
    """scale: what twelve digits are counted from; `LOST_WEIGHT` and `DENORMAL` allowed for by the caller."""
    if want is None:
        assert np.isnan(got), f"{what}: {got}, not blank"
        return
    assert np.isfinite(got), f"{what}: {got}, not {want}"
    error = abs(Decimal(got) - want)
    assert error <= scale, f"{what}: {got}, not {float(want)} ({error / scale} times the limit)"


def assert_row(mean: float, std: float | None, want: Exact | None, where: str) -> None:
    if want is None:
        assert np.isnan(mean), f"{where}: {mean}, not blank"
        assert std is None or np.isnan(std), f"{where}: std {std}, not blank"
        return
    assert_close(mean, want.mean, LIMIT * want.largest + LOST_WEIGHT * want.reach + DENORMAL, where)
    if std is not None and not (np.isnan(std) and want.bias < LOST_WEIGHT):
        lost = LOST_WEIGHT.sqrt() * want.reach + DENORMAL
        if want.bias:
            lost = min(lost / want.bias.sqrt(), want.reach)
        assert_close(std, want.std, LIMIT * want.root_mean_square + lost + DENORMAL, where + ", std")


def check(case: Case) -> None:
    """Every number of the case is the oracle's."""
    got, _ = run(case, [])
    weights, columns = len(case.average.decays), case.values.shape[1]
    fields = got.reshape(len(got), columns, weights, -1)
    groups = np.zeros(len(got), int) if case.keys is None else case.keys
    with localcontext(prec=60):
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
