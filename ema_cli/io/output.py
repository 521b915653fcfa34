"""Writing everything, although a raw file may accept a part of it only, and a full pipe nothing."""

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
    """A raw file: `write` gives how many bytes it accepted, or None if it can't accept any now."""

    def write(self, data: Buffer, /) -> int | None: ...


def write_all(out: Raw, data: Buffer) -> int:
    """Write all of `data`, and return its number of bytes. Raises OSError.

    A pipe without a reader is a BrokenPipeError on every system.
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
    """Wait until a non-blocking pipe can be read, or written."""
    try:
        select.select([] if writing else [file], [file] if writing else [], [])
    except (OSError, ValueError, TypeError):  # Windows can wait for sockets only
        time.sleep(_PAUSE)


def _is_closed_pipe(out: Raw, error: OSError) -> bool:
    """Whether this is Windows' error for a pipe without a reader: "invalid argument"."""
    if error.errno != errno.EINVAL or not hasattr(out, "fileno"):
        return False
    return stat.S_ISFIFO(os.fstat(out.fileno()).st_mode)


class Output(io.RawIOBase):
    """An unbuffered output that writes everything it is given, or raises FileTrouble."""

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
    """An output that collects what is written, to be passed on later. size: bytes in `pieces`."""

    def __init__(self) -> None:
        self.pieces: list[bytes | memoryview] = []
        self.size = 0

    def write(self, data: bytes | memoryview, /) -> int:
        self.pieces.append(data)
        self.size += len(data)
        return len(data)

    def pop_all(self) -> Texts:
        """Everything collected; this is empty afterwards."""
        popped = Texts()
        popped.pieces, popped.size = self.pieces, self.size
        self.pieces, self.size = [], 0
        return popped

    def write_to(self, out: BinaryIO, at: int | None) -> None:
        """Write all of it, at the offset `at` if given."""
        if at is not None:
            out.seek(at)
        for piece in self.pieces:
            out.write(piece)
