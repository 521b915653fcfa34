"""How close post-hoc averages come: their error by length, and by the number of snapshots.

    python benchmarks/post_hoc.py [--steps 8000]

Parameters walk at random about a slowly moving mean. Power-function averages of two widths leave snapshots,
in float32 as those of `ParameterEMA` are; averages of other lengths are kept along the run in float64. A cell
is the distance of the average that is fitted from snapshots to the one that was kept, as a share of the
latter's norm about its mean.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from ema_cli.parameters.post_hoc import Profile, fit
from ema_cli.parameters.power import gamma_of, power_weights

WIDTHS = (0.05, 0.10)
LENGTHS = (0.03, 0.04, 0.05, 0.07, 0.10, 0.13, 0.16, 0.20, 0.25)
COUNTS = (8, 16, 32, 64)
SIZE = 500

Kept = dict[int, dict[float, Any]]


def walk(steps: int) -> Kept:
    """The averages by γ, at all steps where a snapshot may be taken."""
    rng = np.random.default_rng(0)
    gammas = {gamma_of(length) for length in (*WIDTHS, *LENGTHS)}
    averages = {gamma: np.zeros(SIZE) for gamma in gammas}
    at = {steps * k // count for count in COUNTS for k in range(1, count + 1)}
    noise, goal, kept = np.zeros(SIZE), rng.normal(size=SIZE), {}
    for now in range(1, steps + 1):
        noise = 0.98 * noise + 0.2 * rng.normal(size=SIZE)
        parameters = goal * (1.0 - np.exp(-3.0 * now / steps)) + noise
        for gamma, so_far in averages.items():
            np.add(so_far, power_weights(gamma, now)[1] * (parameters - so_far), out=so_far)
        if now in at:
            kept[now] = {gamma: average.copy() for gamma, average in averages.items()}
    return kept


def error(kept: Kept, count: int, length: float) -> float:
    """The error of the average of that length, fitted to so many snapshots of each width."""
    steps = max(kept)
    profiles, values = [], []
    for step in sorted({steps * k // count for k in range(1, count + 1)}):
        for width in WIDTHS:
            profiles.append(Profile(step, gamma_of(width)))
            values.append(kept[step][gamma_of(width)].astype(np.float32).astype(np.float64))
    wanted = kept[steps][gamma_of(length)]
    got = np.array(fit(profiles, gamma_of(length)).coefficients) @ np.array(values)
    return float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted - wanted.mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=8000)
    kept = walk(parser.parse_args().steps)
    print("| snapshots of each width |", " | ".join(f"{length:g}" for length in LENGTHS), "|")
    print("|---" * (len(LENGTHS) + 1) + "|")
    for count in COUNTS:
        print(f"| {count} |", " | ".join(f"{error(kept, count, length):.0e}" for length in LENGTHS), "|")


if __name__ == "__main__":
    main()
