"""Parquet in: record batches of equal size in file order, whatever the row groups are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from ema_cli.errors import FileTrouble
from ema_cli.formats.arrow_types import leaves, nests_dictionary
from ema_cli.formats.base import Projection
from ema_cli.formats.columnar import BATCH_BYTES, ColumnarSource, rows_at_once, trouble
from ema_cli.formats.parquet.copy import Original, original_of
from ema_cli.formats.parquet.footer import first_codec
from ema_cli.formats.regroup import Regrouper, has_long_values, row_bytes
from ema_cli.io.streams import arrow_file

# Read ahead in each column chunk, and in all of them together.
COLUMN_BUFFER, ALL_BUFFERS = 1 << 20, 1 << 26
# Rows decoded at first, and at most, where they may be of any length.
FEW_ROWS, MORE_ROWS = 1024, 16_384
WHAT = "Parquet file"


class ParquetSource(ColumnarSource):
    """A Parquet file, named by its path or open (it must be a real file: the footer comes last).

    Raises FileTrouble for what is no sound Parquet file.
    """

    kind = "parquet"

    def __init__(self, file: str | os.PathLike[str] | BinaryIO, name: str) -> None:
        self.name = name
        with trouble(name, WHAT):
            self._handle = arrow_file(file)
            self._bytes = self._handle.size()
        try:
            with trouble(name, WHAT):
                self._file = _parquet_file(self._handle)
                self.arrow_schema = self._file.schema_arrow
                self.columns: list[str] = list(self.arrow_schema.names)
                self._footer = _footer(self._handle)
                self.compression = first_codec(self._footer) or "zstd"
        except FileTrouble:
            self._handle.close()
            raise
        self._leaves = leaves(self.arrow_schema)
        self._lent = False

    def original(self, sink: str, wanted: Projection, new: int) -> Original | None:
        # A member of a record has no chunk of its own in the schema's sense.
        if sink != self.kind or any(k >= len(self.columns) for k in wanted.keep or ()):
            return None
        original = original_of(self._handle, self.name, self._leaves, self.compression, self._footer, new)
        self._lent = original is not None
        return original

    def close(self) -> None:
        if not self._lent:
            self._handle.close()

    def first_rows(self, columns: Sequence[int], most: int) -> Any | None:
        return next(self._record_batches(columns, most), None)

    def size_after(self, rows: int) -> int:
        return int(self._bytes * rows // max(1, self._file.metadata.num_rows))

    def read(self, columns: Sequence[int]) -> Iterator[Any]:
        """Batches of equal size, except the last one, and where rows are long."""
        groups = Regrouper(size := rows_at_once(len(columns)), BATCH_BYTES)
        for batch in self._record_batches(columns, size):
            for group in groups.add(batch):
                yield _joined(group, self.name)
        if rest := groups.rest():
            yield _joined(rest, self.name)

    def _record_batches(self, read: Sequence[int], size: int) -> Iterator[Any]:
        """Record batches as pyarrow cuts them: one with dictionaries ends with its row group."""
        leaves = [leaf for column in read for leaf in self._leaves[column]]
        kinds = [self.arrow_schema.field(column).type for column in read]
        groups = list(range(self._file.num_row_groups))
        reader, long = self._file.reader, has_long_values(kinds)
        size = min(size, FEW_ROWS) if long else size
        for run in [[group] for group in groups] if any(map(nests_dictionary, kinds)) else [groups]:
            with trouble(self.name, WHAT):
                # By leaf number and not by name, which need not be unique.
                batches = iter(reader.iter_batches(size, run, column_indices=leaves, use_threads=True))
            while True:
                with trouble(self.name, WHAT):
                    batch = next(batches, None)
                if batch is None:
                    break
                yield batch
                if long and (better := _better_size(batch)) != size:
                    size = better
                    reader.set_batch_size(size)  # which the iterator heeds at its next step


def _better_size(batch: Any) -> int:
    """How many rows to decode next, by the length of the last ones."""
    rows, bytes_ = int(batch.num_rows), int(row_bytes(batch).sum())
    if bytes_ > BATCH_BYTES:
        return max(16, rows // 4)
    return min(2 * rows, MORE_ROWS) if 4 * bytes_ < BATCH_BYTES else rows


def _parquet_file(handle: Any) -> Any:
    metadata = pq.read_metadata(handle)
    buffer = min(ALL_BUFFERS // max(1, metadata.num_columns), COLUMN_BUFFER)
    return pq.ParquetFile(
        handle,
        metadata=metadata,
        buffer_size=max(buffer, 1 << 14),
        pre_buffer=False,
        page_checksum_verification=True,
    )


def _footer(handle: Any) -> bytes:
    size = handle.size()
    length = int.from_bytes(handle.read_at(8, size - 8)[:4], "little")
    return bytes(handle.read_at(length, size - 8 - length))


def _joined(batches: list[Any], name: str) -> Any:
    """Consecutive batches as one."""
    with trouble(name, WHAT):
        return pa.concat_batches(batches) if len(batches) > 1 else batches[0]
