"""The one oracle: every mode of the average as a plain loop over one series, in 60-digit decimals.

It shares no code and no trick with `ema_cli`: weights are kept as they are defined, Σw·x / Σw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from typing import Any

Row = tuple[float | None, float | None]
LN2 = Decimal("0.693147180559945309417232121458176568075500134360255254120680")


@dataclass
class Observed:
    """Weights and values of what has been observed (ties already merged into one value)."""

    weights: list[Decimal] = field(default_factory=list)
    values: list[Decimal] = field(default_factory=list)

    def mean(self) -> Decimal:
        return sum((w * x for w, x in zip(self.weights, self.values, strict=True)), Decimal(0)) / sum(
            self.weights
        )

    def std(self) -> Decimal | None:
        """pandas' ewm(...).std(): Σw(x−m)²/Σw · (Σw)²/((Σw)² − Σw²)."""
        total, squares = sum(self.weights), sum(w * w for w in self.weights)
        if total * total - squares <= 0:
            return None
        m = self.mean()
        spread = sum(w * (x - m) ** 2 for w, x in zip(self.weights, self.values, strict=True)) / total
        return (spread * total * total / (total * total - squares)).sqrt()

    def fade(self, factor: Decimal) -> None:
        self.weights = [w * factor for w in self.weights]


def reference(
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
    halflife: int | None = None,
    reset_gap: int | None = None,
) -> list[Row]:
    """(trend, std) of each row, None where blank. values: NaN is missing; times, halflife: nanoseconds."""
    with localcontext(prec=60):
        if times is None:
            rows = _by_row(values, Decimal(alpha), adjust, init, span, missing)
        else:
            assert halflife is not None
            rows = _by_time(values, times, Decimal(halflife), adjust, reset_gap)
        return _present(rows, fill, max(min_periods, span if init == "sma" and span else 0))


def _by_row(
    values: Sequence[float], alpha: Decimal, adjust: bool, init: str | float, span: int | None, missing: str
) -> list[Any]:
    out: list[Any] = []
    seen, count, gap = Observed(), 0, 0
    if not isinstance(init, str):
        seen = Observed([Decimal(1)], [Decimal(init)])
    for x in values:
        gap += 1
        if math.isnan(x):
            out.append(None)
            continue
        k = gap if missing == "decay" and count else 1
        gap = 0
        new = Decimal(x)
        if adjust:
            seen.fade((1 - alpha) ** k if count else Decimal(1))
            seen.weights.append(Decimal(1))
        elif init == "sma" and span is not None and count < span:
            seen.weights = [Decimal(1) / (count + 1)] * count
            seen.weights.append(Decimal(1) / (count + 1))
        elif not seen.values:
            seen.weights.append(Decimal(1))
        else:
            old = (1 - alpha) ** k
            seen.fade(old / (old + alpha))
            seen.weights.append(alpha / (old + alpha))
        seen.values.append(new)
        count += 1
        out.append((seen.mean(), seen.std(), count))
    return out


def _by_time(
    values: Sequence[float], times: Sequence[int], halflife: Decimal, adjust: bool, reset_gap: int | None
) -> list[Any]:
    out: list[Any] = []
    seen, ties, last, count = Observed(), [], None, 0
    older: list[Decimal] = []
    for x, t in zip(values, times, strict=True):
        if math.isnan(x):
            out.append(None)
            continue
        if last is not None and reset_gap is not None and t - last > reset_gap:
            seen, ties, last, count = Observed(), [], None, 0
        count += 1
        decay = Decimal(1) if last is None else (-LN2 * (t - last) / halflife).exp()
        if adjust:
            seen.fade(decay)
            seen.weights.append(Decimal(1))
            seen.values.append(Decimal(x))
        elif last is not None and t == last:
            ties.append(Decimal(x))
            seen.values[-1] = sum(ties, Decimal(0)) / len(ties)
        else:
            older = seen.weights
            seen.weights = [w * decay for w in older] + [1 - decay if older else Decimal(1)]
            ties = [Decimal(x)]
            seen.values.append(Decimal(x))
        last = t
        out.append((seen.mean(), seen.std(), count))
    return out


def _present(rows: list[Any], fill: bool, needed: int) -> list[Row]:
    out: list[Row] = []
    held: Row = (None, None)
    for row in rows:
        if row is None:
            out.append(held if fill else (None, None))
            continue
        mean, std, count = row
        held = (None, None) if count < needed else (float(mean), None if std is None else float(std))
        out.append(held)
    return out
