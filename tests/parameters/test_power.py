"""Power-function profiles: the formulas of Karras et al. 2024, and what a snapshot says of itself."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ema_cli.errors import OptionError, StateError
from ema_cli.parameters.checkpoints.stream import METADATA_KEY
from ema_cli.parameters.power import WIDEST, Snapshot, gamma_of, power_weights, sigma_rel_of, snapshot_said


def test_the_papers_own_pairs() -> None:
    # Karras et al. 2024, section 3.1: σ_rel 0.05 and 0.10 are γ 16.97 and 6.94.
    assert [round(gamma_of(width), 2) for width in (0.05, 0.10)] == [16.97, 6.94]


@given(st.floats(1e-4, WIDEST))
def test_width_to_exponent_and_back(sigma_rel: float) -> None:
    gamma = gamma_of(sigma_rel)
    # At γ = 0 the width hardly moves: a step of it is worth many of γ, and back again.
    assert sigma_rel_of(gamma) == pytest.approx(sigma_rel, rel=1e-14)


@pytest.mark.parametrize("width", [0.0, -0.1, 0.29, math.nan])
def test_widths_that_no_profile_has(width: float) -> None:
    with pytest.raises(OptionError, match=r"at most 0\.2887"):
        gamma_of(width)


def test_updates_make_the_profile() -> None:
    gamma, updates = 3, 40
    weights = [0.0] * updates
    for t in range(1, updates + 1):
        decay, alpha = power_weights(gamma, t)
        weights = [w * decay for w in weights]
        weights[t - 1] += alpha
    exact = [
        float(Fraction(t ** (gamma + 1) - (t - 1) ** (gamma + 1), updates ** (gamma + 1)))
        for t in range(1, 41)
    ]
    assert weights == pytest.approx(exact, rel=1e-12)


def test_what_a_snapshot_says_is_read_back() -> None:
    said = Snapshot(7, 0.05, gamma_of(0.05), {"w": "bfloat16"}, {"head": "w"})
    assert snapshot_said(said.metadata(), "s") == said
    assert snapshot_said({}, "s") is None
    assert snapshot_said({METADATA_KEY: '{"kind": "other"}'}, "s") is None
    for old, new in (
        ('"version": 1', '"version": 2'),
        ('"step": 7', '"step": true'),
        ('"step": 7', '"step": 0'),
    ):
        with pytest.raises(StateError, match="s: "):
            snapshot_said({METADATA_KEY: said.metadata()[METADATA_KEY].replace(old, new)}, "s")
