"""The recursion by time, where rows of equal time count as one observation: the mean of those so far.

The newest observation may still change, so it is *pending*: it is averaged like the others, but the scan
does not store it, and it is put before the rows of the next update. A row that another row of its time
follows (an *early* row) is computed in one step: the average before its observation, joined with the mean of
the observation's rows so far.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from ema_cli.engine.arithmetic import LEAST_SHARE, MEANS, Bools, Ints, Moments, join, mix
from ema_cli.engine.rows import Elements
from ema_cli.engine.scan import Walked
from ema_cli.engine.state import State

# What is stored of a pending observation, by its name as a cell; of weights and rows ("ties") their sums.
STORED = {
    "mean": "tie_mean",
    "mean_y": "tie_mean_y",
    "time": "tie_time",
    "weight_sum": "tie_weights",
    "ties": "ties",
}


@dataclass(frozen=True)
class Observations:
    """Rows as observations.

    elements: one observation for all rows of equal time. opens: whether a row begins one. of_row: index of
    each row's observation. early: the rows that another one of their observation follows; so_far: the cells
    of their observations up to them.
    """

    elements: Elements
    opens: Bools
    of_row: Ints
    early: Ints
    so_far: Moments

    @property
    def are_rows(self) -> bool:
        """Each row is an observation, and there is no other."""
        return bool(self.opens.all()) and len(self.of_row) == len(self.opens)

    def spread(self, totals: Moments, walked: Walked, elapsed: Ints, out: Moments) -> None:
        """The moments at each row into `out`. totals, walked, elapsed: of each observation."""
        for name, array in out.items():
            np.take(totals[name], self.of_row, out=array, mode="clip")
        if not len(self.early):
            return
        which = self.of_row[self.early]
        run, decay, newer = walked.previous(which), walked.at("decay", which), walked.at("loss", which)
        with np.errstate(all="ignore"):
            older, total, least = decay, None, LEAST_SHARE * (elapsed[which] >= 0)
            if "weights" in self.so_far:
                older, newer = run["weight"] * decay, self.so_far["weights"] * newer
                total = older + newer
            now = {name: np.empty(len(which)) for name in out}
            join(run, self.so_far, mix(older, newer, total, least), now, careful=True)
        for name, array in out.items():
            array[self.early] = now[name]

    def pending(self) -> dict[str, Any]:
        """What is stored of the last observation of each segment."""
        cells, last = self.elements.cells, self.elements.segments.last
        return {stored: cells[name][last] for name, stored in STORED.items() if name in cells}


def observe(rows: Elements, state: State | None = None) -> Observations:
    """Join rows of equal time, and the rows before them with what `state` has pending."""
    rows = replace(rows, cells=rows.cells | {"ties": np.ones(len(rows), np.int64)})
    if "weights" in rows.cells:
        rows.cells["weight_sum"] = rows.cells.pop("weights")
    real = np.ones(len(rows), bool)
    if state is not None:
        rows, real = _with_pending(rows, state)
    cells, opens = rows.cells, rows.segments.since(rows.cells["time"], 1) != 0
    if not opens.all():
        cells = {name: array.copy() for name, array in cells.items()}
        running_means(opens, cells)
    if "weight_sum" in cells:
        cells["weights"] = cells["weight_sum"] / cells["ties"]
    last = np.append(opens[1:], True)
    elements = replace(rows, cells=cells)
    if not last.all():
        elements = elements.pick(last)
    early = np.flatnonzero(~last & real)
    so_far = {name: array[early] for name, array in cells.items()}
    return Observations(elements, opens, (np.cumsum(opens) - 1)[real], np.flatnonzero(~last[real]), so_far)


def _with_pending(rows: Elements, state: State) -> tuple[Elements, Bools]:
    """The rows, after each segment's pending observation if it has one; and which of the result are rows."""
    old = rows.segments
    pending = state.load("ties", old.series, old.fresh) > 0
    if not pending.any():
        return rows, np.ones(len(rows), bool)
    where = old.first[pending]
    series, fresh = old.series[pending], old.fresh[pending]
    cells = {
        name: np.insert(array, where, state.load(STORED[name], series, fresh))
        for name, array in rows.cells.items()
    }
    real = np.ones(len(rows) + len(where), bool)
    real[where + np.arange(len(where))] = False
    return replace(rows, cells=cells, segments=replace(old, counts=old.counts + pending)), real


def running_means(opens: Bools, cells: Moments) -> None:
    """Turn rows into the mean of their observation so far, in place.

    opens: whether a row begins an observation. "ties" and "weight_sum" become sums. All second rows of
    observations are done at once, then all third ones, …
    """
    begins = np.maximum.accumulate(np.where(opens, np.arange(len(opens)), 0))
    later = np.flatnonzero(begins != np.arange(len(begins)))
    rank = later - begins[later]
    later = later[np.argsort(rank, kind="stable")]
    sums, ties = cells.get("weight_sum"), cells["ties"]
    for begin, end in pairwise([0, *np.cumsum(np.bincount(rank)[1:]).tolist()]):
        rows = later[begin:end]
        before = rows - 1
        ties[rows] += ties[before]
        older, newer = ties[before].astype(np.float64), np.ones(len(rows))
        if sums is not None:
            older, newer = sums[before], sums[rows].copy()
            sums[rows] += sums[before]
        how, means = mix(older, newer, older + newer), [name for name in MEANS if name in cells]
        out = {name: np.empty(len(rows)) for name in means}
        join({n: cells[n][before] for n in means}, {n: cells[n][rows] for n in means}, how, out, careful=True)
        for name in means:
            cells[name][rows] = out[name]
