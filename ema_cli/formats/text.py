"""CSV and TSV: records pass through byte for byte, only new fields are spliced on.

The text of the user's own columns is never parsed into anything and printed again; of each record the
wanted fields are read, and its bytes go from the input buffer to the output as they are.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from ema_cli.batch import BATCH_ROWS, Batch, Floats, Wanted
from ema_cli.errors import DataError, Place
from ema_cli.formats import cells
from ema_cli.formats.records import Dialect, RaggedError, Records, index_records
from ema_cli.formats.streams import BLOCK_BYTES, Reader
from ema_cli.times import BadTimeError, to_nanoseconds

LONGEST_RECORD = 1 << 26
SAMPLE = 1000  # records within which a column's first value must lie for it to be chosen by default
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class TextBody:
    """A run of records and the bytes that come before them (line endings, blank lines)."""

    records: Records
    begin: int

    def splice(self, fields: pa.Array) -> list[Any]:
        """The records with a text added to each, as buffers to write."""
        records = self.records
        offsets = np.append(self.begin, records.ends).astype(np.int32)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(records.data)]
        lines = pa.Array.from_buffers(pa.binary(), len(records), buffers)
        joined = pc.binary_join_element_wise(lines, fields, b"")
        return [joined.buffers()[2], memoryview(records.data)[int(records.ends[-1]) : records.length]]


@dataclass(frozen=True)
class Header:
    """The header as it stands, and what it says."""

    text: bytes
    ending: bytes
    names: list[str]


class TextSource:
    """A delimited text, block by block."""

    def __init__(self, reader: Reader, name: str, dialect: Dialect) -> None:
        self.reader, self.name, self.dialect = reader, name, dialect
        self.rest = b""  # read, but not yet a whole record
        self.line = 1  # the physical line on which `rest` begins
        self.size = 0
        self.ended = False
        self.waiting: list[Records] = []
        self.header = self._read_header()
        self.columns = self.header.names
        self.ending = self.header.ending

    # -- the header

    def _read_header(self) -> Header:
        """The first record; raises DataError for what is no table of text."""
        delimiter = self.dialect.delimiter[0]
        while True:
            end, fields = _first_record(self.rest, delimiter, self.ended)
            if end is not None or self.ended:
                break
            self._more(self.line)
        _refuse_foreign(self.rest, self.name)
        record = self.rest[: end or 0]
        stripped = record.rstrip(b"\n").removesuffix(b"\r")
        ending = record[len(stripped) :]
        if not self.dialect.header:
            return Header(b"", ending or b"\n", [str(k + 1) for k in range(len(fields))])
        self.rest = self.rest[len(record) :]
        self.line += record.count(b"\n")
        if b"\r" in stripped:
            raise DataError(
                "lines end in a bare carriage return, as on old Macs",
                Place(self.name, 1),
                "tr '\\r' '\\n' < FILE | ema-smooth ...",
            )
        names = [cells.unquote(field).decode("utf-8", "surrogateescape") for field in fields]
        if names:
            names[0] = cells.unquote(fields[0].removeprefix(BOM)).decode("utf-8", "surrogateescape")
        return Header(stripped, ending, names)

    # -- reading blocks

    def _more(self, line: int) -> None:
        """Append what has arrived to `rest`; notes the end of the input."""
        if len(self.rest) > LONGEST_RECORD:
            raise DataError(
                f"a record longer than {LONGEST_RECORD >> 20} MiB",
                Place(self.name, line),
                "is a quote that opens a field there never closed?",
            )
        chunk = self.reader.read(BLOCK_BYTES)
        self.ended = not chunk
        self.size += len(chunk)
        self.rest += chunk

    def _blocks(self) -> Iterator[Records]:
        """Whole records, as many as have arrived."""
        yield from iter(self.waiting)
        self.waiting = []
        while (records := self._next_block()) is not None:
            yield records

    def _next_block(self) -> Records | None:
        """The next records, None at the end; a sound run is given before the error that follows it."""
        while True:
            if not self.ended and (not self.rest or b"\n" not in self.rest):
                self._more(self.line)
            if not self.rest and self.ended:
                return None
            try:
                records = index_records(
                    self.rest, len(self.columns), self.dialect.delimiter[0], final=self.ended
                )
            except RaggedError as error:
                if not len(error.records):
                    raise self._ragged(error) from None
                records = error.records
            if records.length:
                records = replace(records, data=self.rest)
                self._consume(records)
                return records
            if self.ended:
                raise DataError(
                    "a quoted field is never closed",
                    Place(self.name, self.line),
                    'end it with a quote: "..."',
                )
            self._more(self.line)

    def _consume(self, records: Records) -> None:
        self.rest = self.rest[records.length :]
        self.first_line = self.line
        self.line += records.data.count(b"\n", 0, records.length)
