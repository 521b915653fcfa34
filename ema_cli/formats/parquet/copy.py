"""Parquet to Parquet without unpacking: column chunks as they are, and new ones beside them.

Column chunks of a row group are copied as the bytes of a CSV record are: kept columns are neither decoded nor
encoded again, so they lose nothing and take no time. The row groups are those of the input. Page indexes and
bloom filters, which hold positions in the file and which readers can do without, are not copied.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from ema_cli.errors import FileTrouble
from ema_cli.formats.base import Batch, Floats, Sink
from ema_cli.formats.columnar import new_columns
from ema_cli.formats.parquet.footer import (
    MAGIC,
    ColumnChunk,
    ColumnMeta,
    FileMeta,
    Footer,
    RowGroup,
    Schema,
    joined,
    meta_of,
    moved,
    place_of,
    rows_of,
    schema_of,
    split,
)
from ema_cli.formats.parquet.sink import GROUP_ROWS, MOST_THREADS, Appender, encoded, file_of
from ema_cli.formats.parquet.thrift import I64, Decoder, Struct, a_list, items
from ema_cli.io.threads import Threads

# Inputs beyond these limits are read and written anew: the footer is held as Python objects, the new
# columns of a row group as bytes, and many small row groups cost more than joining them.
MOST_FOOTER, MOST_CELLS, FEWEST_ROWS, FEW_GROUPS = 1 << 22, 1 << 22, 10_000, 8
PIECE_BYTES = 1 << 20
# A writer whose chunks are longer than they say.
_MISCOUNTS = re.compile(rb"parquet-mr version (0|1\.[012])\b")

Encoded = tuple[memoryview, Struct]


@dataclass(frozen=True)
class Original:
    """An open Parquet file and its footer.

    leaves: for each column the numbers of its leaf columns. compression: for columns that are added.
    """

    handle: Any
    name: str
    leaves: Sequence[range]
    compression: str
    footer: Struct

    @property
    def groups(self) -> list[Struct]:
        """The row groups that have rows."""
        return [group for group in items(self.footer, FileMeta.GROUPS) if rows_of(group)]

    def can_be_copied(self, new: int) -> bool:
        """Whether its row groups are of a good size, and its chunks in the file as the format has it."""
        if not self._is_well_cut(new) or _MISCOUNTS.match(self.footer.get(FileMeta.CREATED_BY, (0, b""))[1]):
            return False
        leaves = sum(map(len, self.leaves))
        if len(schema_of(self.footer).columns) != len(self.leaves):
            return False
        if len(items(self.footer, FileMeta.COLUMN_ORDERS)) not in (0, leaves):
            return False
        chunks = [items(group, RowGroup.CHUNKS) for group in self.groups]
        return all(len(each) == leaves and all(map(self._is_here, each)) for each in chunks)

    def _is_well_cut(self, new: int) -> bool:
        rows = [rows_of(group) for group in self.groups]
        if len(rows) > FEW_GROUPS and sum(rows) < FEWEST_ROWS * len(rows):
            return False
        if min(rows, default=0) < 0 or max(rows, default=0) * new > MOST_CELLS:
            return False
        return bool(sum(rows) == self.footer[FileMeta.ROWS][1])

    def _is_here(self, chunk: Struct) -> bool:
        elsewhere = {ColumnChunk.FILE_PATH, ColumnChunk.CRYPTO, ColumnChunk.ENCRYPTED_META}
        if ColumnChunk.META not in chunk or chunk.keys() & elsewhere:
            return False
        numbers = (
            ColumnMeta.VALUES,
            ColumnMeta.BYTES,
            ColumnMeta.PACKED_BYTES,
            ColumnMeta.DATA_AT,
        )
        if any(meta_of(chunk)[field][0] != I64 for field in numbers):
            return False
        begin, size = place_of(chunk)
        return begin >= len(MAGIC) and size >= 0 and begin + size <= self.handle.size()

    def read(self, begin: int, size: int) -> bytes:
        data: bytes = self.handle.read_at(size, begin)
        if len(data) != size:
            raise FileTrouble(self.name, "became shorter while it was read")
        return data

    def miscounts(self) -> FileTrouble:
        return FileTrouble(self.name, "is no sound Parquet file (its row groups have not the rows they say)")


def original_of(
    handle: Any, name: str, leaves: Sequence[range], compression: str, footer: bytes, new: int
) -> Original | None:
    """The file, to be copied with `new` new columns; None if it should be read and written anew."""
    if len(footer) > MOST_FOOTER:
        return None
    try:
        original = Original(handle, name, leaves, compression, Decoder(footer).struct())
        return original if original.can_be_copied(new) else None
    except (KeyError, IndexError, ValueError, TypeError, RecursionError):  # which Arrow has read all the same
        return None


class ParquetCopySink(Sink):
    """Writes a Parquet file of the kept columns of `original` and, batch by batch, of new ones.

    schema: of the output, as in `ParquetSink`. kept: indexes of the columns that are kept. names: of the new
    ones. threads: how many may encode these. Batches need no body, but they must have all rows of the
    original, in order.
    """

    needs_bodies = False

    def __init__(
        self,
        out: BinaryIO,
        original: Original,
        schema: Any,
        kept: Sequence[int],
        names: Sequence[str],
        threads: int = 1,
    ) -> None:
        self._original, self._out = original, Appender(out)
        self._leaves = [leaf for column in kept for leaf in original.leaves[column]]
        self._new = pa.schema([pa.field(name, pa.float64()) for name in names])
        self._groups = deque(original.groups)
        how = {"compression": original.compression, "use_dictionary": False, "store_schema": False}
        self._encode = partial(_encoded, schema=self._new, options=how)
        self._footer = Footer(_fields(original, split(file_of(schema, None, {}))[1], kept, len(names)))
        self._left = rows_of(self._groups[0]) if self._groups else 0  # of the row group that is under way
        self._piece, self._filled = np.empty((len(names), 0)), 0
        # Pieces begun of that row group; those encoded; and the groups that have all rows, with their pieces.
        self._begun, self._encoded = 0, deque[Encoded]()
        self._ended: deque[tuple[Struct, int]] = deque()
        self._threads = Threads(min(threads, MOST_THREADS))
        self._out.append(MAGIC)

    def write(self, batch: Batch, fields: Floats) -> None:  # noqa: ARG002 - as every sink
        """Append new fields, (rows, new columns) float64, NaN where blank."""
        at = 0
        while at < len(fields):
            if not self._left:
                raise self._original.miscounts()
            if self._filled == self._piece.shape[1]:
                self._piece, self._filled = np.empty((len(self._new), min(self._left, GROUP_ROWS))), 0
            count = min(len(fields) - at, self._piece.shape[1] - self._filled)
            self._piece[:, self._filled : self._filled + count] = fields[at : at + count].T
            self._filled += count
            at += count
            if self._filled == self._piece.shape[1]:
                self._end_piece()

    def finish(self) -> None:
        """Write what is left, and the footer."""
        if self._left:
            raise self._original.miscounts()
        self._write_ended(all_of_them=True)
        self._threads.stop()
        self._out.append(self._footer.text())
        self._original.handle.close()

    def _end_piece(self) -> None:
        """Start encoding a piece of the new columns, and write row groups that are encoded."""
        if len(self._new):
            self._threads.call(self._encode, self._piece)
            self._begun += 1
        self._left -= self._filled
        if not self._left:
            self._ended.append((self._groups.popleft(), self._begun))
            self._left, self._begun = rows_of(self._groups[0]) if self._groups else 0, 0
        self._write_ended()

    def _write_ended(self, *, all_of_them: bool = False) -> None:
        self._encoded += self._threads.results(all_of_them=all_of_them)
        while self._ended and self._ended[0][1] <= len(self._encoded):
            group, count = self._ended.popleft()
            chunks, new = items(group, RowGroup.CHUNKS), [self._encoded.popleft() for _ in range(count)]
            done = [self._copied(chunks[leaf]) for leaf in self._leaves]
            done += [self._joined(new, column) for column in range(len(self._new))]
            self._footer.add(group, done)

    def _copied(self, chunk: Struct) -> Struct:
        """Append a chunk of the original's."""
        begin, size = place_of(chunk)
        out = moved(chunk, self._out.position - begin)
        for at in range(begin, begin + size, PIECE_BYTES):
            self._out.append(self._original.read(at, min(PIECE_BYTES, begin + size - at)))
        return out

    def _joined(self, pieces: Sequence[Encoded], column: int) -> Struct:
        """Append the pieces of a new column as one chunk: their pages, one after the other."""
        position, chunks = self._out.position, []
        for data, footer in pieces:
            (group,) = items(footer, FileMeta.GROUPS)
            chunks.append(items(group, RowGroup.CHUNKS)[column])
            begin, size = place_of(chunks[-1])
            self._out.append(data[begin - len(MAGIC) : begin - len(MAGIC) + size])
        return joined(chunks, position)


def _encoded(piece: Floats, schema: Any, options: dict[str, Any]) -> Encoded:
    return encoded(pa.Table.from_arrays(new_columns(piece), schema=schema), options)


def _fields(original: Original, new_footer: Struct, kept: Sequence[int], new: int) -> Struct:
    """The original's footer for the kept columns and, from a file of the new schema, the new ones."""
    fields = dict(original.footer)
    for field in (FileMeta.ENCRYPTION, FileMeta.SIGNING_KEY):
        fields.pop(field, None)
    old, full = schema_of(original.footer), schema_of(new_footer)
    begin = len(full.columns) - new
    fields[FileMeta.SCHEMA] = Schema(old.root, [old.columns[k] for k in kept] + full.columns[begin:]).field()
    if orders := items(fields, FileMeta.COLUMN_ORDERS):
        own = [orders[leaf] for column in kept for leaf in original.leaves[column]]
        all_orders = items(new_footer, FileMeta.COLUMN_ORDERS)
        fields[FileMeta.COLUMN_ORDERS] = a_list(own + all_orders[len(all_orders) - new :])
    # Arrow's and pandas' notes on the columns are those on the new schema, where there were any.
    about = {note[1][1]: note for note in items(new_footer, FileMeta.NOTES)}
    if notes := [about.get(note.get(1, (0, b""))[1], note) for note in items(fields, FileMeta.NOTES)]:
        fields[FileMeta.NOTES] = a_list(notes)
    return fields
