"""What alpha, span, com, halflife and decay mean: one number, `alpha`, computed here.

The conversions are those of pandas: α = 2/(span+1) = 1/(1+com) = 1 − 2^(−1/halflife) = 1 − decay.
α is the weight of the newest value, d = 1 − α what is left of the average before it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, TypeVar

from ema_cli.errors import OptionError

T = TypeVar("T")
FAMILIES = ("alpha", "span", "halflife", "com", "decay", "wilder", "tau")

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "min": 60 * 1_000_000_000,
    "h": 3_600 * 1_000_000_000,
    "d": 86_400 * 1_000_000_000,
    "w": 7 * 86_400 * 1_000_000_000,
}
# The units' other names, as pandas and polars take them; any capitals, but for M, which may be a month.
_NAMES = {
    "ns": ("nano", "nanos", "nanosecond", "nanoseconds"),
    "us": ("micro", "micros", "microsecond", "microseconds", "μs", "μ", "µ"),
    "ms": ("milli", "millis", "millisecond", "milliseconds"),
    "s": ("sec", "secs", "second", "seconds"),
    "min": ("m", "mins", "minute", "minutes"),
    "h": ("hr", "hrs", "hour", "hours"),
    "d": ("day", "days"),
    "w": ("wk", "week", "weeks"),
}
_UNIT_OF = {name: unit for unit, names in _NAMES.items() for name in (unit, *names)} | {"µs": "us"}
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_PART = re.compile(r"(\d+\.?\d*|\.\d+)\s*([^\W\d_]+)\s*")

_CALENDAR = re.compile(r"\d+\.?\d*\s*(M|mos?|months?|q|quarters?|y|yrs?|years?)", re.IGNORECASE)


@dataclass(frozen=True)
class Decay:
    """How fast an average forgets.

    family: which option it was given as; text: as it was typed (names the columns). alpha: weight of the
    newest value, 0 ≤ alpha ≤ 1; nan where it depends on the time between rows. halflife_ns: the half-life
    in nanoseconds, for irregular times only. auto: alpha is still to be found from the data. seed: number
    of first values whose plain mean the recursion starts from.
    """

    family: str
    text: str
    alpha: float
    halflife_ns: float | None = None
    auto: bool = False
    seed: int = 0

    @property
    def rest(self) -> float:
        """1 − alpha: what remains of the old average after one row."""
        return 1.0 - self.alpha

    @property
    def value(self) -> float | str:
        """What was given, in one spelling: its number, the nanoseconds of a duration, or `auto`."""
        if self.halflife_ns is not None:
            return f"{self.halflife_ns:.0f}ns"
        if self.auto:
            return self.text
        return self.alpha if self.text == "auto" or "/" in self.text else float(self.text)


def parse_duration(given: Any) -> int | None:
    """Nanoseconds in a duration such as `5min`, `1.5h`, `1 day` or `2d12h`, or in a timedelta; None if it
    is neither.

    Fractions are exact: decimal arithmetic, rounded to the nanosecond once.
    """
    if isinstance(given, timedelta):
        whole = given // timedelta(microseconds=1)
        # pandas' Timedelta is a timedelta that counts nanoseconds besides.
        return whole * 1_000 + int(getattr(given, "nanoseconds", 0))
    total, at = Decimal(0), 0
    stripped = given.strip() if isinstance(given, str) else ""
    while at < len(stripped):
        part = _PART.match(stripped, at)
        if part is None:
            return None
        unit = None if part[2] == "M" else _UNIT_OF.get(part[2]) or _UNIT_OF.get(part[2].lower())
        if unit is None:
            return None
        total += Decimal(part[1]) * _UNITS[unit]
        at = part.end()
    return round(total) if at else None


def duration_text(nanoseconds: int) -> str:
    """A duration in the largest unit that it is a whole number of: 90 s is `90s`, 120 s is `2min`."""
    units = {unit: size for unit, size in _UNITS.items() if unit.isascii()}
    unit = max((unit for unit, size in units.items() if nanoseconds % size == 0), key=lambda u: units[u])
    return f"{nanoseconds // units[unit]}{unit}"


def number_in(given: Any) -> float | None:
    """A finite number, or the text of one as a table may have it; None for anything else.

    True is no number, and neither are `1_000` and `inf`, though Python's float() takes them.
    """
    if isinstance(given, str):
        return float(given) if _NUMBER.fullmatch(given.strip()) and math.isfinite(float(given)) else None
    if type(given).__name__ in ("bool", "bool_"):
        return None
    try:
        number = float(given)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def one_family(chosen: Mapping[str, T], hint: str) -> tuple[str, T]:
    """The one family that is given, and what it was given. Raises OptionError where none or several are."""
    if not chosen:
        raise OptionError("no weight given: how fast should the average forget?", hint)
    if len(chosen) > 1:
        both = " and ".join(f"--{name}" for name in chosen)
        raise OptionError(f"{both} say the same thing in two ways", f"only --{next(iter(chosen))}")
    return next(iter(chosen.items()))


def make_decay(family: str, given: Any) -> Decay:
    """The decay that an option stands for.

    family: one of `FAMILIES`. given: a number, its text, a duration (halflife only) or `auto` (alpha only).
    Raises OptionError for anything else, or for a number outside the family's range.
    """
    if family == "alpha" and isinstance(given, str) and given.strip() == "auto":
        return Decay(family, "auto", math.nan, auto=True)
    duration = parse_duration(given)
    if duration is not None:
        return _timed_decay(family, given, duration)
    number = _fraction(given) if family == "alpha" else number_in(given)
    if number is None or family == "tau":
        if isinstance(given, str) and _CALENDAR.fullmatch(given.strip()):
            raise OptionError(f"--{family} {given}: months and years have no fixed length", "--halflife 30d")
        what = "a duration" if family == "tau" else "a number"
        raise OptionError(f"--{family} {given}: not {what}", _EXAMPLE[family])
    low, high, words = _RANGE[family]
    whole = family != "wilder" or number.is_integer()
    if not (low <= number <= high and whole) or (family == "halflife" and number == 0):
        raise OptionError(f"--{family} {given}: must be {words}", _instead(family, number))
    text = given.strip() if isinstance(given, str) else repr(number).removesuffix(".0")
    return Decay(family, text, _ALPHA[family](number), seed=int(number) if family == "wilder" else 0)


def _fraction(given: Any) -> float | None:
    """A number, or a fraction of two such as `1/14`."""
    parts = given.split("/") if isinstance(given, str) else []
    if len(parts) != 2:
        return number_in(given)
    over, under = map(number_in, parts)
    return over / under if over is not None and under else None


def _timed_decay(family: str, given: Any, duration: int) -> Decay:
    text = given.strip() if isinstance(given, str) else duration_text(duration)
    if family not in ("halflife", "tau"):
        raise OptionError(
            f"--{family} {text}: a duration can only be a half-life or a time constant",
            f"--time COLUMN --halflife {text}, or --tau {text}",
        )
    if duration <= 0:
        raise OptionError(f"--{family} {text}: must be longer than nothing", f"--{family} 5min")
    # e^(−Δt/τ) = 2^(−Δt/(τ·ln 2))
    halves = float(duration) if family == "halflife" else duration * math.log(2.0)
    return Decay(family, text, math.nan, halflife_ns=halves)


def _instead(family: str, number: float) -> str:
    """What a number outside its family's range was probably meant to be."""
    if family in ("alpha", "decay") and number > 1:
        return f"--span {number:g} for a window of so many rows, or {_EXAMPLE[family]}"
    return _EXAMPLE[family]


_RANGE = {
    "alpha": (0.0, 1.0, "between 0 and 1, the weight of the newest value"),
    "decay": (0.0, 1.0, "between 0 and 1, the weight of the old average"),
    "span": (1.0, math.inf, "1 or more rows"),
    "halflife": (0.0, math.inf, "more than 0 rows, or a duration such as 5min with --time"),
    "com": (0.0, math.inf, "0 or more rows"),
    "wilder": (1.0, math.inf, "a whole number of rows, 1 or more"),
}
_EXAMPLE = {
    "alpha": "--alpha 0.1, or --alpha auto",
    "decay": "--decay 0.99",
    "span": "--span 20",
    "halflife": "--halflife 10 (rows), or --time COLUMN --halflife 5min",
    "com": "--com 9.5",
    "wilder": "--wilder 14",
    "tau": "--time COLUMN --tau 5min",
}
_ALPHA: dict[str, Callable[[float], float]] = {
    "alpha": lambda a: a,
    # 1 − d in decimal, so that 0.999 gives 0.001 and not 0.0010000000000000009
    "decay": lambda d: float(1 - Decimal(repr(d))),
    "span": lambda n: 2.0 / (n + 1.0),
    "com": lambda c: 1.0 / (1.0 + c),
    "wilder": lambda n: 1.0 / n,
    # expm1 keeps the digits that 1 − 2^(−1/h) loses for long half-lives
    "halflife": lambda h: -math.expm1(-math.log(2.0) / h),
}
