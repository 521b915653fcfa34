"""Writing everything: a bare file may take less than it is given, and a pipe nothing for now."""

from __future__ import annotations

import errno
import io
import os
import select
import stat
import time
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from ema_cli.errors import FileTrouble
from ema_cli.io.atomic import system_words

if TYPE_CHECKING:
    from typing_extensions import Buffer

_PAUSE = 0.01  # seconds, where the system can't say when a pipe is ready


class Raw(Protocol):
    """What bytes are written to; it may take fewer than it is given, or None for the time being."""

    def write(self, data: Buffer, /) -> int | None: ...


def write_all(out: Raw, data: Buffer) -> int:
    """Write all of `data`, however often that takes, and return its bytes. Raises OSError.

    A pipe that nobody reads any more is a BrokenPipeError on every system.
    """
    rest = memoryview(data).cast("B") if memoryview(data).nbytes else memoryview(b"")
    size = len(rest)
    try:
        while rest:
            written = out.write(rest)
            if written is None:  # a non-blocking pipe that is full
                wait_until_ready(out, writing=True)
            rest = rest[written or 0 :]
    except OSError as error:
        if _is_closed_pipe(out, error):
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from error
        raise
    return size


def wait_until_ready(file: Any, *, writing: bool = False) -> None:
    """Wait until a non-blocking pipe has something to read, or room."""
    try:
        select.select([] if writing else [file], [file] if writing else [], [])
    except (OSError, ValueError, TypeError):  # Windows can wait for sockets only
        time.sleep(_PAUSE)


def _is_closed_pipe(out: Raw, error: OSError) -> bool:
    """Whether this is what Windows says of a pipe that nobody reads: "invalid argument"."""
    if error.errno != errno.EINVAL or not hasattr(out, "fileno"):
        return False
    return stat.S_ISFIFO(os.fstat(out.fileno()).st_mode)


class Output(io.RawIOBase):
    """An unbuffered output that takes all it is given, or says in words why it can't."""

    def __init__(self, raw: BinaryIO, name: str) -> None:
        super().__init__()
        self.raw, self.name = raw, name

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self.raw.seekable()

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self.raw.seek(offset, whence)

    def tell(self) -> int:
        return self.raw.tell()

    def write(self, data: Buffer, /) -> int:
        try:
            return write_all(self.raw, data)
        except BrokenPipeError:
            raise  # a closed pipe is the reader's choice, no trouble with a file
        except OSError as error:
            hint = "make room there, or write elsewhere with -o" if error.errno == errno.ENOSPC else ""
            raise FileTrouble(self.name, system_words(error), hint) from error


class Texts:
    """An output that keeps what is written until it may go on: pieces, and their bytes."""

    def __init__(self) -> None:
        self.pieces: list[bytes | memoryview] = []
        self.size = 0

    def write(self, data: bytes | memoryview, /) -> int:
        self.pieces.append(data)
        self.size += len(data)
        return len(data)

    def pop_all(self) -> Texts:
        """What there is, leaving nothing."""
        popped = Texts()
        popped.pieces, popped.size = self.pieces, self.size
        self.pieces, self.size = [], 0
        return popped

    def write_to(self, out: BinaryIO, at: int | None) -> None:
        """Write all of it, from that place on where one is named."""
        if at is not None:
            out.seek(at)
        for piece in self.pieces:
            out.write(piece)
