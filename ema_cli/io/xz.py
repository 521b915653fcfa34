"""xz text in bounded memory: the window that a file asks for may be no larger than honest files have."""

from __future__ import annotations

import lzma
from typing import Protocol

# `xz -9` needs 65 MiB to decompress; a file may ask for 4 GiB, and fill it from a few KB.
MOST_MEMORY = 256 << 20


class Bytes(Protocol):
    """What bytes are read from."""

    def read(self, n: int = -1, /) -> bytes: ...


class Xz:
    """The text of one xz stream after another, with the zeros that may stand between them.

    Raises EOFError where the data is cut short, lzma.LZMAError where it is damaged or asks for too much.
    """

    def __init__(self, inner: Bytes) -> None:
        self.inner = inner
        self.stream = self._begin()

    @staticmethod
    def _begin() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MOST_MEMORY)

    def read(self, n: int = -1, /) -> bytes:
        while True:
            data = b""
            if self.stream.eof:
                data = self._next_stream()
                if not data:
                    return b""
                self.stream = self._begin()
            elif self.stream.needs_input:
                data = self.inner.read(1 << 16)
                if not data:
                    raise EOFError("the xz data is cut short")
            if out := self.stream.decompress(data, n):
                return out

    def _next_stream(self) -> bytes:
        """What follows the stream that has ended, from the beginning of the next one; nothing at the end."""
        rest = self.stream.unused_data.lstrip(b"\0")
        while not rest and (rest := self.inner.read(1 << 16)):
            rest = rest.lstrip(b"\0")
        return rest

    def close(self) -> None:
        """The inner file is closed by whoever opened it."""
