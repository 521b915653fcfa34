"""One scan: the average at each element of a series, from blocks that are folded side by side.

A series is cut into blocks of 16 elements, counted from *its own* first one. Blocks stand beside each other
as the lanes of an array of shape (16, lanes), and each step down it joins one element to every lane. That
is done twice: first each block is folded from nothing, and what whole blocks come to are the elements of
the next level; above the third they are joined one after the other. What comes back is what was before each
block, and from there each block is walked again: now every element has its average. Where a chunk of input
ends plays no part in any of this, so a file, a pipe, pieces and a cluster all give the same bits.

A series remembers two things on each level: what its open block comes to, folded from nothing, and the
total after its last element. An open block goes on where it was.

Quantities of stretches of a series travel as arrays by name:

    mean, deviation      of the values: weighted mean, and standard deviation of the same weights
    mean_y, deviation_y  of a second variable, where pairs are asked for, and their correlation
    bias                 1 − Σ shares²
    decay, loss          what is left of everything before the stretch, and 1 − that, which keeps its digits
    weight               the sum of its weights

How elements weigh is asked of a `Weigher` (`row_weights`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import prod
from typing import Any, Protocol

import numpy as np

from ema_cli.engine.arithmetic import MEANS, Floats, Ints, Mix, Moments, blend, join_deviations

BLOCK, LEVELS = 16, 3
# Elements in a segment, on average, from which slices are quicker than an index of each element. Slices
# take 0.6 of the time of `smooth` for one series, the index a quarter of it for 1,000 keys; in between they
# are alike.
LONG = 256


class Scratch:
    """Room for a tile's large arrays that is used again for the next one.

    An array of 128 KB or more comes fresh from the system each time, and the first touch of its pages costs
    more than all the arithmetic done on it (measured: a third of the time of `smooth`). So a thread keeps its
    room, for all engines, as long as that is not much: no two of them are at work in a thread at once.
    """

    MOST = 8_000_000  # numbers

    def __init__(self) -> None:
        self._rooms: list[Floats] = []
        self.used = 0

    def floats(self, *shape: int) -> Floats:
        """An uninitialised array, good until `release`."""
        size = prod(shape)
        if self.used == len(self._rooms):
            self._rooms.append(np.empty(0))
        # The n-th array of a tile is about as large as that of the one before.
        if len(self._rooms[self.used]) < size:
            self._rooms[self.used] = np.empty(size + size // 16)
        self.used += 1
        return self._rooms[self.used - 1][:size].reshape(shape)

    def release(self, used: int = 0) -> None:
        """Take back all that was handed out after so many were `used`."""
        self.used = used
        if not used and sum(map(len, self._rooms)) > self.MOST:
            self._rooms = []


class _Room(threading.local):
    def __init__(self) -> None:
        self.scratch = Scratch()


_ROOM = _Room()


def thread_scratch() -> Scratch:
    """The calling thread's room."""
    return _ROOM.scratch


class Lanes:
    """Where the elements of some segments stand: (16, lanes), every segment in lanes of its own.

    counts: elements of each segment (> 0), which lie segment after segment. before: elements of its series
    before the first one. pending: the last element of each may still change, so it is not remembered.
    """

    def __init__(self, counts: Ints, before: Ints, scratch: Scratch, *, pending: bool = False) -> None:
        self.counts, self.before, self.scratch, self.pending = counts, before, scratch, pending
        self.starts = before % BLOCK
        ends = self.starts + counts
        each = (ends + BLOCK - 1) // BLOCK
        self.base = np.cumsum(each) - each
        self.count = int(each.sum())
        self.last = self.base + each - 1
        kept = ends - pending
        self.whole, left = np.divmod(kept, BLOCK)
        # Where the last element of each segment is that is remembered, if it is one of these.
        some = np.flatnonzero(counts > pending)
        self.final = some, ((kept - 1) % BLOCK)[some], (self.base + (kept - 1) // BLOCK)[some]
        self.slices = len(counts) == 1 or len(counts) * LONG < int(counts.sum())
        self.resumed = _by_place(self.starts - 1, self.base)
        self.opened = _by_place(left - 1, self.base + self.whole)
        self._flat: Ints | None = None
        # The lanes that are whole blocks, and of these the ones that another lane of the segment follows.
        self._whole = np.ones(self.count, bool)
        self._whole[self.last[self.whole < each]] = False
        self._follows = np.ones(self.count, bool)
        self._follows[self.base] = False

    def blocks(self) -> Ints:
        """How many blocks of its series are before each lane."""
        shift = self.before // BLOCK - self.base
        return np.asarray(np.arange(self.count) + np.repeat(shift, np.diff(self.base, append=self.count)))

    def places(self, elements: Ints) -> tuple[Ints, Ints]:
        """Place in the block and lane of some elements."""
        return divmod(self._index()[elements], self.count)

    def _index(self) -> Ints:
        """Where each element is in the flattened array."""
        if self._flat is None:
            shift = self.base * BLOCK + self.starts - (np.cumsum(self.counts) - self.counts)
            place = np.arange(int(self.counts.sum())) + np.repeat(shift, self.counts)
            self._flat = (place & BLOCK - 1) * self.count + place // BLOCK
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

    def scatter(self, flat: Floats) -> Floats:
        """The elements as lanes; places without an element hold 0, unless one number is given for all."""
        if flat.strides == (0,):
            return np.broadcast_to(flat[0], (BLOCK, self.count))
        out = self.scratch.floats(BLOCK, self.count)
        if not self.slices:
            out[...] = 0.0
            out.reshape(-1)[self._index()] = flat
            return out
        out[:, self.base[self.starts > 0]] = 0.0
        out[:, self.last] = 0.0
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
        """Of a number for each lane, those of whole blocks."""
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


def _by_place(place: Ints, lanes: Ints) -> dict[int, tuple[Ints, Ints]]:
    """By place in the block (those of −1 left out): the segments there, and their lanes."""
    order = np.argsort(place.astype(np.int8), kind="stable")
    bounds = np.searchsorted(place[order], np.arange(BLOCK + 1)).tolist()
    there = enumerate(pairwise(bounds))
    return {j: ((some := order[begin:end]), lanes[some]) for j, (begin, end) in there if begin < end}


@dataclass(frozen=True)
class Levels:
    """The levels that some elements reach, from level `base` on; the last may be above all others.

    who: the segments on each level. lanes: where their elements are; above the last level each segment is a
    lane.
    """

    base: int
    who: list[Ints]
    lanes: list[Lanes]
    chain: tuple[Ints, Ints] | None


def make_levels(
    counts: Ints, before: Ints, scratch: Scratch, base: int = 0, *, pending: bool = False
) -> Levels:
    """counts: elements of level `base` of each segment (> 0). before: those of its series before them."""
    who: list[Ints] = []
    lanes: list[Lanes] = []
    some = np.arange(len(counts))
    for _ in range(base, LEVELS):
        who.append(some)
        lanes.append(Lanes(counts, before, scratch, pending=pending and not lanes))
        on = lanes[-1].whole > 0
        some, counts, before = some[on], lanes[-1].whole[on], before[on] // BLOCK
        if not len(some):
            return Levels(base, who, lanes, None)
    return Levels(base, [*who, some], lanes, (counts, before))


@dataclass(frozen=True)
class Memory:
    """What segments remember, moved on in place: arrays (LEVELS, segments) by name.

    block: what the open block comes to, from nothing. total: after the last element of all.
    """

    block: Moments
    total: Moments


Before = Callable[[], Ints]


class Weigher(Protocol):
    """How the elements of each level weigh; `cells` are those of one level.

    What is given back tells how all so far and the element at a place are joined, asked place after place.
    `run` is what all so far has come to; weights in it move on.
    """

    def block(self, level: int, cells: Moments, /) -> Callable[[int, Moments], Mix]:
        """For lanes that are folded from nothing; place 0 is not asked for."""

    def total(self, level: int, cells: Moments, before: Before, /) -> Callable[[int, Moments], Mix]:
        """For lanes that go on from all there was before. before: elements of the series before each lane."""

    def least(self, before: Before | None, /) -> Callable[[int], Any] | None:
        """The least share of all so far at a place that rows are joined to (`join_deviations`); None: any."""


@dataclass(frozen=True)
class Scan:
    """One average of one tile.

    careful: numbers may leave the range of float64 on the way. before: what is before elements is asked for.
    """

    levels: Levels
    memory: Memory
    weigher: Weigher
    careful: bool = False
    before: bool = False

    def totals(self, elements: Moments, level: int, out: Moments) -> Walked | None:
        """The moments after each element of a level into `out`, by name; what is remembered moves on.

        elements: flat arrays; of rows their values alone, as means.
        """
        if level == LEVELS:
            self._chain(elements, out)
            return None
        lanes, who = self.levels.lanes[level - self.levels.base], self.levels.who[level - self.levels.base]
        cells = {name: lanes.scatter(array) for name, array in elements.items()}
        block = {name: array[level] for name, array in self.memory.block.items()}
        ends = fold_blocks(lanes, cells, block, self.weigher, level, self.careful, who)
        start = self._before(lanes, who, ends, level)
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
        walk(cells, start, step, _resume(lanes, who, memory), {}, keep=True)
        some, place, lane = lanes.final
        for name, array in memory.items():
            array[who[some]] = cells[name][place, lane]
        for name, array in out.items():
            lanes.gather(cells[name], array)
        return Walked(lanes, cells, opening)

    def _before(self, lanes: Lanes, who: Ints, ends: Moments, level: int) -> Moments:
        """What is before each lane, from the level above."""
        first = {name: array[level + 1, who] for name, array in self.memory.total.items()}
        size = int(lanes.whole.sum())
        above = {name: np.empty(size) for name in first}
        if size:
            self.totals(ends, level + 1, above)
        return {name: lanes.hand_down(array, above[name]) for name, array in first.items()}

    def _chain(self, elements: Moments, out: Moments) -> None:
        """The elements above the last level joined one after the other, to all there was before them."""
        assert self.levels.chain is not None
        (counts, before), who = self.levels.chain, self.levels.who[-1]
        segment = np.repeat(np.arange(len(counts)), counts)
        place = np.arange(len(segment)) - np.repeat(np.cumsum(counts) - counts, counts)
        cells = {
            name: np.zeros((int(counts.max()), len(counts))) for name in {**elements, **self.memory.total}
        }
        for name, array in elements.items():
            cells[name][place, segment] = array
        start = {name: array[LEVELS, who] for name, array in self.memory.total.items()}
        step = Step(self.weigher.total(LEVELS, cells, lambda: before), None, False, self.careful)
        walk(cells, start, step, {}, {}, keep=True)
        for name, array in self.memory.total.items():
            array[LEVELS, who] = cells[name][counts - 1, np.arange(len(counts))]
        for name, array in out.items():
            array[:] = cells[name][place, segment]


def fold_blocks(
    lanes: Lanes,
    cells: Moments,
    memory: Moments,
    weigher: Weigher,
    level: int,
    careful: bool,
    who: Ints | None = None,
) -> Moments:
    """Fold each lane from nothing: what the whole ones come to.

    memory: by name, what the open blocks of segments `who` come to, moved on in place.
    """
    start = {name: cells[name][0].copy() if name in cells else np.zeros(lanes.count) for name in memory}
    step = Step(weigher.block(level, cells), None if level else weigher.least(None), level == 0, careful)
    resumed = {} if who is None else _resume(lanes, who, memory)
    opened: dict[int, tuple[Ints, Moments]] = {j: (at, {}) for j, (_, at) in lanes.opened.items()}
    ends = walk(cells, start, step, resumed, opened, keep=False)
    if who is not None:
        for name, array in memory.items():
            array[who] = 0.0
            for j, (some, _) in lanes.opened.items():
                array[who[some]] = opened[j][1][name]
    ends = {name: lanes.ends(array) for name, array in ends.items()}
    if "decay" in ends:  # 1 − loss has more digits than a product of numbers close to 1
        ends["decay"] = np.where(ends["loss"] <= 0.5, 1.0 - ends["loss"], ends["decay"])
    return ends


@dataclass(frozen=True)
class Walked:
    """Lanes that have been walked. start: what was before each."""

    lanes: Lanes
    cells: Moments
    start: Moments

    def before(self, elements: Ints) -> Moments:
        """The moments before some elements."""
        place, lane = self.lanes.places(elements)
        return {
            name: np.where(place == 0, array[lane], self.cells[name][place - 1, lane])
            for name, array in self.start.items()
        }


def _resume(lanes: Lanes, who: Ints, memory: Moments) -> dict[int, tuple[Ints, Moments]]:
    """By place: the lanes that go on after it, and what they have come to there."""
    return {
        j: (at, {name: array[who[some]] for name, array in memory.items()})
        for j, (some, at) in lanes.resumed.items()
    }


@dataclass(frozen=True)
class Step:
    """How one element is joined to all so far. single: elements are rows, with a value alone."""

    how: Callable[[int, Moments], Mix]
    least: Callable[[int], Any] | None
    single: bool
    careful: bool


def walk(
    cells: Moments,
    run: Moments,
    step: Step,
    resumed: Mapping[int, tuple[Ints, Moments]],
    caught: Mapping[int, tuple[Ints, Moments]],
    *,
    keep: bool,
) -> Moments:
    """Go down all lanes at once; gives what they have come to at the end.

    run: what is before each lane; changed. keep: what lanes have come to at each place is put there; else
    they are folded from nothing, `run` is their first element, and `cells` stay as they are. resumed: by
    place, lanes that had come to something there before. caught: lanes of which is kept what they come to.
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
        if j in resumed:
            there, block = resumed[j]
            for name, array in block.items():
                run[name][there] = array
        for name in others:
            cells[name][j] = run[name]
        if j in caught:
            there, block = caught[j]
            block.update((name, array[there]) for name, array in run.items())
    return run
