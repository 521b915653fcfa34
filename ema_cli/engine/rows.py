"""One tile of input as series: sorted by key, column after column, without the missing cells."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ema_cli.engine.arithmetic import Bools, Floats, Ints

T = TypeVar("T", bound=np.generic)


def since_before(times: Ints) -> Ints:
    """Nanoseconds since the time above; 0 for the first."""
    out = np.empty_like(times)
    out[:1] = 0
    np.subtract(times[1:], times[:-1], out=out[1:])
    return out


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
    """Runs of consecutive rows that belong to one series each.

    counts: rows of each (> 0). series: its place in the state. fresh: it starts from nothing. final: it is
    the last segment of its series here.
    """

    counts: Ints
    series: Ints
    fresh: Bools
    final: Bools

    @cached_property
    def first(self) -> Ints:
        """Index of each segment's first row."""
        return np.asarray(np.cumsum(self.counts) - self.counts)

    @cached_property
    def last(self) -> Ints:
        """Index of each segment's last row."""
        return np.asarray(np.cumsum(self.counts) - 1)

    @property
    def owner(self) -> Ints:
        """Each row's segment."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def rank(self) -> Ints:
        """Each row's place in its segment, from 0."""
        return np.asarray(np.arange(int(self.counts.sum())) - np.repeat(self.first, self.counts))

    def cut(self, begins: Bools) -> Segments:
        """These segments, cut before the given rows too; the new ones start from nothing."""
        anew = begins.copy()
        anew[self.first] = True
        starts = np.flatnonzero(anew)
        owner = self.owner[starts]
        fresh = begins[starts] | (self.fresh[owner] & np.isin(starts, self.first))
        counts = np.diff(starts, append=int(self.counts.sum()))
        last = np.append(owner[1:] != owner[:-1], True)
        return Segments(counts, self.series[owner], fresh, last & self.final[owner])

    def pick(self, which: Bools) -> Segments:
        """The segments of some rows alone."""
        counts = np.bincount(self.owner[which], minlength=len(self.counts))
        some = counts > 0
        return Segments(counts[some], self.series[some], self.fresh[some], self.final[some])


@dataclass(frozen=True)
class Rows:
    """The values of a tile that are not missing, series after series.

    values: one a row. partner: of the second variable, where pairs are asked for. where: place of each row
    in a flat (columns, tile rows) array; None: all, in order. times: nanoseconds. weights: of each row.
    gaps: rows since the value before (1: no gap), where the average asks for it.
    """

    values: Floats
    segments: Segments
    partner: Floats | None = None
    where: Ints | None = None
    times: Ints | None = None
    weights: Floats | None = None
    gaps: Ints | None = None

    def pick(self, which: Bools) -> Rows:
        """Some of the rows, without their place in the tile."""
        given = {name: getattr(self, name) for name in ("partner", "times", "weights", "gaps")}
        some = {name: array[which] for name, array in given.items() if array is not None}
        return Rows(self.values[which], self.segments.pick(which), **some)

    def cut(self, begins: Bools) -> Rows:
        """The same rows, where series begin afresh at the given ones."""
        return replace(self, segments=self.segments.cut(begins))


class Tile:
    """The rows of one update.

    values: (rows, columns), NaN where missing. order: the input rows sorted by key. counts, slots: rows and
    permanent number of each key. whole: no cell is missing.
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
        # Every column of every key, column after column.
        self.series: Ints = (self.slots * self.columns + np.arange(self.columns)[:, np.newaxis]).reshape(-1)
        # The maximum is NaN where any value is, which is the quickest test.
        self.whole = not (np.isnan(values.max(initial=0.0)) or partner is not None or weights is not None)
        if not self.whole:
            self.whole = not self.missing.any()

    @cached_property
    def missing(self) -> Bools:
        """Cells (rows, columns) without a value."""
        missing: Bools = np.isnan(self.values)
        if self.partner is not None:
            missing |= np.isnan(self.partner)
        if self.weights is not None:
            missing |= ~(self.weights > 0)[:, np.newaxis]
        return missing

    def sorted(self, by_row: NDArray[T]) -> NDArray[T]:
        """One number per input row, in the order of the keys."""
        return by_row if self.order is None else np.asarray(by_row[self.order])

    @cached_property
    def observed(self) -> list[Ints]:
        """The key-sorted rows with a value, for each column."""
        return [np.flatnonzero(~self.sorted(self.missing[:, column])) for column in range(self.columns)]

    @cached_property
    def bounds(self) -> list[Ints]:
        """Where the rows of each key begin in `observed`, and where the last ones end, for each column."""
        ends = np.append(self.first, self.rows)
        return [np.searchsorted(rows, ends) for rows in self.observed]

    def _blanks(self, column: int) -> tuple[Ints, Ints, Ints]:
        """The key-sorted rows without a value, the row with one above each (−1: none), and their keys."""
        rows = np.flatnonzero(self.sorted(self.missing[:, column]))
        above = rows - np.arange(1, len(rows) + 1)  # index in `observed`
        source = np.full(len(rows), -1)
        source[above >= 0] = self.observed[column][above[above >= 0]]
        return rows, source, np.searchsorted(self.first, rows, "right") - 1

    def make_rows(self) -> Rows:
        """The values that are not missing."""
        each = np.tile(self.counts, self.columns)
        if not self.whole:
            each = np.concatenate([np.diff(bounds) for bounds in self.bounds])
        some = each > 0
        blank = np.zeros(int(some.sum()), bool)
        segments = Segments(each[some], self.series[some], blank, ~blank)
        order: list[Any] = [slice(None)] * self.columns
        where = None
        if self.order is not None or not self.whole:
            parts: Any = self.observed if not self.whole else order
            order = [rows if self.order is None else self.order[rows] for rows in parts]
            where = _joined([rows + k * self.rows if k else rows for k, rows in enumerate(order)])
        partner = None if self.partner is None else _of_cells(self.partner, where)
        by_row = {"times": self.times, "weights": self.weights}
        each_row = {
            name: _joined([array[rows] for rows in order])
            for name, array in by_row.items()
            if array is not None
        }
        return Rows(_of_cells(self.values, where), segments, partner, where, **each_row)

    def restarted(self) -> tuple[Bools, Bools]:
        """Which observed rows begin their series afresh, and which series do so after their last value.

        A series whose cell is missing where it should begin afresh does so at its next value.
        """
        assert self.restarts is not None
        times = np.cumsum(self.sorted(self.restarts))
        begin = np.where(self.first > 0, times[self.first - 1], 0)
        end = times[self.first + self.counts - 1]
        rows, series = [], []
        for column in range(self.columns):
            seen, bounds = times[self.observed[column]], self.bounds[column]
            some = np.diff(bounds) > 0
            before = np.concatenate((seen[:1], seen[:-1]))
            before[bounds[:-1][some]] = begin[some]
            rows.append(seen != before)
            last = begin.copy()
            last[some] = seen[bounds[1:][some] - 1]
            series.append(last != end)
        return np.concatenate(rows), np.concatenate(series)

    def gaps(self, since_last: Ints) -> tuple[Ints, Ints]:
        """Rows since the value before, for each of `Rows`; and for each series, rows since its last value.

        since_last: the same for each series before this tile.
        """
        before, after, n = [], [], len(self.counts)
        for column in range(self.columns):
            rows, ends = self.observed[column], self.bounds[column]
            some = np.diff(ends) > 0
            old = since_last[column * n : (column + 1) * n]
            gaps = np.diff(rows, prepend=0)
            begin = ends[:-1][some]
            gaps[begin] = rows[begin] - self.first[some] + 1 + old[some]
            rest = old + self.counts
            rest[some] = (self.first + self.counts)[some] - 1 - rows[ends[1:][some] - 1]
            before.append(gaps)
            after.append(rest)
        return np.concatenate(before), np.concatenate(after)

    def ages(self, since_last: Ints) -> Ints:
        """Rows since the last value, (columns, rows); 0 where there is one. since_last: as for `gaps`."""
        out = np.zeros((self.columns, self.rows), np.int64)
        for column, old in enumerate(since_last.reshape(self.columns, len(self.counts))):
            rows, source, key = self._blanks(column)
            first = self.first[key]
            since = np.where(source < first, rows - first + 1 + old[key], rows - source)
            out[column, self._place(rows)] = since
        return out

    def hold(self, fields: Floats, memory: Floats) -> None:
        """Fill missing rows with what the row above has.

        fields: (weights, columns, rows). memory: (weights, series), the row above the tile; replaced by the
        tile's last row.
        """
        restarts = None if self.restarts is None else np.flatnonzero(self.sorted(self.restarts))
        ends = self.first + self.counts - 1
        for column in range(self.columns):
            series = self.slots * self.columns + column
            rows, source, key = self._blanks(column)
            begin = first = self.first[key]
            if restarts is not None:
                last = np.append(-1, restarts)[np.searchsorted(restarts, rows, "right")]
                begin = np.maximum(first, last)
            held = source < begin
            mine = fields[:, column]
            filled = mine[:, self._place(np.maximum(source, 0))]
            filled[:, held] = memory[:, series[key[held]]]
            if restarts is not None:
                filled[:, held & (last >= first)] = np.nan
            mine[:, self._place(rows)] = filled
            memory[:, series] = mine[:, self._place(ends)]

    def _place(self, rows: Ints) -> Ints:
        """The input rows that these rows in key order are."""
        return rows if self.order is None else np.asarray(self.order[rows])


def _of_cells(cells: Floats, where: Ints | None) -> Floats:
    """The cells of a table column after column: those at `where`, or all."""
    flat = cells.T.reshape(-1)  # a copy if there are several columns
    return flat if where is None else np.take(flat, where, mode="clip")  # quicker than with a check


def _joined(columns: list[NDArray[T]]) -> NDArray[T]:
    """One column after the other; no copy if there is only one."""
    return columns[0] if len(columns) == 1 else np.concatenate(columns)
