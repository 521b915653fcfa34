"""How each row decays: the modes of the average, as the kernel's decay, share and gain.

`Plain` counts rows; `Clocked` goes by time with bias-corrected weights. The third, the plain recursion by
time, has ties to care for and lives in `ties`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal, localcontext
from functools import lru_cache
from typing import Generic, Protocol, TypeVar

import numpy as np

from ema_cli.average import Average
from ema_cli.decay import Decay
from ema_cli.engine.fold import Moments, RowDecays
from ema_cli.engine.kernel import CARRY, LOCAL, Fold, Weights, constant_weights, halve
from ema_cli.engine.plan import Plan, fold_plan, make_plan, remember
from ema_cli.engine.rows import Rows
from ema_cli.engine.state import State
from ema_cli.engine.ties import RecursiveClock, TiePlan


class Plain:
    """Rows decay by counting: all alike, or, with `missing='decay'`, by the gap before them."""

    def __init__(self, average: Average, decay: Decay) -> None:
        self.average, self.alpha, self.rest = average, decay.alpha, decay.rest
        self.kind = (average.adjust, average.needs_std)
        self.table = constant_weights(self.rest, self.alpha, 1.0 if average.adjust else None)

    def plan(self, rows: Rows, state: State) -> Plan:
        seen = state.load(["seen"], rows.series, rows.fresh)["seen"]
        return make_plan(rows, seen, not self.average.adjust and self.average.init == "first")

    def advance(self, plan: Plan, state: State) -> None:
        """Nothing besides the count of values, which the engine keeps."""

    def fold(self, plan: Plan, state: State, weight: int) -> Moments:
        rows = plan.rows
        memory = state.load(CARRY + LOCAL, rows.series, rows.fresh, weight)
        if self.average.start is not None:
            memory["carry"][plan.new] = self.average.start
        even = rows.gaps is None and not self.average.seed_rows
        weights = self.table if even else self._row_weights(plan, memory)
        moments = fold_plan(plan, memory, weights, self.kind)
        remember(state, memory, rows, weight)
        return moments

    def _row_weights(self, plan: Plan, memory: Fold) -> Weights | RowDecays:
        """The table where all rows at hand decay alike and their blocks began so; else each row's own."""
        rows = plan.rows
        decay, share = np.full(len(rows.values), self.rest), np.full(len(rows.values), self.alpha)
        even = self._like_table(plan, memory)
        if rows.gaps is not None:
            gaps = rows.gaps.copy()
            gaps[rows.first[plan.new]] = 1  # before a series' first value there was nothing to fade
            for gap in np.unique(gaps[gaps != 1]).tolist():
                where, even = gaps == gap, False
                decay[where], share[where] = faded(self.alpha, gap, self.average.adjust)
        if (seeds := self.average.seed_rows) and (plan.seen < seeds).any():
            rank = np.arange(len(rows.values)) + np.repeat(plan.seen - rows.first, rows.counts)
            seed = rank < seeds
            decay[seed], share[seed] = rank[seed] / (rank[seed] + 1.0), 1.0 / (rank[seed] + 1.0)
            even = False
        if even:
            return self.table
        gain = np.ones(len(decay)) if self.average.adjust else None
        return decay[plan.keep], share[plan.keep], None if gain is None else gain[plan.keep]

    def _like_table(self, plan: Plan, memory: Fold) -> bool:
        """True where every open block has decayed just as the table says."""
        if plan.lanes is None:
            return True
        begun = plan.lanes.starts > 0
        at = plan.lanes.starts[begun] - 1
        return all(
            np.array_equal(memory[name][plan.active][begun], getattr(self.table, name)[at])
            for name in ("decay", "share", "mass") + ("bias",) * self.average.needs_std
        )


@lru_cache(maxsize=4096)
def faded(alpha: float, gap: int, adjust: bool) -> tuple[float, float]:
    """(decay, share) of a row `gap` rows after the value before it (pandas' ignore_na=False).

    Bias-corrected: d = (1−α)^gap. Recursive: the old average's (1−α)^gap and the new value's α, normalised.
    In decimal arithmetic, so that the result is the same on every machine.
    """
    with localcontext(prec=40):
        new = Decimal(alpha)
        old = (1 - new) ** gap
        if not adjust:
            old, new = old / (old + new), new / (old + new)
            return float(old), float(new)
        return float(old), float(1 - old)


class Clocked:
    """Bias-corrected weights that halve with time: Σ 2^(−age/h)·x / Σ 2^(−age/h), as pandas' `times=`."""

    def __init__(self, average: Average, decay: Decay) -> None:
        assert decay.halflife_ns is not None
        self.halflife = decay.halflife_ns
        self.kind = (True, average.needs_std)

    def plan(self, rows: Rows, state: State) -> Plan:
        seen = state.load(["seen"], rows.series, rows.fresh)["seen"]
        return make_plan(rows, seen, consume=False)

    def advance(self, plan: Plan, state: State) -> None:
        rows = plan.rows
        assert rows.times is not None
        last = rows.times[rows.first + rows.counts - 1]
        state.store({"last_time": last[rows.final]}, rows.series[rows.final])

    def fold(self, plan: Plan, state: State, weight: int) -> Moments:
        rows = plan.rows
        assert rows.times is not None
        since = np.diff(rows.times, prepend=rows.times[:1])
        last = state.load(["last_time"], rows.series, rows.fresh)["last_time"]
        since[rows.first] = np.where(plan.new, 0, rows.times[rows.first] - last)
        decay, share = halve(since / self.halflife)
        decay[rows.first[plan.new]], share[rows.first[plan.new]] = 0.0, 1.0
        memory = state.load(CARRY + LOCAL, rows.series, rows.fresh, weight)
        moments = fold_plan(plan, memory, (decay, share, np.ones(len(decay))), self.kind)
        remember(state, memory, rows, weight)
        return moments


P = TypeVar("P")


class OneWeight(Protocol[P]):
    """What `Plain`, `Clocked` and `RecursiveClock` are: the average by one weight."""

    def plan(self, rows: Rows, state: State) -> P:
        """What all weights share in one tile."""

    def fold(self, plan: P, state: State, weight: int) -> Moments:
        """The moments at each row; what this weight remembers moves on."""

    def advance(self, plan: P, state: State) -> None:
        """What all weights remember moves on."""


class Model(Generic[P]):
    """One average for each weight, all of one kind."""

    def __init__(self, weights: Sequence[OneWeight[P]]) -> None:
        self.weights = weights

    def fold(self, rows: Rows, state: State) -> Iterator[Moments]:
        """The moments at each row by each weight; once all are taken, `state` has moved on."""
        plan = self.weights[0].plan(rows, state)
        for place, weight in enumerate(self.weights):
            yield weight.fold(plan, state, place)
        self.weights[0].advance(plan, state)


def make_model(average: Average) -> Model[Plan] | Model[TiePlan]:
    """The average as one model."""
    if not average.timed:
        return Model([Plain(average, decay) for decay in average.decays])
    if average.adjust:
        return Model([Clocked(average, decay) for decay in average.decays])
    return Model([RecursiveClock(average, decay) for decay in average.decays])
