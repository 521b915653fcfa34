"""What is known of a run of rows, average and spread, and how two runs are joined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ema_cli.engine.kernel import Mix, bias_of, blend, mix, sides, spread_of
from ema_cli.engine.scratch import Floats, Ints
from ema_cli.engine.state import MOMENTS


@dataclass
class Moments:
    """Averages, and where asked for their standard deviations and 1 − Σw² of their weights."""

    mean: Floats
    std: Floats | None = None
    bias: Floats | None = None

    def unbiased_std(self) -> Floats:
        """The std as pandas has it: variance/(1 − Σw²) under a root; NaN where one value has all weight."""
        assert self.std is not None
        assert self.bias is not None
        root = np.sqrt(self.bias)
        np.copyto(root, np.nan, where=root == 0.0)
        return np.divide(self.std, root, out=root)

    def given(self) -> list[tuple[str, Floats]]:
        """The parts there are, by name."""
        parts = zip(MOMENTS, (self.mean, self.std, self.bias), strict=True)
        return [(name, part) for name, part in parts if part is not None]

    def at(self, index: Any) -> Moments:
        """Those of some elements."""
        if self.std is None or self.bias is None:
            return Moments(self.mean[index])
        return Moments(self.mean[index], self.std[index], self.bias[index])

    def each(self, change: Callable[[Floats], Floats]) -> Moments:
        """The parts there are, each put through a function."""
        return Moments(*(change(part) for _, part in self.given()))

    def put_spread(self, index: Any, joined: Moments) -> None:
        """All but the means of some elements, which `join` has put in their place."""
        if self.std is not None and self.bias is not None:
            self.std[index], self.bias[index] = joined.std, joined.bias


def join(older: Moments, newer: Moments, how: Mix) -> Moments:
    """The moments of two sides taken together; a newer side without a std is a single value.

    The mean is put in the place of the newer one.
    """
    if older.std is None or older.bias is None:
        return Moments(blend(older.mean, newer.mean, how))
    of = sides(how)
    std = spread_of((older.std, newer.std), of, newer.mean - older.mean)
    bias = bias_of((older.bias, newer.bias), of)
    return Moments(blend(older.mean, newer.mean, how), std, bias)


def join_adjusted(
    older: Moments, mass: Floats, newer: Moments, fade: Mix, gain: Floats | float, which: Ints | None = None
) -> tuple[Moments, Floats]:
    """`join` by what each side weighs: its mass, the older one's decayed; also the mass of both.

    which: where `mass` holds each value but once, the place of its own for each column of `newer`.
    """
    # To fade is to blend with nothing; here is where that is put.
    nothing = np.zeros(np.broadcast_shapes(np.shape(mass), np.shape(fade.pull)))
    left = blend(mass, nothing, fade)
    total = left + gain
    how = mix(gain, left, total)
    if which is not None:
        total, how = np.take(total, which, axis=-1), how.take(which)
    return join(older, newer, how), total


MANY = 8  # masses to each different one, on average, from which it pays to look at the different ones alone


def distinct(masses: Floats) -> tuple[Floats, Ints | None]:
    """The different masses and which of them each one is; or, where they are many, the masses as they are.

    Once the first rows have faded, masses differ by the rounding of the last digit only.
    """
    order = masses.argsort()  # np.unique would keep equal ones in order, which takes ten times as long
    ranked = masses[order]
    first = np.append(True, ranked[1:] != ranked[:-1])
    if np.count_nonzero(first) * MANY > len(masses):
        return masses, None
    which = np.empty(len(masses), np.int64)
    which[order] = first.cumsum() - 1
    return ranked[first], which
