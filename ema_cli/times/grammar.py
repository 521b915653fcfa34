"""Times as text, by a grammar: ISO 8601, or a format of strptime's. English names, whatever the locale.

A grammar is a regular expression whose groups are named after strptime's directives. It reads one cell; for a
whole column each *shape* (the text with every digit alike) is matched once, and what stands at the same
places in all cells of that shape is then read by NumPy. What does not come out well is read cell by cell.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ema_cli.errors import OptionError
from ema_cli.formats import arrow_compute as pc

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

SECOND = 1_000_000_000
DAY = 86_400 * SECOND
# The least int64 is NumPy's "not a time", so no time is there.
LIMIT = (1 << 63) - 1

OUT_OF_RANGE = "outside the years 1677 to 2262 that nanoseconds can count"
TOO_FINE = "finer than a nanosecond"
NO_DAY = "no day of the calendar"
NO_CLOCK = "no time of the day"

MONTHS = b"January February March April May June July August September October November December".split()
WEEKDAYS = b"Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
_EPOCH = datetime.date(1970, 1, 1).toordinal()
_ZONE = rb"Z|z|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2})?"
_DIRECTIVES = {
    "Y": rb"[0-9]{4}",
    "y": rb"[0-9]{2}",
    "m": rb"1[0-2]|0[1-9]|[1-9]",
    "d": rb"3[01]|[12][0-9]|0[1-9]|[1-9]",
    "H": rb"2[0-4]|[01][0-9]|[0-9]",
    "I": rb"1[0-2]|0[1-9]|[1-9]",
    "M": rb"[0-5][0-9]|[0-9]",
    "S": rb"[0-5][0-9]|[0-9]",
    "f": rb"[0-9]+",
    "j": rb"36[0-6]|3[0-5][0-9]|[12][0-9]{2}|0[1-9][0-9]|00[1-9]|[1-9][0-9]|0[1-9]|[1-9]",
    "p": rb"AM|PM|A\.M\.|P\.M\.",
    "b": b"|".join(name[:3] for name in MONTHS),
    "B": b"|".join(MONTHS),
    "a": b"|".join(name[:3] for name in WEEKDAYS),
    "A": b"|".join(WEEKDAYS),
    "z": _ZONE,
    "Z": rb"UTC|GMT|Z",
}
_SAME = {"e": "%d", "h": "%b", "F": "%Y-%m-%d", "T": "%H:%M:%S", "R": "%H:%M", "D": "%m/%d/%y"}
# Directives that are read digit by digit, and the most digits that they take.
_DIGITS = {"Y": 4, "y": 2, "m": 2, "d": 2, "H": 2, "I": 2, "M": 2, "S": 2, "f": 9, "j": 3}
SPACES = b" \t"
# What a space in a format stands for: no-break ones too, as JavaScript writes them before AM and PM.
GAP = rb"(?:[ \t]|\xc2\xa0|\xe2\x80[\x89\xaf])+"
# Longer cells, and columns of more shapes than this, are read one by one.
LONGEST, MOST_SHAPES = 40, 1024
ROUNDS = 3

ISO = re.compile(
    rb"(?P<Y>[0-9]{4})(?P<sep>-?)(?P<m>[0-9]{2})(?P=sep)(?P<d>[0-9]{2})"
    rb"(?:[Tt ](?P<H>[0-9]{2})(?::?(?P<M>[0-9]{2})(?::?(?P<S>[0-9]{2})(?:[.,](?P<f>[0-9]+))?)?)?"
    rb"(?: ?(?P<z>" + _ZONE + rb"))?)?"
)


@dataclass(frozen=True)
class Parsed:
    """Nanoseconds of a column's cells. bad: which could not be read (0 there); None: all could.

    local: which name no zone, so that the nanoseconds are those of a wall clock.
    """

    nanoseconds: Ints
    bad: Bools | None = None
    local: bool | Bools = False


def compile_format(text: str) -> re.Pattern[bytes]:
    """The grammar of a format of strptime's. Raises OptionError for one that can't be followed."""
    option = f"--time-format {text!r}"
    for short, long in _SAME.items():
        text = re.sub(rf"(?<!%)((?:%%)*)%{short}", rf"\g<1>{long}", text)
    pattern, seen = b"", set[str]()
    for piece in re.findall(r"%.?|\s+|[^%\s]+", text.strip()):
        if piece.isspace():
            pattern += GAP
        elif piece == "%%" or piece[0] != "%":
            pattern += re.escape(piece.replace("%%", "%").encode())
        elif piece[1:] not in _DIRECTIVES:
            raise OptionError(
                f"{option}: {piece} is not read", "of strptime's: " + " ".join(f"%{d}" for d in _DIRECTIVES)
            )
        elif piece[1] in seen:
            raise OptionError(f"{option}: {piece} is there twice", "each part of a time once")
        else:
            seen.add(piece[1])
            pattern += b"(?P<" + piece[1].encode() + b">" + _DIRECTIVES[piece[1]] + b")"
    _check_parts(option, seen)
    return re.compile(pattern, re.IGNORECASE)


def _check_parts(option: str, seen: set[str]) -> None:
    """Raise OptionError for parts that leave a time open or say it twice."""
    if not seen:
        raise OptionError(f"{option}: no part of a time is in it", "--time-format '%d.%m.%Y %H:%M'")
    if ("I" in seen) != ("p" in seen):
        raise OptionError(f"{option}: %I and %p belong together", "%I:%M %p, or %H:%M for 24 hours")
    for same in ({"Y", "y"}, {"m", "b", "B", "j"}, {"d", "j"}, {"H", "I"}, {"z", "Z"}):
        if len(same & seen) > 1:
            both = " and ".join(f"%{part}" for part in sorted(same & seen))
            raise OptionError(f"{option}: {both} say the same thing", "one of them")


# -- one cell


def read_cell(match: re.Match[bytes]) -> tuple[int, bool]:
    """Nanoseconds of a cell that a grammar matched, and whether it names its zone.

    What is not there is that of 1900-01-01 00:00, as strptime has it. Raises ValueError that says what is
    wrong.
    """
    part = {name: text for name, text in match.groupdict().items() if text is not None}
    year = int(part["Y"]) if "Y" in part else _century(int(part["y"])) if "y" in part else 1900
    try:
        days = datetime.date(year, _month(part), int(part.get("d", b"1"))).toordinal() - _EPOCH
    except ValueError:
        raise ValueError(NO_DAY) from None
    if "j" in part:
        days += int(part["j"]) - 1
        if datetime.date.fromordinal(days + _EPOCH).year != year:
            raise ValueError(NO_DAY)
    hour = int(part.get("H", b"0"))
    if "I" in part:
        hour = int(part["I"]) % 12 + 12 * (part["p"][:1] in b"pP")
    clock = [hour, int(part.get("M", b"0")), int(part.get("S", b"0"))]
    nanoseconds = fraction(part.get("f", b""), 9)
    if (clock[0] > 23 or clock[1] > 59 or clock[2] > 59) and not (clock == [24, 0, 0] and not nanoseconds):
        raise ValueError(NO_CLOCK)
    zone = part.get("z", part.get("Z"))
    seconds = clock[0] * 3600 + clock[1] * 60 + clock[2] - _offset(zone)
    out = days * DAY + seconds * SECOND + nanoseconds
    if abs(out) > LIMIT:
        raise ValueError(OUT_OF_RANGE)
    return out, zone is not None


def _century(year: int) -> int:
    """A year of two digits as POSIX takes it: 69 to 99 are 1969 to 1999."""
    return year + (1900 if year > 68 else 2000)


def _month(part: dict[str, bytes]) -> int:
    name = part.get("b", part.get("B"))
    if name is None:
        return int(part.get("m", b"1"))
    return 1 + next(k for k, month in enumerate(MONTHS) if month[:3].lower() == name[:3].lower())


def _offset(zone: bytes | None) -> int:
    """Seconds east of UTC."""
    if zone is None or zone[:1] not in b"+-":
        return 0
    hours, minutes = int(zone[1:3]), int(zone[3:].lstrip(b":") or 0)
    if hours > 23 or minutes > 59:
        raise ValueError("in no time zone")
    return (-1 if zone[:1] == b"-" else 1) * (hours * 3600 + minutes * 60)


def fraction(digits: bytes, places: int) -> int:
    """The digits after a point as whole units `places` below it."""
    if digits[places:].strip(b"0"):
        raise ValueError(TOO_FINE)
    return int(digits[:places].ljust(places, b"0") or b"0")


# -- a column


def read_texts(texts: Any, grammar: re.Pattern[bytes]) -> Parsed:
    """The cells of an Arrow binary array, by a grammar; spaces round them are ignored.

    Those that are bad, empty or null are marked.
    """
    count = len(texts)
    out, local, left = np.zeros(count, np.int64), np.zeros(count, bool), np.arange(count)
    letters = _letters(texts) if count and not texts.null_count else None
    for salt in range(ROUNDS if letters is not None else 0):
        if letters is None or not left.size:
            break
        left = _read_shapes(letters, left, salt, grammar, (out, local))
    bad = _read_one_by_one(texts, left, grammar, (out, local)) if left.size else None
    return Parsed(out, bad, local)


def _read_one_by_one(texts: Any, left: Ints, grammar: re.Pattern[bytes], into: tuple[Ints, Bools]) -> Bools:
    """These rows, each distinct text once. Which rows are bad."""
    coded = pc.dictionary_encode(pc.take(texts, left))
    cells = coded.dictionary.to_pylist()
    values, local, sound = (np.zeros(len(cells), kind) for kind in (np.int64, bool, bool))
    for k, cell in enumerate(cells):
        match = None if cell is None else grammar.fullmatch(cell.strip(SPACES))
        if match is None:
            continue
        try:
            values[k], zoned = read_cell(match)
        except ValueError:
            continue
        local[k], sound[k] = not zoned, True
    codes = coded.indices.to_numpy(zero_copy_only=False)
    into[0][left], into[1][left] = values[codes], local[codes]
    bad = np.zeros(len(texts), bool)
    bad[left] = ~sound[codes]
    return bad


def _letters(texts: Any) -> list[NDArray[np.uint8]] | None:
    """The first byte of all cells, the second ones, …, 0 after the end of a cell; None where one is long."""
    _, offsets, data = texts.buffers()
    bounds = np.frombuffer(offsets, np.int32)[texts.offset :][: len(texts) + 1]
    lengths = np.diff(bounds)
    longest = int(lengths.max(initial=0))
    if not 0 < longest <= LONGEST:
        return None
    raw = np.frombuffer(data, np.uint8)
    if int(lengths.min()) == longest:
        cells = raw[bounds[0] : bounds[-1]].reshape(-1, longest)
        return [cells[:, k].copy() for k in range(longest)]
    padded, out = np.append(raw, np.zeros(longest, np.uint8)), []
    for k in range(longest):
        line = padded[bounds[:-1] + k]
        line[lengths <= k] = 0
        out.append(line)
    return out


def _read_shapes(
    letters: Sequence[NDArray[np.uint8]],
    rows: Ints,
    salt: int,
    grammar: re.Pattern[bytes],
    into: tuple[Ints, Bools],
) -> Ints:
    """Read these rows shape by shape; gives those that are still to be read.

    Shapes are told apart by a hash; cells that only share the hash with another shape are left.
    """
    if len(rows) < len(letters[0]):
        letters = [line[rows] for line in letters]
    same = _of_shape(letters, 0)
    if same.all():
        return rows[~_read_shape(letters, grammar, into, rows)]
    mixed = np.zeros(len(rows), np.uint16)
    for line, table in zip(letters, _hashes(salt), strict=False):
        mixed += table[line]
    order = np.argsort(mixed, kind="stable")
    starts = np.flatnonzero(np.diff(mixed[order]))
    if len(starts) > MOST_SHAPES:
        return rows
    done = np.zeros(len(rows), bool)
    letters = [line[order] for line in letters]
    for start, end in pairwise((0, *(starts + 1).tolist(), len(rows))):
        mine = [line[start:end] for line in letters]
        same = _of_shape(mine, 0)
        if not same.all():
            mine = [line[same] for line in mine]
        where = order[start:end][same]
        done[where] = _read_shape(mine, grammar, into, rows[where])
    return rows[~done]


@cache
def _hashes(salt: int) -> NDArray[np.uint16]:
    """For each place in a cell a number for each byte, the same one for all digits."""
    # Mixed by hand (Steele, Lea and Flood's SplitMix64), for `numpy.random` takes long to load.
    mixed = np.arange(LONGEST * 256, dtype=np.uint64) + np.uint64(1 + salt * LONGEST * 256)
    mixed *= np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    tables = (mixed >> np.uint64(48)).astype(np.uint16).reshape(LONGEST, 256)
    tables[:, 49:58] = tables[:, 48:49]
    return tables


def _of_shape(letters: Sequence[NDArray[np.uint8]], row: int) -> Bools:
    """Which cells are of the shape of this one."""
    same = np.ones(len(letters[0]), bool)
    for line in letters:
        byte = line[row]
        same &= line - np.uint8(48) < 10 if 48 <= byte < 58 else line == byte
    return same


def _read_shape(
    letters: Sequence[NDArray[np.uint8]], grammar: re.Pattern[bytes], into: tuple[Ints, Bools], rows: Ints
) -> Bools:
    """Read cells of one shape; which of them could be. The others have to be read one by one."""
    for row in (0, len(rows) - 1):  # should the first be out of range, the last may not be
        cell = bytes(line[row] for line in letters).rstrip(b"\0 \t")
        match = grammar.fullmatch(cell, len(cell) - len(cell.lstrip(SPACES)))
        if match is not None:
            break
    if match is None or not _is_settled(match):
        return np.zeros(len(rows), bool)
    parts = match.groupdict()
    numbers = {
        name: _number(letters, *match.span(name))
        for name in parts
        if name in _DIGITS and parts[name] is not None
    }
    zone = parts.get("z") or b""
    if zone[:1] in (b"+", b"-"):
        start, end = match.span("z")
        numbers["hours"] = _number(letters, start + 1, start + 3)
        numbers["minutes"] = _number(letters, end - 2, end) * (len(zone) > 3)
    days, sound = _days(parts, numbers)
    seconds, clock = _seconds(parts, numbers)
    sound = sound & clock
    nanoseconds = days * np.int64(DAY) + seconds * np.int64(SECOND)
    if "f" in numbers:
        nanoseconds += numbers["f"] * 10 ** (9 - len(match["f"]))
    local = not zone and parts.get("Z") is None
    if sound.all():
        into[0][rows], into[1][rows] = nanoseconds, local
    else:
        into[0][rows[sound]], into[1][rows[sound]] = nanoseconds[sound], local
    return sound


def _is_settled(match: re.Match[bytes]) -> bool:
    """Whether what stands where is the same for all cells of this shape, whatever their digits.

    Digits that touch belong to one part or the other by their values, unless each part has all it can have.
    """
    text, parts = match.string[match.pos :], match.groupdict()
    read = _digits(parts.get("z") or b"")
    for name, cell in parts.items():
        if cell is None or name not in _DIGITS:
            continue
        start, end = match.span(name)
        touches = match.string[max(start - 1, 0) : start].isdigit() or match.string[end : end + 1].isdigit()
        if len(cell) > _DIGITS[name] or (touches and len(cell) < _DIGITS[name]):
            return False
        read += len(cell)
    # Digits of the format itself are not the same in all cells of a shape.
    return 0 < read == _digits(text)


def _digits(text: bytes) -> int:
    return sum(48 <= byte < 58 for byte in text)


def _number(letters: Sequence[NDArray[np.uint8]], start: int, end: int) -> Ints:
    """The number that digits make; two digits at a time, which a byte holds."""
    out = np.zeros(1, np.int32)
    for k in range(end, start, -2):
        pair = letters[k - 1] - np.uint8(48)
        if k - 1 > start:
            pair += (letters[k - 2] - np.uint8(48)) * np.uint8(10)
        out = out + pair * np.int32(10 ** (end - k)) if k < end else pair.astype(np.int32)
    return out  # type: ignore[return-value] # int32, for that is half the memory


# The days before each month of these years, which have all that int64 nanoseconds can count.
_FIRST, _LAST = 1600, 2300


@cache
def _month_starts() -> NDArray[np.int32]:
    months = np.arange((_FIRST - 1970) * 12, (_LAST - 1970) * 12 + 1).astype("datetime64[M]")
    return months.astype("datetime64[D]").astype(np.int32)


def _days(parts: Mapping[str, bytes | None], numbers: dict[str, Ints]) -> tuple[Ints, Bools]:
    """Days since 1970, and which of them are in the calendar and well within what nanoseconds can count."""
    year: Any = numbers.get("Y")
    if year is None:
        year = np.where(numbers["y"] > 68, 1900, 2000) + numbers["y"] if "y" in numbers else 1900
    month: Any = numbers.get("m", 1)
    if parts.get("b") or parts.get("B"):
        month = _month({name: text for name, text in parts.items() if text is not None})
    sound = (month >= 1) & (month <= 12) & (year > 1677) & (year < 2262)
    at = np.where(sound, (year - _FIRST) * 12 + month - 1, 0).astype(np.int32)
    starts = _month_starts()
    days: Any = starts[at]
    if "d" in numbers or "j" in numbers:
        day = numbers["d" if "d" in numbers else "j"]
        sound = sound & (day >= 1) & (day <= starts[at + (1 if "d" in numbers else 12)] - days)
        days = days + (day - 1)
    return days, np.asarray(sound)


def _seconds(parts: Mapping[str, bytes | None], numbers: dict[str, Ints]) -> tuple[Ints, Bools]:
    """Seconds since midnight UTC, and which of them are times of the day."""
    hour, minute, second = (numbers.get(name, np.zeros(1, np.int32)) for name in "HMS")
    sound = (hour < 24) & (minute < 60) & (second < 60)
    if not sound.all():
        fraction = numbers.get("f", np.zeros(1, np.int32))
        sound = sound | ((hour == 24) & (minute == 0) & (second == 0) & (fraction == 0))
    if "I" in numbers:
        sound = sound & (numbers["I"] >= 1) & (numbers["I"] <= 12)
        hour = numbers["I"] % 12 + 12 * ((parts["p"] or b"")[:1] in (b"p", b"P"))
    seconds = hour * 3600 + minute * 60 + second
    if "hours" in numbers:
        sound = sound & (numbers["hours"] < 24) & (numbers["minutes"] < 60)
        east = numbers["hours"] * 3600 + numbers["minutes"] * 60
        seconds = seconds - east * (-1 if (parts["z"] or b"")[:1] == b"-" else 1)
    return seconds, sound
