"""The one oracle: every mode of the average as a plain loop over one series, in 60-digit decimals.

It shares no code and no trick with `ema_cli`: weights are kept as they are defined, Σw·x / Σw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import MAX_EMAX, MIN_EMIN, Decimal, localcontext
from itertools import accumulate
from typing import Any

Row = tuple[float | None, float | None]
LN2 = Decimal("0.693147180559945309417232121458176568075500134360255254120680")


@dataclass(frozen=True)
class Exact:
    """One row's numbers, and how large the things are that they were made of.

    largest: the largest contribution weight·|x| to the mean. root_mean_square: of the values, so weighted
    and so unbiased as the std is. An error is to be judged against these, not against a mean that may be 0.
    bias: 1 − Σw², by which the variance is divided. reach: the largest |x| that was ever in the average.
    total: Σw. covariance: with the partner, biased.
    """

    mean: Decimal
    std: Decimal | None
    count: int
    largest: Decimal
    root_mean_square: Decimal
    bias: Decimal
    reach: Decimal
    total: Decimal
    covariance: Decimal


@dataclass
class Observed:
    """Weights and values of what has been observed; ties are one value, of the size of their largest."""

    weights: list[Decimal] = field(default_factory=list)
    values: list[Decimal] = field(default_factory=list)
    sizes: list[Decimal] = field(default_factory=list)
    partners: list[Decimal] = field(default_factory=list)

    def see(self, value: Decimal, weight: Decimal, partner: Decimal = Decimal(0)) -> None:
        self.weights.append(weight)
        self.values.append(value)
        self.sizes.append(abs(value))
        self.partners.append(partner)

    def fade(self, factor: Decimal) -> None:
        self.weights = [w * factor for w in self.weights]

    def exact(self, count: int) -> Exact:
        """Σw·x / Σw, and pandas' ewm(...).std(): Σw(x−m)²/Σw · (Σw)²/((Σw)² − Σw²)."""
        total, pairs = sum(self.weights), list(zip(self.weights, self.values, strict=True))
        reach = max(self.sizes)
        mean = sum((w * x for w, x in pairs), Decimal(0)) / total
        middle = sum((w * y for w, y in zip(self.weights, self.partners, strict=True)), Decimal(0)) / total
        products = zip(self.weights, self.values, self.partners, strict=True)
        covariance = sum((w * (x - mean) * (y - middle) for w, x, y in products), Decimal(0)) / total
        largest = max(w * size for w, size in zip(self.weights, self.sizes, strict=True)) / total
        # (Σw)² − Σw² is twice the sum over all pairs: sixty digits are not enough to subtract
        below = [Decimal(0), *accumulate(self.weights)]
        bias = 2 * sum(w * b for w, b in zip(self.weights, below, strict=False)) / (total * total)
        if bias == 0:  # one value has all the weight
            return Exact(mean, None, count, largest, Decimal(0), bias, reach, total, covariance)
        unbiased = 1 / (total * bias)
        spread = sum(w * (x - mean) ** 2 for w, x in pairs) * unbiased
        squares = (w * size * size for w, size in zip(self.weights, self.sizes, strict=True))
        mean_square = sum(squares) * unbiased
        root = mean_square.sqrt()
        return Exact(mean, spread.sqrt(), count, largest, root, bias, reach, total, covariance)


def reference(values: Sequence[float], **options: Any) -> list[Row]:
    """(trend, std) of each row, None where blank; options as for `exact_rows`."""
    return [
        (None, None) if row is None else (float(row.mean), None if row.std is None else float(row.std))
        for row in exact_rows(values, **options)
    ]


def exact_rows(
    values: Sequence[float],
    *,
    alpha: float = math.nan,
    adjust: bool = False,
    init: str | float = "first",
    span: int | None = None,
    missing: str = "skip",
    fill: bool = False,
    min_periods: int = 0,
    times: Sequence[int] | None = None,
    halflife: float | None = None,
    reset_gap: int | None = None,
    time_step: int = 10**9,
    weights: Sequence[float] | None = None,
    partner: Sequence[float] | None = None,
) -> list[Exact | None]:
    """The numbers of each row, None where blank. values: NaN is missing; times, halflife: nanoseconds.

    weights: how often each value counts; 0 is missing. partner: a second variable; a row is missing where
    either is.
    """
    given = _rows(values, weights, partner)
    with localcontext(prec=60, Emin=MIN_EMIN, Emax=MAX_EMAX):  # nothing vanishes after a long silence
        if times is None:
            rows = _by_row(given, Decimal(alpha), adjust, init, span, missing)
        else:
            assert halflife is not None
            start = None if isinstance(init, str) else (Decimal(init), time_step)
            rows = _by_time(given, times, Decimal(halflife), adjust, reset_gap, start)
    return _present(rows, fill, max(min_periods, span if seeded(init) and span else 0))


def centered_rows(
    values: Sequence[float],
    *,
    alpha: float = math.nan,
    missing: str = "skip",
    times: Sequence[int] | None = None,
    halflife: float | None = None,
    reset_gap: int | None = None,
    weights: Sequence[float] | None = None,
    partner: Sequence[float] | None = None,
) -> list[Exact | None]:
    """The two-sided average as it is defined: for every row the sum over all rows."""
    rows = _rows(values, weights, partner)
    there = [k for k, row in enumerate(rows) if row is not None]
    with localcontext(prec=60, Emin=MIN_EMIN, Emax=MAX_EMAX):
        place = {k: n for n, k in enumerate(there)} if missing == "skip" else {k: k for k in there}
        series, begins = {}, 0
        for k, before in zip(there, [there[0] if there else 0, *there], strict=False):
            if times is not None and reset_gap is not None and times[k] - times[before] > reset_gap:
                begins += 1
            series[k] = begins
        out: list[Exact | None] = [None] * len(rows)
        for t in there:
            seen = Observed()
            for i in there:
                row = rows[i]
                if row is None or series[i] != series[t]:
                    continue
                if times is None:
                    decay = (1 - Decimal(alpha)) ** abs(place[i] - place[t]) if i != t else Decimal(1)
                else:
                    assert halflife is not None
                    decay = (-LN2 * abs(times[i] - times[t]) / Decimal(halflife)).exp()
                seen.see(row[0], row[2] * decay, row[1])
            out[t] = seen.exact(len(seen.values))
    return out


Given = list[tuple[Decimal, Decimal, Decimal] | None]


def _rows(values: Sequence[float], weights: Sequence[float] | None, partner: Sequence[float] | None) -> Given:
    """Value, partner and weight of each row, None where missing."""
    weights = [1.0] * len(values) if weights is None else weights
    partner = [0.0] * len(values) if partner is None else partner
    return [
        None if math.isnan(x) or math.isnan(y) or not w > 0 else (Decimal(x), Decimal(y), Decimal(w))
        for x, y, w in zip(values, partner, weights, strict=True)
    ]


def seeded(init: str | float) -> bool:
    """The first values are averaged plainly."""
    return isinstance(init, str) and init.startswith("sma")


def _by_row(
    rows: Given, alpha: Decimal, adjust: bool, init: str | float, span: int | None, missing: str
) -> list[Exact | None]:
    out: list[Exact | None] = []
    seen, count, gap = Observed(), 0, 0
    if not isinstance(init, str):
        seen.see(Decimal(init), Decimal(1), Decimal(init))
    for row in rows:
        gap += 1
        if row is None:
            out.append(None)
            continue
        k = gap if missing == "decay" and count else 1
        gap = 0
        x, y, w = row
        if adjust:
            seen.fade((1 - alpha) ** k if count else Decimal(1))
            seen.see(x, w, y)
        elif not seen.values or (seeded(init) and span is not None and count < span):
            seen.see(x, w, y)
        else:
            old = (1 - alpha) ** k
            mean_of = span if seeded(init) and count == span else 1
            seen.fade(old / (old + alpha) / (mean_of or 1))
            seen.see(x, w * alpha / (old + alpha), y)
        count += 1
        out.append(seen.exact(count))
    return out


def _by_time(
    rows: Given,
    times: Sequence[int],
    halflife: Decimal,
    adjust: bool,
    reset_gap: int | None,
    start: tuple[Decimal, int] | None,
) -> list[Exact | None]:
    """start: an average before the first row, and by how long."""
    out: list[Exact | None] = []
    seen, last, count = Observed(), None, 0
    ties: list[tuple[Decimal, Decimal, Decimal]] = []
    gain = Decimal(1)
    for row, t in zip(rows, times, strict=True):
        if row is None:
            out.append(None)
            continue
        x, y, w = row
        if last is not None and reset_gap is not None and t - last > reset_gap:
            seen, ties, last, count = Observed(), [], None, 0
        if last is None and start is not None:
            seen.see(start[0], Decimal(1), start[0])
            last = t - start[1]
        count += 1
        decay = Decimal(1) if last is None else (-LN2 * (t - last) / halflife).exp()
        if adjust:
            seen.fade(decay)
            seen.see(x, w, y)
        elif last is not None and t == last:
            ties.append(row)
            weight = sum((w for _, _, w in ties), Decimal(0))
            seen.values[-1] = sum((x * w for x, _, w in ties), Decimal(0)) / weight
            seen.partners[-1] = sum((y * w for _, y, w in ties), Decimal(0)) / weight
            seen.sizes[-1] = max(abs(x) for x, _, _ in ties)
            seen.weights[-1] = gain * weight / len(ties)
        else:
            gain = 1 - decay if seen.values else Decimal(1)
            seen.fade(decay)
            ties = [row]
            seen.see(x, gain * w, y)
        last = t
        out.append(seen.exact(count))
    return out


def _present(rows: list[Exact | None], fill: bool, needed: int) -> list[Exact | None]:
    out: list[Exact | None] = []
    held: Exact | None = None
    for row in rows:
        if row is None:
            out.append(held if fill else None)
            continue
        held = None if row.count < needed else row
        out.append(held)
    return out
