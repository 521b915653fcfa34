"""A part of the rows folded by itself: what its rows do to a state, computed without the state.

First each part is counted by itself (`count`). The counts of the parts before it, added up, say where in its
blocks each series stands when the part begins (`Standing`). Then the blocks that lie wholly within the part
are folded, again by itself (`digest`). On each level a few elements are left over, before the first whole
block and after the last. At last, `merge` folds into the state, in this order,

    head rows, elements of levels 1, 2, … up to the last, and down again …, 2, 1, tail rows,

and the state is then, bit for bit, what folding the rows would have made it. What is before a block comes
from the level above, so the last block of every level is left to the tail.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace

import numpy as np

from ema_cli.average import Average
from ema_cli.engine.arithmetic import BLOCK, LEVELS, Bools, Ints, Moments
from ema_cli.engine.engine import BackwardsTimeError, Engine, safely
from ema_cli.engine.rows import Elements, Tile
from ema_cli.engine.scan import SCRATCH, Lanes, fold_blocks, lay_out
from ema_cli.engine.state import State
from ema_cli.engine.ties import observe

AT_ONCE = 65_536  # elements folded at once, so that intermediate arrays stay in the cache


@dataclass(frozen=True)
class Counts:
    """What a part holds of each series that has a value in it.

    series: its place among the part's own. rows: observations, after the last silence if `cut`. first, last:
    times of its first and last value, if there are times.
    """

    series: Ints
    rows: Ints
    cut: Bools
    first: Ints
    last: Ints


def count(average: Average, tile: Tile) -> Counts:
    """Count a part's observations; the times must not go backwards."""
    rows, _ = Engine(average, tile.columns).read(tile)
    segments, first = rows.segments, np.zeros(len(rows.segments.counts), np.int64)
    last = first
    if average.timed:
        first, last = rows.cells["time"][segments.first], rows.cells["time"][segments.last]
    rows, cut = last_segments(rows, average.reset_gap)
    counts = observe(rows).elements.segments.counts if average.joins_ties else rows.segments.counts
    return Counts(segments.series, counts, cut, first, last)


def last_segments(rows: Elements, reset_gap: int | None) -> tuple[Elements, Bools]:
    """Of each series the rows after its last silence, and whether there was one."""
    silent = np.zeros(len(rows.segments.counts), bool)
    if reset_gap is None or not len(rows):
        return rows, silent
    quiet = rows.segments.since(rows.cells["time"], 0) > reset_gap
    silent = np.logical_or.reduceat(quiet, rows.segments.first)
    pieces = rows.cut(quiet)
    last = pieces.pick(pieces.segments.final[pieces.segments.owner])
    return replace(last, segments=replace(last.segments, fresh=np.zeros_like(last.segments.fresh))), silent


class Standing:
    """Where each series stands: observations since it began, and the time of its newest value."""

    def __init__(self, average: Average, state: State) -> None:
        self.average, self.columns = average, state.columns
        arrays = state.trimmed()
        self.rows: Ints = arrays["seen"].copy()
        self.last: Ints = np.zeros_like(self.rows)
        if average.joins_ties:
            self.rows = arrays["groups"] + (arrays["ties"] > 0)
            self.last = arrays["tie_time"].copy()
        elif average.timed:
            self.last = arrays["last_time"].copy()

    def copy(self) -> Standing:
        """An independent copy."""
        other = copy(self)
        other.rows, other.last = self.rows.copy(), self.last.copy()
        return other

    def advance(self, counts: Counts, slots: Ints) -> Ints:
        """Go past a part; gives the observations of each of its series before the first one counted.

        slots: permanent numbers of the part's keys. With ties the first observation counted may be the newest
        one before the part.
        """
        series = place(counts.series, slots, self.columns)
        self._grow((int(slots.max(initial=-1)) + 1) * self.columns)
        before = self.rows[series]
        since = np.where(before > 0, counts.first - self.last[series], 1)
        if self.average.reset_gap is not None:
            before[since > self.average.reset_gap] = 0
        if self.average.joins_ties:
            before -= (since == 0) & (before > 0)
        before[counts.cut] = 0
        self.rows[series], self.last[series] = before + counts.rows, counts.last
        return before

    def _grow(self, room: int) -> None:
        if room > len(self.rows):
            more = np.zeros(max(room, 2 * len(self.rows)) - len(self.rows), np.int64)
            self.rows, self.last = (np.concatenate((old, more)) for old in (self.rows, self.last))


def place(series: Ints, slots: Ints, columns: int) -> Ints:
    """Where a part's own series are in the state. slots: permanent numbers of the part's keys."""
    return np.asarray(slots[series // columns] * columns + series % columns)


Run = tuple[int, list[Elements]]  # a level, and whole blocks as its elements, for each trend


@dataclass(frozen=True)
class Middle:
    """The series that have whole blocks in a part, and these blocks.

    rows, observations: how many are in them (without rows that the head has too). last: time of the newest
    observation, if there are times.
    """

    series: Ints
    rows: Ints
    observations: Ints
    last: Ints
    runs: list[Run]


@dataclass(frozen=True)
class Digest:
    """All that a state has to be told of a part. Places are among the part's own series.

    began, ended: times of each key's first and last row; where missing rows count, `ended` is the number of
    its rows, and all times are numbers of rows within the part. at: the keys' first rows.
    """

    head: Elements
    middle: Middle
    tail: Elements
    began: Ints | None
    ended: Ints | None
    at: Ints


def digest(average: Average, tile: Tile, before: Ints) -> Digest:
    """Fold the blocks that lie within a tile of any size.

    before: observations of each series that has a value before the first one here (see `Standing.advance`).
    """
    engine = Engine(average, tile.columns, pairs=tile.partner is not None)
    rows, _ = last_segments(engine.read(tile)[0], average.reset_gap)
    observed, of_row = rows, np.arange(len(rows))
    if average.joins_ties:
        found = observe(rows)
        observed, of_row = found.elements, found.of_row
    observed = engine.weighable(observed, before)
    early, inside, late = _cut(observed, 2 if average.joins_ties else 1)
    blocks, own = observed.pick(inside), inside[of_row]
    head = early[of_row]
    if average.joins_ties:
        # The head's last observation is folded when another begins, so the head needs that one's first row.
        own &= ~(found.opens & np.append(False, early)[of_row])
        head = ~(own | late[of_row])
    of_rows = np.bincount(rows.segments.owner[own], minlength=len(rows.segments.counts))
    series, counts = blocks.segments.series, blocks.segments.counts
    of_rows = of_rows[np.isin(rows.segments.series, series)]
    times = blocks.cells.get("time", np.zeros(len(blocks), np.int64))[blocks.segments.last]
    middle = Middle(series, of_rows, counts, times, _fold_up(blocks, engine))
    began = None if tile.times is None else tile.sorted(tile.times)[tile.first]
    ended = engine.state.arrays["clock"][tile.slots] if "clock" in engine.state.arrays else None
    at = tile.first if tile.order is None else tile.order[tile.first]
    return Digest(rows.pick(head), middle, rows.pick(late[of_row]), began, ended, at)


def _cut(elements: Elements, keep: int) -> tuple[Bools, Bools, Bools]:
    """Which elements are before the first whole block of their series, in whole blocks, and after them.

    The first one is never in a block, since only `merge` knows how far it is from the one before the part;
    and at least `keep` are left after them: the last one, whose block hands nothing down, and what may still
    change.
    """
    counts, before = elements.segments.counts, elements.before
    head = np.minimum(counts, BLOCK - before % BLOCK)
    inner = np.maximum((before + counts - keep) // BLOCK * BLOCK - (before + head), 0)
    rank, owner = elements.segments.rank, elements.segments.owner
    early, late = rank < head[owner], rank >= (head + inner)[owner]
    return early, ~(early | late), late


def _fold_up(rows: Elements, engine: Engine) -> list[Run]:
    """Whole blocks of rows as the fewest elements of higher levels, in the order of merging."""
    level, run = 0, [rows] * len(engine.average.decays)
    up: list[Run] = []
    down: list[Run] = []
    while len(run[0]):
        run = [_fold_whole(engine, elements, trend, level) for trend, elements in enumerate(run)]
        level += 1
        if level == LEVELS:
            up.append((level, run))
            break
        early, inside, late = _cut(run[0], 1)
        up.append((level, [elements.pick(early) for elements in run]))
        down.append((level, [elements.pick(late) for elements in run]))
        run = [elements.pick(inside) for elements in run]
    return [run for run in (*up, *down[::-1]) if len(run[1][0])]


def _fold_whole(engine: Engine, elements: Elements, trend: int, level: int) -> Elements:
    """Consecutive whole blocks as elements of the level above."""
    weigher, names = engine.weigher(engine.average.decays[trend]), engine.state.names("block_")
    parts: list[Moments] = []
    for begin in range(0, len(elements), AT_ONCE):
        some = {name: array[begin : begin + AT_ONCE] for name, array in elements.cells.items()}
        # No series begins here.
        lanes = Lanes(np.array([len(some["mean"])]), np.array([BLOCK]), level=level)

        def run(careful: bool, lanes: Lanes = lanes, some: Moments = some) -> Moments:
            cells = lay_out(lanes, some, weigher)
            return fold_blocks(lanes, cells, weigher, {name: np.zeros(1) for name in names}, careful)

        parts.append(safely(run, wide="deviation" in names))
        SCRATCH.release()
    cells = {name: np.concatenate([part[name] for part in parts]) for name in names}
    segments = replace(elements.segments, counts=elements.segments.counts // BLOCK)
    return Elements(cells, segments, elements.before // BLOCK)


def merge(engine: Engine, part: Digest, slots: Ints) -> None:
    """Do to `engine` what `update` with the rows of a part would do.

    slots: permanent numbers of the part's keys. Raises BackwardsTimeError, before anything is folded in.
    """
    if not len(slots):
        return
    state, columns, middle = engine.state, engine.columns, part.middle
    state.make_room(int(slots.max()) + 1)
    since = np.zeros(len(slots), np.int64)
    if part.began is not None:
        wrong = (state.arrays["started"][slots] > 0) & (part.began < state.arrays["clock"][slots])
        if wrong.any():
            raise BackwardsTimeError(int(part.at[wrong].min()))
    elif part.ended is not None:
        since = state.arrays["clock"][slots]
    state.keys = max(state.keys, int(slots.max()) + 1)
    if part.ended is not None:
        state.store({"clock": since + part.ended, "started": np.ones_like(slots)}, slots)
    _merge_rows(engine, part.head, slots, since)
    if len(middle.series):
        for level, run in middle.runs:
            _merge_blocks(engine, level, run, slots)
        series, last = place(middle.series, slots, columns), middle.last + since[middle.series // columns]
        state.arrays["seen"][series] += middle.rows
        if engine.average.joins_ties:
            # The newest observation has been folded; none is pending until the tail begins one.
            state.arrays["groups"][series] += middle.observations
        state.store({"last_time": last, "tie_time": last, "ties": np.zeros_like(series)}, series)
    _merge_rows(engine, part.tail, slots, since)


def _merge_rows(engine: Engine, rows: Elements, slots: Ints, since: Ints) -> None:
    """Fold rows as `update` does, and store what `fill` holds after the last one.

    since: rows of each key before the part, where missing rows count.
    """
    if not len(rows):
        return
    average, held, old = engine.average, engine.state.arrays, rows.segments
    segments = replace(old, series=place(old.series, slots, engine.columns))
    cells = dict(rows.cells)
    if "time" in cells:
        cells["time"] = cells["time"] + np.repeat(since[old.series // engine.columns], old.counts)
    out = {name: np.empty((len(average.decays), len(rows))) for name in engine.moments}
    engine.fold_rows(replace(rows, cells=cells, segments=segments), out)
    if average.fill:
        series, last = segments.series[segments.final], segments.last[segments.final]
        for name, array in out.items():
            held[f"held_{name}"][:, series] = array[:, last]


def _merge_blocks(engine: Engine, level: int, run: list[Elements], slots: Ints) -> None:
    """Fold blocks, for each trend, as elements of their level."""
    for trend, blocks in enumerate(run):
        segments = replace(blocks.segments, series=place(blocks.segments.series, slots, engine.columns))
        lanes = Lanes(segments.counts, blocks.before, level=level)
        engine.fold(trend, replace(blocks, segments=segments), lanes, {})
        SCRATCH.release()
