"""Choose how long the average of the parameters is to be, after the training, by validation.

    python examples/choose_length.py [--seeds 3] [--keep snapshots]

A small network (10-16-1, tanh) learns from another one, whose answers it sees with noise. While it trains,
`ParameterEMA(power=[0.05, 0.10])` keeps two averages, and leaves snapshots of both every 100 steps. When the
training is over, `ema-weights --sigma-rel` makes averages of ten lengths from the snapshots in one pass; each
is validated on noisy rows, and the best is held against the last parameters and against averages of fixed
decays, on rows that neither the training nor the choice has seen.

Only NumPy is needed. --keep leaves the snapshots and the averages of the first seed in that folder.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ema_cli import ParameterEMA

STEPS = 3000
BATCH = 4
RATE = 0.03
NOISE = 1.0
INPUTS, HIDDEN = 10, 16
SNAPSHOT_EVERY = 100
ROWS = 20_000
LENGTHS = (0.01, 0.02, 0.03, 0.05, 0.07, 0.10, 0.13, 0.17, 0.21, 0.25)
DECAYS = (0.9, 0.99, 0.999, 0.9999)

Parameters = dict[str, np.ndarray[Any, np.dtype[np.float64]]]


def network(rng: np.random.Generator, steepness: float = 1.0) -> Parameters:
    return {
        "w1": steepness * rng.standard_normal((INPUTS, HIDDEN)) / np.sqrt(INPUTS),
        "b1": (steepness - 1.0) * rng.standard_normal(HIDDEN),
        "w2": steepness * rng.standard_normal(HIDDEN) / np.sqrt(HIDDEN),
        "b2": np.zeros(()),
    }


def predict(params: Parameters, x: Any) -> tuple[Any, Any]:
    hidden = np.tanh(x @ params["w1"] + params["b1"])
    return hidden, hidden @ params["w2"] + params["b2"]


def loss(params: Parameters, x: Any, y: Any) -> float:
    return float(np.mean((predict(params, x)[1] - y) ** 2))


def step(params: Parameters, x: Any, y: Any) -> None:
    """One step of gradient descent on the mean squared error, in place."""
    hidden, guess = predict(params, x)
    slope = 2 * (guess - y) / len(y)
    inner = np.outer(slope, params["w2"]) * (1 - hidden**2)
    gradients = {"w1": x.T @ inner, "b1": inner.sum(axis=0), "w2": hidden.T @ slope, "b2": slope.sum()}
    for name, gradient in gradients.items():
        params[name] -= RATE * gradient


def rows(teacher: Parameters, rng: np.random.Generator, count: int, noise: float) -> tuple[Any, Any]:
    """Inputs, and the teacher's answers with noise."""
    x = rng.standard_normal((count, INPUTS))
    return x, predict(teacher, x)[1] + noise * rng.standard_normal(count)


def train(seed: int, folder: Path) -> tuple[dict[str, Parameters], Parameters]:
    """Train, and leave snapshots in `folder`. Returns the last parameters and fixed averages; the teacher."""
    rng = np.random.default_rng(seed)
    teacher, params = network(rng, steepness=2.0), network(rng)
    powers = ParameterEMA(params, power=[0.05, 0.10])
    fixed = ParameterEMA(params, decay=list(DECAYS))
    for now in range(1, STEPS + 1):
        step(params, *rows(teacher, rng, BATCH, NOISE))
        powers.update(params)
        fixed.update(params)
        if now % SNAPSHOT_EVERY == 0:
            powers.snapshot(folder / f"snap-{now}.safetensors")
    return {"last": params} | {f"decay {decay}": dict(fixed.ema[decay]) for decay in DECAYS}, teacher


def averages(folder: Path) -> dict[str, Parameters]:
    """The averages of all lengths, made from the snapshots in one pass."""
    command = [sys.executable, "-m", "ema_cli.weights_cli", str(folder)]
    for length in LENGTHS:
        command += ["--sigma-rel", str(length)]
    subprocess.run(
        [*command, "-o", str(folder / "ema-{}.npz"), "--force"], check=True, stderr=subprocess.DEVNULL
    )
    made = {}
    for length in LENGTHS:
        with np.load(folder / f"ema-{length}.npz") as file:
            made[f"sigma-rel {length}"] = dict(file)
    return made


@contextlib.contextmanager
def folder_for(keep: Path | None) -> Iterator[Path]:
    """The folder that is to be kept, or one that is gone afterwards."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def curve(losses: dict[str, float]) -> str:
    """The losses as bars, the longest for the worst."""
    low, high = min(losses.values()), max(losses.values())
    lines = []
    for name, value in losses.items():
        bar = "#" * (1 + round(39 * (value - low) / (high - low)))
        lines.append(f"  {name:14} {value:.4f} {bar}{'  <- best' if value == low else ''}\n")
    return "".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="a folder for the first seed's snapshots and averages")
    options = parser.parse_args()
    tests, better = [], 0
    for seed in range(options.seeds):
        with folder_for(options.keep if seed == 0 else None) as folder:
            others, teacher = train(seed, folder)
            made = averages(folder)
        rng = np.random.default_rng(1000 + seed)
        choose, test = rows(teacher, rng, ROWS, NOISE), rows(teacher, rng, ROWS, 0.0)
        chosen_by = {name: loss(params, *choose) for name, params in made.items()}
        best = min(chosen_by, key=chosen_by.__getitem__)
        if seed == 0:
            print(f"validation loss by length, seed 0:\n{curve(chosen_by)}")
            print("test loss   ", "  ".join(f"{name:>12}" for name in others), "  chosen length")
        row = [loss(params, *test) for params in others.values()]
        chosen = loss(made[best], *test)
        better += chosen < min(row)
        tests.append([*row, chosen])
        print(f"seed {seed:<8}", "  ".join(f"{value:12.4f}" for value in row), f"  {chosen:.4f} ({best})")
    *means, chosen = np.mean(tests, axis=0)
    print("mean         ", "  ".join(f"{value:12.4f}" for value in means), f"  {chosen:.4f}")
    print(f"the chosen length is better than all of them in {better} of {options.seeds}")


if __name__ == "__main__":
    main()
