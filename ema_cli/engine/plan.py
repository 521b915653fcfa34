"""One tile's rows sorted out for folding, which all weights and models share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ema_cli.engine.fold import Floor, Folding, Kind, make_floors
from ema_cli.engine.moments import Moments
from ema_cli.engine.rows import Rows
from ema_cli.engine.scratch import Bools, Ints, Scratch
from ema_cli.engine.state import BLANK, CARRY, LOCAL, Memory, State
from ema_cli.engine.weights import Decays

Index = Ints | slice


@dataclass(frozen=True)
class Part:
    """Some rows of some segments, consecutive in each. rows, segments: where they are in the tile."""

    rows: Index
    segments: Index
    counts: Ints
    floors: list[Floor]

    @property
    def last(self) -> Ints:
        """Where each segment's last row is within the part."""
        return np.asarray(np.cumsum(self.counts) - 1)


def make_part(rows: Rows, skip: Ints, counts: Ints, seen: Ints) -> Part | None:
    """So many rows of each segment, after those skipped; None if that is none at all.

    seen: rows of each segment that were folded before these.
    """
    some = counts > 0
    if not some.any():
        return None
    begin, segments = rows.first + skip, slice(None)
    index: Index = slice(None)
    if len(counts) == 1:
        index = slice(int(begin[0]), int(begin[0] + counts[0]))
    elif int(counts.sum()) < len(rows.values):
        index = np.arange(int(counts.sum())) + np.repeat(begin - (np.cumsum(counts) - counts), counts)
    if some.all():
        return Part(index, segments, counts, make_floors(counts, seen, rows.scratch))
    return Part(
        index, np.flatnonzero(some), counts[some], make_floors(counts[some], seen[some], rows.scratch)
    )


@dataclass(frozen=True)
class Plan:
    """What all weights share in one tile.

    lead: rows that only make up their series' first average; rest: the others. new: segments that have seen
    nothing yet. seen: what each has seen. begun: of the lead's segments, those that it completes.
    """

    rows: Rows
    new: Bools
    seen: Ints
    lead: Part | None
    begun: Bools
    rest: Part | None


def start_from_first(part: Part, rows: Rows, begun: Bools, memory: Memory, out: Moments) -> None:
    """The lead is the first value alone: its average, with no spread, is what the series starts from."""
    for _, array in out.given():
        array[part.rows] = 0.0
    out.mean[part.rows] = rows.values[part.rows]
    take_as_first(part, begun, memory, out)


def make_plan(rows: Rows, seen: Ints, lead: int) -> Plan:
    """Set aside the rows among each series' first `lead` ones, and lay out both lots. seen: rows before."""
    first = np.clip(lead - seen, 0, rows.counts)
    begun = (first + seen >= lead)[first > 0]
    start = make_part(rows, np.zeros_like(first), first, seen)
    rest = make_part(rows, first, rows.counts - first, np.maximum(seen - lead, 0))
    return Plan(rows, seen == 0, seen, start, begun, rest)


def fold_part(
    part: Part, rows: Rows, memory: Memory, decays: Decays | None, kind: Kind, out: Moments
) -> None:
    """Fold these rows into `memory` and put their moments into `out`. decays: of these rows."""
    mine = {name: array[:, part.segments] for name, array in memory.items()}
    index = part.rows
    in_place = isinstance(index, slice)
    room = out.at(index) if in_place else empty_moments(rows.scratch, int(part.counts.sum()), kind.std)
    Folding(part.floors, mine, kind).totals(Moments(rows.values[index]), decays, room)
    if not in_place:
        for (_, target), (_, source) in zip(out.given(), room.given(), strict=True):
            target[index] = source
    if not isinstance(part.segments, slice):
        for name, array in mine.items():
            memory[name][:, part.segments] = array


def take_as_first(part: Part, begun: Bools, memory: Memory, out: Moments) -> None:
    """The average at the last row of a lead is what its series starts from, with no block begun."""
    every = np.arange(len(memory["mean"][0]))
    segments = every[part.segments][begun]
    for name, (_, total) in zip(CARRY, out.given(), strict=False):
        memory[name][:, segments] = total[part.rows][part.last][begun]
    for name in LOCAL:
        if name in memory:
            memory[name][:, segments] = BLANK[name]


def empty_moments(scratch: Scratch, rows: int, std: bool) -> Moments:
    """Room for the moments of so many rows."""
    return Moments(*(scratch.floats(rows) for _ in range(3 if std else 1)))


def remember(state: State, memory: Memory, rows: Rows, weight: int) -> None:
    """Store each series' memory as its last segment left it."""
    series = rows.series
    if not rows.final.all():
        memory = {name: array[..., rows.final] for name, array in memory.items()}
        series = series[rows.final]
    state.store(memory, series, weight)
