"""An array in Fortran order turned into C order in bounded memory, by way of temporary files."""

from __future__ import annotations

import math
import tempfile
from typing import BinaryIO, cast

import numpy as np

from ema_cli.errors import FileTrouble
from ema_cli.io.archive import Member, NpyHeader
from ema_cli.io.atomic import system_words
from ema_cli.io.output import write_all
from ema_cli.parameters.tensors import Array

# Bytes held in memory: an array up to this size is turned there.
MOST_BYTES = 8 << 20


class Turned:
    """The values of an .npy member in Fortran order, to be read in C order from any place.

    A large array lies in a temporary file, which has no name and so leaves nothing behind.
    """

    def __init__(self, member: Member, header: NpyHeader) -> None:
        """Raises FileTrouble where the member is damaged or the temporary folder is full."""
        self._dtype = header.dtype
        self._file: BinaryIO | None = None
        if header.nbytes <= MOST_BYTES:
            values = np.frombuffer(member.read(header.nbytes), header.dtype)
            self._values = values.reshape(header.shape, order="F").reshape(-1)
            return
        try:
            self._file = _spooled(member, header.nbytes)
            # The file has the axes in reverse: the first one goes behind all others, before those that went.
            others, item = header.nbytes // header.dtype.itemsize, header.dtype.itemsize
            for length in reversed(header.shape[1:]):
                others //= length
                if length > 1 and others > 1:
                    with self._file as before:
                        self._file = _transposed(before, length, others, item)
                item *= length
        except OSError as error:
            raise FileTrouble(
                tempfile.gettempdir(), system_words(error), "set TMPDIR to a folder with more room"
            ) from error

    def read(self, start: int, stop: int) -> Array:
        """Elements start to stop."""
        if self._file is None:
            return self._values[start:stop]
        values = np.empty(stop - start, self._dtype)
        _read_at(self._file, start * self._dtype.itemsize, memoryview(values.view(np.uint8).data))
        return values

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _temporary() -> BinaryIO:
    return cast(BinaryIO, tempfile.TemporaryFile(prefix="ema-weights.", buffering=0))


def _spooled(member: Member, size: int) -> BinaryIO:
    file = _temporary()
    for at in range(0, size, MOST_BYTES):
        write_all(file, member.read(min(MOST_BYTES, size - at)))
    return file


def _transposed(file: BinaryIO, rows: int, columns: int, item: int) -> BinaryIO:
    """A file of `columns` by `rows` from one of `rows` by `columns` items of so many bytes, tile by tile."""
    out = _temporary()
    part = min(item, MOST_BYTES)
    side = max(math.isqrt(MOST_BYTES // part), 1)
    high = min(rows, side)
    wide = min(columns, max(MOST_BYTES // (part * high), 1))
    high = min(rows, max(MOST_BYTES // (part * wide), 1))
    for top in range(0, rows, high):
        for left in range(0, columns, wide):
            shape = (min(high, rows - top), min(wide, columns - left))
            for begin in range(0, item, part):  # more than one only where an item is a tile of its own
                tile = np.empty((*shape, min(part, item - begin)), np.uint8)
                for row, line in enumerate(tile, top):
                    _read_at(file, (row * columns + left) * item + begin, memoryview(line.reshape(-1).data))
                items = tile.view(f"V{tile.shape[2]}")[:, :, 0]
                for column, line in enumerate(np.ascontiguousarray(items.T), left):
                    out.seek((column * rows + top) * item + begin)
                    write_all(out, line.view(np.uint8))
    return out


def _read_at(file: BinaryIO, at: int, room: memoryview) -> None:
    file.seek(at)
    while room:
        got = file.readinto(room)  # type: ignore[attr-defined]
        if not got:
            raise OSError("a temporary file became shorter")
        room = room[got:]
