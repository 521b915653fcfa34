"""The two-sided average: rows on both sides of a row count, by their distance from it.

    y[t] = Σ (1−α)^|i−t|·x[i] / Σ (1−α)^|i−t|           by time with 2^(−|Δt|/halflife)

Two bias-corrected averages are joined: one of all rows up to this one, computed from the first row on, and
one of all rows after it, computed from the last row back. So std, covariance, gaps, keys and weights of rows
work as elsewhere; see `engine/arithmetic.py` for how two averages are joined.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ema_cli.average import Average
from ema_cli.engine.arithmetic import LEAST_SHARE, Floats, Ints, Moments, mix
from ema_cli.engine.arithmetic import join as join_sides
from ema_cli.engine.engine import Engine, KeyedRows
from ema_cli.trends import Trends


class Centered:
    """Two-sided averages of `columns` columns.

    Pass all tiles to `forward`, from the first to the last, then to `fields`, from the last to the first.
    """

    def __init__(self, average: Average, columns: int) -> None:
        self.trends = Trends(average, columns)
        self.back = [
            Engine(engine.average, engine.columns, pairs=engine.pairs, exclusive=True)
            for engine in self.trends.engines
        ]

    @property
    def width(self) -> int:
        """How many numbers `forward` gives for each row."""
        engines = self.trends.engines
        return sum(len(e.moments) * len(e.average.decays) * e.columns for e in engines)

    def forward(self, values: Floats, times: Ints | None, keys: KeyedRows | None) -> Floats:
        """The moments of all rows up to each row, (numbers, rows). Parameters as for `Trends.update`.

        Raises BackwardsTimeError, before anything is folded in.
        """
        moments = [engine.update(tile) for engine, tile in self.trends.engine_tiles(values, times, keys)]
        flat = [array for one in moments for array in one.values()]  # (trends, columns, rows) each
        return np.concatenate([array.reshape(array.shape[0] * array.shape[1], len(values)) for array in flat])

    def fields(self, values: Floats, times: Ints | None, keys: KeyedRows | None, forward: Floats) -> Floats:
        """The new fields of a tile, (rows, new columns). forward: what `forward` gave for it."""
        turned = None if times is None else -times[::-1]
        keyed = None if keys is None else KeyedRows(keys.codes[::-1], keys.slots, keys.counts)
        tiles = self.trends.engine_tiles(values[::-1], turned, keyed)
        joined = []
        for engine, (_, tile), before in zip(self.back, tiles, self._split(forward), strict=True):
            after = {name: array[:, :, ::-1] for name, array in engine.update(tile).items()}
            joined.append(join(before, after))
        return self.trends.lay_out(next(self.trends.tiles(values, times, keys)), joined)

    def _split(self, forward: Floats) -> Iterator[Moments]:
        """What `forward` gave, engine by engine."""
        begin = 0
        for engine in self.trends.engines:
            shape = len(engine.average.decays), engine.columns, forward.shape[1]
            moments = {}
            for name in engine.moments:
                moments[name] = forward[begin : begin + shape[0] * shape[1]].reshape(shape)
                begin += shape[0] * shape[1]
            yield moments


def join(before: Moments, after: Moments) -> Moments:
    """Join the averages of all rows up to a row and of all after it."""
    own, further = before["weight"], after["weight"]
    out = {name: np.empty(array.shape) for name, array in after.items()}
    with np.errstate(all="ignore"):
        # A share raised to LEAST_SHARE gives the std of two observations, and must not move the mean.
        least = np.maximum(further / (own + further), LEAST_SHARE) * (further > 0.0)
        further = np.where(further > LEAST_SHARE, further, 0.0)
        out["weight"][...] = own + further
        join_sides(after, before, mix(further, own, own + further, least), out, careful=True)
    last = after["weight"] == 0.0
    return {name: np.where(last, before[name], array) for name, array in out.items()}
