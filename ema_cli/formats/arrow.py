"""Arrow IPC: files (Feather V2) and streams, in and out by record batches.

A stream is answered batch by batch as it arrives. From Arrow to Arrow the record batches are those of the
input; rows of other formats are written in batches of a fixed size, so that the bytes do not depend on how
the input arrived.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from ema_cli.errors import DataError, FileTrouble, Place
from ema_cli.formats.base import BATCH_ROWS, Batch, Floats, Projection, Sink, Source
from ema_cli.formats.columnar import BATCH_BYTES, ColumnarSource, new_columns, rows_at_once, trouble
from ema_cli.formats.opened import Opened
from ema_cli.formats.pandas_index import adding
from ema_cli.formats.regroup import Regrouper
from ema_cli.io.atomic import is_special
from ema_cli.io.streams import Reader, arrow_file
from ema_cli.job import Job

FILE, STREAM, FEATHER_V1 = b"ARROW1", b"\xff\xff\xff\xff", b"FEA1"
WHAT = "Arrow file"
# The rows of each record batch of an input, appended before these are read.
Cuts = deque[int]


def open_source(job: Job, name: str, opened: Opened) -> ArrowSource:  # noqa: ARG001 - as every format
    magic = opened.magic((FILE, FEATHER_V1))
    if magic == FEATHER_V1:
        hint = "pyarrow.feather.write_feather(pyarrow.feather.read_table(FILE), NEW) makes Feather V2"
        raise DataError("this is Feather V1, an old format that is not read", Place(opened.shown), hint)
    if magic is None:
        return ArrowStream(opened)
    with opened.seekable() as file:  # ArrowFile opens it again
        return ArrowFile(file, opened.shown)


def open_sink(job: Job, out: BinaryIO, source: Source, wanted: Projection, names: list[str]) -> Sink:
    """A stream for pipes and for `.arrows`, else a file."""
    name = job.output or "-"
    streamed = name == "-" or name.lower().endswith(".arrows") or is_special(Path(os.path.realpath(name)))
    return ArrowSink(
        out,
        adding(source.schema(wanted), names),
        source.original("arrow", wanted, len(names)),
        streamed=streamed,
    )


class ArrowSource(ColumnarSource):
    """What files and streams share. Arrow does not check what it reads, so batches are validated."""

    kind = "arrow"

    def __init__(self, name: str) -> None:
        self.name = name
        self._cuts: Cuts | None = None

    def original(self, sink: str, wanted: Projection, new: int) -> Cuts | None:  # noqa: ARG002 - any
        if sink == self.kind:
            self._cuts = deque()
        return self._cuts

    def read(self, columns: Sequence[int]) -> Iterator[Any]:
        size = rows_at_once(len(columns))
        for batch in self._record_batches(columns):
            if self._cuts is not None:
                self._cuts.append(batch.num_rows)
            groups = Regrouper(size, BATCH_BYTES)
            for (piece,) in groups.add(batch):
                yield piece
            yield from groups.rest() or [batch] * (not batch.num_rows)

    def _record_batches(self, columns: Sequence[int]) -> Iterator[Any]:
        """These columns of each record batch."""
        raise NotImplementedError


class ArrowFile(ArrowSource):
    """An IPC file, whose end says where its batches are."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        super().__init__(name)
        with trouble(name, WHAT):
            self._handle = arrow_file(file)
        try:
            with trouble(name, WHAT):
                reader = pa.ipc.open_file(self._handle)
                self._batches = reader.num_record_batches
                self._bytes, self._read = self._handle.size(), 0
        except FileTrouble:
            self._handle.close()
            raise
        self.arrow_schema = reader.schema
        self.columns = list(self.arrow_schema.names)

    def first_rows(self, columns: Sequence[int], most: int) -> Any | None:
        batch = next(self._record_batches(columns), None)
        self._read = 0
        return None if batch is None else batch.slice(0, most)

    def size_after(self, rows: int) -> int:  # noqa: ARG002 - a file does not say how many there will be
        return int(self._bytes * self._read // max(1, self._batches))

    def _record_batches(self, columns: Sequence[int]) -> Iterator[Any]:
        options = pa.ipc.IpcReadOptions(included_fields=list(columns))
        with trouble(self.name, WHAT):
            # For no columns read all: a batch without columns does not know its number of rows.
            reader = pa.ipc.open_file(self._handle, options=options if columns else None)
        for number in range(self._batches):
            with trouble(self.name, WHAT):
                batch = reader.get_batch(number)
                batch.validate(full=True)
            self._read = number + 1
            yield batch

    def close(self) -> None:
        self._handle.close()


class ArrowStream(ArrowSource):
    """An IPC stream, batch by batch as it arrives."""

    def __init__(self, opened: Opened) -> None:
        super().__init__(opened.shown)
        self._opened = opened
        with trouble(self.name, WHAT):
            self._reader = pa.ipc.open_stream(pa.PythonFile(Whole(opened.text), mode="r"))
        self.arrow_schema = self._reader.schema
        self.columns = list(self.arrow_schema.names)

    def size_after(self, rows: int) -> int:  # noqa: ARG002 - a stream does not say how many there will be
        return self._opened.taken()

    def _record_batches(self, columns: Sequence[int]) -> Iterator[Any]:
        while True:
            with trouble(self.name, WHAT):
                batch = next(self._reader, None)
                if batch is None:
                    return
                if columns:
                    batch = batch.select(list(columns))
                batch.validate(full=True)
            yield batch

    def close(self) -> None:
        self._opened.close()


class Whole:
    """A reader whose `read(n)` gives n bytes, as Arrow needs, or fewer at the end."""

    def __init__(self, reader: Reader) -> None:
        self.reader, self.closed = reader, False

    def read(self, n: int = -1, /) -> bytes:
        parts, missing = [], n
        while missing and (part := self.reader.read(missing)):
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        self.closed = True


class Counted:
    """An output with `tell`, which Arrow calls."""

    def __init__(self, out: BinaryIO) -> None:
        self.out, self.position, self.closed = out, 0, False

    def write(self, data: Any, /) -> int:
        rest = memoryview(data).cast("B")
        self.position += len(rest)
        size = len(rest)
        while rest:  # an unbuffered file may take less than it is given
            rest = rest[self.out.write(rest) :]
        return size

    def tell(self) -> int:
        return self.position

    def flush(self) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        self.closed = True


class ArrowSink(Sink):
    """Appends record batches. cuts: rows of each batch of the input; None: batches of a fixed size."""

    def __init__(self, out: BinaryIO, schema: Any, cuts: Cuts | None, *, streamed: bool) -> None:
        self.schema, self._cuts = schema, cuts
        self._parts: list[Any] = []
        self._waiting = 0
        self._groups = Regrouper(BATCH_ROWS, BATCH_BYTES)
        # In a file a column has one dictionary, which may only grow; in a stream each batch has its own.
        self._dictionaries: dict[int, Any] | None = None if streamed else {}
        make = pa.ipc.new_stream if streamed else pa.ipc.new_file
        options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
        self._writer = make(pa.PythonFile(Counted(out), mode="w"), schema, options=options)

    def write(self, batch: Batch, fields: Floats) -> None:
        columns = [*batch.body.arrow().columns, *new_columns(np.ascontiguousarray(fields.T))]
        rows = pa.RecordBatch.from_arrays(columns, schema=self.schema)
        if self._cuts is None:
            for group in self._groups.add(rows):
                self._put(pa.Table.from_batches(group, self.schema))
            return
        self._parts.append(rows)
        self._waiting += batch.rows
        while self._cuts and self._parts and self._waiting >= self._cuts[0]:
            table, count = pa.Table.from_batches(self._parts, self.schema), self._cuts.popleft()
            self._put(table.slice(0, count))
            self._waiting -= count
            self._parts = table.slice(count).to_batches() if self._waiting else []

    def finish(self) -> None:
        for rest in (self._parts, self._groups.rest()):
            if rest:
                self._put(pa.Table.from_batches(rest, self.schema))
        self._writer.close()

    def _put(self, table: Any) -> None:
        """Write rows as one record batch."""
        whole = table.combine_chunks()
        try:
            columns = [self._column(k, column) for k, column in enumerate(whole.columns)]
            self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self.schema))
        except pa.ArrowInvalid as error:
            hint = "write a stream (-o FILE.arrows) or Parquet, where categories may change"
            raise DataError(f"an Arrow file can't hold these columns: {error}", hint=hint) from error

    def _column(self, k: int, column: Any) -> Any:
        """A column as one array."""
        if self._dictionaries is not None and pa.types.is_dictionary(column.type) and column.num_chunks:
            before = self._dictionaries.get(k)
            chunks = column.chunks if before is None else [before, *column.chunks]
            column = pa.chunked_array(chunks, column.type).unify_dictionaries()
            self._dictionaries[k] = column.chunk(0).slice(0, 0)
            column = column if before is None else pa.chunked_array(column.chunks[1:], column.type)
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
