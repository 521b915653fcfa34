"""When an update of the parameters counts, and with which decay: the options of `ParameterEMA`, checked once.

In every ramp n is the number of updates made before this one: 0, 1, 2, …
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ema_cli.decay import Decay, make_decay
from ema_cli.errors import OptionError

Ramp = Callable[[int], float]
Warmup = Literal["tf", "power", "exp"] | Ramp | None


def tf_ramp(decay: float) -> Ramp:
    """min(decay, (1 + n) / (10 + n)): tf.train.ExponentialMovingAverage with num_updates."""
    return lambda n: min(decay, (1.0 + n) / (10.0 + n))


def power_ramp(decay: float, gamma: float = 1.0, power: float = 2.0 / 3.0) -> Ramp:
    """min(decay, 1 − (1 + n/γ)^−power): timm's ModelEmaV3 and diffusers' EMAModel, whose defaults these are.

    The first update (n = 0) is a copy. power 2/3 suits runs of a million steps and more, 3/4 shorter ones.
    """
    return lambda n: min(decay, 1.0 - (1.0 + n / gamma) ** -power)


def exp_ramp(decay: float, tau: float = 2000.0) -> Ramp:
    """decay · (1 − exp(−(n + 1)/τ)): ultralytics' ModelEMA, which counts the update before it asks."""
    return lambda n: decay * -math.expm1(-(n + 1.0) / tau)


_RAMPS: dict[str, Callable[[float], Ramp]] = {"tf": tf_ramp, "power": power_ramp, "exp": exp_ramp}


@dataclass(frozen=True)
class Schedule:
    """How `ParameterEMA` averages. `decay` may be None only where `ramp` is the caller's own function."""

    decay: Decay | None
    warmup: str | None
    ramp: Ramp | None
    init: str
    bias_correction: bool
    update_every: int
    update_after_step: int
    on_nonfinite: str

    def weights(self, updates: int) -> tuple[float, float]:
        """(decay, alpha) of the update after `updates` others. OptionError if the ramp gives no decay."""
        if self.ramp is None:
            assert self.decay is not None  # one of the two is given: make_schedule
            return self.decay.rest, self.decay.alpha
        decay = self.ramp(updates)
        if not (isinstance(decay, numbers.Real) and 0.0 <= decay <= 1.0):
            raise OptionError(f"warmup({updates}) is {decay!r}: a decay is a number between 0 and 1")
        if self.decay is not None and decay >= self.decay.rest:
            return self.decay.rest, self.decay.alpha  # the ramp is over: the exact pair again
        return float(decay), 1.0 - float(decay)

    def signature(self) -> dict[str, Any]:
        """What must be the same for a saved state to be carried on."""
        return {
            "alpha": None if self.decay is None else self.decay.alpha,
            "init": self.init,
            "bias_correction": self.bias_correction,
            "warmup": self.warmup,
            "update_every": self.update_every,
            "update_after_step": self.update_after_step,
            "on_nonfinite": self.on_nonfinite,
        }


def make_schedule(  # noqa: PLR0913 (the options of ParameterEMA, by their names)
    *,
    decay: float | None,
    alpha: float | None,
    init: str,
    bias_correction: bool,
    warmup: Warmup,
    update_every: int,
    update_after_step: int,
    on_nonfinite: str,
) -> Schedule:
    """The schedule that these options ask for. Raises OptionError for what makes no sense."""
    _choice("init", init, ("params", "zeros"))
    _choice("on_nonfinite", on_nonfinite, ("error", "skip", "propagate"))
    _whole("update_every", update_every, 1)
    _whole("update_after_step", update_after_step, 0)
    if bias_correction and init == "params":
        raise OptionError(
            "bias_correction corrects a start from zeros; an average that starts from the parameters has no "
            "such bias",
            "init='zeros', bias_correction=True",
        )
    weight = _weight(decay, alpha, callable(warmup))
    name, ramp = _ramp(warmup, weight)
    return Schedule(weight, name, ramp, init, bias_correction, update_every, update_after_step, on_nonfinite)


def _weight(decay: float | None, alpha: float | None, has_own_ramp: bool) -> Decay | None:
    if decay is not None and alpha is not None:
        raise OptionError("decay and alpha say the same thing in two ways: alpha is 1 − decay", "decay=0.999")
    if decay is None and alpha is None:
        if has_own_ramp:
            return None
        raise OptionError("no weight given: how fast should the average forget?", "decay=0.999")
    family, given = ("decay", decay) if decay is not None else ("alpha", alpha)
    example = {"decay": "decay=0.999", "alpha": "alpha=0.001"}[family]
    if isinstance(given, bool) or not isinstance(given, numbers.Real) or math.isnan(given):
        raise OptionError(f"{family}={given!r}: not a number", example)
    if not 0.0 <= float(given) <= 1.0:
        raise OptionError(f"{family}={given!r}: must be between 0 and 1", example)
    return make_decay(family, float(given))


def _ramp(warmup: Warmup, decay: Decay | None) -> tuple[str | None, Ramp | None]:
    if warmup is None:
        return None, None
    if callable(warmup):
        return "callable", warmup
    _choice("warmup", warmup, tuple(_RAMPS))
    assert decay is not None  # only a callable goes without
    return warmup, _RAMPS[warmup](decay.rest)


def _choice(name: str, given: Any, allowed: tuple[str, ...]) -> None:
    if given not in allowed:
        raise OptionError(f"{name}={given!r}: not one of {', '.join(allowed)}", f"{name}={allowed[0]!r}")


def _whole(name: str, given: Any, low: int) -> None:
    if not isinstance(given, int) or isinstance(given, bool) or given < low:
        raise OptionError(f"{name}={given!r}: must be a whole number, {low} or more", f"{name}={max(low, 1)}")
