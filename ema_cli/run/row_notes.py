"""What is said of what was left out: columns, cells, rows; and of a row that stops the run."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ema_cli.errors import DataError, Place
from ema_cli.formats.base import Batch, Oddity
from ema_cli.job import Job
from ema_cli.run.selection import Selection

Bools = NDArray[np.bool_]


class RowNotes:
    """Counts rows as batches go by, and remembers the first of each kind."""

    def __init__(self, job: Job, chosen: Selection) -> None:
        self.job, self.chosen = job, chosen
        self.unread: dict[int, tuple[int, Place, str]] = {}
        self.invalid: dict[int, tuple[int, Place, str]] = {}
        self.late = 0
        self.file = ""
        self.first_late = ""

    @property
    def column(self) -> int | None:
        """The column that rows are ordered by."""
        wanted = self.chosen.wanted
        return wanted.time if wanted.order is None else wanted.order

    def saw(self, batch: Batch, late: NDArray[np.int64] | None) -> None:
        """A batch has been folded. late: which rows of it, in order, go back."""
        self.file = batch.file if batch.rows else self.file
        for oddity in batch.clock.unread:
            _count(self.unread, oddity, batch)
        for oddity in batch.oddities:
            _count(self.invalid, oddity, batch)
        if late is None:
            return
        if not self.late:
            row = int(late[0])
            self.first_late = f"{batch.place(row, self.column)}: {batch.clock.text(row)!r}"
        self.late += len(late)

    def notes(self) -> list[str]:
        """What there is to say at the end."""
        out = []
        for name, advice in self.chosen.left_out:
            what = f"column {name!r} looks like numbers and was left out"
            out.append(f"{what}\n  try: {advice}" if advice.options else f"{what}: {advice.cause}")
        # By column, for which cell comes first to notice depends on how the input was cut.
        for _, (count, place, text) in sorted(self.invalid.items()):
            many = (
                f"{count:,} cells that are no numbers count"
                if count > 1
                else "a cell that is no number counts"
            )
            out.append(f"{many} as missing; the first: {place}: {text!r}")
        for _, (count, place, text) in sorted(self.unread.items()):
            what = f"{text!r}" if text else "missing"
            out.append(f"{_rows(count)} without a time left out; the first: {place}: {what}")
        if self.late:
            what = "left out, where it goes back"
            if self.job.late == "restart":
                what = "went back, each the beginning of its series afresh"
            out.append(f"{_rows(self.late)} {what}; the first: {self.first_late}")
        return out

    def error(self, batch: Batch, row: int) -> DataError:
        """For a row that goes back."""
        wanted, column = self.chosen.wanted, self.column
        what = "the time goes" if wanted.order is None else f"{batch.clock.text(row)!r} goes"
        if _falls(batch):
            hint = "--newest-first, for rows that stand in falling order"
            if self.job.newest_first:
                hint = "no --newest-first: the rows stand in rising order"
            return DataError(f"{what} backwards", batch.place(row, column), hint)
        if row == 0 and batch.file != self.file:
            hint = "--by-file, if each file is a series of its own"
            return DataError(f"{what} backwards", batch.place(row, column), hint)
        name = self.chosen.order or self.job.time
        if wanted.order is not None:
            hint = "--late restart if the series begins afresh there, --late skip to leave late rows out, or "
            return DataError(f"{what} backwards", batch.place(row, column), f"{hint}sort the rows by {name}")
        hint = f"sort the rows by {name}"
        hint += "" if wanted.keys else ", or name the key column with --by where several series interleave"
        return DataError(f"{what} backwards", batch.place(row, column), hint)


def _count(found: dict[int, tuple[int, Place, str]], oddity: Oddity, batch: Batch) -> None:
    """Count the cells of a batch; of the first, remember where it stands."""
    before = found.get(oddity.column)
    if before is None:
        before = 0, batch.place(oddity.row, oddity.column), oddity.text
    found[oddity.column] = before[0] + oddity.count, *before[1:]


def _rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}"


def _falls(batch: Batch) -> bool:
    """Whether all rows of a batch stand in falling order."""
    order = batch.clock.order if batch.clock.order is not None else batch.times
    if order is None:
        return False
    there = order if batch.clock.left_out is None else order[~batch.clock.left_out]
    return len(there) > 1 and bool((there[1:] <= there[:-1]).all() and there[-1] < there[0])
