"""When an update of the parameters counts, and with which decay: the options of `ParameterEMA`, checked once.

In every ramp n is the number of updates made before this one: 0, 1, 2, …
"""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ema_cli.decay import Decay, make_decay
from ema_cli.errors import OptionError
from ema_cli.parameters.power import gamma_of, power_weights

Ramp = Callable[[int], float]
Warmup = Literal["tf", "power", "exp"] | Ramp | None
# How fast an average forgets may be told in one of these.
FAMILIES = ("decay", "alpha", "halflife", "span", "power")

_EXAMPLES = {
    "decay": "decay=0.999",
    "alpha": "alpha=0.001",
    "halflife": "halflife=1000",
    "span": "span=2000",
    "power": "power=[0.05, 0.10]",
}
_RANGES = {
    "decay": (0.0, 1.0, "must be between 0 and 1"),
    "alpha": (0.0, 1.0, "must be between 0 and 1"),
    "halflife": (5e-324, math.inf, "must be a number of updates above 0"),
    "span": (1.0, math.inf, "must be 1 or more updates"),
    "power": (-math.inf, math.inf, ""),  # `gamma_of` says what is wrong with a width
}


# Classes, not closures: an object with a ramp can be pickled and sent to another process.


@dataclass(frozen=True)
class TfRamp:
    """min(decay, (1 + n) / (10 + n)): tf.train.ExponentialMovingAverage with num_updates."""

    decay: float

    def __call__(self, n: int) -> float:
        return min(self.decay, (1.0 + n) / (10.0 + n))


@dataclass(frozen=True)
class PowerRamp:
    """min(decay, 1 − (1 + n/γ)^−power): timm's ModelEmaV3 and diffusers' EMAModel, with their defaults.

    The first update (n = 0) is a copy. power 2/3 suits runs of a million steps and more, 3/4 shorter ones.
    """

    decay: float
    gamma: float = 1.0
    power: float = 2.0 / 3.0

    def __call__(self, n: int) -> float:
        return min(self.decay, 1.0 - math.pow(1.0 + n / self.gamma, -self.power))


@dataclass(frozen=True)
class ExpRamp:
    """decay · (1 − exp(−(n + 1)/τ)): ultralytics' ModelEMA, which counts the update before it asks."""

    decay: float
    tau: float = 2000.0

    def __call__(self, n: int) -> float:
        return self.decay * -math.expm1(-(n + 1.0) / self.tau)


# The names that they are known by.
tf_ramp, power_ramp, exp_ramp = TfRamp, PowerRamp, ExpRamp
_RAMPS: dict[str, Callable[[float], Ramp]] = {"tf": TfRamp, "power": PowerRamp, "exp": ExpRamp}


@dataclass(frozen=True)
class Schedule:
    """How `ParameterEMA` averages: one entry of `labels` for each average that is kept.

    labels: what each is called: the number that it was asked for by; None for a ramp alone.
    decays: one a label, or none with a ramp alone or with `gammas`. gammas: power-function exponents.
    """

    labels: tuple[float | None, ...]
    decays: tuple[Decay, ...]
    gammas: tuple[float, ...]
    warmup: str | None
    own_ramp: Ramp | None
    init: str
    bias_correction: bool
    update_every: int
    update_after_step: int
    on_nonfinite: str

    def weights(self, updates: int) -> list[tuple[float, float]]:
        """(decay, alpha) of each average's update after `updates` others.

        Raises OptionError if a ramp gives no decay.
        """
        if self.gammas:
            return [power_weights(gamma, updates + 1) for gamma in self.gammas]
        if not self.decays:
            return [self._ramped(updates, None)]
        return [self._ramped(updates, decay) for decay in self.decays]

    def _ramped(self, updates: int, limit: Decay | None) -> tuple[float, float]:
        ramp = self.own_ramp
        if self.warmup in _RAMPS and limit is not None:
            ramp = _RAMPS[self.warmup](limit.rest)
        if ramp is None:
            assert limit is not None  # one of the two is given: make_schedule
            return limit.rest, limit.alpha
        decay = ramp(updates)
        if not (isinstance(decay, numbers.Real) and 0.0 <= decay <= 1.0):
            raise OptionError(f"warmup({updates}) is {decay!r}: a decay is a number between 0 and 1")
        if limit is not None and decay >= limit.rest:
            return limit.rest, limit.alpha  # the ramp is over: the exact pair again
        return float(decay), 1.0 - float(decay)

    def with_decays(self, given: Any) -> Schedule:
        """The same with other decays, as many as before. Raises OptionError."""
        if self.gammas or not self.decays:
            raise OptionError("the decay of a power-function average, or of a ramp alone, can't be set")
        labels, decays = _labelled("decay", given)
        if len(decays) != len(self.decays):
            raise OptionError(
                f"{len(self.decays)} averages are kept, not {len(decays)}", "one decay for each"
            )
        return replace(self, labels=labels, decays=decays)

    def signature(self) -> dict[str, Any]:
        """What must be the same for a saved state to be carried on."""
        alphas = [decay.alpha for decay in self.decays]
        return {
            "alpha": None if not alphas else alphas[0] if len(alphas) == 1 else alphas,
            "power": list(self.labels) if self.gammas else None,
            "init": self.init,
            "bias_correction": self.bias_correction,
            "warmup": self.warmup,
            "update_every": self.update_every,
            "update_after_step": self.update_after_step,
            "on_nonfinite": self.on_nonfinite,
        }


def make_schedule(
    families: Mapping[str, Any],
    *,
    init: str,
    bias_correction: bool,
    warmup: Warmup,
    update_every: int,
    update_after_step: int,
    on_nonfinite: str,
) -> Schedule:
    """The schedule that these options ask for. Raises OptionError for what makes no sense."""
    choice("init", init, ("params", "zeros"))
    choice("on_nonfinite", on_nonfinite, ("error", "skip", "propagate"))
    _whole("update_every", update_every, 1)
    _whole("update_after_step", update_after_step, 0)
    if bias_correction and init == "params":
        raise OptionError(
            "bias_correction corrects a start from zeros; an average that starts from the parameters has no "
            "such bias",
            "init='zeros', bias_correction=True",
        )
    labels, decays, gammas = _lengths(families, callable(warmup))
    if gammas and (warmup is not None or init != "params"):
        raise OptionError(
            "a power-function average begins with a copy and has a ramp of its own: no warmup, no init",
            _EXAMPLES["power"],
        )
    if warmup is not None and not callable(warmup):
        choice("warmup", warmup, tuple(_RAMPS))
    named = "callable" if callable(warmup) else warmup
    own = warmup if callable(warmup) else None
    rest = (init, bias_correction, update_every, update_after_step, on_nonfinite)
    return Schedule(labels, decays, gammas, named, own, *rest)


def _lengths(
    families: Mapping[str, Any], has_own_ramp: bool
) -> tuple[tuple[float | None, ...], tuple[Decay, ...], tuple[float, ...]]:
    given = {family: value for family, value in families.items() if value is not None}
    if set(given) == {"decay", "alpha"}:
        raise OptionError("decay and alpha say the same thing in two ways: alpha is 1 − decay", "decay=0.999")
    if len(given) > 1:
        raise OptionError(f"{' and '.join(given)} say the same thing in two ways", _EXAMPLES[min(given)])
    if not given:
        if has_own_ramp:
            return (None,), (), ()
        raise OptionError("no weight given: how fast should the average forget?", "decay=0.999")
    ((family, value),) = given.items()
    if family != "power":
        labels, decays = _labelled(family, value)
        return labels, decays, ()
    widths = _numbers(family, value)
    return widths, (), tuple(gamma_of(width) for width in widths)


def _labelled(family: str, given: Any) -> tuple[tuple[float, ...], tuple[Decay, ...]]:
    labels = _numbers(family, given)
    return labels, tuple(make_decay(family, label) for label in labels)


def _numbers(family: str, given: Any) -> tuple[float, ...]:
    """One number or several, each in the family's range. Raises OptionError."""
    several = isinstance(given, Sequence) and not isinstance(given, str)
    values = list(given) if several else [given]
    low, high, words = _RANGES[family]
    for value in values:
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or math.isnan(value):
            raise OptionError(f"{family}={value!r}: not a number", _EXAMPLES[family])
        if not low <= float(value) <= high:
            raise OptionError(f"{family}={value!r}: {words}", _EXAMPLES[family])
    if not values or len(set(values)) < len(values):
        raise OptionError(f"{family}={given!r}: several averages have several lengths", _EXAMPLES[family])
    return tuple(float(value) for value in values)


def choice(name: str, given: Any, allowed: tuple[str, ...]) -> None:
    """Raise OptionError unless the option was given one of the allowed words."""
    if given not in allowed:
        raise OptionError(f"{name}={given!r}: not one of {', '.join(allowed)}", f"{name}={allowed[0]!r}")


def refuse_unknown(positional: Sequence[Any], unknown: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raise OptionError for options by position, and for names that there are not."""
    if positional:
        first = positional[0]
        example = f"decay={first!r}" if isinstance(first, numbers.Real) else "decay=0.999"
        raise OptionError("options are given by name", f"ParameterEMA(model, {example})")
    for name in unknown:
        near = difflib.get_close_matches(name, known, n=1)
        raise OptionError(f"there is no option {name!r}", f"{near[0]}=" if near else ", ".join(known))


def _whole(name: str, given: Any, low: int) -> None:
    if not isinstance(given, int) or isinstance(given, bool) or given < low:
        raise OptionError(f"{name}={given!r}: must be a whole number, {low} or more", f"{name}={max(low, 1)}")
