"""The header of a text: its names, and what may come before it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from math import isnan

from ema_cli.errors import DataError, Place
from ema_cli.formats.text.dialect import Dialect
from ema_cli.formats.text.fields import unquote
from ema_cli.notation import Notation

BOM = b"\xef\xbb\xbf"
# Excel's own way to name the delimiter, in the first line.
_SEP_LINE = re.compile(rb'"?sep=([^"\r\n0-9A-Za-z])"?(?:\r?\n|\Z)', re.IGNORECASE)

_SPACES_LINE = re.compile(rb"[ \t]+\r?(?:\n|\Z)")


@dataclass(frozen=True)
class Header:
    """The header of a text.

    lead: what comes before it: a byte order mark, lines that are no part of the table. text: the record
    without its line ending; empty if there is no header. ending: its line ending, b"" if the input ends
    before one. fields: its fields with their quotes; if records have more, further ones are empty. named:
    number of fields in the header itself.
    """

    lead: bytes
    text: bytes
    ending: bytes
    fields: list[bytes]
    named: int

    @property
    def names(self) -> list[str]:
        """The columns' names. Bytes that are no UTF-8 survive as surrogates."""
        return [unquote(field).decode("utf-8", "surrogateescape") for field in self.fields]

    def again(self, notation: Notation) -> bytes | None:
        """The text of a record that repeats this header; None if data could have the same text."""
        numbers = [notation.read(field) for field in self.fields]
        by_chance = any(number is not None and not isnan(number) for number in numbers)
        return None if by_chance or not self.text else self.text

    def padded(self, width: int) -> Header:
        """The same with at least `width` fields, the further ones nameless."""
        return replace(self, fields=self.fields + [b""] * (width - len(self.fields)))


def preamble(data: bytes, skip: int, final: bool) -> tuple[int, bytes | None] | None:
    """The number of bytes before the table, and the delimiter that Excel's `sep=` line names.

    Before the table are a byte order mark, that line and the first `skip` lines. None if more bytes are
    needed.
    """
    at = len(BOM) if data.startswith(BOM) else 0
    line = _SEP_LINE.match(data, at)
    if line is not None and not (final or line.group().endswith(b"\n")):
        return None
    rest = data[at:].split(b"\n", skip)
    if len(rest) <= skip and not final:
        return None
    end = len(data) - len(rest[-1]) if len(rest) > skip else len(data)
    return (max(end, 0 if line is None else line.end()), None if line is None else line[1])


def split_first(data: bytes, dialect: Dialect, final: bool) -> Header | None:
    """The header at the start of `data`; None if more bytes are needed.

    With `--no-header` the names are numbers, and no byte of `data` belongs to it.
    """
    lead = lines_before(data, dialect, final)
    if not final and data.endswith(b"\r") and len(lead) + 1 == len(data):
        return None
    found = first_record(data, len(lead), dialect, final)
    if found is None:
        return None
    fields, end = found
    if not dialect.header:
        numbers = [b"%d" % (k + 1) for k in range(len(fields))]
        return Header(b"" if fields else lead, b"", b"", numbers, len(numbers))
    text = data[len(lead) : end]
    # A return at the end of the input counts as a line ending that was cut, as it does below the header.
    body = text.removesuffix(b"\n").removesuffix(b"\r")
    return Header(lead, body, text[len(body) :], fields, len(fields))


def lines_before(data: bytes, dialect: Dialect, final: bool) -> bytes:
    """The blank lines and comments that `data` begins with."""
    at = 0
    while True:
        at += len(blank_lines(data, at))
        if dialect.spaces and (spaces := _SPACES_LINE.match(data, at)) is not None:
            if not (final or spaces.group().endswith(b"\n")):
                return data[:at]
            at = spaces.end()
            continue
        if not (dialect.comments and data.startswith(dialect.comments, at)):
            return data[:at]
        end = data.find(b"\n", at)
        if end == -1:
            return data if final else data[:at]
        at = end + 1


def blank_lines(data: bytes, at: int) -> bytes:
    """The blank lines that begin at `at`."""
    end = at
    while data[end : end + 1] in (b"\r", b"\n"):
        # All lines of the same spelling in one step, since there may be many.
        line = b"\n" if data[end : end + 1] == b"\n" else b"\r\n"
        run = re.compile(b"(?:%b)++" % line).match(data, end)
        if run is None:
            break
        end = run.end()
    return data[at:end]


def first_record(data: bytes, at: int, dialect: Dialect, final: bool) -> tuple[list[bytes], int] | None:
    """The fields of the record at `at`, and its end after the newline; None if it is incomplete."""
    spaces = rb" \t" if dialect.spaces else re.escape(dialect.delimiter)
    quoted = rb'"[^"]*+(?:""[^"]*+)*+"[^' + spaces + rb"\n]*"
    field = re.compile(rb"(" + quoted + rb'|(?!")[^' + spaces + rb"\n]*)([" + spaces + rb"]|\n|\Z)")
    fields: list[bytes] = []
    begin = at
    while at < len(data) or (final and at > begin):
        match = field.match(data, at)
        if match is None or (not match.group(2) and not final):
            return None
        fields.append(match.group(1))
        at = match.end()
        if match.group(2) in (b"\n", b""):
            return _tidied(fields, dialect), at
    return (fields, at) if final else None


def _tidied(fields: list[bytes], dialect: Dialect) -> list[bytes]:
    """The fields of a line without the carriage return at its end, and without empty ones between spaces."""
    fields = [*fields[:-1], fields[-1].removesuffix(b"\r")]
    return [field for field in fields if field] if dialect.spaces else fields


def refuse_bare_returns(header: Header, name: str) -> None:
    """Raise DataError for lines that end in a bare carriage return, as on old Macs."""
    if b"\r" in header.text.strip(b"\r") and b'"' not in header.text:
        hint = "tr '\\r' '\\n' < FILE | ema-smooth ..."
        raise DataError("lines end in a bare carriage return, as on old Macs", Place(name, 1), hint)
