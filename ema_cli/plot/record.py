"""What a run leaves to draw: of each key the rows of every series, in a bounded number."""

from __future__ import annotations

from typing import Any

import numpy as np

from ema_cli.average import Average
from ema_cli.formats.base import Batch, Floats, Ints
from ema_cli.keys import KeyTable
from ema_cli.plot.reduce import Reduced, Reducer
from ema_cli.run.selection import Selection

# As many as a page holds and an eye takes in.
MOST_KEYS = 12
MOST_COLUMNS = 12
MOST_CELLS = 48  # pictures of one column and one key
# The difference of two of the greatest numbers is infinite, and no axis goes that far.
HIGHEST = 1e307
# Buckets for the whole width of the picture, and for one of several beside each other.
BUCKETS, BUCKETS_A_KEY = 4096, 1024


class Record:
    """The first keys' rows of a table's first chosen columns.

    Series run column after column: its value, then its new fields in their order. Of a table without keys
    there is one record, called "". x is the time of a row in nanoseconds or, without times, its number
    within its key, from 1.
    """

    def __init__(self, average: Average, chosen: Selection) -> None:
        self.average, self.chosen = average, chosen
        self.keys = KeyTable() if chosen.keys else None
        columns = min(len(chosen.smoothed), MOST_COLUMNS)
        self.columns = chosen.smoothed[: min(columns, MOST_CELLS // MOST_KEYS) if chosen.keys else columns]
        self.fields = len(average.names(""))
        self.reducers: list[Reducer] = []

    @property
    def width(self) -> int:
        """How many series a column has: its value and its new fields."""
        return 1 + self.fields

    def add(self, batch: Batch, fields: Floats) -> None:
        """The rows of a batch with their new fields, (rows, new columns)."""
        if not batch.rows:
            return
        if self.keys is None:
            self._append(0, batch.times, self._series(batch.values, fields))
            return
        keyed = self.keys.encode(batch.keys)
        drawn = sorted(int(slot) for slot in keyed.slots if slot < MOST_KEYS)
        if not drawn:
            return
        slot_of_row = keyed.slots[keyed.codes]
        for slot in drawn:
            rows = np.flatnonzero(slot_of_row == slot)
            times = None if batch.times is None else batch.times[rows]
            self._append(slot, times, self._series(batch.values[rows], fields[rows]))

    def result(self) -> list[Reduced]:
        """The rows of each key, in the order in which the keys appeared."""
        return [reducer.result() for reducer in self.reducers]

    def names(self) -> list[str]:
        """The keys that there are rows of, as a picture says them."""
        if self.keys is None:
            return ["" for _ in self.reducers]
        texts = [column[:MOST_KEYS].to_pylist() for column in self.keys.texts()]
        return [", ".join(map(_text, key)) for key in zip(*texts, strict=True)]

    def notes(self) -> list[str]:
        """What of the table is left out."""
        out = []
        if self.keys is not None and len(self.keys) > MOST_KEYS:
            out.append(f"the first {MOST_KEYS} of {len(self.keys):,} keys")
        if len(self.columns) < len(self.chosen.smoothed):
            out.append(f"the first {len(self.columns)} of {len(self.chosen.smoothed):,} columns")
        return out

    def _series(self, values: Floats, fields: Floats) -> Floats:
        """Value and new fields of the drawn columns side by side, (rows, columns × width)."""
        rows, columns = len(values), len(self.columns)
        out = np.empty((rows, columns, self.width))
        out[:, :, 0] = values[:, :columns]
        out[:, :, 1:] = fields[:, : columns * self.fields].reshape(rows, columns, self.fields)
        np.clip(out, -HIGHEST, HIGHEST, out=out)
        return out.reshape(rows, columns * self.width)

    def _append(self, slot: int, times: Ints | None, series: Floats) -> None:
        while len(self.reducers) <= slot:
            buckets = BUCKETS if self.keys is None else BUCKETS_A_KEY
            self.reducers.append(Reducer(len(self.columns) * self.width, buckets))
        reducer = self.reducers[slot]
        if times is None:
            times = np.arange(reducer.rows + 1, reducer.rows + 1 + len(series), dtype=np.int64)
        reducer.add(times, series)


def _text(cell: Any) -> str:
    """A key's cell for people; no text is said in words."""
    if cell is None:
        return "(none)"
    return bytes(cell).decode("utf-8", "replace").strip()
