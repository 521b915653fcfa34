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
Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
NEWLINE, RETURN, QUOTE, SPACE, TAB = 10, 13, 34, 32, 9
QUOTE_BYTE = b'"'


class RaggedError(ValueError):
    """A record with a wrong number of fields. records: the good ones and blank lines above it."""

    def __init__(self, fields: int, start: int, records: Records) -> None:
        super().__init__(f"{fields} fields")
        self.fields, self.start, self.records = fields, start, records


@dataclass(frozen=True)
class Shape:
    """What the lines of a table look like.

    columns: fields of a record. delimiter: the byte between them; None for runs of spaces and tabs. comments:
    lines that begin so are no records. pad: a record may have fewer fields. named: number of columns in the
    header; fields after those must be empty (with `pad`).
    """

    columns: int
    delimiter: int | None
    comments: tuple[bytes, ...] = ()
    pad: bool = False
    named: int | None = None

    @property
    def has_nameless(self) -> bool:
        """Whether records have fields that must be empty."""
        return self.named is not None and self.named < self.columns


@dataclass(frozen=True)
class Records:
    """An index into `data`: starts and ends of records, and the end of every field.

    starts, ends: (records,), the end before the line ending. seps: (records, columns), the offset just after
    each field. length: bytes of `data` up to the end of these records, with line endings and lines that are
    no records. lines: physical lines in these bytes, if known without counting. opens: start of each field,
    for tables where that is not just after the field before. lacking: missing fields of each record.
    """

    data: bytes
    starts: Ints
    ends: Ints
    seps: Ints
    length: int
    lines: int | None = None
    opens: Ints | None = None
    lacking: Ints | None = None

    def __len__(self) -> int:
        return len(self.starts)

    def bounds(self, column: int) -> tuple[Ints, Ints]:
        """Start and end of a column's field in every record."""
        if self.opens is not None:
            return self.opens[:, column], self.seps[:, column]
        start = self.starts if column == 0 else self.seps[:, column - 1] + 1
        end = self.ends if column == self.seps.shape[1] - 1 else self.seps[:, column]
        return start, end

    def field(self, row: int, column: int) -> bytes:
        start, end = self.bounds(column)
        return self.data[start[row] : end[row]]

    def text(self, row: int) -> bytes:
        """A record without its line ending."""
        return self.data[self.starts[row] : self.ends[row]]

    def cut(self, first: int, last: int) -> Records:
        """Records first … last − 1, over the same data; the bytes between records stay with the later one."""
        length = self.length if last >= len(self) else int(self.starts[last])
        return self._picked(slice(first, last), length)

    def without(self, rows: Ints) -> Records:
        """The records without these, whose lines then belong to the bytes between the others."""
        kept = np.ones(len(self), bool)
        kept[rows] = False
        return self._picked(kept, self.length)

    def _picked(self, part: slice | Bools, length: int) -> Records:
        opens = None if self.opens is None else self.opens[part]
        lacking = None if self.lacking is None else self.lacking[part]
        starts, ends, seps = self.starts[part], self.ends[part], self.seps[part]
        return Records(self.data, starts, ends, seps, length, None, opens, lacking)

    def pieces(self, rows: int) -> Iterator[tuple[int, Records]]:
        """Equal pieces of at most `rows` records, each with the offset in `data` where its bytes begin."""
        begin = 0
        count = max(1, -(-len(self) // rows))  # blank lines alone are a piece too
        for k in range(count):
            piece = self.cut(len(self) * k // count, len(self) * (k + 1) // count)
            yield begin, piece
            begin = piece.length


@dataclass(frozen=True)
class Lines:
    """The whole lines of a text, and their fields; line ends inside quotes don't count.

    newlines: offsets of the line ends. ends: the same, before a carriage return. fields: number of fields of
    each line. first: index of its first field in `closes`. closes, opens: where each field ends, and begins
    if that is not just after the one before. none: lines that are no records, blank ones and comments.
    """

    starts: Ints
    newlines: Ints
    ends: Ints
    fields: Ints
    first: Ints
    opens: Ints | None
    closes: Ints
    none: Bools


def index_records(data: bytes, shape: Shape, final: bool) -> Records:
    """The whole records at the start of `data`.

    final: nothing follows `data`, so its last line needs no line ending. Blank lines are no records unless
    there is one column. Raises RaggedError.
    """
    text, bytes_, separators, passed = _separated(data, shape, final)
    columns = shape.columns
    quoted = QUOTE_BYTE in text
    if quoted:
        newline = bytes_[separators] == NEWLINE
        whole = int(np.flatnonzero(newline)[-1]) + 1 if newline.any() else 0
        separators, newline = separators[:whole], newline[:whole]
        lines = int(np.count_nonzero(newline))
    else:
        newline = None
        lines = int(np.count_nonzero(bytes_ == NEWLINE))
    # The common case: every record has the right number of fields, so the separators form a table.
    even = shape.delimiter is not None and not len(passed) and not shape.has_nameless
    if even and lines * columns == len(separators):
        table = separators.reshape(-1, columns)
        if (bytes_[table[:, -1]] == NEWLINE).all():
            records = _make(data, bytes_, table, np.append(0, table[:-1, -1] + 1), len(data))
            return records if quoted else replace(records, lines=lines)
    if newline is None:
        newline = bytes_[separators] == NEWLINE
    scan = _spaced_lines if shape.delimiter is None else _delimited_lines
    return _irregular(data, scan(bytes_, separators, newline, passed, columns > 1), shape)


def record_widths(data: bytes, shape: Shape, final: bool) -> Ints:
    """The number of fields of each whole record in `data`; blank lines are none."""
    _, bytes_, separators, passed = _separated(data, shape, final)
    newline = bytes_[separators] == NEWLINE
    whole = int(np.flatnonzero(newline)[-1]) + 1 if newline.any() else 0
    lines = _delimited_lines(bytes_, separators[:whole], newline[:whole], passed, True)
    return lines.fields[~lines.none]


def _separated(data: bytes, shape: Shape, final: bool) -> tuple[bytes, Bytes, Ints, Ints]:
    """The text with its comments blanked, its bytes, the separators outside quotes, and where comments begin.

    Without quotes in the text the bytes are those of whole lines only.
    """
    text = data + b"\n" if final and data and not data.endswith(b"\n") else data
    plain, passed = _masked(text, shape.comments) if shape.comments else (text, np.empty(0, np.int64))
    bytes_ = np.frombuffer(plain, np.uint8)
    if QUOTE_BYTE not in plain:
        bytes_ = bytes_[: plain.rfind(b"\n") + 1]
        return plain, bytes_, np.flatnonzero(_is_separator(bytes_, shape)), passed
    separators = _outside_quotes(bytes_, shape)
    if separators is None:
        separators, passed = _walk(text, shape)
        return text, np.frombuffer(text, np.uint8), separators, passed
    return plain, bytes_, separators, passed


def _is_separator(bytes_: Bytes, shape: Shape) -> Bools:
    separator: Bools = bytes_ == NEWLINE
    if shape.delimiter is not None:
        separator |= bytes_ == shape.delimiter
        return separator
    returns = np.append(separator[1:], False) & (bytes_ == RETURN)
    separator |= returns | (bytes_ == SPACE) | (bytes_ == TAB)
    return separator


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


def _delimited_lines(bytes_: Bytes, separators: Ints, newline: Bools, passed: Ints, blanks: bool) -> Lines:
    """The lines of a text with one delimiter. blanks: empty lines are no records."""
    last = np.flatnonzero(newline)
    newlines = separators[last]
    fields = np.diff(last, prepend=-1)
    starts = np.append(0, newlines[:-1] + 1)[: len(newlines)]
    ends = _before_return(bytes_, starts, newlines)
    none = (fields == 1) & (ends == starts) & blanks
    if len(passed):
        none |= _among(starts, passed)
    return Lines(starts, newlines, ends, fields, last - fields + 1, None, separators, none)


def _spaced_lines(bytes_: Bytes, separators: Ints, newline: Bools, passed: Ints, _: bool) -> Lines:
    """The lines of a text in which runs of spaces separate; a line of nothing else is no record."""
    newlines = separators[newline]
    starts = np.append(0, newlines[:-1] + 1)[: len(newlines)]
    opens = np.append(0, separators[:-1] + 1)[: len(separators)]
    filled = separators > opens
    line: Ints = (np.cumsum(newline) - newline)[filled]
    fields = np.bincount(line, minlength=len(newlines))
    ends = _before_return(bytes_, starts, newlines)
    first, none = np.cumsum(fields) - fields, (fields == 0) | _among(starts, passed)
    return Lines(starts, newlines, ends, fields, first, opens[filled], separators[filled], none)


def _among(starts: Ints, passed: Ints) -> Bools:
    """Which of `starts` are in `passed`; both are sorted."""
    found = np.zeros(len(starts), bool)
    places = np.searchsorted(starts, passed)
    found[places[places < len(starts)]] = True
    return found


def _irregular(data: bytes, lines: Lines, shape: Shape) -> Records:
    """The records among these lines. Raises RaggedError for the first with too few or too many fields."""
    columns = shape.columns
    wrong = lines.fields != columns if not shape.pad else _too_wide(lines, shape)
    bad = np.flatnonzero(wrong & ~lines.none)
    sound = int(bad[0]) if bad.size else len(lines.starts)
    keep = np.flatnonzero(~lines.none[:sound])
    records = _table(data, lines, keep, columns, spaced=shape.delimiter is None)
    if bad.size:
        start = int(lines.starts[sound])
        raise RaggedError(int(lines.fields[sound]), start, replace(records, length=start))
    # Lines after the last record that are no records belong to it.
    length = min(int(lines.newlines[-1]) + 1, len(data)) if len(lines.newlines) else 0
    return replace(records, length=length)


def _table(data: bytes, lines: Lines, keep: Ints, columns: int, *, spaced: bool) -> Records:
    """These lines as records of `columns` fields; fields that a line lacks are empty, at its end."""
    starts, ends, fields = lines.starts[keep], lines.ends[keep], lines.fields[keep]
    lacking = columns - fields
    place = lines.first[keep][:, np.newaxis] + np.arange(columns)
    if not (spaced or lacking.any()):
        return Records(data, starts, ends, lines.closes[place].reshape(-1, columns), 0)
    there = np.arange(columns) < fields[:, np.newaxis]
    place = np.minimum(place, max(len(lines.closes) - 1, 0))
    end = np.broadcast_to(ends[:, np.newaxis], place.shape)
    begins = np.append(0, lines.closes[:-1] + 1) if lines.opens is None else lines.opens
    opens = np.where(there, begins[place], end)
    # The last field of a record ends before the return, not at the newline.
    closes = np.where(there, np.minimum(lines.closes[place], end), end)
    return Records(data, starts, ends, closes, 0, None, opens, lacking if lacking.any() else None)


def _too_wide(lines: Lines, shape: Shape) -> Bools:
    """Lines with too many fields, or with text in those that must be empty."""
    wide = lines.fields > shape.columns
    if shape.named is not None and shape.has_nameless:
        surplus = np.flatnonzero((lines.fields > shape.named) & ~wide & ~lines.none)
        after = lines.closes[lines.first[surplus] + shape.named - 1]
        wide[surplus] = lines.ends[surplus] - after != lines.fields[surplus] - shape.named
    return wide


def _masked(text: bytes, comments: tuple[bytes, ...]) -> tuple[bytes, Ints]:
    """The text with NULs in place of comments, and where these begin.

    A line inside a quoted field is no comment. It is inside if an odd number of quotes comes before it;
    otherwise `_outside_quotes` finds out that the quotes break its rule.
    """
    places = {0} if text.startswith(comments) else set()
    for mark in comments:
        at = -1
        while (at := text.find(b"\n" + mark, at + 1)) != -1:
            places.add(at + 1)
    quoted, quotes, at = QUOTE_BYTE in text, 0, 0
    pieces, passed = [], []
    for place in sorted(places):
        quotes += text.count(QUOTE_BYTE, at, place) if quoted else 0
        pieces.append(text[at:place])
        at = place
        if quotes % 2 == 0:
            end = text.find(b"\n", place)
            at = len(text) if end == -1 else end
            pieces.append(bytes(at - place))
            passed.append(place)
    return (b"".join([*pieces, text[at:]]) if passed else text), np.array(passed, np.int64)


def _outside_quotes(bytes_: Bytes, shape: Shape) -> Ints | None:
    """The separators outside quoted fields; None if the quotes are not regular.

    A separator is inside quotes if an odd number of quotes comes before it, provided that every quote opens a
    field, closes one or is doubled inside one. That is checked.
    """
    quotes = np.flatnonzero(bytes_ == QUOTE)
    opening, closing = quotes[0::2], quotes[1::2]
    before, after = np.maximum(opening - 1, 0), np.minimum(closing + 1, len(bytes_) - 1)
    opens = _is_separator(bytes_[before], shape) | (bytes_[before] == QUOTE) | (opening == 0)
    closes = _is_separator(bytes_[after], shape) | (bytes_[after] == QUOTE) | (closing == len(bytes_) - 1)
    returns = np.flatnonzero(bytes_[after] == RETURN)
    closes[returns] = bytes_[np.minimum(closing[returns] + 2, len(bytes_) - 1)] == NEWLINE
    if not (opens.all() and closes.all()):
        return None
    if len(quotes) % 2:  # all that follows is inside the field that is still open
        bytes_ = bytes_[: int(quotes[-1])]
    separators = np.flatnonzero(_is_separator(bytes_, shape))
    return np.asarray(separators[np.searchsorted(quotes, separators) % 2 == 0])


def _walk(text: bytes, shape: Shape) -> tuple[Ints, Ints]:
    """Separators and comments, one field after another: for quotes in places where they are just letters."""
    d = rb" \t" if shape.delimiter is None else re.escape(bytes([shape.delimiter]))
    # A quoted field with what may trail its closing quote, or a plain one; then the separator. No second
    # thoughts (*+): half of a doubled quote does not close a field whose end has not arrived.
    field = re.compile(
        rb'(?:"[^"]*+(?:""[^"]*+)*+"[^' + d + rb"\n]*|(?!\")[^" + d + rb"\n]*)([" + d + rb"\n])"
    )
    comment = re.compile(b"(?:%b)[^\n]*+(\n)" % b"|".join(map(re.escape, shape.comments)))
    found: list[int] = []
    passed: list[int] = []
    at = 0
    while True:
        begins = bool(shape.comments) and (at == 0 or text[at - 1] == NEWLINE)
        said = comment.match(text, at) if begins else None
        match = said or field.match(text, at)
        if match is None:
            break
        passed += [at] * (said is not None)
        at = match.end()
        if shape.delimiter is None and text[at - 2 : at] == b"\r\n" and [at - 2] != found[-1:]:
            found.append(at - 2)
        found.append(at - 1)
    return np.array(found, np.int64), np.array(passed, np.int64)
