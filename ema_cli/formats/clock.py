"""Reads the columns of time and order of a batch, for all formats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ema_cli.formats.base import Clock, Floats, Ints, Oddity, Projection
from ema_cli.times import BadTimeError, TimeForm, Times, read_times, text_of

Bools = NDArray[np.bool_]
NO_STEP = "missing, and rows are ordered by it"
LEAVE_OUT = "--invalid missing to leave such rows out"


class BadClockError(ValueError):
    """A row without a readable time or order. problem: what is wrong with its cell in that column."""

    def __init__(self, row: int, column: int, problem: str, hint: str) -> None:
        super().__init__(f"row {row}: {problem}")
        self.row, self.column, self.problem, self.hint = row, column, problem, hint


@dataclass(frozen=True)
class ClockReader:
    """Reads the columns of time and order of a batch.

    values: those to be smoothed; a row without any needs no time. cells: gives a column as an Arrow array.
    numbers: gives a column as float64, NaN where missing.
    """

    wanted: Projection
    values: Floats
    cells: Callable[[int], Any]
    numbers: Callable[[int], Floats]

    def read(self) -> tuple[Ints | None, Clock]:
        """The times, if asked for, and what else these columns say. Raises BadClockError for a bad row."""
        wanted, times, later, wall = self.wanted, None, None, None
        order: Any | None = None
        left_out: list[Bools] = []
        unread: list[Oddity] = []
        if wanted.time is not None:
            columns = [wanted.time] if wanted.time_of_day is None else [wanted.time, wanted.time_of_day]
            read = self._times(columns, wanted.time_form, (left_out, unread))
            times, later, wall = read.nanoseconds, read.later, read.wall
            if wanted.naive:
                self._check_naive(read)
        if wanted.order is not None and wanted.order_form is not None:
            order = self._times([wanted.order], wanted.order_form, (left_out, unread)).nanoseconds
        elif wanted.order is not None:
            order = self._steps(wanted.order, (left_out, unread))
        out = np.logical_or.reduce(left_out) if left_out else None
        return times, Clock(later, order, out, tuple(unread), wall, self._text)

    def _check_naive(self, read: Times) -> None:
        """Raise BadClockError for a time with a zone, where the column of the output has times without."""
        zoned = np.broadcast_to(~np.asarray(read.local), len(read.nanoseconds))
        zoned = zoned if read.unread is None else zoned & ~read.unread
        if zoned.any() and self.wanted.time is not None:
            row = int(zoned.argmax())
            problem = f"{read.texts(row)!r} names its zone, and the first time does not"
            raise BadClockError(row, self.wanted.time, problem, "--to csv, which keeps times as they stand")

    def _text(self, row: int) -> str:
        columns = self.wanted.clocks if self.wanted.order is None else (self.wanted.order,)
        return " ".join(text_of(self.cells(column), row) for column in columns)

    def _times(self, columns: list[int], form: TimeForm, missed: tuple[list[Bools], list[Oddity]]) -> Times:
        try:
            cells, says_missing = [self.cells(k) for k in columns], self.wanted.notation.is_missing
            read = read_times(cells, form, self.wanted.invalid, self._spare, says_missing)
        except BadTimeError as error:
            raise BadClockError(error.row, columns[0], error.said, error.hint) from None
        if read.unread is not None:
            self._note(columns[0], read.unread, read.texts, missed)
        return read

    def _steps(self, column: int, missed: tuple[list[Bools], list[Oddity]]) -> Floats:
        order = self.numbers(column)
        unread: Bools = np.isnan(order)
        if not unread.any():
            return order
        wrong = unread & ~self._spare()
        if self.wanted.invalid == "error" and wrong.any():
            raise BadClockError(int(wrong.argmax()), column, NO_STEP, LEAVE_OUT)
        self._note(column, unread, lambda _row: "", missed)
        return np.where(unread, 0.0, order)

    def _spare(self) -> Bools:
        """The rows without a value."""
        return np.asarray(np.isnan(self.values).all(axis=1))

    def _note(
        self,
        column: int,
        unread: Bools,
        text: Callable[[int], str],
        missed: tuple[list[Bools], list[Oddity]],
    ) -> None:
        """Leave rows out, and count those that have a value."""
        missed[0].append(unread)
        counted = np.flatnonzero(unread & ~self._spare())
        if counted.size:
            first = int(counted[0])
            missed[1].append(Oddity(column, int(counted.size), first, text(first)))
