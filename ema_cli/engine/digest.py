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

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ema_cli.average import Average
from ema_cli.engine.arithmetic import Bools, Ints, Moments
from ema_cli.engine.engine import BackwardsTimeError, Engine, safely
from ema_cli.engine.rows import Rows, Tile, since_before
from ema_cli.engine.scan import BLOCK, LEVELS, Lanes, Levels, Scan, Scratch, fold_blocks, lay_out, make_levels
from ema_cli.engine.state import State
from ema_cli.engine.ties import running_means

AT_ONCE = 65_536  # elements folded at once, so that intermediate arrays stay in the cache


@dataclass(frozen=True)
class Observations:
    """Rows as observations: rows of equal time are one where the average says so, else each row is one.

    rows: one an observation. of_row: each input row's observation, counted within its segment. opens: whether
    a row begins an observation.
    """

    rows: Rows
    of_row: Ints
    opens: Bools


def observe(rows: Rows, *, joined: bool) -> Observations:
    """The observations of these rows. joined: rows of equal time are one."""
    segments = rows.segments
    if not joined or rows.times is None or not len(rows.values):
        return Observations(rows, segments.rank(), np.ones(len(rows.values), bool))
    opens = since_before(rows.times) != 0
    opens[segments.first] = True
    means = {"mean": rows.values.copy()} | ({} if rows.partner is None else {"mean_y": rows.partner.copy()})
    weights = None if rows.weights is None else rows.weights.copy()
    ties = np.ones(len(opens), np.int64)
    running_means(opens, means, weights, ties)
    number = np.cumsum(opens) - 1
    newest = Rows(
        means["mean"],
        segments,
        means.get("mean_y"),
        times=rows.times,
        weights=None if weights is None else weights / ties,
    )
    last = np.append(opens[1:], True)
    return Observations(newest.pick(last), number - np.repeat(number[segments.first], segments.counts), opens)


def last_segments(rows: Rows, reset_gap: int | None) -> tuple[Rows, Bools]:
    """Of each series the rows after its last silence, and whether there was one."""
    silent = np.zeros(len(rows.segments.counts), bool)
    if reset_gap is None or rows.times is None or not len(rows.values):
        return rows, silent
    quiet = since_before(rows.times) > reset_gap
    quiet[rows.segments.first] = False
    silent = np.logical_or.reduceat(quiet, rows.segments.first)
    rows = rows.cut(quiet)
    rows = rows.pick(np.repeat(rows.segments.final, rows.segments.counts))
    segments = rows.segments
    return replace(rows, segments=replace(segments, fresh=np.zeros_like(segments.fresh))), silent


@dataclass(frozen=True)
class Counts:
    """What a part holds of each series that has a value in it.

    series: its place among the part's own. rows: observations, after the last silence if `cut`. first, last:
    times of its first and last value, if there are times. keys: how many the part has.
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
    first = last = np.zeros(len(rows.segments.counts), np.int64)
    if rows.times is not None:
        first, last = rows.times[rows.segments.first], rows.times[rows.segments.last]
    rows, cut = last_segments(rows, average.reset_gap)
    counts = observe(rows, joined=True).rows.segments.counts if average.joins_ties else rows.segments.counts
    return Counts(rows.segments.series, counts, cut, first, last, int(tile.slots.max(initial=-1)) + 1)


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


@dataclass(frozen=True)
class LevelElements:
    """Elements of one level, series after series.

    counts: of each series; before: elements of the same level before them. elements: for each weight, the
    arguments of `Scan.totals`.
    """

    level: int
    series: Ints
    counts: Ints
    before: Ints
    elements: list[Moments]

    def piece(self, skip: Ints, counts: Ints) -> LevelElements:
        """`counts` elements of each series, after the first `skip` ones."""
        rank = np.arange(int(self.counts.sum())) - np.repeat(
            np.cumsum(self.counts) - self.counts, self.counts
        )
        begin = np.repeat(skip, self.counts)
        mine = (rank >= begin) & (rank < begin + np.repeat(counts, self.counts))
        some = counts > 0
        elements = [{name: array[mine] for name, array in one.items()} for one in self.elements]
        before = (self.before + skip)[some]
        return LevelElements(self.level, self.series[some], counts[some], before, elements)

    def blocks(self, engine: Engine) -> LevelElements:
        """The elements of the next level; these must be whole blocks."""
        elements = [_fold_whole(engine, one, weight, self.level) for weight, one in enumerate(self.elements)]
        counts, before = self.counts // BLOCK, self.before // BLOCK
        return LevelElements(self.level + 1, self.series, counts, before, elements)


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
    runs: Sequence[LevelElements]


@dataclass(frozen=True)
class Digest:
    """All that a state has to be told of a part. Places are among the part's own series.

    began, ended: times of each key's first and last row, if there are times. at: the keys' first rows.
    since_last: rows since each series' last value at the end of the part, or all rows where it has none
    (then it is `unseen`).
    """

    head: Rows
    middle: Middle
    tail: Rows
    began: Ints | None
    ended: Ints | None
    at: Ints
    series: Ints
    since_last: Ints
    unseen: Bools


def digest(average: Average, tile: Tile, before: Ints) -> Digest:
    """Fold the blocks that lie within a tile of any size.

    before: observations of each series that has a value before the first one here (see `Standing.advance`).
    """
    rows = tile.make_rows()
    unseen = ~np.isin(tile.series, rows.segments.series)
    since_last = np.zeros(len(tile.series), np.int64)
    if average.counts_gaps:
        gaps, since_last = tile.gaps(since_last)
        rows = replace(rows, gaps=gaps)
    began = ended = None
    if tile.times is not None:
        times = tile.sorted(tile.times)
        began, ended = times[tile.first], times[tile.first + tile.counts - 1]
    at = tile.first if tile.order is None else tile.order[tile.first]
    rows, _ = last_segments(rows, average.reset_gap)
    found = observe(rows, joined=average.joins_ties)
    # A pending observation may still change, so it is not folded: one more is left to the tail.
    cut = _cut(found.rows.segments.counts, before, 2 if average.joins_ties else 1)
    rank, counts = found.of_row, rows.segments.counts
    early = rank < np.repeat(cut.head, counts)
    late = rank >= np.repeat(cut.head + cut.inner, counts)
    inside = ~(early | late)
    # The head's last observation is folded when another begins, so the head needs that one's first row.
    triggers = np.zeros_like(inside)
    if average.joins_ties:
        triggers = inside & found.opens & (rank == np.repeat(cut.head, counts))
    engine = Engine(average, tile.columns, pairs=tile.partner is not None)
    middle = _middle(engine, rows, found, cut, (inside, triggers))
    head, tail = rows.pick(early | triggers), rows.pick(late)
    return Digest(head, middle, tail, began, ended, at, tile.series, since_last, unseen)


@dataclass(frozen=True)
class Cut:
    """Observations of each segment: in the head, in the middle (`inner`), and before the middle."""

    head: Ints
    inner: Ints
    before: Ints


def _cut(counts: Ints, before: Ints, keep: int) -> Cut:
    """Where the whole blocks of each segment are.

    The first observation always belongs to the head, since only `merge` knows how far it is from the one
    before the part; at least `keep` are left for the tail.
    """
    head = np.minimum(counts, BLOCK - before % BLOCK)
    begin, end = before + head, before + counts
    return Cut(head, np.maximum((end - keep) // BLOCK * BLOCK - begin, 0), begin)


def _middle(engine: Engine, rows: Rows, found: Observations, cut: Cut, inside: tuple[Bools, Bools]) -> Middle:
    """inside: the rows of the middle, and those of them that the head has too."""
    some, mine = cut.inner > 0, inside[0][found.opens]
    inner, before, picked = cut.inner[some], cut.before[some], found.rows.pick(mine)
    elapsed, last = None, np.zeros(len(inner), np.int64)
    if found.rows.times is not None and picked.times is not None:
        elapsed = since_before(found.rows.times)[mine]
        last = picked.times[picked.segments.last]
    cells = engine.cells(picked, before, elapsed)
    series = rows.segments.series[some]
    run = LevelElements(0, series, inner, before, [cells] * len(engine.average.decays))
    of_rows = inner
    if len(rows.segments.counts):
        only = inside[0] & ~inside[1]
        of_rows = np.add.reduceat(only, rows.segments.first, dtype=np.int64)[some]
    return Middle(series, of_rows, inner, last, _fold_up(run, engine))


def _fold_up(run: LevelElements, engine: Engine) -> list[LevelElements]:
    """Whole blocks of rows as the fewest elements of higher levels, in the order of merging."""
    up: list[LevelElements] = []
    down: list[LevelElements] = []
    while len(run.counts):
        run = run.blocks(engine)
        if run.level == LEVELS:
            up.append(run)
            break
        head = np.minimum(run.counts, -run.before % BLOCK)
        begin, end = run.before + head, run.before + run.counts
        inner = np.maximum((end - 1) // BLOCK * BLOCK - begin, 0)
        up.append(run.piece(np.zeros_like(head), head))
        down.append(run.piece(head + inner, run.counts - head - inner))
        run = run.piece(head, inner)
    return [run for run in (*up, *down[::-1]) if len(run.counts)]


def _fold_whole(engine: Engine, elements: Moments, weight: int, level: int) -> Moments:
    """Consecutive whole blocks as elements of the level above."""
    weigher, names = engine.weigher(engine.average.decays[weight]), engine.state.block_names
    total = len(elements["mean"])
    parts: list[Moments] = []
    for begin in range(0, total, AT_ONCE):
        some = {name: array[begin : begin + AT_ONCE] for name, array in elements.items()}
        lanes = Lanes(np.array([len(some["mean"])]), np.array([BLOCK]), Scratch())  # no series begins here

        def run(careful: bool, lanes: Lanes = lanes, some: Moments = some) -> Moments:
            cells = lay_out(lanes, some, weigher, level)
            return fold_blocks(lanes, cells, dict.fromkeys(names), weigher, level, careful)

        parts.append(safely(run, wide="deviation" in names))
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def merge(engine: Engine, part: Digest, slots: Ints) -> None:
    """Do to `engine` what `update` with the rows of a part would do.

    slots: permanent numbers of the part's keys. Raises BackwardsTimeError, before anything is folded in.
    """
    if not len(slots):
        return
    state, columns = engine.state, engine.columns
    state.grow(int(slots.max()) + 1)
    _move_clock(engine, part, slots)
    head = _placed(part.head, slots, columns)
    head = _move_gaps(engine, part, head, slots)
    _merge_rows(engine, head)
    if len(part.middle.series):
        _merge_middle(engine, part.middle, slots)
    _merge_rows(engine, _placed(part.tail, slots, columns))


def _placed(rows: Rows, slots: Ints, columns: int) -> Rows:
    segments = rows.segments
    return replace(rows, segments=replace(segments, series=place(segments.series, slots, columns)))


def _move_clock(engine: Engine, part: Digest, slots: Ints) -> None:
    if part.began is None or part.ended is None:
        return
    clock, started = engine.state.load_keys(("clock", "started"), slots)
    wrong = (started > 0) & (part.began < clock)
    if wrong.any():
        raise BackwardsTimeError(int(part.at[wrong].min()))
    engine.state.store({"clock": part.ended, "started": np.ones_like(slots)}, slots)


def _move_gaps(engine: Engine, part: Digest, head: Rows, slots: Ints) -> Rows:
    """Add the missing rows at the end of the parts before to the gap before this part's first value."""
    if "gap" not in engine.state.arrays:
        return head
    gap = engine.state.arrays["gap"]
    if head.gaps is not None and len(head.values):
        gaps = head.gaps.copy()
        gaps[head.segments.first] += gap[head.segments.series]
        head = replace(head, gaps=gaps)
    series = place(part.series, slots, engine.columns)
    gap[series] = np.where(part.unseen, gap[series], 0) + part.since_last
    return head


def _merge_rows(engine: Engine, rows: Rows) -> None:
    """Fold rows as `update` does, and store what `fill` holds after the last one."""
    if not len(rows.values):
        return
    average, held = engine.average, engine.state.arrays
    out = {name: np.empty((len(average.decays), len(rows.values))) for name in engine.moments}
    engine.fold_rows(rows, out)
    if average.fill:
        segments = rows.segments
        series, last = segments.series[segments.final], segments.last[segments.final]
        for name, array in out.items():
            held[f"held_{name}"][:, series] = array[:, last]


def _merge_middle(engine: Engine, middle: Middle, slots: Ints) -> None:
    state, columns = engine.state, engine.columns
    for run in middle.runs:
        _merge_run(engine, run, place(run.series, slots, columns))
    series = place(middle.series, slots, columns)
    state.arrays["seen"][series] += middle.rows
    if engine.average.joins_ties:
        # The newest observation has been folded; none is pending until the tail begins one.
        state.arrays["groups"][series] += middle.observations
        state.store({"tie_time": middle.last, "ties": np.zeros_like(series)}, series)
    state.store({"last_time": middle.last}, series)


def _merge_run(engine: Engine, run: LevelElements, series: Ints) -> None:
    known = np.zeros(len(series), bool)
    for weight, (decay, elements) in enumerate(zip(engine.average.decays, run.elements, strict=True)):
        weigher = engine.weigher(decay)
        levels = make_levels(run.counts, run.before, engine.scratch, run.level)

        def fold(careful: bool, weight: int = weight, weigher: Any = weigher, elements: Moments = elements,
                 levels: Levels = levels) -> None:  # fmt: skip
            memory = engine.state.load_memory(series, known, weight)
            Scan(levels, memory, weigher, careful).totals(elements, run.level, {})
            engine.state.store_memory(memory, series, weight, ~known)

        safely(fold, wide="deviation" in engine.moments)
        engine.scratch.release()
