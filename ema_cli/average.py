"""The options that shape the numbers, by their public names, checked once."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from ema_cli.choices import Missing, words_of
from ema_cli.decay import FAMILIES, Decay, make_decay, number_in, one_family, parse_duration
from ema_cli.errors import OptionError
from ema_cli.like import resolve_like
from ema_cli.state_options import options_of

# Yes-or-no options: those that ask for further columns (`bands` does too, but is a number), and all of them.
STATISTICS = ("residual", "std", "var", "sum", "cov", "corr", "double", "triple", "diff")
FLAGS = (*STATISTICS, "fill", "bias", "centered")
# Nanoseconds in a unit of times that are numbers.
TIME_STEPS = {
    "ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "min": 60 * 10**9, "h": 3_600 * 10**9, "d": 86_400 * 10**9
}  # fmt: skip


@dataclass(frozen=True)
class Average:
    """One or several averages over the same rows, and what else is computed of them.

    decays: one for each trend. adjust: bias-corrected weights. init: 'first', 'sma', 'sma:N' or a number.
    missing: what an empty cell does to the weights. fill: print the held trend there.
    min_periods: blank until so many values were seen. residual, std, var, bands, sum: further columns.
    timed: rows are spaced by their times. reset_gap: nanoseconds of silence after which to start afresh.
    like: the system whose numbers these are; the other fields say what that means. weighted: rows have
    weights. time_step: nanoseconds from an average before the first row to that row. cov, corr: of each pair
    of columns. bias: std, var and cov without the correction for bias. double, triple: made of averages of
    the average. diff: the first trend less the second. centered: rows on both sides count. name: pattern of
    the new columns' names.
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
    sum: bool = False
    cov: bool = False
    corr: bool = False
    bias: bool = False
    double: bool = False
    triple: bool = False
    diff: bool = False
    centered: bool = False
    name: str | None = None

    @property
    def steady(self) -> bool:
        """All rows decay alike, so that how a row weighs depends on how many rows were before it alone."""
        return not (self.timed or self.counts_gaps or self.seed_rows or self.weighted or self.centered)

    @property
    def counts_gaps(self) -> bool:
        """How a row weighs depends on how many missing rows are before it."""
        return self.missing == "decay" and not self.timed

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
        """Something that is made of the standard deviation is asked for."""
        return self.std or self.var or self.bands is not None

    @property
    def paired(self) -> bool:
        """Something is asked for each pair of columns."""
        return self.cov or self.corr

    @property
    def stages(self) -> int:
        """How many times averages are averaged again."""
        return 2 if self.triple else int(self.double)

    @property
    def seed_rows(self) -> int:
        """Number of first values whose plain mean the recursion starts from; the most of any weight."""
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
        return self.parts == ["ema"] and not (self.paired or self.diff)

    @property
    def parts(self) -> list[str]:
        """What there is of each column for each weight, in output order; `Trends` computes it by name."""
        asked = {
            "residual": self.residual, "std": self.std, "lower": self.bands, "upper": self.bands,
            "var": self.var, "sum": self.sum, "dema": self.double, "tema": self.triple,
        }  # fmt: skip
        return ["ema", *(part for part, wanted in asked.items() if wanted)]

    @property
    def pair_parts(self) -> list[str]:
        """What there is of each pair of columns for each weight, in output order."""
        return ["cov"] * self.cov + ["corr"] * self.corr

    def names(self, column: str) -> list[str]:
        """The new columns' names for one input column, in output order."""
        names = self._named(column, self.parts)
        texts = "-".join(decay.text for decay in self.decays)
        return [*names, self._name(column, "diff", texts, False)] if self.diff else names

    def pair_names(self, columns: Sequence[str]) -> list[str]:
        """The names of what there is of each pair of these columns, after all that is of one."""
        if not self.paired:
            return []
        return [name for pair in combinations(columns, 2) for name in self.names_of_pair(*pair)]

    def names_of_pair(self, one: str, other: str) -> list[str]:
        """The names of what there is of one pair of columns."""
        return self._named(f"{one}_{other}", self.pair_parts)

    def all_names(self, columns: Sequence[str]) -> list[str]:
        """All new columns' names, in output order."""
        return [name for column in columns for name in self.names(column)] + self.pair_names(columns)

    def width(self, columns: int) -> int:
        """How many new columns there are for so many of the input's."""
        of_column, pairs = len(self.decays) * len(self.parts) + self.diff, columns * (columns - 1) // 2
        return columns * of_column + pairs * len(self.decays) * len(self.pair_parts)

    def _named(self, column: str, parts: Sequence[str]) -> list[str]:
        several = len(self.decays) > 1
        return [self._name(column, part, decay.text, several) for decay in self.decays for part in parts]

    def _name(self, column: str, what: str, weight: str, several: bool) -> str:
        pattern = self.name or ("{col}_{what}_{weight}" if several else "{col}_{what}")
        given = {"{col}": column, "{what}": what, "{weight}": weight}
        return re.sub("|".join(map(re.escape, given)), lambda found: given[found[0]], pattern)

    def signature(self) -> dict[str, Any]:
        """What must be the same for a saved state to be carried on: every field, by its option's name.

        A field with a default that is added here is compared too, and a state without it has the default.
        """
        family = {self.decays[0].family: [decay.value for decay in self.decays]}
        return family | options_of(self, leave_out=("decays", "like", "name"))

    def plain(self, **changes: Any) -> Average:
        """The averages alone, without further columns; and with these changes."""
        return replace(self, **(dict.fromkeys(STATISTICS, False) | {"bands": None, "name": None} | changes))


def make_average(options: Mapping[str, Any], *, timed: bool = False, weighted: bool = False) -> Average:
    """The average that these options ask for, by their public names; None or absent is "not given".

    A flag that is False is given: it contradicts `like='pandas'`, which None does not. timed, weighted: the
    rows have times, weights. Raises OptionError where none or several families are given, a value is out of
    range, or two options do not go together.
    """
    options = resolve_like(options, timed)
    family, given = _family(options)
    # Two-sided averages are bias-corrected on either side.
    adjust = _flag("adjust", options) or _flag("centered", options)
    usual = "sma" if family == "wilder" and not (adjust or timed) else None
    init = _init(usual if options.get("init") is None else options["init"])
    if init != "first" and (adjust or (timed and isinstance(init, str))):
        other = "--centered" if _flag("centered", options) else "--adjust" if adjust else "--time"
        problem = f"--init {'zero' if init == 0.0 else init} does not go with {other}"
        raise OptionError(problem, "leave out one of the two")
    average = Average(
        decays=tuple(_seeded(make_decay(family, value), init, options.get("like")) for value in given),
        adjust=adjust,
        init=init,
        missing=_choice("missing", options.get("missing"), words_of(Missing)),  # type: ignore[arg-type]
        min_periods=_min_periods(options.get("min_periods")),
        bands=_bands(options.get("bands")),
        timed=timed,
        reset_gap=_reset_gap(options.get("reset_gap"), timed),
        like=options.get("like"),
        time_step=TIME_STEPS.get(str(options.get("time_unit")), TIME_STEPS["s"]),
        weighted=weighted,
        name=_pattern(options.get("name")),
        **{name: _flag(name, options) for name in FLAGS},
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
    """The decay, with the number of first values whose plain mean it starts from. Raises OptionError."""
    if not isinstance(init, str) or init == "first":
        return replace(decay, seed=0)
    if init != "sma":
        return replace(decay, seed=int(init.removeprefix("sma:")))
    if decay.family == "wilder":
        return decay
    if decay.family != "span" or not float(decay.text).is_integer():
        asked = "" if like is None else f" (that is how --like {like} begins)"
        say = ", or say how many: --init sma:20" if like is None else ""
        raise OptionError(
            f"--init sma averages the first SPAN values{asked}", f"whole spans, such as --span 20{say}"
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
    """Raise OptionError for weights that are given twice or don't fit rows with, or without, times."""
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


def _pattern(given: Any) -> str | None:
    """The pattern of new names. Raises OptionError."""
    if given is None:
        return None
    if not isinstance(given, str) or not given or "\n" in given:
        raise OptionError(f"--name {given!r}: not a pattern of names", "--name '{col}_{what}'")
    unknown = [word for word in re.findall(r"\{.*?\}", given) if word not in ("{col}", "{what}", "{weight}")]
    if unknown:
        raise OptionError(f"--name {given}: no {unknown[0]}", "{col}, {what} and {weight} are known")
    return given


def _check_together(average: Average) -> None:
    """Raise OptionError for options that contradict each other or mean nothing together."""
    if average.diff and len(average.decays) != 2:
        raise OptionError(
            f"--diff is the first trend less the second, and there {_are(len(average.decays))}",
            "two weights, such as --span 12 --span 26",
        )
    if average.name is not None:
        _check_pattern(average, average.name)
    if average.auto and (average.paired or average.weighted):
        other = "--weights" if average.weighted else "--cov and --corr"
        raise OptionError(
            f"--alpha auto does not go with {other}: the weight is found for one plain column",
            "find it by itself, then give it: --alpha 0.1",
        )
    if average.centered:
        _check_centered(average)


def _check_pattern(average: Average, pattern: str) -> None:
    """Raise OptionError for a pattern that gives two new columns of one column the same name."""
    several = {
        "{weight}": len(average.decays) > 1,
        "{what}": len({*average.parts, *average.pair_parts}) + average.diff > 1,
    }
    for word, needed in several.items():
        if needed and word not in pattern:
            problem = f"--name {pattern}: several new columns would have the same name"
            raise OptionError(problem, f"--name '{pattern}_{word}'")


def _are(number: int) -> str:
    return "is but one" if number == 1 else f"are {number}"


def _check_centered(average: Average) -> None:
    """Raise OptionError for what has no meaning where both sides of a row are known."""
    reasons = {
        "--double": (average.double, "it takes back a lag that a centered average has not"),
        "--triple": (average.triple, "it takes back a lag that a centered average has not"),
        "--fill": (average.fill, "a trend is held where nothing is known of later rows"),
        "--min-periods": (average.min_periods > 0, "every row sees all values of its series"),
        "--alpha auto": (average.auto, "that weight is the best for a forecast"),
    }
    for option, (given, reason) in reasons.items():
        if given:
            meant = f"{option}, which --like {average.like} means" if average.like else option
            raise OptionError(f"--centered does not go with {meant}: {reason}", "leave out one of the two")
