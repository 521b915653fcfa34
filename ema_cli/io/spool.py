"""Copies inputs that can't be read out of order, such as a Parquet file on a pipe, to a temporary file."""

from __future__ import annotations

import tempfile
from typing import BinaryIO, cast

from ema_cli.errors import FileTrouble
from ema_cli.io.atomic import system_words
from ema_cli.io.output import write_all
from ema_cli.io.streams import Reader

SPOOL_BYTES = 1 << 20


def spool(reader: Reader) -> BinaryIO:
    """Everything from the reader in an unnamed temporary file, which vanishes with the process.

    Raises FileTrouble where it does not fit into the temporary folder.
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
