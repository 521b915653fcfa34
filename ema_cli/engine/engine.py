"""The engine: rows in, trends out, everything remembered in a `State`.

One call handles up to `TILE` rows: sort them by key, drop missing cells, ask `models` how each
remaining row decays, `fold` it, and put the results back where the rows were.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ema_cli.average import Average
from ema_cli.engine.kernel import Bools, Floats
from ema_cli.engine.lanes import Ints
from ema_cli.engine.models import make_model
from ema_cli.engine.rows import Rows
from ema_cli.engine.state import State

TILE = 65_536


class BackwardsTimeError(ValueError):
    """A time before the one above it; `row` counts from 0 within the rows given."""

    def __init__(self, row: int) -> None:
        super().__init__(f"row {row + 1}: the time goes backwards")
        self.row = row


@dataclass(frozen=True)
class KeyedRows:
    """Which key each row belongs to: codes (n,) count from 0 within these rows, slots name them for good."""

    codes: NDArray[np.uint16]
    slots: Ints


class Engine:
    """Folds tiles of values into its state. See `smoother.Smoother` for the public face."""

    def __init__(self, average: Average, columns: int) -> None:
        self.average, self.columns = average, columns
        self.state = State(average, columns)
        self.model = make_model(average)

    def update(
        self, values: Floats, times: Ints | None = None, keys: KeyedRows | None = None
    ) -> tuple[Floats, Floats | None]:
        """Trend and standard deviation of each row, shape (weights, rows, columns); NaN where blank.

        values: (rows, columns) float64, NaN where missing. times: (rows,) int64 nanoseconds.
        Raises BackwardsTimeError, before anything is folded in.
        """
        weights, n = len(self.average.decays), len(values)
        mean = np.full((weights, n, self.columns), np.nan)
        std = np.full((weights, n, self.columns), np.nan) if self.average.needs_std else None
        if n == 0:
            return mean, std
        order = None if keys is None else np.argsort(keys.codes, kind="stable")
        counts = np.array([n]) if keys is None else np.bincount(keys.codes)
        slots = np.zeros(1, np.int64) if keys is None else keys.slots
        if order is not None:
            values = values[order]
            times = None if times is None else times[order]
        self.state.grow(int(slots.max()) + 1)
        if times is not None:
            self._check_clock(times, counts, slots, order)
        observed = ~np.isnan(values)
        # Lanes are padded, and a padded row may divide 0 by 0; so may the weight of a row long faded.
        with np.errstate(all="ignore"):
            self._fold(values, times, observed, (counts, slots), (mean, std))
        if order is not None:
            back = np.empty_like(order)
            back[order] = np.arange(n)
            mean = mean[:, back]
            std = None if std is None else std[:, back]
        return mean, std

    def _check_clock(self, times: Ints, counts: Ints, slots: Ints, order: Ints | None) -> None:
        """Each key's times must not decrease, within the tile and since the last one."""
        first = np.cumsum(counts) - counts
        clock, started = self.state.arrays["clock"], self.state.arrays["started"]
        before = np.concatenate(([times[0]], times[:-1]))
        before[first] = np.where(started[slots] > 0, clock[slots], times[first])
        wrong = np.flatnonzero(times < before)
        if wrong.size:
            raise BackwardsTimeError(int((wrong if order is None else order[wrong]).min()))
        clock[slots], started[slots] = times[first + counts - 1], 1

    def _fold(
        self,
        values: Floats,
        times: Ints | None,
        observed: Bools,
        keys: tuple[Ints, Ints],
        out: tuple[Floats, Floats | None],
    ) -> None:
        mean, std = out
        rows = self._gather(values, times, observed, keys)
        seen_before = self._seen(rows)
        if self.average.missing == "decay" and times is None:
            rows.gaps = self._gaps(rows, keys)
        if len(rows.values):
            for weight, moments in enumerate(self.model.fold(rows, self.state)):
                mean[weight, rows.place, rows.column] = moments.mean
                if std is not None:
                    std[weight, rows.place, rows.column] = moments.unbiased_std()
            self._count(rows)
            self._blank_early(rows, seen_before, out)
        if self.average.fill:
            self._hold(observed, keys, out)

    def _gather(self, values: Floats, times: Ints | None, observed: Bools, keys: tuple[Ints, Ints]) -> Rows:
        """The observed cells, column after column, key after key."""
        counts, slots = keys
        n, columns = values.shape
        begins = np.cumsum(counts) - counts
        if observed.all():
            place, column = np.tile(np.arange(n), columns), np.repeat(np.arange(columns), n)
            flat = values.T.reshape(-1)
            each = np.tile(counts, columns)
        else:
            column, place = np.nonzero(observed.T)
            flat = values[place, column]
            each = np.add.reduceat(observed, begins, axis=0, dtype=np.int64).T.reshape(-1)
        series = (slots[np.newaxis, :] * columns + np.arange(columns)[:, np.newaxis]).reshape(-1)
        some = each > 0
        rows = Rows(
            values=flat,
            times=None if times is None else times[place],
            place=place,
            column=column,
            counts=each[some],
            series=series[some],
            fresh=np.zeros(int(some.sum()), bool),
            final=np.ones(int(some.sum()), bool),
        )
        return self._break_at_silences(rows) if self.average.reset_gap is not None else rows

    def _break_at_silences(self, rows: Rows) -> Rows:
        """Cut segments where nothing was observed for longer than `reset_gap`; what follows starts afresh."""
        assert rows.times is not None
        known = self.state.arrays
        first = rows.first
        since = np.diff(rows.times, prepend=rows.times[:1])
        last = known["tie_time" if "tie_time" in known else "last_time"][rows.series]
        since[first] = np.where(known["seen"][rows.series] > 0, rows.times[first] - last, 0)
        silent = since > (self.average.reset_gap or 0)
        begins = silent.copy()
        begins[first] = True
        starts = np.flatnonzero(begins)
        owner = np.repeat(np.arange(len(rows.counts)), rows.counts)[starts]
        rows.counts = np.diff(starts, append=len(rows.values))
        rows.series = rows.series[owner]
        rows.fresh = silent[starts]
        rows.final = np.append(owner[1:] != owner[:-1], True)
        return rows

    def _seen(self, rows: Rows) -> Ints:
        """How many values each row's series had seen up to and including it."""
        seen = self.state.arrays["seen"][rows.series]
        seen[rows.fresh] = 0
        return np.asarray(np.arange(len(rows.values)) + np.repeat(seen - rows.first + 1, rows.counts))

    def _gaps(self, rows: Rows, keys: tuple[Ints, Ints]) -> Ints:
        """Rows since the value before, for each row (1: no gap); the trailing gap goes into the state."""
        counts, slots = keys
        gap = self.state.arrays["gap"]
        begins = np.cumsum(counts) - counts
        series = (slots[np.newaxis, :] * self.columns + np.arange(self.columns)[:, np.newaxis]).reshape(-1)
        gaps = np.diff(rows.place, prepend=0)
        begin_of = np.zeros(gap.shape[0], np.int64)
        begin_of[series] = np.tile(begins, self.columns)
        first = rows.first
        gaps[first] = rows.place[first] - begin_of[rows.series] + 1 + gap[rows.series]
        # Rows of each key, less the ones up to the last observed; all of them where nothing was observed.
        gap[series] += np.tile(counts, self.columns)
        last = first + rows.counts - 1
        ends = begin_of[rows.series] + 0
        length_of = np.zeros(gap.shape[0], np.int64)
        length_of[series] = np.tile(counts, self.columns)
        gap[rows.series] = length_of[rows.series] - 1 - (rows.place[last] - ends)
        return gaps

    def _count(self, rows: Rows) -> None:
        seen = self.state.arrays["seen"]
        before = np.where(rows.fresh, 0, seen[rows.series])
        seen[rows.series[rows.final]] = (before + rows.counts)[rows.final]

    def _blank_early(self, rows: Rows, seen: Ints, out: tuple[Floats, Floats | None]) -> None:
        """Nothing is printed before `min_periods` values, nor while an SMA is still gathering its seed."""
        needed = max(self.average.min_periods, self.average.seed_rows)
        if needed > 1 and (early := seen < needed).any():
            for array in out:
                if array is not None:
                    array[:, rows.place[early], rows.column[early]] = np.nan

    def _hold(self, observed: Bools, keys: tuple[Ints, Ints], out: tuple[Floats, Floats | None]) -> None:
        """On missing rows, print what the row above printed (`fill`)."""
        counts, slots = keys
        begins = np.cumsum(counts) - counts
        index = np.arange(len(observed))
        begin = np.repeat(begins, counts)
        for column in range(self.columns):
            source = np.maximum.accumulate(np.where(observed[:, column], index, -1))
            held = source < begin
            series = slots * self.columns + column
            for name, array in zip(("held_mean", "held_std"), out, strict=True):
                if array is None:
                    continue
                memory = self.state.arrays[name]
                filled = array[:, np.maximum(source, 0), column]
                filled[:, held] = np.repeat(memory[:, series], counts, axis=1)[:, held]
                array[:, :, column] = filled
                memory[:, series] = filled[:, begins + counts - 1]
