"""Arrow's arrays and tables. Blank is null; names, metadata and columns of pandas' index are kept."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ema_cli.api.tables import Form, New, Table, no_numbers, nothing_to_smooth
from ema_cli.formats import arrow_compute as pc
from ema_cli.formats.arrow_types import is_number
from ema_cli.formats.base import Floats
from ema_cli.formats.pandas_index import adding, index_columns, keeping

CAST = ".cast(pyarrow.float64())"


@dataclass(frozen=True)
class ArrowArray(Form):
    """An Array or a ChunkedArray."""

    x: Any

    def table(self, _exclude: Collection[Hashable], _before: Collection[str]) -> Table:
        return Table(_floats(self.x, None)[:, np.newaxis], self._wrap)

    def _wrap(self, fields: Floats, new: New | None) -> Any:
        arrays = _arrays(fields)
        if new is not None:
            return pa.Table.from_arrays(arrays, new.names)
        return pa.chunked_array(arrays) if isinstance(self.x, pa.ChunkedArray) else arrays[0]


@dataclass(frozen=True)
class ArrowTable(Form):
    """A Table or a RecordBatch."""

    x: Any

    @property
    def names(self) -> Sequence[Hashable]:
        return list(self.x.schema.names)

    def column(self, name: Hashable) -> Any:
        places = self.x.schema.get_all_field_indices(name)
        return self.x.column(places[0]) if len(places) == 1 else None

    def table(self, exclude: Collection[Hashable], before: Collection[str]) -> Table:
        schema = self.x.schema
        index = index_columns(schema)
        kept = [
            k
            for k, field in enumerate(schema)
            if field.name not in exclude and field.name not in index
            if is_number(field.type) or field.name in before
        ]
        if not kept:
            raise nothing_to_smooth([(field.name, field.type) for field in schema], CAST)
        names = schema.names
        labels = [names[k] for k in kept]
        values = np.column_stack([_floats(self.x.column(k), names[k]) for k in kept])
        return Table(
            values, lambda fields, new: self._made(fields, labels if new is None else new.names), labels
        )

    def _made(self, fields: Floats, names: list[str]) -> Any:
        """The new columns, then the columns of pandas' index."""
        schema, ours = self.x.schema, index_columns(self.x.schema)
        index = [k for k, name in enumerate(schema.names) if name in ours]
        own = keeping(pa.schema([schema.field(k) for k in index], metadata=schema.metadata))
        noted = adding(own, names)
        fields_of = [*list(noted)[len(index) :], *own]
        arrays = [*_arrays(fields), *(self.x.column(k) for k in index)]
        return type(self.x).from_arrays(arrays, schema=pa.schema(fields_of, metadata=noted.metadata))


def form_of(x: Any) -> ArrowArray | ArrowTable | None:
    """The form of an array or table; None for other Arrow objects."""
    if isinstance(x, pa.Table | pa.RecordBatch):
        return ArrowTable(x)
    return ArrowArray(x) if isinstance(x, pa.Array | pa.ChunkedArray) else None


def table_of(x: Any) -> ArrowArray | ArrowTable:
    """The form of an object with Arrow's C interface, such as a DuckDB relation."""
    if hasattr(x, "__arrow_c_stream__"):
        return ArrowTable(pa.table(x))
    return ArrowArray(pa.array(x))


def _floats(column: Any, label: Any) -> Floats:
    if not (is_number(column.type) or pa.types.is_null(column.type)):
        raise no_numbers(column.type, label, CAST)
    floats = pc.cast(column, pa.float64(), safe=False)
    if isinstance(floats, pa.ChunkedArray):
        floats = floats.combine_chunks()
    if floats.null_count:
        floats = pc.filled(floats, _whole(np.array([np.nan]))[0])
    return np.frombuffer(floats.buffers()[1], np.float64)[floats.offset :][: len(floats)]


def _arrays(fields: Floats) -> list[Any]:
    return [_array(np.ascontiguousarray(values)) for values in fields.T]


def _array(values: Floats) -> Any:
    """float64 with null for NaN."""
    blank = np.isnan(values)
    return _whole(values, pa.py_buffer(np.packbits(~blank, bitorder="little")) if blank.any() else None)


def _whole(values: Floats, valid: Any = None) -> Any:
    """A float64 array; `pa.array` and `pa.scalar` would import pandas wherever it is installed."""
    return pa.Array.from_buffers(pa.float64(), len(values), [valid, pa.py_buffer(values)])
