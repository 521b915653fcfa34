"""Parquet in: record batches in file order, as many rows at a time whatever the row groups are."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from ema_cli.errors import FileTrouble
from ema_cli.formats.arrow_types import leaves, nests_dictionary
from ema_cli.formats.columnar import ColumnarSource, rows_at_once
from ema_cli.formats.parquet.copy import Original, original_of
from ema_cli.formats.parquet.footer import first_codec
from ema_cli.io.atomic import system_words
from ema_cli.io.streams import arrow_file

# Read ahead in each column chunk, and in all of them together.
COLUMN_BUFFER, ALL_BUFFERS = 1 << 20, 1 << 26
# What pyarrow raises for damaged files besides its own exceptions (found by fuzzing).
_DAMAGE = (
    pa.ArrowException,
    OSError,
    ValueError,
    KeyError,
    IndexError,
    NotImplementedError,
    TypeError,
    OverflowError,
    MemoryError,
    RecursionError,
)


class ParquetSource(ColumnarSource):
    """A Parquet file, named by its path or open (it must be a real file: the footer comes last).

    Raises FileTrouble for what is no sound Parquet file.
    """

    kind = "parquet"

    def __init__(self, file: str | os.PathLike[str] | BinaryIO, name: str) -> None:
        self.name = name
        with _trouble(name):
            self._handle = arrow_file(file)
            self._bytes = self._handle.size()
        try:
            with _trouble(name):
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

    def original(self, sink: str, new: int) -> Original | None:
        if sink != self.kind:
            return None
        original = original_of(self._handle, self.name, self._leaves, self.compression, self._footer, new)
        self._lent = original is not None
        return original

    def close(self) -> None:
        if not self._lent:
            self._handle.close()

    def size_after(self, rows: int) -> int:
        return int(self._bytes * rows // max(1, self._file.metadata.num_rows))

    def read(self, columns: Sequence[int]) -> Iterator[Any]:
        """Always as many rows, whatever the row groups are; but the last time."""
        size = rows_at_once(len(columns))
        waiting: list[Any] = []
        count = 0
        for batch in self._record_batches(columns, size):
            waiting.append(batch)
            count += batch.num_rows
            while count >= size:
                missing = size - (count - waiting[-1].num_rows)
                rest = waiting[-1].slice(missing)
                waiting[-1] = waiting[-1].slice(0, missing)
                yield _joined(waiting, self.name)
                waiting, count = [rest], rest.num_rows
        if count:
            yield _joined(waiting, self.name)

    def _record_batches(self, read: Sequence[int], size: int) -> Iterator[Any]:
        """As pyarrow cuts them: dictionaries end with their row group."""
        leaves = [leaf for column in read for leaf in self._leaves[column]]
        groups = list(range(self._file.num_row_groups))
        apart = any(nests_dictionary(self.arrow_schema.field(column).type) for column in read)
        for run in [[group] for group in groups] if apart else [groups]:
            with _trouble(self.name):
                # By leaf number and not by name, which need not be unique.
                reader = iter(
                    self._file.reader.iter_batches(size, run, column_indices=leaves, use_threads=True)
                )
            while True:
                with _trouble(self.name):
                    batch = next(reader, None)
                if batch is None:
                    break
                yield batch


@contextlib.contextmanager
def _trouble(name: str) -> Iterator[None]:
    """pyarrow's exceptions as FileTrouble. Nothing but pyarrow runs inside."""
    try:
        yield
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise FileTrouble(name, system_words(error)) from error
        words = " ".join(str(error).split()) or type(error).__name__
        if "crypt" in words.lower():
            raise FileTrouble(name, "is encrypted Parquet, which is not read", "decrypt it first") from error
        raise FileTrouble(name, f"is no sound Parquet file ({words[:200]})") from error


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
    with _trouble(name):
        return pa.concat_batches(batches) if len(batches) > 1 else batches[0]
