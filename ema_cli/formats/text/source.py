"""CSV and TSV in: records pass through byte for byte, only the wanted fields are looked at.

The text of the user's own columns is never parsed into anything and printed again; of each record the
wanted fields are read, and its bytes go from the input buffer to the output as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from ema_cli.errors import Advice, DataError, Place, readable
from ema_cli.formats.base import (
    BATCH_ROWS,
    Batch,
    Clock,
    Floats,
    Ints,
    Layout,
    Projection,
    Sample,
    Source,
)
from ema_cli.formats.blocks import BlocksOfLines
from ema_cli.formats.clock import BadClockError, ClockReader
from ema_cli.formats.foreign import (
    NUL,
    lacks_newline_byte,
    refuse_documents,
    refuse_foreign,
    without_nuls,
    without_outer_quotes,
)
from ema_cli.formats.text import cells, fields
from ema_cli.formats.text.body import TextBody, kept_columns, kept_names, text_schema
from ema_cli.formats.text.dialect import Dialect
from ema_cli.formats.text.header import Header, lines_before, preamble, refuse_bare_returns, split_first
from ema_cli.formats.text.records import (
    NEWLINE,
    RaggedError,
    Records,
    Shape,
    index_records,
    record_widths,
)
from ema_cli.io.streams import BLOCK_BYTES, Reader
from ema_cli.times import read_times

LONGEST_RECORD = 1 << 26
# Blocks within which the first time has to be found.
SAMPLE_BLOCKS = 16
# Bytes a record from which more is read at once: a batch of few rows costs almost as much as one of many.
LONG = 64
# Records within which the widest one is looked for, where they may differ.
PAD_SAMPLE = 1000
# Bytes at the beginning that are kept, to say what may be wrong with the input.
OPENING = 1 << 16
# Records around a bad cell that are looked at to tell how numbers are written.
LOOKED_AT = 1000


@dataclass(frozen=True)
class TextBlock:
    """Whole records as they arrived, and the physical line on which they begin."""

    records: Records
    line: int


class TextSource(BlocksOfLines, Source):
    """A delimited text, block by block.

    taken: says how much of the input, packed as it may be, was read. waits: to read more may take long.
    """

    kind = "text"

    def __init__(
        self,
        reader: Reader,
        name: str,
        dialect: Dialect,
        taken: Callable[[], int] | None = None,
        *,
        waits: bool = True,
    ) -> None:
        self.reader, self.name, self.dialect, self.given, self.waits = reader, name, dialect, dialect, waits
        self.rest = b""  # read, but not yet a whole record
        self.opening = b""  # the first bytes, to be looked at again where something is wrong
        self.line = 1  # the physical line on which `rest` begins
        self.size, self.block = 0, BLOCK_BYTES
        # How far the input has been read: on the disk, compressed or not, or as text from a pipe.
        self.taken = taken or (lambda: self.size)
        self.ended = self.unfinished = False
        self.several = False  # columns are read
        self.numbers: cells.NumberReader | None = None
        self.waiting: list[TextBlock] = []
        self.alike: dict[int, Advice] = {}  # columns that look like numbers, but are not read as such
        self.head = self._read_header()
        self.columns = self.head.names
        self.again = self.head.again(self.dialect.notation)
        named = self.head.named if self.dialect.header else None
        self.shape = replace(self._shape(len(self.columns)), named=named)

    def header(self, wanted: Projection, layout: Layout) -> tuple[bytes, bytes]:
        head, dialect = self.head, layout
        if not isinstance(dialect, Dialect):
            return layout.heading(kept_names(self.columns, wanted))
        if not self.dialect.header or not head.fields:
            return head.lead, b""
        if wanted.keep is None and dialect.separates_like(self.dialect):
            nameless = len(head.fields) - head.named
            return head.lead + head.text + nameless * dialect.delimiter, head.ending
        kept = kept_columns(self.columns, wanted)
        names = [] if wanted.file is None else [fields.quoted(wanted.file.encode(), dialect)]
        names += [fields.quoted_for(head.fields[k], self.dialect, dialect) for k in kept]
        return head.lead + dialect.delimiter.join(names), head.ending

    def schema(self, wanted: Projection) -> pa.Schema:
        return text_schema(self.columns, wanted)

    def separator(self, wanted: Projection) -> Batch | None:
        """The line ending that the last record lacks."""
        if not self.unfinished:
            return None
        values = np.empty((0, len(wanted.values)))
        times = None if wanted.time is None else np.empty(0, np.int64)
        nothing = empty_records(b"\n", len(self.columns))
        body = TextBody(nothing, 0, self.dialect, self.columns, wanted, (values, times, Clock()), self.name)
        keys = [np.empty(0, object) for _ in wanted.keys]
        place = lambda _row, _column=None: Place(self.name)  # noqa: E731 - nobody asks for a row of none
        return Batch(0, values, times, keys, body, place, extra=[np.empty(0, object) for _ in wanted.extra])

    # -- reading

    def _read_header(self) -> Header:
        """The first record; raises DataError for what is no table of text."""
        lead = self._read_preamble()
        while True:
            header = None
            if self.ended or b"\n" in self.rest:
                header = split_first(self.rest, self.dialect, self.ended)
            if header is not None:
                break
            if self.ended:
                raise self._never_closed()
            self._more()
        before = len(lines_before(self.rest, self.dialect, self.ended))
        refuse_documents(self.rest[before:].partition(b"\n")[0], self.opening, self.name)
        refuse_bare_returns(header, self.name)
        taken = len(header.lead) + len(header.text) + len(header.ending)
        self._consume(taken)
        if self.dialect.pad and header.fields:
            header = header.padded(self._widest(header))
        return replace(header, lead=lead + header.lead)

    def _read_preamble(self) -> bytes:
        """What comes before the table; minds the delimiter that Excel's line names."""
        found = None
        while found is None:
            if self.ended or (b"\n" in self.rest and not lacks_newline_byte(self.rest)):
                refuse_foreign(self.rest, self.name)
                found = preamble(self.rest, self.dialect.skip, self.ended)
            if found is None:
                self._more()
        length, delimiter = found
        if delimiter is not None and not self.dialect.named:
            self.dialect = replace(self.dialect, delimiter=delimiter)
            self.delimiter = delimiter
        before = self.rest[:length]
        self._consume(length)
        return before

    def _widest(self, header: Header) -> int:
        """The most fields that one of the first records has, which are read ahead for it."""
        if self.dialect.spaces:  # in which no field is empty
            return 0
        shape = self._shape(header.named)
        while len(widths := record_widths(self.rest, shape, self.ended)) < PAD_SAMPLE and not self.ended:
            self._more()
        return int(widths[:PAD_SAMPLE].max(initial=0))

    def _shape(self, columns: int) -> Shape:
        dialect = self.dialect
        return Shape(columns, None if dialect.spaces else dialect.delimiter[0], dialect.comments, dialect.pad)

    def _more(self) -> None:
        """Append what has arrived to `rest`; notes the end of the input."""
        if len(self.rest) > LONGEST_RECORD:
            problem = f"a record longer than {LONGEST_RECORD >> 20} MiB"
            hint = "is a quote that opens a field there never closed?"
            raise DataError(problem, Place(self.name, self.line), hint)
        # As much again as is waiting already, so that a long record is not looked at once for every chunk.
        chunk = self.reader.read(max(self.block, len(self.rest)))
        self.ended = not chunk
        self.size += len(chunk)
        if len(self.opening) < OPENING:
            self.opening += chunk[: OPENING - len(self.opening)]
        self.rest += chunk

    def _consume(self, taken: int, lines: int | None = None) -> None:
        if lines is None:
            # NumPy lets other threads run meanwhile, which bytes.count does not.
            lines = int(np.count_nonzero(np.frombuffer(self.rest, np.uint8, taken) == NEWLINE))
        self.line += lines
        if taken:
            self.unfinished = self.rest[taken - 1] != NEWLINE
        self.rest = self.rest[taken:]

    def _next_block(self) -> TextBlock | None:
        """The next records, None at the end; a sound run is given before the error that follows it."""
        while True:
            if not self.ended and b"\n" not in self.rest:
                self._more()
                continue
            if not self.rest:
                if self.ended:
                    return None
                self._more()
                continue
            try:
                records = index_records(self.rest, self.shape, final=self.ended)
            except RaggedError as error:
                if not error.records.length:
                    raise self._ragged(error) from None
                records = error.records
            if records.length:
                if len(records) and records.length > LONG * len(records):
                    self.block = 2 * BLOCK_BYTES
                block = TextBlock(records, self.line)
                self._consume(records.length, records.lines)
                return block
            if self.ended:
                raise self._never_closed()
            self._more()

    def _ragged(self, error: RaggedError) -> DataError:
        line = self.line + self.rest.count(b"\n", 0, error.start)
        record = self.rest[error.start :].split(b"\n", 1)[0].removesuffix(b"\r")
        expected, found = len(self.columns), error.fields
        hint = str(self.advice() or "quote fields that hold the delimiter, or correct that line")
        hint = without_nuls(self.name) if NUL in record else hint
        problem = (
            f"{found} field{'s' * (found != 1)} where the first record has {expected}: {fields.shown(record)}"
        )
        return DataError(problem, Place(self.name, line), hint)

    def _never_closed(self) -> DataError:
        return DataError(
            "a quoted field is never closed", Place(self.name, self.line), 'end it with a quote: "..."'
        )

    # -- handing over

    def sample(self, candidates: Sequence[int], most: int) -> Sample:
        undecided, found, seen = list(candidates), [], 0
        notation = self.dialect.notation
        while undecided and seen < most and (block := self._next_block()) is not None:
            self.waiting.append(block)
            records = self._without_header(block.records).cut(0, most - seen)
            still: list[int] = []
            for column in undecided:
                first = cells.first_value(records, column, notation)
                if first is None:
                    still.append(column)
                elif cells.is_number(first, notation):
                    found.append(column)
                elif not self._is_one_quoted():
                    from ema_cli.formats.text.numerals import judge_cells

                    judged = judge_cells(list(cells.cells_of(records, column)), notation)
                    self.alike |= {column: judged} if judged is not None and judged.says else {}
            undecided = still
            seen += len(records)
        return Sample(sorted(found), undecided, seen, self.alike)

    def advice(self, names: Sequence[str] = ()) -> Advice | None:
        from ema_cli.formats.text.advice import advice_on_table

        while not self.waits and not self.ended and len(self.opening) < OPENING:
            self._more()
        whole = self.ended and self.size <= OPENING
        if self._is_one_quoted() and re.fullmatch(rb'"(?:[^"]|"")*"', self.head.text):
            return Advice(without_outer_quotes(self.name), ())
        return advice_on_table(self.opening, whole, self.given, names) or self._advice_on_columns()

    def _advice_on_columns(self) -> Advice | None:
        """What would read the columns that look like numbers, as far as one table can be read so."""
        options: dict[str, Advice] = {}
        first = None
        for column, advice in self.alike.items():
            cause = f"column {readable(self.columns[column])!r}: {advice.cause}"
            first = first or Advice(cause, ())
            for option, value in zip(advice.options[::2], advice.options[1::2], strict=True):
                single = option if option in ("--decimal", "--thousands") else f"{option} {value}"
                options.setdefault(single, Advice(cause, (option, value)))
        if not options:
            return first
        causes = "; ".join(dict.fromkeys(each.cause for each in options.values()))
        return Advice(causes, tuple(part for each in options.values() for part in each.options))

    def has_naive_times(self, wanted: Projection) -> bool:
        if wanted.time is None or wanted.time_of_day is not None or wanted.time_form.unit is not None:
            return False
        for k in range(SAMPLE_BLOCKS):
            if k == len(self.waiting):
                block = self._next_block()
                if block is None:
                    break
                self.waiting.append(block)
            records = self._without_header(self.waiting[k].records)
            times = read_times([fields.contents(records, wanted.time)], wanted.time_form, "missing")
            there = np.ones(len(records), bool) if times.unread is None else ~times.unread
            if there.any():
                return bool(np.broadcast_to(times.local, len(records))[there.argmax()])
        return True

    def _without_header(self, records: Records) -> Records:
        """The records but for those that are the header once more."""
        if self.again is None or self.again not in records.data:
            return records
        rows = [row for row in range(len(records)) if records.text(row) == self.again]
        return records.without(np.array(rows, np.int64)) if rows else records

    def _batches_in(self, block: TextBlock, wanted: Projection) -> Iterator[Batch]:
        if self.numbers is None:
            notation = self.dialect.notation
            self.numbers = cells.NumberReader(wanted.values, notation, wanted.invalid, self.again)
            self.several = len(wanted.values) > 1
        for begin, piece in block.records.pieces(BATCH_ROWS):
            place = partial(self._place, block)
            yield from self._batches_of(piece, begin, (self.numbers, wanted), place)

    # -- for several processes: see `Divisible`

    def detached(self) -> TextSource:
        twin = super().detached()
        twin.opening, twin.taken, twin.numbers = b"", int, None
        return twin

    def read_block(self, data: bytes, wanted: Projection, line: int = 1) -> tuple[list[Batch], int] | None:
        try:
            records = index_records(data, self.shape, final=False)
            if records.length != len(data):
                return None
            batches = list(self._batches_in(TextBlock(records, line), wanted))
        except (RaggedError, DataError):
            return None
        return batches, data.count(b"\n") if records.lines is None else records.lines

    def _batches_of(
        self, records: Records, begin: int, how: tuple[cells.NumberReader, Projection], place: Any
    ) -> Iterator[Batch]:
        """One batch; where a cell is bad, the rows above it and then the error."""
        reader, wanted = how
        try:
            yield self._batch(records, begin, how, place)
            return
        except cells.AgainError as error:
            yield from self._batches_of(records.without(np.array(error.rows)), begin, how, place)
            return
        except cells.BadCellError as error:
            row, bad = error.row, self._bad(error, records, how[1], place)
        except BadClockError as error:
            where = place(records, error.row, error.column)
            row, bad = error.row, DataError(error.problem, where, error.hint)
        above = records.cut(0, row)
        if above.length > begin:  # blank lines at least
            yield from self._batches_of(above, begin, (reader, wanted), place)
        raise bad

    def _batch(
        self, records: Records, begin: int, how: tuple[cells.NumberReader, Projection], place: Any
    ) -> Batch:
        reader, wanted = how
        values, oddities = reader.read(records)
        times, clock = self._clock(records, values, wanted)
        keys = [fields.contents(records, key) for key in wanted.keys]
        body = TextBody(records, begin, self.dialect, self.columns, wanted, (values, times, clock), self.name)
        extra = [fields.contents(records, column) for column in wanted.extra]
        where = partial(place, records)
        return Batch(
            len(records),
            values,
            times,
            keys,
            body,
            where,
            oddities,
            self.taken(),
            extra,
            clock,
            cells=lambda column, first, count: fields.contents(records.cut(first, first + count), column),
        )

    def _clock(self, records: Records, values: Floats, wanted: Projection) -> tuple[Ints | None, Clock]:
        def numbers(column: int) -> Floats:
            return cells.NumberReader((column,), self.dialect.notation, wanted.invalid).read(records)[0][:, 0]

        return ClockReader(wanted, values, partial(fields.contents, records), numbers).read()

    def _place(self, block: TextBlock, records: Records, row: int, column: int | None = None) -> Place:
        line = block.line + records.data.count(b"\n", 0, int(records.starts[row]))
        return Place(self.name, line, None if column is None else self.columns[column])

    def _bad(self, error: cells.BadCellError, records: Records, wanted: Projection, place: Any) -> DataError:
        where = place(records, error.row, error.column)
        hint = self._number_hint(records, error, wanted.hint_on(error.column))
        return DataError(f"not a number: {fields.shown(error.text)}", where, hint)

    def _is_one_quoted(self) -> bool:
        from ema_cli.formats.text.advice import is_one_quoted

        return len(self.columns) == 1 and is_one_quoted(self.head.fields)

    def _number_hint(self, records: Records, error: cells.BadCellError, otherwise: str) -> str:
        """What to try for a cell that is no number. otherwise: if nothing is known of it."""
        from ema_cli.formats.text.advice import advice_on_comment
        from ema_cli.formats.text.numerals import advice_on_cells

        if NUL in error.text:
            return without_nuls(self.name)
        around = records.cut(max(0, error.row - LOOKED_AT), error.row + LOOKED_AT)
        first = [cell.strip() for cell in cells.cells_of(around, 0)]
        table = self.advice([self.columns[error.column]])
        if table is None or not table.is_of_lines or "--ragged" in table.options:
            table = advice_on_comment(records.field(error.row, 0).strip(), first)
        if table is not None:
            return str(table)
        there = [] if self._is_one_quoted() else list(cells.cells_of(around, error.column))
        advice = advice_on_cells(there, self.dialect.notation, otherwise)
        if "--na" in advice.options and self._is_no_row(records, error, around):
            return "correct that line, or take it out of the file"
        return str(advice)

    def _is_no_row(self, records: Records, error: cells.BadCellError, around: Records) -> bool:
        """Whether a word may say that its line is no row, with all that is in it.

        That is so at the beginning of a line, and where another column of numbers has a word there too.
        """
        if error.column == 0:
            return self.several
        read = self.dialect.notation.read
        return any(
            read(records.field(error.row, k)) is None
            and read(cells.first_value(around, k, self.dialect.notation) or b"") is not None
            for k in range(min(len(self.columns), LOOKED_AT))
            if k != error.column
        )


def empty_records(data: bytes, columns: int) -> Records:
    """No records, only bytes that pass through."""
    none = np.empty(0, np.int64)
    return Records(data, none, none, np.empty((0, columns), np.int64), len(data))
