"""What alpha, span, com, halflife and decay mean: one number, `alpha`, worked out in one place.

The conversions are those of pandas: α = 2/(span+1) = 1/(1+com) = 1 − 2^(−1/halflife) = 1 − decay.
α is the weight of the newest value, d = 1 − α what is left of the average before it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from ema_cli.errors import OptionError

FAMILIES = ("alpha", "span", "halflife", "com", "decay")

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "min": 60 * 1_000_000_000,
    "h": 3_600 * 1_000_000_000,
    "d": 86_400 * 1_000_000_000,
}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)\s*(ns|us|µs|ms|s|min|h|d)\s*")


@dataclass(frozen=True)
class Decay:
    """How fast an average forgets.

    family: which option it was given as; text: as it was typed (names the columns).
    alpha: weight of the newest value, 0 ≤ alpha ≤ 1; nan where it depends on the time between rows.
    halflife_ns: the half-life in nanoseconds, for irregular times only.
    auto: alpha is still to be found from the data.
    """

    family: str
    text: str
    alpha: float
    halflife_ns: float | None = None
    auto: bool = False

    @property
    def rest(self) -> float:
        """1 − alpha: what remains of the old average after one row."""
        return 1.0 - self.alpha


def parse_duration(text: str) -> int | None:
    """Nanoseconds in a duration such as `5min`, `1.5h` or `2d12h`; None if it is not one.

    Fractions are exact: decimal arithmetic, rounded to the nanosecond once.
    """
    total, at = Decimal(0), 0
    stripped = text.strip()
    while at < len(stripped):
        part = _PART.match(stripped, at)
        if part is None:
            return None
        total += Decimal(part[1]) * _UNITS[part[2]]
        at = part.end()
    return round(total) if at else None


def make_decay(family: str, given: float | str) -> Decay:
    """The decay that an option stands for.

    family: one of `FAMILIES`. given: a number, its text, a duration (halflife only) or `auto` (alpha only).
    Raises OptionError for anything else, or for a number outside the family's range.
    """
    text = given.strip() if isinstance(given, str) else f"{given:.15g}"
    if family == "alpha" and text == "auto":
        return Decay(family, text, math.nan, auto=True)
    if family == "halflife" and isinstance(given, str) and (duration := parse_duration(text)) is not None:
        if duration <= 0:
            raise OptionError(
                f"--halflife {text}: a half-life must be longer than nothing", "--halflife 5min"
            )
        return Decay(family, text, math.nan, halflife_ns=float(duration))
    number = _number(family, text if isinstance(given, str) else given)
    return Decay(family, text, _ALPHA[family](number))


def _number(family: str, given: float | str) -> float:
    try:
        number = float(given)
    except (TypeError, ValueError):
        raise OptionError(f"--{family} {given}: not a number", _EXAMPLE[family]) from None
    low, high, words = _RANGE[family]
    if not low <= number <= high or (family == "halflife" and number == 0):
        raise OptionError(f"--{family} {given}: must be {words}", _EXAMPLE[family])
    return number


_RANGE = {
    "alpha": (0.0, 1.0, "between 0 and 1, the weight of the newest value"),
    "decay": (0.0, 1.0, "between 0 and 1, the weight of the old average"),
    "span": (1.0, math.inf, "1 or more rows"),
    "halflife": (0.0, math.inf, "more than 0 rows, or a duration such as 5min with --time"),
    "com": (0.0, math.inf, "0 or more rows"),
}
_EXAMPLE = {
    "alpha": "--alpha 0.1 (for a window of rows use --span 20)",
    "decay": "--decay 0.99",
    "span": "--span 20",
    "halflife": "--halflife 10 (rows), or --time COLUMN --halflife 5min",
    "com": "--com 9.5",
}
_ALPHA: dict[str, Callable[[float], float]] = {
    "alpha": lambda a: a,
    # 1 − d in decimal, so that 0.999 gives 0.001 and not 0.0010000000000000009
    "decay": lambda d: float(1 - Decimal(repr(d))),
    "span": lambda n: 2.0 / (n + 1.0),
    "com": lambda c: 1.0 / (1.0 + c),
    # expm1 keeps the digits that 1 − 2^(−1/h) loses for long half-lives
    "halflife": lambda h: -math.expm1(-math.log(2.0) / h),
}
