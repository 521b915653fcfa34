"""How each row weighs: the modes of the average, as one pair a row.

    decay    what is left of everything before the row
    gain     the weight that its value enters with

    mode                     decay                          gain                   before the first row
    adjusted                 1 − α                          1                      nothing
    recursive                1 − α                          α                      an average: the first value
    init zero, NUMBER        1 − α                          α                      an average: that number
    init sma:N               1; then (1−α)/N; then 1 − α    1; then α              nothing
    missing decay, adjusted  (1−α)^k, k rows after the      1                      nothing
                             value before
    missing decay, recursive (1−α)^k / ((1−α)^k + α)        α / ((1−α)^k + α)      nothing
    by time, adjusted        2^(−Δt/halflife)               1                      nothing
    by time, recursive       2^(−Δt/halflife)               1 − decay              nothing
    weights                  as above                       as above, times the row's weight

Where nothing is before the first row, it decays to 0 what is not there and enters with its full weight. Formulas:
pandas' `ewm`; by time polars' `ewm_mean_by` and pandas' `times=`; sma TA-Lib's EMA. See docs/semantics.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import lru_cache
from typing import Any

import numpy as np

from ema_cli.average import Average
from ema_cli.decay import Decay
from ema_cli.engine.arithmetic import Bools, Floats, Ints, Mix, Moments, halve
from ema_cli.engine.scan import BLOCK, LEVELS


@dataclass(frozen=True)
class Table:
    """The weights of blocks up to and including each place, by level, where all rows decay alike.

    inner: how the block so far and its next element are joined. outer: how a recursive average before the block and
    the block so far are. decays, weights, biases: of the block so far. firsts: the bias of a recursive average at
    this place of the first block of its series.
    """

    adjusted: bool
    inner: Sequence[Sequence[Mix]]
    outer: Sequence[Sequence[Mix]]
    decays: Sequence[Sequence[float]]
    weights: Sequence[Sequence[float]]
    biases: Sequence[Sequence[float]]
    firsts: Sequence[Sequence[float]]


@lru_cache(maxsize=512)
def make_table(alpha: float, adjusted: bool, started: bool) -> Table:
    """The table of a weight, in decimal arithmetic: every number in it is right to its last bit.

    started: there is an average before the first row.
    """
    levels: list[tuple[list[Any], ...]] = []
    with localcontext(prec=40):
        exact = Decimal(alpha)
        rest, gain = 1 - exact, Decimal(1) if adjusted else exact
        rows, one = 1, rest  # rows in an element, and what is left after it
        for _ in range(LEVELS + 1):
            levels.append(([], [], [], [], [], []))
            power = Decimal(1)
            for j in range(BLOCK):
                power *= one
                total = _sum(exact, power, (j + 1) * rows)
                newer = _sum(exact, one, rows) / total
                inner, outer, decays, weights, biases, firsts = levels[-1]
                inner.append(_mix(1 - newer if j else Decimal(0), newer))
                outer.append(_mix(power, 1 - power))
                decays.append(float(power))
                weights.append(float(gain * total))
                biases.append(float(_bias(rest, power, (j + 1) * rows)))
                firsts.append(float(_first_bias(exact, power if started else _less(power, rest, (j + 1) * rows))))
            one, rows = power, rows * BLOCK
    return Table(adjusted, *(list(part) for part in zip(*levels, strict=True)))


def _less(power: Decimal, rest: Decimal, rows: int) -> Decimal:
    """rest^(rows − 1); power: rest^rows."""
    return Decimal(rows == 1) if rest == 0 else power / rest


def _first_bias(alpha: Decimal, power: Decimal) -> Decimal:
    """1 − Σ shares² of (1−α)^n, α·(1−α)^(n−1), …, α·(1−α), α; power: (1−α)^n."""
    return (1 - power * power) * (2 - 2 * alpha) / (2 - alpha)


def _sum(alpha: Decimal, power: Decimal, rows: int) -> Decimal:
    """Σ (1−α)^i over so many rows; power: (1−α)^rows."""
    return (1 - power) / alpha if alpha else Decimal(rows)


def _bias(rest: Decimal, power: Decimal, rows: int) -> Decimal:
    """1 − Σ shares² of weights rest^i over so many rows; power: rest^rows."""
    if rest == 1:
        return 1 - 1 / Decimal(rows)
    return 2 * (rest - power) / ((1 + rest) * (1 - power))


def _mix(older: Decimal, newer: Decimal) -> Mix:
    return Mix(-float(older), True) if newer >= older else Mix(float(newer), False)


@lru_cache(maxsize=4096)
def faded(alpha: float, rows: int, adjusted: bool) -> tuple[float, float]:
    """Decay and loss of a value so many rows after the one before it (pandas' ignore_na=False)."""
    with localcontext(prec=40):
        new = Decimal(alpha)
        old = (1 - new) ** rows
        if adjusted:
            return float(old), float(1 - old)
        return float(old / (old + new)), float(new / (old + new))


@dataclass(frozen=True)
class RowInfo:
    """What there is to know of rows besides their values, one each.

    first: those that begin a series. order: how many of the series are before. gaps: rows since the value before.
    elapsed: nanoseconds since the observation before. weights: of the rows themselves.
    """

    first: Bools
    order: Ints | None = None
    gaps: Ints | None = None
    elapsed: Ints | None = None
    weights: Floats | None = None


def weigh_rows(average: Average, decay: Decay, rows: RowInfo) -> Moments:
    """decay, loss and, where it is not the loss, weight of each row."""
    if rows.elapsed is not None:
        assert decay.halflife_ns is not None
        fade, loss = halve(rows.elapsed, decay.halflife_ns)
    else:
        fade, loss = _by_rows(average, decay.alpha, rows)
    if not average.has_first:
        fade[rows.first], loss[rows.first] = 0.0, 1.0
    weight = np.ones(len(fade)) if average.adjust else None
    if average.seed_rows and rows.order is not None:
        weight = _seed(average.seed_rows, fade, loss, rows.order)
    if rows.weights is not None:
        weight = rows.weights * (loss if weight is None else weight)
    out = {"decay": fade, "loss": loss}
    return out if weight is None else out | {"weight": weight}


def _by_rows(average: Average, alpha: float, rows: RowInfo) -> tuple[Floats, Floats]:
    fade, loss = np.full(len(rows.first), 1.0 - alpha), np.full(len(rows.first), alpha)
    if rows.gaps is not None:
        odd = np.flatnonzero((rows.gaps != 1) & ~rows.first)  # before the first value there is nothing to fade
        lengths, which = np.unique(rows.gaps[odd], return_inverse=True)
        if lengths.size:
            pairs = np.array([faded(alpha, gap, average.adjust) for gap in lengths.tolist()])
            fade[odd], loss[odd] = pairs[which].T
    return fade, loss


def _seed(seed: int, fade: Floats, loss: Floats, order: Ints) -> Floats:
    """Make the first rows a plain mean, and that the average that the recursion sets out from."""
    weight = loss.copy()
    early, then = order < seed, order == seed
    fade[early], loss[early], weight[early] = 1.0, 0.0, 1.0
    fade[then] /= seed
    loss[then] = 1.0 - fade[then]
    return weight
