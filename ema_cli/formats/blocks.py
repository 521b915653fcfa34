"""Blocks of an input of lines, taken unread for several processes: what such formats have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from copy import copy
from typing import Any, Self

from ema_cli.formats.base import Batch, Projection
from ema_cli.io.streams import Reader, is_ready, read_into

# Bytes within which the last line end is looked for first.
NEAR = 1 << 12
QUOTE = b'"'


class NothingToRead:
    """What a source reads from that is only there to be given blocks."""

    def read(self, n: int = -1, /) -> bytes:  # noqa: ARG002 - a reader's
        return b""

    def close(self) -> None:
        """There is nothing to close."""


class BlocksOfLines:
    """A source that reads lines into `rest`, and whose blocks may be read elsewhere: see `Divisible`.

    waiting: blocks that have been read ahead. careful: line ends may stand in quotes.
    """

    reader: Reader
    rest: bytes
    size: int
    ended: bool
    waiting: list[Any]
    careful = False
    most = 4 << 20

    @abstractmethod
    def _next_block(self) -> Any | None:
        """The next block of lines, None at the end."""

    @abstractmethod
    def _batches_in(self, block: Any, wanted: Projection) -> Iterator[Batch]:
        """The rows of a block."""

    def batches(self, wanted: Projection) -> Iterator[Batch]:
        while (some := self.next_batches(wanted)) is not None:
            yield from some

    def next_batches(self, wanted: Projection) -> Iterator[Batch] | None:
        block = self.waiting.pop(0) if self.waiting else self._next_block()
        return None if block is None else self._batches_in(block, wanted)

    def divisible(self) -> Self:
        return self

    @property
    def ready(self) -> bool:
        return not self.waiting and is_ready(self.reader)

    def take(self, room: memoryview, least: int) -> int:
        before = len(self.rest)
        if before >= len(room):
            return 0
        room[:before] = self.rest
        read = read_into(self.reader, room[before:])
        self.ended = not read
        self.size += read
        there = before + read
        end = self._last_line_end(room[:there])
        whole = end >= least and not self.ended
        self.rest = bytes(room[end * whole : there])
        return end * whole

    def _last_line_end(self, text: memoryview) -> int:
        """Where the last line in a text ends that is no part of a quoted field; 0: nowhere.

        Quotes are looked for only where they have been found to matter. If all are well-formed, a line end
        is one of a record after an even number of them.
        """
        end = len(text)
        if self.careful and (whole := bytes(text)).count(QUOTE) % 2:
            end = whole.rfind(QUOTE)
        begin = end
        while begin:
            stop, begin = begin, max(0, begin - NEAR)
            at = bytes(text[begin:stop]).rfind(b"\n")
            if at >= 0:
                return begin + at + 1
        return 0

    def put_back(self, data: bytes) -> None:
        self.rest = data + self.rest
        self.careful = True

    def apart(self) -> Self:
        twin = copy(self)
        twin.reader, twin.rest, twin.waiting = NothingToRead(), b"", []
        return twin
