"""Folding rows into what is remembered: local averages, the chain of carries, and the two combined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import sqrt

import numpy as np

from ema_cli.engine.kernel import (
    BLANK,
    CARRY,
    LOCAL,
    Fold,
    Layout,
    Link,
    Weights,
    blend,
    blend_one,
    chain,
    combine,
    local_means,
    local_stds,
    local_weights,
    norm,
)
from ema_cli.engine.lanes import BLOCK, Floats

# Decay, share and gain of each row, in input order (gain None: the share).
RowDecays = tuple[Floats, Floats, Floats | None]


@dataclass(frozen=True)
class Moments:
    """The average at each row and, where asked for, the standard deviation and 1 − Σw² of the weights."""

    mean: Floats
    std: Floats | None = None
    bias: Floats | None = None

    def unbiased_std(self) -> Floats:
        """The std pandas defines: the root of variance/(1 − Σw²); NaN where one value has all weight."""
        assert self.std is not None
        assert self.bias is not None
        enough = self.bias > 0.0
        return np.where(enough, self.std / np.sqrt(np.where(enough, self.bias, 1.0)), np.nan)


def fold(
    rows: Floats, lanes: Layout, given: Weights | RowDecays, state: Fold, kind: tuple[bool, bool]
) -> Moments:
    """The moments at each row; `state` (by segment, names of CARRY + LOCAL) is moved on in place.

    rows: values in input order, segment after segment. kind: (bias-corrected?, standard deviation too?).
    """
    adjusted, with_std = kind
    begin = _by_lane(lanes, state, LOCAL)
    weights = given if isinstance(given, Weights) else _row_weights(lanes, given, begin)
    carry = _by_lane(lanes, state, CARRY)
    x = lanes.spread(rows)
    local = local_means(lanes, x, weights, begin)
    stds = local_stds(lanes, x, local, weights, begin) if with_std else None
    ends = _at_ends(lanes, local, stds, weights)
    chain(lanes, ends, carry, partial(_link, adjusted, with_std))
    moments, mass = _combine(lanes, local, stds, weights, carry, adjusted)
    _move_on(lanes, state, carry, ends, moments, mass)
    std, bias = (None if v is None else lanes.collect(v) for v in (moments.std, moments.bias))
    return Moments(lanes.collect(moments.mean), std, bias)


def _row_weights(lanes: Layout, given: RowDecays, begin: Fold) -> Weights:
    decay, share, gain = given
    spread = None if gain is None else lanes.spread(gain)
    return local_weights(lanes, lanes.spread(decay), lanes.spread(share), spread, begin)


def _by_lane(lanes: Layout, state: Fold, names: tuple[str, ...]) -> Fold:
    """The state where a segment goes on, a blank one where a new block begins."""
    out = {}
    for name in names:
        out[name] = np.full(lanes.count, BLANK[name])
        out[name][lanes.first_lane] = state[name]
    return out


def _at_ends(lanes: Layout, local: Floats, stds: Floats | None, weights: Weights) -> Fold:
    at: Callable[[Floats], Floats] = (lambda v: v[lanes.end]) if weights.constant else lanes.at_ends
    ends = {name: at(getattr(weights, name)) for name in ("decay", "share", "mass", "bias")}
    ends["mean"] = lanes.at_ends(local)
    ends["std"] = np.zeros(lanes.count) if stds is None else lanes.at_ends(stds)
    return ends


def _combine(
    lanes: Layout, local: Floats, stds: Floats | None, weights: Weights, carry: Fold, adjusted: bool
) -> tuple[Moments, Floats | None]:
    """Moments at each row (step-major) and, if bias-corrected, the total mass there."""
    if not adjusted and stds is None:
        return Moments(combine(lanes, local, weights, carry["carry"])), None
    names = ("share", "decay", "mass", "bias")
    block, rest, inside, bias = (
        lanes.by_step(v) if weights.constant else v for v in (getattr(weights, name) for name in names)
    )
    mass = None
    if adjusted:
        faded = blend(lanes.by_lane(carry["carry_mass"]), np.zeros(1), block, rest)
        mass = faded + inside
        block, rest = inside / mass, faded / mass
    before = lanes.by_lane(carry["carry"])
    mean = blend(before, local, block, rest)
    if stds is None:
        return Moments(mean), mass
    parts = norm(np.sqrt(rest) * lanes.by_lane(carry["carry_std"]), np.sqrt(block) * stds)
    std = norm(parts, np.sqrt(block * rest) * np.abs(local - before))
    total_bias = rest * rest * lanes.by_lane(carry["carry_bias"]) + block * block * bias + 2.0 * block * rest
    return Moments(mean, std, np.broadcast_to(total_bias, mean.shape)), mass


def _link(adjusted: bool, with_std: bool, before: Link, block: tuple[float, ...]) -> Link:
    """The next carry: `_combine` for the last row of one block, in the same operations on plain numbers."""
    carry, carry_mass, carry_std, carry_bias = before
    mean, share, rest, inside, std, bias = block
    mass = 0.0
    if adjusted:
        faded = blend_one(carry_mass, 0.0, share, rest)
        mass = faded + inside
        share, rest = inside / mass, faded / mass
    new = blend_one(carry, mean, share, rest)
    if not with_std:
        return new, mass, 0.0, 0.0
    parts = _norm_one(sqrt(rest) * carry_std, sqrt(share) * std)
    total = _norm_one(parts, sqrt(share * rest) * abs(mean - carry))
    return new, mass, total, rest * rest * carry_bias + share * share * bias + 2.0 * share * rest


def _norm_one(a: float, b: float) -> float:
    large = max(a, b)
    ratio = min(a, b) / max(large, 5e-324)
    return large * sqrt(1.0 + ratio * ratio)


def _move_on(
    lanes: Layout, state: Fold, carry: Fold, ends: Fold, moments: Moments, mass: Floats | None
) -> None:
    """Leave in `state` what the next rows need: an open block as it is, a full one folded into its carry."""
    last = lanes.last_lane
    full = lanes.end[last] == BLOCK - 1
    totals = dict(zip(CARRY, (moments.mean, mass, moments.std, moments.bias), strict=True))
    for name, total in totals.items():
        state[name] = carry[name][last]
        if total is not None:
            state[name] = np.where(full, lanes.at_ends(total)[last], state[name])
    for name in LOCAL:
        state[name] = np.where(full, BLANK[name], ends[name][last])
