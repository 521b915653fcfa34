"""Whether rows are in order, and which of two equal hours a wall clock means: both follow from earlier rows.

All of it is by series, and carried from batch to batch and from run to run, so it does not matter where the
input is cut. The functions are pure; `RowOrder` has the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ema_cli.engine.engine import BackwardsTimeError, KeyedRows
from ema_cli.formats import arrow_compute as pc
from ema_cli.formats.base import Batch, Clock, Floats, Ints
from ema_cli.keys import KeyTable

Bools = NDArray[np.bool_]
NEVER = -(1 << 63)
# Where a wall clock was: outside of an hour that comes twice, or in its first or second reading.
OUTSIDE, FIRST, SECOND = 0, 1, 2


class LateError(ValueError):
    """A row that goes back; `row` counts from 0 within the rows given."""

    def __init__(self, row: int) -> None:
        super().__init__(f"row {row + 1}: goes back")
        self.row = row


@dataclass(frozen=True)
class KeptRows:
    """Rows without those left out. The attributes are those of `Batch`."""

    values: Floats
    times: Ints | None
    clock: Clock
    keys: list[Any]

    @property
    def count(self) -> int:
        return len(self.values)

    @classmethod
    def of(cls, batch: Batch | KeptRows, there: Ints | None) -> KeptRows:
        """The rows of a batch at these places; None: all."""
        rows = cls(batch.values, batch.times, batch.clock, batch.keys)
        return rows if there is None else rows.picked(there)

    def picked(self, there: Ints) -> KeptRows:
        times = None if self.times is None else self.times[there]
        keys = [pc.take(key, there) for key in self.keys]
        return KeptRows(self.values[there], times, self.clock.picked(there), keys)


def picked_keys(keys: KeyedRows, there: Ints) -> KeyedRows:
    """The keys of some rows; codes without a row are dropped, as the engine needs it."""
    codes, inverse = np.unique(keys.codes[there], return_inverse=True)
    return KeyedRows(inverse.astype(keys.codes.dtype), keys.slots[codes])


def scatter(fields: Floats, there: Ints, rows: int) -> Floats:
    """The new fields of all rows, from those of the rows at `there`; the others are blank."""
    out = np.full((fields.shape[1], rows), np.nan).T
    out[there] = fields
    return out


@dataclass(frozen=True)
class RowsBySeries:
    """The rows of a batch sorted by series. rows: their indexes; first: where each series begins in these;
    slots: the series' permanent numbers."""

    rows: Ints
    first: Ints
    slots: Ints

    @property
    def last(self) -> Ints:
        return np.append(self.first[1:], len(self.rows)) - 1

    def before(self, values: NDArray[Any], carried: NDArray[Any]) -> NDArray[Any]:
        """The value before each of the sorted values; before the first of a series, `carried` (by slot)."""
        out = np.empty_like(values)
        out[1:] = values[:-1]
        out[self.first] = carried[self.slots]
        return out


def rows_by_series(keys: KeyedRows | None, rows: int) -> RowsBySeries:
    """Sort the rows of a batch by key; without keys they are one series."""
    if keys is None:
        return RowsBySeries(np.arange(rows), np.zeros(1, np.int64), np.zeros(1, np.int64))
    codes = keys.codes[keys.order]
    first = np.flatnonzero(np.append(True, codes[1:] != codes[:-1]))
    return RowsBySeries(keys.order, first, keys.slots[codes[first]])


def late(
    values: NDArray[Any], groups: RowsBySeries, last: NDArray[Any], started: Bools, *, afresh: bool
) -> Bools:
    """Which of the sorted values are less than the greatest one before in their series.

    afresh: less than the value just before, because the series begins again with each late one. last: by
    slot, the greatest value of earlier rows, if `started`.
    """
    carried = np.where(started[groups.slots], last[groups.slots], values[groups.first])
    by_slot = last.copy()
    by_slot[groups.slots] = carried
    back: Bools = values < groups.before(values, by_slot)
    if afresh or not back.any():
        return back
    return values < groups.before(_greatest(values, groups, carried), by_slot)


def _greatest(values: NDArray[Any], groups: RowsBySeries, carried: NDArray[Any]) -> NDArray[Any]:
    """The running maximum of each series, `carried` included."""
    values = values.copy()
    values[groups.first] = np.maximum(values[groups.first], carried)
    # As ranks, raised from series to series, so that one running maximum serves all of them.
    found, ranks = np.unique(values, return_inverse=True)
    lift = np.repeat(np.arange(len(groups.first)) * len(found), np.diff(groups.first, append=len(values)))
    highest: NDArray[Any] = found[np.maximum.accumulate(ranks + lift) - lift]
    return highest


def second_readings(times: Ints, later: Ints, groups: RowsBySeries, known: Known) -> Bools:
    """Which of the sorted times mean the second of two equal wall-clock hours.

    times: nanoseconds, taken as the first hour. later: how much later the second one is; 0 if there is only
    one. From where the clock goes back or repeats within such an hour, the second one is meant until it is
    over.
    """
    twice = later != 0
    previous = groups.before(times, known.times)
    hour_before = groups.before(twice.astype(np.int8), (known.reading > OUTSIDE).astype(np.int8)) > 0
    # The rows of one hour: all within its length, and other such hours are months away.
    goes_on = twice & hour_before & (np.abs(times - previous) < later)
    again = twice & (times <= previous)
    again[groups.first] |= goes_on[groups.first] & (known.reading[groups.slots] == SECOND)
    begins = ~goes_on
    begins[groups.first] = True
    begin = np.maximum.accumulate(np.where(begins, np.arange(len(times)), 0))
    so_far = np.cumsum(again)
    return np.asarray(twice & (so_far > (so_far - again)[begin]))


@dataclass
class Known:
    """What is remembered of each series, by slot.

    last: its greatest order (with `--late restart` its last one), if `started`. times: of its last row, taken
    as the first of two equal hours. reading: whether that row was in the first or second of two equal hours,
    or `OUTSIDE` of such.
    """

    last: NDArray[Any]
    started: Bools
    times: Ints
    reading: NDArray[np.int8]

    @classmethod
    def nothing(cls, of_times: bool) -> Known:
        kind = np.int64 if of_times else np.float64
        nothing = np.empty(0, np.int64)
        return cls(nothing.astype(kind), nothing.astype(bool), nothing, nothing.astype(np.int8))

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"last": self.last, "started": self.started, "times": self.times, "reading": self.reading}

    def grow(self, slots: int) -> None:
        """Make place for so many series."""
        if (more := slots - len(self.last)) > 0:
            self.last = np.append(self.last, np.zeros(more, self.last.dtype))
            self.started = np.append(self.started, np.zeros(more, bool))
            self.times = np.append(self.times, np.full(more, NEVER))
            self.reading = np.append(self.reading, np.zeros(more, np.int8))


@dataclass(frozen=True)
class Looked:
    """What is known of rows before they are folded. times: the ones that are meant. late: which rows go
    back; None: none. after: stores the memory of these rows."""

    times: Ints | None
    late: Bools | None
    after: Callable[[], None]

    def accept(self) -> None:
        """Remember these rows: they have been folded in."""
        self.after()


@dataclass(frozen=True)
class Admitted:
    """Rows of a batch that are to be folded.

    there: their indexes in the batch; None: all. late: indexes of the rows that go back. restarts: (rows,)
    bool, where a series begins afresh; None: nowhere.
    """

    rows: KeptRows
    keys: KeyedRows | None
    there: Ints | None
    late: Ints | None
    restarts: Bools | None
    looked: Looked

    def place(self, row: int) -> int:
        """The index in the batch of one of these rows."""
        return row if self.there is None else int(self.there[row])

    def accept(self) -> None:
        """Remember these rows: they have been folded in."""
        self.looked.accept()


class RowOrder:
    """The order of rows, checked against the memory of earlier ones.

    late: what is done about a row that goes back: `error`, `skip` or `restart`. of_times: the order is one of
    times. zoned: times are local to a zone, so that some hours come twice.
    """

    def __init__(self, late: str, *, of_times: bool, zoned: bool) -> None:
        self.late, self.zoned = late, zoned
        self.known = Known.nothing(of_times)

    def admit(self, batch: Batch | KeptRows, keys: KeyTable) -> Admitted:
        """The rows of a batch that are to be folded; only their keys are remembered before `accept`.

        Raises LateError for the first row that goes back by `--order`, if that is an error; the engine checks
        times.
        """
        left_out = batch.clock.left_out
        there = None if left_out is None else np.flatnonzero(~left_out)
        rows = KeptRows.of(batch, there)
        keyed = keys.encode(rows.keys) if rows.keys and rows.count else None
        try:
            looked = self.look(rows.times, rows.clock, keyed, rows.count)
        except LateError as error:
            raise error if there is None else LateError(int(there[error.row])) from None
        rows = replace(rows, times=looked.times)
        if looked.late is None:
            return Admitted(rows, keyed, there, None, None, looked)
        late = np.flatnonzero(looked.late)
        late = late if there is None else there[late]
        if self.late == "restart":
            return Admitted(rows, keyed, there, late, looked.late, looked)
        kept = np.flatnonzero(~looked.late)
        keyed = None if keyed is None else picked_keys(keyed, kept)
        there = kept if there is None else there[kept]
        return Admitted(rows.picked(kept), keyed, there, late, None, looked)

    def look(self, times: Ints | None, clock: Clock, keys: KeyedRows | None, rows: int) -> Looked:
        """Compare rows with each other and with earlier ones. Raises LateError as `admit` does."""
        judged = clock.order is not None or self.late != "error"
        if not rows or not (judged or self.zoned):
            return Looked(times, None, lambda: None)
        groups = rows_by_series(keys, rows)
        known = self.known
        known.grow(int(groups.slots.max()) + 1)
        meant, readings = times, None
        if self.zoned and times is not None:
            meant, readings = self._meant(times, clock.later, groups)
        order = clock.order if clock.order is not None else meant
        values = late_rows = None
        if judged and order is not None:
            values = order[groups.rows]
            late_rows = self._late(values, groups)

        def accept() -> None:
            if readings is not None and times is not None:
                known.times[groups.slots] = times[groups.rows[groups.last]]
                known.reading[groups.slots] = readings[groups.last]
            if values is not None:
                self._remember(values, groups)

        return Looked(meant, late_rows, accept)

    def _meant(self, times: Ints, later: Ints | None, groups: RowsBySeries) -> tuple[Ints, NDArray[np.int8]]:
        """The times that are meant, and for each sorted row, which of two equal hours it is in."""
        readings = np.zeros(len(times), np.int8)
        if later is None:
            return times, readings
        by_series = later[groups.rows]
        second = second_readings(times[groups.rows], by_series, groups, self.known)
        readings[by_series != 0] = FIRST
        readings[second] = SECOND
        out = times.copy()
        out[groups.rows[second]] += by_series[second]
        return out, readings

    def _late(self, values: NDArray[Any], groups: RowsBySeries) -> Bools | None:
        """Which rows go back, in input order; None: none."""
        known = self.known
        found = late(values, groups, known.last, known.started, afresh=self.late == "restart")
        if not found.any():
            return None
        out = np.zeros(len(values), bool)
        out[groups.rows] = found
        if self.late == "error":
            raise LateError(int(out.argmax()))
        return out

    def _remember(self, values: NDArray[Any], groups: RowsBySeries) -> None:
        known, slots = self.known, groups.slots
        newest = values[groups.last]
        if self.late == "skip":
            newest = np.maximum.reduceat(values, groups.first)
            newest = np.where(known.started[slots], np.maximum(newest, known.last[slots]), newest)
        known.last[slots] = newest
        known.started[slots] = True

    def state(self) -> dict[str, NDArray[Any]]:
        """The memory as arrays by name; empty if there is none."""
        return self.known.arrays() if len(self.known.last) else {}

    def restore(self, arrays: Mapping[str, Any]) -> None:
        """Restore what `state` gave. Raises ValueError or KeyError where the arrays don't fit."""
        if not arrays:
            return
        before = self.known.arrays()
        given = {name: np.asarray(arrays[name]) for name in before}
        for name, array in given.items():
            if array.dtype != before[name].dtype or array.shape != given["last"].shape or array.ndim != 1:
                raise ValueError(f"order.{name}")
        self.known = Known(**{name: array.copy() for name, array in given.items()})


@contextmanager
def admitting(order: RowOrder, rows: Batch | KeptRows, keys: KeyTable) -> Iterator[Admitted]:
    """The rows to be folded by the block; they are remembered when it ends.

    Raises LateError, also for a time that the engine finds going backwards; then nothing is remembered.
    """
    admitted = order.admit(rows, keys)
    try:
        yield admitted
    except BackwardsTimeError as error:
        raise LateError(admitted.place(error.row)) from None
    admitted.accept()
