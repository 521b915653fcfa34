"""One scan: the average at each element of a series, from blocks that are folded side by side.

A series is cut into blocks of 16 elements, counted from *its own* first one. Blocks stand beside each other
as the lanes of an array of shape (16, lanes), and each step down the array joins one element to every lane.
This is done twice. First each block is folded from nothing; the results of whole blocks are the elements of
the next level, and above the third level they are joined one after the other. That gives what is before each
block. From there each block is walked again, and now every element has its average. Where a chunk of input
ends plays no part in any of this, so a file, a pipe, pieces and a cluster all give the same bits.

Two things are remembered of a series on each level: its open block, folded from nothing, and the total after
its last element. The next rows go on from both.

A stretch of a series is described by these quantities (`Moments`):

    mean, deviation      of the values: weighted mean, and standard deviation of the same weights
    mean_y, deviation_y  of a second variable, where pairs are asked for, and their correlation
    bias                 1 − Σ shares²
    decay, loss          what is left of everything before the stretch, and 1 − decay, which keeps its digits
    weight               the sum of its weights

What elements weigh is asked of a `Weigher` (`row_weights`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import prod
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ema_cli.engine.arithmetic import MEANS, Floats, Ints, Mix, Moments, blend, join_deviations

T = TypeVar("T", bound=np.generic)
BITS, LEVELS = 4, 3
BLOCK = 1 << BITS
# From this many elements a segment, on average, slices are quicker than an index of each element. For one
# series slices save 0.4 of the time of `smooth`, for 1,000 keys the index saves half.
LONG = 4_096


class Scratch:
    """Buffers for a tile's large arrays, used again for the next tile.

    An array of 128 KB or more comes fresh from the system each time, and the first touch of its pages costs
    more than all the arithmetic done on it (measured: a third of the time of `smooth`). So each thread keeps
    its buffers for all engines, which never work at the same time in one thread, unless they grow large.
    """

    MOST = 8_000_000  # numbers

    def __init__(self) -> None:
        self._buffers: list[Floats] = []
        self.used = 0

    def floats(self, *shape: int) -> Floats:
        """An uninitialised array, good until `release`."""
        size = prod(shape)
        if self.used == len(self._buffers):
            self._buffers.append(np.empty(0))
        # The n-th array of a tile is about as large as the n-th of the tile before.
        if len(self._buffers[self.used]) < size:
            self._buffers[self.used] = np.empty(size + size // 16)
        self.used += 1
        return self._buffers[self.used - 1][:size].reshape(shape)

    def release(self, used: int = 0) -> None:
        """Take back all arrays but the first `used`."""
        self.used = used
        if not used and sum(map(len, self._buffers)) > self.MOST:
            self._buffers = []


class _PerThread(threading.local):
    def __init__(self) -> None:
        self.scratch = Scratch()


_PER_THREAD = _PerThread()


def thread_scratch() -> Scratch:
    """The calling thread's buffers."""
    return _PER_THREAD.scratch


class Marks:
    """Places in blocks that are stopped at, one a segment (−1: none).

    segments, lanes: of each, in the order of the places. at: by place, which of these there are.
    """

    def __init__(self, place: Ints, lanes: Ints) -> None:
        order = np.argsort(place.astype(np.int8), kind="stable")
        bounds = np.searchsorted(place[order], np.arange(BLOCK + 1)).tolist()
        some = slice(bounds[0], None)
        self.segments, self.lanes = order[some], lanes[order[some]]
        there = ((begin - bounds[0], end - bounds[0]) for begin, end in pairwise(bounds))
        self.at = {j: slice(begin, end) for j, (begin, end) in enumerate(there) if begin < end}


class Lanes:
    """Where the elements of some segments stand: (16, lanes), every segment in lanes of its own.

    counts: elements of each segment (> 0), which come segment after segment. before: elements of its series
    before its first one. pending: the last element of each may still change, so it is not remembered.
    """

    def __init__(self, counts: Ints, before: Ints, scratch: Scratch, *, pending: bool = False) -> None:
        self.counts, self.before, self.scratch, self.pending = counts, before, scratch, pending
        self.starts = before & BLOCK - 1
        ends = self.starts + counts
        each = ends + (BLOCK - 1) >> BITS
        after = np.cumsum(each)
        self.base, self.last, self.count = after - each, after - 1, int(after[-1])
        kept = ends - pending
        self.whole, left = kept >> BITS, kept & BLOCK - 1
        # Segment, place and lane of the last element that is remembered of each.
        some = np.flatnonzero(counts > pending)
        self.final = some, (kept - 1 & BLOCK - 1)[some], (self.base + (kept - 1 >> BITS))[some]
        self.slices = len(counts) == 1 or len(counts) * LONG < int(counts.sum())
        # Where what is remembered goes on, and where the open blocks end.
        self.resumed = Marks(self.starts - 1, self.base)
        self.opened = Marks(left - 1, self.base + self.whole)
        self._flat: Ints | None = None
        # The lanes that are whole blocks, and the lanes that follow another one of their segment.
        self._whole = np.ones(self.count, bool)
        self._whole[self.last[self.whole < each]] = False
        self._follows = np.ones(self.count, bool)
        self._follows[self.base] = False

    @property
    def first(self) -> tuple[int, Ints]:
        """Place and lanes of the elements that begin a series."""
        return 0, self.base[self.before == 0]

    def blocks(self) -> Ints:
        """How many blocks of its series are before each lane."""
        shift = (self.before >> BITS) - self.base
        return np.asarray(np.arange(self.count) + np.repeat(shift, np.diff(self.base, append=self.count)))

    def places(self, elements: Ints) -> tuple[Ints, Ints]:
        """Place in the block and lane of some elements."""
        return divmod(self._index()[elements], self.count)

    def _index(self) -> Ints:
        """Where each element is in the flattened array."""
        if self._flat is None:
            shift = self.base * BLOCK + self.starts - (np.cumsum(self.counts) - self.counts)
            place = np.repeat(shift, self.counts)
            place += np.arange(len(place))
            lane = place >> BITS
            place &= BLOCK - 1
            place *= self.count
            place += lane
            self._flat = place
        return self._flat

    def _parts(self) -> Iterator[tuple[Any, Any, bool]]:
        """Matching pieces of the elements and of the lanes; transposed where they are whole blocks."""
        begin = 0
        for n, start, lane in zip(
            self.counts.tolist(), self.starts.tolist(), self.base.tolist(), strict=True
        ):
            head = min(n, BLOCK - start) if start else 0
            if head:
                yield slice(begin, begin + head), (slice(start, start + head), lane), False
            full = (n - head) // BLOCK
            first, at = lane + bool(head), begin + head
            if full:
                yield slice(at, at + full * BLOCK), (slice(None), slice(first, first + full)), True
            if rest := n - head - full * BLOCK:
                yield slice(begin + n - rest, begin + n), (slice(0, rest), first + full), False
            begin += n

    def scatter(self, flat: NDArray[T]) -> NDArray[T]:
        """The elements, of 8 bytes each, as lanes; places without an element hold 0."""
        out: NDArray[T] = self.scratch.floats(BLOCK, self.count).view(flat.dtype)
        if not self.slices:
            out[...] = 0
            out.reshape(-1)[self._index()] = flat
            return out
        out[:, self.base[self.starts > 0]] = 0
        out[:, self.last] = 0
        for some, there, turned in self._parts():
            out[there] = flat[some].reshape(-1, BLOCK).T if turned else flat[some]
        return out

    def gather(self, lanes: Floats, out: Floats) -> None:
        """Lanes as elements."""
        if not self.slices:
            np.take(lanes.reshape(-1), self._index(), out=out, mode="clip")
            return
        for some, there, turned in self._parts():
            if turned:
                out[some].reshape(-1, BLOCK)[...] = lanes[there].T
            else:
                out[some] = lanes[there]

    def ends(self, lane: Floats) -> Floats:
        """From one number per lane, those of whole blocks."""
        return lane[self._whole]

    def hand_down(self, first: Floats, totals: Floats) -> Floats:
        """What is before each lane.

        first: before each segment's first lane. totals: after each whole block.
        """
        out = np.empty(self.count)
        out[self.base] = first
        if len(totals):
            out[self._follows] = totals[np.append(self._follows[1:], False)[self._whole]]
        return out


@dataclass(frozen=True)
class Levels:
    """The levels that some elements reach, from level `base` on.

    segments: those that reach each level. lanes: where their elements are. chain: above the last level,
    where elements are joined one after the other: their number in each segment, and before it; None if there
    are none.
    """

    base: int
    segments: list[Ints]
    lanes: list[Lanes]
    chain: tuple[Ints, Ints] | None


def make_levels(
    counts: Ints, before: Ints, scratch: Scratch, base: int = 0, *, pending: bool = False
) -> Levels:
    """Lay out `counts` elements of level `base` of each segment (> 0), after `before` ones of its series."""
    segments: list[Ints] = []
    lanes: list[Lanes] = []
    some = np.arange(len(counts))
    for _ in range(base, LEVELS):
        segments.append(some)
        lanes.append(Lanes(counts, before, scratch, pending=pending and not lanes))
        on = lanes[-1].whole > 0
        some, counts, before = some[on], lanes[-1].whole[on], before[on] // BLOCK
        if not len(some):
            return Levels(base, segments, lanes, None)
    return Levels(base, [*segments, some], lanes, (counts, before))


@dataclass(frozen=True)
class Memory:
    """What is remembered of segments, updated in place: arrays (LEVELS, segments) by name.

    block: the open block, folded from nothing. total: after the last element, with all before it; one level
    more.
    """

    block: Moments
    total: Moments


CountBefore = Callable[[], Ints]  # asked only if needed: it costs a pass over the lanes


class Weigher(Protocol):
    """What the elements of each level weigh. cells: the elements of one level, (16, lanes) by name.

    Of rows, cells are values, as "mean" and "mean_y", and what their weights depend on: "elapsed"
    (nanoseconds since the observation before), "gaps" (rows since the value before; 1: none is missing in
    between), "order" (rows of the series before it) and "weights" (the column that `--weights` names), as far
    as the average asks for them. `rows` makes these into moments; first: the rows that begin a series.

    `block` and `total` give a function of a place in the block and of `run`, the moments up to it. It is
    called place after place, says how `run` and the element at the place are joined, and adds the element's
    weight to those in `run`.
    """

    def rows(self, cells: Moments, first: Any, /) -> Moments: ...

    def block(self, level: int, cells: Moments, /) -> Callable[[int, Moments], Mix]:
        """For lanes that are folded from nothing; not called for place 0."""

    def total(self, level: int, cells: Moments, before: CountBefore, /) -> Callable[[int, Moments], Mix]:
        """For lanes that go on from all before them. before: elements of the series before each lane."""

    def least(self, before: CountBefore | None, /) -> Callable[[int], Any] | None:
        """The least share of the older side at a place, for `join_deviations`; None: any."""


@dataclass(frozen=True)
class Scan:
    """One average of one tile.

    careful: intermediate numbers may leave the range of float64. before: what is before each element will be
    asked for (`Walked.before`).
    """

    levels: Levels
    memory: Memory
    weigher: Weigher
    careful: bool = False
    before: bool = False

    def totals(self, elements: Moments, level: int, out: Moments) -> None:
        """Put the moments after each element of a level into `out`, by name, and update the memory.

        elements: flat arrays by name; see `Weigher`.
        """
        if level == LEVELS:
            self._chain(elements, out)
        else:
            self.level(elements, level, out)

    def level(self, elements: Moments, level: int, out: Moments) -> Walked:
        """The same for a level that has blocks."""
        at = level - self.levels.base
        lanes, segments = self.levels.lanes[at], self.levels.segments[at]
        cells = lay_out(lanes, elements, self.weigher, level)
        block = {name: array[level] for name, array in self.memory.block.items()}
        ends = fold_blocks(lanes, cells, block, self.weigher, level, self.careful, segments)
        start = self._before(lanes, segments, ends, level)
        before = cache(lambda: lanes.blocks() * BLOCK)
        how, least = self.weigher.total(level, cells, before), self.weigher.least(before)
        for name in self.memory.total:
            if name not in cells or not cells[name].flags.writeable:
                cells[name] = lanes.scratch.floats(BLOCK, lanes.count)
        memory = {name: array[level] for name, array in self.memory.total.items()}
        opening = (
            {name: array.copy() for name, array in start.items()} if lanes.pending or self.before else start
        )
        step = Step(how, None if level else least, level == 0, self.careful)
        walk(cells, start, step, keep=True, resumed=_stops(lanes.resumed, segments, memory))
        some, place, lane = lanes.final
        for name, array in memory.items():
            array[segments[some]] = cells[name][place, lane]
        for name, array in out.items():
            lanes.gather(cells[name], array)
        return Walked(lanes, cells, opening)

    def _before(self, lanes: Lanes, segments: Ints, ends: Moments, level: int) -> Moments:
        """What is before each lane, from the level above."""
        first = {name: array[level + 1, segments] for name, array in self.memory.total.items()}
        size = int(lanes.whole.sum())
        above = {name: np.empty(size) for name in first}
        if size:
            self.totals(ends, level + 1, above)
        return {name: lanes.hand_down(array, above[name]) for name, array in first.items()}

    def _chain(self, elements: Moments, out: Moments) -> None:
        """Join the elements above the last level one after the other to all before them."""
        assert self.levels.chain is not None
        (counts, before), who = self.levels.chain, self.levels.segments[-1]
        segment = np.repeat(np.arange(len(counts)), counts)
        place = np.arange(len(segment)) - np.repeat(np.cumsum(counts) - counts, counts)
        cells = {
            name: np.zeros((int(counts.max()), len(counts))) for name in {**elements, **self.memory.total}
        }
        for name, array in elements.items():
            cells[name][place, segment] = array
        start = {name: array[LEVELS, who] for name, array in self.memory.total.items()}
        step = Step(self.weigher.total(LEVELS, cells, lambda: before), None, False, self.careful)
        walk(cells, start, step, keep=True)
        for name, array in self.memory.total.items():
            array[LEVELS, who] = cells[name][counts - 1, np.arange(len(counts))]
        for name, array in out.items():
            array[:] = cells[name][place, segment]


def lay_out(lanes: Lanes, elements: Moments, weigher: Weigher, level: int) -> Moments:
    """The elements of a level as cells."""
    cells = {name: lanes.scatter(array) for name, array in elements.items()}
    if level:
        return cells
    with np.errstate(all="ignore"):  # what has long faded may underflow, and is 0
        return weigher.rows(cells, lanes.first)


def fold_blocks(
    lanes: Lanes,
    cells: Moments,
    memory: Moments,
    weigher: Weigher,
    level: int,
    careful: bool,
    segments: Ints | None = None,
) -> Moments:
    """Fold each lane from nothing; gives the moments of the whole blocks.

    memory: by name, the open blocks of `segments`, updated in place.
    """
    start = {name: cells[name][0].copy() if name in cells else np.zeros(lanes.count) for name in memory}
    step = Step(weigher.block(level, cells), None if level else weigher.least(None), level == 0, careful)
    if segments is None:
        ends = walk(cells, start, step, keep=False)
    else:
        resumed, opened = (_stops(marks, segments, memory) for marks in (lanes.resumed, lanes.opened))
        ends = walk(cells, start, step, keep=False, resumed=resumed, caught=opened)
        for array in memory.values():
            array[segments] = 0.0
        for name, array in opened.moments.items():
            memory[name][segments[lanes.opened.segments]] = array
    ends = {name: lanes.ends(array) for name, array in ends.items()}
    if "decay" in ends:  # 1 − loss has more digits than a product of numbers close to 1
        ends["decay"] = np.where(ends["loss"] <= 0.5, 1.0 - ends["loss"], ends["decay"])
    return ends


@dataclass(frozen=True)
class Walked:
    """Lanes whose `cells` are the moments after each element. start: those before each lane."""

    lanes: Lanes
    cells: Moments
    start: Moments

    def at(self, name: str, elements: Ints) -> Any:
        """A quantity of some elements."""
        return self.cells[name][self.lanes.places(elements)]

    def before(self, elements: Ints) -> Moments:
        """The moments before some elements."""
        place, lane = self.lanes.places(elements)
        return {
            name: np.where(place == 0, array[lane], self.cells[name][place - 1, lane])
            for name, array in self.start.items()
        }


@dataclass(frozen=True)
class Stops:
    """Marks, and the moments at each of them."""

    marks: Marks
    moments: Moments

    def put(self, some: slice, run: Moments) -> None:
        """Replace the moments of the lanes of some marks."""
        for name, array in self.moments.items():
            run[name][self.marks.lanes[some]] = array[some]

    def take(self, some: slice, run: Moments) -> None:
        """Keep the moments of these lanes."""
        for name, array in self.moments.items():
            array[some] = run[name][self.marks.lanes[some]]


def _stops(marks: Marks, segments: Ints, memory: Moments) -> Stops:
    """Marks with what is remembered of their segments."""
    if not marks.at:
        return NOWHERE
    some = segments[marks.segments]
    return Stops(marks, {name: array[some] for name, array in memory.items()})


NOWHERE = Stops(Marks(np.empty(0, np.int64), np.empty(0, np.int64)), {})


@dataclass(frozen=True)
class Step:
    """How one element is joined to those before it. single: elements are rows, which have no deviation."""

    how: Callable[[int, Moments], Mix]
    least: Callable[[int], Any] | None
    single: bool
    careful: bool


def walk(
    cells: Moments,
    run: Moments,
    step: Step,
    *,
    keep: bool,
    resumed: Stops = NOWHERE,
    caught: Stops = NOWHERE,
) -> Moments:
    """Go down all lanes at once; gives their moments at the end.

    run: what is before each lane; changed. keep: `cells` are replaced by the moments at each place; else they
    stay as they are, the lanes are folded from nothing, and `run` is their first element. resumed: where
    lanes were walked up to in an earlier update; these moments replace what was walked now. caught: where
    moments are wanted.
    """
    means = [name for name in MEANS if name in run]
    others = [name for name in run if name in cells and name not in means] if keep else []
    for j in range(len(cells["mean"])):
        if keep or j:
            how = step.how(j, run)
            if "deviation" in run:
                new = {name: array[j] for name, array in cells.items()}
                least = None if step.least is None else step.least(j)
                join_deviations(run, new, how, single=step.single, least=least, careful=step.careful)
            for name in means:
                row = cells[name][j]
                run[name] = blend(run[name], row, how, row if keep else run[name], step.careful)
        if j in resumed.marks.at:
            resumed.put(resumed.marks.at[j], run)
        for name in others:
            cells[name][j] = run[name]
        if j in caught.marks.at:
            caught.take(caught.marks.at[j], run)
    return run
