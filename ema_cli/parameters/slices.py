"""The values of a fold: slice after slice of each average."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ema_cli.errors import DataError
from ema_cli.parameters.plan import Plan, left_out_by
from ema_cli.parameters.tensors import Array, Float64s, TensorInfo, is_averaged, rounded

# Elements read and folded at once, few enough to stay in a near cache, and how many checkpoints' slices are
# in memory together.
_SLICE, _TOGETHER = 1 << 16, 8
# Bytes of float64 that are computed with at once: a processor's own cache has at least that.
_CACHED = 1 << 20


class Slice(NamedTuple):
    """Some values of an average, as the fold carries them on (float64) and in the output's dtype."""

    exact: Array
    rounded: Array


class _Stretch(NamedTuple):
    """Elements start to stop of a tensor."""

    info: TensorInfo
    start: int
    stop: int


def folded(plan: Plan, order: Sequence[TensorInfo]) -> Iterator[tuple[TensorInfo, list[Slice]]]:
    """The averages of all tensors in that order, a slice at a time, one `Slice` for each average.

    They are good until the next is asked for. Raises DataError where a value is not finite, and FileTrouble.
    """
    arithmetic = _Arithmetic(plan)
    for info in order:
        for start in range(0, max(info.size, 1), _SLICE):
            yield info, arithmetic.fold(info, start, min(start + _SLICE, info.size))


class _Arithmetic:
    """Folds slices, tile by tile, so that what is at work stays in the processor's nearest cache.

    A tile goes through all checkpoints before the next one does, the same numbers to the bit. Arrays are
    made once: new ones for each slice would take the system as long as the arithmetic takes.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._tile = _CACHED // (8 * (len(plan.averages) + 2))
        self._values, self._step = np.empty(self._tile), np.empty(self._tile)
        self._averages = [np.empty(_SLICE) for _ in plan.averages]
        self._outputs = [np.empty(8 * _SLICE, np.uint8) for _ in plan.averages]
        together = min(_TOGETHER, len(plan.checkpoints))
        self._rooms = [np.empty(8 * _SLICE, np.uint8) for _ in range(together)]
        self._gains = [average.gains for average in plan.averages]
        self._weights: list[Float64s] = []
        if plan.averages[0].coefficients is not None:
            self._weights = [np.array(average.weights()) for average in plan.averages]
            self._base, self._differences = np.empty(_SLICE), np.empty((together, self._tile // 4))

    def fold(self, info: TensorInfo, start: int, stop: int) -> list[Slice]:
        """Elements start to stop of each average; good until the next call."""
        plan = self._plan
        if start == stop or not is_averaged(info.dtype):  # a file may have a million empty ones
            newest = np.empty(0, info.dtype)
            if start < stop:
                newest = plan.checkpoints[-1].read(plan.sources[-1][info.name], start, stop)
            return [Slice(newest, newest)] * len(plan.averages)
        averages = [average[: stop - start] for average in self._averages]
        with np.errstate(invalid="ignore", over="ignore"):
            if self._weights:
                self._combine(_Stretch(info, start, stop), averages)
            else:
                self._fold_in(_Stretch(info, start, stop), averages)
            return [
                Slice(average, _fitting(average if what.scale == 1.0 else average * what.scale, info, room))
                for average, what, room in zip(averages, plan.averages, self._outputs, strict=True)
            ]

    def _fold_in(self, part: _Stretch, averages: Sequence[Float64s]) -> None:
        """Checkpoint after checkpoint, so that a fold may end after any of them and be carried on."""
        fresh = []
        for average, plan in zip(averages, self._plan.averages, strict=True):
            fresh.append(plan.saved is None)
            if plan.saved is not None:
                average[...] = plan.saved.checkpoint.read(exact(part.info), part.start, part.stop)
        for group in self._groups(range(len(self._plan.checkpoints)), part):
            for tile in _tiles(part.stop - part.start, self._tile):
                for number, raw in group:
                    values = self._widened(raw[tile], number, part.info, self._values)
                    for k, (average, gains) in enumerate(zip(averages, self._gains, strict=True)):
                        gain = 1.0 if fresh[k] and number == 0 else gains[number]
                        # Nobody needs the values after the last: the less memory, the nearer it is.
                        step = self._step[: len(values)] if average is not averages[-1] else values
                        _add(average[tile], values, gain, step)

    def _combine(self, part: _Stretch, totals: Sequence[Float64s]) -> None:
        """Weights that may be negative: the newest's values, and what the others differ from them.

        Where all are alike, so is their average, to the bit.
        """
        newest, size = len(self._plan.checkpoints) - 1, part.stop - part.start
        base = self._base[:size]
        for ((number, raw),) in self._groups([newest], part):
            self._widened(raw, number, part.info, base)
        for total, weights in zip(totals, self._weights, strict=True):
            whole = sum(weights.tolist())
            np.multiply(base, 1.0 if abs(whole - 1.0) <= 1e-9 else whole, total)
        for group in self._groups(range(newest), part):
            first = group[0][0]
            for tile in _tiles(size, self._differences.shape[1]):
                differences = self._differences[: len(group), : tile.stop - tile.start]
                for row, (number, raw) in zip(differences, group, strict=True):
                    self._widened(raw[tile], number, part.info, row)
                    np.subtract(row, base[tile], row)
                for total, weights in zip(totals, self._weights, strict=True):
                    step = self._step[: tile.stop - tile.start]
                    # Each by itself: a product of matrices rounds otherwise with other rows beside it.
                    np.einsum("kj,k->j", differences, weights[first : first + len(group)], out=step)
                    np.add(total[tile], step, total[tile])

    def _groups(self, numbers: Sequence[int], part: _Stretch) -> Iterator[list[tuple[int, Array]]]:
        """The checkpoints' own values of the part, in the order of `numbers`, a few at a time."""
        for first in range(0, len(numbers), _TOGETHER):
            together = zip(numbers[first : first + _TOGETHER], self._rooms, strict=False)
            yield [(number, self._read(number, part, room)) for number, room in together]

    def _read(self, number: int, part: _Stretch, room: Array) -> Array:
        source = self._plan.sources[number][part.info.name]
        return self._plan.checkpoints[number].read_into(room, source, part.start, part.stop)

    def _widened(self, raw: Array, number: int, info: TensorInfo, into: Float64s) -> Float64s:
        """The values in float64, at the begin of `into`. Raises DataError where one is not finite."""
        values = into[: len(raw)]
        values[...] = raw
        if not _all_finite(raw if raw.dtype.kind == "f" and raw.itemsize >= 4 else values):
            checkpoint, source = self._plan.checkpoints[number], self._plan.sources[number][info.name]
            raise DataError(
                f"{checkpoint.name}: tensor {source.name!r} holds NaN or infinity, which "
                "would stay in the average",
                hint=f"another checkpoint in its place; or the tensor: {left_out_by(info.name)}",
            )
        return values


def _add(average: Float64s, values: Float64s, gain: float, step: Float64s) -> None:
    """As `fold_in` of `ParameterEMA`, but in an array that is there, which may be that of the values."""
    if gain == 1.0:
        average[...] = values
    elif gain != 0.0:
        np.subtract(values, average, step)
        np.multiply(step, gain, step)
        np.add(average, step, average)


def _tiles(size: int, tile: int) -> Iterator[slice]:
    return (slice(start, min(start + tile, size)) for start in range(0, size, tile))


def exact(info: TensorInfo) -> TensorInfo:
    """The tensor as a state has it: averages in float64."""
    dtype = np.dtype(np.float64) if is_averaged(info.dtype) else info.dtype
    return TensorInfo(info.name, dtype, info.shape)


def _all_finite(values: Array) -> bool:
    # The sum of squares is the quickest way through; it may overflow where nothing is wrong.
    return math.isfinite(np.dot(values, values)) or bool(np.isfinite(values).all())


def _fitting(average: Float64s, info: TensorInfo, room: Array) -> Array:
    """The average in the output's dtype, in the first bytes of `room` where NumPy has such numbers."""
    if average.dtype == info.dtype:
        return average
    if info.dtype.kind == "f" and info.dtype.itemsize <= 8:
        fitting = room[: average.size * info.dtype.itemsize].view(info.dtype)
        fitting[...] = average
    else:
        fitting = rounded(average, info.dtype)
    if not (_all_finite(fitting) if info.dtype == np.float32 else np.isfinite(fitting).all()):
        raise DataError(
            f"tensor {info.name!r} has values that {info.dtype.name} can't hold", hint="--dtype float32"
        )
    return fitting
