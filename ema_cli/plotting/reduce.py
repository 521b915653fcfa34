"""Long series made short for drawing, so that the picture is the one that every row would give.

The axis is cut into buckets, narrower than a pixel. Of each series a bucket keeps its first, last, least and
greatest value, each at its place, and a blank row before the first and after the last value if there is one.
Buckets are 2^k wide and begin at multiples of that, so two of them make one of the next size; and that keeps
of what they have kept the same as it would keep of all their rows. So the result depends on the rows alone,
not on the batches in which they came.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ema_cli.formats.base import Floats

Mask = NDArray[np.bool_]
Along = NDArray[Any]  # int64 or float64
# With at most this many rows a bucket, all rows are drawn: a bucket may keep as many itself.
ROWS_A_BUCKET = 4
# Most batches that wait to be joined: a pipe may give one row at a time.
MOST_WAITING = 1024


@dataclass(frozen=True)
class Reduced:
    """Rows to draw. x: (n,) int64 or float64, ascending; values: (n, series) float64, NaN where blank;
    carried: (n, …) float64, what goes along with the rows; shift: buckets are 2^shift wide, None where every
    row is here. lonely: (series,) whether most values stand alone between blank rows, as in a log that fills
    a column now and then. rows: how many there were.
    """

    x: Along
    values: Floats
    carried: Floats
    shift: int | None
    lonely: Mask
    rows: int

    def needed(self, columns: list[int]) -> Any:
        """The rows that these series need, as an index, without those kept for others."""
        if self.shift is None or not len(self.x):
            return slice(None)
        return np.flatnonzero(keep(self.x, self.values[:, columns], self.shift))


class Reducer:
    """Holds a bounded number of rows.

    buckets: the most there are, 2 or more, and may be lowered between additions; once there are more rows
    than fit, at least half as many. carried: the last so many columns go along and are not looked at.
    """

    def __init__(self, series: int, buckets: int, carried: int = 0) -> None:
        self.series, self.buckets = series, buckets
        self.x: list[Along] = []
        self.values: list[Floats] = []
        self.empty = np.empty((0, series + carried))
        self.rows = self.waiting = 0
        # Where the rows begin and end: the last ones may be blank and not be kept.
        self.first: Any = 0
        self.last: Any = 0
        self.shift: int | None = None
        self._filled = np.zeros(series, np.int64)
        self._runs = np.zeros(series, np.int64)
        self._last = np.zeros(series, bool)

    @property
    def limit(self) -> int:
        """The most rows that are all kept."""
        return ROWS_A_BUCKET * self.buckets

    def add(self, x: Along, values: Floats) -> None:
        """More rows. x: (n,), not less than any before. values: (n, series + carried); both are kept, not
        copied."""
        if not len(x):
            return
        self._count(values[:, : self.series])
        self.first, self.last = (self.first if self.rows else x[0].item()), x[-1].item()
        self.x.append(x)
        self.values.append(values)
        self.rows += len(x)
        self.waiting += len(x)
        if self.waiting > self.limit:
            self._fold()
        elif len(self.x) > MOST_WAITING:
            self._join()

    def result(self) -> Reduced:
        """What to draw."""
        if self.rows > self.limit:
            self._fold()
        self._join()
        x, values = self.x[0], self.values[0]
        lonely = 2 * self._runs > self._filled
        return Reduced(x, values[:, : self.series], values[:, self.series :], self.shift, lonely, self.rows)

    def _join(self) -> None:
        self.x = [np.concatenate(self.x)] if self.x else [np.empty(0, np.int64)]
        self.values = [np.concatenate([self.empty, *self.values])]

    def _fold(self) -> None:
        self._join()
        (x,), (values,) = self.x, self.values
        self.shift = shift_for(self.first, self.last, self.buckets)
        kept = keep(x, values[:, : self.series], self.shift)
        self.x, self.values, self.waiting = [x[kept]], [values[kept]], 0

    def _count(self, values: Floats) -> None:
        """Count the values of each series and the runs that they form."""
        there = ~np.isnan(values)
        before = np.concatenate((self._last[np.newaxis], there[:-1]))
        self._filled += np.count_nonzero(there, axis=0)
        self._runs += np.count_nonzero(there & ~before, axis=0)
        self._last = there[-1]


def shift_for(first: float, last: float, buckets: int) -> int:
    """The least k for which buckets 2^k wide cover first to last with no more than so many, 2 or more: those
    on either side of zero never become one. Whole numbers have buckets no narrower than 1."""
    if isinstance(first, int) and isinstance(last, int):
        shift = 0
        while (last >> shift) - (first >> shift) >= buckets:
            shift += 1
        return shift
    width = (last / buckets - first / buckets) or math.ulp(max(abs(first), 1e-280))
    shift = math.frexp(width)[1] - 1
    while math.floor(math.ldexp(last, -shift)) - math.floor(math.ldexp(first, -shift)) >= buckets:
        shift += 1
    return shift


def bucket_of(x: Along, shift: int) -> Along:
    """Which bucket, 2^shift wide, each x is in."""
    if x.dtype.kind == "i":
        ints: Along = x >> shift
        return ints
    floats: Along = np.floor(np.ldexp(x, -shift))
    return floats


def keep(x: Along, values: Floats, shift: int) -> Mask:
    """The rows, (n,) bool, that buckets 2^shift wide keep of x, (n,) ascending, and values, (n, series)."""
    starts = np.concatenate(([0], np.flatnonzero(np.diff(bucket_of(x, shift))) + 1))
    kept = np.zeros(len(x), bool)
    for column in values.T:
        for rows in _kept_rows(np.ascontiguousarray(column), starts):
            kept[rows] = True
    return kept


def _kept_rows(values: Floats, starts: NDArray[np.intp]) -> list[NDArray[Any]]:
    """The rows that one series needs of each bucket; the buckets begin at `starts`."""
    rows = len(values)
    row = np.arange(rows)
    ends = np.append(starts[1:], rows)
    bucket = np.repeat(np.arange(len(starts)), ends - starts)
    there = ~np.isnan(values)
    first = np.minimum.reduceat(np.where(there, row, rows), starts)
    last = np.maximum.reduceat(np.where(there, row, -1), starts)
    extremes = []
    for extreme in (np.fmin, np.fmax):
        reached = values == extreme.reduceat(values, starts)[bucket]
        extremes.append(np.minimum.reduceat(np.where(reached, row, rows), starts))
    blank_before = starts[~there[starts]]
    blank_after = (last + 1)[(last >= 0) & (last + 1 < ends)]
    some = first < rows
    return [first[some], last[some], *(where[some] for where in extremes), blank_before, blank_after]
