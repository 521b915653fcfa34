"""Everything that shapes the numbers, checked once: the options of "the average", by their public names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ema_cli.decay import FAMILIES, Decay, make_decay, parse_duration
from ema_cli.errors import OptionError

Missing = Literal["skip", "decay", "error"]


@dataclass(frozen=True)
class Average:
    """One or several averages over the same rows.

    decays: one trend each. adjust: bias-corrected weights. init: 'first', 'zero', 'sma' or a number.
    missing: what an empty cell does to the weights. fill: print the held trend there.
    min_periods: blank until so many values were seen. std, bands, residual: further columns.
    timed: rows are spaced by their times. reset_gap: nanoseconds of silence after which to start afresh.
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

    @property
    def needs_std(self) -> bool:
        return self.std or self.bands is not None

    @property
    def seed_rows(self) -> int:
        """How many first values are averaged plainly before the recursion sets in (`init='sma'`)."""
        return int(float(self.decays[0].text)) if self.init == "sma" else 0

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

    def names(self, column: str) -> list[str]:
        """The new columns' names for one input column, in output order."""
        parts = ["ema"]
        parts += ["residual"] * self.residual + ["std"] * self.std
        parts += ["lower", "upper"] * (self.bands is not None)
        several = len(self.decays) > 1
        return [
            f"{column}_{part}{'_' + decay.text if several else ''}" for decay in self.decays for part in parts
        ]

    def signature(self) -> dict[str, Any]:
        """What must be the same for a saved state to be carried on."""
        return {
            **{decay.family: [d.text for d in self.decays] for decay in self.decays[:1]},
            "alpha in force": [None if math.isnan(d.alpha) else d.alpha for d in self.decays],
            "adjust": self.adjust,
            "init": self.init,
            "missing": self.missing,
            "fill": self.fill,
            "min-periods": self.min_periods,
            "std": self.std,
            "bands": self.bands,
            "residual": self.residual,
            "time": self.timed,
            "reset-gap": self.reset_gap,
        }


def make_average(options: Mapping[str, Any], *, timed: bool = False) -> Average:
    """The average that these options (public names, unset ones None or absent) ask for.

    Raises OptionError where none or several families are given, a value is out of range, or two options
    do not go together.
    """
    family, given = _family(options)
    decays = tuple(make_decay(family, value) for value in given)
    average = Average(
        decays=decays,
        adjust=bool(options.get("adjust")),
        init=_init(options.get("init")),
        missing=_choice("missing", options.get("missing"), ("skip", "decay", "error")),  # type: ignore[arg-type]
        fill=bool(options.get("fill")),
        min_periods=_at_least("min-periods", options.get("min_periods"), 0),
        std=bool(options.get("std")),
        bands=_bands(options.get("bands")),
        residual=bool(options.get("residual")),
        timed=timed,
        reset_gap=_reset_gap(options.get("reset_gap"), timed),
    )
    _check_together(average, family)
    return average


def _family(options: Mapping[str, Any]) -> tuple[str, list[float | str]]:
    chosen = {name: options[name] for name in FAMILIES if options.get(name) not in (None, ())}
    if not chosen:
        raise OptionError(
            "no weight given: how fast should the average forget?",
            "--alpha 0.1 (weight of the newest value), --span 20, --halflife 10, --com 9.5 or --decay 0.9",
        )
    if len(chosen) > 1:
        both = " and ".join(f"--{name}" for name in chosen)
        raise OptionError(f"{both} say the same thing in two ways", f"only --{next(iter(chosen))}")
    name, given = next(iter(chosen.items()))
    many = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    texts = [str(value).strip() for value in many]
    for text in texts:
        if texts.count(text) > 1:
            raise OptionError(f"--{name} {text} is given twice", "each weight once")
    return name, many


def _init(given: Any) -> str | float:
    if given is None:
        return "first"
    if given == "zero":
        return 0.0
    if given in ("first", "sma"):
        return str(given)
    try:
        number = float(given)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise OptionError(f"--init {given}: not one of first, zero, sma or a number", "--init first")
    return number


def _choice(name: str, given: Any, allowed: tuple[str, ...]) -> str:
    value = allowed[0] if given is None else given
    if value not in allowed:
        raise OptionError(f"--{name} {given}: not one of {', '.join(allowed)}", f"--{name} {allowed[0]}")
    return str(value)


def _at_least(name: str, given: Any, low: int) -> int:
    value = low if given is None else given
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise OptionError(
            f"--{name} {given}: must be a whole number, {low} or more", f"--{name} {max(low, 1)}"
        )
    return value


def _bands(given: Any) -> float | None:
    if given is None:
        return None
    try:
        number = float(given)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise OptionError(f"--bands {given}: must be a number of standard deviations above 0", "--bands 2")
    return number


def _reset_gap(given: Any, timed: bool) -> int | None:
    if given is None:
        return None
    duration = parse_duration(str(given))
    if duration is None or duration <= 0:
        raise OptionError(f"--reset-gap {given}: not a duration", "--reset-gap 1h")
    if not timed:
        raise OptionError("--reset-gap needs the times of the rows", "--time COLUMN")
    return duration


def _check_together(average: Average, family: str) -> None:
    """Refuse pairs of options that contradict each other, saying which to drop."""
    durations = [decay for decay in average.decays if decay.halflife_ns is not None]
    if durations and not average.timed:
        raise OptionError(
            f"--halflife {durations[0].text} is a duration, so the rows need times",
            f"--time COLUMN --halflife {durations[0].text}, or a half-life in rows: --halflife 10",
        )
    if average.timed and len(durations) < len(average.decays):
        raise OptionError(
            f"--time needs a half-life that is a duration, not --{family} {average.decays[0].text}",
            "--halflife 5min (units: ns us ms s min h d)",
        )
    if average.init != "first" and (average.adjust or average.timed):
        other = "--adjust" if average.adjust else "--time"
        raise OptionError(f"--init {average.init} does not go with {other}", "leave out one of the two")
    if average.init == "sma":
        spans = {decay.text for decay in average.decays}
        if family != "span" or len(spans) > 1 or not float(average.decays[0].text).is_integer():
            raise OptionError(
                "--init sma averages the first SPAN values", "--span 20 --init sma (one whole span)"
            )
