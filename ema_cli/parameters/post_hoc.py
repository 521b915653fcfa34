"""Averages of any length after the fact: the weights of snapshots, or checkpoints, that come closest to one.

The average that is wanted is a power-function average (`power.py`): at update t it weighs the parameters of
update τ by p(τ) = (γ + 1)·τ^γ / t^(γ + 1), its profile. A snapshot is such an average at an earlier update,
with a γ of its own. Two cases:

Snapshots
    Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models" (CVPR 2024), section
    3.2 and appendix C: the weights x minimise the squared distance between the wanted profile and Σ xᵢ·pᵢ,
    which leads to linear equations in the profiles' inner products. Two things differ here: the inner
    products are those of the real weights of an update-by-update average, the integrals of p over
    [τ − 1, τ], not of the continuous p, and Σ xᵢ = 1 is a condition of the fit, so that a parameter that
    never moved is itself.
Checkpoints as they are
    A profile of single points has no distance in that sense. What is compared is the cumulative weight
    F(τ) = (τ/t)^(γ + 1), a staircase here: the least squared distance is reached by steps that halve the
    difference, xᵢ = mean of F between this checkpoint and the next − mean of F between the last and this one.
    The same weights give the exact average of parameters that move in straight lines between checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ema_cli.errors import DataError, OptionError
from ema_cli.parameters.power import WIDEST, sigma_rel_of
from ema_cli.parameters.tensors import Float64s

# Up to this update the weights are summed one by one; after it the integral is as exact as float64.
_SUMMED = 1 << 20
_BLOCK = 1 << 16
# The squared rounding of a stored average (float32, 2^-24): weights of thousands would amplify it.
_ROUNDING = 2.0**-48
_GRID = 4096


@dataclass(frozen=True)
class Profile:
    """What a file holds. step: the update that it was written after; gamma: None for plain parameters."""

    step: int
    gamma: float | None = None


@dataclass(frozen=True)
class Fit:
    """Weights of files, and how close they come.

    Attributes
    ----------
    step, gamma : the profile that was wanted.
    coefficients : one for each file, in their order; they add up to 1 and may be negative.
    residual : the distance of the profiles, as a share of the wanted one's norm; None for checkpoints.
    worst : the largest difference of the cumulative weights, 0 to 1.
    moved : how many steps a weight lies from where it should, on average: the mean of those differences
        times the steps (the Wasserstein distance of the two profiles).
    """

    step: int
    gamma: float
    coefficients: list[float]
    residual: float | None
    worst: float
    moved: float

    @property
    def sigma_rel(self) -> float:
        """The relative width of the profile that was wanted."""
        return sigma_rel_of(self.gamma)

    @property
    def half_life_at_end(self) -> float:
        """Updates after which a weight has halved, by the decay of the last update."""
        return half_life_of(self.gamma, self.step)


def half_life_of(gamma: float, step: int) -> float:
    """The half-life in updates that the decay of update `step`, (1 − 1/step)^(γ + 1), stands for."""
    return math.inf if step < 1 else -math.log(2.0) / ((gamma + 1.0) * _log_rest(step))


def gamma_at_end(half_life: float, step: int) -> float:
    """The γ of the profile whose decay at update `step` has this half-life in updates.

    Raises OptionError where the half-life is longer than that of the plain mean, γ = 0.
    """
    longest = half_life_of(0.0, step)
    gamma = longest / half_life - 1.0
    if gamma < 0.0:
        raise OptionError(
            f"--half-life-at-end {half_life:g}: at update {step} the longest is {longest:.6g}, "
            "that of the plain mean of all updates",
            f"--half-life-at-end {longest / 10:.3g}, or --sigma-rel {WIDEST:.4f} for that mean",
        )
    return gamma


def _log_rest(step: int) -> float:
    """log(1 − 1/step); of the first update, which is a copy, −∞."""
    return math.log1p(-1.0 / step) if step > 1 else -math.inf


def fit(profiles: Sequence[Profile], gamma: float) -> Fit:
    """The weights whose average comes closest to the one of γ at the latest of the steps.

    Parameters
    ----------
    profiles : sequence of Profile
        All snapshots, or all plain checkpoints with growing steps.
    gamma : float
        Exponent of the wanted profile, 0 or more.

    Raises
    ------
    DataError
        Where snapshots and plain checkpoints are mixed, or two plain ones have the same step.
    """
    end = max(profile.step for profile in profiles)
    if all(profile.gamma is None for profile in profiles):
        coefficients, residual = _stairs([profile.step for profile in profiles], end, gamma), None
    elif any(profile.gamma is None for profile in profiles):
        raise DataError(
            "some files are power-function snapshots and some are not", hint="only the one kind or the other"
        )
    else:
        coefficients, residual = _least_squares(profiles, Profile(end, gamma))
    steps = np.unique(np.linspace(1, end, min(end, _GRID)).round())
    gap = cumulative([Profile(end, gamma)], [1.0], steps) - cumulative(profiles, coefficients, steps)
    worst, moved = float(np.abs(gap).max()), float(np.abs(gap).mean()) * end
    return Fit(end, gamma, [float(x) for x in coefficients], residual, worst, moved)


def cumulative(
    profiles: Sequence[Profile], coefficients: Sequence[float] | Float64s, steps: Float64s
) -> Float64s:
    """The weight that the average gives to all updates up to each of `steps`.

    The last update of a run counts whole, as does a plain checkpoint from its own step on.
    """
    total = np.zeros(len(steps))
    for profile, coefficient in zip(profiles, coefficients, strict=True):
        if profile.gamma is None:
            total += coefficient * (steps >= profile.step)
        else:
            total += coefficient * np.minimum(steps / profile.step, 1.0) ** (profile.gamma + 1.0)
    return total


def _stairs(steps: Sequence[int], end: int, gamma: float) -> Float64s:
    """The weights of plain checkpoints: see the module's docstring."""
    at = np.asarray(steps, np.float64)
    if not (np.diff(at) > 0).all():
        raise DataError(
            "two checkpoints are of the same step, or their steps do not grow",
            hint="one checkpoint for each step",
        )
    # The mean of F over an interval, from its integral.
    integral = end / (gamma + 2.0) * (at / end) ** (gamma + 2.0)
    means = np.diff(integral) / np.diff(at)
    return np.diff(np.concatenate([[0.0], means, [1.0]]))


def _least_squares(profiles: Sequence[Profile], wanted: Profile) -> tuple[Float64s, float]:
    """(weights that add up to 1, distance from the wanted profile as a share of its norm)."""
    products = inner_products([*profiles, wanted])
    scale = products[-1, -1]
    between, with_wanted = products[:-1, :-1] / scale, products[:-1, -1] / scale
    count = len(profiles)
    # Lagrange's conditions of the minimum under Σ x = 1; the profiles of near steps are nearly the same.
    equations = np.ones((count + 1, count + 1))
    equations[:count, :count] = between + _ROUNDING * np.eye(count)
    equations[count, count] = 0.0
    solution = np.linalg.lstsq(equations, np.append(with_wanted, 1.0), rcond=None)[0][:count]
    solution /= solution.sum()
    squared = 1.0 - 2.0 * (solution @ with_wanted) + solution @ between @ solution
    return solution, math.sqrt(max(float(squared), 0.0))


def inner_products(profiles: Sequence[Profile]) -> Float64s:
    """Σ_τ of the products of the weights that each two snapshots give to update τ, shape (n, n).

    Two averages of γ and γ' that both end at t have C(t) = Σ_τ w_τ(t)·w'_τ(t) in common; where the one ends
    earlier the other's weights of that time have faded by (t/t')^(γ' + 1).
    """
    gammas = sorted({_known(profile) for profile in profiles})
    steps = sorted({profile.step for profile in profiles})
    at_step = dict(zip(steps, _common(np.array(gammas), steps), strict=True))
    place = {gamma: k for k, gamma in enumerate(gammas)}
    products = np.empty((len(profiles), len(profiles)))
    for i, one in enumerate(profiles):
        for j, other in enumerate(profiles[: i + 1]):
            first, last = sorted((one, other), key=lambda profile: profile.step)
            faded = (first.step / last.step) ** (_known(last) + 1.0)
            shared = at_step[first.step][place[_known(first)], place[_known(last)]]
            products[i, j] = products[j, i] = shared * faded
    return products


def _known(profile: Profile) -> float:
    assert profile.gamma is not None  # `fit` has sent plain checkpoints elsewhere
    return profile.gamma


def _common(gammas: Float64s, steps: Sequence[int]) -> list[Float64s]:
    """C at each of the growing steps, for every pair of `gammas`."""
    powers = gammas[:, None] + 1.0
    both = powers + powers.T
    found, common, before = [], np.zeros((len(gammas), len(gammas))), 0
    for step in steps:
        while before < min(step, _SUMMED):
            after = min(step, before + _BLOCK, _SUMMED)
            updates = np.arange(before + 1.0, after + 1.0)
            with np.errstate(divide="ignore"):  # the first update has all of its weight: log 0
                shares = np.exp(powers * np.log(updates / after)) * -np.expm1(
                    powers * np.log1p(-1.0 / updates)
                )
            common = common * (before / after) ** both + shares @ shares.T
            before = after
        if before < step:
            faded = (before / step) ** both
            integral = powers * powers.T / (both - 1.0)
            common = common * faded + integral * (1.0 / step - faded / before)
            before = step
        found.append(common)
    return found
