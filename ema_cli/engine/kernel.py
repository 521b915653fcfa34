"""The arithmetic: how two weighted averages become one, and what is left after some half-lives.

Every average here comes from joining two: an older one and a newer one. Each is a blend

    old weight·old + new weight·new        with weights that add up to 1,

written as base + pull·(new − old), where the base is whichever weighs more. That is exact where both are
equal, so a constant series stays that constant; and since |pull| ≤ ½, its rounding error is small against
what each side contributes, whatever their sizes. Only IEEE additions, multiplications, divisions and
square roots are used, so that every machine gets the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ema_cli.engine.scratch import Floats, Ints, Scratch

TINY = 5e-324  # the least number above 0: a divisor that does no harm where the dividend is 0


class Mix(NamedTuple):
    """How older and newer sides blend: the pull, and whether, or where, the base is the newer side."""

    pull: Any
    newer: Any

    def at(self, index: Any) -> Mix:
        """That of some rows."""
        return Mix(self.pull[index], self.newer if isinstance(self.newer, bool) else self.newer[index])

    def take(self, columns: Ints) -> Mix:
        """That of these columns (on the last axis), which may repeat."""
        newer = self.newer if isinstance(self.newer, bool) else np.take(self.newer, columns, axis=-1)
        return Mix(np.take(self.pull, columns, axis=-1), newer)


def mix(new: Floats | float, old: Floats, total: Floats | None = None, out: Floats | None = None) -> Mix:
    """How a newer and an older side of these weights blend. total: their sum, where that is not 1."""
    newer = np.greater_equal(new, old)  # also where both have vanished: then the newer side is all there is
    # Mostly all rows of a step lean to the same side, and picking one by one is what takes time.
    if not newer.any():
        return Mix(new if total is None else np.divide(new, total, out=out), False)
    pull = np.where(newer, np.negative(old), new)
    if total is not None:
        pull = np.divide(pull, np.maximum(total, TINY), out=out)
    return Mix(pull, True if newer.all() else newer)


def blend(old: Any, new: Any, how: Mix) -> Any:
    """The blend of two averages, numbers or arrays; that of an array is put in the place of `new`."""
    pull, newer = how
    if newer is False:  # the most frequent case needs no room
        new -= old
        new *= pull
        new += old
        return new
    move = new - old
    move *= pull
    if newer is not True:
        np.copyto(new, old, where=np.logical_not(newer))  # there the base is the older side
    new += move
    return new


def sides(how: Mix) -> tuple[Any, Any]:
    """What the older and the newer side of a blend weigh."""
    pull, newer = how
    light = abs(pull)
    heavy = 1.0 - light
    if newer is True or newer is False:
        return (light, heavy) if newer else (heavy, light)
    return np.where(newer, light, heavy), np.where(newer, heavy, light)


def norm(a: Floats, b: Floats) -> Floats:
    """√(a² + b²) for a, b ≥ 0, without overflow or underflow on the way."""
    large = np.maximum(a, b)
    ratio = np.minimum(a, b)
    ratio /= np.maximum(large, TINY)
    ratio *= ratio
    ratio += 1.0
    root = np.sqrt(ratio)
    root *= large
    return root


def spread_of(spreads: tuple[Floats, Floats | None], weights: tuple[Floats, Floats], apart: Floats) -> Floats:
    """The standard deviation (of weights that add up to 1) of two sides taken together.

    spreads, weights: of the older and the newer side (no spread: 0). apart: how far their means lie apart.
    The variance is old·v + new·w + old·new·apart² (Finch, "Incremental
    calculation of weighted mean and variance", 2009), kept as its root so that 1e300 does not overflow.
    """
    (older, newer), (old, new) = spreads, (np.sqrt(weights[0]), np.sqrt(weights[1]))
    inside = old * older if newer is None else norm(old * older, new * newer)
    return norm(inside, np.abs(apart) * (old * new))


def bias_of(biases: tuple[Floats, Floats | None], weights: tuple[Floats, Floats]) -> Floats:
    """1 − Σw² of two sides taken together, without subtracting: the pandas correction divides by it."""
    (older, newer), (old, new) = biases, weights
    inside = old * old * older if newer is None else old * old * older + new * new * newer
    return np.asarray(inside + 2.0 * (old * new))


CHUNK = 8_192  # rows at once: what is needed in between then stays in the nearest cache


def chunks(rows: int) -> Iterator[slice]:
    """Consecutive pieces of so many rows."""
    return (slice(begin, begin + CHUNK) for begin in range(0, rows, CHUNK))


_LN2 = 0.6931471805599453
# e^u − 1 = u·(1 + u/2 + u²/6 + …): 1/2!, 1/3! … 1/14!, the last first
_SERIES = (
    1.1470745597729725e-11, 1.6059043836821613e-10, 2.08767569878681e-09, 2.505210838544172e-08,
    2.755731922398589e-07, 2.7557319223985893e-06, 2.48015873015873e-05, 0.0001984126984126984,
    0.001388888888888889, 0.008333333333333333, 0.041666666666666664, 0.16666666666666666, 0.5,
)  # fmt: skip


def halve(elapsed: Ints, halflife: float, scratch: Scratch) -> tuple[Floats, Floats]:
    """(2^−z, 1 − 2^−z) for z = elapsed/halflife, to about one unit in the last place; 2^−1075 is 0."""
    decay, share = scratch.floats(len(elapsed)), scratch.floats(len(elapsed))
    for part in chunks(len(elapsed)):
        _halve(elapsed[part] / halflife, decay[part], share[part])
    return decay, share


def _halve(z: Floats, decay: Floats, share: Floats) -> None:
    """2^−z = 2^−n · e^(−f·ln 2) with n the nearest whole number and so |f·ln 2| ≤ 0.35.

    Written out as a series because NumPy's exp2 rounds differently from one processor to the next.
    """
    z = np.minimum(z, 1100.0, out=z)
    n = np.rint(z)
    u = np.subtract(n, z, out=z)
    u *= _LN2
    tail = u * _SERIES[0]
    for term in _SERIES[1:]:
        tail += term
        tail *= u
    tail += 1.0
    tail *= u  # e^u − 1
    if not n.any():  # as below, with factors of 1
        np.add(1.0, tail, out=decay)
        np.negative(tail, out=share)
        return
    # 2^-n by way of its exponent bits, in two factors because 2^-1074 is not a normal number
    whole = n.astype(np.int64)
    half = whole >> 1
    whole -= half
    scale = ((1023 - half) << 52).view(np.float64)
    np.multiply(tail, scale, out=decay)
    decay += scale
    decay *= ((1023 - whole) << 52).view(np.float64)
    np.subtract(1.0, decay, out=share)
    np.negative(tail, out=share, where=n == 0.0)
