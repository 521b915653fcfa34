"""Inputs that look as if an option were missing: rows in falling order, files that are separate runs, a first
row that is taken for the header, numbers that stand for missing.

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
from ema_cli.formats.base import Batch, Floats
from ema_cli.job import Job
from ema_cli.notation import looks_like_row
from ema_cli.times import TimeForm, read_times, text_of
from ema_cli.times.hints import UNITS, formats_of

# Rows and columns that are looked at: enough to judge, few enough to cost nothing.
ROWS, COLUMNS = 200, 20
LEAST = 3
# Numbers of nines that say that there is no value, as weather services and data loggers write them.
NINES = (
    *(-99.0, -99.9, -99.99, -999.0, -999.9, -999.99, -9999.0, -9999.9, -99999.0),
    *(999.0, 999.9, 999.99, 9999.0, 9999.9, 99999.0, 99999.9, 999999.0),
)
STEPS = {"step", "global_step", "steps", "iteration", "iter", "epoch", "batch", "time", "timestamp", "date"}


class Suspicions:
    """Looks at the batches of a run, in the order of the input."""

    def __init__(self, job: Job, columns: Sequence[str], smoothed: Sequence[int]) -> None:
        """smoothed: where those of the columns are that are smoothed."""
        self.columns, self.smoothed = columns, smoothed
        self.looks_at_values = True
        self.notation, self.has_header = job.notation, job.header
        ordered = job.time is not None or job.order is not None
        self.looks_for_falling = not (ordered or job.newest_first)
        self.looks_for_runs = len(job.inputs) > 1 and not (ordered or job.newest_first or job.by_file)
        self.before: Batch | None = None
        self.first: Batch | None = None
        self.notes: list[str] = []

    def saw(self, batch: Batch) -> None:
        """Look at the next batch; its cells are read only if needed."""
        if batch.rows and self.looks_at_values:
            self.looks_at_values = False
            self._look_at_names(batch)
            self._look_for_nines(batch)
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

    def _look_at_names(self, batch: Batch) -> None:
        """Numbers for names of columns of numbers, in a line above the first row."""
        first = batch.place(0)
        if not self.has_header or first.unit != "line" or first.line == 1:
            return
        names = [self.columns[k] for k in self.smoothed if k < len(self.columns)]
        numbers = [self.notation.read(name.encode("utf-8", "surrogateescape")) for name in names]
        if looks_like_row(numbers):
            self.notes.append(
                f"the first line is taken for the header, and says {readable(names[0])!r} where a name is "
                "expected; --no-header if it is a row like the others"
            )

    def _look_for_nines(self, batch: Batch) -> None:
        """Nines that lie far from all the other values of their column."""
        for k, column in enumerate(self.smoothed):
            values = batch.values[:, k]
            values = values[~np.isnan(values)]
            found = next((number for number in _ends(values) if _stands_apart(number, values)), None)
            if found is not None and column < len(self.columns):
                self.notes.append(
                    f"{self._name(batch, column)} holds {found:g}, far from its other values; "
                    f"--na {found:g} if that stands for missing"
                )

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


def _ends(values: Floats) -> list[float]:
    """The least and the largest value, where they are nothing but nines."""
    if values.size < LEAST:
        return []
    return [end for end in (float(values.min()), float(values.max())) if end in NINES]


def _stands_apart(number: float, values: Floats) -> bool:
    """Whether the others are far from that number, and there are others."""
    others = values[np.abs(values) != abs(number)]
    others = others[~np.isin(others, NINES)]
    if others.size < 2:
        return False
    low, high = float(others.min()), float(others.max())
    return (low - number if number < low else number - high) > 3.0 * (high - low)


def _some(batch: Batch, column: int, first: int = 0) -> Any:
    """The cells of a column that are looked at; None if they can't be read."""
    assert batch.cells is not None
    return batch.cells(column, first, ROWS)


def _dates(cells: Any) -> NDArray[np.int64] | None:
    """Nanoseconds of cells that are all dates; None if one is not, or they are too few."""
    if cells is None or len(cells) < LEAST:
        return None
    for form in _forms(text_of(cells, 0), _is_text(cells)):
        # For most columns the first cell decides.
        for some in (cells[:1], cells):
            times = read_times([some], form, "missing")
            if times.unread is not None:
                break
        else:
            return times.nanoseconds
    return None


def _forms(text: str, is_text: bool) -> list[TimeForm]:
    """How a cell may say a time: as it is, in a format, or counted since 1970, from 2001 to 2033."""
    forms = [TimeForm(), *(TimeForm(format=form) for form in formats_of(text) if is_text)]
    if text.isdigit() and text.startswith("1") and len(text) in UNITS:
        forms.append(TimeForm(unit=UNITS[len(text)]))
    return forms


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
