"""Lines of JSON: where each object begins and where its closing brace is, and what is in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from ema_cli.formats.base import Ints

Record = dict[str, Any]
NEWLINE, OPEN, CLOSE = 10, ord("{"), ord("}")
_SPACES = np.zeros(256, bool)
_SPACES[list(b" \t\r")] = True


class BadLineError(ValueError):
    """A line that is no object. row counts from 0 among the lines that are not blank."""

    def __init__(self, row: int, problem: str) -> None:
        super().__init__(problem)
        self.row, self.problem = row, problem


@dataclass(frozen=True)
class JsonLines:
    """An index into `data`: the first byte of each object, and its last one, which should be a closing brace.

    length: bytes of `data` in these lines, with blank ones and line endings.
    """

    data: bytes
    starts: Ints
    closes: Ints
    length: int

    def __len__(self) -> int:
        return len(self.starts)

    def text(self, row: int) -> bytes:
        return self.data[self.starts[row] : self.closes[row] + 1]

    def cut(self, first: int, last: int) -> JsonLines:
        """Objects first … last − 1; the bytes between two of them stay with the later one."""
        length = self.length if last >= len(self) else int(self.starts[last])
        return JsonLines(self.data, self.starts[first:last], self.closes[first:last], length)

    def pieces(self, rows: int) -> Iterator[tuple[int, JsonLines]]:
        """Equal pieces of at most `rows` objects, each with the offset in `data` where its bytes begin."""
        begin, count = 0, max(1, -(-len(self) // rows))
        for k in range(count):
            piece = self.cut(len(self) * k // count, len(self) * (k + 1) // count)
            yield begin, piece
            begin = piece.length


def index_lines(data: bytes, final: bool, begin: int = 0) -> JsonLines:
    """The whole lines of `data` from `begin` on. final: nothing follows, so the last needs no line ending."""
    bytes_ = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(bytes_[begin:] == NEWLINE) + begin
    length = int(ends[-1]) + 1 if len(ends) else begin
    if final and length < len(data):
        ends, length = np.append(ends, len(data)), len(data)
    starts = np.append(begin, ends[:-1] + 1)[: len(ends)]
    last = max(len(bytes_) - 1, 0)
    while (space := (starts < ends) & _SPACES[bytes_[np.minimum(starts, last)]]).any():
        starts = starts + space
    while (space := (starts < ends) & _SPACES[bytes_[np.maximum(ends - 1, 0)]]).any():
        ends = ends - space
    filled = starts < ends
    return JsonLines(data, starts[filled], ends[filled] - 1, length)


def parse(lines: JsonLines) -> list[Record]:
    """The object in each line. Raises BadLineError for the first one that is no object."""
    if not len(lines):
        return []
    bytes_ = np.frombuffer(lines.data, np.uint8)
    if (bytes_[lines.starts] == OPEN).all() and (bytes_[lines.closes] == CLOSE).all():
        found = _parse_at_once(lines)
        if found is not None:
            return found
    return [_parse_line(lines.text(row), row) for row in range(len(lines))]


def _parse_at_once(lines: JsonLines) -> list[Record] | None:
    """Parse all lines as one array, which is much quicker; None if lines must be parsed one by one.

    A null is put between every two lines. If a line is not one object, objects and nulls don't alternate.
    """
    count = len(lines)
    text = lines.data[int(lines.starts[0]) : int(lines.closes[-1]) + 1]
    if text.count(b"\n") == count - 1:
        joined = text.replace(b"\n", b",null,")
    else:  # blank lines
        joined = b",null,".join(map(lines.text, range(count)))
    try:
        found = orjson.loads(b"[" + joined + b"]")
    except orjson.JSONDecodeError:
        return None
    if len(found) != 2 * count - 1 or found[1::2].count(None) != count - 1:
        return None
    objects: list[Record] = found[::2]
    return objects if set(map(type, objects)) == {dict} else None


def _parse_line(text: bytes, row: int) -> Record:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        # Python's own parser accepts NaN and Infinity, which Python writes, and invalid Unicode.
        try:
            found = json.loads(text.decode("utf-8", "surrogateescape"))
        except (ValueError, RecursionError) as error:
            raise BadLineError(row, f"no JSON ({getattr(error, 'msg', 'nested too deeply')})") from None
    if not isinstance(found, dict):
        raise BadLineError(row, f"no object but {_called(found)}")
    return found


def _called(value: Any) -> str:
    """What JSON calls a value."""
    names = {list: "an array", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


ABSENT = object()


def member(record: Record, name: str) -> Any:
    """A member, or a member of a member: `a.b` is the member of that name or, if there is none, b of a."""
    if name in record:
        return record[name]
    at = name.find(".")
    while at != -1:
        inner = record.get(name[:at])
        if isinstance(inner, dict) and (found := member(inner, name[at + 1 :])) is not ABSENT:
            return found
        at = name.find(".", at + 1)
    return ABSENT
