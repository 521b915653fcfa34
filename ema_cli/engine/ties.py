"""The plain recursion by time: y = d·y_before + (1−d)·x with d = 2^(−Δt/halflife), as polars' ewm_mean_by.

Rows of equal time count as one observation, the mean of those so far. The newest observation may thus
still change, so it is kept apart as *pending* and folded only when the clock has moved on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ema_cli.average import Average
from ema_cli.decay import Decay
from ema_cli.engine.fold import Moments
from ema_cli.engine.kernel import CARRY, LOCAL, blend, halve, norm
from ema_cli.engine.lanes import Floats, Ints
from ema_cli.engine.plan import Plan, fold_plan, make_plan, remember
from ema_cli.engine.rows import Bools, Rows
from ema_cli.engine.state import State

BEFORE = ("before_mean", "before_std", "before_bias")


@dataclass
class TiePlan:
    """The rows with the pending observations before them, their running means, and what is to be folded.

    real: rows that are rows, not pending ones. means, elapsed: running mean of the row's observation, and
    nanoseconds since the one before it (-1: there is none). done: rows that complete an observation.
    behind: for each row, index among the done ones of the observation before it (-1: in the state).
    """

    rows: Rows
    real: Bools
    means: Floats
    ties: Ints
    elapsed: Ints
    done: Bools
    behind: Ints
    folded: Plan
    states: dict[str, Ints]


class RecursiveClock:
    """One weight's recursion by time."""

    def __init__(self, average: Average, decay: Decay) -> None:
        assert decay.halflife_ns is not None
        self.halflife = decay.halflife_ns
        self.kind = (False, average.needs_std)

    def plan(self, rows: Rows, state: State) -> TiePlan:
        names = ("ties", "tie_time", "tie_mean", "last_time", "groups")
        known = state.load(names, rows.series, rows.fresh)
        extended, real, ties = _with_pending(rows, known)
        times, means = extended.times, extended.values
        assert times is not None
        first = extended.first
        new = np.diff(times, prepend=times[:1]) != 0
        new[first] = True
        _running_means(new, means, ties)
        done = np.append(new[1:], False)
        done[first + extended.counts - 1] = False
        start = np.maximum.accumulate(np.where(new, np.arange(len(times)), 0))
        opening = np.isin(start, first)  # rows of a segment's first observation
        segment = np.repeat(np.arange(len(first)), extended.counts)
        before = np.where(opening, known["last_time"][segment], times[start - 1])
        elapsed = np.where(opening & (known["groups"][segment] == 0), -1, times - before)
        count = np.cumsum(done)
        behind = np.where(opening, -1, (count - done)[start] - 1)
        finished = np.add.reduceat(done, first, dtype=np.int64)
        some = finished > 0
        part = replace(
            extended,
            values=means[done],
            times=times[done],
            counts=finished[some],
            series=rows.series[some],
            fresh=rows.fresh[some],
            final=rows.final[some],
        )
        folded = make_plan(part, known["groups"][some], consume=True)
        return TiePlan(extended, real, means, ties, elapsed, done, behind, folded, known)

    def fold(self, plan: TiePlan, state: State, weight: int) -> Moments:
        decay, share = halve(np.maximum(plan.elapsed, 0) / self.halflife)
        decay[plan.elapsed < 0], share[plan.elapsed < 0] = 0.0, 1.0
        part = plan.folded.rows
        memory = state.load(CARRY + LOCAL, part.series, part.fresh, weight)
        weights = (decay[plan.done][plan.folded.keep], share[plan.done][plan.folded.keep], None)
        folded = fold_plan(plan.folded, memory, weights, self.kind) if len(part.values) else None
        rows = plan.rows
        old = state.load(BEFORE, rows.series, rows.fresh, weight)
        moments = self._step(plan, folded, [old[name] for name in BEFORE], (decay, share))
        if folded is not None:
            remember(state, memory, part, weight)
            last = (part.first + part.counts - 1)[part.final]
            after = zip(BEFORE, (folded.mean, folded.std, folded.bias), strict=True)
            state.store({k: v[last] for k, v in after if v is not None}, part.series[part.final], weight)
        return moments

    def _step(
        self, plan: TiePlan, folded: Moments | None, old: list[Floats], weights: tuple[Floats, Floats]
    ) -> Moments:
        """Each row's moments: one step from the observation before it to the mean of its own so far."""
        decay, share = weights
        segment = np.repeat(np.arange(len(plan.rows.counts)), plan.rows.counts)
        in_state = plan.behind < 0

        def before(earlier: Floats, now: Floats | None) -> Floats:
            if now is None:
                return earlier[segment]
            return np.where(in_state, earlier[segment], now[plan.behind])

        mean_before = before(old[0], folded.mean if folded else None)
        mean = blend(mean_before, plan.means, share, decay)[plan.real]
        if not self.kind[1]:
            return Moments(mean)
        std_before = before(old[1], folded.std if folded else None)
        bias_before = before(old[2], folded.bias if folded else None)
        std = norm(np.sqrt(decay) * std_before, np.sqrt(decay * share) * np.abs(plan.means - mean_before))
        bias = decay * decay * bias_before + 2.0 * decay * share
        return Moments(mean, std[plan.real], bias[plan.real])

    def advance(self, plan: TiePlan, state: State) -> None:
        rows, part = plan.rows, plan.folded.rows
        assert rows.times is not None
        assert part.times is not None
        series = rows.series[rows.final]
        last = (rows.first + rows.counts - 1)[rows.final]
        newest = {"tie_time": rows.times[last], "tie_mean": plan.means[last], "ties": plan.ties[last]}
        state.store(newest, series)
        groups = plan.states["groups"] + np.add.reduceat(plan.done, rows.first, dtype=np.int64)
        state.store({"groups": groups[rows.final]}, series)
        # A series that starts afresh with an observation still pending has folded nothing yet.
        state.clear(CARRY + LOCAL + BEFORE, series[groups[rows.final] == 0])
        folded = (part.first + part.counts - 1)[part.final]
        state.store({"last_time": part.times[folded]}, part.series[part.final])


def _with_pending(rows: Rows, known: dict[str, Ints]) -> tuple[Rows, Bools, Ints]:
    """The rows with each segment's pending observation, if it has one, put before them."""
    pending = known["ties"] > 0
    counts = rows.counts + pending
    first = np.cumsum(counts) - counts
    total = int(counts.sum())
    real = np.ones(total, bool)
    real[first[pending]] = False
    values, times, ties = np.empty(total), np.empty(total, np.int64), np.ones(total, np.int64)
    assert rows.times is not None
    values[real], times[real] = rows.values, rows.times
    values[~real], times[~real] = known["tie_mean"][pending], known["tie_time"][pending]
    ties[~real] = known["ties"][pending]
    return replace(rows, values=values, times=times, counts=counts), real, ties


def _running_means(new: Bools, means: Floats, ties: Ints) -> None:
    """Turn values into the mean of their observation so far, and count it, in place; ties are rare."""
    for row in np.flatnonzero(~new).tolist():
        ties[row] = count = ties.item(row - 1) + 1
        mean = means.item(row - 1)
        means[row] = mean + (means.item(row) - mean) / count
