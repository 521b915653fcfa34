"""One tile of input as series: sorted by key, column after column, without the missing cells."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ema_cli.engine.arithmetic import Bools, Floats, Ints, Moments


@dataclass(frozen=True)
class KeyedRows:
    """Which key each row belongs to.

    codes: (n,), numbers of keys within these rows, from 0, each of which is there. slots: for each code, the
    key's permanent number. counts: rows of each code; None: not counted yet.
    """

    codes: NDArray[np.integer[Any]]
    slots: Ints
    counts: Ints | None = None

    @cached_property
    def order(self) -> Ints:
        """The rows sorted by key, those of one key in their own order."""
        return np.argsort(self.codes, kind="stable")


@dataclass(frozen=True)
class Segments:
    """Runs of consecutive elements that belong to one series each.

    counts: elements of each (> 0). series: its place in the state. fresh: it starts from nothing. final: it
    is the last segment of its series here.
    """

    counts: Ints
    series: Ints
    fresh: Bools
    final: Bools

    @cached_property
    def first(self) -> Ints:
        """Index of each segment's first element."""
        return np.asarray(np.cumsum(self.counts) - self.counts)

    @cached_property
    def last(self) -> Ints:
        """Index of each segment's last element."""
        return np.asarray(np.cumsum(self.counts) - 1)

    @cached_property
    def owner(self) -> Ints:
        """Each element's segment."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @cached_property
    def rank(self) -> Ints:
        """Each element's place in its segment, from 0."""
        return np.asarray(np.arange(int(self.counts.sum())) - np.repeat(self.first, self.counts))

    def since(self, times: Ints, at_first: Any) -> Ints:
        """Time since the element before; of the first one of each segment as given."""
        out = np.empty_like(times)
        np.subtract(times[1:], times[:-1], out=out[1:])
        out[self.first] = at_first
        return out


@dataclass(frozen=True)
class Elements:
    """What is folded: rows with a value, observations of several rows of equal time, or whole blocks.

    cells: flat arrays by name, see `row_weights`; of rows also "time". before: how many of the series are
    before each segment. place: of each row in a flat (columns, tile rows) array; None: all, in order.
    """

    cells: Moments
    segments: Segments
    before: Ints
    place: Ints | None = None

    def __len__(self) -> int:
        return int(self.segments.counts.sum())

    def pick(self, which: Bools) -> Elements:
        """Consecutive elements of some segments, without their place in the tile."""
        old, at = self.segments, np.flatnonzero(which)
        counts = np.bincount(old.owner[at], minlength=len(old.counts))
        some = counts > 0
        segments = Segments(counts[some], old.series[some], old.fresh[some], old.final[some])
        before = self.before[some] + old.rank[at[segments.first]]
        return Elements({name: array[at] for name, array in self.cells.items()}, segments, before)

    def cut(self, begins: Bools) -> Elements:
        """The same, where series begin afresh at the given elements; `before` is 0."""
        old, anew = self.segments, begins.copy()
        anew[old.first] = True
        starts = np.flatnonzero(anew)
        owner = old.owner[starts]
        fresh = begins[starts] | (old.fresh[owner] & (old.first[owner] == starts))
        last = np.append(owner[1:] != owner[:-1], True)
        counts = np.diff(starts, append=len(begins))
        segments = Segments(counts, old.series[owner], fresh, last & old.final[owner])
        return replace(self, segments=segments, before=np.zeros(len(counts), np.int64))


class Tile:
    """The rows of one update.

    values: (rows, columns), NaN where missing. order: the input rows sorted by key. counts, slots, first: of
    each key its rows, its permanent number, and where it begins in `order`. series: every column of every
    key, column after column.

    What is called flat below has a number for each cell: column after column, each sorted by key.
    """

    def __init__(
        self,
        values: Floats,
        times: Ints | None = None,
        keys: KeyedRows | None = None,
        partner: Floats | None = None,
        weights: Floats | None = None,
        restarts: Bools | None = None,
    ) -> None:
        self.values, self.partner, self.times = values, partner, times
        self.weights, self.restarts, self.keys = weights, restarts, keys
        self.rows, self.columns = values.shape
        self.order: Ints | None = None
        self.counts, self.slots = np.array([self.rows]), np.zeros(1, np.int64)
        if keys is not None:
            self.order, self.slots = keys.order, keys.slots
            self.counts = np.bincount(keys.codes) if keys.counts is None else keys.counts
        self.first = np.cumsum(self.counts) - self.counts
        self.series: Ints = (self.slots * self.columns + np.arange(self.columns)[:, np.newaxis]).reshape(-1)

    @cached_property
    def missing(self) -> Bools:
        """Cells (rows, columns) without a value."""
        missing: Bools = np.isnan(self.values)
        if self.partner is not None:
            missing |= np.isnan(self.partner)
        if self.weights is not None:
            missing |= ~(self.weights > 0)[:, np.newaxis]
        return missing

    @cached_property
    def observed(self) -> Ints | None:
        """The flat cells with a value; None: all."""
        # The maximum is NaN where any value is, which is the quickest test.
        if not np.isnan(self.values.max(initial=0.0)) and self.partner is None and self.weights is None:
            return None
        return np.flatnonzero(~self.flat(self.missing)) if self.missing.any() else None

    @cached_property
    def begin(self) -> Ints:
        """The flat cell with which each series begins."""
        return np.asarray((np.arange(self.columns)[:, np.newaxis] * self.rows + self.first).reshape(-1))

    @property
    def end(self) -> Ints:
        """The flat cell with which each series ends."""
        return np.asarray(self.begin + np.tile(self.counts, self.columns) - 1)

    def sorted(self, by_row: NDArray[Any]) -> NDArray[Any]:
        """One number per input row, in the order of the keys."""
        return by_row if self.order is None else np.asarray(by_row[self.order])

    @cached_property
    def place(self) -> Ints | None:
        """Where flat cells are in a (columns, rows) array of the input's order; None: in this order."""
        if self.order is None or self.columns == 1:
            return self.order
        return np.asarray(np.add.outer(np.arange(self.columns) * self.rows, self.order).reshape(-1))

    def flat(self, cells: NDArray[Any]) -> NDArray[Any]:
        """(rows, columns), or one number a row, as flat."""
        if cells.ndim == 1:
            return np.broadcast_to(self.sorted(cells), (self.columns, self.rows)).reshape(-1)
        by_column = cells.T.reshape(-1)
        return by_column if self.place is None else by_column.take(self.place, mode="clip")

    def elements(self, times: Ints | None) -> Elements:
        """The values that are not missing. times: flat."""
        at = self.observed
        counts, place = np.tile(self.counts, self.columns), self.place
        if at is not None:
            counts = np.diff(np.searchsorted(at, [*self.begin, self.values.size]))
            place = at if place is None else place[at]
        some = counts > 0
        no = np.zeros(int(some.sum()), bool)
        segments = Segments(counts[some], self.series[some], fresh=no, final=~no)
        given = {"mean": self.values, "mean_y": self.partner, "weights": self.weights}
        flat = {name: self.flat(cells) for name, cells in given.items() if cells is not None}
        flat |= {} if times is None else {"time": times}
        cells = {name: array if at is None else array.take(at) for name, array in flat.items()}
        return Elements(cells, segments, np.zeros(len(segments.counts), np.int64), place)

    def restarted(self, rows: Elements) -> tuple[Bools, Bools]:
        """Which of the rows begin their series afresh, and which series do so after their last value.

        A series whose cell is missing where it should begin afresh does so at its next value.
        """
        assert self.restarts is not None
        flags = self.flat(self.restarts)
        times, segments = np.cumsum(flags), rows.segments
        begin = (times - flags)[self.begin]
        seen = times if self.observed is None else times[self.observed]
        mine = np.isin(self.series, segments.series)
        before = np.concatenate((seen[:1], seen[:-1]))
        before[segments.first] = begin[mine]
        last = begin.copy()
        last[mine] = seen[segments.last]
        return seen != before, last != times[self.end]

    @cached_property
    def _blanks(self) -> tuple[Ints, Ints, Ints]:
        """The flat cells without a value, the last one with a value before each (or −1), and its series."""
        blank, seen = np.flatnonzero(self.flat(self.missing)), self.observed
        assert seen is not None
        above = blank - np.arange(1, len(blank) + 1)  # in `observed`
        source = np.full(len(blank), -1)
        source[above >= 0] = seen[above[above >= 0]]
        return blank, source, np.searchsorted(self.begin, blank, "right") - 1

    def ages(self, times: Ints, last: Ints) -> Ints:
        """Time since the last value, (columns, rows); 0 where there is one. last: of each series before."""
        blank, source, series = self._blanks
        since = np.where(source < self.begin[series], last[series], times[source])
        out = np.zeros(self.values.size, np.int64)
        out[self._placed(blank)] = times[blank] - since
        return out.reshape(self.columns, self.rows)

    def _placed(self, cells: Ints) -> Ints:
        """Flat cells by their place in the input's order."""
        return cells if self.place is None else np.asarray(self.place[cells])

    def hold(self, fields: Floats, memory: Floats) -> None:
        """Fill missing cells with what the row above has.

        fields: (trends, columns, rows). memory: (trends, series), the row above the tile; replaced by the
        tile's last row.
        """
        cells = fields.reshape(len(fields), -1)
        if self.observed is not None:
            blank, source, series = self._blanks
            begin = self.begin[series]
            filled = cells[:, self._placed(np.maximum(source, 0))]
            early = source < begin
            filled[:, early] = memory[:, self.series[series[early]]]
            if self.restarts is not None:
                again = np.append(-1, np.flatnonzero(self.flat(self.restarts)))
                last = again[np.searchsorted(again, blank, "right") - 1]
                filled[:, (last >= begin) & (source < last)] = np.nan
            cells[:, self._placed(blank)] = filled
        memory[:, self.series] = cells[:, self._placed(self.end)]
