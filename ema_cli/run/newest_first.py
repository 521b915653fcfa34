"""Rows that stand in falling order: smoothed from the last to the first, written in the order they came.

The input is read twice from its first row on: once to put into a temporary file what is folded, once to write
it. In between the rows are folded from that file backwards, and their new fields put into another.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

from ema_cli.errors import FileTrouble, OptionError, Place
from ema_cli.formats.base import Batch, Body, Floats, Layout, Projection, Source
from ema_cli.run.observer import Observer
from ema_cli.run.overlap import Writer
from ema_cli.run.row_notes import RowNotes
from ema_cli.run.row_spool import FieldSpool, RowSpool


class Backwards:
    """A run over an input from its last row to its first.

    wanted: what is read. reopen: gives the input once more, from its first row.
    """

    def __init__(self, wanted: Projection, notes: RowNotes, reopen: Callable[[], Source]) -> None:
        self.wanted, self.notes, self.reopen = wanted, notes, reopen
        self.name, self.invalid, self.size = "", 0, 0
        self.rows = RowSpool()
        self.new: FieldSpool | None = None

    def read(self, source: Source, wanted: Projection) -> None:
        """Take in all rows."""
        self.name = source.name
        for batch in source.batches(wanted):
            self.rows.add(batch)
            self.notes.saw(batch, None)
            self.invalid += batch.invalid
            self.size = batch.size
        self.rows.finish()

    def batches(self) -> Iterator[tuple[int, Batch]]:
        """The rows from the last to the first, and how many rows stand before each batch."""
        for first, rows in self.rows.backwards():
            locator = _Locator(self, first + rows.count - 1)
            batch = Batch(rows.count, rows.values, rows.times, rows.keys, _NO_BODY, locator)
            batch.size = self.size * (self.rows.rows - first) // self.rows.rows
            batch.extra, batch.clock = rows.extra, rows.clock.saying(locator.text)
            yield first, batch

    def fold(self, fields: Callable[[Batch], Floats], new: int, watcher: Observer) -> None:
        """Work out the new fields of all rows, so many columns; the watcher sees them in this order."""
        self.new = FieldSpool(new)
        for first, batch in self.batches():
            found = fields(batch)
            self.new.put(first, found[::-1])
            watcher.saw(batch, found)
        self.new.rewind()

    def write(self, batch: Batch, writer: Writer) -> Floats:
        """Write a batch of the input's second reading with its new fields, and give these."""
        assert self.new is not None
        fields = self.new.take(batch.rows)
        if len(fields) < batch.rows:
            raise self._changed()
        writer.write(batch, fields)
        return fields

    def check_all(self, rows: int) -> None:
        """Raise FileTrouble unless so many rows, all, have been written."""
        if rows != self.rows.rows:
            raise self._changed()

    def _changed(self) -> FileTrouble:
        return FileTrouble(self.name, "changed while it was read", "run it again once nobody writes to it")

    def find(self, number: int) -> tuple[Batch, int]:
        """The batch of the input that has a row, counted from 0, and where in it; reads as far as that."""
        with closing(self.reopen()) as source:
            for batch in source.batches(self.wanted):
                if number < batch.rows:
                    return batch, number
                number -= batch.rows
        raise self._changed()

    def close(self) -> None:
        self.rows.close()
        if self.new is not None:
            self.new.close()


class _Locator:
    """Says where a row stands of which there are only numbers; last: the number of a batch's first row."""

    def __init__(self, run: Backwards, last: int) -> None:
        self.run, self.last = run, last

    def __call__(self, row: int, column: int | None = None) -> Place:
        batch, at = self.run.find(self.last - row)
        return batch.place(at, column)

    def text(self, row: int) -> str:
        batch, at = self.run.find(self.last - row)
        return batch.clock.text(at)


class _NoBody(Body):
    """What nobody writes."""

    def texts(self, layout: Layout) -> tuple[Any, memoryview]:
        raise NotImplementedError

    def arrow(self) -> Any:
        raise NotImplementedError

    def head(self, rows: int) -> Body:  # noqa: ARG002 - nothing of it is there
        return self


_NO_BODY = _NoBody()


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
