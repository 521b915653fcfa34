"""Averages of any length after the fact, against exact arithmetic and averages kept along the run."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.post_hoc import error, walk
from ema_cli.errors import DataError, OptionError
from ema_cli.parameters.post_hoc import (
    Profile,
    cumulative,
    fit,
    gamma_at_end,
    half_life_of,
    inner_products,
)
from ema_cli.parameters.power import WIDEST, gamma_of, power_weights, sigma_rel_of


def exact_weights(gamma: int, step: int, upto: int) -> list[Fraction]:
    """The weight of each update in the average that ends at `step`, by running it on unit vectors."""
    weights = [Fraction(0)] * upto
    for now in range(1, step + 1):
        decay = (1 - Fraction(1, now)) ** (gamma + 1)
        weights = [weight * decay for weight in weights]
        weights[now - 1] += 1 - decay
    return weights


profiles = st.lists(
    st.tuples(st.integers(1, 24), st.integers(0, 9)), min_size=1, max_size=6, unique=True
).map(lambda pairs: [Profile(step, float(gamma)) for step, gamma in pairs])


@given(profiles)
def test_inner_products_are_the_sums_over_all_updates(snapshots: list[Profile]) -> None:
    upto = max(profile.step for profile in snapshots)
    weights = [exact_weights(int(profile.gamma or 0), profile.step, upto) for profile in snapshots]
    expected = [[float(sum(x * y for x, y in zip(a, b, strict=True))) for b in weights] for a in weights]
    np.testing.assert_allclose(inner_products(snapshots), expected, rtol=1e-12)


def test_inner_products_of_long_runs_go_over_into_the_paper_s_integral() -> None:
    """Appendix C: (γ+1)(γ'+1)/(γ+γ'+1) · (t/t')^γ' / t' for t ≤ t'."""
    one, other = Profile(3_000_000, 6.9), Profile(9_000_000, 16.9)
    integral = 7.9 * 17.9 / 24.8 * (1 / 3) ** 16.9 / 9_000_000
    got = inner_products([one, other])[0, 1]
    assert got == pytest.approx(integral, rel=1e-6)
    # Where the sum ends and the integral begins nothing jumps.
    near = [inner_products([Profile((1 << 20) + k, 6.9)])[0, 0] * ((1 << 20) + k) for k in (-1, 0, 1, 2)]
    np.testing.assert_allclose(near, near[0], rtol=1e-9)


@given(profiles, st.integers(0, 9))
def test_no_other_weights_that_add_up_to_one_come_closer(snapshots: list[Profile], gamma: int) -> None:
    found = fit(snapshots, float(gamma))
    assert sum(found.coefficients) == pytest.approx(1.0, abs=1e-12)
    upto = found.step
    columns = np.array(
        [[float(w) for w in exact_weights(int(p.gamma or 0), p.step, upto)] for p in snapshots]
    )
    wanted = np.array([float(w) for w in exact_weights(gamma, upto, upto)])
    distance = np.linalg.norm(wanted - found.coefficients @ columns)
    assert found.residual == pytest.approx(distance / np.linalg.norm(wanted), abs=1e-6)
    rng = np.random.default_rng(0)
    for _ in range(20):
        other = np.array(found.coefficients) + 0.1 * rng.normal(size=len(snapshots))
        other += (1.0 - other.sum()) / len(other)
        assert np.linalg.norm(wanted - other @ columns) > distance - 1e-6 * np.linalg.norm(wanted)


def test_a_profile_that_is_there_is_taken_as_it_is() -> None:
    snapshots = [Profile(step, gamma_of(width)) for step in (500, 1000) for width in (0.05, 0.1)]
    found = fit(snapshots, gamma_of(0.1))
    np.testing.assert_allclose(found.coefficients, [0, 0, 0, 1], atol=1e-6)
    assert found.residual == pytest.approx(0.0, abs=1e-6)
    assert found.sigma_rel == pytest.approx(0.1)


def test_the_error_falls_as_snapshots_grow_at_every_length() -> None:
    kept = walk(2000)
    for length in (0.03, 0.07, 0.13, 0.2):
        errors = [error(kept, count, length) for count in (8, 16, 32, 64)]
        assert all(after < 0.6 * before for before, after in itertools.pairwise(errors)), errors
        assert errors[-1] < 2e-3
    assert error(kept, 64, 0.1) < 1e-6, "one of the widths that were kept: only their rounding is left"


# Plain checkpoints


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6, unique=True), st.floats(0, 20))
def test_weights_of_checkpoints_are_the_average_of_straight_lines(steps: list[int], gamma: float) -> None:
    steps = sorted(steps)
    found = fit([Profile(step) for step in steps], gamma)
    assert sum(found.coefficients) == pytest.approx(1.0)
    assert min(found.coefficients) >= -1e-12
    # ∫ p(τ)·θ(τ) dτ for θ that is one checkpoint's hat: 1 there, 0 at its neighbours, straight between.
    fine = np.linspace(0, steps[-1], 400_001)
    middle = (fine[1:] + fine[:-1]) / 2
    mass = np.diff((fine / steps[-1]) ** (gamma + 1))
    for number, weight in enumerate(found.coefficients):
        hat = np.interp(middle, steps, [float(k == number) for k in range(len(steps))])
        assert weight == pytest.approx(float(mass @ hat), abs=1e-5)


def test_how_far_off_is_said() -> None:
    coarse = fit([Profile(step) for step in (250, 500, 750, 1000)], 5.0)
    fine = fit([Profile(step) for step in range(10, 1001, 10)], 5.0)
    assert coarse.residual is None
    assert fine.worst < 0.2 * coarse.worst
    assert fine.moved < 0.2 * coarse.moved
    assert coarse.moved < 250


def test_what_can_not_be_fitted() -> None:
    with pytest.raises(DataError, match="some are not"):
        fit([Profile(1, 2.0), Profile(2)], 1.0)
    with pytest.raises(DataError, match="same step"):
        fit([Profile(2), Profile(2)], 1.0)


# The two ways to say a length


def test_half_life_at_the_end_is_that_of_the_last_decay() -> None:
    for step, half_life in ((1000, 50.0), (10, 2.0), (10**9, 1e6)):
        gamma = gamma_at_end(half_life, step)
        decay, _ = power_weights(gamma, step)
        assert decay**half_life == pytest.approx(0.5, rel=1e-9)
        assert half_life_of(gamma, step) == pytest.approx(half_life)
    with pytest.raises(OptionError, match=r"at update 1000 the longest is 692\.8"):
        gamma_at_end(700.0, 1000)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 6.94, 96.0])
def test_sigma_rel_is_the_standard_deviation_of_the_profile(gamma: float) -> None:
    mean, square = (gamma + 1) / (gamma + 2), (gamma + 1) / (gamma + 3)
    assert sigma_rel_of(gamma) == pytest.approx(math.sqrt(square - mean**2), rel=1e-6)
    assert gamma_of(min(sigma_rel_of(gamma), WIDEST)) == pytest.approx(gamma, abs=1e-9)


def test_cumulative_weights() -> None:
    steps = np.array([1.0, 5.0, 10.0])
    np.testing.assert_allclose(cumulative([Profile(10, 1.0)], [1.0], steps), [0.01, 0.25, 1.0])
    np.testing.assert_allclose(cumulative([Profile(5), Profile(10)], [0.4, 0.6], steps), [0, 0.4, 1.0])
