"""Blocks of a series laid side by side, so that NumPy can walk them all at once.

A series is cut into blocks of `BLOCK` rows counted from its own first row, never from where a chunk of
input happens to begin: that is what makes the result independent of how the input was cut. The part of
one block that lies in the rows at hand is a *lane*. Step j of the walk takes row j of every lane.

Two layouts do the same job and give the same bits. `Dense` pads the few lanes that start or end inside
a block and is a plain transpose; `Ragged` sorts the rows and wastes nothing where there are many short
lanes, as with thousands of interleaved keys. Arrays in walking order are called *step-major*.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

BLOCK = 128

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
# One step: its position in the block, where its rows lie in a step-major array, and whose lanes they are
# (None: all of them, in order).
Step = tuple[int, "int | slice", Ints | None]


class Lanes:
    """What both layouts know: which segment a lane belongs to, and where it starts and ends.

    counts: rows of each segment (> 0). starts: position in its block of each segment's first row.
    """

    def __init__(self, counts: Ints, starts: Ints) -> None:
        blocks = (starts + counts + (BLOCK - 1)) // BLOCK
        self.counts, self.starts = counts, starts
        self.segment: Ints = np.repeat(np.arange(len(counts)), blocks)
        self.count = len(self.segment)
        self.last_lane: Ints = np.cumsum(blocks) - 1
        self.first_lane: Ints = self.last_lane - blocks + 1
        self.end: Ints = np.full(self.count, BLOCK - 1)
        self.end[self.last_lane] = (starts + counts - 1) % BLOCK
        self.start: Ints = np.zeros(self.count, np.int64)
        self.start[self.first_lane] = starts


class Dense(Lanes):
    """Step-major arrays have the shape (BLOCK, lanes); rows that are not there hold anything finite."""

    def __init__(self, counts: Ints, starts: Ints) -> None:
        super().__init__(counts, starts)
        ends = np.cumsum(counts)
        # Where each segment's rows lie in the flat input, and in the padded lanes.
        self._spans = [
            (slice(end - n, end), slice(lane * BLOCK + p, lane * BLOCK + p + n))
            for end, n, lane, p in zip(
                ends.tolist(), counts.tolist(), self.first_lane.tolist(), starts.tolist(), strict=True
            )
        ]
        self._steps = (0, BLOCK) if self.count > len(counts) else (int(starts.min()), int(self.end.max()) + 1)
        self.resumed: dict[int, list[int]] = {}
        for lane, p in zip(self.first_lane.tolist(), starts.tolist(), strict=True):
            if p:
                self.resumed.setdefault(p, []).append(lane)

    def spread(self, rows: NDArray[np.float64]) -> Floats:
        """Rows in input order to step-major."""
        padded = np.zeros(self.count * BLOCK)
        for source, target in self._spans:
            padded[target] = rows[source]
        return np.ascontiguousarray(padded.reshape(self.count, BLOCK).T)

    def collect(self, steps: Floats) -> Floats:
        """Step-major back to rows in input order."""
        padded = np.ascontiguousarray(steps.T).reshape(-1)
        if len(self._spans) == 1:
            return padded[self._spans[0][1]]
        return np.concatenate([padded[target] for _, target in self._spans])

    def empty(self) -> Floats:
        return np.zeros((BLOCK, self.count))

    def steps(self) -> Iterator[Step]:
        return ((j, j, None) for j in range(*self._steps))

    def by_lane(self, values: Floats) -> Floats:
        """One value a lane, to combine with step-major arrays."""
        return values

    def by_step(self, values: Floats) -> Floats:
        """One value a position, to combine with step-major arrays."""
        return values[:, np.newaxis]

    def split(self, position: int) -> tuple[slice, slice]:
        """The rows of a step-major array before and from a position."""
        return slice(0, position), slice(position, BLOCK)

    def at_ends(self, steps: Floats) -> Floats:
        """The value at each lane's last row."""
        return np.asarray(steps[self.end, np.arange(self.count)])


class Ragged(Lanes):
    """Step-major arrays hold just the rows, sorted by position in the block, then by lane."""

    def __init__(self, counts: Ints, starts: Ints) -> None:
        super().__init__(counts, starts)
        total = int(counts.sum())
        # Each row's index within its segment, counted from the start of the segment's first block.
        within = np.arange(total) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
        lane = np.repeat(self.first_lane, counts) + within // BLOCK
        position = (within % BLOCK).astype(np.uint8)
        self._order = np.argsort(position, kind="stable")  # a radix sort for bytes
        self._lane = lane[self._order]
        self._position = position[self._order].astype(np.intp)
        self._offsets = np.concatenate(([0], np.cumsum(np.bincount(position, minlength=BLOCK)))).tolist()
        where = np.empty(total, np.int64)
        where[self._order] = np.arange(total)
        self._ends = where[np.cumsum(self.end - self.start + 1) - 1]
        self.resumed: dict[int, list[int]] = {}  # a lane that has not begun is not touched here

    def spread(self, rows: NDArray[np.float64]) -> Floats:
        return np.asarray(rows[self._order])

    def collect(self, steps: Floats) -> Floats:
        rows = np.empty_like(steps)
        rows[self._order] = steps
        return rows

    def empty(self) -> Floats:
        return np.empty(len(self._order))

    def steps(self) -> Iterator[Step]:
        for j, (begin, end) in enumerate(zip(self._offsets, self._offsets[1:], strict=False)):
            if begin < end:
                yield j, slice(begin, end), self._lane[begin:end]

    def by_lane(self, values: Floats) -> Floats:
        return np.asarray(values[self._lane])

    def by_step(self, values: Floats) -> Floats:
        return np.asarray(values[self._position])

    def split(self, position: int) -> tuple[slice, slice]:
        middle = self._offsets[position]
        return slice(0, middle), slice(middle, None)

    def at_ends(self, steps: Floats) -> Floats:
        return np.asarray(steps[self._ends])


def make_lanes(counts: Ints, starts: Ints) -> Dense | Ragged:
    """The cheaper layout for these segments; the choice shows in the time taken, never in the result."""
    if int(counts.sum()) >= 2 * BLOCK * len(counts) or len(counts) == 1:
        return Dense(counts, starts)
    return Ragged(counts, starts)
