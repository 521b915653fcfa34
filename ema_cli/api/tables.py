"""What Python calls numbers — arrays, lists, Series, DataFrames, single values — to float64 and back.

pandas is looked at only where the caller has imported it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np

from ema_cli.average import Average
from ema_cli.engine.engine import TILE
from ema_cli.errors import DataError
from ema_cli.formats.base import Floats


@dataclass(frozen=True)
class Table:
    """values: (rows, columns) float64, NaN where missing. labels: what pandas calls the columns.

    kind: 'scalar' (one number), 'vector' (1-D), 'matrix' (2-D), 'series' or 'frame'. index: pandas' own.
    """

    values: Floats
    kind: str
    labels: Any = None
    index: Any = None

    def wrap(self, fields: Floats, average: Average) -> Any:
        """The new columns as the kind of thing the values came as. fields: (rows, new columns) float64."""
        several = fields.shape[1] > self.values.shape[1]
        if self.kind == "scalar":
            return fields[0] if several else float(fields[0, 0])
        if self.kind in ("vector", "matrix"):
            return fields[:, 0] if self.kind == "vector" and not several else fields
        pandas: Any = sys.modules["pandas"]
        if several:
            names = [name.removeprefix("_") for label in self.labels for name in average.names(_text(label))]
            return pandas.DataFrame(fields, index=self.index, columns=names)
        if self.kind == "series":
            return pandas.Series(fields[:, 0], index=self.index, name=self.labels[0])
        return pandas.DataFrame(fields, index=self.index, columns=self.labels)


def _text(label: Any) -> str:
    """A column label as the beginning of the new ones' names; '' for a Series without a name."""
    if isinstance(label, tuple):
        return "_".join(map(str, label))
    return "" if label is None else str(label)


def pandas_kind(x: Any) -> str | None:
    """'series', 'frame' or 'index' for pandas' own, None for all else."""
    pandas: Any = sys.modules.get("pandas")
    if pandas is None:
        return None
    kinds = (("series", pandas.Series), ("frame", pandas.DataFrame), ("index", pandas.Index))
    return next((kind for kind, cls in kinds if isinstance(x, cls)), None)


def read_table(x: Any, apart: Sequence[Any] = ()) -> Table:
    """The numbers in x; of a DataFrame, in all columns but those `apart`.

    Raises DataError (a ValueError) that names the column and its dtype where it holds no numbers.
    """
    kind = pandas_kind(x)
    if kind == "series":
        values = _from_pandas(x, x.name)[:, np.newaxis]
        return Table(values, kind, [x.name], x.index)
    if kind == "frame":
        keep = [k for k, label in enumerate(x.columns) if label not in apart]
        columns = [_from_pandas(x.iloc[:, k], x.columns[k]) for k in keep]
        if not columns:
            raise DataError("no column to smooth")
        return Table(np.column_stack(columns), kind, x.columns[keep], x.index)
    array = np.ma.asarray(x) if isinstance(x, np.ma.MaskedArray) else np.asarray(x)
    if array.ndim > 2:
        raise DataError(f"an array of {array.ndim} dimensions; one or two can be smoothed")
    if array.ndim == 2 and array.shape[1] == 0:
        raise DataError("no column to smooth")
    shaped = array.reshape(1, 1) if array.ndim == 0 else array if array.ndim == 2 else array[:, np.newaxis]
    return Table(_from_numpy(shaped), ("scalar", "vector", "matrix")[array.ndim])


def _from_pandas(column: Any, label: Any) -> Floats:
    types: Any = sys.modules["pandas"].api.types
    kind = column.dtype
    if str(kind) == "object":
        return _from_objects(column.to_numpy(), label)
    if types.is_bool_dtype(kind) or types.is_complex_dtype(kind) or not types.is_numeric_dtype(kind):
        raise _no_numbers(kind, label)
    return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))


def _from_numpy(array: Any) -> Floats:
    if array.dtype == object:
        columns = [
            _from_objects(column, None if array.shape[1] == 1 else k) for k, column in enumerate(array.T)
        ]
        return np.column_stack(columns)
    if array.dtype.kind not in "iuf":
        raise _no_numbers(array.dtype, None)
    with np.errstate(over="ignore"):  # of a longer float: infinite, and judged as that
        values = array.astype(np.float64, copy=False)
    return np.asarray(np.ma.filled(values, np.nan))


def _no_numbers(dtype: Any, label: Any) -> DataError:
    what = "the values" if label is None else f"column {label!r}"
    hint = (
        "choose the columns that hold numbers" if label is not None else "astype(float), if these are numbers"
    )
    return DataError(f"{what} of dtype {dtype}: no numbers", hint=hint)


def _from_objects(column: Any, label: Any) -> Floats:
    """Numbers of any Python type, None and pandas' NA among them."""
    absent: Any = getattr(sys.modules.get("pandas"), "NA", None)
    out = np.full(len(column), np.nan)
    for row, value in enumerate(column):
        if value is None or value is absent or value is np.ma.masked:
            continue
        if isinstance(value, bool | np.bool_) or not isinstance(value, Real | Decimal):
            where = place_of(row, label)
            raise DataError(f"{where}: {value!r} of type {type(value).__name__} (dtype object) is no number")
        try:
            out[row] = float(value)
        except OverflowError:  # an int or a fraction beyond float64: infinite, and judged as that
            out[row] = np.inf
    return out


def place_of(row: int, label: Any = None) -> str:
    """Where a value is, as a message says it."""
    return f"row {row} (counted from 0)" + ("" if label is None else f", column {label!r}")


def judge(table: Table, invalid: str, missing: str) -> Table:
    """The table with infinities as missing values; or DataError that names the row; so for missing ones."""
    values = table.values
    if _has_infinities(values):
        odd = np.isinf(values)
        if invalid == "error":
            row, column = (int(k) for k in np.argwhere(odd)[0])
            where = place_of(row, _label(table, column))
            raise DataError(f"{where}: {values[row, column]} is no finite number", hint="invalid='missing'")
        table = replace(table, values=np.where(odd, np.nan, values))
    if missing == "error" and (blank := np.isnan(values)).any():
        row, column = (int(k) for k in np.argwhere(blank)[0])
        where = place_of(row, _label(table, column))
        raise DataError(f"{where}: a missing value", hint="missing='skip' or missing='decay'")
    return table


def _has_infinities(values: Floats) -> bool:
    """Piece by piece, which stay in the cache."""
    return any(bool(np.isinf(values[k : k + TILE]).any()) for k in range(0, len(values), TILE))


def _label(table: Table, column: int) -> Any:
    if table.labels is not None:
        return table.labels[column]
    return column if table.kind == "matrix" else None
