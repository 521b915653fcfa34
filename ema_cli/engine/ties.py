"""The plain recursion by time: y = d·y_before + (1−d)·x with d = 2^(−Δt/halflife), as polars' ewm_mean_by.

Rows of equal time count as one observation, the mean of those so far. The newest observation may thus
still change, so it is kept apart as *pending* and folded only when the clock has moved on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ema_cli.average import Average
from ema_cli.decay import Decay
from ema_cli.engine.fold import Kind
from ema_cli.engine.kernel import chunks, halve, mix
from ema_cli.engine.moments import Moments, join
from ema_cli.engine.plan import Plan, empty_moments, fold_part, make_plan, remember, start_from_first
from ema_cli.engine.rows import Rows
from ema_cli.engine.scratch import Bools, Floats, Ints, Scratch
from ema_cli.engine.state import REMEMBERED, Arrays, State
from ema_cli.engine.weights import Decays

# The average at the last observation that has been folded.
BEFORE = ("before_mean", "before_std", "before_bias")


@dataclass(frozen=True)
class TiePlan:
    """The rows with the pending observations before them, their running means, and what is to be folded.

    real: rows that are rows, not pending ones. means, ties: mean of the row's observation so far, and its
    rows. elapsed: nanoseconds since the observation before. anew: rows that have none before them.
    done: rows that complete an observation; follows: the rows after those. start: where each row's
    observation begins (None: no ties). folded: the plan for the completed ones.
    """

    rows: Rows
    real: Bools | slice
    means: Floats
    ties: Ints
    elapsed: Ints
    anew: Ints
    done: Bools
    follows: Bools
    start: Ints | None
    folded: Plan
    known: Arrays


class RecursiveClock:
    """One weight's recursion by time."""

    def __init__(self, average: Average, decay: Decay) -> None:
        assert decay.halflife_ns is not None
        self.halflife, self.lead = decay.halflife_ns, 1
        self.kind = Kind(False, average.needs_std)

    def plan(self, rows: Rows, state: State) -> TiePlan:
        names = ("ties", "tie_time", "tie_mean", "last_time", "groups")
        known = state.load(names, rows.series, rows.fresh)
        extended, real, ties = _with_pending(rows, known)
        times, means, first = extended.times, extended.values, extended.first
        assert times is not None
        elapsed = np.diff(times, prepend=times[:1])
        new = elapsed != 0
        new[first] = True
        elapsed[first] = np.where(known["groups"] > 0, times[first] - known["last_time"], -1)
        start = None
        if not new.all():
            running_means(new, means, ties)
            start = np.maximum.accumulate(np.where(new, np.arange(len(times)), 0))
            elapsed = elapsed[start]
        done = np.append(new[1:], False)
        done[first + extended.counts - 1] = False
        follows = new
        follows[first] = False
        folded = self._folded(replace(extended, values=means), done, known["groups"])
        anew = np.flatnonzero(elapsed < 0)
        return TiePlan(extended, real, means, ties, elapsed, anew, done, follows, start, folded, known)

    def _folded(self, rows: Rows, done: Bools, groups: Ints) -> Plan:
        """The plan for the rows that complete an observation, of segments that have so many behind them."""
        assert rows.times is not None
        finished = np.add.reduceat(done, rows.first, dtype=np.int64)
        some = finished > 0
        part = replace(
            rows,
            values=rows.values[done],
            times=rows.times[done],
            counts=finished[some],
            series=rows.series[some],
            fresh=rows.fresh[some],
            final=rows.final[some],
        )
        return make_plan(part, groups[some], self.lead)

    def fold(self, plan: TiePlan, state: State, weight: int, out: Moments) -> None:
        decays = self.decays(plan.elapsed, plan.rows.scratch)
        decay, share = decays.decay, decays.share
        decay[plan.anew], share[plan.anew] = 0.0, 1.0
        rows, part = plan.rows, plan.folded.rows
        old = state.load(BEFORE, rows.series, rows.fresh, weight)
        before = empty_moments(rows.scratch, len(rows.values), self.kind.std)
        for (_, array), values in zip(before.given(), old.values(), strict=False):
            array[rows.first] = values
        if len(part.values):
            folded = self._fold_done(plan, state, weight, decays)
            for (_, array), (_, values) in zip(before.given(), folded.given(), strict=True):
                array[plan.follows] = values
            last = part.last[part.final]
            newest = {f"before_{name}": values[last] for name, values in folded.given()}
            state.store(newest, part.series[part.final], weight)
        if plan.start is not None:
            before = before.at(plan.start)
        # Each row is one step from the observation before it to the mean of its own so far.
        for some in chunks(len(plan.means)):
            joined = join(before.at(some), Moments(plan.means[some].copy()), mix(share[some], decay[some]))
            before.mean[some] = joined.mean
            before.put_spread(some, joined)
        for (_, target), (_, values) in zip(out.given(), before.given(), strict=True):
            target[:] = values[plan.real]

    def decays(self, apart: Ints | None, scratch: Scratch) -> Decays:
        """How observations weigh that follow others; apart: nanoseconds since the one before."""
        assert apart is not None
        return Decays(*halve(apart, self.halflife, scratch), None)

    def _fold_done(self, plan: TiePlan, state: State, weight: int, decays: Decays) -> Moments:
        """The moments after each completed observation."""
        folded = plan.folded
        memory = state.load(REMEMBERED, folded.rows.series, folded.rows.fresh, weight)
        out = empty_moments(folded.rows.scratch, len(folded.rows.values), self.kind.std)
        if folded.lead is not None:
            start_from_first(folded.lead, folded.rows, folded.begun, memory, out)
        if folded.rest is not None:
            index = folded.rest.rows
            mine = Decays(decays.decay[plan.done][index], decays.share[plan.done][index], None)
            fold_part(folded.rest, folded.rows, memory, mine, self.kind, out)
        remember(state, memory, folded.rows, weight)
        return out

    def advance(self, plan: TiePlan, state: State) -> None:
        rows, part = plan.rows, plan.folded.rows
        assert rows.times is not None
        assert part.times is not None
        series, last = rows.series[rows.final], rows.last[rows.final]
        newest = {"tie_time": rows.times[last], "tie_mean": plan.means[last], "ties": plan.ties[last]}
        state.store(newest, series)
        groups = plan.known["groups"] + np.add.reduceat(plan.done, rows.first, dtype=np.int64)
        state.store({"groups": groups[rows.final]}, series)
        # A series that starts afresh with an observation still pending has folded nothing yet.
        state.clear((*REMEMBERED, *BEFORE, "last_time"), series[groups[rows.final] == 0])
        state.store({"last_time": part.times[part.last[part.final]]}, part.series[part.final])


def _with_pending(rows: Rows, known: Arrays) -> tuple[Rows, Bools | slice, Ints]:
    """The rows with each segment's pending observation, if it has one, put before them."""
    assert rows.times is not None
    pending = known["ties"] > 0
    ties = np.ones(len(rows.values) + int(pending.sum()), np.int64)
    if not pending.any():
        return replace(rows, values=rows.values.copy()), slice(None), ties
    where = rows.first[pending]
    values = np.insert(rows.values, where, known["tie_mean"][pending])
    times = np.insert(rows.times, where, known["tie_time"][pending])
    where = where + np.arange(len(where))
    ties[where] = known["ties"][pending]
    real = np.ones(len(values), bool)
    real[where] = False
    return replace(rows, values=values, times=times, counts=rows.counts + pending), real, ties


def running_means(new: Bools, means: Floats, ties: Ints) -> None:
    """Turn values into the mean of their observation so far, and count it, in place; ties are rare."""
    for row in np.flatnonzero(~new).tolist():
        ties[row] = count = ties.item(row - 1) + 1
        mean = means.item(row - 1)
        means[row] = mean + (means.item(row) - mean) / count
