"""pandas' Series, DataFrames and extension arrays: index and names stay, nullable dtypes stay nullable."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ema_cli.api.of_numpy import first_is_number, of_objects
from ema_cli.api.tables import Form, New, Table, no_numbers, nothing_to_smooth
from ema_cli.formats.base import Floats


@dataclass(frozen=True)
class PandasSeries(Form):
    x: pd.Series

    @property
    def names(self) -> Sequence[Hashable]:
        return _levels(self.x.index)

    def column(self, name: Any) -> Any:
        return self.x.index.get_level_values(name)

    def table(self, _exclude: Collection[Hashable], _before: Collection[str]) -> Table:
        values = _floats(self.x, self.x.name)[:, np.newaxis]
        return Table(values, self._wrap, [self.x.name])

    def _wrap(self, fields: Floats, new: New | None) -> Any:
        if new is None or len(new.names) == 1:
            name = self.x.name if new is None else new.names[0]
            return pd.Series(_like(fields[:, 0], self.x.dtype), index=self.x.index, name=name, copy=False)
        return _frame(fields, [self.x.dtype] * len(new.of), self.x.index, new.names)


@dataclass(frozen=True)
class ExtensionArray(Form):
    """An array such as `pd.array([1, None])`."""

    x: Any

    def table(self, _exclude: Collection[Hashable], _before: Collection[str]) -> Table:
        return Table(_floats(pd.Series(self.x), None)[:, np.newaxis], self._wrap)

    def _wrap(self, fields: Floats, new: New | None) -> Any:
        return _like(fields[:, 0], self.x.dtype) if new is None else fields


@dataclass(frozen=True)
class PandasFrame(Form):
    x: pd.DataFrame

    @property
    def names(self) -> Sequence[Hashable]:
        return [*self.x.columns, *_levels(self.x.index)]

    def column(self, name: Any) -> Any:
        if name not in self.x.columns:
            return self.x.index.get_level_values(name)
        found = self.x[name]
        return found if isinstance(found, pd.Series) else None

    def table(self, exclude: Collection[Hashable], before: Collection[str]) -> Table:
        x, dtypes = self.x, list(self.x.dtypes)
        kept = [
            k
            for k, label in enumerate(x.columns)
            if label not in exclude and self._is_wanted(k, dtypes[k], before)
        ]
        if not kept:
            raise nothing_to_smooth(list(zip(x.columns, dtypes, strict=True)))
        labels = x.columns[kept]
        if all(dtypes[k] == np.float64 for k in kept):  # at once, and often without a copy
            values = x.iloc[:, kept].to_numpy()
        else:
            values = np.column_stack([_floats(x.iloc[:, k], x.columns[k]) for k in kept])

        def wrap(fields: Floats, new: New | None) -> Any:
            given = [dtypes[k] for k in kept]
            if new is None:
                return _frame(fields, given, x.index, labels)
            return _frame(fields, [given[k] for k in new.of], x.index, new.names)

        return Table(values, wrap, list(labels))

    def _is_wanted(self, k: int, dtype: Any, before: Collection[str]) -> bool:
        """Whether a column holds numbers, or did in earlier chunks."""
        if _is_number(dtype) or (before and str(self.x.columns[k]) in before):
            return True
        are_objects = isinstance(dtype, np.dtype) and dtype.kind == "O"
        return are_objects and first_is_number(self.x.iloc[:, k].array)


def form_of(x: Any) -> PandasSeries | PandasFrame | ExtensionArray | None:
    """The form of a Series, DataFrame or extension array; None for other pandas objects."""
    if isinstance(x, pd.DataFrame):
        return PandasFrame(x)
    if isinstance(x, pd.Series):
        return PandasSeries(x)
    return ExtensionArray(x) if isinstance(x, pd.api.extensions.ExtensionArray) else None


def _levels(index: pd.Index) -> list[Hashable]:
    return [name for name in index.names if name is not None]


def _is_number(dtype: Any) -> bool:
    types = pd.api.types
    odd = types.is_bool_dtype(dtype) or types.is_complex_dtype(dtype)
    return bool(types.is_numeric_dtype(dtype)) and not odd


def _floats(column: pd.Series, label: Any) -> Floats:
    if column.dtype == object:
        return of_objects(column.to_numpy(), label)
    if not _is_number(column.dtype):
        raise no_numbers(column.dtype, label)
    return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))


def _like(values: Floats, dtype: Any) -> Any:
    """float64 in NumPy's, the nullable or Arrow's kind of dtype; in the last two blank is missing."""
    if isinstance(dtype, pd.ArrowDtype):
        return pd.arrays.ArrowExtensionArray(pa.array(values, from_pandas=True))
    if isinstance(dtype, pd.api.extensions.ExtensionDtype) and dtype.na_value is pd.NA:
        return pd.arrays.FloatingArray(np.ascontiguousarray(values), np.isnan(values))
    return values


def _frame(fields: Floats, dtypes: Sequence[Any], index: pd.Index, columns: Any) -> pd.DataFrame:
    """Results as a frame, each in the kind of dtype of its input column."""
    arrays = [_like(values, dtype) for values, dtype in zip(fields.T, dtypes, strict=True)]
    if all(isinstance(array, np.ndarray) for array in arrays):
        return pd.DataFrame(fields, index=index, columns=columns, copy=False)
    frame = pd.DataFrame(dict(enumerate(arrays)), index=index, copy=False)
    return frame.set_axis(columns, axis=1)
