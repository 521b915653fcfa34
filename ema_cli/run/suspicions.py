"""Inputs that look as if an option were missing: rows in falling order, files that are separate runs.

Only a note is given, with the option. Only the first batch of each input is looked at, as it comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ema_cli.errors import readable
from ema_cli.formats import arrow_compute as pc
from ema_cli.formats.base import Batch
from ema_cli.job import Job
from ema_cli.times import TimeForm, read_times, text_of
from ema_cli.times.hints import formats_of

# Rows and columns that are looked at: enough to judge, few enough to cost nothing.
ROWS, COLUMNS = 200, 20
LEAST = 3
STEPS = {"step", "global_step", "steps", "iteration", "iter", "epoch", "batch", "time", "timestamp", "date"}


class Suspicions:
    """Looks at the batches of a run, in the order of the input."""

    def __init__(self, job: Job, columns: Sequence[str]) -> None:
        self.columns = columns
        ordered = job.time is not None or job.order is not None
        self.looks_for_falling = not (ordered or job.newest_first)
        self.looks_for_runs = len(job.inputs) > 1 and not (ordered or job.newest_first or job.by_file)
        self.before: Batch | None = None
        self.first: Batch | None = None
        self.notes: list[str] = []

    def saw(self, batch: Batch) -> None:
        """Look at the next batch; its cells are read only if needed."""
        if not batch.rows or batch.cells is None:
            return
        if self.looks_for_falling and batch.rows >= LEAST:
            self.looks_for_falling = False
            self._look_for_falling(batch)
        if self.looks_for_runs:
            if self.before is not None and self.before.file != batch.file:
                self._look_for_run(batch)
            self.first = self.first or batch
            self.before = batch

    def _look_for_falling(self, batch: Batch) -> None:
        """Note if the first column that holds dates runs backwards."""
        for k in range(min(len(self.columns), COLUMNS)):
            dates = _dates(_some(batch, k))
            if dates is None:
                continue
            if (np.diff(dates) <= 0).all() and dates[-1] < dates[0]:
                self.notes.append(
                    f"{self._name(batch, k)} runs backwards, and rows are smoothed as they stand; "
                    "--newest-first smooths from the last row to the first"
                )
            return

    def _look_for_run(self, batch: Batch) -> None:
        """Note if a column of steps or dates grows in each file and begins again in this one."""
        assert self.before is not None
        assert self.first is not None
        for k, name in enumerate(self.columns[:COLUMNS]):
            if k and name.strip().lower() not in STEPS:
                continue
            earlier, later = (_growing(_some(one, k)) for one in (self.first, batch))
            last = _places(_some(self.before, k, self.before.rows - 1))
            if earlier is None or later is None or last is None or later[0] >= last[0]:
                continue
            self.looks_for_runs = False
            text = text_of(_some(batch, k), 0)
            self.notes.append(
                f"{self._name(batch, k)} begins again at {readable(text)}, and the files are smoothed as one "
                "series; --by-file makes each a series of its own"
            )
            return

    def _name(self, batch: Batch, column: int) -> str:
        where = f"{readable(batch.file)}: " if batch.file else ""
        return f"{where}{readable(self.columns[column])!r}"


def _some(batch: Batch, column: int, first: int = 0) -> Any:
    """The cells of a column that are looked at; None if they can't be read."""
    assert batch.cells is not None
    return batch.cells(column, first, ROWS)


def _dates(cells: Any) -> NDArray[np.int64] | None:
    """Nanoseconds of cells that are all dates; None if one is not, or they are too few."""
    if cells is None or len(cells) < LEAST:
        return None
    formats = [None, *formats_of(text_of(cells, 0))]
    for form in formats if _is_text(cells) else formats[:1]:
        # For most columns the first cell decides.
        for some in (cells[:1], cells):
            times = read_times([some], TimeForm(format=form), "missing")
            if times.unread is not None:
                break
        else:
            return times.nanoseconds
    return None


def _is_text(cells: Any) -> bool:
    return bool(pa.types.is_string(cells.type) or pa.types.is_binary(cells.type))


def _places(cells: Any) -> NDArray[Any] | None:
    """The places of rows by cells that are all numbers, or all ISO 8601 dates; else None."""
    if cells is None or not len(cells) or cells.null_count:
        return None
    try:
        numbers = pc.cast(pc.cast(cells, pa.string()), pa.float64()).to_numpy()
        return numbers if np.isfinite(numbers).all() else None
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        times = read_times([cells], TimeForm(), "missing")
        return times.nanoseconds if times.unread is None else None


def _growing(cells: Any) -> NDArray[Any] | None:
    """The places of rows if they never go back and are not all equal; else None, and for too few."""
    places = _places(cells)
    if places is None or len(places) < LEAST or (np.diff(places) < 0).any() or places[-1] == places[0]:
        return None
    return places
