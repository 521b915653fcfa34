"""A gzip file whose pieces are packed side by side, each in a thread: one member, as any reader expects it.

A piece begins where the text is a whole number of pieces long, and is packed knowing the text before it, as
`pigz` does (Mark Adler, 2007). So however the text comes and however many threads there are, the bytes are
the same; and they are nearly as few as those of one stream.
"""

from __future__ import annotations

import io
import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from typing_extensions import Buffer

PIECE, WINDOW, LEVEL = 1 << 20, 1 << 15, 6
# Deflate, no name, no time, an unknown system: RFC 1952.
HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
_LOWER = 0xFFFFFFFF


class GzipFile(io.RawIOBase):
    """Packs what is written to it. threads: how many pieces are packed at a time.

    Leaving its block by an exception leaves the file as it is then, without an end.
    """

    def __init__(self, out: BinaryIO, threads: int) -> None:
        super().__init__()
        self.out, self.threads = out, threads
        self.rest, self.before = bytearray(), b""
        self.crc = self.size = 0
        self.pool: ThreadPoolExecutor | None = None
        self.under_way: deque[Future[bytes]] = deque()
        out.write(HEADER)

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer, /) -> int:
        self.rest += data
        while len(self.rest) >= PIECE:
            self._hand_over(bytes(self.rest[:PIECE]))
            del self.rest[:PIECE]
        return memoryview(data).nbytes

    def _hand_over(self, piece: bytes) -> None:
        """Have a piece packed, and write those that are ready or have to be."""
        if self.pool is None:
            self.pool = ThreadPoolExecutor(self.threads, "pack")
        self.under_way.append(self.pool.submit(packed, piece, self.before))
        self._count(piece)
        while len(self.under_way) > self.threads or (self.under_way and self.under_way[0].done()):
            self.out.write(self.under_way.popleft().result())

    def _count(self, piece: bytes) -> None:
        self.crc, self.size = zlib.crc32(piece, self.crc), self.size + len(piece)
        self.before = piece[-WINDOW:]

    def close(self) -> None:
        try:
            if not self.closed:
                self._finish()
        finally:
            self._let_go()

    def _finish(self) -> None:
        while self.under_way:
            self.out.write(self.under_way.popleft().result())
        rest, before = bytes(self.rest), self.before
        self._count(rest)
        end = b"".join(number.to_bytes(4, "little") for number in (self.crc, self.size & _LOWER))
        self.out.write(packed(rest, before, last=True) + end)

    def _let_go(self) -> None:
        if self.pool is not None:
            self.pool.shutdown(wait=False, cancel_futures=True)
        super().close()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, _: TracebackType | None
    ) -> None:
        if value is None:
            self.close()
        else:
            self._let_go()


def packed(piece: bytes, before: bytes, *, last: bool = False) -> bytes:
    """A piece of a deflate stream that knows the text before it."""
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zdict=before)
    return packer.compress(piece) + packer.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)
