"""Times of every kind to int64 nanoseconds since 1970-01-01 UTC, exactly.

Uniform text goes through Arrow in one pass. What Arrow refuses is read cell by cell, by a grammar that
contains Arrow's: which way was taken never shows in the result.
"""

from __future__ import annotations

import datetime
import math
import re
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ema_cli.formats import arrow_compute as pc

Ints = NDArray[np.int64]

NANOSECONDS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
DAY = 86_400 * NANOSECONDS["s"]
# The least int64 is NumPy's "not a time", so no time is there.
LIMIT = (1 << 63) - 1
SPACES = " \t"

_DIGITS = {"s": 9, "ms": 6, "us": 3, "ns": 0}
_EPOCH = datetime.date(1970, 1, 1).toordinal()
_ZONE = rb"(Z|z|UTC|[+-][0-9]{2}(?::?[0-9]{2})?)"
_CLOCK = rb"([0-9]{2})(?::?([0-9]{2})(?::?([0-9]{2})(?:[.,]([0-9]+))?)?)?"
_ISO = re.compile(rb"([0-9]{4})(-?)([0-9]{2})(-?)([0-9]{2})(?:[Tt ]" + _CLOCK + rb"(?: ?" + _ZONE + rb")?)?")
_NUMBER = re.compile(rb"([+-]?)([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?[0-9]+))?")
_ENDS_IN_ZONE = re.compile(rb"(?:Z|[ T][^ T]*[+-][0-9:]+)$")

OUT_OF_RANGE = "outside the years 1677 to 2262 that nanoseconds can count"
TOO_FINE = "finer than a nanosecond"
NOT_A_TIME = "not a time such as 2024-01-31 or 2024-01-31T06:30:00.5Z"
NO_UNIT = "a number, and nothing says whether of seconds or of what"


class BadTimeError(ValueError):
    """A cell that is no time. `row` counts from 0 in the array; `text` is the cell; `hint` what to try."""

    def __init__(self, row: int, text: str, problem: str, hint: str = "") -> None:
        super().__init__(f"row {row}: {text!r} is {problem}")
        self.row, self.text, self.problem, self.hint = row, text, problem, hint


def to_nanoseconds(column: Any, unit: str | None) -> Ints:
    """(n,) int64 nanoseconds since the epoch from an Arrow array of n times.

    Text (spaces round it are ignored) is ISO 8601, UTC where it names no zone; with a unit ('s', 'ms', 'us'
    or 'ns') it is an exact decimal number of them. Timestamps, dates and durations know their own unit.
    Ints, floats and decimals need one: a float is rounded to the nearest nanosecond, a decimal is exact.
    Raises BadTimeError for the first cell that is missing, no time, out of int64's range or finer than a
    nanosecond.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        return to_nanoseconds(column.dictionary_decode(), unit)
    if _is_text(kind):
        return _from_text(column, unit)
    own_unit = _own_unit(kind)
    if own_unit is not None:
        whole = column.cast(pa.int32() if pa.types.is_date32(kind) else pa.int64())
        return _scaled(column, whole, own_unit)
    return _from_numbers(column, unit) if len(column) else np.empty(0, np.int64)


def _own_unit(kind: Any) -> int | None:
    """The nanoseconds of a type's own unit, None for a type that has none."""
    if pa.types.is_timestamp(kind) or pa.types.is_duration(kind):
        return NANOSECONDS[kind.unit]
    if pa.types.is_date(kind):
        return DAY if pa.types.is_date32(kind) else NANOSECONDS["ms"]
    return None


def _is_text(kind: Any) -> bool:
    kinds = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view")
    return str(kind) in kinds or bool(pa.types.is_fixed_size_binary(kind))


def _shown(column: Any, row: int) -> str:
    """A cell as a message shows it: by Arrow, since Python's dates end at the year 9999."""
    try:
        return column[row].cast(pa.string()).as_py() or ""
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return str(column.type)


# -- numbers


def _from_numbers(column: Any, unit: str | None) -> Ints:
    kind = column.type
    if pa.types.is_null(kind):
        raise BadTimeError(0, "", "missing")
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise BadTimeError(0, _shown(column, 0), f"of type {kind}, which holds no times")
    if unit is None:
        raise BadTimeError(0, _shown(column, 0), NO_UNIT, "--time-unit s")
    if pa.types.is_integer(kind):
        return _scaled(column, column, NANOSECONDS[unit])
    if pa.types.is_decimal(kind):
        return _from_text(column.cast(pa.string()), unit)
    return _from_floats(column.cast(pa.float64()), unit)


def _scaled(column: Any, numbers: Any, nanoseconds: int) -> Ints:
    """Whole numbers of so many nanoseconds each; `column` is what they are shown as."""
    if numbers.null_count:
        _refuse_out_of_range(column, numbers.slice(0, _first_null(numbers)), nanoseconds)
        raise BadTimeError(_first_null(numbers), "", "missing")
    _refuse_out_of_range(column, numbers, nanoseconds)
    whole: Ints = numbers.to_numpy(zero_copy_only=False).astype(np.int64)
    return whole * nanoseconds


def _refuse_out_of_range(column: Any, numbers: Any, nanoseconds: int) -> None:
    values = numbers.to_numpy(zero_copy_only=False)
    most = LIMIT // nanoseconds
    # Compared in the column's own type: its limits may be inside int64's, or (uint64) beyond.
    limits = np.iinfo(values.dtype)
    beyond = (values > min(most, limits.max)) | (values < max(-most, limits.min))
    if beyond.any():
        row = int(beyond.argmax())
        raise BadTimeError(row, _shown(column, row), OUT_OF_RANGE)


def _first_null(column: Any) -> int:
    return int(pc.index(column.is_null(), True).as_py())


def _from_floats(column: Any, unit: str) -> Ints:
    """Each float to its nearest nanosecond.

    Where the nanoseconds have more digits than a float, the float stands for the shortest decimal that reads
    as it: 1700000000.123 is .123 s, as the same number in a CSV file is, not .122999907.
    """
    values: NDArray[np.float64] = column.to_numpy(zero_copy_only=False)  # null is NaN
    with np.errstate(over="ignore"):
        scaled = values * float(NANOSECONDS[unit])
    rounds = np.abs(scaled) < 2.0**53
    out = np.rint(np.where(rounds, scaled, 0.0)).astype(np.int64)
    others = np.flatnonzero(~rounds)
    if len(others):
        fast = _by_arrow(pa.array(values[others]).cast(pa.string()), unit)
        if fast is None:
            fast = np.array([_float(float(values[row]), unit, row) for row in others.tolist()], np.int64)
        out[others] = fast
    return out


def _float(value: float, unit: str, row: int) -> int:
    """One float, by its shortest decimal; Arrow refuses those with more digits than nanoseconds have."""
    if math.isnan(value):
        raise BadTimeError(row, "", "missing")
    if abs(value) > LIMIT:
        raise BadTimeError(row, repr(value), OUT_OF_RANGE)
    nanoseconds = Decimal(repr(value)).scaleb(_DIGITS[unit]).to_integral_value(ROUND_HALF_EVEN)
    return _in_range(int(nanoseconds), row, repr(value))


def _in_range(nanoseconds: int, row: int, text: str) -> int:
    if abs(nanoseconds) > LIMIT:
        raise BadTimeError(row, text, OUT_OF_RANGE)
    return nanoseconds


# -- text


def _from_text(column: Any, unit: str | None) -> Ints:
    fast = _by_arrow(column, unit)
    if fast is not None:
        return fast
    out = np.empty(len(column), np.int64)
    for row, cell in enumerate(column.cast(pa.large_binary()).to_pylist()):
        out[row] = _cell(cell, unit, row)
    return out


def _by_arrow(column: Any, unit: str | None) -> Ints | None:
    """The whole column at once, None where Arrow refuses it."""
    if column.null_count or not len(column):
        return None if len(column) else np.empty(0, np.int64)
    try:
        # Trimmed unasked: that costs a tenth of finding out by a refusal, which Arrow words for every cell.
        texts = pc.trim(pc.cast(column, pa.string()), SPACES)
        return _iso_by_arrow(texts) if unit is None else _decimals_by_arrow(texts, unit)
    except pa.ArrowInvalid:
        return None


def _iso_by_arrow(texts: Any) -> Ints:
    """Raises ArrowInvalid unless all cells are ISO 8601 as Arrow reads it, and all or none have a zone."""
    zoned = _ENDS_IN_ZONE.search(texts[0].as_py().encode()) is not None
    stamps = pc.cast(texts, pa.timestamp("ns", "UTC" if zoned else None))
    nanoseconds: Ints = pc.cast(stamps, pa.int64()).to_numpy()
    return nanoseconds


def _decimals_by_arrow(texts: Any, unit: str) -> Ints | None:
    """Raises ArrowInvalid unless all cells are numbers; None where one is out of range."""
    decimals = pc.cast(texts, pa.decimal128(38, _DIGITS[unit]))
    # Little-endian halves of 128 bits; the upper one must be no more than the lower one's sign.
    halves = np.frombuffer(decimals.buffers()[1], np.int64).reshape(-1, 2)[decimals.offset :][: len(texts)]
    low, high = halves[:, 0], halves[:, 1]
    fits = (high == low >> 63) & (low >= -LIMIT)
    return np.ascontiguousarray(low) if bool(fits.all()) else None


def _cell(cell: bytes | None, unit: str | None, row: int) -> int:
    """One cell of text in nanoseconds."""
    stripped = b"" if cell is None else cell.strip(SPACES.encode())
    text = stripped.decode("utf-8", "backslashreplace")
    if not stripped:
        raise BadTimeError(row, text, "missing")
    try:
        nanoseconds = _iso(stripped) if unit is None else _decimal(stripped, unit)
    except ValueError as error:
        hint = "--time-unit s" if str(error) == NO_UNIT else ""
        raise BadTimeError(row, text, str(error), hint) from None
    return _in_range(nanoseconds, row, text)


def _iso(text: bytes) -> int:
    """Nanoseconds from ISO 8601 text; raises ValueError that says what is wrong."""
    match = _ISO.fullmatch(text)
    if match is None or match[2] != match[4]:
        raise ValueError(NO_UNIT if _is_number(text) else NOT_A_TIME)
    year, _, month, _, day, hour, minute, second, fraction, zone = match.groups()
    try:
        days = datetime.date(int(year), int(month), int(day)).toordinal() - _EPOCH
    except ValueError:
        raise ValueError("no day of the calendar" if match[2] else NOT_A_TIME) from None
    clock = [int(part or 0) for part in (hour, minute, second)]
    nanoseconds = _fraction(fraction or b"", 9)
    midnight = clock == [24, 0, 0] and not nanoseconds
    if not midnight and (clock[0] > 23 or clock[1] > 59 or clock[2] > 59):
        raise ValueError("no time of the day")
    seconds = clock[0] * 3600 + clock[1] * 60 + clock[2] - _offset(zone)
    return days * DAY + seconds * NANOSECONDS["s"] + nanoseconds


def _offset(zone: bytes | None) -> int:
    """Seconds east of UTC."""
    if zone is None or zone in (b"Z", b"z", b"UTC"):
        return 0
    hours, minutes = int(zone[1:3]), int(zone[3:].lstrip(b":") or 0)
    if hours > 23 or minutes > 59:
        raise ValueError("in no time zone")
    return (-1 if zone[:1] == b"-" else 1) * (hours * 3600 + minutes * 60)


def _fraction(digits: bytes, places: int) -> int:
    """The digits after a point as whole units `places` below it."""
    if digits[places:].strip(b"0"):
        raise ValueError(TOO_FINE)
    return int(digits[:places].ljust(places, b"0") or b"0")


def _is_number(text: bytes) -> bool:
    match = _NUMBER.fullmatch(text)
    return match is not None and bool(match[2] or match[3])


def _decimal(text: bytes, unit: str) -> int:
    """Nanoseconds from a decimal number of units; raises ValueError that says what is wrong."""
    match = _NUMBER.fullmatch(text)
    if match is None or not (match[2] or match[3]):
        raise ValueError("not a number, which --time-unit asks for")
    sign, whole, fraction, exponent = (part or b"" for part in match.groups())
    digits = (whole + fraction).lstrip(b"0")
    significant = digits.rstrip(b"0")
    if not significant:
        return 0
    # Compared as text lengths first: an exponent of a million digits is no number to compute with.
    if len(exponent.lstrip(b"+-").lstrip(b"0")) > 9:
        raise ValueError(TOO_FINE if exponent.startswith(b"-") else OUT_OF_RANGE)
    power = int(exponent or 0) - len(fraction) + _DIGITS[unit] + len(digits) - len(significant)
    if power < 0:
        raise ValueError(TOO_FINE)
    if power + len(significant) > 19:
        raise ValueError(OUT_OF_RANGE)
    nanoseconds: int = int(significant) * 10**power
    return -nanoseconds if sign == b"-" else nanoseconds
