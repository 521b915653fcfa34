"""The engine: rows in, trends out, everything remembered in a `State`.

One call handles up to `TILE` rows: sort them by key, drop missing cells, ask `models` how each
remaining row decays, `fold` it, and put the results back where the rows were.
"""

from __future__ import annotations

import numpy as np

from ema_cli.average import Average
from ema_cli.engine.models import make_model
from ema_cli.engine.moments import Moments
from ema_cli.engine.rows import KeyedRows, Rows, Tile
from ema_cli.engine.scratch import Floats, Ints, Scratch
from ema_cli.engine.state import State

__all__ = ["TILE", "BackwardsTimeError", "Engine", "KeyedRows"]
TILE = 65_536


class BackwardsTimeError(ValueError):
    """A time before the one above it; `row` counts from 0 within the rows given."""

    def __init__(self, row: int) -> None:
        super().__init__(f"row {row + 1}: the time goes backwards")
        self.row = row


class Engine:
    """Folds tiles of values into its state."""

    def __init__(self, average: Average, columns: int) -> None:
        self.average, self.columns = average, columns
        self.state = State(average, columns)
        self.model = make_model(average)
        self.scratch = Scratch()

    def update(
        self,
        values: Floats,
        times: Ints | None = None,
        keys: KeyedRows | None = None,
        out: Floats | None = None,
    ) -> tuple[Floats, Floats | None]:
        """Trend and standard deviation of each row, shape (weights, rows, columns); NaN where blank.

        values: (rows, columns) float64, NaN where missing. times: (rows,) int64 nanoseconds. keys: every
        code has a row. out: (weights, columns, rows) in one piece, where the trend is to be put. Other arrays
        are the engine's own and good until its next update.
        Raises BackwardsTimeError, before anything is folded in.
        """
        self.scratch.clear()
        shape = len(self.average.decays), self.columns, len(values)
        mean = self.scratch.floats(*shape) if out is None else out
        std = self.scratch.floats(*shape) if self.average.needs_std else None
        if len(values):
            tile = Tile(values, times, keys, self.scratch)
            if times is not None:
                self._check_clock(tile, times)
            self.state.grow(int(tile.slots.max()) + 1)
            # Lanes are padded, and padding may divide 0 by 0; so may the weights of what has long faded.
            with np.errstate(all="ignore"):
                self._fold(tile, mean, std)
        return mean.transpose(0, 2, 1), None if std is None else std.transpose(0, 2, 1)

    def _check_clock(self, tile: Tile, times: Ints) -> None:
        """Each key's times must not decrease, within the tile and since the last one."""
        if tile.order is not None:
            times = times[tile.order]
        clock, started = self.state.load_keys(("clock", "started"), tile.slots)
        before = np.concatenate((times[:1], times[:-1]))
        before[tile.first] = np.where(started > 0, clock, times[tile.first])
        wrong = np.flatnonzero(times < before)
        if wrong.size:
            raise BackwardsTimeError(int((wrong if tile.order is None else tile.order[wrong]).min()))

    def _fold(self, tile: Tile, mean: Floats, std: Floats | None) -> None:
        rows = tile.make_rows()
        if tile.times is not None:
            last = tile.sorted(tile.times)[tile.first + tile.counts - 1]
            self.state.store({"clock": last, "started": np.ones_like(last)}, tile.slots)
        if "gap" in self.state.arrays:
            rows.gaps, self.state.arrays["gap"][tile.series] = tile.gaps(
                self.state.arrays["gap"][tile.series]
            )
        for array in (mean, std):
            if array is not None and rows.where is not None and len(rows.where) < array[0].size:
                array[...] = np.nan
        if len(rows.values):
            into = [self._room(rows, part) for part in mean]
            early = self.fold_rows(rows, into)
            for weight, moments in enumerate(into):
                _put(rows, moments.mean, mean[weight], early)
                if std is not None:
                    _put(rows, moments.unbiased_std(), std[weight], early)
        if self.average.fill:
            tile.hold(mean, self.state.arrays["held_mean"])
            if std is not None:
                tile.hold(std, self.state.arrays["held_std"])

    def fold_rows(self, rows: Rows, into: list[Moments]) -> Ints | None:
        """The moments at each row by each weight into `into`; which of the rows are to be blank."""
        if self.average.reset_gap is not None:
            self._cut_at_silences(rows, self.average.reset_gap)
        early = self._early(rows)
        self.model.fold(rows, self.state, into)
        self._count(rows)
        return early

    def _room(self, rows: Rows, target: Floats) -> Moments:
        """Where a model is to put its moments: the means in their final place, if all rows are there."""
        size = len(rows.values)
        mean = target.reshape(-1) if rows.where is None else rows.scratch.floats(size)
        if not self.average.needs_std:
            return Moments(mean)
        return Moments(mean, rows.scratch.floats(size), rows.scratch.floats(size))

    def _cut_at_silences(self, rows: Rows, limit: int) -> None:
        """Where nothing was observed for longer than `reset_gap`, what follows starts afresh."""
        assert rows.times is not None
        known, first = self.state.arrays, rows.first
        since = np.diff(rows.times, prepend=rows.times[:1])
        last = known["tie_time" if "tie_time" in known else "last_time"][rows.series]
        since[first] = np.where(known["seen"][rows.series] > 0, rows.times[first] - last, 0)
        rows.cut(since > limit)

    def _early(self, rows: Rows) -> Ints | None:
        """The rows before `min_periods` values, or while an SMA gathers its seed: they are blank."""
        needed = max(self.average.min_periods, self.average.seed_rows)
        if needed <= 1:
            return None
        seen = np.where(rows.fresh, 0, self.state.arrays["seen"][rows.series])
        few = np.clip(needed - 1 - seen, 0, rows.counts)
        if not few.any():
            return None
        return np.asarray(np.arange(int(few.sum())) + np.repeat(rows.first - (np.cumsum(few) - few), few))

    def _count(self, rows: Rows) -> None:
        seen = self.state.arrays["seen"]
        before = np.where(rows.fresh, 0, seen[rows.series])
        seen[rows.series[rows.final]] = (before + rows.counts)[rows.final]


def _put(rows: Rows, numbers: Floats, target: Floats, early: Ints | None) -> None:
    """The numbers of these rows into a flat array of the whole tile, blank for the early ones."""
    if early is not None:
        numbers[early] = np.nan
    flat = target.reshape(-1)
    if rows.where is not None:
        flat[rows.where] = numbers
    elif not np.shares_memory(flat, numbers):
        flat[:] = numbers
