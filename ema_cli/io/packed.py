"""Compressed files whose pieces are packed side by side, each in a thread, as `pigz` and `pbzip2` do.

A piece begins where the text is a whole number of pieces long. So however the text comes and however many
threads there are, the bytes are the same; and they are hardly more than those of one stream: of a table of
numbers 0.03 % with bzip2 (none with gzip), 0.5 % with xz, 0.01 % with zstd.
"""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Protocol

import pyarrow as pa

from ema_cli.io.threads import Threads

if TYPE_CHECKING:
    from typing_extensions import Buffer

MIB = 1 << 20
# What one block of bzip2 holds; xz's window, which it needs twelve times as much memory for.
BZIP2_PIECE, XZ_PIECE, ZSTD_PIECE = 899_981, 2 * MIB, 2 * MIB
GZIP_WINDOW, GZIP_LEVEL, XZ_PRESET = 1 << 15, 6, 6
# Deflate, no name, no time, an unknown system: RFC 1952.
GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
_LOWER = 0xFFFFFFFF


class Packing(Protocol):
    """A kind of compression. piece: the length of its pieces; header: what the file begins with."""

    piece: int
    header: bytes

    def call(self, piece: bytes, *, last: bool) -> Callable[[], bytes]:
        """What packs a piece, in any thread. Asked for one piece after the other."""


class Gzip(Packing):
    """One member, as any reader expects it: each piece knows the text before it (Mark Adler, 2007)."""

    piece, header = MIB, GZIP_HEADER

    def __init__(self) -> None:
        self.before, self.crc, self.size = b"", 0, 0

    def call(self, piece: bytes, *, last: bool) -> Callable[[], bytes]:
        self.crc, self.size = zlib.crc32(piece, self.crc), self.size + len(piece)
        before, self.before = self.before, piece[-GZIP_WINDOW:]
        return partial(self._ended if last else deflated, piece, before)

    def _ended(self, piece: bytes, before: bytes) -> bytes:
        end = b"".join(number.to_bytes(4, "little") for number in (self.crc, self.size & _LOWER))
        return deflated(piece, before, zlib.Z_FINISH) + end


def deflated(piece: bytes, before: bytes, end: int = zlib.Z_SYNC_FLUSH) -> bytes:
    """A piece of a deflate stream that knows the text before it."""
    packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zdict=before)
    return packer.compress(piece) + packer.flush(end)


class Streams(Packing):
    """Each piece is a whole file, for formats whose files are still one file when joined."""

    header = b""

    def __init__(self, pack: Callable[[bytes], bytes], piece: int) -> None:
        self.pack, self.piece = pack, piece

    def call(self, piece: bytes, *, last: bool) -> Callable[[], bytes]:  # noqa: ARG002 - all are alike
        return partial(self.pack, piece)


def _xz(piece: bytes) -> bytes:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": XZ_PRESET, "dict_size": XZ_PIECE}]
    return lzma.compress(piece, filters=filters)


def _zstd(piece: bytes) -> bytes:
    return bytes(pa.compress(piece, "zstd", asbytes=True))


PACKINGS: dict[str, Callable[[], Packing]] = {
    "gzip": Gzip,
    "bzip2": partial(Streams, bz2.compress, BZIP2_PIECE),
    "xz": partial(Streams, _xz, XZ_PIECE),
    "zstd": partial(Streams, _zstd, ZSTD_PIECE),
}


class PackedFile(io.RawIOBase):
    """Packs what is written to it. threads: how many pieces are packed at a time.

    Leaving its block by an exception leaves the file as it is then, without an end.
    """

    def __init__(self, out: BinaryIO, packing: Packing, threads: int) -> None:
        super().__init__()
        self.out, self.packing, self.threads = out, packing, Threads(threads)
        self.rest = bytearray()
        out.write(packing.header)

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer, /) -> int:
        self.rest += data
        size = self.packing.piece
        while len(self.rest) >= size:
            self.threads.call(self.packing.call(bytes(self.rest[:size]), last=False))
            del self.rest[:size]
            self._append()
        return memoryview(data).nbytes

    def _append(self, *, all_of_them: bool = False) -> None:
        for packed in self.threads.results(all_of_them=all_of_them):
            self.out.write(packed)

    def close(self) -> None:
        try:
            if not self.closed:
                self.threads.call(self.packing.call(bytes(self.rest), last=True))
                self._append(all_of_them=True)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        self.threads.stop()
        super().close()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, _: TracebackType | None
    ) -> None:
        if value is None:
            self.close()
        else:
            self._let_go()
