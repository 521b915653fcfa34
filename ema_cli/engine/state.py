"""What is remembered between rows, chunks and runs: one array a quantity, one place a series.

A series is one chosen column of one key; its place is key slot × columns + column. Nothing here computes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ema_cli.average import Average
from ema_cli.engine.scratch import Floats, Ints

LEVELS = 3
# What a series remembers on each level: of all before its open block, and of the open block.
CARRY = ("carry_mean", "carry_std", "carry_bias", "carry_mass")
MOMENTS = ("mean", "std", "bias")
DECAYS = ("decay", "share", "mass")
LOCAL = MOMENTS + DECAYS
# A block not yet begun: nothing has decayed, nothing is in it.
BLANK = dict.fromkeys(CARRY + LOCAL, 0.0) | {"decay": 1.0}
Memory = dict[str, Floats]  # (LEVELS, segments) each
REMEMBERED = CARRY + LOCAL
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Field:
    """A remembered quantity.

    per: 'key', 'series', 'weight' (one a series for each weight), or 'level' (one for each level of those).
    """

    name: str
    blank: float | int
    per: str


def fields_of(average: Average) -> list[Field]:
    """What an average has to remember; only what it needs, for there may be a million keys."""
    fields = [Field("seen", 0, "series")]
    wanted = set(REMEMBERED)
    if not average.needs_std:
        wanted -= {"carry_std", "carry_bias", "std", "bias"}
    if not average.adjust:
        wanted -= {"carry_mass", "mass"}
    if not (average.timed or average.missing == "decay" or average.seed_rows):
        wanted -= set(DECAYS)  # all rows decay alike: there is a table
    fields += [Field(name, BLANK[name], "level") for name in REMEMBERED if name in wanted]
    if average.missing == "decay" and not average.timed:
        fields.append(Field("gap", 0, "series"))
    if average.timed:
        fields += [Field("clock", 0, "key"), Field("started", 0, "key"), Field("last_time", 0, "series")]
    if average.timed and not average.adjust:
        fields += [
            Field("tie_time", 0, "series"),
            Field("ties", 0, "series"),
            Field("tie_mean", 0.0, "series"),
        ]
        fields.append(Field("groups", 0, "series"))
        fields += [Field(f"before_{name}", 0.0, "weight") for name in ("mean", "std", "bias")]
    if average.fill:
        fields += [Field("held_mean", np.nan, "weight")]
        fields += [Field("held_std", np.nan, "weight")] * average.needs_std
    return fields


class State:
    """The arrays, and reading and writing them by series."""

    def __init__(self, average: Average, columns: int) -> None:
        self.fields = fields_of(average)
        self.by_name = {field.name: field for field in self.fields}
        self.columns, self.weights, self.keys = columns, len(average.decays), 0
        self.arrays: Arrays = {field.name: self._blank(field, 0) for field in self.fields}

    def _blank(self, field: Field, keys: int) -> NDArray[Any]:
        places = keys if field.per == "key" else keys * self.columns
        shapes = {"weight": (self.weights, places), "level": (self.weights, LEVELS, places)}
        shape = shapes.get(field.per, (places,))
        return np.full(shape, field.blank, np.int64 if isinstance(field.blank, int) else np.float64)

    def grow(self, keys: int) -> None:
        """Make room for keys 0 … keys − 1; the new ones are blank."""
        room = self.arrays["seen"].shape[0] // self.columns
        if keys > room:
            more = max(keys, 2 * room) - room
            for field in self.fields:
                old = self.arrays[field.name]
                self.arrays[field.name] = np.concatenate((old, self._blank(field, more)), axis=-1)
        self.keys = max(self.keys, keys)

    def load_keys(self, names: Iterable[str], keys: Ints) -> list[Ints]:
        """Copies of quantities that are kept by key; blank for keys that there is no room for yet."""
        room = self.arrays["seen"].shape[0] // self.columns
        known = keys < room
        out = []
        for name in names:
            values = np.full(len(keys), self.by_name[name].blank, np.int64)
            values[known] = self.arrays[name][keys[known]]
            out.append(values)
        return out

    def load(self, names: Iterable[str], places: Ints, fresh: NDArray[np.bool_], weight: int = 0) -> Arrays:
        """Copies of those of these quantities that are remembered, at these places; blank where `fresh`."""
        out: Arrays = {}
        some = fresh.any()
        for name in names:
            if name in self.arrays:
                out[name] = np.take(self._of(name, weight), places, axis=-1)
                if some:
                    out[name][..., fresh] = self.by_name[name].blank
        return out

    def _of(self, name: str, weight: int) -> NDArray[Any]:
        return (
            self.arrays[name][weight] if self.by_name[name].per in ("weight", "level") else self.arrays[name]
        )

    def store(self, values: Mapping[str, NDArray[Any]], places: Ints, weight: int = 0) -> None:
        """Write back what is remembered of these quantities."""
        for name in values.keys() & self.arrays.keys():
            self._of(name, weight)[..., places] = values[name]

    def clear(self, names: Iterable[str], places: Ints) -> None:
        """Make these quantities blank again, for all weights."""
        for name in names:
            if name in self.arrays:
                self.arrays[name][..., places] = self.by_name[name].blank

    def trimmed(self) -> Arrays:
        """The arrays without the room kept for further keys."""
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
