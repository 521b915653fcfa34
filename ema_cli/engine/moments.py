"""What is known of a run of rows, average and spread, and how two runs are joined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ema_cli.engine.kernel import Mix, bias_of, blend, mix, sides, spread_of
from ema_cli.engine.scratch import Floats
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


def join(older: Moments, newer: Moments, how: Mix, out: Moments) -> None:
    """The moments of two sides taken together; a newer side without a std is a single value."""
    if out.std is not None and out.bias is not None:
        assert older.std is not None
        assert older.bias is not None
        of = sides(how)
        out.std[...] = spread_of((older.std, newer.std), of, newer.mean - older.mean)
        out.bias[...] = bias_of((older.bias, newer.bias), of)
    blend(older.mean, newer.mean, how, out.mean)


def join_adjusted(
    older: Moments, mass: Floats, newer: Moments, fade: Mix, gain: Floats | float, out: Moments
) -> Floats:
    """`join` by what each side weighs: its mass, the older one's decayed; returns the mass of both."""
    left = blend(mass, _NOTHING, fade)
    total = left + gain
    join(older, newer, mix(gain, left, total), out)
    return total


_NOTHING = np.zeros(1)
