"""How each row weighs: every mode of the average is two numbers a row.

    decay    what is left of everything before the row; `loss` is 1 − decay, which keeps its digits
    weight   what the row's own value weighs; in the code it is left out where it is the loss

    mode                     decay                          weight                 before the first row
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

A first row that has nothing before it has decay 0 and loss 1.

A weigher, asked for each level, says so of the elements of a block:

    complete    the elements as moments. Of rows, cells are values, as "mean" and "mean_y", and what their
                weights depend on: "elapsed" (since the observation before, in nanoseconds or rows), "order"
                (rows of the series before it) and "weights" (the column that `--weights` names)
    block       how each element is joined to those of its block before it
    total       how each element is joined to all before it; `start` is what is before each block, and `begun`
                tells whether that is anything, if asked

`block` and `total` give a function of a place, of the moments up to it, and of the arrays for those with it.
It is called place after place, and puts the weights of both sides into these arrays.

`Varying` folds with these numbers. `Steady` is a second way to the same averages, for the modes in which
all rows decay alike: numbers for each place in a block instead of numbers for each row. It takes six tenths
of the time (`smooth` of a million rows, against `Varying`: plain 0.59, adjusted 0.57, with std 0.36), and
its numbers are right to the last bit.
Formulas: pandas' `ewm`; by time polars' `ewm_mean_by` and pandas' `times=`; sma TA-Lib's EMA. See
docs/semantics.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ema_cli.average import Average
from ema_cli.decay import Decay
from ema_cli.engine.arithmetic import (
    BLOCK,
    LEAST_SHARE,
    LEVELS,
    MEANS,
    Bools,
    Floats,
    Ints,
    Mix,
    Moments,
    halve,
    mix,
)

Join = Callable[[int, Moments, Moments], Mix]
# What there is of a row: values, and what its weight depends on.
WEIGHABLE = (*MEANS, "elapsed", "order", "weights")


class Alike(NamedTuple):
    """So many rows that all decay alike. decay: of all of them; weight: Σ (1−α)ⁱ; bias: 1 − Σ shares².

    plain: how an average that weighs 1 is joined with them.
    """

    decay: float
    weight: float
    bias: float
    plain: Mix


@dataclass(frozen=True)
class Steady:
    """Where all rows decay alike: what an element weighs depends on its place in its block alone.

    elements: one of each level. inner: by level and place, how the block so far is joined with its element.
    least: see `Varying`.
    """

    adjusted: bool
    elements: list[Alike]
    inner: list[list[Mix]]
    least: ClassVar[float | None] = None

    def complete(self, level: int, cells: Moments, _first: Any, /) -> Moments:
        if "deviation" not in cells:  # also of rows, whose bias is 0
            return cells
        return {**cells, "bias": np.broadcast_to(self.elements[level].bias, cells["mean"].shape)}

    def block(self, level: int, _cells: Moments, /) -> Join:
        inner = self.inner[level]
        return lambda j, _old, _out: inner[j]

    def total(self, level: int, _cells: Moments, start: Moments, _begun: Callable[[], Bools], /) -> Join:
        decay, newer, _, plain = self.elements[level]
        if not self.adjusted:
            return lambda *_: plain
        weight = start["weight"]
        if (weight == weight[0]).all():  # once the beginning has faded
            weight = float(weight[0])

        def how(_j: int, _old: Moments, out: Moments) -> Mix:
            nonlocal weight
            older = weight * decay
            weight = older + newer
            out["weight"][...] = weight
            return mix(older, newer, weight)

        return how


@lru_cache(maxsize=512)
def make_steady(alpha: float, adjusted: bool) -> Steady:
    """The weights of one α, in decimal arithmetic: every number is right to its last bit."""
    exact = Decimal(alpha)
    with localcontext(prec=40 - min(exact.adjusted(), 0)):  # so that 1 − α is exact enough
        rest, inner = 1 - exact, []
        for level in range(LEVELS):
            size = BLOCK**level
            weights = [_weight(rest, size * n) for n in range(1, BLOCK + 1)]
            newer = [weights[0] / weight for weight in weights]
            inner.append([_mix(1 - share, share) for share in newer])
        elements = [_alike(rest, BLOCK**level) for level in range(LEVELS + 1)]
    return Steady(adjusted, elements, inner)


def _weight(decay: Decimal, rows: int) -> Decimal:
    """The sum of the weights decayⁱ of so many rows."""
    return (1 - decay**rows) / (1 - decay) if decay < 1 else Decimal(rows)


def _alike(rest: Decimal, rows: int) -> Alike:
    """Bias 2·(d − dⁿ)/((1 + d)·(1 − dⁿ)), with d = 1 − α."""
    power, weight = rest**rows, _weight(rest, rows)
    bias = 2 * (rest - power) / ((1 + rest) * (1 - power)) if rest < 1 else 1 - 1 / weight
    return Alike(float(power), float(weight), float(bias), _mix(power, 1 - power))


def _mix(older: Decimal, newer: Decimal) -> Mix:
    heavier = newer >= older
    return Mix((-float(older) if heavier else float(newer)) or None, heavier)


@dataclass(frozen=True)
class Varying:
    """Where each element has a decay and a weight of its own.

    wide: deviations are asked for.
    """

    average: Average
    decay: Decay
    wide: bool

    def complete(self, level: int, cells: Moments, first: Any, /) -> Moments:
        """Rows with decay, loss and, where it is not the loss, weight of each."""
        if level:
            return cells
        average = self.average
        fade, loss = self._decays(cells)
        if not average.has_first:
            fade[first], loss[first] = 0.0, 1.0
        weight = np.broadcast_to(1.0, fade.shape) if average.adjust else None
        if "order" in cells:
            weight = _seed(self.decay.seed, fade, loss, cells["order"])
        if "weights" in cells:
            weight = cells["weights"] * (loss if weight is None else weight)
        own = {name: cells[name] for name in MEANS if name in cells} | {"decay": fade, "loss": loss}
        return own if weight is None else own | {"weight": weight}

    def _decays(self, cells: Moments) -> tuple[Floats, Floats]:
        """Decay and loss of each row."""
        alpha, shape = self.decay.alpha, cells["mean"].shape
        if "elapsed" not in cells:
            return np.full(shape, 1.0 - alpha), np.full(shape, alpha)
        if self.decay.halflife_ns is None:
            return decays_of_gaps(alpha, cells["elapsed"], self.average.adjust)
        return halve(cells["elapsed"], self.decay.halflife_ns)

    @property
    def least(self) -> float | None:
        """What two sides' shares in deviations are at least."""
        return LEAST_SHARE if self.wide and self.decay.alpha != 1.0 else None

    def block(self, level: int, cells: Moments, /) -> Join:
        least = None if level else self.least
        name = "weight" if "weight" in cells else "loss"
        decays, loss = cells["decay"], cells["loss"]

        def how(j: int, old: Moments, out: Moments) -> Mix:
            older, newer = old[name] * decays[j], cells[name][j]
            total = np.add(older, newer, out=out[name])
            if name != "loss":
                np.multiply(old["loss"], decays[j], out=out["loss"])
                out["loss"] += loss[j]
            np.multiply(old["decay"], decays[j], out=out["decay"])
            return mix(older, newer, total, least)

        return how

    def total(self, level: int, cells: Moments, _start: Moments, begun: Callable[[], Bools], /) -> Join:
        decays, weights = cells["decay"], cells.get("weight")
        least = None if level else self.least
        first = least if least is None else least * (begun() | self.average.has_first)

        def how(j: int, old: Moments, out: Moments) -> Mix:
            if weights is None:
                return mix(decays[j], cells["loss"][j], None, least if j else first)
            older = old["weight"] * decays[j]
            total = older + weights[j]
            found = mix(older, weights[j], total, least if j else first)
            out["weight"][...] = total
            return found

        return how


Weigher = Steady | Varying


def decays_of_gaps(alpha: float, gaps: Ints, adjusted: bool) -> tuple[Floats, Floats]:
    """Decay and loss of values so many rows after the ones before them (`--missing decay`, pandas'
    ignore_na=False)."""
    decay, loss = (np.full(gaps.shape, number) for number in _decay_of_gap(alpha, 1, adjusted))
    far = gaps != 1
    lengths, which = np.unique(gaps[far], return_inverse=True)
    if len(lengths):
        each = np.array([_decay_of_gap(alpha, gap, adjusted) for gap in lengths.tolist()])
        decay[far], loss[far] = each[which].T
    return decay, loss


@lru_cache(maxsize=4096)
def _decay_of_gap(alpha: float, rows: int, adjusted: bool) -> tuple[float, float]:
    with localcontext(prec=40):
        new = Decimal(alpha)
        old = (1 - new) ** rows if rows > 0 else Decimal(1)
        if adjusted:
            return float(old), float(1 - old)
        return float(old / (old + new)), float(new / (old + new))


def _seed(seed: int, fade: Floats, loss: Floats, order: Ints) -> Floats:
    """Make the first rows a plain mean, which the recursion then starts from."""
    weight = loss.copy()
    early, then = order < seed, order == seed
    fade[early], loss[early], weight[early] = 1.0, 0.0, 1.0
    fade[then] /= seed
    loss[then] = 1.0 - fade[then]
    return weight
