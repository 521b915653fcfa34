"""The keywords of `smooth` and `Smoother`: the command's options by their names with underscores."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from typing import Any, TypedDict

import numpy as np

from ema_cli.average import Average, make_average
from ema_cli.choices import Invalid, Late, Missing, TimeUnit, words_of
from ema_cli.decay import duration_text, parse_duration
from ema_cli.errors import OptionError
from ema_cli.like import SETS
from ema_cli.times import TimeForm, check_form
from ema_cli.times.form import ISO

Duration = str | timedelta | np.timedelta64
Weight = float | str

# The keywords beside these, for a name that is misspelt.
OF_ROWS = ("times", "by", "order", "weights", "axis")


class Options(TypedDict, total=False):
    """The average, and what is asked for besides trends. None is "not given".

    One of alpha, span, halflife, com, decay, wilder and tau says how fast the average forgets; a list of
    several gives one average each.

    Parameters
    ----------
    alpha : float or "1/14" or "auto"
        Weight of the newest value, 0 to 1; "auto" finds the one that predicts best.
    span, com : float
        In rows: alpha = 2/(span + 1), span ≥ 1; alpha = 1/(1 + com), com ≥ 0.
    halflife : float or duration
        In rows, alpha = 1 − 2^(−1/halflife), > 0; with times a duration ("5min", a timedelta).
    decay : float
        1 − alpha.
    wilder : int
        N: alpha = 1/N, from the mean of the first N values.
    tau : duration
        A time constant, e^(−Δt/tau), with times.
    adjust : bool
        Bias-corrected weights, as pandas' `adjust=True`.
    init : "first", "zero", "sma", "sma:N" or float
        The average before the first row.
    missing : "skip", "decay" or "error"
        What a missing value does: nothing to the weights, fade them by one row, or raise.
    fill : bool
        Give the held average on missing rows, not NaN.
    invalid : "error" or "missing"
        What an infinity is.
    min_periods : int
        NaN until so many values were seen.
    residual, std, var, sum : bool
        Further columns: value − trend, standard deviation, variance, Σ (1−α)^i·x.
    bands : float
        Further columns: trend ± so many standard deviations.
    cov, corr : bool
        Further columns, of each pair of columns.
    bias : bool
        Deviations and covariances without the correction for bias.
    double, triple : bool
        Further columns: 2y − ema(y), and 3y − 3·ema(y) + ema(ema(y)).
    diff : bool
        A further column: the first of two trends less the second.
    centered : bool
        Average the rows on both sides of a row.
    name : str
        Pattern of the new columns' names, of {col}, {what} and {weight}.
    reset_gap : duration
        A silence after which a series starts afresh.
    time_unit, time_format, time_zone : str
        Of times that are numbers; strptime's, or "excel"; what times without a zone are local to.
    late : "error", "skip" or "restart"
        What happens at a row whose time, or `order`, goes back.
    like : str
        The system whose numbers to reproduce, such as "pandas".
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
    missing: Missing | None
    fill: bool | None
    invalid: Invalid | None
    min_periods: int | None
    std: bool | None
    var: bool | None
    bands: float | None
    residual: bool | None
    sum: bool | None
    bias: bool | None
    cov: bool | None
    corr: bool | None
    double: bool | None
    triple: bool | None
    diff: bool | None
    centered: bool | None
    name: str | None
    reset_gap: Duration | None
    time_unit: TimeUnit | None
    time_format: str | None
    time_zone: str | None
    late: Late | None
    like: str | None


@dataclass(frozen=True)
class Settings:
    """The options, checked. invalid: 'error' or 'missing'. form: how times are written. late: 'error',
    'skip' or 'restart'."""

    average: Average
    invalid: str = "error"
    form: TimeForm = ISO
    late: str = "error"


def read_options(
    options: Mapping[str, Any], timed: bool | None = None, *, weighted: bool = False
) -> Settings:
    """Check the keywords. timed: there are times; None: a half-life that is a duration says so. weighted:
    rows have weights.

    Raises OptionError (a ValueError) for bad values and combinations, TypeError for a keyword there is not.
    """
    for name in options:
        if name not in Options.__annotations__:
            close = get_close_matches(name, [*Options.__annotations__, *OF_ROWS], n=1, cutoff=0.7)
            raise TypeError(f"no option {name!r}{f'; did you mean {close[0]!r}?' if close else ''}")
    plain = {name: _plain(value) for name, value in options.items()}
    if timed is None:
        timed = plain.get("tau") is not None or _has_duration(plain.get("halflife"))
    for name, choice in (("invalid", Invalid), ("time_unit", TimeUnit), ("late", Late)):
        allowed = words_of(choice)
        if plain.get(name) not in (None, *allowed):
            problem = f"{name}={plain[name]!r}: not one of {', '.join(allowed)}"
            raise OptionError(problem, f"{name}={allowed[-1 if name == 'invalid' else 0]!r}")
    form = TimeForm(plain.get("time_unit"), plain.get("time_format"), plain.get("time_zone"))
    try:
        average = make_average(plain, timed=timed, weighted=weighted)
        check_form(form)
    except OptionError as error:
        raise OptionError(in_python(error.problem), in_python(error.hint)) from None
    late = plain.get("late") or "error"
    if average.centered and late == "restart":
        raise OptionError("centered=True does not go with late='restart'", "late='skip'")
    if average.auto and late == "restart":
        raise OptionError("alpha='auto' does not go with late='restart'", "late='skip', or a weight")
    return Settings(average, plain.get("invalid") or "error", form, late)


def _plain(value: Any) -> Any:
    """Numbers and durations as plain ones, in lists too; everything else as it is."""
    if isinstance(value, np.timedelta64):
        return _duration(value)
    if isinstance(value, str):
        return _units_of(value)
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):  # an array's or a tensor's one number
        return value.item() if getattr(value.dtype, "kind", "") != "m" else _duration(value[()])
    if isinstance(value, list | tuple) or getattr(value, "ndim", 0) == 1:
        return [_plain(one) for one in value]
    if isinstance(value, np.ndarray):
        raise OptionError(f"an array of {value.ndim} dimensions: one number, or a list of them", "alpha=0.1")
    if type(value).__module__.startswith("pandas.") and hasattr(
        value, "nanos"
    ):  # an offset such as Minute(5)
        return duration_text(int(value.nanos))
    return value


def _duration(value: Any) -> str:
    """One of NumPy's durations as text, which says that months are none."""
    unit = np.datetime_data(value.dtype)[0]
    if np.isnat(value):
        return "NaT"
    if unit == "generic":
        raise OptionError(f"{value!r}: a number without a unit", "np.timedelta64(5, 'm')")
    if unit in ("Y", "M"):
        return f"{value.astype(int)} {'months' if unit == 'M' else 'years'}"
    return duration_text(int(value.astype("timedelta64[ns]").astype("int64")))


_CLOCK = re.compile(
    r"\s*(?:(?P<d>\d+)\s*(?:d|days?)\s*)?(?P<h>\d+):(?P<min>\d\d)(?::(?P<s>\d\d(?:\.\d+)?))?\s*"
)
_ISO = re.compile(
    r"P(?:(?P<w>\d+)W)?(?:(?P<d>\d+)D)?(?:T(?:(?P<h>\d+)H)?(?:(?P<min>\d+)M)?(?:(?P<s>\d+(?:\.\d+)?)S)?)?"
)


def _units_of(text: str) -> str:
    """A duration as a clock shows it or as ISO 8601 has it, with units; every other text as it is."""
    found = _CLOCK.fullmatch(text) or _ISO.fullmatch(text)
    parts = [] if found is None else [f"{n}{unit}" for unit, n in found.groupdict().items() if n is not None]
    return "".join(parts) or text


def _has_duration(halflife: Any) -> bool:
    given = halflife if isinstance(halflife, list) else [halflife]
    return any(parse_duration(one) is not None for one in given)


_OPTION = re.compile(
    r"--([a-z][a-z-]*)(?: ([0-9][\w.]*(?![\w.])|'[^']*'|sma:[0-9]+|[a-z]+(?:-[a-z]+)?|COLUMN)(?=[ ,;:)]|$))?"
)
# Words that stand after an option as its value; any other word goes on with the sentence.
_WORDS = {*words_of(Missing), *words_of(Invalid), *words_of(TimeUnit)}
_VALUES = {"first", "zero", "sma", "auto", *SETS, *_WORDS}


def in_python(message: str) -> str:
    """A message about options as Python spells them: `--alpha 0.1` is `alpha=0.1`."""
    message = re.sub(r"no --([a-z]+)", r"\1=False", message)
    message = re.sub(r"--([a-z]+) ([0-9.]+) --\1 ([0-9.]+)", r"\1=[\2, \3]", message)
    return _OPTION.sub(_keyword, message)


def _keyword(match: re.Match[str]) -> str:
    name = {"time": "times"}.get(match[1], match[1].replace("-", "_"))
    value = match[2]
    if value is None:
        return name
    if value == "COLUMN":
        return f"{name}=..."
    if value[0] == "'":
        return f"{name}={value}"
    if value[0].isdigit():
        number = re.fullmatch(r"[0-9.]+(e-?[0-9]+)?", value)
        return f"{name}={value}" if number else f"{name}={value!r}"
    return f"{name}={value!r}" if value in _VALUES or ":" in value else f"{name} {value}"
