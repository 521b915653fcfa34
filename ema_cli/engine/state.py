"""The memory between rows, chunks and runs: one array for each quantity, one place for each series.

A series is one chosen column of one key; its place is key slot × columns + column. Nothing here computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ema_cli.average import Average
from ema_cli.engine.arithmetic import LEVELS, Bools, Ints
from ema_cli.engine.scan import Memory

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Quantity:
    """What is remembered. blank: its value before the first row.

    per: what there is one of it for: 'key', 'series', 'trend' (each decay of a series), 'level' (each level
    of each trend), or 'levels' (as 'level', and one more above the last).
    """

    blank: float | int
    per: str


def moments_of(average: Average, pairs: bool) -> list[str]:
    """The moments that an average needs, by name."""
    names = ["mean", "deviation", "bias"] if average.needs_std else ["mean"]
    if pairs:
        names = ["mean", "mean_y", "deviation", "deviation_y", "correlation", "bias"]
    return names + ["weight"] * (average.adjust and (average.sum or average.centered))


def quantities(average: Average, pairs: bool = False) -> dict[str, Quantity]:
    """What has to be remembered of an average; only what it needs, for there may be a million keys."""
    moments = moments_of(average, pairs)
    own = [name for name in moments if name != "weight"]
    weight = ["weight"] if average.adjust or average.seed_rows or average.weighted else []
    # Where all rows decay alike, the weights of a block follow from its number of elements.
    block = [n for n in own if n != "bias"] if average.steady else [*own, "decay", "loss", *weight]
    found = {"seen": Quantity(0, "series")}
    found |= {f"block_{name}": Quantity(0.0, "level") for name in block}
    found |= {f"total_{name}": Quantity(0.0, "levels") for name in [*own, *weight]}
    if average.timed or average.counts_gaps:
        found |= {"clock": Quantity(0, "key"), "last_time": Quantity(0, "series")}
    if average.timed:
        found["started"] = Quantity(0, "key")
    if average.joins_ties:
        found |= {name: Quantity(0, "series") for name in ("tie_time", "ties", "groups")}
        found |= {f"tie_{name}": Quantity(0.0, "series") for name in moments if name.startswith("mean")}
        found |= {"tie_weights": Quantity(0.0, "series")} if average.weighted else {}
    if average.fill:
        found |= {f"held_{name}": Quantity(np.nan, "trend") for name in moments}
    return found


class State:
    """The arrays, and reading and writing them by series. keys: how many were seen."""

    def __init__(self, average: Average, columns: int, pairs: bool = False) -> None:
        self.quantities = quantities(average, pairs)
        self.columns, self.trends, self.keys = columns, len(average.decays), 0
        self.arrays: Arrays = {name: self._blank(one, 0) for name, one in self.quantities.items()}

    def names(self, prefix: str) -> list[str]:
        """The names that begin so, without that beginning."""
        return [name.removeprefix(prefix) for name in self.quantities if name.startswith(prefix)]

    def _blank(self, one: Quantity, keys: int) -> NDArray[Any]:
        places = keys if one.per == "key" else keys * self.columns
        shapes = {"trend": (self.trends, places), "level": (self.trends, LEVELS, places)}
        shapes["levels"] = self.trends, LEVELS + 1, places
        kind = np.int64 if isinstance(one.blank, int) else np.float64
        return np.full(shapes.get(one.per, (places,)), one.blank, kind)

    def make_room(self, keys: int) -> None:
        """Make place for so many keys; the new ones are blank."""
        capacity = len(self.arrays["seen"]) // self.columns
        if keys > capacity:
            for name, one in self.quantities.items():
                more = self._blank(one, max(keys, 2 * capacity) - capacity)
                self.arrays[name] = np.concatenate((self.arrays[name], more), axis=-1)

    def load(self, name: str, places: Ints, fresh: Bools, trend: int = 0) -> Any:
        """A copy of a quantity at these places; blank where `fresh`."""
        out = np.take(self._of(name, trend), places, axis=-1)
        out[..., fresh] = self.quantities[name].blank
        return out

    def store(self, values: Mapping[str, Any], places: Ints, trend: int = 0) -> None:
        """Write these quantities at these places, as far as the state has them."""
        for name in values.keys() & self.arrays.keys():
            self._of(name, trend)[..., places] = values[name]

    def _of(self, name: str, trend: int) -> NDArray[Any]:
        several = self.quantities[name].per in ("trend", "level", "levels")
        return np.asarray(self.arrays[name][trend] if several else self.arrays[name])

    def load_memory(self, places: Ints, fresh: Bools, trend: int) -> Memory:
        """The memory that a scan needs, (levels, places) each."""
        block, total = (
            {name: self.load(prefix + name, places, fresh, trend) for name in self.names(prefix)}
            for prefix in ("block_", "total_")
        )
        return Memory(block, total)

    def store_memory(self, memory: Memory, places: Ints, trend: int, which: Bools) -> None:
        """Write back the memory of some segments."""
        for prefix, arrays in (("block_", memory.block), ("total_", memory.total)):
            some = {prefix + name: array[:, which] for name, array in arrays.items()}
            self.store(some, places[which], trend)

    def clear(self, places: Ints) -> None:
        """Forget some series, for all trends; but not the time of their key, and what is held."""
        for name, one in self.quantities.items():
            if one.per != "key" and not name.startswith("held_"):
                self.arrays[name][..., places] = one.blank

    def trimmed(self) -> Arrays:
        """The arrays without the spare places at their ends."""
        return self.pick(slice(0, self.keys), slice(0, self.keys * self.columns))

    def pick(self, keys: Any, series: Any = None) -> Arrays:
        """The arrays as they would be if there were only these keys."""
        if series is None:
            self.make_room(int(keys.max(initial=-1)) + 1)
            series = (keys[:, np.newaxis] * self.columns + np.arange(self.columns)).reshape(-1)
        return {
            name: self.arrays[name][..., keys if one.per == "key" else series]
            for name, one in self.quantities.items()
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]], keys: int) -> None:
        """Take over what `trimmed` gave for so many keys. Raises ValueError where a shape does not fit."""
        for name, one in self.quantities.items():
            blank, given = self._blank(one, keys), np.asarray(arrays[name])
            if given.shape != blank.shape or given.dtype != blank.dtype:
                raise ValueError(f"{name}: {given.dtype} {given.shape}, not {blank.dtype} {blank.shape}")
            self.arrays[name] = given.copy()
        self.keys = keys
