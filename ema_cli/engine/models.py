"""How each row decays: the modes of the average, as the kernel's decay, share and gain.

`Plain` counts rows; `Clocked` goes by time with bias-corrected weights. The third, the plain recursion by
time, has ties to care for and lives in `ties`.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, localcontext
from functools import lru_cache
from typing import Generic, Protocol, TypeVar

import numpy as np

from ema_cli.average import Average
from ema_cli.decay import Decay
from ema_cli.engine.fold import Kind
from ema_cli.engine.kernel import halve
from ema_cli.engine.lanes import Ints
from ema_cli.engine.moments import Moments
from ema_cli.engine.plan import Part, Plan, fold_part, make_plan, remember, start_from_first, take_as_first
from ema_cli.engine.rows import Rows
from ema_cli.engine.scratch import Scratch
from ema_cli.engine.state import REMEMBERED, State
from ema_cli.engine.ties import RecursiveClock, TiePlan
from ema_cli.engine.weights import Decays, even_weights


class Plain:
    """Rows decay by counting: all alike, or, with `missing='decay'`, by the gap before them."""

    def __init__(self, average: Average, decay: Decay) -> None:
        self.average, self.alpha, self.rest = average, decay.alpha, decay.rest
        # How many first rows make up the average that the recursion sets out from.
        self.lead = average.seed_rows or int(not average.adjust and average.init == "first")
        even = average.missing != "decay"
        gain = 1.0 if average.adjust else None
        self.kind = Kind(
            average.adjust, average.needs_std, even_weights(self.rest, self.alpha, gain) if even else None
        )

    def plan(self, rows: Rows, state: State) -> Plan:
        return make_plan(rows, state.load(["seen"], rows.series, rows.fresh)["seen"], self.lead)

    def advance(self, plan: Plan, state: State) -> None:
        """Nothing besides the count of values, which the engine keeps."""

    def fold(self, plan: Plan, state: State, weight: int, out: Moments) -> None:
        rows = plan.rows
        memory = state.load(REMEMBERED, rows.series, rows.fresh, weight)
        if self.average.start is not None:
            memory["carry_mean"][:, plan.new] = self.average.start
        if plan.lead is not None:
            if self.lead == 1:  # the first average is the first value
                start_from_first(plan.lead, rows, plan.begun, memory, out)
            else:
                plain = Kind(False, self.kind.std)
                fold_part(plan.lead, rows, memory, _plain_mean(plan.lead, plan.seen), plain, out)
                take_as_first(plan.lead, plan.begun, memory, out)
        if plan.rest is not None:
            decays = None if self.kind.tables else self._by_gaps(plan)
            fold_part(plan.rest, rows, memory, decays, self.kind, out)
        remember(state, memory, rows, weight)

    def _by_gaps(self, plan: Plan) -> Decays | None:
        """Each row's decay and share, by the number of rows since the value before it."""
        assert plan.rows.gaps is not None
        assert plan.rest is not None
        gaps = plan.rows.gaps.copy()
        gaps[plan.rows.first[plan.new]] = 1  # before a series' first value there was nothing to fade
        return self.decays(gaps[plan.rest.rows], plan.rows.scratch)

    def decays(self, apart: Ints | None, scratch: Scratch) -> Decays | None:  # noqa: ARG002 - as the others
        """How rows weigh that follow others; apart: rows since the value before. None: there is a table."""
        if self.kind.tables:
            return None
        assert apart is not None
        decay, share = np.full(len(apart), self.rest), np.full(len(apart), self.alpha)
        odd = np.flatnonzero(apart != 1)
        lengths, which = np.unique(apart[odd], return_inverse=True)
        if lengths.size:
            table = np.array([faded(self.alpha, gap, self.average.adjust) for gap in lengths.tolist()])
            decay[odd], share[odd] = table[which].T
        return Decays(decay, share, np.ones(len(decay)) if self.average.adjust else None)


def _plain_mean(part: Part, seen: Ints) -> Decays:
    """Decays of the first rows of a series that make each average the plain mean of all so far."""
    rank = np.arange(int(part.counts.sum())) + np.repeat(
        seen[part.segments] - (part.last + 1 - part.counts), part.counts
    )
    return Decays(rank / (rank + 1.0), 1.0 / (rank + 1.0), None)


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
        self.halflife, self.lead = decay.halflife_ns, 0
        self.kind = Kind(True, average.needs_std)

    def plan(self, rows: Rows, state: State) -> Plan:
        return make_plan(rows, state.load(["seen"], rows.series, rows.fresh)["seen"], self.lead)

    def advance(self, plan: Plan, state: State) -> None:
        rows = plan.rows
        assert rows.times is not None
        last = rows.times[rows.first + rows.counts - 1]
        state.store({"last_time": last[rows.final]}, rows.series[rows.final])

    def fold(self, plan: Plan, state: State, weight: int, out: Moments) -> None:
        rows = plan.rows
        assert rows.times is not None
        assert plan.rest is not None
        since = np.diff(rows.times, prepend=rows.times[:1])
        last = state.load(["last_time"], rows.series, rows.fresh)["last_time"]
        since[rows.first] = np.where(plan.new, 0, rows.times[rows.first] - last)
        decays = self.decays(since, rows.scratch)
        decays.decay[rows.first[plan.new]], decays.share[rows.first[plan.new]] = 0.0, 1.0
        memory = state.load(REMEMBERED, rows.series, rows.fresh, weight)
        fold_part(plan.rest, rows, memory, decays, self.kind, out)
        remember(state, memory, rows, weight)

    def decays(self, apart: Ints | None, scratch: Scratch) -> Decays:
        """How rows weigh that follow others; apart: nanoseconds since the value before."""
        assert apart is not None
        decay, share = halve(apart, self.halflife, scratch)
        return Decays(decay, share, np.ones(len(decay)))


P = TypeVar("P")


class OneWeight(Protocol[P]):
    """What `Plain`, `Clocked` and `RecursiveClock` are: the average by one weight.

    lead: how many of a series' first observations are no elements of its tree.
    """

    kind: Kind
    lead: int

    def plan(self, rows: Rows, state: State) -> P:
        """What all weights share in one tile."""

    def fold(self, plan: P, state: State, weight: int, out: Moments) -> None:
        """The moments at each row into `out`; what this weight remembers moves on."""

    def advance(self, plan: P, state: State) -> None:
        """What all weights remember moves on."""

    def decays(self, apart: Ints | None, scratch: Scratch) -> Decays | None:
        """How observations weigh that follow others; apart: rows, or nanoseconds, since the one before."""


class Model(Generic[P]):
    """One average for each weight, all of one kind."""

    def __init__(self, weights: Sequence[OneWeight[P]]) -> None:
        self.weights = weights
        self.kinds = [weight.kind for weight in weights]

    def fold(self, rows: Rows, state: State, out: Sequence[Moments]) -> None:
        """The moments at each row by each weight into `out`; `state` moves on."""
        plan = self.weights[0].plan(rows, state)
        for place, weight in enumerate(self.weights):
            weight.fold(plan, state, place, out[place])
        self.weights[0].advance(plan, state)


def make_model(average: Average) -> Model[Plan] | Model[TiePlan]:
    """The average as one model."""
    if not average.timed:
        return Model([Plain(average, decay) for decay in average.decays])
    if average.adjust:
        return Model([Clocked(average, decay) for decay in average.decays])
    return Model([RecursiveClock(average, decay) for decay in average.decays])
