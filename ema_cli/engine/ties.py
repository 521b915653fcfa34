"""The plain recursion by time, where rows of equal time count as one observation, the mean of those so far.

The newest observation may still change, so it is kept apart as *pending* and folded only when the clock has moved
on. Each row is then one step from the average after the observation before it to the mean of its own so far.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ema_cli.average import Average
from ema_cli.decay import Decay
from ema_cli.engine.arithmetic import CHUNK, LEAST_SHARE, MEANS, Bools, Floats, Ints, Moments, blend, mix, spread
from ema_cli.engine.rows import Rows, Segments
from ema_cli.engine.scan import Levels, Scratch, make_levels
from ema_cli.engine.state import Arrays, State

if TYPE_CHECKING:
    from ema_cli.engine.engine import Engine


@dataclass(frozen=True)
class Elements:
    """What is folded: rows, or observations of several rows of equal time.

    order: how many of its series are before each segment's first one. gaps: rows since the value before. elapsed:
    nanoseconds since the one before; negative where there is none. weights: what each counts for.
    """

    values: Moments
    segments: Segments
    order: Ints
    levels: Levels
    gaps: Ints | None = None
    elapsed: Ints | None = None
    weights: Floats | None = None


@dataclass(frozen=True)
class Groups:
    """The rows with the pending observations before them, and the observations that they complete.

    real: rows of this tile, not pending observations. values, sums: means and weights of each row's observation so
    far; ties: its rows so far. begins: where each row's observation begins. follows: rows that begin one after
    another. done: rows that complete one. complete: those, as they are folded.
    """

    rows: Elements
    times: Ints
    real: Bools | slice
    sums: Floats | None
    ties: Ints
    begins: Ints | None
    follows: Bools
    done: Bools
    complete: Elements | None
    known: Arrays

    def fold(self, engine: Engine, weight: int, decay: Decay, out: Moments) -> None:
        """The moments at each row by one weight into `out`; what is remembered moves on."""
        rows, average = self.rows, engine.average
        before = self._before(engine, weight, decay, out)
        weights = engine.weigh(rows, decay)
        anything = np.True_ if average.has_first else None
        assert rows.elapsed is not None
        for begin in range(0, len(self.times), CHUNK):
            some = slice(begin, begin + CHUNK)
            older = {name: array[some] for name, array in before.items()}
            newer = {name: array[some] for name, array in rows.values.items()}
            weigh = {name: array[some] for name, array in weights.items()}
            self._step(older, newer, weigh, rows.elapsed[some] >= 0 if anything is None else anything)
            for name, array in before.items():
                array[some] = older[name]
        for name, array in out.items():
            array[:] = before[name][self.real]

    def _step(self, older: Moments, newer: Moments, weights: Moments, anything: Any) -> None:
        """One step from the average after the observation before a row, if there is one, to its own mean so far."""
        shares, total = (weights["decay"], weights["loss"]), None
        if "weight" in weights:
            shares = older["weight"] * weights["decay"], weights["weight"]
            total = shares[0] + shares[1]
        with np.errstate(all="ignore"):
            how = mix(*shares, total)
            if "deviation" in older:
                spread(older, newer, how, careful=True, single=True, least=LEAST_SHARE * anything)
            for name, array in newer.items():
                blend(older[name], array, how, older[name], careful=True)

    def _before(self, engine: Engine, weight: int, decay: Decay, out: Moments) -> Moments:
        """The moments after the observation before each row's own."""
        segments, state, average = self.rows.segments, engine.state, engine.average
        names = [*out, *(["weight"] if average.weighted else [])]
        old = state.load([f"newest_{name}" for name in names], segments.series, segments.fresh, weight)
        if average.has_first:
            new = self.rows.order == 0
            old["newest_mean"][new] = average.start
            old.get("newest_weight", np.empty(len(new)))[new] = 1.0
        before = {name: engine.scratch.floats(len(self.times)) for name in names}
        for name, array in before.items():
            array[segments.first] = old[f"newest_{name}"]
        if self.complete is not None:
            done = self.complete
            folded = {name: engine.scratch.floats(len(done.values["mean"])) for name in names}
            engine.fold_elements(done, weight, decay, folded)
            last, final = done.segments.last, done.segments.final
            newest = {f"newest_{name}": array[last[final]] for name, array in folded.items()}
            state.store(newest, done.segments.series[final], weight)
            for name, array in before.items():
                array[self.follows] = folded[name]
        if self.begins is not None:
            before = {name: array[self.begins] for name, array in before.items()}
        return before

    def remember(self, state: State) -> None:
        """What all weights share moves on."""
        segments = self.rows.segments
        series, last = segments.series[segments.final], segments.last[segments.final]
        pending = {f"tie_{name}": array[last] for name, array in self.rows.values.items()}
        pending |= {"tie_time": self.times[last], "ties": self.ties[last]}
        if self.sums is not None:
            pending["tie_weight"] = self.sums[last]
        state.store(pending, series)
        groups = self.known["groups"] + np.add.reduceat(self.done, segments.first, dtype=np.int64)
        state.store({"groups": groups[segments.final]}, series)
        # A series that starts afresh with an observation still pending has folded nothing yet.
        state.clear(("block_", "total_", "newest_", "last_time"), series[groups[segments.final] == 0])
        if self.complete is not None:
            done = self.complete.segments
            times = self.times[self.done]
            state.store({"last_time": times[done.last[done.final]]}, done.series[done.final])


def group_ties(rows: Rows, state: State, average: Average, scratch: Scratch) -> Groups:
    """See which rows are one observation, and which observations are complete."""
    names = ("ties", "tie_time", "tie_mean", "tie_mean_y", "tie_weight", "last_time", "groups")
    known = state.load(names, rows.segments.series, rows.segments.fresh)
    given, segments, real, ties = _with_pending(rows, known)
    times, first = given["times"], segments.first
    elapsed = np.diff(times, prepend=times[:1])
    new = elapsed != 0
    new[first] = True
    elapsed[first] = np.where(known["groups"] > 0, times[first] - known["last_time"], -1)
    values = {name: given[name] for name in MEANS if name in given}
    begins, sums = None, given.get("weights")
    if not new.all():
        begins = np.maximum.accumulate(np.where(new, np.arange(len(times)), 0))
        _running_means(begins, values, sums, ties)
        elapsed = elapsed[begins]
    done = np.append(new[1:], False)
    done[segments.last] = False
    follows = new.copy()
    follows[first] = False
    each = None if sums is None else sums / ties
    levels = Levels(0, [], [], None)
    whole = Elements(values, segments, known["groups"], levels, None, elapsed, each)
    complete = _complete(whole, done, scratch) if done.any() else None
    return Groups(whole, times, real, sums, ties, begins, follows, done, complete, known)


def _complete(rows: Elements, done: Bools, scratch: Scratch) -> Elements:
    """The observations that are complete, as elements of their own."""
    segments = rows.segments.pick(done)
    some = np.add.reduceat(done, rows.segments.first, dtype=np.int64) > 0
    order = rows.order[some]
    assert rows.elapsed is not None
    return Elements(
        {name: array[done] for name, array in rows.values.items()},
        segments,
        order,
        make_levels(segments.counts, order, scratch),
        None,
        rows.elapsed[done],
        None if rows.weights is None else rows.weights[done],
    )


def _with_pending(rows: Rows, known: Arrays) -> tuple[dict[str, Any], Segments, Bools | slice, Ints]:
    """The rows with each segment's pending observation, if it has one, put before them."""
    segments = rows.segments
    given = {"mean": rows.values, "mean_y": rows.partner, "weights": rows.weights, "times": rows.times}
    there = {name: array for name, array in given.items() if array is not None}
    pending = known["ties"] > 0
    ties = np.ones(len(rows.values) + int(pending.sum()), np.int64)
    if not pending.any():
        return {name: array.copy() for name, array in there.items()}, segments, slice(None), ties
    where = segments.first[pending]
    names = {"mean": "tie_mean", "mean_y": "tie_mean_y", "weights": "tie_weight", "times": "tie_time"}
    out = {name: np.insert(array, where, known[names[name]][pending]) for name, array in there.items()}
    where = where + np.arange(len(where))
    ties[where] = known["ties"][pending]
    real = np.ones(len(ties), bool)
    real[where] = False
    counts = segments.counts + pending
    return out, Segments(counts, segments.series, segments.fresh, segments.final), real, ties


def _running_means(begins: Ints, values: Moments, sums: Floats | None, ties: Ints) -> None:
    """Turn values into the mean of their observation so far, and count it, in place: second rows, then third …"""
    later = np.flatnonzero(begins != np.arange(len(begins)))
    rank = later - begins[later]
    later = later[np.argsort(rank, kind="stable")]
    for begin, end in pairwise([0, *np.cumsum(np.bincount(rank)[1:]).tolist()]):
        rows = later[begin:end]
        before = rows - 1
        ties[rows] += ties[before]
        older, newer = ties[before].astype(np.float64), np.ones(len(rows))
        if sums is not None:
            older, newer = sums[before], sums[rows].copy()
            sums[rows] += sums[before]
        how = mix(older, newer, older + newer)
        for array in values.values():
            array[rows] = blend(array[before], array[rows], how, np.empty(len(rows)), careful=True)
