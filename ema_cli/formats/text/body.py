"""Records of text to be written: as they are, without some columns, or as Arrow columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from ema_cli.errors import DataError, Place
from ema_cli.formats import arrow_compute as pc
from ema_cli.formats.arrow_types import TO_UTF8, binary_array, utf8_name
from ema_cli.formats.base import Body, Clock, Floats, Ints, Layout, Projection
from ema_cli.formats.text import fields
from ema_cli.formats.text.dialect import Dialect
from ema_cli.formats.text.records import Records


@dataclass(frozen=True)
class TextBody(Body):
    """A run of records and the bytes that come before them (line endings, blank lines).

    begin: where in `records.data` those bytes start. read: the values and times that were made of them.
    file: the input's name.
    """

    records: Records
    begin: int
    dialect: Dialect
    columns: Sequence[str]
    wanted: Projection
    read: tuple[Floats, Ints | None, Clock]
    file: str

    def texts(self, layout: Layout) -> tuple[pa.Array, memoryview]:
        records, dialect = self.records, layout
        if not isinstance(dialect, Dialect):
            places = [Place(column=name) for name in kept_names(self.columns, self.wanted)]
            return layout.rows(self.arrow(), places, len(records))
        end = int(records.ends[-1]) if len(records) else self.begin
        tail = memoryview(records.data)[end : records.length]
        if self.wanted.keep is not None or not dialect.separates_like(self.dialect):
            return self._chosen(dialect), tail
        offsets = np.append(self.begin, records.ends).astype(np.int32)
        own = binary_array(offsets, records.data)
        return own if records.lacking is None else pc.join(own, self._padding(records.lacking)), tail

    def _padding(self, lacking: Ints) -> pa.Array:
        """The delimiters that records with too few fields lack."""
        one = self.dialect.delimiter + (fields.BLANK if self.dialect.spaces else b"")
        texts = pa.array([one * k for k in range(int(lacking.max(initial=0)) + 1)], pa.binary())
        return pc.take(texts, lacking)

    def head(self, rows: int) -> TextBody:
        values, times, clock = self.read
        read = (values[:rows], None if times is None else times[:rows], clock.picked(slice(rows)))
        return replace(self, records=self.records.cut(0, rows), read=read)

    def _chosen(self, dialect: Dialect) -> pa.Array:
        """The kept columns, perhaps with another delimiter, after the bytes before each record."""
        records = self.records
        before = np.append(self.begin, records.ends[:-1])[: len(records)]
        parts = [fields.spans(records.data, before, records.starts)]
        if self.wanted.file is not None:
            name = fields.quoted(self.file.encode("utf-8", "surrogateescape"), dialect)
            parts.append(pa.scalar(name + dialect.delimiter * bool(self.wanted.keep), pa.binary()))
        kept = range(len(self.columns)) if self.wanted.keep is None else self.wanted.keep
        for k, column in enumerate(kept):
            parts += [pa.scalar(dialect.delimiter, pa.binary())] * (k > 0)
            field = fields.raw_fields(records, column)
            if not dialect.separates_like(self.dialect):
                coded = field.dictionary_encode()
                said = [
                    fields.quoted_for(text, self.dialect, dialect) for text in coded.dictionary.to_pylist()
                ]
                field = pa.array(said, pa.binary()).take(coded.indices)
            elif dialect.spaces and records.lacking is not None:
                field = pa.array([text or fields.BLANK for text in field.to_pylist()], pa.binary())
            parts.append(field)
        return pc.join(*parts)

    def arrow(self) -> pa.RecordBatch:
        values, times, clock = self.read
        times = clock.wall if self.wanted.naive and clock.wall is not None else times
        schema = text_schema(self.columns, self.wanted)
        arrays = [] if self.wanted.file is None else [pa.repeat(utf8_name(self.file), len(self.records))]
        for column, kind in zip(
            kept_columns(self.columns, self.wanted), list(schema)[len(arrays) :], strict=True
        ):
            if column in self.wanted.values:
                numbers = values[:, self.wanted.values.index(column)]
                arrays.append(pa.array(numbers, mask=np.isnan(numbers)))
            elif column == self.wanted.time and self.wanted.time_of_day is None:
                arrays.append(pa.array(times, kind.type, mask=clock.left_out))
            else:
                arrays.append(self._strings(column))
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _strings(self, column: int) -> pa.Array:
        try:
            return fields.contents(self.records, column).cast(pa.string())
        except pa.ArrowInvalid:
            where = Place(column=self.columns[column])
            raise DataError(
                "text that is not UTF-8 can go into no other format",
                where,
                TO_UTF8,
            ) from None


def kept_columns(columns: Sequence[str], wanted: Projection) -> Sequence[int]:
    """Which columns the output has."""
    return range(len(columns)) if wanted.keep is None else wanted.keep


def text_schema(columns: Sequence[str], wanted: Projection) -> pa.Schema:
    """Types of a text's columns in other formats: smoothed ones numbers, times timestamps, others text."""
    kinds: dict[int, Any] = {column: pa.float64() for column in wanted.values}
    if wanted.time is not None and wanted.time_of_day is None:
        kinds[wanted.time] = pa.timestamp("ns", None if wanted.naive else "UTC")
    types = [kinds.get(k, pa.string()) for k in kept_columns(columns, wanted)]
    if wanted.file is not None:
        types.insert(0, pa.string())
    return pa.schema(zip(map(utf8_name, kept_names(columns, wanted)), types, strict=True))


def kept_names(columns: Sequence[str], wanted: Projection) -> list[str]:
    """The names of the output's columns."""
    names = [columns[k] for k in kept_columns(columns, wanted)]
    return names if wanted.file is None else [wanted.file, *names]
