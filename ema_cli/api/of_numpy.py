"""Arrays, and what NumPy makes arrays of: numbers, lists, masked arrays, objects with `__array__`."""

from __future__ import annotations

import sys
from collections.abc import Collection, Hashable
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np

from ema_cli.api.tables import Form, New, Table, no_numbers, place_of
from ema_cli.errors import DataError, OptionError
from ema_cli.formats.base import Floats


@dataclass(frozen=True)
class NumpyArray(Form):
    """An array. axis: the axis that rows run along; None: the first, of at most two."""

    array: Any
    axis: int | None = None

    @property
    def single(self) -> bool:
        return bool(self.array.ndim == 0)

    def table(self, _exclude: Collection[Hashable] = (), _before: Collection[str] = ()) -> Table:
        array = self.array
        if self.axis is None and array.ndim > 2:
            raise DataError(f"an array of {array.ndim} dimensions: which one are the rows?", hint="axis=0")
        rows = np.moveaxis(array, self._axis(), 0) if array.ndim else array.reshape(1)
        flat = rows.reshape(len(rows), int(np.prod(rows.shape[1:])))
        if not flat.shape[1]:
            raise DataError("no column to smooth")
        return Table(to_floats(flat), self._wrap, numbered=array.ndim > 1, deep=array.ndim > 2)

    def _axis(self) -> int:
        axis, dimensions = self.axis or 0, self.array.ndim
        if not -dimensions <= axis < dimensions:
            raise OptionError(f"axis={axis}: the array has {dimensions} dimensions", "axis=0")
        return axis

    def _wrap(self, fields: Floats, new: New | None) -> Any:
        shape = self.array.shape
        if not shape:
            return float(fields[0, 0]) if new is None else fields[0]
        if len(shape) == 1:
            return fields[:, 0] if new is None else fields
        if len(shape) == 2 and self._axis() % 2 == 0:
            return fields
        axis = self._axis() % len(shape)
        rest = shape[:axis] + shape[axis + 1 :]
        if new is not None and len(shape) == 2:
            return fields.T
        # With more dimensions, the new columns of a value run along a further, last axis.
        more = () if new is None else (fields.shape[1] // int(np.prod(rest)),)
        return np.moveaxis(fields.reshape(shape[axis], *rest, *more), 0, axis)


def array_of(x: Any) -> Any:
    """x as an array. Raises TypeError if that can't be, DataError for rows of different lengths."""
    try:
        array = np.ma.asarray(x) if isinstance(x, np.ma.MaskedArray) else np.asarray(x)
    except ValueError:
        raise DataError("rows of different lengths are no table", hint="as many values in each row") from None
    if array.dtype == object and array.ndim == 0 and not _is_one(array.item()):
        hint = "an array, a list of numbers, a Series or a frame of pandas or polars, an Arrow array or table"
        raise TypeError(f"{type(x).__name__} can't be smoothed\n  try: {hint}")
    return array


def _is_one(value: Any) -> bool:
    """Whether a value is a number or missing."""
    return value is None or value is _na() or isinstance(value, Real | Decimal)


def _na() -> Any:
    """pandas' NA, if pandas is loaded."""
    return getattr(sys.modules.get("pandas"), "NA", None)


def to_floats(array: Any) -> Floats:
    """Numbers of any dtype, (rows, columns), as float64. Raises DataError for other dtypes."""
    if array.dtype == object:
        several = array.shape[1] > 1
        return np.column_stack([of_objects(one, k if several else None) for k, one in enumerate(array.T)])
    # ml_dtypes' bfloat16 and the like have a kind that NumPy does not know.
    if array.dtype.kind not in "iuf" and array.dtype.type.__module__ != "ml_dtypes":
        raise no_numbers(array.dtype, None)
    with np.errstate(over="ignore"):  # a longer float may become infinite, and is then treated so
        values = array.astype(np.float64, copy=False)
    return np.asarray(np.ma.filled(values, np.nan))


def of_objects(column: Any, label: Any) -> Floats:
    """Numbers of any Python type, None and pandas' NA among them. Raises DataError for others."""
    absent = _na()
    out = np.full(len(column), np.nan)
    for row, value in enumerate(column):
        if value is None or value is absent or value is np.ma.masked:
            continue
        if isinstance(value, bool | np.bool_) or not isinstance(value, Real | Decimal):
            where = place_of(row, label)
            raise DataError(f"{where}: {value!r} of type {type(value).__name__} (dtype object) is no number")
        try:
            out[row] = float(value)
        except OverflowError:  # an int or a fraction beyond float64 is treated as infinite
            out[row] = np.inf
    return out


def first_is_number(column: Any) -> bool:
    """Whether the first object that is not missing is a number; False if all are missing."""
    absent = _na()
    for value in column:
        if not (value is None or value is absent or (isinstance(value, float) and np.isnan(value))):
            return isinstance(value, Real | Decimal) and not isinstance(value, bool | np.bool_)
    return False
