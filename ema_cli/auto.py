"""`--alpha auto`: the weight whose average best predicts the next value.

The error of a weight is Σ(x[t] − y[t−1])² over all values but the first of each series, where y is the
average that the other options define. Without other options this is simple exponential smoothing whose
first level is the first value (Hyndman and Athanasopoulos, Forecasting, 3rd ed., 8.1). The rows are read
several times, each time for a few weights, and are never held in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np

from ema_cli.average import Average
from ema_cli.decay import Decay
from ema_cli.engine.engine import TILE, Engine, KeyedRows
from ema_cli.engine.rows import Tile
from ema_cli.errors import OptionError
from ema_cli.formats.base import Floats, Ints

Tiles = Callable[[], Iterator[tuple[Floats, KeyedRows | None]]]

# Denser towards 0, where a small change of the weight is a large one of its memory.
GRID = [0.0, 1e-5, 1e-4] + [(k / 32) ** 2 for k in range(1, 33)]
MOST_WEIGHTS = 32  # in one pass
# Weights × series remembered at once: some 60 bytes each.
MOST_PLACES = 4_000_000
# Around its minimum the error is flat: within this distance, rounding decides.
TOLERANCE = 5e-7
VALLEYS = 3
ROUNDS = 40


def best_alphas(tiles: Tiles, average: Average, columns: int) -> list[float]:
    """The weight with the least squared one-step-ahead error for each column, over all keys together.

    tiles: gives the same rows each time it is called: (values, keys), values (n, columns) float64 with
    1 ≤ n ≤ 65,536, NaN where missing, keys None or of one `KeyTable`. average: the other options; fill,
    min_periods, std and bands are ignored. Weights have 9 significant digits, so that they can be typed
    again; the error is then within 1e-12 of the least. Where all weights are equally good (a constant,
    fewer than two values), the answer is 1. Raises OptionError for times.
    """
    if average.timed:
        raise OptionError("--alpha auto counts rows, so it does not go with --time", "--halflife 5min")
    searches = [_Search() for _ in range(columns)]
    most = 4  # until it is known how many keys there are
    for _ in range(ROUNDS):
        wanted = [search.wanted(most) for search in searches]
        if not any(wanted):
            break
        errors, keys = _errors(tiles, average, wanted)
        for search, alphas, found in zip(searches, wanted, errors, strict=True):
            search.learn(alphas, found)
        most = max(4, min(MOST_WEIGHTS, MOST_PLACES // max(1, keys * columns)))
    return [search.best() for search in searches]


class _Search:
    """What is known of the error as a function of one column's weight, and where to look next."""

    def __init__(self) -> None:
        self.grid = [*GRID[::-4], *(alpha for k, alpha in enumerate(GRID[::-1]) if k % 4)]
        self.known: dict[float, float] = {}

    def learn(self, alphas: list[float], errors: Floats) -> None:
        self.known.update(zip(alphas, errors.tolist(), strict=True))

    def best(self) -> float:
        """The weight of the least error known; among equals the largest."""
        least = min(self.known, key=lambda alpha: (self.known[alpha], -alpha))
        return float(f"{least:.9g}")

    def wanted(self, most: int) -> list[float]:
        """Up to `most` weights to try: first a grid, then closer to the deepest valleys; [] at the end."""
        if self.grid:
            now, self.grid = self.grid[:most], self.grid[most:]
            return now
        if min(self.known.values()) == max(self.known.values()):
            return []
        valleys = self._valleys()[: max(1, min(VALLEYS, most // 4))]
        each = most // max(1, len(valleys))
        points = {point for valley in valleys for point in self._within(valley, each)}
        return sorted(points - self.known.keys())

    def _valleys(self) -> list[tuple[float, float, float]]:
        """The best weights no worse than their neighbours, between these, unless these are close."""
        alphas = sorted(self.known)
        errors = [self.known[alpha] for alpha in alphas]
        found = []
        for k, alpha in enumerate(alphas):
            left, right = max(k - 1, 0), min(k + 1, len(alphas) - 1)
            if errors[k] <= errors[left] and errors[k] <= errors[right]:
                found.append((errors[k], -alpha, (alphas[left], alpha, alphas[right])))
        deepest = [valley for _, _, valley in sorted(found)[:VALLEYS]]
        return [valley for valley in deepest if valley[2] - valley[0] > TOLERANCE * valley[1] + 1e-9]

    def _within(self, valley: tuple[float, float, float], count: int) -> list[float]:
        """Where in a valley to look: at the minimum of the parabola through it, near that, and evenly."""
        low, at, high = valley
        width = high - low
        even = max(1, count - 3)
        points = [low + width * (k + 1) / (even + 1) for k in range(even)]
        foot = _foot(valley, [self.known[alpha] for alpha in valley])
        if foot is not None:
            points += [foot, foot - width / 100, foot + width / 100]
        return [point for point in points if low < point < high and point != at]


def _foot(alphas: tuple[float, float, float], errors: list[float]) -> float | None:
    """The lowest point of the parabola through three points, None where they make none."""
    (a, b, c), (fa, fb, fc) = alphas, errors
    left, right = (b - a) * (fb - fc), (b - c) * (fb - fa)
    if not np.isfinite(left - right) or left == right:
        return None
    return b - 0.5 * ((b - a) * left - (b - c) * right) / (left - right)


def _errors(tiles: Tiles, average: Average, wanted: list[list[float]]) -> tuple[list[Floats], int]:
    """The root of the squared error of each column for each of its weights; and the number of keys."""
    columns = [(k, _Predictions(average, alphas)) for k, alphas in enumerate(wanted) if alphas]
    keys_seen = 1
    for values, keys in cut_anew(tiles()):
        if keys is not None:
            keys_seen = max(keys_seen, int(keys.slots.max()) + 1)
        for k, predictions in columns:
            predictions.add(values[:, k : k + 1], keys)
    found = [np.empty(0) for _ in wanted]
    for k, predictions in columns:
        found[k] = predictions.error
    return found, keys_seen


def cut_anew(tiles: Iterator[tuple[Floats, KeyedRows | None]]) -> Iterator[tuple[Floats, KeyedRows | None]]:
    """The same rows in tiles of `TILE`, so that sums over them do not depend on how the rows came."""
    waiting: list[tuple[Floats, Ints | None]] = []
    left = TILE
    for values, keys in tiles:
        slots = None if keys is None else keys.slots[keys.codes]
        for begin, end in pairwise([0, *range(left, len(values), TILE), len(values)]):
            waiting.append((values[begin:end], None if slots is None else slots[begin:end]))
            left -= end - begin
            if not left:
                yield _one_tile(waiting)
                waiting, left = [], TILE
    if waiting:
        yield _one_tile(waiting)


def _one_tile(parts: list[tuple[Floats, Ints | None]]) -> tuple[Floats, KeyedRows | None]:
    values = np.concatenate([values for values, _ in parts])
    slots = [slots for _, slots in parts if slots is not None]
    if not slots:
        return values, None
    named, codes = np.unique(np.concatenate(slots), return_inverse=True)
    return values, KeyedRows(codes.astype(np.uint16), named)  # which `TILE` fits


class _Predictions:
    """One column's averages with several weights, and how far each was from the next value."""

    def __init__(self, average: Average, alphas: list[float]) -> None:
        decays = tuple(Decay("alpha", repr(alpha), alpha) for alpha in alphas)
        bare = replace(average, decays=decays, fill=False, min_periods=0, std=False, bands=None)
        self.engine = Engine(bare, 1)
        self.last = np.full((len(alphas), 1), np.nan)  # the average after the newest value of each key
        self.error = np.zeros(len(alphas))

    def add(self, values: Floats, keys: KeyedRows | None) -> None:
        mean = self.engine.update(Tile(values, None, keys))["mean"][:, 0]
        observed = ~np.isnan(values[:, 0])
        if keys is None:
            rows = np.flatnonzero(observed)
            owner = np.zeros(len(rows), np.int64)
        else:
            rows = np.argsort(keys.codes, kind="stable")
            rows = rows[observed[rows]]
            owner = keys.slots[keys.codes[rows]]
            self._grow(int(keys.slots.max()) + 1)
        if not len(rows):
            return
        mean = mean[:, rows]
        first = np.flatnonzero(np.diff(owner, prepend=-1))
        before = np.concatenate((mean[:, :1], mean[:, :-1]), axis=1)
        before[:, first] = self.last[:, owner[first]]
        final = np.append(first[1:], len(rows)) - 1
        self.last[:, owner[final]] = mean[:, final]
        self._count(np.nan_to_num(values[rows, 0] - before))  # NaN: nothing was predicted yet

    def _count(self, misses: Floats) -> None:
        """Add to the roots of the sums of squares; scaled, so that 1e200 squared does not overflow."""
        largest = np.abs(misses).max(axis=1)
        scale = np.where(largest > 0, largest, 1.0)
        self.error = np.hypot(self.error, scale * np.sqrt(((misses / scale[:, np.newaxis]) ** 2).sum(axis=1)))

    def _grow(self, keys: int) -> None:
        capacity = self.last.shape[1]
        if keys > capacity:
            more = np.full((self.last.shape[0], max(keys, 2 * capacity) - capacity), np.nan)
            self.last = np.concatenate((self.last, more), axis=1)
