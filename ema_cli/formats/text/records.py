"""Where the records and fields of a block of delimited text begin and end, without touching the text.

Every separator outside quotes is found in one vectorised pass over the bytes. Quotes follow RFC 4180 as
the field reads it: a quote opens a quoted field only at the field's start; anywhere else it is a letter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]
NEWLINE, RETURN, QUOTE = 10, 13, 34


class RaggedError(ValueError):
    """A record with another number of fields; `records` are the sound ones and blank lines above it."""

    def __init__(self, fields: int, start: int, records: Records) -> None:
        super().__init__(f"{fields} fields")
        self.fields, self.start, self.records = fields, start, records


@dataclass(frozen=True)
class Records:
    """An index into `data`: starts and ends of the records' text, and the end of every field.

    starts, ends: (records,), the end being before the line ending. seps: (records, columns), the position
    just after each field. length: bytes of `data` these records take, line endings and blank lines included.
    lines: the physical lines they take, if that is known without counting.
    """

    data: bytes
    starts: Ints
    ends: Ints
    seps: Ints
    length: int
    lines: int | None = None

    def __len__(self) -> int:
        return len(self.starts)

    def bounds(self, column: int) -> tuple[Ints, Ints]:
        """Start and end of a column's field in every record."""
        start = self.starts if column == 0 else self.seps[:, column - 1] + 1
        end = self.ends if column == self.seps.shape[1] - 1 else self.seps[:, column]
        return start, end

    def field(self, row: int, column: int) -> bytes:
        start, end = self.bounds(column)
        return self.data[start[row] : end[row]]

    def cut(self, first: int, last: int) -> Records:
        """Records first … last − 1, over the same data; the bytes between records stay with the later one."""
        length = self.length if last >= len(self) else int(self.starts[last])
        part = slice(first, last)
        return Records(self.data, self.starts[part], self.ends[part], self.seps[part], length)

    def pieces(self, rows: int) -> Iterator[tuple[int, Records]]:
        """Even runs of at most `rows` records, each with the place in `data` where its bytes begin."""
        begin = 0
        count = max(1, -(-len(self) // rows))  # blank lines alone are a run too
        for k in range(count):
            piece = self.cut(len(self) * k // count, len(self) * (k + 1) // count)
            yield begin, piece
            begin = piece.length


def index_records(data: bytes, columns: int, delimiter: int, final: bool) -> Records:
    """The whole records at the start of `data`; what follows them is not yet a record.

    columns: fields a record must have. final: nothing comes after `data`, so a last line needs no line
    ending. Blank lines are no records unless there is one column. Raises RaggedError.
    """
    text = data + b"\n" if final and data and not data.endswith(b"\n") else data
    bytes_ = np.frombuffer(text, np.uint8)
    if QUOTE_BYTE in text:
        separators = _outside_quotes(text, bytes_, delimiter)
        newline = bytes_[separators] == NEWLINE
        newlines = np.flatnonzero(newline)
        whole = int(newlines[-1]) + 1 if newlines.size else 0
        separators, newline = separators[:whole], newline[:whole]
        lines = len(newlines)
    else:
        bytes_ = bytes_[: text.rfind(b"\n") + 1]
        is_newline = bytes_ == NEWLINE
        lines = int(np.count_nonzero(is_newline))
        separators = np.flatnonzero(is_newline | (bytes_ == delimiter))
        newline = None
    # The common case: every record has just its fields, so the separators form a table.
    if lines * columns == len(separators):
        table = separators.reshape(-1, columns)
        if (bytes_[table[:, -1]] == NEWLINE).all():
            records = _make(data, bytes_, table, np.append(0, table[:-1, -1] + 1), len(data))
            return replace(records, lines=lines) if newline is None else records
    if newline is None:
        newline = bytes_[separators] == NEWLINE
    return _irregular(data, bytes_, separators, newline, columns)


QUOTE_BYTE = b'"'


def _make(data: bytes, bytes_: Bytes, table: Ints, starts: Ints, most: int) -> Records:
    """Records from the table of their separators; the last of each is its newline."""
    newlines = table[:, -1]
    if not newlines.size:
        return Records(data, starts[:0], newlines, table, 0)
    length = min(int(newlines[-1]) + 1, most)
    # A return just before the newline belongs to the line ending.
    ends = _before_return(bytes_, starts, newlines) if b"\r" in data else newlines
    return Records(data, starts, ends, table, length)


def _before_return(bytes_: Bytes, starts: Ints, newlines: Ints) -> Ints:
    returns = bytes_[np.maximum(newlines - 1, 0)] == RETURN
    return np.asarray(newlines - (returns & (newlines > starts)))


def _irregular(
    data: bytes, bytes_: Bytes, separators: Ints, newline: NDArray[np.bool_], columns: int
) -> Records:
    """Records where there are blank lines, or else complain of the first with too few or many fields."""
    last = np.flatnonzero(newline)
    newlines = separators[last]
    fields = np.diff(last, prepend=-1)
    starts = np.append(0, newlines[:-1] + 1)[: len(newlines)]
    blank = (fields == 1) & (_before_return(bytes_, starts, newlines) == starts) & (columns > 1)
    wrong = np.flatnonzero(~blank & (fields != columns))
    sound = int(wrong[0]) if wrong.size else len(last)
    keep = np.flatnonzero(~blank[:sound])
    table = separators[last[keep][:, np.newaxis] - np.arange(columns - 1, -1, -1)]
    records = _make(data, bytes_, table.reshape(-1, columns), starts[keep], len(data))
    if wrong.size:
        start = int(starts[sound])
        above = Records(data, records.starts, records.ends, records.seps, start)
        raise RaggedError(int(fields[sound]), start, above)
    # Blank lines after the last record pass with it.
    length = min(int(newlines[-1]) + 1, len(data)) if len(newlines) else 0
    return Records(data, records.starts, records.ends, records.seps, length)


def _outside_quotes(text: bytes, bytes_: Bytes, delimiter: int) -> Ints:
    """Separators that no quoted field contains.

    A separator is inside quotes if an odd number of quotes comes before it, provided every quote opens a
    field, closes one or is doubled inside one. That is checked; text that breaks the rule is walked field
    by field instead.
    """
    quotes = np.flatnonzero(bytes_ == QUOTE)
    opening, closing = quotes[0::2], quotes[1::2]
    before = bytes_[np.maximum(opening - 1, 0)]
    opens = (before == delimiter) | (before == NEWLINE) | (before == QUOTE) | (opening == 0)
    after = bytes_[np.minimum(closing + 1, len(bytes_) - 1)]
    closes = (after == delimiter) | (after == NEWLINE) | (after == QUOTE) | (closing == len(bytes_) - 1)
    returns = np.flatnonzero(after == RETURN)
    closes[returns] = bytes_[np.minimum(closing[returns] + 2, len(bytes_) - 1)] == NEWLINE
    if not (opens.all() and closes.all()):
        return _walk(text, delimiter)
    if len(quotes) % 2:  # all that follows is inside the field that is still open
        bytes_ = bytes_[: int(quotes[-1])]
    separators = np.flatnonzero((bytes_ == NEWLINE) | (bytes_ == delimiter))
    return np.asarray(separators[np.searchsorted(quotes, separators) % 2 == 0])


def _walk(text: bytes, delimiter: int) -> Ints:
    """The same, one field after another: for quotes in places where they are just letters."""
    d = re.escape(bytes([delimiter]))
    # A quoted field with what may trail its closing quote, or a plain one; then the separator. No second
    # thoughts (*+): half of a doubled quote does not close a field whose end has not arrived.
    field = re.compile(
        rb'(?:"[^"]*+(?:""[^"]*+)*+"[^' + d + rb"\n]*|(?!\")[^" + d + rb"\n]*)([" + d + rb"\n])"
    )
    found, at = [], 0
    while (match := field.match(text, at)) is not None:
        found.append(match.start(1))
        at = match.end()
    return np.array(found, np.int64)
