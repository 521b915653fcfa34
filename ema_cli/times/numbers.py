"""Times as numbers: of a unit, or Excel's serial days; exact decimals where they are text."""

from __future__ import annotations

import re
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ema_cli.formats import arrow_compute as pc
from ema_cli.times.grammar import DAY, LIMIT, OUT_OF_RANGE, SECOND, TOO_FINE, Bools, Ints, Parsed

NANOSECONDS = {
    "s": SECOND,
    "ms": SECOND // 1_000,
    "us": 1_000,
    "ns": 1,
    "min": 60 * SECOND,
    "h": 3_600 * SECOND,
    "d": DAY,
}
# Excel counts days from 1899-12-30, and has a 29 February 1900 that there was not: its days before are off.
EXCEL_EPOCH, EXCEL_FIRST = 25_569, 61
MILLISECOND = SECOND // 1_000
EXACT = 2.0**53
NO_NUMBER = "not a number, which --time-unit asks for"
NO_SERIAL = "not a number of days, which --time-format excel asks for"
BEFORE_EXCEL = "before March 1900, where Excel's days are one off"

# Places after the point of a unit that is a power of ten of nanoseconds; the others have nine.
_PLACES = {"s": 9, "ms": 6, "us": 3, "ns": 0}
_NUMBER = re.compile(rb"([+-]?)([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?[0-9]+))?")


def is_number(text: bytes) -> bool:
    match = _NUMBER.fullmatch(text)
    return match is not None and bool(match[2] or match[3])


# -- numbers of a column


def read_whole(numbers: Any, nanoseconds: int) -> Parsed:
    """Whole numbers, an Arrow array that may have nulls, of so many nanoseconds each."""
    bad = numbers.is_null().to_numpy(zero_copy_only=False)
    values = numbers.fill_null(0).to_numpy(zero_copy_only=False)
    most = LIMIT // nanoseconds
    # Compared in the column's own type: its limits may be inside int64's, or (uint64) beyond.
    limits = np.iinfo(values.dtype)
    bad = bad | (values > min(most, limits.max)) | (values < max(-most, limits.min))
    whole: Ints = np.where(bad, 0, values).astype(np.int64)
    return _parsed(whole * nanoseconds, bad)


def read_floats(values: NDArray[np.float64], unit: str) -> Parsed:
    """Each float to its nearest nanosecond; NaN is bad.

    Where the nanoseconds have more digits than a float, the float stands for the shortest decimal that reads
    as it: 1700000000.123 is .123 s, as the same number in a CSV file is, not .122999907.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = values * float(NANOSECONDS[unit])
        rounds = np.abs(scaled) < EXACT
    out = np.rint(np.where(rounds, scaled, 0.0)).astype(np.int64)
    bad = ~np.isfinite(values)
    others = np.flatnonzero(~rounds & ~bad)
    if len(others):
        fast = _decimals(pa.array(values[others]).cast(pa.string()), unit)
        if fast is not None:
            out[others] = fast
        for row in others.tolist() if fast is None else ():
            number = _rounded(Decimal(repr(float(values[row]))), unit)
            out[row], bad[row] = (0, True) if number is None else (number, False)
    return _parsed(out, bad)


def read_serial(values: NDArray[np.float64]) -> Parsed:
    """Excel's days, to its own millisecond, as times of a wall clock; NaN is bad."""
    with np.errstate(over="ignore", invalid="ignore"):
        milliseconds = np.rint((values - EXCEL_EPOCH) * (DAY // MILLISECOND))
        sound = (values >= EXCEL_FIRST) & (milliseconds < LIMIT // MILLISECOND)
    out = np.where(sound, milliseconds, 0.0).astype(np.int64) * MILLISECOND
    parsed = _parsed(out, ~sound)
    return Parsed(parsed.nanoseconds, parsed.bad, local=True)


def _parsed(nanoseconds: Ints, bad: Bools) -> Parsed:
    return Parsed(nanoseconds, bad if bad.any() else None)


# -- text


def read_decimals(texts: Any, unit: str) -> Parsed:
    """Texts (an Arrow array, trimmed, without nulls) as exact decimals of a unit."""
    fast = _decimals(texts, unit)
    if fast is not None:
        return Parsed(fast)
    out, bad = np.zeros(len(texts), np.int64), np.zeros(len(texts), bool)
    for row, cell in enumerate(pc.cast(texts, pa.binary()).to_pylist()):
        try:
            out[row] = read_decimal(cell, unit)
        except ValueError:
            bad[row] = True
    return _parsed(out, bad)


def read_serial_texts(texts: Any) -> Parsed:
    """Texts as Excel's days."""
    try:
        numbers = pc.cast(pc.cast(texts, pa.string()), pa.float64()).to_numpy()
        return read_serial(np.where(np.isfinite(numbers), numbers, np.nan))
    except pa.ArrowInvalid:
        cells = pc.cast(texts, pa.binary()).to_pylist()
        return read_serial(np.array([float(cell) if is_number(cell) else np.nan for cell in cells]))


def read_decimal(text: bytes, unit: str) -> int:
    """Nanoseconds from a decimal number of units; raises ValueError that says what is wrong.

    Of minutes, hours and days, which have no last decimal that is whole nanoseconds, the nearest one.
    """
    match = _NUMBER.fullmatch(text)
    if match is None or not (match[2] or match[3]):
        raise ValueError(NO_NUMBER)
    sign, whole, fraction, exponent = (part or b"" for part in match.groups())
    digits = (whole + fraction).lstrip(b"0")
    significant = digits.rstrip(b"0")
    if not significant:
        return 0
    # Compared as text lengths first: an exponent of a million digits is no number to compute with.
    if len(exponent.lstrip(b"+-").lstrip(b"0")) > 9:
        raise ValueError(TOO_FINE if exponent.startswith(b"-") else OUT_OF_RANGE)
    places = _PLACES.get(unit, 9)
    power = int(exponent or 0) - len(fraction) + places + len(digits) - len(significant)
    if power < 0 and unit in _PLACES:
        raise ValueError(TOO_FINE)
    if power + len(significant) > 19:
        raise ValueError(OUT_OF_RANGE)
    factor = 1 if unit in _PLACES else NANOSECONDS[unit] // SECOND
    if power < 0:
        nanoseconds = _nearest(int(significant) * factor, -power)
    else:
        nanoseconds = int(significant) * 10**power * factor
    if nanoseconds > LIMIT:
        raise ValueError(OUT_OF_RANGE)
    return -nanoseconds if sign == b"-" else nanoseconds


def _nearest(number: int, places: int) -> int:
    """number / 10**places, rounded to the nearest; ties to the even one."""
    if places > len(str(number)) + 1:
        return 0
    unit: int = 10**places
    whole, rest = divmod(number, unit)
    half = unit // 2
    return whole + 1 if rest > half or (rest == half and whole % 2) else whole


def _decimals(texts: Any, unit: str) -> Ints | None:
    """All at once; None where Arrow refuses a cell or one is out of range."""
    try:
        decimals = pc.cast(pc.cast(texts, pa.string()), pa.decimal128(38, _PLACES.get(unit, 9)))
    except pa.ArrowInvalid:
        return None
    # Little-endian halves of 128 bits; the upper one must be no more than the lower one's sign.
    halves = np.frombuffer(decimals.buffers()[1], np.int64).reshape(-1, 2)[decimals.offset :][: len(texts)]
    low, high = halves[:, 0], halves[:, 1]
    factor = 1 if unit in _PLACES else NANOSECONDS[unit] // SECOND
    fits = (high == low >> 63) & (low >= -(LIMIT // factor)) & (low <= LIMIT // factor)
    return low * factor if bool(fits.all()) else None


def _rounded(number: Decimal, unit: str) -> int | None:
    """A float's shortest decimal in nanoseconds, None where there is none in range."""
    if number.is_nan() or abs(number) > LIMIT:
        return None
    with localcontext(prec=60):
        nanoseconds = int((number * NANOSECONDS[unit]).to_integral_value(ROUND_HALF_EVEN))
    return nanoseconds if abs(nanoseconds) <= LIMIT else None
