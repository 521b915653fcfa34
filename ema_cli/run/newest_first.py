"""Rows that stand in falling order: smoothed from the last to the first, written in the order they came.

The input is read twice from its first row on: first to store what is folded in a temporary file, then to
write it. In between, the rows are folded from that file backwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ema_cli.errors import Place
from ema_cli.formats.base import Batch, Floats, Projection, Source
from ema_cli.run.deferred import Deferred
from ema_cli.run.observer import Observer
from ema_cli.run.row_notes import RowNotes
from ema_cli.run.row_spool import RowSpool


class NewestFirst(Deferred):
    """A run over an input from its last row to its first."""

    def __init__(self, wanted: Projection, new: int, reopen: Callable[[], Source], notes: RowNotes) -> None:
        super().__init__(wanted, new, reopen)
        self.notes, self.invalid, self.size = notes, 0, 0
        self.spool = RowSpool()

    def read(self, source: Source, wanted: Projection) -> None:
        """Store all rows."""
        self.name = source.name
        for batch in source.batches(wanted):
            self.spool.add(batch)
            self.notes.saw(batch, None)
            self.invalid += batch.invalid
            self.size = batch.size
        self.spool.finish()
        self.rows = self.spool.rows

    def batches(self) -> Iterator[tuple[int, Batch]]:
        """The rows from the last to the first, and how many rows stand before each batch."""
        for first, stored in self.spool.batches(last_first=True):
            rows = stored.turned()
            locator = _Locator(self, first + rows.count - 1)
            size = self.size * (self.rows - first) // self.rows
            yield first, rows.batch(locator, locator.text, size)

    def fold(self, fields: Callable[[Batch], Floats], observer: Observer) -> None:
        """Compute the new fields of all rows; the observer sees them from the last row to the first."""
        for first, batch in self.batches():
            found = fields(batch)
            self.fields.put(first, found[::-1])
            observer.saw(batch, found)
        self.fields.rewind()

    def close(self) -> None:
        self.spool.close()
        super().close()


class _Locator:
    """Finds the place of a stored row by reading the input. last: number of a batch's first row."""

    def __init__(self, run: NewestFirst, last: int) -> None:
        self.run, self.last = run, last

    def __call__(self, row: int, column: int | None = None) -> Place:
        batch, at = self.run.find(self.last - row)
        return batch.place(at, column)

    def text(self, row: int) -> str:
        batch, at = self.run.find(self.last - row)
        return batch.clock.text(at)
