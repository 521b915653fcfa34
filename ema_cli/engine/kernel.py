"""The arithmetic: one linear recurrence, in an order that does not depend on how the rows arrived.

Every average here is y[t] = p[t]·y[t−1] + q[t]·x[t] with p + q = 1, so y is a blend of the average at the
end of the block before (the *carry*) and of the rows of the block so far (the *local* average):

    y[t] = (weight of the carry)·carry + (weight of the block)·local[t]

The local averages of all blocks are walked side by side (see `lanes`), the carries form a short chain,
one link a block, and a last vectorised step blends the two. Each row's weights come from three numbers:

    decay   what is left of everything before it              d
    share   1 − d, given apart so that it keeps its digits    e
    gain    the weight it enters with                         g   (e if recursive, 1 if bias-corrected)

Why blends: base + w·(other − base) is exact where both are equal, so a constant series stays that
constant, and with w ≤ ½ its error is small against what each side contributes, whatever their sizes.
Only IEEE additions, multiplications, divisions and square roots are used, so that every machine agrees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from ema_cli.engine.lanes import BLOCK, Dense, Floats, Ragged

Layout = Dense | Ragged
# What a series remembers between calls: of the blocks behind it, and of the block it is in.
CARRY = ("carry", "carry_mass", "carry_std", "carry_bias")
LOCAL = ("decay", "share", "mass", "mean", "std", "bias")
WEIGHTS = ("decay", "share", "mass", "new", "old", "bias")  # the arrays of `Weights`
# A block not yet begun: nothing has decayed, nothing is in it.
BLANK = dict.fromkeys(CARRY + LOCAL, 0.0) | {"decay": 1.0}
Fold = dict[str, Floats]
Link = tuple[float, float, float, float]  # carry, its mass, std and bias


@dataclass(frozen=True)
class Weights:
    """The weights of rows within their blocks, up to and including each row.

    decay, share: what is left of the carry, and 1 − that. mass: sum of the gains, decayed.
    new, old: how a row and the local average before it blend. bias: 1 − Σw² of the normalised weights.
    One value a row in step-major order, or, if `constant`, one a position in the block.
    """

    decay: Floats
    share: Floats
    mass: Floats
    new: Floats
    old: Floats
    bias: Floats
    constant: bool = False

    @classmethod
    def of(cls, arrays: Fold, constant: bool) -> Weights:
        decay, share, mass, new, old, bias = (arrays[name] for name in WEIGHTS)
        return cls(decay, share, mass, new, old, bias, constant)


def blend(old: Floats, new: Floats, weight: Floats, rest: Floats) -> Floats:
    """rest·old + weight·new for weights that add up to 1; exact where old = new."""
    swap = weight > 0.5
    base = np.where(swap, new, old)
    other = np.where(swap, old, new)
    return np.asarray(base + np.where(swap, rest, weight) * (other - base))


def blend_one(old: float, new: float, weight: float, rest: float) -> float:
    """`blend` for single numbers: the same operations in the same order."""
    return new + rest * (old - new) if weight > 0.5 else old + weight * (new - old)


def norm(a: Floats, b: Floats) -> Floats:
    """√(a² + b²) for a, b ≥ 0, without overflow or underflow on the way."""
    large = np.maximum(a, b)
    ratio = np.minimum(a, b) / np.maximum(large, 5e-324)
    return np.asarray(large * np.sqrt(1.0 + ratio * ratio))


def halve(halflives: Floats) -> tuple[Floats, Floats]:
    """(2^−z, 1 − 2^−z) for z ≥ 0, each to about one unit in the last place.

    2^−z = 2^−n · exp(−f·ln 2) with n the nearest whole number: a Taylor series with |f·ln 2| ≤ 0.35,
    written out because NumPy's exp2 rounds differently from one processor to the next.
    """
    z = np.minimum(halflives, 1070.0)
    n = np.rint(z)
    u = (n - z) * 0.6931471805599453
    tail = 1.0 + u / 14.0
    for k in range(13, 1, -1):
        tail = 1.0 + u / k * tail
    minus_one = u * tail
    # ldexp by way of the exponent bits, in two factors because 2^-1070 is not a normal number
    half = (n // 2).astype(np.int64)
    scale = ((1023 - half) << 52).view(np.float64) * ((1023 - (n.astype(np.int64) - half)) << 52).view(
        np.float64
    )
    decay = scale + scale * minus_one
    return decay, np.where(n == 0, -minus_one, 1.0 - decay)


def toward(base: Floats, other: Floats, weight: Floats | float, out: Floats) -> None:
    """out = base + weight·(other − base), the half of `blend` where it is known which side is the base."""
    np.subtract(other, base, out=out)
    np.multiply(out, weight, out=out)
    np.add(out, base, out=out)


def local_weights(lanes: Layout, decay: Floats, share: Floats, gain: Floats | None, begin: Fold) -> Weights:
    """The weights of rows within their blocks, from each row's decay, share and gain (step-major).

    gain None: rows enter with their share (the recursive average). begin: each lane's values before its
    first row here.
    """
    out = Weights.of({name: lanes.empty() for name in WEIGHTS}, False)
    names = ("decay", "share", "mass", "bias")
    d, s, m, b = (begin[name].copy() for name in names)
    for j, at, who in lanes.steps():
        for lane in lanes.resumed.get(j, ()):
            d[lane], s[lane], m[lane], b[lane] = (begin[name][lane] for name in names)
        mine = slice(None) if who is None else who
        entering = share[at] if gain is None else gain[at]
        faded = decay[at] * m[mine]
        mass = faded + entering
        something = mass > 0.0  # no weight at all so far: let the newest row stand for the block
        safe = np.where(something, mass, 1.0)
        new, old = np.where(something, entering / safe, 1.0), faded / safe
        out.decay[at] = d[mine] = decay[at] * d[mine]
        out.share[at] = s[mine] = decay[at] * s[mine] + share[at]
        out.mass[at] = m[mine] = mass
        out.new[at], out.old[at] = new, old
        out.bias[at] = b[mine] = old * old * b[mine] + 2.0 * new * old
    return out


def constant_weights(decay: float, share: float, gain: float | None) -> Weights:
    """The weights by position in a block whose rows all decay alike."""
    lane = Dense(np.array([BLOCK]), np.array([0]))
    full = np.ones((BLOCK, 1))
    begin = {name: np.array([BLANK[name]]) for name in LOCAL}
    weights = local_weights(lane, full * decay, full * share, None if gain is None else full * gain, begin)
    return Weights.of({name: getattr(weights, name)[:, 0] for name in WEIGHTS}, True)


def local_means(lanes: Layout, x: Floats, weights: Weights, begin: Fold) -> Floats:
    """The local average up to and including each row (x and the result are step-major)."""
    out = lanes.empty()
    mean = begin["mean"].copy()
    scalars = list(zip(weights.new.tolist(), weights.old.tolist(), strict=True)) if weights.constant else None
    for j, at, who in lanes.steps():
        for lane in lanes.resumed.get(j, ()):
            mean[lane] = begin["mean"][lane]
        before, target = mean if who is None else mean[who], out[at]
        if scalars is None:
            target[...] = blend(before, x[at], weights.new[at], weights.old[at])
        elif scalars[j][0] > 0.5:
            toward(x[at], before, scalars[j][1], target)
        else:
            toward(before, x[at], scalars[j][0], target)
        if who is None:
            mean = target  # the next step reads it in place
        else:
            mean[who] = target
    return out


def local_stds(lanes: Layout, x: Floats, means: Floats, weights: Weights, begin: Fold) -> Floats:
    """The local standard deviation (of weights that add up to 1, not yet unbiased) at each row.

    variance ← old·variance + new·old·(x − mean)², kept as its root so that 1e300 does not overflow.
    Finch, "Incremental calculation of weighted mean and variance" (2009), equation 143.
    """
    out = lanes.empty()
    mean, std = begin["mean"].copy(), begin["std"].copy()
    fade, enter = np.sqrt(weights.old), np.sqrt(weights.new * weights.old)
    for j, at, who in lanes.steps():
        for lane in lanes.resumed.get(j, ()):
            mean[lane], std[lane] = begin["mean"][lane], begin["std"][lane]
        w = j if weights.constant else at
        mine = slice(None) if who is None else who
        out[at] = std[mine] = norm(fade[w] * std[mine], enter[w] * np.abs(x[at] - mean[mine]))
        mean[mine] = means[at]
    return out


def combine(lanes: Layout, local: Floats, weights: Weights, carry: Floats) -> Floats:
    """The recursive average at each row, from local averages (step-major) and carries (by lane)."""
    before = lanes.by_lane(carry)
    if not weights.constant:
        return blend(before, local, weights.share, weights.decay)
    # The weight of the block grows with the position, so one cut separates the two forms of a blend.
    out, before = np.empty_like(local), np.broadcast_to(before, local.shape)
    share, decay = lanes.by_step(weights.share), lanes.by_step(weights.decay)
    early, late = lanes.split(int(np.count_nonzero(weights.share <= 0.5)))
    toward(before[early], local[early], share[early], out[early])
    toward(local[late], before[late], decay[late], out[late])
    return out


def chain(lanes: Layout, ends: Fold, carry: Fold, link: Callable[[Link, Link], Link]) -> None:
    """Fill in each lane's carry (in place) from the lane before it in the same segment.

    ends: what each lane's block has come to at its last row here, by `Weights` name. carry: by lane, right
    for the first lane of each segment.
    """
    columns = [ends[name] for name in ("mean", "share", "decay", "mass", "std", "bias")]
    for segment in np.flatnonzero(lanes.last_lane > lanes.first_lane).tolist():
        first, last = int(lanes.first_lane[segment]), int(lanes.last_lane[segment])
        blocks = zip(*(column[first:last].tolist() for column in columns), strict=True)
        start = tuple(carry[name].item(first) for name in CARRY)
        links = np.array(list(accumulate(blocks, link, initial=start)))  # type: ignore[arg-type]
        for name, column in zip(CARRY, links.T, strict=True):
            carry[name][first : last + 1] = column
