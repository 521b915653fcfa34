"""How far each series is, which is all that one part of it needs to know of those before it to be summarised.

A part is *counted* by itself; the counts of all parts, added up in order, say for each part where in its
tree every series stands when the part begins.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

import numpy as np

from ema_cli.average import Average
from ema_cli.engine.rows import Rows, Tile
from ema_cli.engine.scratch import Bools, Floats, Ints
from ema_cli.engine.state import State
from ema_cli.engine.ties import running_means


@dataclass(frozen=True)
class Observations:
    """What rows come to where those of equal time count as one; elsewhere each row is one.

    of_row: each row's observation, counted within its segment. counts: of each segment. means: their values.
    times: nanoseconds, if there are any. opens: the rows that begin one.
    """

    of_row: Ints
    counts: Ints
    means: Floats
    times: Ints | None
    opens: Bools


def observe(rows: Rows, *, joined: bool) -> Observations:
    """The observations of these rows. joined: rows of equal time are one."""
    first = rows.first
    if not joined or rows.times is None or not len(first):
        of_row = np.arange(len(rows.values)) - np.repeat(first, rows.counts)
        return Observations(of_row, rows.counts, rows.values, rows.times, np.ones(len(of_row), bool))
    opens = np.diff(rows.times, prepend=rows.times[:1]) != 0
    opens[first] = True
    means = rows.values.copy()
    running_means(opens, means, np.ones(len(means), np.int64))
    number = np.cumsum(opens) - 1
    last = np.append(opens[1:], True)
    counts = number[rows.last] - number[first] + 1
    return Observations(
        number - np.repeat(number[first], rows.counts), counts, means[last], rows.times[last], opens
    )


def last_segments(rows: Rows, reset_gap: int | None) -> tuple[Rows, Bools]:
    """Of each series the rows after its last silence, and whether there was one."""
    silent = np.zeros(len(rows.counts), bool)
    if reset_gap is None or rows.times is None or not len(rows.values):
        return rows, silent
    quiet = np.diff(rows.times, prepend=rows.times[:1]) > reset_gap
    quiet[rows.first] = False
    silent = np.logical_or.reduceat(quiet, rows.first)
    rows.cut(quiet)
    return rows.pick(np.repeat(rows.final, rows.counts)), silent


@dataclass(frozen=True)
class Counts:
    """What a part holds of each series that has a value in it.

    series: its place among the part's own. rows: observations, after the last silence if `cut`. first, last:
    time of the first value of all and of the last one, if there are times. keys: how many the part has.
    """

    series: Ints
    rows: Ints
    cut: Bools
    first: Ints
    last: Ints
    keys: int


def count(average: Average, tile: Tile) -> Counts:
    """Count a part's observations; the times must not go backwards."""
    rows = tile.make_rows()
    no_times = np.zeros(len(rows.counts), np.int64)
    first = no_times if rows.times is None else rows.times[rows.first]
    last = no_times if rows.times is None else rows.times[rows.last]
    rows, cut = last_segments(rows, average.reset_gap)
    joined = average.timed and not average.adjust
    counts = observe(rows, joined=True).counts if joined else rows.counts
    return Counts(rows.series, counts, cut, first, last, int(tile.slots.max(initial=-1)) + 1)


class Progress:
    """Where each series stands: observations since it began, and the time of its newest value."""

    def __init__(self, average: Average, state: State) -> None:
        self.average, self.columns = average, state.columns
        self.joined = average.timed and not average.adjust
        arrays = state.trimmed()
        self.rows: Ints = arrays["seen"].copy()
        self.last: Ints = np.zeros_like(self.rows)
        if self.joined:
            self.rows = arrays["groups"] + (arrays["ties"] > 0)
            self.last = arrays["tie_time"].copy()
        elif average.timed:
            self.last = arrays["last_time"].copy()

    def copy(self) -> Progress:
        """One that goes on by itself."""
        other = copy(self)
        other.rows, other.last = self.rows.copy(), self.last.copy()
        return other

    def advance(self, counts: Counts, slots: Ints) -> Ints:
        """Go past a part: of each of its series the observations before the first one counted.

        slots: for good, of the part's keys. The first one counted may be the newest one before the part.
        """
        series = place(counts.series, slots, self.columns)
        self._grow((int(slots.max(initial=-1)) + 1) * self.columns)
        before = self.rows[series]
        since = np.where(before > 0, counts.first - self.last[series], 1)
        if self.average.reset_gap is not None:
            before[since > self.average.reset_gap] = 0
        if self.joined:
            before -= (since == 0) & (before > 0)
        before[counts.cut] = 0
        self.rows[series], self.last[series] = before + counts.rows, counts.last
        return before

    def _grow(self, room: int) -> None:
        if room > len(self.rows):
            more = np.zeros(max(room, 2 * len(self.rows)) - len(self.rows), np.int64)
            self.rows, self.last = (np.concatenate((old, more)) for old in (self.rows, self.last))


def place(series: Ints, slots: Ints, columns: int) -> Ints:
    """Where a part's own series are in the state. slots: for good, of the part's keys."""
    return np.asarray(slots[series // columns] * columns + series % columns)
