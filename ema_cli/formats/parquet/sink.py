"""Parquet out: the input's columns as they were, then the new ones, in row groups of a fixed size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ema_cli.formats import arrow_compute as pc
from ema_cli.formats import pandas_index
from ema_cli.formats.base import Batch, Floats, Sink
from ema_cli.formats.columnar import new_columns
from ema_cli.formats.parquet.footer import MAGIC, FileMeta, Footer, RowGroup, moved, split
from ema_cli.formats.parquet.thrift import Struct, items
from ema_cli.formats.regroup import Regrouper
from ema_cli.io.threads import Threads

# Two batches: enough to compress well, little enough to hold a few of them.
GROUP_ROWS = 131_072
# Very wide tables get shorter row groups, for the sake of memory.
GROUP_CELLS, LEAST_ROWS = GROUP_ROWS * 32, 1024
# And tables of long texts; most row groups of numbers alone are far below.
GROUP_BYTES = 128 << 20
SAMPLE_ROWS = 65_536
MOST_THREADS = 4


class ParquetSink(Sink):
    """Appends batches to a Parquet file that begins where `out` stands.

    schema: of the rows that bodies give. names: of the new columns, nullable float64 with null where blank.
    compression: none, snappy, gzip, brotli, lz4 or zstd. threads: how many may encode. The bytes written do
    not depend on how the rows were cut into batches, nor on the number of threads. `out` is only touched by
    the caller's thread.
    """

    def __init__(
        self, out: BinaryIO, schema: Any, names: Sequence[str], compression: str = "zstd", threads: int = 1
    ) -> None:
        self._out, self._compression = Appender(out), compression
        self._input_columns = len(schema)
        self.schema = pandas_index.adding(schema, names)
        self._groups = Regrouper(group_rows(len(self.schema)), GROUP_BYTES)
        self._dictionary: list[str] | None = None
        self._threads = Threads(min(threads, MOST_THREADS))
        self._footer = Footer(split(file_of(self.schema, None, self._options([])))[1])
        self._out.append(MAGIC)

    def write(self, batch: Batch, fields: Floats) -> None:
        """Append the batch with its new fields, (rows, new columns) float64, NaN where blank."""
        columns = [*batch.body.arrow().columns, *new_columns(np.ascontiguousarray(fields.T))]
        for group in self._groups.add(pa.RecordBatch.from_arrays(columns, schema=self.schema)):
            self._begin(pa.Table.from_batches(group, self.schema))

    def finish(self) -> None:
        """Write what is left, and the footer."""
        if rest := self._groups.rest():
            self._begin(pa.Table.from_batches(rest, self.schema))
        self._append(all_of_them=True)
        self._threads.stop()
        self._out.append(self._footer.text())

    def _begin(self, group: Any) -> None:
        """Start encoding a row group, and write earlier ones that are ready, in order."""
        if self._dictionary is None:
            self._dictionary = _repetitive(group, self._input_columns)
        options = {**self._options(self._dictionary), "store_schema": False}
        self._threads.call(encoded, group, options)
        self._append()

    def _append(self, *, all_of_them: bool = False) -> None:
        for chunks, footer in self._threads.results(all_of_them=all_of_them):
            shift = self._out.position - len(MAGIC)
            for group in items(footer, FileMeta.GROUPS):
                self._footer.add(group, [moved(chunk, shift) for chunk in items(group, RowGroup.CHUNKS)])
            self._out.append(chunks)

    def _options(self, dictionary: list[str]) -> dict[str, Any]:
        return {"compression": self._compression, "use_dictionary": dictionary or False}


class Appender:
    """Appends to a file, and knows its position."""

    def __init__(self, out: BinaryIO) -> None:
        self._out, self.position = out, 0

    def append(self, data: bytes | memoryview) -> None:
        self.position += len(data)
        rest = memoryview(data)
        while rest:  # an unbuffered file may take less than it is given
            rest = rest[self._out.write(rest) :]


def group_rows(columns: int) -> int:
    """Rows in a row group of so many columns."""
    rows = GROUP_ROWS
    while rows > LEAST_ROWS and rows * columns > GROUP_CELLS:
        rows //= 2
    return rows


def encoded(group: Any, options: dict[str, Any]) -> tuple[memoryview, Struct]:
    """The column chunks and the footer of a file of one row group."""
    # Without the schema's metadata, which only the whole file's footer needs. One dictionary a column: where
    # a second one begins pyarrow gives dictionaries up; categories that pandas ordered stay in their order.
    plain = group.replace_schema_metadata(None).unify_dictionaries()
    return split(file_of(plain.schema, plain, options))


def file_of(schema: Any, group: Any, options: dict[str, Any]) -> memoryview:
    out = pa.BufferOutputStream()
    with pq.ParquetWriter(out, schema, **options) as writer:
        if group is not None:
            writer.write_table(group, row_group_size=len(group))
    return memoryview(out.getvalue())


def _repetitive(group: Any, columns: int) -> list[str]:
    """Those of the first columns whose values repeat so often that a dictionary saves space.

    For measurements the encoder gives up a dictionary halfway, which takes twice the time and a third more
    space. The first rows of the first row group decide, so it does not matter how the rows arrived.
    """
    sample = group.slice(0, SAMPLE_ROWS).combine_chunks()
    names = []
    for field, column in zip(sample.schema, sample.columns[:columns], strict=False):
        values = column.chunk(0)
        if isinstance(field.type, pa.BaseExtensionType):
            values = values.storage
        kind = values.type
        if pa.types.is_nested(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
            continue
        if pa.types.is_dictionary(kind) or _distinct(values) <= len(sample) // 8:
            names.append(field.name)
    return names


def _distinct(values: Any) -> int:
    plain = {"string_view": pa.string(), "binary_view": pa.binary()}.get(str(values.type))
    return int(pc.count_distinct(values if plain is None else values.cast(plain), mode="all").as_py())
