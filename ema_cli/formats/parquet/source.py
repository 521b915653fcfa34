"""Parquet in: record batches in file order, as many rows at a time whatever the row groups are."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ema_cli.errors import DataError, FileTrouble, Place
from ema_cli.formats import arrow_compute as pc
from ema_cli.formats import arrow_text
from ema_cli.formats.arrow_types import is_number, leaves, nests_dictionary
from ema_cli.formats.base import BATCH_ROWS, Batch, Dialect, Floats, Ints, Oddity, Projection, Sample
from ema_cli.formats.parquet.copy import Original, original_of
from ema_cli.formats.parquet.footer import first_codec
from ema_cli.formats.parquet.pandas_index import index_columns, keeping
from ema_cli.io.atomic import system_words
from ema_cli.notation import LARGEST
from ema_cli.times import BadTimeError, to_nanoseconds

# Cells held at once: a table of more than 64 columns is read in shorter batches.
BATCH_CELLS = BATCH_ROWS * 64
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
MISSING_HINT = "--invalid missing"


@dataclass(frozen=True)
class ArrowBody:
    """Rows as an Arrow record batch; `places` is what its columns are called in messages."""

    batch: Any
    rows: int
    places: tuple[Place, ...]

    def texts(self, dialect: Dialect) -> tuple[Any, memoryview]:
        """Each row as delimited text; see `Body`. Raises DataError for a column that has no text."""
        return arrow_text.rows(self.batch.columns, self.places, self.rows, dialect)

    def arrow(self) -> Any:
        return self.batch

    def head(self, rows: int) -> ArrowBody:
        return replace(self, batch=self.batch.slice(0, rows), rows=rows)


@dataclass(frozen=True)
class Rows:
    """Says where a row of a batch stands: counted from 1 over the whole file."""

    file: str
    columns: Sequence[str]
    first: int

    def __call__(self, row: int, column: int | None = None) -> Place:
        name = None if column is None else self.columns[column]
        return Place(self.file, self.first + row + 1, name, unit="row")


class ParquetSource:
    """A Parquet file, named by its path or open (it must be a real file: the footer comes last).

    Raises FileTrouble for what is no sound Parquet file.
    """

    def __init__(self, file: str | os.PathLike[str] | BinaryIO, name: str) -> None:
        self.name = name
        with _trouble(name):
            self._handle = _open(file)
            self._bytes = self._handle.size()
        try:
            with _trouble(name):
                self._file = _parquet_file(self._handle)
                self._schema = self._file.schema_arrow
                self.columns: list[str] = list(self._schema.names)
                self._footer = _footer(self._handle)
                self.compression = first_codec(self._footer) or "zstd"
        except FileTrouble:
            self._handle.close()
            raise
        self._leaves = leaves(self._schema)
        self._lent = False

    def sample(self, candidates: Sequence[int], most: int) -> Sample:  # noqa: ARG002 - types need no rows
        """Those candidates whose type is a number's; pandas' index is no column of the table."""
        index = index_columns(self._schema)
        found = [
            k for k in candidates if is_number(self._schema.field(k).type) and self.columns[k] not in index
        ]
        return Sample(found, [])

    def schema(self, wanted: Projection) -> Any:
        """The Arrow schema of the columns kept; its metadata leaves out what is not."""
        if wanted.keep is None:
            return self._schema
        return keeping(pa.schema([self._schema.field(k) for k in wanted.keep], self._schema.metadata))

    def header(self, wanted: Projection, dialect: Dialect) -> tuple[bytes, bytes]:
        if not dialect.header:
            return b"", b""
        return arrow_text.header([self.columns[k] for k in self._kept(wanted)], dialect.delimiter), b"\n"

    def original(self, new: int) -> Original | None:
        """The file for a sink that copies it beside so many new columns, and closes it; None if it can't."""
        original = original_of(self._handle, self.name, self._leaves, self.compression, self._footer, new)
        self._lent = original is not None
        return original

    def close(self) -> None:
        if not self._lent:
            self._handle.close()

    def batches(self, wanted: Projection) -> Iterator[Batch]:
        """All rows, `BATCH_ROWS` at a time (fewer in very wide tables).

        Raises DataError for a column that is no number's, an infinity, or a bad time; FileTrouble for a
        damaged file.
        """
        for column in wanted.values:
            kind = self._schema.field(column).type
            if not is_number(kind):
                place = Place(self.name, column=self.columns[column])
                raise DataError(
                    f"values of type {kind} are no numbers", place, "choose numeric columns with -c"
                )
        kept = self._kept(wanted)
        keys_and_time = (*wanted.keys, *(() if wanted.time is None else (wanted.time,)))
        read = sorted({*kept, *wanted.values, *keys_and_time, *wanted.extra})
        at = {column: k for k, column in enumerate(read)}
        places = tuple(Place(self.name, column=self.columns[k]) for k in kept)
        # Built once: a batch of its columns has no field of its own, and must have the schema's metadata.
        schema = self.schema(wanted)
        first, total = 0, max(1, self._file.metadata.num_rows)
        for columns, count in self._columns(read):
            rows = Rows(self.name, self.columns, first)
            values, oddities = _values([columns[at[k]] for k in wanted.values], count, wanted, rows)
            batch = pa.RecordBatch.from_arrays([columns[at[k]] for k in kept], schema=schema)
            first += count
            yield Batch(
                count,
                values,
                None if wanted.time is None else _times(columns[at[wanted.time]], wanted, rows),
                [arrow_text.texts(columns[at[k]], rows(0, k)) for k in wanted.keys],
                ArrowBody(batch, count, places),
                rows,
                oddities,
                self._bytes * first // total,
                [arrow_text.texts(columns[at[k]], rows(0, k)) for k in wanted.extra],
            )

    def _kept(self, wanted: Projection) -> Sequence[int]:
        return range(len(self.columns)) if wanted.keep is None else wanted.keep

    def _columns(self, read: Sequence[int]) -> Iterator[tuple[list[Any], int]]:
        """The columns read, in file order, and how many rows they have: always as many, but the last time."""
        size = BATCH_ROWS
        while size > 1024 and size * len(read) > BATCH_CELLS:
            size //= 2
        waiting: list[Any] = []
        count = 0
        for batch in self._record_batches(read, size):
            waiting.append(batch)
            count += batch.num_rows
            while count >= size:
                missing = size - (count - waiting[-1].num_rows)
                rest = waiting[-1].slice(missing)
                waiting[-1] = waiting[-1].slice(0, missing)
                yield _joined(waiting, self.name), size
                waiting, count = [rest], rest.num_rows
        if count:
            yield _joined(waiting, self.name), count

    def _record_batches(self, read: Sequence[int], size: int) -> Iterator[Any]:
        """As pyarrow cuts them: dictionaries end with their row group."""
        leaves = [leaf for column in read for leaf in self._leaves[column]]
        groups = list(range(self._file.num_row_groups))
        apart = any(nests_dictionary(self._schema.field(column).type) for column in read)
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


def _open(file: str | os.PathLike[str] | BinaryIO) -> Any:
    # An open file has a path too, even once it is unlinked; so pyarrow reads it without asking Python.
    return pa.OSFile(os.fspath(file) if isinstance(file, str | os.PathLike) else f"/dev/fd/{file.fileno()}")


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


def _joined(batches: list[Any], name: str) -> list[Any]:
    """The columns of consecutive batches, each as one array."""
    with _trouble(name):
        return list((pa.concat_batches(batches) if len(batches) > 1 else batches[0]).columns)


def _values(
    columns: Sequence[Any], count: int, wanted: Projection, rows: Rows
) -> tuple[Floats, list[Oddity]]:
    """(count, columns) float64 with NaN where missing, and the cells that were infinite.

    Integers beyond 2**53 and long decimals are rounded to the nearest float64.
    """
    values = np.empty((len(columns), count)).T  # column after column, as the engine folds them
    for k, column in enumerate(columns):
        values[:, k] = pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    # Beyond LARGEST the difference of two values may overflow; infinity is beyond it too.
    odd = np.abs(values) >= LARGEST
    if not odd.any():
        return values, []
    rows_at = [np.flatnonzero(odd[:, k]).tolist() for k in range(len(columns))]
    oddities = [
        Oddity(wanted.values[k], len(at), at[0], str(columns[k].slice(at[0], 1).cast(pa.string())[0].as_py()))
        for k, at in enumerate(rows_at)
        if at
    ]
    if wanted.invalid == "error":
        first = min(oddities, key=lambda oddity: (oddity.row, oddity.column))
        raise DataError(f"no finite number: {first.text}", rows(first.row, first.column), MISSING_HINT)
    values[odd] = np.nan
    return values, oddities


def _times(column: Any, wanted: Projection, rows: Rows) -> Ints:
    try:
        return to_nanoseconds(column, wanted.time_unit)
    except BadTimeError as error:
        problem = f"{error.text!r} is {error.problem}" if error.text else f"the time is {error.problem}"
        raise DataError(problem, rows(error.row, wanted.time), error.hint) from None
