"""Times of a wall clock to instants, by a zone of the IANA database.

Where clocks were put back, an hour came twice; the first reading is given, and how much later the second is.
Which of them a row means is known from the rows before it: see `run/order.py`.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import numpy as np
from numpy.typing import NDArray

from ema_cli.errors import OptionError
from ema_cli.times.grammar import DAY, LIMIT, SECOND, Bools, Ints

_UTC = datetime.UTC
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=_UTC)
# Clocks are not put forward and back again within this many seconds.
STEP = 6 * 3600


@dataclass(frozen=True)
class Instants:
    """The instants of local times. nanoseconds: taken as the first of two equal hours. later: how much later
    the second one is, 0 if there is none. lost: times that no clock showed."""

    nanoseconds: Ints
    later: Ints
    lost: Bools


@dataclass(frozen=True)
class _Changes:
    """When clocks were changed. begin, end: local seconds that came twice or not at all, of each change;
    offsets: seconds east of UTC before the first change and after each."""

    begin: Ints
    end: Ints
    offsets: Ints


class Zone:
    """A zone by its name, such as Europe/Berlin. Raises OptionError where there is none of that name."""

    def __init__(self, name: str) -> None:
        self.name = name
        try:
            self.info = ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            known = available_timezones()
            close = get_close_matches(name, known, n=3, cutoff=0.6)
            hint = " or ".join(f"--time-zone {zone}" for zone in close) or "--time-zone Europe/Berlin"
            if not known:
                hint = "pip install tzdata: this system has no time zones"
            raise OptionError(f"--time-zone {name}: no such time zone", hint) from error

    def instants(self, local: Ints) -> Instants:
        """The instants of these nanoseconds of a wall clock. Those beyond int64 are marked as lost."""
        if not local.size:
            return Instants(local, np.zeros_like(local), np.zeros(0, bool))
        if (offset := self._one_offset(int(local.min()), int(local.max()))) is not None:
            return Instants(local - offset, np.zeros_like(local), np.zeros(len(local), bool))
        seconds = local // SECOND
        changes = _changes(self.name, _year(int(seconds.min())), _year(int(seconds.max())))
        at = np.searchsorted(changes.end, seconds, side="right")
        before = changes.offsets[at]
        after = changes.offsets[np.minimum(at + 1, len(changes.offsets) - 1)]
        odd = np.zeros(len(local), bool)
        some = at < len(changes.begin)
        odd[some] = seconds[some] >= changes.begin[at[some]]
        later = np.where(odd & (after < before), (before - after) * SECOND, 0)
        east = before * SECOND
        beyond = ((east < 0) & (local > LIMIT + east)) | ((east > 0) & (local < east - LIMIT))
        lost = (odd & (after > before)) | beyond
        return Instants(np.where(lost, 0, local - np.where(lost, 0, east)), later, lost)

    def _one_offset(self, first: int, last: int) -> int | None:
        """The offset of all local times from first to last, None if clocks were changed in between."""
        if max(-first, last) > LIMIT - DAY:
            return None
        changes = _changes(self.name, _year(first // SECOND), _year(last // SECOND))
        at = int(np.searchsorted(changes.end, first // SECOND, side="right"))
        if at < len(changes.begin) and last // SECOND >= changes.begin[at]:
            return None
        return int(changes.offsets[at]) * SECOND


def _year(second: int) -> int:
    return int(np.datetime64(second, "s").astype("datetime64[Y]").astype(np.int64)) + 1970


@cache
def _changes(name: str, first: int, last: int) -> _Changes:
    """All changes that matter for local times of these years."""
    years = range(first - 1, last + 2)
    found = [change for year in years for change in _changes_of(name, year)]
    if not found:
        offset = _offset(ZoneInfo(name), _start(first))
        return _Changes(np.empty(0, np.int64), np.empty(0, np.int64), np.array([offset]))
    at, before, after = np.array(found, np.int64).T
    return _Changes(
        at + np.minimum(before, after), at + np.maximum(before, after), np.append(before[0], after)
    )


@cache
def _changes_of(name: str, year: int) -> tuple[tuple[int, int, int], ...]:
    """Changes of a year: the second in UTC, and the offsets before and after it."""
    zone, out = ZoneInfo(name), []
    start, end = _start(year), _start(year + 1)
    before = _offset(zone, start)
    for low in range(start, end, STEP):
        high = min(low + STEP, end)
        after = _offset(zone, high)
        if after != before:
            out.append((_bisect(zone, low, high), before, after))
        before = after
    return tuple(out)


def _bisect(zone: ZoneInfo, low: int, high: int) -> int:
    """The first second after `low` that has the offset of `high`."""
    there = _offset(zone, high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _offset(zone, middle) == there else (middle, high)
    return high


def _start(year: int) -> int:
    return int(np.datetime64(f"{year}-01-01", "s").astype(np.int64))


def _offset(zone: ZoneInfo, second: int) -> int:
    """Seconds east of UTC at a second since 1970."""
    moment = (_EPOCH + datetime.timedelta(seconds=second)).astimezone(zone)
    offset = moment.utcoffset()
    return 0 if offset is None else offset.days * 86_400 + offset.seconds


def clock_text(nanoseconds: int) -> str:
    """A time of a wall clock as people write it."""
    stamp: NDArray[np.datetime64] = np.datetime64(nanoseconds, "ns")  # type: ignore[assignment]
    text = str(stamp).replace("T", " ")
    return text.rstrip("0").rstrip(".") if "." in text else text
