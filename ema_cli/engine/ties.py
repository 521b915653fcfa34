"""The recursion by time, where rows of equal time count as one observation: the mean of those so far.

The newest observation may still change, so it is *pending*: it is averaged like the others, but the scan
does not store it, and it is put before the rows of the next update. A row that another row of its time
follows (an *early* row) is computed in one step: the average before their observation, joined with the mean
of its rows so far.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ema_cli.engine.arithmetic import (
    LEAST_SHARE,
    MEANS,
    Bools,
    Floats,
    Ints,
    Moments,
    blend,
    join_deviations,
    mix,
)
from ema_cli.engine.rows import Rows, Segments, since_before
from ema_cli.engine.scan import Levels, Scratch, Walked, make_levels
from ema_cli.engine.state import Arrays, State


@dataclass(frozen=True)
class Elements:
    """What is folded: rows, or observations of several rows of equal time.

    cells: by name, as `Weigher` has them. before: elements of the series before each segment's first one.
    """

    cells: Moments
    segments: Segments
    before: Ints
    levels: Levels


Fold = Callable[[Elements, Moments], Walked]


@dataclass(frozen=True)
class TiedRows:
    """The rows of a tile as observations, those pending from the update before among them.

    observations: one for all rows of equal time. place: index of each row's observation; None: each row is
    one, in order. early: the rows that another one of their observation follows; values, weights: the means
    and weights of their observations so far. pending: the state of the newest observations. times: of the
    observations.
    """

    observations: Elements
    place: Ints | None
    early: Ints
    values: Moments
    weights: Floats | None
    pending: Arrays
    times: Ints

    def fold(self, fold: Fold, scratch: Scratch, out: Moments) -> None:
        """Put the moments at each row by one weight into `out`. fold: puts those at each observation."""
        own = self.observations
        if self.place is None:
            fold(own, out)
            return
        totals = {name: scratch.floats(len(own.cells["mean"])) for name in out}
        walked = fold(own, totals)
        for name, array in out.items():
            np.take(totals[name], self.place, out=array, mode="clip")
        if len(self.early):
            now = self._so_far(walked)
            for name, array in out.items():
                array[self.early] = now[name]

    def _so_far(self, walked: Walked) -> Moments:
        """The early rows' moments."""
        assert self.place is not None
        observation = self.place[self.early]
        run = walked.before(observation)
        decay, newer = walked.at("decay", observation), walked.at("loss", observation)
        anything = self.observations.cells["elapsed"][observation] >= 0
        with np.errstate(all="ignore"):
            if self.weights is None:
                how = mix(decay, newer)
            else:
                older, newer = run["weight"] * decay, self.weights * newer
                how = mix(older, newer, older + newer)
            if "deviation" in run:
                join_deviations(
                    run, self.values, how, careful=True, single=True, least=LEAST_SHARE * anything
                )
            for name, array in self.values.items():
                run[name] = blend(run[name], array, how, run[name], careful=True)
        return run

    def remember(self, state: State) -> None:
        """Store what all weights share."""
        segments = self.observations.segments
        series, some = segments.series[segments.final], segments.final
        state.store({name: array[some] for name, array in self.pending.items()}, series)
        order = self.observations.before + segments.counts - 1
        state.store({"groups": order[some]}, series)
        # A series that starts afresh with an observation still pending has folded nothing yet.
        state.clear(("block_", "total_", "last_time"), series[order[some] == 0])
        folded = segments.final & (segments.counts > 1)
        state.store({"last_time": self.times[segments.last[folded] - 1]}, segments.series[folded])


def group_ties(rows: Rows, state: State, scratch: Scratch, at_first: int) -> TiedRows:
    """Find the rows of equal time. at_first: the time elapsed before a series' first row."""
    names = ("ties", "tie_time", "tie_mean", "tie_mean_y", "tie_weight", "last_time", "groups")
    known = state.load(names, rows.segments.series, rows.segments.fresh)
    given, segments, real = _with_pending(rows, known)
    times, first = given["times"], segments.first
    elapsed = since_before(times)
    new = elapsed != 0
    new[first] = True
    elapsed[first] = np.where(known["groups"] > 0, times[first] - known["last_time"], at_first)
    values = {name: given[name] for name in MEANS if name in given}
    sums, ties = given.get("weights"), given["ties"]
    own: Any = slice(None)
    if not new.all():
        running_means(new, values, sums, ties)
        own, elapsed = np.append(np.flatnonzero(new)[1:], len(new)) - 1, elapsed[new]
    weights = None if sums is None else sums / ties
    last = segments.last
    pending = {f"tie_{name}": array[last] for name, array in values.items()}
    pending |= {"tie_time": times[last], "ties": ties[last]}
    pending |= {} if sums is None else {"tie_weight": sums[last]}
    groups = segments if isinstance(own, slice) else segments.pick(new)
    levels = make_levels(groups.counts, known["groups"], scratch, pending=True)
    cells = {name: array[own] for name, array in values.items()} | {"elapsed": elapsed}
    cells |= {} if weights is None else {"weights": weights[own]}
    observations = Elements(cells, groups, known["groups"], levels)
    if isinstance(own, slice) and isinstance(real, slice):
        return TiedRows(observations, None, np.empty(0, np.int64), {}, None, pending, times)
    place = (np.cumsum(new) - 1)[real]
    final = np.zeros(len(new), bool)
    final[own] = True
    early = np.flatnonzero(~final[real])
    so_far = {name: array[real][early] for name, array in values.items()}
    theirs = None if weights is None else weights[real][early]
    return TiedRows(observations, place, early, so_far, theirs, pending, times[own])


def _with_pending(rows: Rows, known: Arrays) -> tuple[dict[str, Any], Segments, Any]:
    """The rows, after each segment's pending observation if it has one; and which of the result are rows."""
    segments = rows.segments
    given = {"mean": rows.values, "mean_y": rows.partner, "weights": rows.weights, "times": rows.times}
    there = {name: array for name, array in given.items() if array is not None}
    there["ties"] = np.ones(len(rows.values), np.int64)
    pending = known["ties"] > 0
    if not pending.any():
        return {name: array.copy() for name, array in there.items()}, segments, slice(None)
    where = segments.first[pending]
    names = {
        "mean": "tie_mean",
        "mean_y": "tie_mean_y",
        "weights": "tie_weight",
        "times": "tie_time",
        "ties": "ties",
    }
    out = {name: np.insert(array, where, known[names[name]][pending]) for name, array in there.items()}
    real = np.ones(len(out["ties"]), bool)
    real[where + np.arange(len(where))] = False
    return out, Segments(segments.counts + pending, segments.series, segments.fresh, segments.final), real


def running_means(opens: Bools, values: Moments, sums: Floats | None, ties: Ints) -> None:
    """Turn values into the mean of their observation so far, in place.

    opens: whether a row begins an observation. sums, ties: weights and numbers of rows, turned into running
    sums. All second rows of observations are done at once, then all third ones, …
    """
    begins = np.maximum.accumulate(np.where(opens, np.arange(len(opens)), 0))
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
