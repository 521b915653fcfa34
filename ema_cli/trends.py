"""The new columns of a table: averages folded by the engine, laid out as they are written.

`smooth`, `Smoother` and both commands stand on this one class, so none of them can differ from another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ema_cli.average import Average
from ema_cli.engine.arithmetic import Bools, Moments
from ema_cli.engine.engine import Engine, KeyedRows
from ema_cli.engine.rows import Tile
from ema_cli.formats.base import Floats, Ints


def standard_deviation(moments: Moments) -> Floats:
    """As pandas has it: √(variance / (1 − Σ shares²)); NaN where one value has all the weight."""
    root = np.sqrt(moments["bias"])
    np.copyto(root, np.nan, where=root == 0.0)
    with np.errstate(over="ignore"):  # where values span all of float64 it may lie beyond
        return np.asarray(np.divide(moments["deviation"], root, out=root))


class Trends:
    """New columns for `columns` value columns, tile by tile.

    alphas: the weights found for each column where the average says `auto`; each column then has an engine
    of its own.
    """

    def __init__(self, average: Average, columns: int, alphas: Sequence[float] | None = None) -> None:
        self.average, self.columns = average, columns
        if alphas is None:
            self.engines = [Engine(average, columns)]
        else:
            self.engines = [Engine(average.with_alpha(alpha), 1) for alpha in alphas]

    @property
    def alphas(self) -> list[float]:
        """The weight of each engine's first average: one for all, or one a column where it was found."""
        return [engine.average.decays[0].alpha for engine in self.engines]

    @property
    def series(self) -> int:
        """How many series there are: one for each key."""
        return self.engines[0].state.keys

    def update(
        self,
        values: Floats,
        times: Ints | None = None,
        keys: KeyedRows | None = None,
        restarts: Bools | None = None,
        out: Floats | None = None,
    ) -> Floats:
        """The new fields of up to `TILE` rows (any number where there are no keys).

        values: (rows, columns), NaN where missing. restarts: (rows,), where a row's series begins afresh.
        Gives (rows, new columns) float64, NaN where blank; new columns run as `Average.names` does, column
        after column. out: (new columns, rows), where they may be put. Raises BackwardsTimeError, before
        anything is folded in.
        """
        if len(self.engines) == 1:
            return self._fold(self.engines[0], Tile(values, times, keys, restarts=restarts), out)
        parts = [
            self._fold(engine, Tile(values[:, k : k + 1], times, keys, restarts=restarts), None)
            for k, engine in enumerate(self.engines)
        ]
        return np.concatenate(parts, axis=1)

    def _fold(self, engine: Engine, tile: Tile, out: Floats | None) -> Floats:
        weights = len(self.average.decays)
        if not (self.average.is_bare and 1 in (weights, tile.columns)):
            return self._fields(tile.values, engine.update(tile))
        # Trends alone, which the engine puts out in the order of their names, each column behind the other.
        if out is None or (tile.columns > 1 and not out.flags.c_contiguous):
            out = np.empty((weights * tile.columns, tile.rows))
        engine.update(tile, {"mean": out.reshape(weights, tile.columns, tile.rows)})
        return out.T

    def _fields(self, values: Floats, moments: Moments) -> Floats:
        """Trend, residual, std and bands of every column and weight, in the order of their names."""
        average, mean = self.average, moments["mean"].swapaxes(0, 1)
        columns, weights, rows = mean.shape
        width = len(average.names(""))
        # Column after column, as they come from the engine; whoever needs rows turns them round once.
        out = np.empty((columns, weights, width // weights, rows))
        parts = [mean]
        if average.residual:
            parts.append(values.T[:, np.newaxis] - mean)
        if "deviation" in moments:
            std = standard_deviation(moments).swapaxes(0, 1)
            parts += [std] * average.std
            if average.bands is not None:
                with np.errstate(over="ignore"):  # a band may lie beyond float64 where its trend does not
                    parts += [mean - average.bands * std, mean + average.bands * std]
            if average.var:
                with np.errstate(over="ignore"):
                    parts.append(std * std)
        for k, part in enumerate(parts):
            out[:, :, k] = part
        return out.reshape(columns * width, rows).T

    def state(self) -> dict[str, Any]:
        """All that is remembered: arrays by name, one group an engine."""
        return {
            f"{k}.{name}": array
            for k, engine in enumerate(self.engines)
            for name, array in engine.state.trimmed().items()
        }

    def restore(self, arrays: Mapping[str, Any], keys: int) -> None:
        """Carry on from what `state` gave, for so many keys."""
        for k, engine in enumerate(self.engines):
            engine.state.restore({name: arrays[f"{k}.{name}"] for name in engine.state.arrays}, keys)
