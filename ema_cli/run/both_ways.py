"""The two-sided average of an input: folded from its first row on, then from its last row back.

The moments of all rows up to each row are stored with the rows in a temporary file. When that is read
backwards, they are joined with the moments of the rows after.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ema_cli.average import Average
from ema_cli.centered import Centered
from ema_cli.engine.arithmetic import Bools
from ema_cli.engine.engine import KeyedRows
from ema_cli.formats.base import Batch, Floats, Ints, Projection, Source
from ema_cli.keys import KeyTable
from ema_cli.run.deferred import Deferred
from ema_cli.run.observer import SILENT, Observer
from ema_cli.run.row_spool import FieldSpool, RowSpool, Stored, nowhere


class BothWays(Deferred):
    """A run over an input in both directions.

    newest_first: rows come from the input's last one to its first, and fields are written in input order.
    """

    def __init__(
        self,
        wanted: Projection,
        new: int,
        reopen: Callable[[], Source],
        average: Average,
        columns: int,
        *,
        newest_first: bool,
    ) -> None:
        super().__init__(wanted, new, reopen)
        self.average, self.newest_first = Centered(average, columns), newest_first
        self.spool = RowSpool()

    def forward(
        self,
        values: Floats,
        times: Ints | None,
        keys: KeyedRows | None,
        _restarts: Bools | None,
        _out: Floats | None,
    ) -> Floats:
        """The moments of all rows up to each one, (rows, numbers); takes the place of `Trends.update`."""
        return self.average.forward(values, times, keys).T

    def add(self, batch: Batch, there: Ints | None, all_rows: int, forward: Floats) -> None:
        """Store rows and what `forward` gave. there: their indexes among `all_rows` rows; None: all."""
        numbers = self.rows + (np.arange(all_rows) if there is None else there)
        self.spool.add(batch, {"number": numbers} | {f"forward{k}": side for k, side in enumerate(forward.T)})
        self.rows += all_rows

    def fold(self, observer: Observer) -> None:
        """Compute the new fields of all rows; the observer then sees them from the first on."""
        self.spool.finish()
        keys, known = KeyTable(), self.rows
        seen = None if observer is SILENT else FieldSpool(self.fields.width)
        for first, stored in self.spool.batches(last_first=True):
            fields = self._fields(stored, keys)
            numbers = stored.more["number"].astype(np.int64)
            known = self._put(numbers, known, fields)
            if seen is not None:
                seen.put(first, fields)
        self._blank(0, known)
        self.fields.rewind()
        if seen is not None:
            seen.rewind()
            for _, stored in self.spool.batches():
                observer.saw(stored.batch(nowhere, str, 0), seen.read(stored.count))
            seen.close()

    def _fields(self, stored: Stored, keys: KeyTable) -> Floats:
        forward = np.stack([stored.more[f"forward{k}"] for k in range(self.average.width)])
        keyed = keys.encode(stored.keys) if stored.keys else None
        return self.average.fields(stored.values, stored.times, keyed, forward)

    def _put(self, numbers: Ints, known: int, fields: Floats) -> int:
        """Store the fields of rows with these numbers; gives the number from which on all are stored."""
        begin = 0
        # Rows left out between them are blank.
        for gap in [*np.flatnonzero(np.diff(numbers) > 1) + 1, len(numbers)]:
            first, last = int(numbers[begin]), int(numbers[gap - 1]) + 1
            self._place(first, fields[begin:gap])
            self._blank(last, known if gap == len(numbers) else int(numbers[gap]))
            begin = gap
        return int(numbers[0])

    def _place(self, first: int, fields: Floats) -> None:
        if self.newest_first:
            self.fields.put(self.rows - first - len(fields), fields[::-1])
        else:
            self.fields.put(first, fields)

    def _blank(self, first: int, last: int) -> None:
        if self.newest_first:
            first, last = self.rows - last, self.rows - first
        self.blank(first, last)

    def close(self) -> None:
        self.spool.close()
        super().close()
