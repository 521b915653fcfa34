"""One tile of input taken apart: sorted by key, column after column, the missing cells left out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ema_cli.engine.scratch import Bools, Floats, Ints, Scratch

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class KeyedRows:
    """Which key each row belongs to: codes (n,) count from 0 within these rows, slots name them for good."""

    codes: NDArray[np.integer[Any]]
    slots: Ints


@dataclass
class Rows:
    """The observed values of a tile, series after series, and the runs (segments) they form.

    values, times: one a row. where: place of each in a flat (columns, tile rows) array; None: all, in order.
    counts: rows of each segment (> 0); series: its place in the state; fresh: it starts from nothing;
    final: it is its series' last. gaps: rows since the value before (1: no gap), where that matters.
    scratch: for arrays of the tile's size.
    """

    values: Floats
    times: Ints | None
    where: Ints | None
    counts: Ints
    series: Ints
    fresh: Bools
    final: Bools
    scratch: Scratch
    gaps: Ints | None = None

    @property
    def first(self) -> Ints:
        """Index of each segment's first row."""
        return np.asarray(np.cumsum(self.counts) - self.counts)

    @property
    def last(self) -> Ints:
        """Index of each segment's last row."""
        return np.asarray(np.cumsum(self.counts) - 1)

    def cut(self, silent: Bools) -> None:
        """Make segments of their own of the rows from each `silent` one on; they start from nothing."""
        begins = silent.copy()
        begins[self.first] = True
        starts = np.flatnonzero(begins)
        owner = np.repeat(np.arange(len(self.counts)), self.counts)[starts]
        self.counts = np.diff(starts, append=len(self.values))
        self.series, self.fresh = self.series[owner], silent[starts]
        self.final = np.append(owner[1:] != owner[:-1], True)

    def pick(self, which: Bools) -> Rows:
        """Some of the rows, apart from any tile: segments that nobody has looked at."""
        counts = np.bincount(
            np.repeat(np.arange(len(self.counts)), self.counts)[which], minlength=len(self.counts)
        )
        some = counts > 0
        no = np.zeros(int(some.sum()), bool)
        return Rows(
            self.values[which],
            None if self.times is None else self.times[which],
            None,
            counts[some],
            self.series[some],
            no,
            ~no,
            Scratch(),
            None if self.gaps is None else self.gaps[which],
        )


class Tile:
    """The rows of one update. order: input row of each key-sorted one; counts, slots: of each key."""

    def __init__(self, values: Floats, times: Ints | None, keys: KeyedRows | None, scratch: Scratch) -> None:
        self.values, self.times, self.scratch = values, times, scratch
        self.rows, self.columns = values.shape
        self.order: Ints | None = None
        self.counts, self.slots = np.array([self.rows]), np.zeros(1, np.int64)
        if keys is not None:
            self.order = np.argsort(keys.codes, kind="stable")
            self.counts, self.slots = np.bincount(keys.codes), keys.slots
        self.first = np.cumsum(self.counts) - self.counts
        # Every column of every key, column after column, as `Rows` has them.
        self.series: Ints = (self.slots * self.columns + np.arange(self.columns)[:, np.newaxis]).reshape(-1)
        self.missing: Bools = np.isnan(values)
        self.whole = not self.missing.any()

    def sorted(self, by_row: NDArray[T]) -> NDArray[T]:
        """What is given for each input row, for each key-sorted one."""
        return by_row if self.order is None else np.asarray(by_row[self.order])

    @cached_property
    def observed(self) -> list[Ints]:
        """The key-sorted rows with a value, for each column."""
        return [np.flatnonzero(~self.sorted(self.missing[:, column])) for column in range(self.columns)]

    def make_rows(self) -> Rows:
        """The values there are."""
        flat = self.values.T.reshape(-1)  # a copy if there are several columns
        where, each, times = None, np.tile(self.counts, self.columns), self.times
        if not self.whole:
            ends = np.append(self.first, self.rows)
            each = np.concatenate([np.diff(np.searchsorted(rows, ends)) for rows in self.observed])
        if self.order is not None or not self.whole:
            parts: Any = self.observed if not self.whole else [slice(None)] * self.columns
            order: list[Ints] = [rows if self.order is None else self.order[rows] for rows in parts]
            where = _joined([rows + k * self.rows if k else rows for k, rows in enumerate(order)])
            flat = np.take(flat, where, out=self.scratch.floats(len(where)), mode="clip")
            times = None if times is None else _joined([times[rows] for rows in order])
        elif times is not None:
            times = np.tile(times, self.columns)
        some = each > 0
        blank = np.zeros(int(some.sum()), bool)
        return Rows(flat, times, where, each[some], self.series[some], blank, ~blank, self.scratch)

    def gaps(self, behind: Ints) -> tuple[Ints, Ints]:
        """Rows since the value before for each of `Rows`, and behind each series' last value here.

        behind: rows since the last value of each series of this tile, before it.
        """
        before, after, n = [], [], len(self.counts)
        for column in range(self.columns):
            rows = self.observed[column]
            ends = np.searchsorted(rows, np.append(self.first, self.rows))
            some = np.diff(ends) > 0
            old = behind[column * n : (column + 1) * n]
            gaps = np.diff(rows, prepend=0)
            begin = ends[:-1][some]
            gaps[begin] = rows[begin] - self.first[some] + 1 + old[some]
            rest = old + self.counts
            rest[some] = (self.first + self.counts)[some] - 1 - rows[ends[1:][some] - 1]
            before.append(gaps)
            after.append(rest)
        return np.concatenate(before), np.concatenate(after)

    def hold(self, fields: Floats, memory: Floats) -> None:
        """On missing rows, put what the row above has; memory: what the row above the tile had, by series.

        fields: (weights, columns, rows). memory: (weights, series), moved on in place.
        """
        index = np.arange(self.rows)
        begin = np.repeat(self.first, self.counts)
        for column in range(self.columns):
            series = self.slots * self.columns + column
            source = np.where(self.sorted(self.missing[:, column]), -1, index)
            source = np.maximum.accumulate(source)
            held = source < begin
            mine = fields[:, column] if self.order is None else fields[:, column, self.order]
            filled = mine[:, np.maximum(source, 0)]
            filled[:, held] = np.repeat(memory[:, series], self.counts, axis=1)[:, held]
            fields[:, column, slice(None) if self.order is None else self.order] = filled
            memory[:, series] = filled[:, self.first + self.counts - 1]


def _joined(columns: list[Ints]) -> Ints:
    """One column after the other, without a copy where there is but one."""
    return columns[0] if len(columns) == 1 else np.concatenate(columns)
