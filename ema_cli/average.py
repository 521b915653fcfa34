"""Everything that shapes the numbers, checked once: the options of "the average", by their public names."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ema_cli.decay import FAMILIES, Decay, make_decay, number_in, one_family, parse_duration
from ema_cli.errors import OptionError
from ema_cli.like import resolve_like
from ema_cli.state_options import options_of

Missing = Literal["skip", "decay", "error"]
# Nanoseconds in a unit of times that are numbers.
TIME_STEPS = {
    "ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "min": 60 * 10**9, "h": 3_600 * 10**9, "d": 86_400 * 10**9
}  # fmt: skip


@dataclass(frozen=True)
class Average:
    """One or several averages over the same rows.

    decays: one trend each. adjust: bias-corrected weights. init: 'first', 'zero', 'sma' or a number.
    missing: what an empty cell does to the weights. fill: print the held trend there.
    min_periods: blank until so many values were seen. std, var, bands, residual: further columns.
    timed: rows are spaced by their times. reset_gap: nanoseconds of silence after which to start afresh.
    like: the system whose numbers these are; what that means is in the other fields. weighted: rows count for
    what they weigh. time_step: nanoseconds from an average before the first row to that row.
    """

    decays: tuple[Decay, ...]
    adjust: bool = False
    init: str | float = "first"
    missing: Missing = "skip"
    fill: bool = False
    min_periods: int = 0
    std: bool = False
    bands: float | None = None
    residual: bool = False
    timed: bool = False
    reset_gap: int | None = None
    like: str | None = None
    weighted: bool = False
    time_step: int = 1_000_000_000
    var: bool = False

    @property
    def steady(self) -> bool:
        """All rows decay alike."""
        return not (self.timed or self.missing == "decay" or self.seed_rows or self.weighted)

    @property
    def joins_ties(self) -> bool:
        """Rows of equal time are one observation."""
        return self.timed and not self.adjust

    @property
    def has_first(self) -> bool:
        """There is an average before the first row."""
        return isinstance(self.init, float)

    @property
    def auto(self) -> bool:
        """A weight is still to be found from the data."""
        return any(decay.auto for decay in self.decays)

    @property
    def needs_std(self) -> bool:
        return self.std or self.var or self.bands is not None

    @property
    def seed_rows(self) -> int:
        """The most first values that are averaged plainly before the recursion sets in, for any weight."""
        return max(decay.seed for decay in self.decays)

    @property
    def start(self) -> float | None:
        """The average before the first row, where there is one."""
        return self.init if isinstance(self.init, float) else None

    def with_alpha(self, alpha: float) -> Average:
        """The same with `alpha` wherever it was to be found from the data."""
        found = tuple(
            replace(decay, alpha=alpha, auto=False) if decay.auto else decay for decay in self.decays
        )
        return replace(self, decays=found)

    @property
    def is_bare(self) -> bool:
        """Whether nothing but trends is asked for."""
        return not (self.residual or self.std or self.var or self.bands is not None)

    def names(self, column: str) -> list[str]:
        """The new columns' names for one input column, in output order."""
        parts = ["ema"]
        parts += ["residual"] * self.residual + ["std"] * self.std
        parts += ["lower", "upper"] * (self.bands is not None) + ["var"] * self.var
        several = len(self.decays) > 1
        return [
            f"{column}_{part}{'_' + decay.text if several else ''}" for decay in self.decays for part in parts
        ]

    def signature(self) -> dict[str, Any]:
        """What must be the same for a saved state to be carried on: every field, by its option's name.

        A field with a default that is added here is compared too, and a state without it has the default.
        """
        family = {self.decays[0].family: [decay.value for decay in self.decays]}
        return family | options_of(self, leave_out=("decays", "like"))


def make_average(options: Mapping[str, Any], *, timed: bool = False) -> Average:
    """The average that these options (public names, unset ones None or absent) ask for.

    A flag that is False is set, to False: that contradicts `like='pandas'`, where None does not.
    timed: the rows have times. Raises OptionError where none or several families are given, a value is out
    of range, or two options do not go together.
    """
    options = resolve_like(options, timed)
    family, given = _family(options)
    adjust = _flag("adjust", options)
    usual = "sma" if family == "wilder" and not adjust else None
    init = _init(usual if options.get("init") is None else options["init"])
    average = Average(
        decays=tuple(_seeded(make_decay(family, value), init, options.get("like")) for value in given),
        adjust=adjust,
        init=init,
        missing=_choice("missing", options.get("missing"), ("skip", "decay", "error")),  # type: ignore[arg-type]
        fill=_flag("fill", options),
        min_periods=_min_periods(options.get("min_periods")),
        std=_flag("std", options),
        bands=_bands(options.get("bands")),
        residual=_flag("residual", options),
        timed=timed,
        reset_gap=_reset_gap(options.get("reset_gap"), timed),
        like=options.get("like"),
        time_step=TIME_STEPS.get(str(options.get("time_unit")), TIME_STEPS["s"]),
        var=_flag("var", options),
    )
    _check_weights(average, family)
    _check_together(average)
    return average


def _family(options: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """The one family that is given, and its weights."""
    chosen = {name: _many(options[name]) for name in FAMILIES if options.get(name) is not None}
    chosen = {name: weights for name, weights in chosen.items() if weights}
    hint = "--alpha 0.1 (weight of the newest value), --span 20, --halflife 10, --com 9.5 or --decay 0.9"
    return one_family(chosen, hint)


def _many(given: Any) -> list[Any]:
    return list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]


def _flag(name: str, options: Mapping[str, Any]) -> bool:
    given = options.get(name)
    # NumPy's bool is no bool, and 1 is no answer to a yes-or-no question.
    if given is not None and type(given).__name__ not in ("bool", "bool_"):
        raise OptionError(f"--{name}: {given!r} is neither True nor False", f"--{name}")
    return bool(given)


def _init(given: Any) -> str | float:
    if given is None:
        return "first"
    if isinstance(given, str) and (given in ("first", "sma") or re.fullmatch(r"sma:[1-9][0-9]{0,8}", given)):
        return given
    number = 0.0 if isinstance(given, str) and given == "zero" else number_in(given)
    if number is None:
        raise OptionError(
            f"--init {given}: not one of first, zero, sma, sma:N or a number",
            "--init first, or --init sma:20",
        )
    return number


def _seeded(decay: Decay, init: str | float, like: str | None) -> Decay:
    """The decay with as many first values averaged plainly as it begins with. Raises OptionError."""
    if not isinstance(init, str) or init == "first":
        return replace(decay, seed=0)
    if init != "sma":
        return replace(decay, seed=int(init.removeprefix("sma:")))
    if decay.family == "wilder":
        return decay
    if decay.family != "span" or not float(decay.text).is_integer():
        asked = " (that is how --like talib begins)" if like == "talib" else ""
        raise OptionError(
            f"--init sma averages the first SPAN values{asked}",
            "whole spans, such as --span 20, or say how many: --init sma:20",
        )
    return replace(decay, seed=int(float(decay.text)))


def _choice(name: str, given: Any, allowed: tuple[str, ...]) -> str:
    if given is None:
        return allowed[0]
    if not (isinstance(given, str) and given in allowed):
        raise OptionError(f"--{name} {given}: not one of {', '.join(allowed)}", f"--{name} {allowed[0]}")
    return given


def _min_periods(given: Any) -> int:
    try:
        number = 0 if given is None else operator.index(given)
    except TypeError:
        number = -1
    if number < 0 or isinstance(given, bool):
        raise OptionError(f"--min-periods {given}: must be a whole number, 0 or more", "--min-periods 5")
    return number


def _bands(given: Any) -> float | None:
    if given is None:
        return None
    number = number_in(given)
    if number is None or number <= 0:
        raise OptionError(f"--bands {given}: must be a number of standard deviations above 0", "--bands 2")
    return number


def _reset_gap(given: Any, timed: bool) -> int | None:
    if given is None:
        return None
    duration = parse_duration(given)
    if duration is None or duration <= 0:
        raise OptionError(f"--reset-gap {given}: not a duration", "--reset-gap 1h")
    if not timed:
        raise OptionError("--reset-gap needs the times of the rows", "--time COLUMN")
    return duration


def _check_weights(average: Average, family: str) -> None:
    """Refuse weights that clash with each other, or with rows that have times or have none."""
    texts = [decay.text for decay in average.decays]
    for text in texts:
        if texts.count(text) > 1:
            raise OptionError(f"--{family} {text} is given twice", "each weight once")
    durations = [decay for decay in average.decays if decay.halflife_ns is not None]
    if durations and not average.timed:
        raise OptionError(
            f"--{family} {durations[0].text} is a duration, so the rows need times",
            f"--time COLUMN --{family} {durations[0].text}, or a half-life in rows: --halflife 10",
        )
    if average.timed and len(durations) < len(average.decays):
        of_rows = next(decay for decay in average.decays if decay.halflife_ns is None)
        raise OptionError(
            f"--time needs a half-life that is a duration, not --{family} {of_rows.text}",
            "--halflife 5min (units: ns us ms s min h d w), or --tau 5min",
        )


def _check_together(average: Average) -> None:
    """Refuse ways to begin that contradict other options."""
    if average.init == "first" or not (average.adjust or average.timed):
        return
    if average.adjust or average.seed_rows:
        other = "--adjust" if average.adjust else "--time"
        raise OptionError(f"--init {average.init} does not go with {other}", "leave out one of the two")
