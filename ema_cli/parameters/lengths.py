"""How long the averages of a fold are to be: what `--decay` and its like ask for, checked once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ema_cli.decay import Decay, make_decay, number_in, parse_duration
from ema_cli.errors import OptionError
from ema_cli.parameters.power import gamma_of

DECAYS = ("decay", "alpha", "halflife")
POST_HOC = ("sigma-rel", "half-life-at-end")
FAMILIES = (*DECAYS, "uniform", "weights", *POST_HOC)
_EXAMPLE = "--decay 0.9 (weight of the old average), --alpha 0.1 (of the new) or --halflife 5 (checkpoints)"


@dataclass(frozen=True)
class Length:
    """What one average is.

    Attributes
    ----------
    family : one of `FAMILIES`; text : its value as it was typed, which names the output.
    decay : of a decay, and of the plain mean, whose decay is 1.
    weights : as given, one for each checkpoint.
    number : the relative width or the half-life of a post-hoc average.
    """

    family: str
    text: str
    decay: Decay | None = None
    weights: tuple[float, ...] = ()
    number: float = math.nan

    @property
    def post_hoc(self) -> bool:
        """True for an average by the profiles of snapshots."""
        return self.family in POST_HOC

    @property
    def option(self) -> str:
        """As it is typed."""
        return f"--{self.family}" + (f" {self.text}" if self.family != "uniform" else "")

    def signature(self) -> dict[str, Any]:
        """What must be the same for a saved state to be carried on; weights are those of their files."""
        return {"alpha": None if self.decay is None else self.decay.alpha}


def make_lengths(given: Mapping[str, Sequence[str] | bool | None]) -> tuple[Length, ...]:
    """The averages that the options ask for; `given` has what was typed by family.

    Raises OptionError where no family is given, or several, or a value makes no sense.
    """
    chosen = {family: given[family] for family in FAMILIES if given.get(family)}
    if not chosen:
        raise OptionError("no weight given: how fast should the average forget?", _EXAMPLE)
    if len(chosen) > 1:
        one, other = list(chosen)[:2]
        same = "say the same thing in two ways" if {one, other} <= set(DECAYS) else "exclude each other"
        raise OptionError(f"--{one} and --{other} {same}", f"only --{one}")
    family, values = next(iter(chosen.items()))
    if isinstance(values, bool):
        return (Length("uniform", "uniform", Decay("decay", "1", 0.0)),)
    assert values is not None  # those were left out above
    lengths = tuple(_length(family, value.strip()) for value in values)
    texts = [length.text for length in lengths]
    if twice := [text for text in texts if texts.count(text) > 1]:
        raise OptionError(f"--{family} {twice[0]} is given twice", f"--{family} {twice[0]} once")
    return lengths


def _length(family: str, value: str) -> Length:
    if family == "weights":
        return Length(family, value, weights=tuple(_weight(part, value) for part in value.split(",")))
    if "," in value:
        raise OptionError(
            f"--{family} {value}: one value at a time",
            " ".join(f"--{family} {part.strip()}" for part in value.split(",") if part.strip()),
        )
    if family == "sigma-rel":
        number = _positive(family, value, "0.1")
        try:
            gamma_of(number)
        except OptionError as error:
            raise OptionError(f"--sigma-rel: {error.problem}", "--sigma-rel 0.1") from error
        return Length(family, value, number=number)
    if family == "half-life-at-end":
        return Length(family, value, number=_positive(family, value, "1000"))
    return Length(family, value, decay=_decay(family, value))


def _positive(family: str, value: str, example: str) -> float:
    number = number_in(value)
    if number is None or number <= 0.0:
        raise OptionError(f"--{family} {value}: must be a number above 0", f"--{family} {example}")
    return number


def _weight(part: str, value: str) -> float:
    """A number, or a fraction such as 1/3."""
    above, slash, below = part.partition("/")
    numbers = [number_in(above.strip()), number_in(below.strip()) if slash else 1.0]
    if None in numbers or not numbers[1]:
        raise OptionError(
            f"--weights {value}: {part.strip()!r} is no number",
            "--weights 0.5,0.3,0.2, one for each checkpoint",
        )
    return float(Fraction(str(above.strip())) / Fraction(str(below.strip()) if slash else 1))


def _decay(family: str, value: str) -> Decay:
    if family == "halflife" and (number_in(value) or 0.0) <= 0.0 and parse_duration(value) is None:
        raise OptionError(f"--halflife {value}: must be a number of checkpoints above 0", "--halflife 5")
    try:
        decay = make_decay(family, value)
    except OptionError as error:
        raise OptionError(error.problem, "--decay 0.9 or --alpha 0.1 or --halflife 5") from error
    if decay.auto:
        raise OptionError("--alpha auto needs a series to learn from; checkpoints are none", "--alpha 0.1")
    if decay.halflife_ns is not None:
        raise OptionError(
            f"--halflife {value}: checkpoints have no times",
            "--halflife 5 (checkpoints; steps with --per-step)",
        )
    return decay
