"""Writing all of it: a raw file may take less than it is given, and says so only by a number."""

from __future__ import annotations

import errno
import io
import select
from typing import Any, BinaryIO

from ema_cli.errors import FileTrouble
from ema_cli.io.atomic import system_words


def write_all(out: Any, data: Any) -> int:
    """Write every byte of `data` to a raw file, and return how many they are. Raises OSError."""
    view = memoryview(data)
    if view.nbytes == 0:
        return 0  # and can't be cast: an empty array may have several dimensions
    view, done = view.cast("B"), 0
    while done < len(view):
        written = out.write(view[done:])
        if written is None:  # a non-blocking pipe that is full
            select.select([], [out], [])
        done += written or 0
    return done


class Output(io.RawIOBase):
    """An unbuffered output that takes all it is given, or says in words why it can't."""

    def __init__(self, raw: BinaryIO, name: str) -> None:
        super().__init__()
        self.raw, self.name = raw, name
        self._given_up = False

    def give_up(self) -> None:
        """Let all that is still written go nowhere: the file is thrown away, and may be closed by now."""
        self._given_up = True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self.raw.seekable()

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return 0 if self._given_up else self.raw.seek(offset, whence)

    def tell(self) -> int:
        return 0 if self._given_up else self.raw.tell()

    def write(self, data: Any, /) -> int:
        if self._given_up:
            return memoryview(data).nbytes
        try:
            return write_all(self.raw, data)
        except BrokenPipeError:
            raise  # a closed pipe is the reader's choice, no trouble with a file
        except OSError as error:
            hint = "make room there, or write elsewhere with -o" if error.errno == errno.ENOSPC else ""
            raise FileTrouble(self.name, system_words(error), hint) from error
