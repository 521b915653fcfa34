"""One scan: the average at each element of a series, from blocks that are folded side by side.

A series is cut into blocks of 16 elements, counted from *its own* first one. Blocks stand beside each other as the
lanes of an array of shape (16, lanes), and 15 steps down it fold all of them at once, each from nothing (`walk`).
The ends of whole blocks are the elements of the next level; above the third they are chained one after the other.
What comes back down is what was before each block, and it is joined to every element of it (`join`). Where a chunk
of input ends plays no part in any of this, so a file, a pipe, pieces and a cluster all give the same bits.

A series remembers two things on each level: its open block so far, and what was before that block. An open block
goes on where it was: what is remembered of it takes the place of its last element.

Quantities of stretches of a series travel as arrays by name:

    mean, deviation, bias      of the values: weighted mean, its standard deviation, and 1 − Σ shares²
    mean_y, deviation_y, correlation     of a second variable, where pairs are asked for
    decay, loss                what is left of everything before the stretch, and 1 − that, which keeps its digits
    weight                     the sum of its weights

Where all rows decay alike, the last three are a table by place in the block (`row_weights.Table`). Recursive averages
have no `weight`: with what was before them the sum is always 1, so their own is the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np

from ema_cli.engine.arithmetic import LEAST_SHARE, Bools, Floats, Ints, Mix, Moments, blend, mix, spread

BLOCK, LEVELS = 16, 3
MEANS = ("mean", "mean_y")
SPREADS = ("deviation", "deviation_y", "correlation", "bias")
WEIGHTS = ("decay", "loss", "weight")
LONG = 256  # elements in a segment, on average, from which slices are quicker than an index of each element


class Scratch:
    """Room for a tile's large arrays that is used again for the next one.

    An array of 128 KB or more comes fresh from the system each time, and the first touch of its pages costs more
    than all the arithmetic done on it (measured: a third of the time of `smooth`).
    """

    def __init__(self) -> None:
        self._room, self._used, self._most = np.empty(0), 0, 0

    def floats(self, *shape: int) -> Floats:
        """An uninitialised array, good until `release`."""
        begin, size = self._used, prod(shape)
        self._used += -(-size // 8) * 8  # whole cache lines
        self._most = max(self._most, self._used)
        if self._used > len(self._room):  # not yet known how much is needed
            return np.empty(shape)
        return self._room[begin : begin + size].reshape(shape)

    def release(self, used: int = 0) -> int:
        """Take back what was handed out after `used`; gives what is in use now, to be taken back later."""
        before, self._used = self._used, used
        if not used and self._most > len(self._room):
            self._room = np.empty(self._most)
        return before

    @property
    def used(self) -> int:
        return self._used


class Lanes:
    """Where the elements of some segments stand: (16, lanes), every segment in lanes of its own.

    counts: elements of each segment (> 0), which lie segment after segment. starts: place of the first one in its
    block.
    """

    def __init__(self, counts: Ints, starts: Ints, scratch: Scratch) -> None:
        self.counts, self.starts, self.scratch = counts, starts, scratch
        self.whole, left = np.divmod(starts + counts, BLOCK)
        each = self.whole + (left > 0)
        self.base = np.cumsum(each) - each
        self.count = int(each.sum())
        self.slices = len(counts) == 1 or len(counts) * LONG < int(counts.sum())
        self.open = np.flatnonzero(left)  # segments whose last block is not whole
        self._at_open = left[self.open] - 1, (self.base + self.whole)[self.open]
        self._flat: Ints | None = None
        lead = np.zeros(self.count, bool)
        lead[self.base] = True
        self._lead = lead
        self._whole = np.ones(self.count, bool)
        self._whole[self._at_open[1]] = False

    def resumed(self) -> dict[int, tuple[Ints, Ints]]:
        """By place in the block: the segments whose open block ended there, and their lanes."""
        some = np.flatnonzero(self.starts)
        at = self.starts[some] - 1
        return {int(j): (some[at == j], self.base[some[at == j]]) for j in np.unique(at)}

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
        for n, start, lane in zip(self.counts.tolist(), self.starts.tolist(), self.base.tolist(), strict=True):
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

    def spread(self, flat: Floats) -> Floats:
        """The elements as lanes; places without an element hold 0."""
        out = self.scratch.floats(BLOCK, self.count)
        if not self.slices:
            out[...] = 0.0
            out.reshape(-1)[self._index()] = flat
            return out
        out[:, self.base[self.starts > 0]] = 0.0
        out[:, self._at_open[1]] = 0.0
        for some, there, turned in self._parts():
            out[there] = flat[some].reshape(-1, BLOCK).T if turned else flat[some]
        return out

    def collect(self, lanes: Floats, out: Floats) -> None:
        """Lanes as elements."""
        if not self.slices:
            np.take(lanes.reshape(-1), self._index(), out=out, mode="clip")
            return
        for some, there, turned in self._parts():
            if turned:
                out[some].reshape(-1, BLOCK)[...] = lanes[there].T
            else:
                out[some] = lanes[there]

    def ends(self, lanes: Floats) -> Floats:
        """The last elements of whole blocks."""
        return lanes[BLOCK - 1][self._whole]

    def opened(self, lanes: Floats) -> Floats:
        """The last elements of open blocks."""
        return lanes[self._at_open]

    def hand_down(self, first: Floats, totals: Floats) -> Floats:
        """What is before each lane. first: before each segment's first lane. totals: after each whole block."""
        out = np.empty(self.count)
        out[self.base] = first
        if len(totals):
            followed = np.append(~self._lead[1:], False)[self._whole]
            out[~self._lead] = totals[followed]
        return out


class Table(Protocol):
    """How elements weigh where all rows decay alike: by level and place in the block (see `row_weights`)."""

    adjusted: bool
    inner: Sequence[Sequence[Mix]]
    outer: Sequence[Sequence[Mix]]
    decays: Sequence[Sequence[float]]
    weights: Sequence[Sequence[float]]
    biases: Sequence[Sequence[float]]
    firsts: Sequence[Sequence[float]]


@dataclass
class Memory:
    """What segments remember, moved on in place: arrays (LEVELS, segments) by name.

    blocks: of the open block so far. before: of all before it. start: the average before the first row, if any.
    """

    blocks: Moments
    before: Moments
    start: float | None = None


@dataclass(frozen=True)
class Levels:
    """The levels that some elements reach.

    who: the segments on each level. lanes: where their elements are. first: those that begin in the first block of
    their series; above the last level, those that have nothing before them there. chain: elements of each there.
    """

    who: list[Ints]
    lanes: list[Lanes]
    first: list[Bools]
    chain: Ints


def make_levels(counts: Ints, seen: Ints, scratch: Scratch, base: int = 0) -> Levels:
    """counts: elements of level `base` of each segment (> 0); seen: those before them."""
    who, lanes, first = [np.arange(len(counts))], [], []
    for _ in range(base, LEVELS):
        lanes.append(Lanes(counts, seen % BLOCK, scratch))
        first.append(seen < BLOCK)
        some = lanes[-1].whole > 0
        who.append(who[-1][some])
        counts, seen = lanes[-1].whole[some], seen[some] // BLOCK
        if not len(counts):
            break
    return Levels(who, lanes, [*first, seen == 0], counts)


@dataclass(frozen=True)
class Scan:
    """One average of one tile.

    table: None where each element says how it weighs. careful: numbers may leave the range of float64 on the way.
    floor: an older side's share does not vanish. base: the lowest level.
    """

    levels: Levels
    memory: Memory
    table: Table | None
    careful: bool = False
    floor: bool = False
    base: int = 0

    def totals(self, elements: Moments, level: int, out: Moments | None = None) -> Moments:
        """The moments after each element of a level; above the lowest also what they weigh.

        elements: by name, flat. out: where they go, by name; None: fresh arrays.
        """
        if level == LEVELS:
            return self._chain(elements)
        lanes = self.levels.lanes[level - self.base]
        cells = {name: lanes.spread(array) for name, array in elements.items()}
        single = level == 0
        if single:
            self._make_room(cells, lanes)
        block = {name: array[level] for name, array in self.memory.blocks.items()}
        resumed = self._resumed(lanes, block, level)
        first = self._walk_first(cells, lanes, resumed, level)
        if first is None or first[0].size < lanes.count:
            walk(cells, self._inner(cells, level), resumed, single, self.careful, self.floor)
        if first is not None:
            for name in cells:
                cells[name][:, first[0]] = first[1][name]
        before = self._before(lanes, cells, level)
        self._remember(lanes, cells, level)
        total = self._join(cells, before, level, out)
        if first is not None:  # these have had their start all along
            for name, array in first[1].items():
                total[name][:, first[0]] = array
        return self._collect(lanes, total, out)

    def _walk_first(
        self, cells: Moments, lanes: Lanes, resumed: Mapping[int, tuple[Ints, Moments]], level: int
    ) -> tuple[Ints, Moments] | None:
        """The lanes that are first blocks of recursive averages, folded from the start of the series.

        That is the recursion as it is written down: short series of simple numbers have simple averages.
        """
        if self.table is None or self.table.adjusted:
            return None
        mine = self.levels.first[level - self.base]
        there = lanes.base[mine]
        if not len(there):
            return None
        part = {name: cells[name][:, there] for name in cells}
        how, rows = self.table.outer[level][0], level == 0
        if self.memory.start is not None and rows:
            start = {name: np.zeros(len(there)) for name in part} | {"mean": np.full(len(there), self.memory.start)}
            opening = {name: array[0] for name, array in part.items()}
            if "deviation" in part:
                spread(start, opening, how, careful=self.careful, single=True)
                part["deviation"][0] = opening["deviation"]
            blend(start["mean"], part["mean"][0], how, self.careful)
        walk(part, lambda _: how, _of_lanes(resumed, there), rows, self.careful, False)
        if "deviation" in part:
            part["bias"] = np.broadcast_to(np.array([self.table.firsts[level]]).T, part["mean"].shape)
        return there, part

    def _make_room(self, cells: Moments, lanes: Lanes) -> None:
        """Rows have a mean alone: of one value the deviation, bias and correlation are 0."""
        for name in self.memory.blocks:
            if name in SPREADS:
                cells[name] = lanes.scratch.floats(BLOCK, lanes.count)
                cells[name][0] = 0.0

    def _resumed(self, lanes: Lanes, block: Moments, level: int) -> dict[int, tuple[Ints, Moments]]:
        who = self.levels.who[level - self.base]
        return {
            j: (there, {name: array[who[some]] for name, array in block.items()})
            for j, (some, there) in lanes.resumed().items()
        }

    def _inner(self, cells: Moments, level: int) -> Callable[[int], Mix]:
        """How a block so far is joined with its next element, step by step."""
        if self.table is None:
            return lambda j: add_weights(cells, j)
        inner = self.table.inner[level]
        return lambda j: inner[j]

    def _before(self, lanes: Lanes, cells: Moments, level: int) -> Moments:
        """What is before each lane, from the level above; what is remembered of it moves on."""
        who, before = self.levels.who[level - self.base], self.memory.before
        totals: Moments = {}
        if lanes.whole.any():
            ends = {name: lanes.ends(cells[name]) for name in cells}
            totals = self.totals(ends, level + 1)
        nothing = np.empty(0)
        out = {
            name: lanes.hand_down(array[level, who], totals.get(name, nothing)) for name, array in before.items()
        }
        if level == 0 and self.floor and "deviation" in before:
            started = self.memory.start is not None
            nothing_before = self.levels.first[0] & (not started)
            out["least"] = LEAST_SHARE * lanes.hand_down(1.0 - nothing_before, np.ones(int(lanes.whole.sum())))
        if totals:
            some = self.levels.who[level - self.base + 1]
            last = np.cumsum(lanes.whole[lanes.whole > 0]) - 1
            for name, array in before.items():
                array[level, some] = totals[name][last]
        return out

    def _remember(self, lanes: Lanes, cells: Moments, level: int) -> None:
        """An open block is kept as it is; a whole one has gone into the level above."""
        who = self.levels.who[level - self.base]
        for name, array in self.memory.blocks.items():
            array[level, who] = 0.0
            array[level, who[lanes.open]] = lanes.opened(cells[name])

    def _join(self, cells: Moments, before: Moments, level: int, out: Moments | None) -> Moments:
        """What was before each lane joined to each of its elements, in place."""
        means = [name for name in MEANS if name in cells]
        others = [name for name in SPREADS if name in before]
        room = {name: cells[name] if name in cells else np.empty_like(cells["mean"]) for name in means + others}
        if "weight" in before and (level or (out and "weight" in out)):
            room["weight"] = cells.get("weight", np.empty_like(cells["mean"]))
        least = before.pop("least", None)
        for j in range(BLOCK):
            how, total = self._outer(cells, before, level, j)
            if others:
                row = {name: cells[name][j] for name in (*means, *others) if name in cells}
                if self.table is not None:
                    row["bias"] = self.table.biases[level][j]
                spread(before, row, how, careful=self.careful, least=None if j else least)
                for name in others:
                    room[name][j] = row[name]
            for name in means:
                blend(before[name], cells[name][j], how, self.careful)
            if "weight" in room:
                room["weight"][j] = total
        return room

    def _outer(self, cells: Moments, before: Moments, level: int, j: int) -> tuple[Mix, Any]:
        """How what is before a lane and its elements at one place are joined, and what both weigh."""
        table = self.table
        if "weight" not in before:
            return (mix(cells["decay"][j], cells["loss"][j]) if table is None else table.outer[level][j]), None
        if table is None:
            older, newer = before["weight"] * cells["decay"][j], cells["weight"][j]
        else:
            older, newer = before["weight"] * table.decays[level][j], table.weights[level][j]
        total = older + newer
        return mix(older, newer, total), total

    def _collect(self, lanes: Lanes, total: Moments, out: Moments | None) -> Moments:
        if out is None:
            size = int(lanes.counts.sum())
            out = {name: np.empty(size) for name in total}
        for name, array in out.items():
            lanes.collect(total[name], array)
        return out

    def _chain(self, elements: Moments) -> Moments:
        """The elements above the last level joined one after the other, to what was before them."""
        counts, who = self.levels.chain, self.levels.who[LEVELS - self.base]
        before = {name: array[LEVELS - 1, who] for name, array in self.memory.before.items()}
        fixed, alone = None, np.zeros(len(counts), bool)
        if self.table is not None:
            elements = elements | self._of_table(elements)
            if "weight" not in before:
                fixed, alone = self.table.outer[LEVELS][0], self.levels.first[LEVELS - self.base]
        elif "weight" not in before:
            before["loss"] = np.ones(len(counts))
        segment = np.repeat(np.arange(len(counts)), counts)
        step = np.arange(len(segment)) - np.repeat(np.cumsum(counts) - counts, counts) + ~alone[segment]
        cells = {name: np.zeros((1 + int(counts.max()), len(counts))) for name in elements}
        for name, array in before.items():
            cells[name][0] = array
        for name, array in elements.items():
            cells[name][step, segment] = array
        if "bias" in cells and self.table is not None:  # the first element of all is the average so far
            cells["bias"][0, alone] = self.table.firsts[LEVELS][0]
        walk(cells, lambda j: add_weights(cells, j) if fixed is None else fixed, {}, False, self.careful, False)
        return {name: cells[name][step, segment] for name in before}

    def _of_table(self, elements: Moments) -> Moments:
        """The weights of elements above the last level."""
        assert self.table is not None
        out = {"decay": self.table.decays[LEVELS][0], "weight": self.table.weights[LEVELS][0]}
        return out | ({"bias": self.table.biases[LEVELS][0]} if "deviation" in elements else {})


def _of_lanes(
    resumed: Mapping[int, tuple[Ints, Moments]], lanes: Ints
) -> dict[int, tuple[Ints, Moments]]:
    """What is resumed of some of the lanes (in order), by their place among these."""
    out = {}
    for j, (at, block) in resumed.items():
        place = np.searchsorted(lanes, at)
        mine = lanes[np.minimum(place, len(lanes) - 1)] == at
        out[j] = place[mine], {name: array[mine] for name, array in block.items()}
    return out


def add_weights(cells: Moments, j: int) -> Mix:
    """How each block so far is joined with its next element; puts in place what both weigh."""
    name = "weight" if "weight" in cells else "loss"
    fade = cells["decay"][j]
    older, newer = cells[name][j - 1] * fade, cells[name][j]
    total = older + newer
    how = mix(older, newer, total)
    if name == "weight" and "loss" in cells:
        cells["loss"][j] += cells["loss"][j - 1] * fade
    cells[name][j] = total
    fade *= cells["decay"][j - 1]
    if "loss" in cells:  # 1 − loss has more digits than a product of numbers close to 1
        np.subtract(1.0, cells["loss"][j], out=fade, where=cells["loss"][j] <= 0.5)
    return how


def walk(
    cells: Moments,
    inner: Callable[[int], Mix],
    resumed: Mapping[int, tuple[Ints, Moments]],
    single: bool,
    careful: bool,
    floor: bool,
) -> None:
    """Fold every lane from its first element on, in place: then each has the moments up to and including it.

    inner: how a lane so far is joined with its next element. resumed: by place, the lanes that have been folded up
    to there before, and what they came to. single: elements are rows, with a mean alone. floor:
    see `Scan`.
    """
    means = [name for name in MEANS if name in cells]
    others = [name for name in SPREADS if name in cells]
    weights = cells.get("weight", cells.get("loss")) if single and others and floor else None
    for j in range(len(cells["mean"])):
        if j:
            how = inner(j)
            if others:
                older = {name: cells[name][j - 1] for name in (*means, *others)}
                newer = {name: cells[name][j] for name in (*means, *others)}
                least = None if weights is None else LEAST_SHARE * (weights[j - 1] > 0)
                spread(older, newer, how, careful=careful, single=single, least=least)
                for name in others:
                    cells[name][j] = newer[name]
            for name in means:
                blend(cells[name][j - 1], cells[name][j], how, careful)
        if j in resumed:
            there, block = resumed[j]
            for name, array in block.items():
                cells[name][j, there] = array
