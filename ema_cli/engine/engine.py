"""The engine: rows in, moments out, the memory in a `State`.

One call handles up to `TILE` rows: sort them by key, drop missing cells (`rows`), work out what each
remaining row weighs (`row_weights`), fold them (`scan`), and put the results back where the rows were.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np

from ema_cli.average import Average
from ema_cli.decay import Decay
from ema_cli.engine.arithmetic import LEAST_SHARE, MEANS, Bools, Floats, Ints, Moments
from ema_cli.engine.row_weights import Steady, Varying, decays_of_gaps, make_steady
from ema_cli.engine.rows import KeyedRows, Rows, Segments, Tile, since_before
from ema_cli.engine.scan import Levels, Memory, Scan, Walked, make_levels, thread_scratch
from ema_cli.engine.state import State, moments_of
from ema_cli.engine.ties import Elements, group_ties

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
    before: `update` gives the moments before each row, faded to it, instead of those after it; their weight
    is 0 where there was nothing.
    """

    def __init__(self, average: Average, columns: int, *, pairs: bool = False, before: bool = False) -> None:
        self.average, self.columns, self.pairs, self.before = average, columns, pairs, before
        self.state = State(average, columns, pairs)
        self.moments = moments_of(average, pairs)
        self.scratch = thread_scratch()

    def update(self, tile: Tile, out: Moments | None = None) -> Moments:
        """The moments after each row by name, shape (weights, columns, rows); NaN where blank.

        out: arrays to put them in; the columns of one weight lie in one piece. Raises BackwardsTimeError,
        before anything is folded in.
        """
        shape = len(self.average.decays), self.columns, tile.rows
        if out is None:
            out = {name: np.empty(shape) for name in self.moments}
        if tile.rows:
            if tile.times is not None:
                self._check_clock(tile, tile.times)
            self.state.grow(int(tile.slots.max()) + 1)
            self._fold(tile, out)
        return out

    def _check_clock(self, tile: Tile, times: Ints) -> None:
        """Raise BackwardsTimeError where a key's time decreases, within the tile or since the last one."""
        times = tile.sorted(times)
        clock, started = self.state.load_keys(("clock", "started"), tile.slots)
        late = np.empty(len(times), bool)
        np.less(times[1:], times[:-1], out=late[1:])
        late[tile.first] = (started > 0) & (times[tile.first] < clock)
        if tile.restarts is not None:
            late &= ~tile.sorted(tile.restarts)
        wrong = np.flatnonzero(late)
        if wrong.size:
            raise BackwardsTimeError(int((wrong if tile.order is None else tile.order[wrong]).min()))

    def fading(self, tile: Tile) -> Floats | None:
        """The share of the weights before a missing row that is left on it, (weights, columns, rows).

        None where missing rows leave the weights alone. To be asked before the tile is folded in.
        """
        if "gap" not in self.state.arrays or tile.whole:
            return None
        self.state.grow(int(tile.slots.max(initial=-1)) + 1)
        ages = tile.ages(self.state.arrays["gap"][tile.series])
        return np.stack([decays_of_gaps(decay.alpha, ages, True)[0] for decay in self.average.decays])

    def _fold(self, tile: Tile, out: Moments) -> None:
        rows, cleared = self.read(tile)
        for array in out.values():
            if rows.where is not None and len(rows.where) < array[0].size and not self.average.fill:
                array[...] = np.nan
        if len(rows.values):
            self.fold_rows(rows, out)
        if cleared is not None:
            self.state.clear(("seen", "block_", "total_", "tie", "groups", "last_time"), cleared)
        if self.average.fill:
            for name, array in out.items():
                tile.hold(array, self.state.arrays[f"held_{name}"])

    def read(self, tile: Tile) -> tuple[Rows, Ints | None]:
        """The tile's rows, with their clock and gaps stored; and the series that begin afresh after it."""
        rows, cleared = tile.make_rows(), None
        if tile.times is not None:
            last = tile.sorted(tile.times)[tile.first + tile.counts - 1]
            self.state.store({"clock": last, "started": np.ones_like(last)}, tile.slots)
        if "gap" in self.state.arrays:
            gaps, self.state.arrays["gap"][tile.series] = tile.gaps(self.state.arrays["gap"][tile.series])
            rows = replace(rows, gaps=gaps)
        if tile.restarts is not None and tile.restarts.any():
            begins, after = tile.restarted()
            rows, cleared = rows.cut(begins), tile.series[after]
        return rows, cleared

    def fold_rows(self, rows: Rows, out: Moments) -> None:
        """The moments at each row by each weight into `out`: (weights, columns, rows) of the tile."""
        self.scratch.release()  # an update may have failed half-way
        if self.average.reset_gap is not None:
            rows = rows.cut(self._silent(rows, self.average.reset_gap))
        segments, arrays = rows.segments, self.state.arrays
        seen = np.where(segments.fresh, 0, arrays["seen"][segments.series])
        groups = None
        if self.average.joins_ties:
            groups = group_ties(rows, self.state, self.scratch, self._at_first)
        else:
            levels = make_levels(segments.counts, seen, self.scratch)
            elements = self._elements(rows, seen, levels)
        for weight, decay in enumerate(self.average.decays):
            used = self.scratch.used
            into = {name: self._destination(rows, array[weight]) for name, array in out.items()}
            if groups is not None:
                fold = partial(self.fold_elements, weight, decay)
                groups.fold(fold, self.scratch, into)
            else:
                self.fold_elements(weight, decay, elements, into)
            if decay.alpha == 1.0 and not (decay.seed or self.before):
                into["mean"][...] = rows.values  # a copy, sign of zero too
            for name, array in into.items():
                _put(rows, array, out[name][weight], self._early(segments, seen, decay))
            self.scratch.release(used)
        self.scratch.release()
        if groups is not None:
            groups.remember(self.state)
        elif self.average.timed and rows.times is not None:
            final = segments.final
            self.state.store({"last_time": rows.times[segments.last[final]]}, segments.series[final])
        arrays["seen"][segments.series[segments.final]] = (seen + segments.counts)[segments.final]

    @property
    def _at_first(self) -> int:
        """The time elapsed before a series' first row; negative where there is nothing before it."""
        return self.average.time_step if self.average.has_first else -1

    def _elements(self, rows: Rows, seen: Ints, levels: Levels) -> Elements:
        """Rows with what their weights depend on."""
        segments, elapsed = rows.segments, None
        if rows.times is not None:
            elapsed = since_before(rows.times)
            since = rows.times[segments.first] - self.state.arrays["last_time"][segments.series]
            elapsed[segments.first] = np.where(seen > 0, since, self._at_first)
        return Elements(self.cells(rows, seen, elapsed), segments, seen, levels)

    def cells(self, rows: Rows, before: Ints, elapsed: Ints | None) -> Moments:
        """Rows as `Weigher` has them. before: rows of the series before each segment."""
        order = None
        if self.average.seed_rows:
            order = rows.segments.rank() + np.repeat(before, rows.segments.counts)
        given = {"mean": rows.values, "mean_y": rows.partner, "elapsed": elapsed, "gaps": rows.gaps,
                 "order": order, "weights": rows.weights}  # fmt: skip
        return {name: array for name, array in given.items() if array is not None}

    def fold_elements(self, weight: int, decay: Decay, elements: Elements, out: Moments) -> Walked:
        """Put the moments at each element by one weight into `out`, and store the memory."""
        average, wide = self.average, "deviation" in out
        asked, weigher = out, self.weigher(decay)
        if isinstance(weigher, Steady):
            asked = {name: array for name, array in out.items() if name not in ("bias", "weight")}
        used = self.scratch.used

        def run(careful: bool) -> Walked:
            self.scratch.release(used)
            memory = self._memory(elements, weight)
            scan = Scan(elements.levels, memory, weigher, careful, self.before)
            walked = scan.level(elements.cells, 0, asked)
            self.state.store_memory(memory, elements.segments.series, weight, elements.segments.final)
            return walked

        walked = safely(run, wide=wide)
        if self.before:
            everything = np.arange(len(elements.cells["mean"]))
            earlier = walked.before(everything)
            left = earlier["weight"] * walked.at("decay", everything)
            if isinstance(weigher, Varying) and weigher.floor:
                left = np.maximum(left, LEAST_SHARE * (earlier["weight"] > 0.0))
            for name, array in out.items():
                array[...] = left if name == "weight" else earlier[name]
        if len(asked) < len(out) and isinstance(weigher, Steady):
            segments = elements.segments
            rows = segments.rank() + np.repeat(elements.before + 1, segments.counts)
            if "bias" in out:
                out["bias"][...] = weigher.biases(rows, average.has_first)
            if "weight" in out:
                out["weight"][...] = weigher.weights(rows)
        return walked

    def weigher(self, decay: Decay) -> Steady | Varying:
        """What tells how elements are joined, for one of the average's weights."""
        average = self.average
        if average.steady:
            return make_steady(decay.alpha, average.adjust)
        wide = "deviation" in self.moments
        return Varying(average, decay, wide and (average.timed or decay.alpha < 1.0))

    def _memory(self, elements: Elements, weight: int) -> Memory:
        """The memory of each segment; a new series may begin with an average before its first element."""
        average, new, segments = self.average, elements.before == 0, elements.segments
        memory = self.state.load_memory(segments.series, segments.fresh, weight)
        total = memory.total
        if average.has_first:
            for name in [name for name in MEANS if name in total]:
                total[name][:, new] = average.start
            if "weight" in total:
                total["weight"][:, new] = 1.0
        elif average.steady and not average.adjust and new.any():
            for name, array in elements.cells.items():
                total[name][:, new] = array[segments.first[new]]
        return memory

    def _destination(self, rows: Rows, target: Floats) -> Floats:
        """An array for the scan's numbers: their final place, if no row is missing or out of order."""
        return target.reshape(-1) if rows.where is None else self.scratch.floats(len(rows.values))

    def _silent(self, rows: Rows, limit: int) -> Bools:
        """The rows before which nothing was observed for longer than `limit`."""
        assert rows.times is not None
        known, segments = self.state.arrays, rows.segments
        since = since_before(rows.times)
        last = known["tie_time" if "tie_time" in known else "last_time"][segments.series]
        seen = np.where(segments.fresh, 0, known["seen"][segments.series])
        since[segments.first] = np.where(seen > 0, rows.times[segments.first] - last, 0)
        return np.asarray(since > limit)

    def _early(self, segments: Segments, seen: Ints, decay: Decay) -> Ints | None:
        """The rows before `min_periods` values, or while an SMA gathers its seed: they are blank."""
        needed = max(self.average.min_periods, decay.seed)
        if needed <= 1:
            return None
        few = np.clip(needed - 1 - seen, 0, segments.counts)
        if not few.any():
            return None
        return np.asarray(np.arange(int(few.sum())) + np.repeat(segments.first - (np.cumsum(few) - few), few))


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


def _put(rows: Rows, numbers: Floats, target: Floats, early: Ints | None) -> None:
    """The numbers of these rows into a flat array of the whole tile, blank for the early ones."""
    if early is not None:
        numbers[early] = np.nan
    if rows.where is not None:
        target.reshape(-1)[rows.where] = numbers
