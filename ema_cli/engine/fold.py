"""Rows into memory: local averages of blocks, blocks of blocks, and the totals handed down again.

A series is a tree that does not depend on how its rows arrive: blocks of 16 rows, blocks of 16 such blocks,
and so on for `LEVELS` levels. On each level the local average of a block (from its first element on) is
walked for all blocks side by side; the complete blocks are the elements of the level above, which hands
down the average of everything before each block (its *carry*); the two together are the totals. Above the
last level the elements are joined one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ema_cli.engine.chain import chain
from ema_cli.engine.kernel import Mix, bias_of, blend, mix, sides, spread_of
from ema_cli.engine.lanes import BLOCK, Dense, Floats, Ints, Ragged, make_lanes
from ema_cli.engine.moments import Moments, distinct, join, join_adjusted
from ema_cli.engine.scratch import Scratch
from ema_cli.engine.state import BLANK, CARRY, DECAYS, LEVELS, MOMENTS, Memory
from ema_cli.engine.weights import WIDE, Decays, Weights, ends_of, weigh


@dataclass(frozen=True)
class Kind:
    """What is averaged and how. tables: the weights on each level, where all rows decay alike."""

    adjusted: bool
    std: bool
    tables: Sequence[Weights] | None = None


@dataclass(frozen=True)
class Floor:
    """The elements of one level at hand: whose they are, how many each has, their lanes (but at the top)."""

    who: Ints
    counts: Ints
    lanes: Dense | Ragged | None


def make_floors(counts: Ints, seen: Ints, scratch: Scratch, base: int = 0) -> list[Floor]:
    """The levels that these elements of level `base` reach; nothing is on those below.

    counts: elements of each segment (> 0), seen: elements before them.
    """
    nobody = np.empty(0, np.int64)
    floors = [Floor(nobody, nobody, None)] * base
    who = np.arange(len(counts))
    for level in range(base, LEVELS):
        starts = seen // BLOCK ** (level - base) % BLOCK
        floors.append(Floor(who, counts, make_lanes(counts, starts, scratch)))
        complete = (starts + counts) // BLOCK
        some = complete > 0
        if not some.any():
            return floors
        who, counts, seen = who[some], complete[some], seen[some]
    return [*floors, Floor(who, counts, None)]


@dataclass(frozen=True)
class Folding:
    """One average of one tile: its floors, what its segments remember (moved on in place), and its kind."""

    floors: Sequence[Floor]
    memory: Memory
    kind: Kind

    def totals(
        self, values: Moments, decays: Decays | None, out: Moments | None = None, level: int = 0
    ) -> tuple[Moments, Floats | None]:
        """The moments after each element of a level, and what they weigh.

        That is None on the first level, where nobody asks, and where nothing is bias-corrected.

        values, decays: of the elements, segment after segment; no decays if the kind has tables.
        out: where the moments are to go, as they are on the first level.
        """
        floor, tables = self.floors[level], self.kind.tables
        if floor.lanes is None:
            return self._chain(values, decays)
        weights = tables[level] if tables else weigh(floor.lanes, decays, self._begin(level, DECAYS))
        local = walk_blocks(floor.lanes, values, weights, self._begin(level, MOMENTS), std=self.kind.std)
        carry = self._begin(level, CARRY)
        if level + 1 < len(self.floors):
            ends = local.each(floor.lanes.at_ends)
            self._hand_down(level, carry, self.totals(ends, ends_of(floor.lanes, weights), None, level + 1))
        self._remember(level, local, weights)
        masses = floor.lanes.empty() if self.kind.adjusted and level else None
        moments = self._join_all(floor.lanes, local, weights, carry, masses, out)
        return moments, None if masses is None else floor.lanes.collect(masses)

    def _begin(self, level: int, names: tuple[str, ...]) -> Memory:
        """By lane: what is remembered where a segment goes on, blank where a new block begins."""
        floor = self.floors[level]
        assert floor.lanes is not None
        out = {}
        for name in names:
            if name in self.memory:
                out[name] = np.zeros(floor.lanes.count)
                if BLANK[name]:  # to fill takes as long as to compute a step
                    out[name][:] = BLANK[name]
                out[name][floor.lanes.first_lane] = self.memory[name][level, floor.who]
        return out

    def take(self, values: Moments, decays: Decays | None, level: int) -> None:
        """Go on with elements of a level, the blocks below which are not begun."""
        moments, mass = self.totals(values, decays, None, level)
        last = np.cumsum(self.floors[level].counts) - 1
        for name, total in zip(CARRY, (moments.mean, moments.std, moments.bias, mass), strict=True):
            if total is not None and level:
                self.memory[name][level - 1] = total[last]

    def _hand_down(self, level: int, carry: Memory, totals: tuple[Moments, Floats | None]) -> None:
        """The totals of the level above are the carries of the lanes after them, and what is remembered."""
        lanes, above = self.floors[level].lanes, self.floors[level + 1]
        assert lanes is not None
        last = np.cumsum(above.counts) - 1
        moments, mass = totals
        for name, total in zip(CARRY, (moments.mean, moments.std, moments.bias, mass), strict=True):
            if total is not None:
                lanes.hand_on(carry[name], total)
                self.memory[name][level, above.who] = total[last]

    def _remember(self, level: int, local: Moments, weights: Weights) -> None:
        """An open block is kept as it is, a full one has gone into the level above."""
        floor = self.floors[level]
        lanes = floor.lanes
        assert lanes is not None
        parts = local.given()
        if not weights.even:
            parts += [(name, getattr(weights, name)) for name in DECAYS if name in self.memory]
        for name, part in parts:
            ends = lanes.at_last(part)
            ends[~lanes.open] = BLANK[name]
            self.memory[name][level, floor.who] = ends

    def _join_all(
        self,
        lanes: Dense | Ragged,
        local: Moments,
        weights: Weights,
        carry: Memory,
        masses: Floats | None,
        out: Moments | None,
    ) -> Moments:
        """Carry and local moments of each element taken together, in input order. Spends `local`.

        masses: room for what they stand for, step-major, where that is wanted.
        """
        before = [carry[name] for name in CARRY if name in carry]
        which = None
        if self.kind.adjusted and weights.even and isinstance(lanes, Dense):
            before[-1], which = distinct(before[-1])
        for at, how, mass, values in _steps(lanes, weights, before):
            older = Moments(*values[: 3 if self.kind.std else 1])
            if not self.kind.adjusted:
                both = join(older, local.at(at), how)
            else:
                both, total = join_adjusted(older, values[-1], local.at(at), how, mass, which)
                if masses is not None:
                    masses[at] = total
            local.put_spread(at, both)
        target = {} if out is None else dict(out.given())
        return Moments(*(lanes.collect(part, target.get(name)) for name, part in local.given()))

    def _chain(self, values: Moments, decays: Decays | None) -> tuple[Moments, Floats | None]:
        """Join the elements above the last level one after the other to its carry."""
        floor = self.floors[LEVELS]
        if self.kind.tables:
            table = self.kind.tables[LEVELS]
            how, gain = table.outer[0], table.mass[0]
        else:
            assert decays is not None
            how = mix(decays.share, decays.decay)
            gain = decays.share if decays.gain is None else decays.gain
        begin = [self.memory[name][LEVELS - 1, floor.who] for name in CARRY if name in self.memory]
        return chain(floor.counts, begin, values, (how, gain), adjusted=self.kind.adjusted)


def walk_blocks(
    lanes: Dense | Ragged, flat: Moments, weights: Weights, begin: Memory, *, std: bool
) -> Moments:
    """The local moments of blocks up to and including each element."""
    mean = lanes.spread(flat.mean)
    x = mean
    if std:  # which also needs the values, where the averages are to be
        x = lanes.empty()
        x[...] = mean
    for j, at, before in lanes.walk(mean, begin["mean"]):
        blend(before, mean[at], weights.inner[j])
    if not std:
        return Moments(mean)
    spread, bias = lanes.empty(), lanes.empty()
    stds = None if flat.std is None else lanes.spread(flat.std)
    biases = None if flat.bias is None else lanes.spread(flat.bias)
    arrays = (mean, spread, bias)
    walks = (lanes.walk(array, begin[name]) for name, array in zip(MOMENTS, arrays, strict=True))
    for (j, at, mean_before), (_, _, std_before), (_, _, bias_before) in zip(*walks, strict=True):
        of = sides(weights.inner[j])
        spreads = (std_before, None if stds is None else stds[at])
        spread[at] = spread_of(spreads, of, x[at] - mean_before)
        bias[at] = bias_of((bias_before, None if biases is None else biases[at]), of)
    return Moments(mean, spread, bias)


def fold_blocks(
    values: Moments, decays: Decays | None, kind: Kind, level: int, scratch: Scratch
) -> tuple[Moments, Decays | None]:
    """Complete blocks of a level, one after the other, as the elements of the level above.

    What came before them plays no part, which is why this can be done anywhere.
    """
    lanes = Dense(np.array([len(values.mean)]), np.zeros(1, np.int64), scratch)
    begin = {name: np.full(lanes.count, blank) for name, blank in BLANK.items()}
    weights = kind.tables[level] if kind.tables else weigh(lanes, decays, begin)
    local = walk_blocks(lanes, values, weights, begin, std=kind.std)
    return local.each(lanes.at_ends), ends_of(lanes, weights)


def _steps(
    lanes: Dense | Ragged, weights: Weights, carry: list[Floats]
) -> Iterator[tuple[int | slice, Mix, Any, list[Floats]]]:
    """Where elements lie, how the carry and they blend, their mass, and the carry of each: step by step.

    All at once where the lanes are few: then the calls are what takes time.
    """
    if weights.whole is not None and isinstance(lanes, Dense) and lanes.count <= WIDE:
        yield from ((*some, carry) for some in weights.whole)
        return
    for steps in zip(*(lanes.over(values) for values in carry), strict=True):
        j, at, _ = steps[0]
        yield at, weights.outer[j], weights.mass[j if weights.even else at], [v for _, _, v in steps]
