"""Input that must be read from its end, as Parquet must, put into a temporary file first."""

from __future__ import annotations

import tempfile
from typing import BinaryIO, cast

from ema_cli.errors import FileTrouble
from ema_cli.io.atomic import system_words
from ema_cli.io.output import write_all
from ema_cli.io.streams import Reader

SPOOL_BYTES = 1 << 20


def spool(reader: Reader) -> BinaryIO:
    """All that comes from the reader in a temporary file without a name, which ends with the process.

    Raises FileTrouble where the temporary folder can't hold it.
    """
    hint = "set TMPDIR to a folder with more room"
    try:
        out = cast(BinaryIO, tempfile.TemporaryFile(prefix="ema-smooth.", buffering=0))
    except OSError as error:
        raise FileTrouble(tempfile.gettempdir(), system_words(error), hint) from error
    try:
        while chunk := reader.read(SPOOL_BYTES):
            try:
                write_all(out, chunk)
            except OSError as error:
                raise FileTrouble(tempfile.gettempdir(), system_words(error), hint) from error
    except BaseException:
        out.close()
        raise
    return out
