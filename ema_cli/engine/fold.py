"""Rows into memory: local averages of blocks, blocks of blocks, and the totals handed down again.

A series is a tree that does not depend on how its rows arrive: blocks of 16 rows, blocks of 16 such blocks,
and so on for `LEVELS` levels. On each level the local average of a block (from its first element on) is
walked for all blocks side by side; the complete blocks are the elements of the level above, which hands
down the average of everything before each block (its *carry*); the two together are the totals. Above the
last level the elements are joined one after the other.

What an element needs to be joined: its average, and three numbers that say how it weighs.

    decay   what is left of everything before it
    share   1 − decay, given apart so that it keeps its digits
    gain    the weight it enters with: 1 for a row if bias-corrected, its share if recursive
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ema_cli.engine.kernel import Floats, Mix, bias_of, blend, mix, spread_of
from ema_cli.engine.lanes import BLOCK, Dense, Ints, Ragged, make_lanes

LEVELS = 3
# What a series remembers on each level: of all before its open block, and of the open block.
CARRY = ("carry_mean", "carry_std", "carry_bias", "carry_mass")
MOMENTS = ("mean", "std", "bias")
DECAYS = ("decay", "share", "mass")
LOCAL = MOMENTS + DECAYS
# A block not yet begun: nothing has decayed, nothing is in it.
BLANK = dict.fromkeys(CARRY + LOCAL, 0.0) | {"decay": 1.0}
Memory = dict[str, Floats]  # (LEVELS, segments) each


@dataclass(frozen=True)
class Moments:
    """Averages, and where asked for their standard deviations and 1 − Σw² of their weights."""

    mean: Floats
    std: Floats | None = None
    bias: Floats | None = None

    def unbiased_std(self) -> Floats:
        """The std as pandas defines it: variance/(1 − Σw²) under a root; NaN where one value has all weight."""
        assert self.std is not None
        assert self.bias is not None
        root = np.sqrt(self.bias)
        root[root == 0.0] = np.nan
        return np.divide(self.std, root, out=root)

    def given(self) -> list[tuple[str, Floats]]:
        """The parts there are, by name."""
        parts = zip(MOMENTS, (self.mean, self.std, self.bias), strict=True)
        return [(name, part) for name, part in parts if part is not None]


@dataclass(frozen=True)
class Decays:
    """How elements weigh, one value an element; a gain of None is the share."""

    decay: Floats
    share: Floats
    gain: Floats | None


@dataclass(frozen=True)
class Weights:
    """How blocks weigh up to and including each element; step-major, or, if `even`, by position.

    decay, share, mass: of the block so far. inner: how the block so far and the next element blend;
    outer: how the carry and the block so far do.
    """

    decay: Any
    share: Any
    mass: Any
    inner: Mix
    outer: Mix
    even: bool = False


@dataclass(frozen=True)
class Kind:
    """What is averaged and how. tables: the weights on each level, where all rows decay alike."""

    adjusted: bool
    std: bool
    tables: Sequence[Weights] | None = None


@dataclass(frozen=True)
class Floor:
    """The elements of one level at hand: whose they are, how many each has, and (below the top) their lanes."""

    who: Ints
    counts: Ints
    lanes: Dense | Ragged | None


def make_floors(counts: Ints, seen: Ints) -> list[Floor]:
    """The levels that these rows reach. counts: rows of each segment (> 0), seen: rows before them."""
    floors = []
    who = np.arange(len(counts))
    for level in range(LEVELS):
        starts = seen // BLOCK**level % BLOCK
        floors.append(Floor(who, counts, make_lanes(counts, starts)))
        complete = (starts + counts) // BLOCK
        some = complete > 0
        if not some.any():
            return floors
        who, counts, seen = who[some], complete[some], seen[some]
    return [*floors, Floor(who, counts, None)]


def fold(
    floors: Sequence[Floor],
    memory: Memory,
    elements: tuple[Moments, Decays | None],
    kind: Kind,
    level: int = 0,
) -> tuple[Moments, Floats | None]:
    """The totals after each element, and if bias-corrected their mass; `memory` is moved on in place.

    elements: in order, segment after segment, with their decays unless the kind has tables.
    """
    floor, (values, decays) = floors[level], elements
    if floor.lanes is None:
        return _chain(floor, memory, elements, kind)
    lanes = floor.lanes
    weights = (
        kind.tables[level]
        if kind.tables
        else _weigh(lanes, decays, _begin(floor, memory, level, DECAYS), kind)
    )
    local = _walk(lanes, values, weights, _begin(floor, memory, level, MOMENTS), kind)
    carry = _begin(floor, memory, level, CARRY)
    if lanes.full.size:
        ends = _at_ends(lanes, local, None if kind.tables else weights, lanes.full)
        above = fold(floors, memory, ends, kind, level + 1)
        _hand_down(floor, floors[level + 1], memory, level, carry, above)
    _remember(floor, memory, level, local, weights)
    return _totals(lanes, local, weights, carry, kind)


def even_weights(decay: float, share: float, gain: float | None) -> list[Weights]:
    """The weights on each level, and of one element above them, where all rows decay alike."""
    tables = []
    lane = Dense(np.array([BLOCK]), np.array([0]))
    begin = {name: np.array([BLANK[name]]) for name in DECAYS}
    kind = Kind(gain is not None, False)
    for _ in range(LEVELS + 1):
        row = np.ones(BLOCK)
        weights = _weigh(
            lane, Decays(row * decay, row * share, None if gain is None else row * gain), begin, kind
        )
        by_position = [getattr(weights, name)[:, 0].tolist() for name in DECAYS]
        mixes = [Mix(m.pull[:, 0].tolist(), m.newer[:, 0].tolist()) for m in (weights.inner, weights.outer)]
        decays, shares, masses = by_position
        tables.append(Weights(decays, shares, masses, mixes[0], mixes[1], True))
        decay, share, mass = decays[-1], shares[-1], masses[-1]
        gain = None if gain is None else mass
    return tables


def _begin(floor: Floor, memory: Memory, level: int, names: tuple[str, ...]) -> Memory:
    """By lane: what is remembered where a segment goes on, blank where a new block begins."""
    assert floor.lanes is not None
    out = {}
    for name in names:
        if name in memory:
            out[name] = np.full(floor.lanes.count, BLANK[name])
            out[name][floor.lanes.first_lane] = memory[name][level, floor.who]
    return out


def _weigh(lanes: Dense | Ragged, given: Decays | None, begin: Memory, kind: Kind) -> Weights:
    """The weights of blocks up to and including each element, from those of the elements."""
    assert given is not None
    decay, share = lanes.spread(given.decay), lanes.spread(given.share)
    gain = share if given.gain is None else lanes.spread(given.gain)
    fades, shares = lanes.empty(), lanes.empty()
    masses = lanes.empty() if kind.adjusted else shares
    inner, outer = (Mix(lanes.empty(), np.empty(fades.shape, bool)) for _ in range(2))
    for _, at, before in lanes.walk(fades, begin["decay"]):
        np.multiply(before, decay[at], out=fades[at])
    if kind.adjusted:
        for _, at, before in lanes.walk(shares, begin["share"]):
            shares[at] = before * decay[at] + share[at]
    for _, at, before in lanes.walk(masses, begin["mass" if kind.adjusted else "share"]):
        old = before * decay[at]
        np.add(old, gain[at], out=masses[at])
        inner.put(at, mix(gain[at], old, masses[at]))
        outer.put(at, mix(shares[at], fades[at]))
    return Weights(fades, shares, masses, inner, outer)


def join(older: Moments, newer: Moments, how: Mix, out: Floats | None = None) -> Moments:
    """The moments of two sides taken together; a newer side without a std is a single value."""
    if older.std is None:
        return Moments(blend(older.mean, newer.mean, how, out))
    assert older.bias is not None
    weights = how.weights()
    apart = newer.mean - older.mean
    std = spread_of((older.std, newer.std), weights, apart)
    bias = bias_of((older.bias, newer.bias), weights)
    return Moments(blend(older.mean, newer.mean, how, out), std, bias)


def _walk(lanes: Dense | Ragged, flat: Moments, weights: Weights, begin: Memory, kind: Kind) -> Moments:
    """The local moments of blocks up to and including each element."""
    x = {name: lanes.spread(part) for name, part in flat.given()}
    out = {name: lanes.empty() for name in (MOMENTS if kind.std else MOMENTS[:1])}
    for steps in zip(*(lanes.walk(array, begin[name]) for name, array in out.items()), strict=True):
        j, at, _ = steps[0]
        older = Moments(*(before for _, _, before in steps))
        newer = Moments(**{name: part[at] for name, part in x.items()})
        now = join(older, newer, weights.inner[j if weights.even else at], out["mean"][at])
        for name, part in now.given()[1:]:
            out[name][at] = part
    return Moments(**out)


def _totals(
    lanes: Dense | Ragged, local: Moments, weights: Weights, carry: Memory, kind: Kind
) -> tuple[Moments, Floats | None]:
    """Carry and local moments of each element taken together, in input order."""
    names = [name for name in CARRY if name in carry]
    parts = dict(local.given())
    mass = lanes.empty() if kind.adjusted else None
    for steps in zip(*(lanes.over(carry[name]) for name in names), strict=True):
        j, at, _ = steps[0]
        w = j if weights.even else at
        before = dict(zip(names, (value for _, _, value in steps), strict=True))
        newer = Moments(**{name: part[at] for name, part in parts.items()})
        now, total = _carry_on(before, newer, weights.outer[w], weights.mass[w], parts["mean"][at])
        for name, part in now.given()[1:]:
            parts[name][at] = part
        if mass is not None:
            mass[at] = total
    flat = Moments(**{name: lanes.collect(part) for name, part in parts.items()})
    return flat, None if mass is None else lanes.collect(mass)


def _carry_on(
    carry: Memory, newer: Moments, outer: Mix, mass: Any, out: Floats | None = None
) -> tuple[Moments, Floats | None]:
    """A carry and what comes after it, taken together; and the mass of both, if bias-corrected."""
    older = Moments(carry["carry_mean"], carry.get("carry_std"), carry.get("carry_bias"))
    if "carry_mass" not in carry:
        return join(older, newer, outer, out), None
    left = blend(carry["carry_mass"], np.zeros(1), outer)  # the carry's mass, decayed
    total = left + mass
    return join(older, newer, mix(mass, left, total), out), total


def _at_ends(
    lanes: Dense | Ragged, local: Moments, weights: Weights | None, which: Ints
) -> tuple[Moments, Decays | None]:
    """These lanes' blocks as elements of the level above."""
    moments = Moments(**{name: lanes.at_ends(part, which) for name, part in local.given()})
    if weights is None:
        return moments, None
    decay, share, mass = (lanes.at_ends(getattr(weights, name), which) for name in DECAYS)
    return moments, Decays(decay, share, mass)


def _hand_down(
    floor: Floor,
    above: Floor,
    memory: Memory,
    level: int,
    carry: Memory,
    totals: tuple[Moments, Floats | None],
) -> None:
    """The totals of the level above become the carries of the lanes after them, and what is remembered."""
    lanes = floor.lanes
    assert lanes is not None
    later = np.delete(np.arange(lanes.count), lanes.first_lane)
    rank = np.cumsum(lanes.end == BLOCK - 1) - 1  # of each lane among the full ones
    last = np.cumsum(above.counts) - 1
    moments, mass = totals
    for name, total in zip(CARRY, (moments.mean, moments.std, moments.bias, mass), strict=True):
        if total is not None:
            carry[name][later] = total[rank[later - 1]]
            memory[name][level, above.who] = total[last]


def _remember(floor: Floor, memory: Memory, level: int, local: Moments, weights: Weights) -> None:
    """An open block is kept as it is, a full one has gone into the level above."""
    lanes = floor.lanes
    assert lanes is not None
    full = lanes.end[lanes.last_lane] == BLOCK - 1
    parts = local.given()
    if not weights.even:
        parts += [(name, getattr(weights, name)) for name in DECAYS if name in memory]
    for name, part in parts:
        memory[name][level, floor.who] = np.where(full, BLANK[name], lanes.at_ends(part, lanes.last_lane))


def _chain(
    floor: Floor, memory: Memory, elements: tuple[Moments, Decays | None], kind: Kind
) -> tuple[Moments, Floats | None]:
    """Join the elements one after the other to the carry of the last level, all segments at once."""
    values, decays = elements
    names = [name for name in CARRY if name in memory]
    now = {name: memory[name][LEVELS - 1, floor.who] for name in names}
    out = {name: np.empty(len(values.mean)) for name in names}
    first = np.cumsum(floor.counts) - floor.counts
    for k in range(int(floor.counts.max())):
        going = np.flatnonzero(floor.counts > k)
        at = first[going] + k
        newer = Moments(**{name: part[at] for name, part in values.given()})
        if kind.tables:
            outer, mass = kind.tables[LEVELS].outer[0], kind.tables[LEVELS].mass[0]
        else:
            assert decays is not None
            outer = mix(decays.share[at], decays.decay[at])
            mass = decays.share[at] if decays.gain is None else decays.gain[at]
        carry = {name: part[going] for name, part in now.items()}
        moments, total = _carry_on(carry, newer, outer, mass)
        for name, part in zip(CARRY, (moments.mean, moments.std, moments.bias, total), strict=True):
            if part is not None:
                out[name][at] = now[name][going] = part
    moments = Moments(out["carry_mean"], out.get("carry_std"), out.get("carry_bias"))
    return moments, out.get("carry_mass")
