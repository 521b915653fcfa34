"""One scan: the average at each element of a series, from blocks that are folded side by side.

A series is cut into blocks of 16 elements, counted from *its own* first one. Blocks stand beside each other
as the lanes of an array of shape (16, lanes), and each step down the array joins one element to every lane.
This is done twice. First each block is folded from nothing; the results of whole blocks are the elements of
the next level, and above the third level they are joined one after the other. That gives what is before each
block. From there each block is walked again, and now every element has its average. Where a chunk of input
ends plays no part in any of this, so a file, a pipe, pieces and a cluster all give the same bits.

Two things are remembered of a series on each level: its last block, folded from nothing up to the last
element, and the total after that element. The next rows go on from both.

A stretch of a series is described by these quantities (`Moments`):

    mean, deviation      of the values: weighted mean, and standard deviation of the same weights
    mean_y, deviation_y  of a second variable, where pairs are asked for, and their correlation
    bias                 1 − Σ shares²
    decay, loss          what is left of everything before the stretch, and 1 − decay, which keeps its digits
    weight               the sum of its weights

What elements weigh is asked of a weigher (`row_weights`).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ema_cli.engine.arithmetic import BITS, BLOCK, LEVELS, Bools, Floats, Ints, Moments, join
from ema_cli.engine.row_weights import WEIGHABLE, Join, Weigher

T = TypeVar("T", bound=np.generic)
Stops = dict[int, tuple[Ints, Ints]]  # by place: segments, and the lanes where these are stopped at
# From this many elements a segment, on average, slices are quicker than an index of each element. For one
# series slices save a third of the time of `smooth`, for 1,000 keys the index saves two thirds.
LONG = 4_096


class _Scratch(threading.local):
    """Buffers for a tile's large arrays, used again for the next tile.

    An array of 128 KB or more comes fresh from the system each time, and the first touch of its pages costs
    more than all the arithmetic done on it (measured: a third of the time of `smooth`). So each thread keeps
    its buffers, unless they grow large, for whichever engines work in it, one at a time.
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


SCRATCH = _Scratch()


class Lanes:
    """Where the elements of some segments stand: (places, lanes), every segment in lanes of its own.

    counts: elements of each segment (> 0), which come segment after segment. before: elements of its series
    before its first one. pending: the last element of each may still change, so it is not remembered. level:
    what the elements are; above the last level a segment is one lane of any length. segments: their numbers.
    """

    def __init__(
        self,
        counts: Ints,
        before: Ints,
        *,
        pending: bool = False,
        level: int = 0,
        segments: Ints | None = None,
    ) -> None:
        self.before, self.level = before, level
        self.segments = np.arange(len(counts)) if segments is None else segments
        self.height, starts = BLOCK, before % BLOCK
        if level == LEVELS:
            self.height, starts = int(counts.max()), np.zeros_like(before)
        ends = starts + counts
        each = -(-ends // self.height)
        after = np.cumsum(each)
        self.base, self.count = after - each, int(after[-1])
        kept = ends - pending
        self.whole = kept // self.height
        self.depth = min(int(ends.max()), self.height)  # below it is no element in any lane
        # Where segments were walked up to in an earlier update, and their last elements that are remembered.
        self.resumed = self._stops(starts - 1, self.base)
        ahead, place = np.divmod(kept - 1, self.height)
        self.left = self._stops(np.where(counts > pending, place, -1), self.base + ahead)
        self.is_whole = np.ones(self.count, bool)
        self.is_whole[(after - 1)[self.whole < each]] = False
        # Where segments begin among the places, lane after lane, and among the elements.
        self._to, self._from = self.base * self.height + starts, np.cumsum(counts) - counts
        self._counts = counts

    def _stops(self, place: Ints, lanes: Ints) -> Stops:
        """Segments and lanes by place. place: of each segment; −1: none."""
        found = {j: np.flatnonzero(place == j) for j in set(place.tolist()) - {-1}}
        return {j: (self.segments[mine], lanes[mine]) for j, mine in found.items()}

    def new_cells(self) -> Floats:
        """An uninitialised array of this shape."""
        return SCRATCH.floats(self.height, self.count)

    @property
    def first(self) -> tuple[int, Ints]:
        """Place and lanes of the elements that begin a series."""
        return 0, self.base[self.before == 0]

    def begun(self) -> Bools:
        """Whether anything of its series is before each lane."""
        out = np.ones(self.count, bool)
        out[self.base[self.before < BLOCK]] = False
        return out

    @cached_property
    def above(self) -> Lanes | None:
        """The whole blocks as elements of the next level; None if there are none."""
        some = self.whole > 0
        if not some.any():
            return None
        before, segments = (self.before // BLOCK)[some], self.segments[some]
        return Lanes(self.whole[some], before, level=self.level + 1, segments=segments)

    @cached_property
    def _index(self) -> Ints:
        """Where each element is in the flattened array."""
        place = np.repeat(self._to - self._from, self._counts)  # one lane after the other
        place += np.arange(len(place))
        lane = place >> BITS if self.height == BLOCK else place // self.height  # a shift is quicker
        place *= self.count
        lane *= self.height * self.count - 1
        place -= lane  # = place in the lane × number of lanes + lane
        return place

    def places(self, elements: Ints) -> tuple[Ints, Ints]:
        """Place and lane of some elements."""
        segment = np.searchsorted(self._from, elements, "right") - 1
        lane, place = np.divmod(elements + (self._to - self._from)[segment], self.height)
        return place, lane

    @cached_property
    def _parts(self) -> list[tuple[slice, tuple[slice, Any], bool]] | None:
        """Matching parts of the elements and of the cells, whole lanes or less; None: an index is quicker."""
        if len(self._counts) > 1 and len(self._counts) * LONG > self._counts.sum():
            return None
        parts: list[tuple[slice, tuple[slice, Any], bool]] = []
        for to, at, n in zip(self._to.tolist(), self._from.tolist(), self._counts.tolist(), strict=True):
            lane, place = divmod(to, self.height)
            head = min(n, -place % self.height)
            first, whole = lane + (head > 0), (n - head) // self.height
            end = at + head + whole * self.height
            parts += [
                (slice(at, at + head), (slice(place, place + head), lane), False),
                (slice(at + head, end), (slice(None), slice(first, first + whole)), True),
                (slice(end, at + n), (slice(0, at + n - end), first + whole), False),
            ]
        return [part for part in parts if part[0].start < part[0].stop]

    def scatter(self, flat: NDArray[T]) -> NDArray[T]:
        """The elements, of 8 bytes each, in their places; those without an element hold 0."""
        out: NDArray[T] = self.new_cells().view(flat.dtype)
        if self._parts is None:
            out[...] = 0
            out.reshape(-1)[self._index] = flat
            return out
        out[:, self.base] = 0
        out[:, np.append(self.base[1:], self.count) - 1] = 0
        for some, there, whole in self._parts:
            out[there] = flat[some].reshape(-1, self.height).T if whole else flat[some]
        return out

    def gather(self, cells: Floats, out: Floats) -> None:
        """The numbers at the elements' places, one element after the other."""
        if self._parts is None:
            np.take(cells.reshape(-1), self._index, out=out, mode="clip")
        for some, there, whole in self._parts or ():
            target = out[some].reshape(-1, self.height) if whole else out[some]
            target[...] = cells[there].T

    def hand_down(self, first: Floats, totals: Floats) -> Floats:
        """What is before each lane. first: before each segment's first. totals: after each whole block."""
        out, followed = np.empty(self.count), np.flatnonzero(self.is_whole[:-1])
        out[followed + 1] = totals[: len(followed)]
        out[self.base] = first
        return out


@dataclass(frozen=True)
class Memory:
    """What is remembered of segments, updated in place: arrays (LEVELS, segments) by name.

    block: the last block up to the last element, folded from nothing. total: after the last element, with all
    before it; one level more.
    """

    block: Moments
    total: Moments


@dataclass(frozen=True)
class Walked:
    """Lanes whose `cells` are the moments after each element; decay and loss are the element's own.

    start: the moments before each lane.
    """

    lanes: Lanes
    cells: Moments
    start: Moments

    def at(self, name: str, elements: Ints) -> Floats:
        """A quantity of some elements."""
        return np.asarray(self.cells[name][self.lanes.places(elements)])

    def previous(self, elements: Ints) -> Moments:
        """The moments before some elements."""
        place, lane = self.lanes.places(elements)
        return {
            name: np.where(place == 0, array[lane], self.cells[name][place - 1, lane])
            for name, array in self.start.items()
        }


@dataclass(frozen=True)
class Scan:
    """One average of one tile. careful: intermediate numbers may leave the range of float64."""

    memory: Memory
    weigher: Weigher
    careful: bool = False

    def totals(self, lanes: Lanes, elements: Moments, out: Moments) -> Walked:
        """Put the moments after each element into `out`, by name, and update the memory.

        elements: flat arrays by name, as the weigher has them.
        """
        level = lanes.level
        cells = lay_out(lanes, elements, self.weigher)
        start = self._before(lanes, cells)
        total = {name: array[level] for name, array in self.memory.total.items()}
        own = {name: array for name, array in cells.items() if array.flags.writeable}
        results = {name: own[name] if name in own else lanes.new_cells() for name in total}
        how = self.weigher.total(level, cells, start, lanes.begun)
        walk(lanes, cells, start, how, total, self.careful, results)
        for name, array in out.items():
            lanes.gather(results[name], array)
        return Walked(lanes, cells | results, start)

    def _before(self, lanes: Lanes, cells: Moments) -> Moments:
        """What is before each lane, from the level above."""
        level, total = lanes.level, self.memory.total
        if level == LEVELS:
            return {name: array[level, lanes.segments] for name, array in total.items()}
        block = {name: array[level] for name, array in self.memory.block.items()}
        ends = fold_blocks(lanes, cells, self.weigher, block, self.careful)
        after = {name: np.empty(len(ends["mean"])) for name in total}
        first = {name: array[level + 1, lanes.segments] for name, array in total.items()}
        if lanes.above is not None:
            self.totals(lanes.above, ends, after)
        return {name: lanes.hand_down(array, after[name]) for name, array in first.items()}


def lay_out(lanes: Lanes, elements: Moments, weigher: Weigher) -> Moments:
    """Elements in their places, with what the weigher adds."""
    cells = {n: lanes.scatter(array) for n, array in elements.items() if lanes.level or n in WEIGHABLE}
    with np.errstate(all="ignore"):  # what has long faded may underflow, and is 0
        return weigher.complete(lanes.level, cells, lanes.first)


def fold_blocks(lanes: Lanes, cells: Moments, weigher: Weigher, block: Moments, careful: bool) -> Moments:
    """Fold each lane from nothing; gives the moments of the whole blocks.

    block: what is remembered of the segments' last blocks, by name; updated in place.
    """
    run = {name: cells[name][0].copy() if name in cells else np.zeros(lanes.count) for name in block}
    walk(lanes, cells, run, weigher.block(lanes.level, cells), block, careful)
    ends = {name: array[lanes.is_whole] for name, array in run.items()}
    if "decay" in ends:  # 1 − loss has more digits than a product of numbers close to 1
        ends["decay"] = np.where(ends["loss"] <= 0.5, 1.0 - ends["loss"], ends["decay"])
    return ends


def walk(
    lanes: Lanes,
    cells: Moments,
    run: Moments,
    how: Join,
    memory: Moments,
    careful: bool,
    results: Moments | None = None,
) -> None:
    """Go down all lanes at once.

    run: what is before each lane. memory: by name, what is remembered of segments; it replaces what is walked
    up to where they go on, and is updated at their last elements. results: arrays for the moments at each
    place; without them the lanes are folded from nothing, and `run` is their first elements, then joined with
    the others in place.
    """
    known = {name: array.copy() for name, array in memory.items()}
    for j in range(lanes.depth):
        if results is not None or j:
            new = {name: array[j] for name, array in cells.items()}
            out = run if results is None else {name: array[j] for name, array in results.items()}
            join(run, new, how(j, run, out), out, careful)
            run = out
        if j in lanes.resumed:
            segments, there = lanes.resumed[j]
            for name, array in known.items():
                run[name][there] = array[segments]
        if j in lanes.left:
            segments, there = lanes.left[j]
            for name, array in memory.items():
                array[segments] = run[name][there]
