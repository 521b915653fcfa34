"""How blocks of rows weigh, from how the rows do.

What an element (a row, or a block of the level below) needs to be joined besides its average:

    decay   what is left of everything before it
    share   1 − decay, given apart so that it keeps its digits
    gain    the weight it enters with: 1 for a row if bias-corrected, its share if recursive
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np

from ema_cli.engine.kernel import Mix, mix
from ema_cli.engine.lanes import BLOCK, Dense, Ragged
from ema_cli.engine.scratch import Floats, Scratch
from ema_cli.engine.state import BLANK, DECAYS, LEVELS, Memory

# Lanes from which a step is worth a call of its own: several columns, or many rows at once.
WIDE = 8192


@dataclass(frozen=True)
class Decays:
    """How elements weigh, one value an element; a gain of None is the share."""

    decay: Floats
    share: Floats
    gain: Floats | None

    def at(self, index: Any) -> Decays:
        """Those of some elements."""
        return Decays(self.decay[index], self.share[index], None if self.gain is None else self.gain[index])


@dataclass(frozen=True)
class Weights:
    """How blocks weigh up to and including each element; step-major, or, if `even`, lists by position.

    decay, share, mass: of the block so far. inner: how the block so far and the next element blend, step by
    step; outer: how the carry and the block so far do. whole: that and the mass for many positions at once.
    """

    decay: Any
    share: Any
    mass: Any
    inner: dict[int, Mix]
    outer: dict[int, Mix]
    whole: list[tuple[slice, Mix, Any]] | None
    even: bool = False


@lru_cache(maxsize=256)
def even_weights(decay: float, share: float, gain: float | None) -> list[Weights]:
    """The weights on each level, and of one element above them, where all rows decay alike."""
    tables = []
    lane = Dense(np.array([BLOCK]), np.array([0]), Scratch())
    begin = {name: np.array([BLANK[name]]) for name in DECAYS}
    for _ in range(LEVELS + 1):
        row = np.ones(BLOCK)
        given = Decays(row * decay, row * share, None if gain is None else row * gain)
        weights = weigh(lane, given, begin)
        decays, shares, masses = (getattr(weights, name)[:, 0].tolist() for name in DECAYS)
        inner, outer = (
            {j: Mix(how.pull.item(), bool(np.all(how.newer))) for j, how in steps.items()}
            for steps in (weights.inner, weights.outer)
        )
        whole = []
        for newer, alike in groupby(outer.items(), lambda step: step[1].newer):
            pulls = {j: how.pull for j, how in alike}
            some = slice(min(pulls), max(pulls) + 1)
            whole.append((some, Mix(np.array([[*pulls.values()]]).T, newer), weights.mass[some].copy()))
        tables.append(Weights(decays, shares, masses, inner, outer, whole, True))
        decay, share, gain = decays[-1], shares[-1], None if gain is None else masses[-1]
    return tables


def weigh(lanes: Dense | Ragged, given: Decays | None, begin: Memory) -> Weights:
    """The weights of blocks up to and including each element, from those of the elements."""
    assert given is not None
    decay, share = lanes.spread(given.decay), lanes.spread(given.share)
    fades, shares = lanes.empty(), lanes.empty()
    gain, masses = (share, shares) if given.gain is None else (lanes.spread(given.gain), lanes.empty())
    adjusted = given.gain is not None
    olds, pulls = lanes.empty(), lanes.empty()
    for _, at, before in lanes.walk(fades, begin["decay"]):
        np.multiply(before, decay[at], fades[at])
    if adjusted:
        for _, at, before in lanes.walk(shares, begin["share"]):
            np.add(before * decay[at], share[at], shares[at])
    steps = []
    for j, at, before in lanes.walk(masses, begin["mass" if adjusted else "share"]):
        np.multiply(before, decay[at], olds[at])
        np.add(olds[at], gain[at], masses[at])
        steps.append((j, at))
    if lanes.count > WIDE:
        inner = {j: mix(gain[at], olds[at], masses[at], pulls[at]) for j, at in steps}
        outer = {j: mix(shares[at], fades[at]) for j, at in steps}
        return Weights(fades, shares, masses, inner, outer, None)
    how, then = mix(gain, olds, masses, pulls), mix(shares, fades)
    inner = {j: how.at(at) for j, at in steps}
    whole = [(slice(None), then, masses)]
    return Weights(fades, shares, masses, inner, {j: then.at(at) for j, at in steps}, whole)


def ends_of(lanes: Dense | Ragged, weights: Weights) -> Decays | None:
    """How the complete blocks decay as elements of the level above, where there is no table."""
    if weights.even:
        return None
    decay, share = (lanes.at_ends(part) for part in (weights.decay, weights.share))
    gain = None if weights.mass is weights.share else lanes.at_ends(weights.mass)
    return Decays(decay, share, gain)
