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

TINY = 5e-324  # the least number above 0: a safe divisor where the dividend is 0
# The least share of the older side in a deviation, so that two observations always have one, however long
# the silence between them.
LEAST_SHARE = 2.0**-1022


class Mix(NamedTuple):
    """How an older and a newer side are joined, for one element or for many.

    pull: how far the mean moves from its base, as a share of the difference newer − older. newer_heavier:
    whether (or where) the newer side is the base; there the pull is negative.
    """

    pull: Any
    newer_heavier: Any

    def shares(self) -> tuple[Any, Any]:
        """The shares of the older and of the newer side."""
        light = abs(self.pull)
        heavy = 1.0 - light
        newest = self.newer_heavier
        if isinstance(newest, bool):
            return (light, heavy) if newest else (heavy, light)
        return np.where(newest, light, heavy), np.where(newest, heavy, light)


def mix(older: Any, newer: Any, total: Any = None) -> Mix:
    """How sides of these weights are joined. total: the sum of the weights, where that is not 1."""
    # Also where both weigh 0: then there is no older side.
    newer_heavier = np.greater_equal(newer, older)
    count = np.count_nonzero(newer_heavier)
    if not count:
        return Mix(newer if total is None else newer / total, False)
    if count == newer_heavier.size:
        light = np.negative(older)
        return Mix(light if total is None else light / np.maximum(total, TINY), True)
    light = np.where(newer_heavier, np.negative(older), newer)
    return Mix(light if total is None else light / np.maximum(total, TINY), newer_heavier)


def blend(older: Floats, newer: Floats, how: Mix, out: Floats, careful: bool) -> Any:
    """Put the mean of both sides into `out`, which may be one of them."""
    pull, newer_heavier = how
    if isinstance(pull, float) and pull == 0.0:  # one side weighs nothing: a copy keeps the sign of zero
        out[...] = newer if newer_heavier else older
        return out
    if careful:
        move = _scaled_difference(older, newer, pull, careful=True)
    else:
        move = np.subtract(newer, older, out=newer if out is newer and newer_heavier is False else None)
        move *= pull
    if isinstance(newer_heavier, bool):
        return np.add(newer if newer_heavier else older, move, out=out)
    return np.add(np.where(newer_heavier, newer, older), move, out=out)


def _scaled_difference(older: Any, newer: Any, factor: Any, careful: bool) -> Any:
    """(newer − older)·factor, for factors of at most ½."""
    move = newer - older
    if careful and (far := np.isinf(move)).any():
        return np.where(far, newer * factor - older * factor, move * factor)
    move *= factor
    return move


def join_deviations(
    run: Moments, newer: Moments, how: Mix, *, single: bool, least: Any, careful: bool
) -> None:
    """Join deviation, bias and correlation of both sides, in place of the older side's in `run`.

    To be called before the means are joined. Of two sides with shares a and b, means that differ by d,
    deviations r and s, and biases (1 − Σ shares²) p and q,

        variance = a·r² + b·s² + a·b·d²          bias = a²·p + b²·q + 2·a·b

    (Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances",
    1979). Deviations are roots of variances, so that 1e300 does not overflow. single: the newer side is one
    value, whose deviation and bias are 0. least: the older side's share is at least this.
    """
    a, b = how.shares()
    a = a if least is None else np.maximum(a, least)
    roots = (math.sqrt(a), math.sqrt(b)) if isinstance(a, float) else (np.sqrt(a), np.sqrt(b))
    both = roots[0] * roots[1]
    sides = {}
    for mean, name in VARIABLES[: 1 + ("mean_y" in run)]:
        between = _scaled_difference(run[mean], newer[mean], both, careful)
        within = [run[name] * roots[0]] if single else [run[name] * roots[0], newer[name] * roots[1]]
        sides[name] = [*within, between]
    for name, parts in sides.items():
        run[name] = _norm(parts, careful)
    if "mean_y" in run:
        _correlate(run, newer, sides, single=single)
    if "bias" in run:
        bias = run["bias"] * (a * a)
        bias += 2.0 * (a * b)
        run["bias"] = bias if single else bias + newer["bias"] * (b * b)


def _correlate(run: Moments, newer: Moments, sides: Moments, *, single: bool) -> None:
    """Join the correlations, whose deviations are known; a covariance might leave float64's range."""
    x, y = (np.maximum(run[name], TINY) for name in sides)
    products = [(one / x) * (other / y) for one, other in zip(*sides.values(), strict=True)]
    rho = run["correlation"] * products[0] + products[-1]
    run["correlation"] = rho if single else rho + newer["correlation"] * products[1]


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
