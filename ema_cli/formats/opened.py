"""An open input whose format is not known yet."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from ema_cli.io.spool import spool
from ema_cli.io.streams import Pushback, Reader, open_raw, open_text


class Opened:
    """An input by its name as it was typed; `shown` is what messages call it.

    Raises FileTrouble where it can't be opened.
    """

    def __init__(self, name: str) -> None:
        self.shown = "stdin" if name == "-" else name
        self.raw = open_raw(name)
        self.is_file = stat.S_ISREG(os.fstat(self.raw.fileno()).st_mode)
        # Another program may have read a part of stdin before.
        self._is_at_start = self.is_file and os.lseek(self.raw.fileno(), 0, os.SEEK_CUR) == 0
        self._head = Pushback(self.raw, self.shown)
        self._text: Pushback | None = None

    @property
    def text(self) -> Pushback:
        """Its bytes, decompressed, as they arrive."""
        if self._text is None:
            self._text = Pushback(open_text(self._head), self.shown)
        return self._text

    @property
    def is_plain_file(self) -> bool:
        """Whether it is a whole file: no pipe, and not compressed."""
        return self._is_at_start and self.text.raw is self._head

    def taken(self) -> int:
        """How many bytes of the (perhaps compressed) input have been read."""
        return self._head.count

    def magic(self, magics: Iterable[bytes]) -> bytes | None:
        """Which of these it begins with; reads only as far as that takes."""
        magics = tuple(magics)
        text = self.text
        while _might_be(text.peeked, magics) and text.peek_more():
            pass
        return next((magic for magic in magics if text.peeked.startswith(magic)), None)

    @contextmanager
    def seekable(self) -> Iterator[BinaryIO]:
        """All of it as a regular file, for formats that are read out of order; closed after the block.

        A pipe or a compressed input is copied to a temporary file.
        """
        if self.is_plain_file:
            with self.raw:
                yield cast(BinaryIO, self.raw)
            return
        with self.text as text, spool(text) as spooled:
            yield spooled

    def close(self) -> None:
        cast(Reader, self._text or self._head).close()


def _might_be(begin: bytes, magics: Iterable[bytes]) -> bool:
    return any(magic.startswith(begin) and magic != begin for magic in magics)
