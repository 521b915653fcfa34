"""The engine: rows in, moments out, the memory in a `State`.

One call handles up to `TILE` rows: sort them by key, drop missing cells (`rows`), work out what each
remaining row weighs (`row_weights`), fold them (`scan`), and put the results back where the rows were.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np

from ema_cli.average import Average
from ema_cli.decay import Decay
from ema_cli.engine.arithmetic import MEANS, Bools, Floats, Ints, Moments
from ema_cli.engine.row_weights import Steady, Varying, decays_of_gaps, make_steady
from ema_cli.engine.rows import Elements, KeyedRows, Segments, Tile
from ema_cli.engine.scan import SCRATCH, Lanes, Memory, Scan, Walked
from ema_cli.engine.state import State, moments_of
from ema_cli.engine.ties import Observations, observe

__all__ = ["TILE", "BackwardsTimeError", "Engine", "KeyedRows"]
T = TypeVar("T")
TILE = 65_536


class BackwardsTimeError(ValueError):
    """A time before the one above it; `row` counts from 0 within the rows given."""

    def __init__(self, row: int) -> None:
        super().__init__(f"row {row + 1}: the time goes backwards")
        self.row = row


class Engine:
    """Folds tiles of values into its state.

    columns: value columns of a tile. pairs: a column is two variables, whose correlation is asked for.
    exclusive: `update` gives the moments of all rows before each row, faded to it, instead of those with it;
    their weight is 0 where there was nothing.
    """

    def __init__(
        self, average: Average, columns: int, *, pairs: bool = False, exclusive: bool = False
    ) -> None:
        self.average, self.columns, self.pairs, self.exclusive = average, columns, pairs, exclusive
        self.state = State(average, columns, pairs)
        self.moments = moments_of(average, pairs)

    def update(self, tile: Tile, out: Moments | None = None) -> Moments:
        """The moments after each row by name, shape (trends, columns, rows); NaN where blank.

        out: arrays to put them in; the columns of one trend lie in one piece. Raises BackwardsTimeError,
        before anything is folded in.
        """
        shape = len(self.average.decays), self.columns, tile.rows
        if out is None:
            out = {name: np.empty(shape) for name in self.moments}
        if not tile.rows:
            return out
        rows, cleared = self.read(tile)
        self.state.keys = max(self.state.keys, int(tile.slots.max()) + 1)
        if not self.average.fill and tile.observed is not None:
            for array in out.values():
                array[...] = np.nan
        if len(rows):
            self.fold_rows(rows, out)
        if cleared is not None:
            self.state.clear(cleared)
        if self.average.fill:
            for name, array in out.items():
                tile.hold(array, self.state.arrays[f"held_{name}"])
        return out

    def read(self, tile: Tile) -> tuple[Elements, Ints | None]:
        """The tile's rows, whose clock is stored; and the series that begin afresh after it.

        Raises BackwardsTimeError, before anything is stored.
        """
        self.state.make_room(int(tile.slots.max(initial=-1)) + 1)
        times = self._times(tile)
        if times is not None:
            if self.average.timed:
                self._check_clock(tile, times[: tile.rows])
            last = times[tile.first + tile.counts - 1]
            self.state.store({"clock": last, "started": np.ones_like(last)}, tile.slots)
        rows, cleared = tile.elements(times), None
        if tile.restarts is not None and tile.restarts.any():
            begins, after = tile.restarted(rows)
            rows, cleared = rows.cut(begins), tile.series[after]
        return rows, cleared

    def _times(self, tile: Tile) -> Ints | None:
        """The flat times of a tile; where missing rows count, the number of rows of their key so far."""
        if tile.times is not None:
            return tile.flat(tile.times)
        if not self.average.counts_gaps:
            return None
        before = self.state.arrays["clock"][tile.slots] + 1 - tile.first
        by_key = np.arange(tile.rows) + np.repeat(before, tile.counts)
        return np.broadcast_to(by_key, (tile.columns, tile.rows)).reshape(-1)

    def _check_clock(self, tile: Tile, times: Ints) -> None:
        """Raise BackwardsTimeError where a key's time decreases, within the tile or since the last one."""
        clock, started = (self.state.arrays[name][tile.slots] for name in ("clock", "started"))
        late = np.empty(len(times), bool)
        np.less(times[1:], times[:-1], out=late[1:])
        late[tile.first] = (started > 0) & (times[tile.first] < clock)
        if tile.restarts is not None:
            late &= ~tile.sorted(tile.restarts)
        wrong = np.flatnonzero(late)
        if wrong.size:
            raise BackwardsTimeError(int((wrong if tile.order is None else tile.order[wrong]).min()))

    def fading(self, tile: Tile) -> Floats | None:
        """The share of the weights before a missing row that is left on it, (trends, columns, rows).

        None where missing rows leave the weights alone. To be asked before the tile is folded in.
        """
        if not self.average.counts_gaps or tile.observed is None:
            return None
        self.state.make_room(int(tile.slots.max(initial=-1)) + 1)
        times = self._times(tile)
        assert times is not None
        ages = tile.ages(times, self.state.arrays["last_time"][tile.series])
        return np.stack([decays_of_gaps(decay.alpha, ages, True)[0] for decay in self.average.decays])

    def fold_rows(self, rows: Elements, out: Moments) -> None:
        """The moments of each trend at each row into `out`: (trends, columns, rows) of the tile."""
        SCRATCH.release()  # an update may have failed half-way
        if self.average.reset_gap is not None:
            rows = rows.cut(self._silent(rows, self.average.reset_gap))
        segments, state = rows.segments, self.state
        seen = before = state.load("seen", segments.series, segments.fresh)
        elements, found = rows, None
        if self.average.joins_ties:
            found = observe(rows, state)
            elements, before = found.elements, state.load("groups", segments.series, segments.fresh)
        elements = self.weighable(elements, before)
        lanes = Lanes(elements.segments.counts, before, pending=found is not None)
        for trend, decay in enumerate(self.average.decays):
            used = SCRATCH.used
            into = {name: self._destination(rows, array[trend]) for name, array in out.items()}
            if found is None or found.are_rows:
                self.fold(trend, elements, lanes, into)
            else:
                totals = {name: SCRATCH.floats(len(elements)) for name in out}
                walked = self.fold(trend, elements, lanes, totals)
                found.spread(totals, walked, elements.cells["elapsed"], into)
            if decay.alpha == 1.0 and not (decay.seed or self.exclusive):
                into["mean"][...] = rows.cells["mean"]  # a copy, sign of zero too
            early = self._early(segments, seen, decay)
            for name, array in into.items():
                _put(rows, array, out[name][trend], early)
            SCRATCH.release(used)
        self._remember(elements, found, segments.final)
        state.store({"seen": (seen + segments.counts)[segments.final]}, segments.series[segments.final])

    def _remember(self, elements: Elements, found: Observations | None, final: Bools) -> None:
        """Store what all trends share; of observations the last one is pending."""
        segments, times = elements.segments, elements.cells.get("time")
        if times is None:
            return
        new = {"last_time": times[segments.last]}
        if found is not None:
            known = self.state.load("last_time", segments.series, segments.fresh)
            new = {"last_time": np.where(segments.counts > 1, times[segments.last - 1], known)}
            new |= found.pending() | {"groups": elements.before + segments.counts - 1}
        self.state.store({name: array[final] for name, array in new.items()}, segments.series[final])

    def weighable(self, elements: Elements, before: Ints) -> Elements:
        """Elements with all that their weights depend on. before: of the series before each segment."""
        segments, cells = elements.segments, dict(elements.cells)
        if "time" in cells:
            # Negative where there is nothing before the first row.
            at_first = (self.average.time_step if self.average.timed else 1) if self.average.has_first else -1
            last = self.state.load("last_time", segments.series, segments.fresh)
            since = np.where(before > 0, cells["time"][segments.first] - last, at_first)
            cells["elapsed"] = segments.since(cells["time"], since)
        if self.average.seed_rows:
            cells["order"] = segments.rank + np.repeat(before, segments.counts)
        return replace(elements, cells=cells, before=before)

    def fold(self, trend: int, elements: Elements, lanes: Lanes, out: Moments) -> Walked:
        """Put the moments at each element of one trend into `out`, and store the memory."""
        decay, segments, used = self.average.decays[trend], elements.segments, SCRATCH.used
        weigher = self.weigher(decay)

        def run(careful: bool) -> Walked:
            SCRATCH.release(used)
            memory = self._memory(elements, trend, decay)
            walked = Scan(memory, weigher, careful).totals(lanes, elements.cells, out)
            self.state.store_memory(memory, segments.series, trend, segments.final)
            return walked

        walked = safely(run, wide="deviation" in self.moments)
        if self.exclusive:
            everything = np.arange(len(elements))
            earlier = walked.previous(everything)
            left = earlier["weight"] * walked.at("decay", everything)
            if weigher.least is not None:
                left = np.maximum(left, weigher.least * (earlier["weight"] > 0.0))
            earlier["weight"] = left
            for name, array in out.items():
                array[...] = earlier[name]
        elif "bias" in out and self._begins_with_value:  # which is not counted twice
            out["bias"][segments.first[elements.before == 0]] = 0.0
        return walked

    @property
    def _begins_with_value(self) -> bool:
        """The average before the first row is that row's value."""
        return self.average.steady and not (self.average.adjust or self.average.has_first)

    def weigher(self, decay: Decay) -> Steady | Varying:
        """What tells how elements are joined, for one of the average's decays."""
        if self.average.steady:
            return make_steady(decay.alpha, self.average.adjust)
        return Varying(self.average, decay, "deviation" in self.moments)

    def _memory(self, elements: Elements, trend: int, decay: Decay) -> Memory:
        """The memory of each segment; a new series may begin with an average before its first element."""
        segments, new = elements.segments, elements.before == 0
        memory = self.state.load_memory(segments.series, segments.fresh, trend)
        total = memory.total
        for name in [name for name in MEANS if name in total]:
            if self.average.has_first:
                total[name][:, new] = self.average.start
            elif self._begins_with_value:
                total[name][:, new] = elements.cells[name][segments.first[new]]
        if self.average.has_first and "weight" in total:
            total["weight"][:, new] = 1.0
        if self._begins_with_value and "bias" in total and decay.alpha < 1.0:
            # So that the value does not count twice, as the average and as the first row.
            total["bias"][:, new] = -2.0 * decay.alpha / (1.0 - decay.alpha)
        return memory

    def _destination(self, rows: Elements, target: Floats) -> Floats:
        """An array for the scan's numbers: their final place, if no row is missing or out of order."""
        return target.reshape(-1) if rows.place is None else SCRATCH.floats(len(rows))

    def _silent(self, rows: Elements, limit: int) -> Bools:
        """The rows before which nothing was observed for longer than `limit`."""
        segments, times = rows.segments, rows.cells["time"]
        names = "seen", "tie_time" if self.average.joins_ties else "last_time"
        seen, last = (self.state.load(name, segments.series, segments.fresh) for name in names)
        return np.asarray(segments.since(times, np.where(seen > 0, times[segments.first] - last, 0)) > limit)

    def _early(self, segments: Segments, seen: Ints, decay: Decay) -> Ints | None:
        """The rows before `min_periods` values, or while an SMA gathers its seed: they are blank."""
        needed = max(self.average.min_periods, decay.seed)
        if needed <= 1 or not (seen < needed - 1).any():
            return None
        return np.flatnonzero(segments.rank < np.repeat(needed - 1 - seen, segments.counts))


def safely(run: Callable[[bool], T], *, wide: bool) -> T:
    """Call `run(False)`; if an intermediate number leaves the range of float64, `run(True)`: with care.

    wide: numbers are squared, so that underflow counts too.
    """
    # Lanes are padded, and padding may divide 0 by 0; so may the weights of what has long faded.
    try:
        with np.errstate(all="ignore", over="raise", under="raise" if wide else "ignore"):
            return run(False)
    except FloatingPointError:
        with np.errstate(all="ignore"):
            return run(True)


def _put(rows: Elements, numbers: Floats, target: Floats, early: Ints | None) -> None:
    """The numbers of these rows into a flat array of the whole tile, blank for the early ones."""
    if early is not None:
        numbers[early] = np.nan
    if rows.place is not None:
        target.reshape(-1)[rows.place] = numbers
