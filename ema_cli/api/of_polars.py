"""polars' Series and DataFrames. Blank is null, names stay; results are Float64."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from ema_cli.api.of_numpy import of_objects
from ema_cli.api.tables import Form, New, Table, no_numbers, nothing_to_smooth
from ema_cli.formats.base import Floats

CAST = ".cast(pl.Float64)"


@dataclass(frozen=True)
class PolarsSeries(Form):
    x: pl.Series

    def table(self, _exclude: Collection[Hashable], _before: Collection[str]) -> Table:
        name = self.x.name or None
        return Table(_floats(self.x, name)[:, np.newaxis], self._wrap, [name])

    def _wrap(self, fields: Floats, new: New | None) -> Any:
        if new is None or len(new.names) == 1:
            return _series(self.x.name if new is None else new.names[0], fields[:, 0])
        return _frame(fields, new.names)


@dataclass(frozen=True)
class PolarsFrame(Form):
    x: pl.DataFrame

    @property
    def names(self) -> Sequence[Hashable]:
        return self.x.columns

    def column(self, name: Hashable) -> Any:
        return self.x[str(name)]

    def table(self, exclude: Collection[Hashable], before: Collection[str]) -> Table:
        columns = [column for column in self.x.get_columns() if column.name not in exclude]
        kept = [column for column in columns if column.dtype.is_numeric() or column.name in before]
        if not kept:
            raise nothing_to_smooth(list(self.x.schema.items()), CAST)
        labels = [column.name for column in kept]
        values = np.column_stack([_floats(column, column.name) for column in kept])
        return Table(values, lambda fields, new: _frame(fields, labels if new is None else new.names), labels)


def form_of(x: Any) -> PolarsSeries | PolarsFrame | None:
    """The form of a Series or DataFrame; None for other polars objects."""
    if isinstance(x, pl.DataFrame):
        return PolarsFrame(x)
    return PolarsSeries(x) if isinstance(x, pl.Series) else None


def _floats(column: pl.Series, label: Any) -> Floats:
    if column.dtype == pl.Object:
        return of_objects(column.to_list(), label)
    if not (column.dtype.is_numeric() or column.dtype == pl.Null):
        raise no_numbers(column.dtype, label, CAST)
    return np.asarray(column.cast(pl.Float64).to_numpy())


def _series(name: str, values: Floats) -> pl.Series:
    return pl.Series(name, np.ascontiguousarray(values), nan_to_null=True)


def _frame(fields: Floats, names: Sequence[str]) -> pl.DataFrame:
    return pl.DataFrame([_series(name, values) for name, values in zip(names, fields.T, strict=True)])
