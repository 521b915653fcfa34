"""Fields that are known only when all rows have been read: the input is then read again and written.

Until then the fields are kept in a temporary file, row after row.
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
    """The new fields of all rows.

    wanted: what is read of the input. new: number of new columns. reopen: opens the input again. rows: number
    of rows.
    """

    def __init__(self, wanted: Projection, new: int, reopen: Callable[[], Source]) -> None:
        self.wanted, self.reopen = wanted, reopen
        self.name, self.rows = "", 0
        self.fields = FieldSpool(new)

    def blank(self, first: int, last: int) -> None:
        """Leave these rows blank."""
        for begin in range(first, last, BATCH_ROWS):
            rows = min(BATCH_ROWS, last - begin)
            self.fields.put(begin, np.full((rows, self.fields.width), np.nan))

    def write(self, batch: Batch, writer: Writer) -> Floats:
        """Write a batch of the input's second reading with its new fields, and give these."""
        fields = self.fields.read(batch.rows)
        if len(fields) < batch.rows:
            raise self._changed()
        writer.write(batch, fields)
        return fields

    def check_all(self, rows: int) -> None:
        """Raise FileTrouble unless all rows have been written. rows: how many have."""
        if rows != self.rows:
            raise self._changed()

    def find(self, number: int) -> tuple[Batch, int]:
        """The batch that holds row `number` (from 0) of the input, and the row's index in it."""
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
        except OSError:  # reported when it is opened
            continue
        if once:
            hint = "give it on stdin, which is put into a temporary file: ema-smooth ... - < FILE"
            raise OptionError(f"{name}: a pipe, and {why} reads its input twice", hint)
