"""Blocks of a series laid side by side, so that NumPy can walk them all at once.

A series is cut into blocks of `BLOCK` elements counted from its own first one, never from where a chunk
of input happens to begin: that is what makes the result independent of how the input was cut. The part
of one block that lies in the elements at hand is a *lane*. Step j of the walk takes element j of every lane.

Two layouts do the same job and give the same bits. `Dense` pads the lanes that start or end inside a block
and is a plain transpose; `Ragged` sorts the elements and wastes nothing where there are many short lanes,
as with thousands of interleaved keys. Arrays in walking order are called *step-major*.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise

import numpy as np

from ema_cli.engine.scratch import Bools, Floats, Ints, Scratch

__all__ = ["BLOCK", "Dense", "Floats", "Ints", "Lanes", "Ragged", "make_lanes"]
BLOCK = 16
FEW = 32  # segments that are better copied one by one than by an index

# One step of a walk: its position in the block, where its elements lie in a step-major array, and one
# value for each of them (of its lane, or of the element before it).
Step = tuple[int, "int | slice", Floats]


class Lanes:
    """What both layouts know: which segment a lane belongs to, and where it starts and ends.

    counts: elements of each segment (> 0). starts: position in its block of each segment's first one.
    """

    def __init__(self, counts: Ints, starts: Ints, scratch: Scratch) -> None:
        ends = starts + counts
        blocks = (ends + (BLOCK - 1)) // BLOCK
        self.counts, self.starts, self.scratch = counts, starts, scratch
        self.last_lane: Ints = blocks.cumsum() - 1
        self.first_lane: Ints = self.last_lane - blocks + 1
        self.count = int(self.last_lane[-1]) + 1
        self.final: Ints = (ends - 1) % BLOCK  # position in its block of each segment's last element
        self.open: Bools = ends % BLOCK > 0  # segments whose last block these elements do not complete

    @cached_property
    def full(self) -> slice | Bools:
        """Which lanes are complete blocks: all but the last ones of open segments."""
        if len(self.counts) == 1:
            return slice(self.count - int(self.open[0]))
        full = np.ones(self.count, bool)
        full[self.last_lane[self.open]] = False
        return full

    def hand_on(self, carry: Floats, totals: Floats) -> None:
        """Each lane but the first of its segment has what is there after the complete block before it.

        carry: by lane; totals: after each complete block.
        """
        if len(self.counts) == 1:
            carry[1:] = totals[: self.count - 1]
            return
        later, more = np.ones(self.count, bool), np.ones(self.count, bool)
        later[self.first_lane], more[self.last_lane] = False, False
        carry[later] = totals[more[self.full]]


class Dense(Lanes):
    """Step-major arrays have the shape (BLOCK, lanes); elements that are not there hold anything."""

    def __init__(self, counts: Ints, starts: Ints, scratch: Scratch) -> None:
        super().__init__(counts, starts, scratch)
        one_lane_each = self.count == len(counts)
        self._steps = (int(starts.min()), int(self.final.max()) + 1) if one_lane_each else (0, BLOCK)
        begun = sorted({*starts.tolist()} - {0})
        self._resumed = {j: self.first_lane[starts == j] for j in begun}

    @cached_property
    def _places(self) -> Ints:
        """Where the elements lie in the padded lanes, one after the other."""
        shift = self.first_lane * BLOCK + self.starts - (np.cumsum(self.counts) - self.counts)
        return np.asarray(np.arange(int(self.counts.sum())) + np.repeat(shift, self.counts))

    @cached_property
    def _pieces(self) -> list[tuple[slice, tuple[slice, slice | int], int]]:
        """Runs of elements, the place of each in a step-major array, and how many whole blocks it is."""
        pieces = []
        at = 0
        segments = (self.counts, self.starts, self.first_lane)
        for count, start, lane in zip(*(column.tolist() for column in segments), strict=True):
            end, position, lanes = at + count, start, lane
            while at < end:
                whole = (end - at) // BLOCK if position == 0 else 0
                size = whole * BLOCK or min(BLOCK - position, end - at)
                where = slice(lanes, lanes + whole) if whole else lanes
                pieces.append((slice(at, at + size), (slice(position, position + size), where), whole))
                at, position, lanes = at + size, 0, lanes + (whole or 1)
        return pieces

    def spread(self, flat: Floats) -> Floats:
        """Elements in input order to step-major."""
        steps = self.empty()
        if len(self.counts) > FEW:
            padded = self.scratch.floats(self.count * BLOCK)
            padded[self._places] = flat
            np.copyto(steps, padded.reshape(self.count, BLOCK).T)
            return steps
        for run, where, whole in self._pieces:
            steps[where] = flat[run].reshape(whole, BLOCK).T if whole else flat[run]
        return steps

    def collect(self, steps: Floats, out: Floats | None = None) -> Floats:
        """Step-major back to elements in input order."""
        if out is None:
            out = self.scratch.floats(int(self.counts.sum()))
        if len(self.counts) > FEW:
            padded = self.scratch.floats(self.count, BLOCK)
            np.copyto(padded, steps.T)
            return np.take(padded, self._places, out=out, mode="clip")  # the default mode would copy
        for run, where, whole in self._pieces:
            if whole:
                out[run].reshape(whole, BLOCK)[:] = steps[:, where[1]].T
            else:
                out[run] = steps[where]
        return out

    def empty(self) -> Floats:
        return self.scratch.floats(BLOCK, self.count)

    def walk(self, out: Floats, begin: Floats) -> Iterator[Step]:
        """Steps with what `out` holds for the elements before; begin (by lane): before the first ones."""
        before = begin
        for j in range(*self._steps):
            if (lanes := self._resumed.get(j)) is not None:
                before[lanes] = begin[lanes]  # an element that is not there makes way
            yield j, j, before
            before = out[j]

    def over(self, values: Floats) -> Iterator[Step]:
        """Steps with a value a lane."""
        return ((j, j, values) for j in range(*self._steps))

    def at_ends(self, steps: Floats) -> Floats:
        """The value at the end of each complete block."""
        return np.array(steps[BLOCK - 1][self.full])

    def at_last(self, steps: Floats) -> Floats:
        """The value at the last element of each segment."""
        return np.asarray(steps[self.final, self.last_lane])


class Ragged(Lanes):
    """Step-major arrays hold just the elements, sorted by position in the block, then by lane."""

    def __init__(self, counts: Ints, starts: Ints, scratch: Scratch) -> None:
        super().__init__(counts, starts, scratch)
        total = int(counts.sum())
        # Each element's place among all lanes if every one of them had BLOCK elements.
        shift = self.first_lane * BLOCK + starts - (np.cumsum(counts) - counts)
        place = np.arange(total) + np.repeat(shift, counts)
        position = (place % BLOCK).astype(np.uint8)
        self._order = np.argsort(position, kind="stable")  # a radix sort for bytes
        lane = (place // BLOCK)[self._order]
        offsets = [0, *np.cumsum(np.bincount(position, minlength=BLOCK)).tolist()]
        self._steps = [
            (j, slice(begin, end), lane[begin:end])
            for j, (begin, end) in enumerate(pairwise(offsets))
            if begin < end
        ]
        where = np.empty(total, np.int64)
        where[self._order] = np.arange(total)
        rows_in_lane = np.full(self.count, BLOCK)
        rows_in_lane[self.last_lane] = self.final + 1
        rows_in_lane[self.first_lane] -= starts
        self._ends = where[np.cumsum(rows_in_lane) - 1]

    def spread(self, flat: Floats) -> Floats:
        return np.take(flat, self._order, out=self.empty(), mode="clip")

    def collect(self, steps: Floats, out: Floats | None = None) -> Floats:
        if out is None:
            out = self.empty()
        out[self._order] = steps
        return out

    def empty(self) -> Floats:
        return self.scratch.floats(len(self._order))

    def walk(self, out: Floats, begin: Floats) -> Iterator[Step]:
        now = begin.copy()
        for j, at, lanes in self._steps:
            yield j, at, now[lanes]
            now[lanes] = out[at]

    def over(self, values: Floats) -> Iterator[Step]:
        return ((j, at, values[lanes]) for j, at, lanes in self._steps)

    def at_ends(self, steps: Floats) -> Floats:
        return np.asarray(steps[self._ends[self.full]])

    def at_last(self, steps: Floats) -> Floats:
        return np.asarray(steps[self._ends[self.last_lane]])


def make_lanes(counts: Ints, starts: Ints, scratch: Scratch) -> Dense | Ragged:
    """The cheaper layout for these segments; the choice shows in the time taken, never in the result."""
    if len(counts) == 1 or int(counts.sum()) >= 2 * BLOCK * len(counts):
        return Dense(counts, starts, scratch)
    return Ragged(counts, starts, scratch)
