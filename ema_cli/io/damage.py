"""Damaged input: the one list of what the libraries raise when they read it."""

from __future__ import annotations

import contextlib
import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator

from ema_cli.errors import EmaError

# Arrow's ArrowInvalid and JSON's errors are ValueErrors, a recursion too deep is a RuntimeError, a damaged
# length asks for more memory than there is, and NumPy reads headers as Python's own literals.
DAMAGE = (
    *(zlib.error, lzma.LZMAError, zipfile.BadZipFile, struct.error, EOFError),
    *(ValueError, TypeError, LookupError, ArithmeticError, AttributeError, SyntaxError),
    *(RuntimeError, MemoryError, tokenize.TokenError),
)


@contextlib.contextmanager
def damage_as(make: Callable[[Exception], EmaError], *also: type[BaseException]) -> Iterator[None]:
    """Turn what damaged data raises in the block into the error that `make` gives; EmaError passes.

    also: further exceptions that mean damage here, such as OSError where a decompressor raises it.
    """
    try:
        yield
    except EmaError:
        raise
    except Exception as error:
        if not isinstance(error, (*DAMAGE, *also)):
            raise
        raise make(error) from error
