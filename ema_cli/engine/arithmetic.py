"""Two weighted averages joined into one, and what is left of a weight after some half-lives.

Every average here comes from joining an older stretch of a series with a newer one, by shares that add up
to 1:

    share of the older · mean of the older + share of the newer · mean of the newer

It is computed as base + pull·(newer − older), where the base is the mean of the side that weighs more. So
two equal means give that mean: a constant series stays constant. And |pull| ≤ ½, so rounding errors are
small against what each side contributes, whatever their sizes. Only IEEE additions, multiplications,
divisions and square roots are used, which give the same bits on every machine.

Where a difference or a square leaves the range of float64, NumPy raises FloatingPointError, and `safely` in
`engine` computes again with `careful=True`: elements out of range are then scaled, the others keep their
bits.
"""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

# Quantities of a stretch of rows, or of many side by side, by name; `scan` lists them.
Moments = dict[str, Any]
# Mean and deviation of one variable, or of the two whose correlation is asked for.
VARIABLES = (("mean", "deviation"), ("mean_y", "deviation_y"))
MEANS = ("mean", "mean_y")

LEVELS, BLOCK, BITS = 3, 16, 4  # levels of blocks, the elements of one, and their logarithm; see `scan`
TINY = 5e-324  # the least number above 0: a safe divisor where the dividend is 0
# The least share of the older side in a deviation, so that two observations always have one, however long
# the silence between them.
LEAST_SHARE = 2.0**-1022


class Mix(NamedTuple):
    """How an older and a newer side are joined, for one element or for many.

    pull: how far the mean moves from its base, as a share of the difference newer − older; None: it does not
    move, and keeps the sign of its zero. newer_heavier: whether (or where) the newer side is the base; there
    the pull is negative. least: in deviations the older side's share is at least this; None: any.
    """

    pull: Any
    newer_heavier: Any
    least: Any = None

    def shares(self) -> tuple[Any, Any]:
        """The shares of the older and of the newer side in deviations."""
        light = 0.0 if self.pull is None else abs(self.pull)
        heavy = 1.0 - light
        newest = self.newer_heavier
        if isinstance(newest, bool):
            older, newer = (light, heavy) if newest else (heavy, light)
        else:
            older, newer = np.where(newest, light, heavy), np.where(newest, heavy, light)
        return older if self.least is None else np.maximum(older, self.least), newer


def mix(older: Any, newer: Any, total: Any = None, least: Any = None) -> Mix:
    """How sides of these weights are joined. total: the sum of the weights, where that is not 1."""
    # Also where both weigh 0: then there is no older side.
    newer_heavier = newer >= older
    if isinstance(newer_heavier, bool):
        light = -older if newer_heavier else newer
        return Mix(light if total is None else light / max(total, TINY), newer_heavier, least)
    count = np.count_nonzero(newer_heavier)
    if not count:
        return Mix(newer if total is None else newer / total, False, least)
    if count == newer_heavier.size:
        light, newer_heavier = np.negative(older), True
    else:
        light = np.where(newer_heavier, np.negative(older), newer)
    return Mix(light if total is None else light / np.maximum(total, TINY), newer_heavier, least)


def join(old: Moments, new: Moments, how: Mix, out: Moments, careful: bool) -> None:
    """Put what is joined of means, deviations, correlation and bias, as far as `out` has them, into `out`.

    Its arrays may be those of either side. A new side without deviations is one value. Of two sides with
    shares a and b, means that differ by d, deviations r and s, and biases (1 − Σ shares²) p and q,

        variance = a·r² + b·s² + a·b·d²          bias = a²·p + b²·q + 2·a·b

    (Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances",
    1979). Deviations are roots of variances, so that 1e300 does not overflow.
    """
    (pull, newer_heavier, _), wide, sides = how, "deviation" in out, {}
    if wide:
        a, b = how.shares()
        roots = (math.sqrt(a), math.sqrt(b)) if isinstance(a, float) else (np.sqrt(a), np.sqrt(b))
    for mean, deviation in VARIABLES if "mean_y" in out else VARIABLES[:1]:
        older, newer, target = old[mean], new[mean], out[mean]
        # Where one side is no base, its place may be used: the older's if it is `out`, else the newer's.
        apart = np.subtract(newer, older, target if newer_heavier is (out is old) and not careful else None)
        far = careful and np.isinf(apart)
        if wide:
            within = [old[deviation] * roots[0]]
            within += [new[deviation] * roots[1]] if deviation in new else []
            sides[deviation] = [*within, _part(apart, roots[0] * roots[1], older, newer, far)]
        one_sided = isinstance(newer_heavier, bool)
        base = (newer if newer_heavier else older) if one_sided else np.where(newer_heavier, newer, older)
        if pull is None:
            target[...] = base
        else:
            move = np.multiply(apart, pull, apart) if far is False else _part(apart, pull, older, newer, far)
            np.add(base, move, target)
    if wide:
        for name, parts in sides.items():
            out[name][...] = _norm(parts, careful)
        if "correlation" in out:
            _correlate(old, new, sides, out)
        if "bias" in out:
            bias = old["bias"] * (a * a)
            bias += 2.0 * (a * b)
            out["bias"][...] = bias + new["bias"] * (b * b) if "bias" in new else bias


def _part(apart: Floats, factor: Any, older: Any, newer: Any, far: Any) -> Any:
    """(newer − older)·factor, for factors of at most ½. far: where the difference overflows, or False."""
    if far is not False and far.any():
        return np.where(far, newer * factor - older * factor, apart * factor)
    return apart * factor


def _correlate(old: Moments, new: Moments, sides: Moments, out: Moments) -> None:
    """Join the correlations, given the joined deviations; a covariance might leave float64's range."""
    x, y = (np.maximum(out[name], TINY) for name in sides)
    products = [(one / x) * (other / y) for one, other in zip(*sides.values(), strict=True)]
    rho = old["correlation"] * products[0] + products[-1]
    out["correlation"][...] = rho + new["correlation"] * products[1] if "correlation" in new else rho


def _norm(sides: list[Any], careful: bool) -> Any:
    """The root of the sum of squares, without overflow or underflow on the way if `careful`."""
    total = sides[0] * sides[0]
    for side in sides[1:]:
        total += side * side
    if careful:
        odd = ~((total >= 2.0**-900) & (total <= 2.0**1000))
        if odd.any():
            return np.where(odd, _scaled_norm(sides), np.sqrt(total))
    return np.sqrt(total, out=total)


def _scaled_norm(sides: list[Any]) -> Floats:
    """As `_norm`, scaled by a power of two, which changes no bit of what is in range."""
    largest = np.abs(sides[0])
    for side in sides[1:]:
        largest = np.maximum(largest, np.abs(side))
    _, exponent = np.frexp(largest)
    total = np.zeros_like(largest)
    for side in sides:
        scaled = np.ldexp(side, -exponent)
        total += scaled * scaled
    return np.asarray(np.ldexp(np.sqrt(total), exponent))


CHUNK = 16_384  # rows at once, so that intermediate arrays stay in the cache
_LN2 = 0.6931471805599453
_STEPS = 256  # of a half-life, in the table
# e^u − 1 = u·(1 + u/2 + u²/6 + …): 1/2!, 1/3! … 1/5!, the last first; |u| ≤ ln 2/512
_SERIES = (0.008333333333333333, 0.041666666666666664, 0.16666666666666666, 0.5)


@cache
def _powers() -> tuple[Floats, Floats]:
    """2^−(k/256) and 1 − 2^−(k/256) for k = 0 … 255, each right to its last bit."""
    with localcontext(prec=40):
        step = (Decimal(2).ln() / -_STEPS).exp()
        powers = [step**k for k in range(_STEPS)]
        return np.array([float(power) for power in powers]), np.array([float(1 - power) for power in powers])


def halve(elapsed: Ints, halflife: float) -> tuple[Floats, Floats]:
    """(2^−z, 1 − 2^−z) for z = elapsed/halflife, to about one unit in the last place; 2^−1075 is 0."""
    flat, step = elapsed.reshape(-1), halflife / _STEPS
    decay, loss = np.empty(len(flat)), np.empty(len(flat))
    for begin in range(0, len(flat), CHUNK):
        part = slice(begin, begin + CHUNK)
        _halve(flat[part] / step, float(flat[part].max()) / step, decay[part], loss[part])
    return decay.reshape(elapsed.shape), loss.reshape(elapsed.shape)


def _halve(z: Floats, most: float, decay: Floats, loss: Floats) -> None:
    """2^−z = 2^−n · 2^−(k/256) · e^u, with whole n and k < 256 from a table, and so |u| ≤ ln 2/512.

    z, most: in 256ths, and the largest of them. Every pass over the numbers counts here: what only long
    times need is left out where there are none, and arrays are used again. Written out as a series because
    NumPy's exp2 rounds differently from one processor to the next.
    """
    if most > 1100.0 * _STEPS:
        np.minimum(z, 1100.0 * _STEPS, out=z)
    nearest = np.rint(z)
    k, whole = nearest.astype(np.int64), None
    if most >= _STEPS - 0.5:
        k, whole = k & _STEPS - 1, k >> 8
    u = np.subtract(nearest, z, out=z)
    u *= _LN2 / _STEPS
    tail = np.multiply(u, _SERIES[0], out=nearest)
    for term in _SERIES[1:]:
        tail += term
        tail *= u
    tail += 1.0
    tail *= u  # e^u − 1
    powers, losses = _powers()
    power = powers.take(k, out=u, mode="clip")  # quicker than with a check
    tail *= power
    np.add(power, tail, out=decay)
    np.subtract(losses.take(k, out=u, mode="clip"), tail, out=loss)
    if whole is not None:
        # 2^-n by way of its exponent bits, in two factors because 2^-1074 is not a normal number
        half = whole >> 1
        for n in (half, whole - half):
            decay *= ((1023 - n) << 52).view(np.float64)
        np.subtract(1.0, decay, out=loss, where=whole > 0)
