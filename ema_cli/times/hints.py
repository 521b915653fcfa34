"""What to try for a time that could not be read. A hint is made from the cell's text, without guessing:
if it can be read in two ways, both are given, with what decides between them."""

from __future__ import annotations

import re

from ema_cli.errors import OptionError
from ema_cli.times.grammar import MONTHS, WEEKDAYS, compile_format, read_cell
from ema_cli.times.numbers import is_number

PLAIN = "times as 2024-01-31T12:00:00Z; docs/times.md says which others can be read"
LEAVE_OUT = "--invalid missing to leave such rows out"
UNITS = {10: "s", 13: "ms", 16: "us", 19: "ns"}
STAMPS = {7: "%Y%j", 8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}

_MONTH = "|".join(name.decode() for name in MONTHS)
_SHORT = "|".join(name.decode()[:3] for name in MONTHS)
_DAY = "|".join(f"{name.decode()}|{name.decode()[:3]}" for name in WEEKDAYS)
_CLOCK = re.compile(
    r"(?P<H>\d{1,2})(?P<mark>[:.])\d{2}(?P<S>(?P=mark)\d{2})?(?:(?P<point>[.,])\d{1,9})?"
    r"(?P<gap>[ \u00a0\u202f]*)(?P<p>[AaPp](?:[Mm]|\.[Mm]\.))?"
    r"(?P<zgap> *)(?P<z>Z|UTC|GMT|[+-]\d{2}:?\d{2})?(?P<rest> [A-Z]{2,5})?"
)
_STAMP = re.compile(r"\d{4}(\d{2})?(?P<z>Z)?")
_NUMERIC = re.compile(r"(\d{1,4})([./-])(\d{1,2})\2(\d{1,4})")
# Dates whose form is told by their marks alone.
_FORMS = {
    r"\d{8}(?=[T_ -]\d)": "%Y%m%d",
    r"\d{4}年\d{1,2}月\d{1,2}日": "%Y年%m月%d日",
    r"\d{4}-\d{3}(?!\d)": "%Y-%j",
    r"\d{4}([-/.])\d{2}\Z": "%Y{0}%m",
    r"\d{2}([-/.])\d{4}\Z": "%m{0}%Y",
}
_NAMED = re.compile(
    rf"(?P<a>(?:{_DAY}),? +)?"
    rf"(?:(?P<d>\d{{1,2}})(?P<s>[ ./-]*))?(?P<m>{_MONTH}|{_SHORT})\.?(?P<t>[ ,./-]*)"
    rf"(?(d)|(?P<e>\d{{1,2}})(?P<u>,? +))(?P<y>\d{{4}}|\d{{2}}(?![:\d]))",
    re.IGNORECASE,
)
_YEAR_LAST = re.compile(
    rf"(?P<a>(?:{_DAY}),? +)?(?P<m>{_SHORT})(?P<t> +)\d{{1,2}}(?P<u> +)(?P<clock>.*?)(?P<v> +)\d{{4}}",
    re.IGNORECASE,
)


def number_hint(text: str) -> str:
    """What a number without a unit may count, by its size."""
    whole, _, fraction = text.partition(".")
    stamp = STAMPS.get(len(whole)) if whole == text and "1900" <= whole[:4] < "2100" else None
    if stamp is not None and _reads(stamp, text):
        return f"--time-format {stamp}"
    if whole.isdigit() and len(whole) in UNITS and (not fraction or fraction.isdigit()):
        return f"--time-unit {UNITS[len(whole)]}"
    if len(text) == 4 and _reads("%Y", text) and "1700" <= text < "2200":
        return "--time-format %Y, if these are years"
    if is_number(text.encode()) and 20_000 <= float(text) <= 80_000:
        return "--time-format excel, if these are Excel's days"
    return "--time-unit with what they count: one of s, ms, us, ns, min, h, d"


def text_hint(text: str) -> str:
    """What to try for a text that is no time."""
    clock = _clock_format(" " + text)
    if clock is not None and _reads(clock[1:], text):
        what = "" if "%S" in clock else "these are hours and minutes, "
        return f"--time-format '{clock[1:]}' if {what}all of one day"
    formats = formats_of(text)
    if not formats:
        return PLAIN if any(map(str.isdigit, text)) else f"{LEAVE_OUT}, or {PLAIN}"
    first, *others = formats.items()
    said = f"--time-format '{first[0]}'" + (f" if the {first[1]} comes first" if others else "")
    return said + "".join(f", '{form}' if the {what} does" for form, what in others)


def formats_of(text: str) -> dict[str, str]:
    """The formats that read a text, and what comes first in each."""
    found = {}
    if (form := _year_last(text)) is not None and _reads(form, text):
        return {form: "day"}
    for date, what, end in _dates(text):
        clock = _clock_format(text[end:])
        if clock is not None and _reads(date + clock, text):
            found[date + clock] = what
    return found


def _dates(text: str) -> list[tuple[str, str, int]]:
    """Formats for the date that a text begins with, what comes first, and where the date ends."""
    for pattern, form in _FORMS.items():
        if (match := re.match(pattern, text)) is not None:
            return [(form.format(*match.groups()), "year", match.end())]
    if (match := _NUMERIC.match(text)) is not None:
        first, mark, _, last = match.groups()
        if len(first) == 4:
            orders = {"year": "%Y{}%m{}%d"}
        elif len(last) not in (2, 4):
            return []
        else:
            year = "%Y" if len(last) == 4 else "%y"
            orders = {"day": "%d{}%m{}" + year}
            if mark != ".":
                orders["month"] = "%m{}%d{}" + year
            if len(first) == 2 and len(last) == 2 and mark == "-":
                orders["year"] = "%y{}%m{}%d"
        return [(form.format(mark, mark), what, match.end()) for what, form in orders.items()]
    match = _NAMED.match(text)
    if match is None:
        return []
    weekday = match["a"] or ""
    if weekday:
        name = weekday.strip(" ,")
        weekday = weekday.replace(name, "%a" if len(name) == 3 else "%A")
    month = "%b" if len(match["m"]) == 3 else "%B"
    month += "." * (text[match.end("m") : match.end("m") + 1] == "." and match["t"][:1] != ".")
    year = "%Y" if len(match["y"]) == 4 else "%y"
    date = f"%d{match['s']}{month}{match['t']}" if match["d"] else f"{month}{match['t']}%d{match['u']}"
    return [(weekday + date + year, "day", match.end())]


def _year_last(text: str) -> str | None:
    """The format of a date as `date` and `ctime` write it: Mon Jan  1 00:00:00 2024."""
    match = _YEAR_LAST.fullmatch(text)
    clock = None if match is None else _clock_format(" " + match["clock"])
    if match is None or clock is None:
        return None
    weekday = "%a " if match["a"] else ""
    return f"{weekday}%b{match['t']}%d{match['u']}{clock[1:]}{match['v']}%Y"


def _clock_format(rest: str) -> str | None:
    """The format of what follows a date; None where that is no time of day."""
    if not rest:
        return ""
    gap = re.match(r"[ T,:_-]+", rest)
    if gap is None:
        return None
    clock, stamp = (each.fullmatch(rest[gap.end() :]) for each in (_CLOCK, _STAMP))
    if stamp is not None:
        return gap[0] + "%H%M" + ("%S" if stamp[1] else "") + ("%z" if stamp["z"] else "")
    if clock is None:
        return None
    mark = clock["mark"]
    out = gap[0] + ("%I" if clock["p"] else "%H") + f"{mark}%M" + (f"{mark}%S" if clock["S"] else "")
    out += f"{clock['point']}%f" if clock["point"] else ""
    out += " " * len(clock["gap"]) + ("%p" if clock["p"] else "")
    return out + (clock["zgap"] + "%z" if clock["z"] else "") + ((clock["rest"] or "") if clock["z"] else "")


def _reads(form: str, text: str) -> bool:
    try:
        match = compile_format(form).fullmatch(text.encode())
        if match is not None:
            read_cell(match)
    except (OptionError, ValueError):
        return False
    return match is not None
