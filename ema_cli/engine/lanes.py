"""Blocks of a series laid side by side, so that NumPy can walk them all at once.

A series is cut into blocks of `BLOCK` elements counted from its own first one, never from where a chunk
of input happens to begin: that is what makes the result independent of how the input was cut. The part
of one block that lies in the elements at hand is a *lane*. Step j of the walk takes element j of every lane.

Two layouts do the same job and give the same bits. `Dense` pads the few lanes that start or end inside
a block and is a plain transpose; `Ragged` sorts the elements and wastes nothing where there are many
short lanes, as with thousands of interleaved keys. Arrays in walking order are called *step-major*.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ema_cli.engine.kernel import Floats

BLOCK = 16
FEW = 32  # segments that are better copied one by one than by an index

Ints = NDArray[np.int64]
# One step of a walk: its position in the block, where its elements lie in a step-major array, and one
# value for each of them (of its lane, or of the element before it).
Step = tuple[int, "int | slice", Floats]


class Lanes:
    """What both layouts know: which segment a lane belongs to, and where it starts and ends.

    counts: elements of each segment (> 0). starts: position in its block of each segment's first one.
    """

    def __init__(self, counts: Ints, starts: Ints) -> None:
        blocks = (starts + counts + (BLOCK - 1)) // BLOCK
        self.counts, self.starts = counts, starts
        self.last_lane: Ints = np.cumsum(blocks) - 1
        self.first_lane: Ints = self.last_lane - blocks + 1
        self.count = int(self.last_lane[-1]) + 1
        self.end: Ints = np.full(self.count, BLOCK - 1)
        self.end[self.last_lane] = (starts + counts - 1) % BLOCK

    @cached_property
    def full(self) -> Ints:
        """The lanes whose blocks are complete with the elements at hand."""
        return np.flatnonzero(self.end == BLOCK - 1)


class Dense(Lanes):
    """Step-major arrays have the shape (BLOCK, lanes); elements that are not there hold anything."""

    def __init__(self, counts: Ints, starts: Ints) -> None:
        super().__init__(counts, starts)
        one_lane_each = self.count == len(counts)
        self._steps = (int(starts.min()), int(self.end.max()) + 1) if one_lane_each else (0, BLOCK)
        self._resumed = {
            j: self.first_lane[starts == j] for j in (set(starts.tolist()) - {0} if starts.any() else ())
        }

    @cached_property
    def _places(self) -> slice | Ints | None:
        """Where the elements lie in the padded lanes, one after the other; None: ask `_spans`."""
        begins = self.first_lane * BLOCK + self.starts
        if len(self.counts) == 1:
            return slice(int(begins[0]), int(begins[0] + self.counts[0]))
        if len(self.counts) <= FEW:
            return None
        return np.arange(int(self.counts.sum())) + np.repeat(
            begins - (np.cumsum(self.counts) - self.counts), self.counts
        )

    @cached_property
    def _spans(self) -> list[tuple[slice, slice]]:
        """Each segment's place in the flat elements and in the padded lanes."""
        begins = (self.first_lane * BLOCK + self.starts).tolist()
        ends = np.cumsum(self.counts).tolist()
        sizes = zip(begins, ends, self.counts.tolist(), strict=True)
        return [(slice(end - n, end), slice(begin, begin + n)) for begin, end, n in sizes]

    def spread(self, flat: Floats) -> Floats:
        """Elements in input order to step-major."""
        if len(flat) == self.count * BLOCK:
            padded = np.ascontiguousarray(flat)
        else:
            padded = np.empty(self.count * BLOCK)
            padded[:BLOCK] = padded[-BLOCK:] = 0.0
            if (places := self._places) is not None:
                if len(self.counts) > 1:
                    padded[:] = 0.0
                padded[places] = flat
            else:
                padded[:] = 0.0
                for source, target in self._spans:
                    padded[target] = flat[source]
        return np.ascontiguousarray(padded.reshape(self.count, BLOCK).T)

    def collect(self, steps: Floats) -> Floats:
        """Step-major back to elements in input order."""
        padded = np.ascontiguousarray(steps.T).reshape(-1)
        if (places := self._places) is not None:
            return padded[places]
        return np.concatenate([padded[target] for _, target in self._spans])

    def empty(self) -> Floats:
        return np.empty((BLOCK, self.count))

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

    def at_ends(self, steps: Floats, lanes: Ints) -> Floats:
        """The value at the last element of these lanes."""
        return np.asarray(steps[self.end[lanes], lanes])


class Ragged(Lanes):
    """Step-major arrays hold just the elements, sorted by position in the block, then by lane."""

    def __init__(self, counts: Ints, starts: Ints) -> None:
        super().__init__(counts, starts)
        total = int(counts.sum())
        # Each element's place within its segment, counted from the start of the segment's first block.
        within = np.arange(total) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
        lane = np.repeat(self.first_lane, counts) + within // BLOCK
        position = (within % BLOCK).astype(np.uint8)
        self._order = np.argsort(position, kind="stable")  # a radix sort for bytes
        offsets = np.concatenate(([0], np.cumsum(np.bincount(position, minlength=BLOCK)))).tolist()
        lane = lane[self._order]
        self._steps = [
            (j, slice(begin, end), lane[begin:end])
            for j, (begin, end) in enumerate(zip(offsets, offsets[1:], strict=False))
            if begin < end
        ]
        where = np.empty(total, np.int64)
        where[self._order] = np.arange(total)
        rows_in_lane = self.end + 1
        rows_in_lane[self.first_lane] -= starts
        self._ends = where[np.cumsum(rows_in_lane) - 1]

    def spread(self, flat: Floats) -> Floats:
        return np.asarray(flat[self._order])

    def collect(self, steps: Floats) -> Floats:
        flat = np.empty_like(steps)
        flat[self._order] = steps
        return flat

    def empty(self) -> Floats:
        return np.empty(len(self._order))

    def walk(self, out: Floats, begin: Floats) -> Iterator[Step]:
        now = begin.copy()
        for j, at, lanes in self._steps:
            yield j, at, now[lanes]
            now[lanes] = out[at]

    def over(self, values: Floats) -> Iterator[Step]:
        return ((j, at, values[lanes]) for j, at, lanes in self._steps)

    def at_ends(self, steps: Floats, lanes: Ints) -> Floats:
        return np.asarray(steps[self._ends[lanes]])


def make_lanes(counts: Ints, starts: Ints) -> Dense | Ragged:
    """The cheaper layout for these segments; the choice shows in the time taken, never in the result."""
    if len(counts) == 1 or int(counts.sum()) >= 2 * BLOCK * len(counts):
        return Dense(counts, starts)
    return Ragged(counts, starts)
