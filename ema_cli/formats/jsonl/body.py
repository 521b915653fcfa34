"""JSON objects on their way out: as they are, some members alone, or as Arrow columns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from ema_cli.errors import Place
from ema_cli.formats.arrow_types import binary_array, utf8_name
from ema_cli.formats.base import Body, Floats, Ints, Layout, Projection
from ema_cli.formats.jsonl import values as members
from ema_cli.formats.jsonl.layout import END, JsonLayout
from ema_cli.formats.jsonl.lines import JsonLines, Record

# The index of the column that holds the input's name, which is no member.
FILE = -1


@dataclass(frozen=True)
class JsonBody(Body):
    """Objects and the bytes before them, which begin at `begin`. read: the values and times made of them.

    kept: index and name of the columns written with `--only` and to other formats; FILE is the index of a
    column that holds the input's name. file: that name.
    """

    lines: JsonLines
    begin: int
    records: Sequence[Record]
    wanted: Projection
    kept: Sequence[tuple[int, str]]
    read: tuple[Floats, Ints | None]
    file: str

    def texts(self, layout: Layout) -> tuple[Any, memoryview]:
        lines = self.lines
        if not isinstance(layout, JsonLayout):
            places = [Place(column=name) for _, name in self.kept]
            return layout.rows(self._batch(exact=True), places, len(lines))
        if self.wanted.keep is not None:
            return self._chosen()
        bounds = np.append(self.begin, lines.closes).astype(np.int32)
        return binary_array(bounds, lines.data), memoryview(lines.data)[int(bounds[-1]) : lines.length]

    def arrow(self) -> Any:
        return self._batch(exact=False)

    def head(self, rows: int) -> JsonBody:
        values, times = self.read
        read = values[:rows], None if times is None else times[:rows]
        return replace(self, lines=self.lines.cut(0, rows), records=self.records[:rows], read=read)

    def _chosen(self) -> tuple[Any, memoryview]:
        """The kept members alone."""
        if not self.records:
            return pa.array([], pa.binary()), memoryview(b"")
        names = [name for _, name in self.kept]
        cells = [
            [self.file] * len(self.records) if column == FILE else members.column_of(self.records, name)
            for column, name in self.kept
        ]
        rows = zip(*cells, strict=True) if cells else [()] * len(self.records)
        texts = [dumped(dict(zip(names, row, strict=True)))[:-1] for row in rows]
        return pa.array([texts[0], *(END + text for text in texts[1:])], pa.binary()), memoryview(END)

    def _batch(self, *, exact: bool) -> Any:
        """The kept columns. exact: times as text as they are written, not as timestamps."""
        values, times = self.read
        schema = json_schema(self.kept, self.wanted)
        arrays = []
        for k, (column, name) in enumerate(self.kept):
            if column in self.wanted.values:
                numbers = values[:, self.wanted.values.index(column)]
                arrays.append(pa.array(numbers, mask=np.isnan(numbers)))
            elif column == self.wanted.time and times is not None and not exact:
                arrays.append(pa.array(times, schema.field(k).type))
            elif column == FILE:
                arrays.append(pa.repeat(utf8_name(self.file), len(self.records)))
            else:
                cells = members.column_of(self.records, name)
                read = members.times if column in self.wanted.clocks else members.keys
                arrays.append(read(cells).cast(pa.string()))
        return (
            pa.RecordBatch.from_arrays(arrays, names=schema.names)
            if exact
            else pa.RecordBatch.from_arrays(arrays, schema=schema)
        )


def json_schema(kept: Sequence[tuple[int, str]], wanted: Projection) -> Any:
    """Types of members in other formats: smoothed ones are numbers, times timestamps, others text."""
    kinds: dict[int, Any] = {column: pa.float64() for column in wanted.values}
    if wanted.time is not None:
        kinds[wanted.time] = pa.timestamp("ns", "UTC")
    return pa.schema([(utf8_name(name), kinds.get(column, pa.string())) for column, name in kept])


def dumped(value: Any) -> bytes:
    """A value as JSON; Python writes what orjson can't, such as very long integers."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, separators=(",", ":")).encode()
