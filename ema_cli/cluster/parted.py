"""One series in many parts, smoothed on many machines: the steps for each part.

    load      read a part's values, times and keys                  in parallel
    measure   count its observations                                in parallel
    advance   add the counts up: where each part begins             one part after the other, quick
    digest    fold the part's whole blocks                          in parallel
    carry     merge a digest: the state at the end of a part        one part after the other, quick
    finish    smooth the part from the state before it              in parallel

The parallel steps don't change their arguments, so they can be done anywhere, and repeated. Nothing here
knows who does them; `client.py` has them done by a cluster.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ema_cli.average import Average
from ema_cli.engine.digest import Counts, Digest, Standing, count, merge
from ema_cli.engine.digest import digest as fold_part
from ema_cli.engine.engine import BackwardsTimeError, KeyedRows
from ema_cli.engine.rows import Tile
from ema_cli.errors import DataError
from ema_cli.formats.base import BATCH_ROWS, Floats, Ints
from ema_cli.keys import KeyTable
from ema_cli.trends import Trends

BACKWARDS = "the time goes backwards"


@dataclass(frozen=True)
class Smoothing:
    """How all parts are smoothed. alphas: one for each column, if `--alpha auto` found them."""

    average: Average
    columns: int
    alphas: Sequence[float] | None = None

    def trends(self) -> Trends:
        """Averages that have seen nothing."""
        return Trends(self.average, self.columns, self.alphas)


@dataclass(frozen=True)
class Loaded:
    """The rows of a part. values: as for `Trends.update`. times: int64 nanoseconds. codes: each row's key.

    texts: the keys that the codes number, in order of appearance; an Arrow array for each key column.
    """

    values: Floats
    times: Ints | None = None
    codes: Ints | None = None
    texts: Sequence[Any] = ()

    @property
    def keys(self) -> KeyedRows | None:
        """The rows' keys, numbered within the part."""
        if self.codes is None:
            return None
        return KeyedRows(self.codes, np.arange(len(self.texts[0])))

    def tiles(self, smoothing: Smoothing) -> Iterator[tuple[Average, Tile]]:
        """All rows, for each engine."""
        if len(self.values):
            trends = smoothing.trends()
            for engine, tile in trends.engine_tiles(self.values, self.times, self.keys):
                yield engine.average, tile


class Gatherer:
    """Collects the batches of a part."""

    def __init__(self, columns: int) -> None:
        self.values: list[Floats] = [np.empty((0, columns))]
        self.times: list[Ints] = []
        self.codes: list[Ints] = []
        self.table = KeyTable()

    def add(self, values: Floats, times: Ints | None, keys: Sequence[Any]) -> None:
        """keys: one Arrow array a key column."""
        if not len(values):
            return
        self.values.append(values)
        if times is not None:
            self.times.append(times)
        if keys:
            rows = self.table.encode(keys)
            self.codes.append(rows.slots[rows.codes])

    def loaded(self) -> Loaded:
        times = np.concatenate(self.times) if self.times else None
        codes = np.concatenate(self.codes) if self.codes else None
        return Loaded(np.concatenate(self.values), times, codes, self.table.texts())


@dataclass(frozen=True)
class Spot:
    """Where a part begins. slots: permanent numbers of its keys. before: for each engine, observations of the
    part's series before it."""

    slots: Ints
    before: list[Ints] = field(default_factory=list)


@dataclass(frozen=True)
class Position:
    """Where all series stand before a part, for each engine, and the keys so far."""

    progress: list[Standing]
    keys: KeyTable

    def copy(self) -> Position:
        """An independent copy."""
        return Position([one.copy() for one in self.progress], self.keys.copy())

    def advance(self, counts: Sequence[Counts], texts: Sequence[Any]) -> Spot:
        """Go past a part; gives where it begins."""
        if not counts:
            return Spot(np.empty(0, np.int64))
        slots = numbered(self.keys, texts) if texts else np.zeros(1, np.int64)
        both = zip(self.progress, counts, strict=True)
        return Spot(slots, [progress.advance(one, slots) for progress, one in both])


def numbered(table: KeyTable, texts: Sequence[Any]) -> Ints:
    """The slots of any number of keys; new keys get new slots."""
    slots = []
    for at in range(0, len(texts[0]), BATCH_ROWS):
        rows = table.encode([column[at : at + BATCH_ROWS] for column in texts])
        slots.append(rows.slots[rows.codes])
    return np.concatenate(slots)


@dataclass(frozen=True)
class Carried:
    """The state between two parts, as `Trends.state` has it."""

    arrays: dict[str, Any]
    keys: int

    def trends(self, smoothing: Smoothing) -> Trends:
        """Averages that go on from this state."""
        trends = smoothing.trends()
        trends.restore(self.arrays, self.keys)
        return trends


def begin(trends: Trends, keys: KeyTable) -> tuple[Position, Carried]:
    """Position and state before the first part, from what earlier runs have left in `trends` and `keys`."""
    progress = [Standing(engine.average, engine.state) for engine in trends.independent]
    return Position(progress, keys), carried_of(trends)


def carried_of(trends: Trends) -> Carried:
    return Carried(trends.state(), trends.engines[0].state.keys)


def measure(smoothing: Smoothing, loaded: Loaded) -> list[Counts]:
    """Count the part's observations, for each engine. Raises DataError where a time goes backwards."""
    if loaded.times is not None and len(loaded.times):
        _, tile = next(loaded.tiles(smoothing))
        times = tile.sorted(loaded.times)
        steps = np.diff(times)
        steps[tile.first[1:] - 1] = 0
        if (steps < 0).any():
            raise DataError(BACKWARDS)
    return [count(average, tile) for average, tile in loaded.tiles(smoothing)]


def digest(smoothing: Smoothing, loaded: Loaded, spot: Spot) -> list[Digest] | Loaded:
    """The part's digest for each engine; its rows if averages are averaged again, which has no digest."""
    if smoothing.average.stages:
        return loaded
    return [
        fold_part(average, tile, before)
        for (average, tile), before in zip(loaded.tiles(smoothing), spot.before, strict=True)
    ]


def carry(trends: Trends, digests: Sequence[Digest] | Loaded, spot: Spot) -> None:
    """Move `trends` past the part. Raises DataError where it begins before the last part's end."""
    try:
        if isinstance(digests, Loaded):
            _fold(trends, digests, spot.slots)
            return
        for engine, part in zip(trends.engines, digests, strict=bool(digests)):
            merge(engine, part, spot.slots)
    except BackwardsTimeError:
        raise DataError(BACKWARDS) from None


def _fold(trends: Trends, loaded: Loaded, slots: Ints) -> None:
    """Move `trends` past all rows of a part."""
    for begin in range(0, len(loaded.values), BATCH_ROWS):
        rows, keys = slice(begin, begin + BATCH_ROWS), None
        if loaded.codes is not None:
            known, codes = np.unique(loaded.codes[rows], return_inverse=True)
            keys = KeyedRows(codes, slots[known])
        trends.update(loaded.values[rows], None if loaded.times is None else loaded.times[rows], keys)


def cut_out(trends: Trends, spot: Spot) -> Carried:
    """The state of a part's own keys, by the part's numbers, when it begins."""
    arrays = {
        f"{k}.{name}": array
        for k, engine in enumerate(trends.engines)
        for name, array in engine.state.pick(spot.slots).items()
    }
    return Carried(arrays, len(spot.slots))
