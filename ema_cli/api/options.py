"""The keywords of `smooth` and `Smoother`: the command's options by their names with underscores."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from ema_cli.average import Average, make_average
from ema_cli.decay import duration_text, parse_duration
from ema_cli.errors import OptionError
from ema_cli.like import SETS

if TYPE_CHECKING:
    import numpy as np

    Duration = str | timedelta | np.timedelta64
    Weight = float | str

TIME_UNITS = ("s", "ms", "us", "ns", "min", "h", "d")


class Options(TypedDict, total=False):
    """One of alpha, span, halflife, com, decay, wilder and tau says how fast the average forgets; None is
    "not given".

    alpha: weight of the newest value, 0 to 1, or "auto". span ≥ 1, halflife > 0 and com ≥ 0: rows. decay: 1
    − alpha. wilder: α = 1/N from a mean of N. tau: a time constant. halflife: a duration ("5min", a
    timedelta) with times. A list gives one average each. adjust: bias-corrected weights. init: "first",
    "zero", "sma", "sma:N" or a number. missing: what a missing value does to the weights. fill: give the
    held average on missing rows. invalid: what an infinity is. min_periods: NaN until so many values were
    seen. std, var, bands (a number of std), residual: further columns. reset_gap: a duration of silence
    after which to start afresh. time_unit: of times that are numbers. like: another system, whose numbers
    to reproduce.
    """

    alpha: Weight | Sequence[Weight] | None
    span: Weight | Sequence[Weight] | None
    halflife: Weight | Duration | Sequence[Weight | Duration] | None
    com: Weight | Sequence[Weight] | None
    decay: Weight | Sequence[Weight] | None
    wilder: Weight | Sequence[Weight] | None
    tau: Duration | Sequence[Duration] | None
    adjust: bool | None
    init: str | float | None
    missing: Literal["skip", "decay", "error"] | None
    fill: bool | None
    invalid: Literal["error", "missing"] | None
    min_periods: int | None
    std: bool | None
    var: bool | None
    bands: float | None
    residual: bool | None
    reset_gap: Duration | None
    time_unit: Literal["s", "ms", "us", "ns", "min", "h", "d"] | None
    like: Literal["pandas", "polars", "talib", "tensorboard", "miller"] | None


@dataclass(frozen=True)
class Settings:
    """The options, checked. time_unit: of times that are numbers. invalid: 'error' or 'missing'."""

    average: Average
    invalid: str = "error"
    time_unit: str | None = None


def read_options(options: Mapping[str, Any], timed: bool | None = None) -> Settings:
    """Check the keywords. timed: there are times; None: a half-life that is a duration says so.

    Raises OptionError (a ValueError) for bad values and combinations, TypeError for a keyword there is not.
    """
    for name in options:
        if name not in Options.__annotations__:
            close = get_close_matches(name, Options.__annotations__, n=1)
            raise TypeError(f"no option {name!r}{f'; did you mean {close[0]!r}?' if close else ''}")
    plain = {name: _plain(value) for name, value in options.items()}
    if timed is None:
        timed = _has_duration(plain.get("halflife"))
    try:
        average = make_average(plain, timed=timed)
    except OptionError as error:
        raise OptionError(in_python(error.problem), in_python(error.hint)) from None
    invalid, unit = plain.get("invalid"), plain.get("time_unit")
    if invalid not in (None, "error", "missing"):
        raise OptionError(f"invalid={invalid!r}: not one of error, missing", "invalid='missing'")
    if unit not in (None, *TIME_UNITS):
        raise OptionError(f"time_unit={unit!r}: not one of {', '.join(TIME_UNITS)}", "time_unit='s'")
    return Settings(average, invalid or "error", unit)


def _plain(value: Any) -> Any:
    """NumPy's durations as text, in lists too; everything else as it is."""
    if type(value).__name__ == "timedelta64":
        nanoseconds = int(value.astype("timedelta64[ns]").astype("int64"))
        return duration_text(nanoseconds)
    if isinstance(value, list | tuple) or getattr(value, "ndim", 0) == 1:
        return [_plain(one) for one in value]
    return value


def _has_duration(halflife: Any) -> bool:
    given = halflife if isinstance(halflife, list) else [halflife]
    return any(parse_duration(one) is not None for one in given)


_OPTION = re.compile(r"--([a-z][a-z-]*)(?: ([0-9][\w.]*(?![\w.])|[a-z]+|COLUMN)(?=[ ,;:)]|$))?")
# Words that stand after an option as its value; any other word goes on with the sentence.
_VALUES = {"first", "zero", "sma", "skip", "decay", "error", "missing", "auto", *SETS, *TIME_UNITS}


def in_python(message: str) -> str:
    """A message about options as Python spells them: `--alpha 0.1` is `alpha=0.1`."""
    return _OPTION.sub(_keyword, re.sub(r"no --([a-z]+)", r"\1=False", message))


def _keyword(match: re.Match[str]) -> str:
    name = {"time": "times"}.get(match[1], match[1].replace("-", "_"))
    value = match[2]
    if value is None:
        return name
    if value == "COLUMN":
        return f"{name}=..."
    if value[0].isdigit():
        number = re.fullmatch(r"[0-9.]+(e-?[0-9]+)?", value)
        return f"{name}={value}" if number else f"{name}={value!r}"
    return f"{name}={value!r}" if value in _VALUES else f"{name} {value}"
