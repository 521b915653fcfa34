"""Inputs of lines as blocks that several processes read: what such formats have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from copy import copy
from typing import Any, Self, cast

from ema_cli.formats.base import Batch, Projection
from ema_cli.io.streams import Pushback, Reader, SharedFile, is_ready, read_into

# Bytes within which the last line end is looked for first.
NEAR = 1 << 12
QUOTE = b'"'


class NothingToRead:
    """The reader of a source that is only given blocks."""

    def read(self, n: int = -1, /) -> bytes:  # noqa: ARG002 - a reader's
        return b""

    def close(self) -> None:
        """There is nothing to close."""


class BlocksOfLines:
    """A source that reads lines into `rest`, and whose blocks other processes may read: see `Divisible`.

    waiting: blocks that have been read ahead. careful: line ends may stand inside quotes.
    """

    name: str
    reader: Reader
    rest: bytes
    size: int
    ended: bool
    waiting: list[Any]
    careful = False
    most = 4 << 20
    shared: SharedFile | None = None

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

    def close(self) -> None:
        self.reader.close()
        if self.shared is not None:
            self.shared.close()

    def divisible(self) -> Self:
        return self

    @property
    def ready(self) -> bool:
        return not self.waiting and is_ready(self.reader)

    @property
    def at(self) -> int:
        return cast(Pushback, self.reader).tell() - len(self.rest)

    def take(self, buffer: memoryview, least: int) -> int:
        return (
            self._read_block(buffer, least) if self.shared is None else self._skip_block(len(buffer), least)
        )

    def _skip_block(self, most: int, least: int) -> int:
        assert self.shared is not None
        begin, shared = self.at, self.shared
        there = min(begin + most, shared.size) - begin
        end = self._last_line_end(lambda first, last: shared.read(begin + first, last - first), there)
        if end < least:
            return 0
        self._go_to(begin + end)
        return end

    def _read_block(self, buffer: memoryview, least: int) -> int:
        before = len(self.rest)
        if before >= len(buffer):
            return 0
        buffer[:before] = self.rest
        read = read_into(self.reader, buffer[before:])
        self.ended = not read
        self.size += read
        there = before + read
        end = self._last_line_end(lambda begin, end: bytes(buffer[begin:end]), there)
        whole = end >= least and not self.ended
        self.rest = bytes(buffer[end * whole : there])
        return end * whole

    def _last_line_end(self, text: Callable[[int, int], bytes], end: int) -> int:
        """The end of the last line within the first `end` bytes that does not end inside quotes; 0: none.

        Quotes are looked for only once they have been found to matter (`careful`). If all are well-formed, a
        line ends a record after an even number of them. text: gives the bytes between two places.
        """
        if self.careful and (whole := text(0, end)).count(QUOTE) % 2:
            end = whole.rfind(QUOTE)
        begin = end
        while begin:
            stop, begin = begin, max(0, begin - NEAR)
            at = text(begin, stop).rfind(b"\n")
            if at >= 0:
                return begin + at + 1
        return 0

    def put_back(self, data: bytes, begin: int) -> None:
        self.careful = True
        if self.shared is None:
            self.rest = data + self.rest
        else:
            self._go_to(begin)

    def _go_to(self, place: int) -> None:
        """Read on from that place in the file."""
        reader = cast(Pushback, self.reader)
        self.size += place - reader.tell()
        self.rest = b""
        reader.seek(place)

    def detached(self) -> Self:
        self.shared = self.shared or SharedFile.of(self.reader)
        twin = copy(self)
        twin.reader, twin.rest, twin.waiting = NothingToRead(), b"", []
        return twin
