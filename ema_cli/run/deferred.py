"""New fields that are known only when all rows have been read: the input is read once more to be written.

In between the fields wait in a temporary file, row after row.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from contextlib import closing

import numpy as np

from ema_cli.errors import FileTrouble, OptionError
from ema_cli.formats.base import BATCH_ROWS, Batch, Floats, Projection, Source
from ema_cli.run.overlap import Writer
from ema_cli.run.row_spool import FieldSpool


class Deferred:
    """The new fields of all rows. wanted: what is read. new: how many columns. reopen: gives the input once
    more, from its first row. rows: how many there are."""

    def __init__(self, wanted: Projection, new: int, reopen: Callable[[], Source]) -> None:
        self.wanted, self.reopen = wanted, reopen
        self.name, self.rows = "", 0
        self.fields = FieldSpool(new)

    def blank(self, first: int, last: int) -> None:
        """Nothing is known of these rows."""
        for begin in range(first, last, BATCH_ROWS):
            rows = min(BATCH_ROWS, last - begin)
            self.fields.put(begin, np.full((rows, self.fields.width), np.nan))

    def write(self, batch: Batch, writer: Writer) -> Floats:
        """Write a batch of the input's further reading with its new fields, and give these."""
        fields = self.fields.take(batch.rows)
        if len(fields) < batch.rows:
            raise self._changed()
        writer.write(batch, fields)
        return fields

    def check_all(self, rows: int) -> None:
        """Raise FileTrouble unless so many rows, all, have been written."""
        if rows != self.rows:
            raise self._changed()

    def find(self, number: int) -> tuple[Batch, int]:
        """The batch of the input that has a row, counted from 0, and where in it; reads as far as that."""
        with closing(self.reopen()) as source:
            for batch in source.batches(self.wanted):
                if number < batch.rows:
                    return batch, number
                number -= batch.rows
        raise self._changed()

    def _changed(self) -> FileTrouble:
        return FileTrouble(self.name, "changed while it was read", "run it again once nobody writes to it")

    def close(self) -> None:
        self.fields.close()


def refuse_pipes(inputs: Sequence[str], why: str) -> None:
    """Raise OptionError for an input that can be read only once; stdin is spooled."""
    for name in inputs:
        try:
            once = name != "-" and stat.S_ISFIFO(os.stat(name).st_mode)  # noqa: PTH116 - as it was typed
        except OSError:  # which is told when it is opened
            continue
        if once:
            hint = "give it on stdin, which is put into a temporary file: ema-smooth ... - < FILE"
            raise OptionError(f"{name}: a pipe, and {why} reads its input twice", hint)
