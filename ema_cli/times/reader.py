"""A column of times of any type to nanoseconds: `read_times`, which all others call."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import pyarrow as pa

from ema_cli.errors import OptionError
from ema_cli.formats import arrow_compute as pc
from ema_cli.times import hints, numbers
from ema_cli.times.form import TimeForm
from ema_cli.times.grammar import (
    DAY,
    ISO,
    OUT_OF_RANGE,
    Bools,
    Ints,
    Parsed,
    compile_format,
    read_cell,
    read_texts,
)
from ema_cli.times.numbers import NANOSECONDS
from ema_cli.times.zones import Zone, clock_text

EXCEL = "excel"
SPACES = " \t"
NOT_A_TIME = "not a time such as 2024-01-31 or 2024-01-31T06:30:00.5Z"
NO_UNIT = "a number, and nothing says whether of seconds or of what"
_ENDS_IN_ZONE = re.compile(rb"(?:Z|[ T][^ T]*[+-][0-9:]+)$")
# Before version 23 Arrow turns years that nanoseconds can't count into others, without a word.
WRAPS = int(pa.__version__.split(".")[0]) < 23


@dataclass(frozen=True)
class Times:
    """nanoseconds: since 1970-01-01 UTC, of each row. unread: rows without a time, to be left out; None where
    all have one. later: in the hour that comes twice, how much later the second reading is, else 0; None
    where there is no such row. texts: says what stands in a row. wall: nanoseconds of the clocks that times
    name no zone of, where those are not UTC. local: which name none, or whether all do."""

    nanoseconds: Ints
    unread: Bools | None = None
    later: Ints | None = None
    texts: Callable[[int], str] = str
    wall: Ints | None = None
    local: bool | Bools = False


class BadTimeError(ValueError):
    """A cell that is no time. `row` counts from 0 in the array; `text` is the cell; `hint` what to try."""

    def __init__(self, row: int, text: str, problem: str, hint: str = "") -> None:
        super().__init__(f"row {row}: {text!r} is {problem}")
        self.row, self.text, self.problem, self.hint = row, text, problem, hint

    @property
    def said(self) -> str:
        """What is wrong, without the row, which counts within one array only."""
        return f"{self.text!r} is {self.problem}" if self.text else f"the time is {self.problem}"


def check_form(form: TimeForm) -> None:
    """Raise OptionError for options for times that are unknown or contradict each other."""
    if form.unit is not None and form.format is not None:
        raise OptionError("--time-unit is of numbers, --time-format of text", "one of the two")
    if form.unit is not None and form.zone is not None:
        problem = "--time-zone is of times of day; numbers of a --time-unit count from 1970-01-01 UTC"
        raise OptionError(problem, "one of the two")
    if form.format is not None and form.format != EXCEL:
        _grammar(form.format)
    if form.zone is not None:
        _zone(form.zone)


def to_nanoseconds(column: Any, unit: str | None) -> Ints:
    """(n,) int64 nanoseconds since the epoch from an Arrow array of n times, as `read_times` reads them."""
    return read_times([column], TimeForm(unit)).nanoseconds


def read_times(
    columns: Sequence[Any],
    form: TimeForm,
    invalid: str = "error",
    spare: Callable[[], Bools] | None = None,
    is_missing: Callable[[bytes], bool] = (lambda cell: not cell),
) -> Times:
    """Times from one Arrow array, or from two that are date and time of day.

    Text (spaces round it are ignored) is ISO 8601 or of the form's format, UTC or of the form's zone where it
    names none; with a unit it is an exact decimal number of them. Timestamps, dates and durations know their
    own unit. Ints, floats and decimals need one: a float is rounded to the nearest nanosecond.

    invalid: `missing`: what is no time is marked as unread. spare: says which rows need no time, (n,) bool:
    a missing one there is no error but marked as unread; asked only where one is. is_missing: tells further
    spellings of missing.
    Raises BadTimeError for the first cell that is missing, no time, out of int64's range or finer than a
    nanosecond.
    """
    column = _as_one(columns)
    if not len(column):
        return Times(np.empty(0, np.int64))
    times, bad = _in_zone(_parsed(column, form), form.zone)
    if bad is None:
        return replace(times, texts=partial(text_of, column))
    if invalid == "error":
        wrong = bad if spare is None else bad & ~_says_missing(column, bad & spare(), is_missing)
        if wrong.any():
            raise explain(column, int(wrong.argmax()), form)
    nanoseconds = np.where(bad, 0, times.nanoseconds)
    return replace(times, nanoseconds=nanoseconds, unread=bad, texts=partial(text_of, column))


def _as_one(columns: Sequence[Any]) -> Any:
    """The column, decoded; for two columns, their texts joined by a space."""
    plain = [one.dictionary_decode() if pa.types.is_dictionary(one.type) else one for one in columns]
    if len(plain) == 1:
        return plain[0]
    date, clock = (_trimmed(one if _is_text(one.type) else pc.cast(one, pa.string())) for one in plain)
    joined = pc.join(pc.cast(date, pa.binary()), pa.scalar(b" ", pa.binary()), pc.cast(clock, pa.binary()))
    # A day without a time of day is no time, and the other way round.
    empty = _empty(date) | _empty(clock)
    if not empty.any():
        return joined
    whole = np.where(empty, -1, np.arange(len(joined)))
    return pc.take(joined, np.ma.masked_equal(whole, -1))


def _is_text(kind: Any) -> bool:
    kinds = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view")
    return str(kind) in kinds or bool(pa.types.is_fixed_size_binary(kind))


def _binary(column: Any) -> Any:
    return column if column.type == pa.binary() else pc.cast(column, pa.binary())


def _trimmed(column: Any) -> Any:
    """Text of any type without the spaces round it."""
    if pa.types.is_fixed_size_binary(column.type):
        column = _binary(column)
    # Trimmed unasked: that costs a tenth of finding out by a refusal, which Arrow words for every cell.
    return pc.trim(pc.cast(column, pa.string(), safe=False), SPACES)


def _empty(texts: Any) -> Bools:
    lengths = pc.lengths(texts).to_numpy(zero_copy_only=False)  # NaN where null
    return ~np.asarray(lengths > 0)


def _missing(column: Any) -> Bools:
    """Which cells are empty."""
    if _is_text(column.type):
        return _empty(_trimmed(column))
    null: Bools = column.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_floating(column.type):
        null = null | np.isnan(column.to_numpy(zero_copy_only=False))
    return null


def _says_missing(column: Any, rows: Bools, is_missing: Callable[[bytes], bool]) -> Bools:
    """Which of these rows are empty or say that they are missing."""
    missing = _missing(column) & rows
    if _is_text(column.type):
        for row in np.flatnonzero(rows & ~missing).tolist():
            missing[row] = is_missing(text_of(column, row).encode())
    return missing


# -- by type


def _parsed(column: Any, form: TimeForm) -> Parsed:
    """All cells; those that can't be read are marked."""
    kind, own_unit = column.type, _own_unit(column.type)
    if _is_text(kind):
        return _text(column, form)
    if form.format is None and own_unit is not None:
        whole = pc.cast(column, pa.int32() if pa.types.is_date32(kind) else pa.int64())
        read = numbers.read_whole(whole, own_unit)
        return Parsed(read.nanoseconds, read.bad, not pa.types.is_duration(kind) and not _names_zone(kind))
    if not _is_number(kind):
        return _nothing(column)
    return _number(column, form)


def _number(column: Any, form: TimeForm) -> Parsed:
    kind = column.type
    if form.format == EXCEL:
        return numbers.read_serial(_floats(column))
    if (form.format is not None and pa.types.is_integer(kind)) or (form.unit and pa.types.is_decimal(kind)):
        return _text(pc.cast(column, pa.string()), form)
    if form.unit is None:
        return _nothing(column)
    if pa.types.is_integer(kind):
        return numbers.read_whole(column, NANOSECONDS[form.unit])
    return numbers.read_floats(_floats(column), form.unit)


def _nothing(column: Any) -> Parsed:
    return Parsed(np.zeros(len(column), np.int64), np.ones(len(column), bool))


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _names_zone(kind: Any) -> bool:
    return bool(pa.types.is_timestamp(kind)) and kind.tz is not None


def _own_unit(kind: Any) -> int | None:
    """The nanoseconds of a type's own unit, None for a type that has none."""
    if pa.types.is_timestamp(kind) or pa.types.is_duration(kind):
        return NANOSECONDS[kind.unit]
    if pa.types.is_date(kind):
        return DAY if pa.types.is_date32(kind) else NANOSECONDS["ms"]
    return None


def _floats(column: Any) -> Any:
    return pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)  # null is NaN


def _text(column: Any, form: TimeForm) -> Parsed:
    """The times of cells of text; the cells that are not empty are read at once."""
    if form.format not in (None, EXCEL):
        return read_texts(_binary(column), _grammar(str(form.format)))
    texts = _trimmed(column)
    empty = _empty(texts)
    if not empty.any():
        return _filled(texts, form)
    out = _nothing(column)
    filled = np.flatnonzero(~empty)
    if not filled.size:
        return out
    read = _filled(pc.take(texts, filled), form)
    assert out.bad is not None
    local = np.zeros(len(column), bool)
    out.nanoseconds[filled], out.bad[filled] = read.nanoseconds, False if read.bad is None else read.bad
    local[filled] = read.local
    return Parsed(out.nanoseconds, out.bad, local)


def _filled(texts: Any, form: TimeForm) -> Parsed:
    if form.unit is not None:
        return numbers.read_decimals(texts, form.unit)
    if form.format == EXCEL:
        return numbers.read_serial_texts(texts)
    try:
        return _iso_by_arrow(texts)
    except pa.ArrowInvalid:
        return read_texts(pc.cast(texts, pa.binary()), ISO)


def _iso_by_arrow(texts: Any) -> Parsed:
    """Raises ArrowInvalid unless all cells are ISO 8601 as Arrow reads it, and all or none have a zone."""
    if WRAPS and not _within_range(texts):
        raise pa.ArrowInvalid(OUT_OF_RANGE)
    zoned = _ENDS_IN_ZONE.search(pc.cast(texts[:1], pa.binary())[0].as_py()) is not None
    stamps = pc.cast(texts, pa.timestamp("ns", "UTC" if zoned else None))
    return Parsed(pc.cast(stamps, pa.int64()).to_numpy(), local=not zoned)


def _within_range(texts: Any) -> bool:
    """Whether all cells are of years that nanoseconds surely count."""
    first, last = pc.ends(texts)
    return first >= b"1678" and last < b"2262"


@cache
def _grammar(form: str) -> re.Pattern[bytes]:
    return compile_format(form)


@cache
def _zone(name: str) -> Zone:
    return Zone(name)


def _in_zone(parsed: Parsed, zone: str | None) -> tuple[Times, Bools | None]:
    """The instants, and which rows have none."""
    bad = parsed.bad if parsed.bad is not None and parsed.bad.any() else None
    if zone is None or not np.any(parsed.local):
        return Times(parsed.nanoseconds, local=parsed.local), bad
    which = np.broadcast_to(parsed.local, len(parsed.nanoseconds))
    which = which if bad is None else which & ~bad
    found = _zone(zone).instants(parsed.nanoseconds[which])
    out = parsed.nanoseconds.copy()
    out[which] = found.nanoseconds
    later = None
    if found.later.any():
        later = np.zeros(len(out), np.int64)
        later[which] = found.later
    if found.lost.any():
        bad = np.zeros(len(out), bool) if bad is None else bad.copy()
        bad[which] |= found.lost
    return Times(out, None, later, wall=parsed.nanoseconds, local=parsed.local), bad


# -- what is wrong


def explain(column: Any, row: int, form: TimeForm) -> BadTimeError:
    """Why a row has no time, and what to try."""
    cell, kind = column.slice(row, 1), column.type
    text = text_of(column, row)
    if bool(_missing(cell)[0]):
        return BadTimeError(row, "", "missing", hints.LEAVE_OUT)
    if _is_text(kind) or (_is_number(kind) and (form.unit or form.format)):
        return BadTimeError(row, text, *_why(text, form))
    if _is_number(kind):
        return BadTimeError(row, text, NO_UNIT, hints.number_hint(text))
    if _own_unit(kind) is None or form.format is not None:
        what = "which holds no times" if form.format is None else "which --time-format does not read"
        return BadTimeError(row, text, f"of type {kind}, {what}")
    return BadTimeError(row, text, *_lost(column.slice(row, 1), form))


def text_of(column: Any, row: int) -> str:
    """A cell as a message shows it: by Arrow, since Python's dates end at the year 9999."""
    cell = column.slice(row, 1)
    try:
        if _is_text(cell.type):
            return str(_binary(_trimmed(cell))[0].as_py().decode("utf-8", "backslashreplace"))
        return str(pc.cast(cell, pa.string())[0].as_py() or "")
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid, AttributeError):
        return str(cell.type)


def _lost(cell: Any, form: TimeForm) -> tuple[str, str]:
    read = _parsed(cell, form)
    if read.bad is not None and read.bad.any():
        return OUT_OF_RANGE, ""
    return _no_such_hour(int(read.nanoseconds[0]), form)


def _no_such_hour(local: int, form: TimeForm) -> tuple[str, str]:
    problem = f"a time that no clock showed in {form.zone}: they were put forward past {clock_text(local)}"
    return problem, "another --time-zone, or none if these times are UTC"


def _why(text: str, form: TimeForm) -> tuple[str, str]:
    """What is wrong with a text or a number, and a hint."""
    cell = text.encode()
    if form.format == EXCEL:
        if not numbers.is_number(cell):
            return numbers.NO_SERIAL, hints.text_hint(text)
        return (numbers.BEFORE_EXCEL if float(cell) < numbers.EXCEL_FIRST else OUT_OF_RANGE), ""
    if form.unit is not None:
        return _why_no_decimal(text, form.unit)
    match = (ISO if form.format is None else _grammar(form.format)).fullmatch(cell)
    if match is not None:
        return _why_none(match, form)
    if form.format is None and numbers.is_number(cell):
        return NO_UNIT, hints.number_hint(text)
    problem = NOT_A_TIME if form.format is None else f"not of the form {form.format}"
    return problem, hints.text_hint(text)


def _why_none(match: re.Match[bytes], form: TimeForm) -> tuple[str, str]:
    try:
        return _no_such_hour(read_cell(match)[0], form)
    except ValueError as error:
        # As MySQL writes a missing one: 0000-00-00.
        return str(error), "" if match[0].strip(b"0-:T. ") else hints.LEAVE_OUT


def _why_no_decimal(text: str, unit: str) -> tuple[str, str]:
    try:
        numbers.read_decimal(text.encode(), unit)
    except ValueError as error:
        return str(error), hints.text_hint(text) if str(error) == numbers.NO_NUMBER else ""
    return OUT_OF_RANGE, ""
