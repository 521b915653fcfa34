"""The new columns of a table: the engine's moments made into trends, deviations and so on.

`smooth`, `Smoother`, the command and the cluster all use `Trends`, so their numbers can't differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from ema_cli.average import Average
from ema_cli.engine.arithmetic import Bools, Moments
from ema_cli.engine.engine import Engine, KeyedRows
from ema_cli.engine.rows import Tile
from ema_cli.errors import OptionError
from ema_cli.formats.base import Floats, Ints


class Trends:
    """New columns for `columns` value columns, tile by tile.

    alphas: the weight found for each column by `--alpha auto`; each column then has an engine of its own.
    engines: all engines, those of the trends first, which is their order in a state.

    Raises OptionError where pairs of columns are asked for, but there is only one column.
    """

    def __init__(self, average: Average, columns: int, alphas: Sequence[float] | None = None) -> None:
        self.average, self.columns = average, columns
        if average.paired and columns < 2:
            option = "--cov" if average.cov else "--corr"
            raise OptionError(f"{option} is of pairs of columns, and there is but one", "two columns or more")
        if alphas is None:
            self.groups = [Group(average, columns)]
        else:
            self.groups = [Group(average.with_alpha(alpha), 1) for alpha in alphas]
        self.pairs = Pairs(average, columns) if average.paired else None
        self.engines = [group.main for group in self.groups]
        self.engines += [engine for group in self.groups for engine in group.further]
        if self.pairs is not None:
            self.engines.append(self.pairs.engine)

    @property
    def alphas(self) -> list[float]:
        """The weight of each group's first average: one for all, or one a column where it was found."""
        return [group.average.decays[0].alpha for group in self.groups]

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
        """The new fields of some rows.

        values: (rows, columns), NaN where missing; weights of rows are one more column. restarts: (rows,),
        where a row's series begins afresh. out: (new columns, rows), an array that may be used. Gives
        (rows, new columns) float64, NaN where blank, in the order of `Average.all_names`. Raises
        BackwardsTimeError, before anything is folded in.
        """
        tiles = list(self.tiles(values, times, keys, restarts))
        if self.average.is_bare and len(tiles) == 1:
            return self._bare(tiles[0], out)
        if out is None:
            out = np.empty((self.average.width(self.columns), len(values)))
        moments = [group.update(tile) for group, tile in zip(self.groups, tiles, strict=True)]
        if self.pairs is not None:
            moments.append(self.pairs.engine.update(self.pairs.tile(tiles[0])))
        return self._lay_out(tiles, moments, out)

    def lay_out(self, tile: Tile, moments: Sequence[Moments]) -> Floats:
        """New fields from moments computed elsewhere, for columns that share their weights."""
        out = np.empty((self.average.width(self.columns), tile.rows))
        return self._lay_out([tile], moments, out)

    def _lay_out(self, tiles: Sequence[Tile], moments: Sequence[Moments], out: Floats) -> Floats:
        """New fields. moments: of the trends' engines, then of the pairs' engine."""
        begin, each = 0, self.average.width(1)
        for group, tile, mine in zip(self.groups, tiles, moments, strict=False):
            rows = out[begin : begin + each * tile.columns].reshape(tile.columns, each, tile.rows)
            group.lay_out(tile, mine, rows)
            begin += each * tile.columns
        if self.pairs is not None:
            self.pairs.lay_out(moments[-1], out[begin:])
        return out.T

    def tiles(
        self,
        values: Floats,
        times: Ints | None = None,
        keys: KeyedRows | None = None,
        restarts: Bools | None = None,
    ) -> Iterator[Tile]:
        """The rows as tiles, one for each group's engines."""
        weights = None
        if self.average.weighted:
            values, weights = values[:, :-1], values[:, -1]
            values = np.where(weights[:, np.newaxis] > 0, values, np.nan)
        begin = 0
        for group in self.groups:
            some = values[:, begin : begin + group.columns]
            yield Tile(some, times, keys, weights=weights, restarts=restarts)
            begin += group.columns

    @property
    def independent(self) -> list[Engine]:
        """The engines that fold the input's values; the others average averages."""
        sums = [group.sums for group in self.groups if group.sums is not None]
        pairs = [] if self.pairs is None else [self.pairs.engine]
        return [*(group.main for group in self.groups), *sums, *pairs]

    def engine_tiles(
        self, values: Floats, times: Ints | None, keys: KeyedRows | None
    ) -> Iterator[tuple[Engine, Tile]]:
        """The rows as a tile for each of the independent engines."""
        tiles = list(self.tiles(values, times, keys))
        sums = [tile for group, tile in zip(self.groups, tiles, strict=True) if group.sums is not None]
        pairs = [] if self.pairs is None else [self.pairs.tile(tiles[0])]
        yield from zip(self.independent, [*tiles, *sums, *pairs], strict=True)

    def _bare(self, tile: Tile, out: Floats | None) -> Floats:
        """Trends alone: with one weight or one column, the engine writes them in their final order."""
        weights = len(self.average.decays)
        if 1 not in (weights, tile.columns):
            mean: Floats = self.engines[0].update(tile)["mean"].swapaxes(0, 1)
            return mean.reshape(weights * tile.columns, tile.rows).T
        if out is None or (tile.columns > 1 and not out.flags.c_contiguous):
            out = np.empty((weights * tile.columns, tile.rows))
        self.engines[0].update(tile, {"mean": out.reshape(weights, tile.columns, tile.rows)})
        return out.T

    def state(self) -> dict[str, Any]:
        """The memory: arrays by name, prefixed by their engine's number."""
        return {
            f"{k}.{name}": array
            for k, engine in enumerate(self.engines)
            for name, array in engine.state.trimmed().items()
        }

    def restore(self, arrays: Mapping[str, Any], keys: int) -> None:
        """Carry on from what `state` gave, for so many keys."""
        for k, engine in enumerate(self.engines):
            engine.state.restore({name: arrays[f"{k}.{name}"] for name in engine.state.arrays}, keys)


class Group:
    """The engines of some columns that share their weights.

    main: for trends and deviations. sums: for bias-corrected averages, from which sums are made; None if
    those of `main` are. stages: for each weight, the averages of its averages, one after the other.
    """

    def __init__(self, average: Average, columns: int) -> None:
        self.average, self.columns = average, columns
        self.main = Engine(average, columns)
        self.sums = None
        if average.sum and not average.adjust:
            plain = tuple(replace(decay, seed=0) for decay in average.decays)
            self.sums = Engine(average.plain(decays=plain, adjust=True, init="first", sum=True), columns)
        again = average.plain(min_periods=0)
        # Averages of averages also need the averages that `min_periods` blanks: one more stage.
        stages = average.stages and average.stages + (average.min_periods > 1)
        self.stages = [
            [Engine(replace(again, decays=(decay,)), columns) for _ in range(stages)]
            for decay in average.decays
        ]

    @property
    def further(self) -> list[Engine]:
        """The engines besides the first."""
        sums = [] if self.sums is None else [self.sums]
        return [*sums, *(engine for chain in self.stages for engine in chain)]

    def update(self, tile: Tile) -> Moments:
        """Fold a tile in: the moments of `main`, and with `fill` the share of a sum that is left on a row."""
        left = self.main.fading(tile) if self.average.sum and self.average.fill else None
        return self.main.update(tile) | ({} if left is None else {"left": left})

    def lay_out(self, tile: Tile, moments: Moments, out: Floats) -> None:
        """All new fields into `out`: (columns, new columns of each, rows). moments: what `update` gave."""
        parts, names = self._parts(tile, moments), self.average.parts
        for k, name in enumerate(names):
            out[:, k : k + len(names) * len(parts[name]) : len(names)] = parts[name].swapaxes(0, 1)
        if self.average.diff:
            out[:, -1] = moments["mean"][0] - moments["mean"][1]

    def _parts(self, tile: Tile, moments: Moments) -> dict[str, Floats]:
        """What `Average.parts` names, each (trends, columns, rows)."""
        average, mean = self.average, moments["mean"]
        parts = {"ema": mean} | deviations(average, moments)
        if average.residual:
            parts["residual"] = tile.values.T - mean
        with np.errstate(over="ignore"):  # a sum may lie beyond float64 where its trend does not
            if average.sum:
                adjusted = moments if self.sums is None else self.sums.update(tile)
                parts["sum"] = adjusted["mean"] * adjusted["weight"] * moments.get("left", 1.0)
            if average.stages:
                parts |= self._again(tile, mean)
        return parts

    def _again(self, tile: Tile, mean: Floats) -> dict[str, Floats]:
        """2y − ema(y), and 3y − 3·ema(y) + ema(ema(y)) where asked for."""
        averages = [self._chain(tile, chain, mean[k]) for k, chain in enumerate(self.stages)]
        once, twice = (np.stack([pair[k] for pair in averages]) for k in (0, -1))
        # As differences, so that a constant stays what it is.
        parts = {"dema": mean + (mean - once)}
        if self.average.triple:
            parts["tema"] = mean + 2 * (mean - once) - (once - twice)
        return parts

    def _chain(self, tile: Tile, chain: list[Engine], mean: Floats) -> list[Floats]:
        """The averages of averages by one weight, (columns, rows) each."""
        out = []
        if self.average.min_periods > 1:
            mean, chain = chain[0].update(tile)["mean"][0], chain[1:]
        for engine in chain:
            seen = np.where(tile.missing, np.nan, mean.T)  # an average held on missing rows counts once
            again = Tile(seen, tile.times, tile.keys, weights=tile.weights, restarts=tile.restarts)
            mean = engine.update(again)["mean"][0]
            out.append(mean)
        return out


class Pairs:
    """Covariance and correlation of every pair of columns."""

    def __init__(self, average: Average, columns: int) -> None:
        self.average = average
        self.places = list(combinations(range(columns), 2))
        self.engine = Engine(average.plain(), len(self.places), pairs=True)

    def tile(self, tile: Tile) -> Tile:
        """The rows as a tile of pairs; a row is missing where either value is."""
        one, other = (tile.values[:, [pair[k] for pair in self.places]] for k in (0, 1))
        return Tile(one, tile.times, tile.keys, other, tile.weights, tile.restarts)

    def lay_out(self, moments: Moments, out: Floats) -> None:
        """All new fields into `out`: (new columns, rows)."""
        parts, names = correlations(self.average, moments), self.average.pair_parts
        rows = out.reshape(len(self.places), len(self.average.decays), len(names), out.shape[-1])
        for k, name in enumerate(names):
            rows[:, :, k] = parts[name].swapaxes(0, 1)


def deviations(average: Average, moments: Moments) -> dict[str, Floats]:
    """Standard deviation, bands and variance, as far as asked for, by their names in `Average.parts`."""
    if not average.needs_std:
        return {}
    mean, std = moments["mean"], standard_deviation(average, moments)
    parts = {"std": std}
    with np.errstate(over="ignore"):  # a band may lie beyond float64 where its trend does not
        if average.bands is not None:
            parts |= {"lower": mean - average.bands * std, "upper": mean + average.bands * std}
        if average.var:
            parts["var"] = std * std
    return parts


def standard_deviation(average: Average, moments: Moments) -> Floats:
    """As pandas has it: √(variance / (1 − Σ shares²)); NaN where one value has all the weight."""
    if average.bias:
        return np.asarray(moments["deviation"])
    root = np.sqrt(moments["bias"])
    np.copyto(root, np.nan, where=root == 0.0)
    with np.errstate(over="ignore"):  # where values span all of float64 it may lie beyond
        return np.asarray(np.divide(moments["deviation"], root, out=root))


def correlations(average: Average, moments: Moments) -> dict[str, Floats]:
    """Covariance and correlation of pairs, as far as asked for; a constant has no correlation."""
    parts = {}
    x, y, rho = moments["deviation"], moments["deviation_y"], np.clip(moments["correlation"], -1.0, 1.0)
    if average.cov:
        # By its root twice, for a product may lie within float64 where one factor by the whole does not.
        share = 1.0 if average.bias else np.sqrt(np.where(moments["bias"] > 0.0, moments["bias"], np.nan))
        with np.errstate(over="ignore"):
            parts["cov"] = rho * (x / share) * (y / share)
    if average.corr:
        parts["corr"] = np.where((x > 0.0) & (y > 0.0), rho, np.nan)
    return parts
