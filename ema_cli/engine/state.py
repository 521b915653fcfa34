"""The memory between rows, chunks and runs: one array for each quantity, one place for each series.

A series is one chosen column of one key; its place is key slot × columns + column. Nothing here computes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ema_cli.average import Average
from ema_cli.engine.arithmetic import Bools, Ints
from ema_cli.engine.scan import LEVELS, Memory

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Quantity:
    """A quantity in the state. blank: its value before the first row.

    per: what there is one of it for: 'key', 'series', 'weight' (each weight of a series), 'level' (each level
    of each weight), or 'levels' (as 'level', and one more above the last).
    """

    name: str
    blank: float | int
    per: str


def moments_of(average: Average, pairs: bool) -> list[str]:
    """The moments that an average needs, by name."""
    names = ["mean", "deviation", "bias"] if average.needs_std else ["mean"]
    if pairs:
        names = ["mean", "mean_y", "deviation", "deviation_y", "correlation", "bias"]
    return names + ["weight"] * (average.adjust and (average.sum or average.centered))


def fields_of(average: Average, pairs: bool = False) -> list[Quantity]:
    """What has to be remembered of an average; only what it needs, for there may be a million keys."""
    moments = moments_of(average, pairs)
    own = [name for name in moments if name != "weight"]
    weight = ["weight"] if average.adjust or average.seed_rows or average.weighted else []
    block, total = [*own, "decay", "loss", *weight], [*own, *weight]
    if average.steady:  # all rows decay alike: the weights follow from the number of rows
        block = total = [name for name in own if name != "bias"]
    fields = [Quantity("seen", 0, "series")]
    fields += [Quantity(f"block_{name}", 0.0, "level") for name in block]
    fields += [Quantity(f"total_{name}", 0.0, "levels") for name in total]
    if average.counts_gaps:
        fields.append(Quantity("gap", 0, "series"))
    if average.timed:
        fields += [Quantity("clock", 0, "key"), Quantity("started", 0, "key")]
        fields.append(Quantity("last_time", 0, "series"))
    if average.joins_ties:
        fields += [Quantity(name, 0, "series") for name in ("tie_time", "ties", "groups")]
        fields += [Quantity(f"tie_{name}", 0.0, "series") for name in moments if name.startswith("mean")]
        fields += [Quantity("tie_weight", 0.0, "series")] * average.weighted
    if average.fill:
        fields += [Quantity(f"held_{name}", np.nan, "weight") for name in moments]
    return fields


class State:
    """The arrays, and reading and writing them by series."""

    def __init__(self, average: Average, columns: int, pairs: bool = False) -> None:
        self.fields = fields_of(average, pairs)
        self.by_name = {field.name: field for field in self.fields}
        self.columns, self.weights, self.keys = columns, len(average.decays), 0
        self.block_names = [f.name.removeprefix("block_") for f in self.fields if f.per == "level"]
        self.arrays: Arrays = {field.name: self._blank(field, 0) for field in self.fields}

    def _blank(self, field: Quantity, keys: int) -> NDArray[Any]:
        places = keys if field.per == "key" else keys * self.columns
        shapes = {"weight": (self.weights, places), "level": (self.weights, LEVELS, places)}
        shapes["levels"] = self.weights, LEVELS + 1, places
        shape = shapes.get(field.per, (places,))
        return np.full(shape, field.blank, np.int64 if isinstance(field.blank, int) else np.float64)

    def grow(self, keys: int) -> None:
        """Make place for keys 0 … keys − 1; the new ones are blank."""
        capacity = self.arrays["seen"].shape[0] // self.columns
        if keys > capacity:
            more = max(keys, 2 * capacity) - capacity
            for field in self.fields:
                old = self.arrays[field.name]
                self.arrays[field.name] = np.concatenate((old, self._blank(field, more)), axis=-1)
        self.keys = max(self.keys, keys)

    def load_keys(self, names: Iterable[str], keys: Ints) -> list[Ints]:
        """Copies of quantities that there is one of for each key; blank for keys not seen yet."""
        known = keys < self.arrays["seen"].shape[0] // self.columns
        out = []
        for name in names:
            values = np.full(len(keys), self.by_name[name].blank, np.int64)
            values[known] = self.arrays[name][keys[known]]
            out.append(values)
        return out

    def load(self, names: Iterable[str], places: Ints, fresh: Bools, weight: int = 0) -> Arrays:
        """Copies of these quantities at these places, as far as the state has them; blank where `fresh`."""
        out: Arrays = {}
        some = fresh.any()
        for name in names:
            if name in self.arrays:
                out[name] = np.take(self._of(name, weight), places, axis=-1)
                if some:
                    out[name][..., fresh] = self.by_name[name].blank
        return out

    def load_memory(self, places: Ints, fresh: Bools, weight: int) -> Memory:
        """The memory that a scan needs, (levels, places) each."""
        found = self.load([f.name for f in self.fields if f.per.startswith("level")], places, fresh, weight)
        block = {name.removeprefix("block_"): a for name, a in found.items() if name.startswith("block_")}
        total = {name.removeprefix("total_"): a for name, a in found.items() if name.startswith("total_")}
        return Memory(block, total)

    def store_memory(self, memory: Memory, places: Ints, weight: int, which: Bools) -> None:
        """Write back the memory of some segments."""
        for prefix, arrays in (("block_", memory.block), ("total_", memory.total)):
            self.store(
                {prefix + name: array[:, which] for name, array in arrays.items()}, places[which], weight
            )

    def _of(self, name: str, weight: int) -> NDArray[Any]:
        return (
            self.arrays[name][weight]
            if self.by_name[name].per in ("weight", "level", "levels")
            else self.arrays[name]
        )

    def store(self, values: Mapping[str, NDArray[Any]], places: Ints, weight: int = 0) -> None:
        """Write these quantities at these places, as far as the state has them."""
        for name in values.keys() & self.arrays.keys():
            self._of(name, weight)[..., places] = values[name]

    def clear(self, prefixes: tuple[str, ...], places: Ints) -> None:
        """Make the quantities that begin so blank again, for all weights."""
        for field in self.fields:
            if field.name.startswith(prefixes):
                self.arrays[field.name][..., places] = field.blank

    def trimmed(self) -> Arrays:
        """The arrays without the spare places at their ends."""
        return {
            field.name: self.arrays[field.name][
                ..., : self.keys * (1 if field.per == "key" else self.columns)
            ]
            for field in self.fields
        }

    def pick(self, keys: Ints) -> Arrays:
        """The arrays as they would be if there were only these keys; blank for those not seen yet."""
        self.grow(int(keys.max(initial=-1)) + 1)
        series = (keys[:, np.newaxis] * self.columns + np.arange(self.columns)).reshape(-1)
        return {
            field.name: np.take(self.arrays[field.name], keys if field.per == "key" else series, axis=-1)
            for field in self.fields
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]], keys: int) -> None:
        """Take over what `trimmed` gave for so many keys. Raises ValueError where a shape does not fit."""
        for field in self.fields:
            blank = self._blank(field, keys)
            given = np.asarray(arrays[field.name])
            if given.shape != blank.shape or given.dtype != blank.dtype:
                raise ValueError(
                    f"{field.name}: {given.dtype} {given.shape}, not {blank.dtype} {blank.shape}"
                )
            self.arrays[field.name] = given.copy()
        self.keys = keys
