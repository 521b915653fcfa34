"""Room for a tile's arrays that is used again for the next tile.

An array of 128 KB or more comes fresh from the system each time, and the first touch of its pages costs more
than all the arithmetic done on it.
"""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_KEPT = 1 << 21  # floats, 16 MB


class Scratch:
    """Hands out uninitialised arrays, good until the next `clear`."""

    def __init__(self) -> None:
        self._room = np.empty(0)
        self._used = 0

    def clear(self) -> None:
        """Take everything back; what was handed out will be overwritten."""
        if self._used > len(self._room):
            # To free a block that was never touched costs nothing, and teaches glibc's malloc to keep arrays
            # up to that size for the next one: not all that a tile needs can be had from here.
            np.empty(_KEPT)
            self._room = np.empty(self._used)
        self._used = 0

    def floats(self, *shape: int) -> Floats:
        size = prod(shape)
        begin, self._used = self._used, self._used + -(-size // 8) * 8  # whole cache lines
        if self._used > len(self._room):  # not yet known how much a tile needs
            return np.empty(shape)
        return self._room[begin : begin + size].reshape(shape)

    def bools(self, *shape: int) -> Bools:
        size = prod(shape)
        return self.floats(-(-size // 8)).view(np.bool_)[:size].reshape(shape)
