"""Train on scikit-learn's handwritten digits with torch, and predict with the averages of the parameters.

    python examples/digits.py [--seeds 5] [--steps 1000] [--log digits.csv] [--plot digits.png]

A small network learns from minibatches of 8 at a constant rate; `ema.follow(optimizer)` averages after each
step. Half-way the run is saved, thrown away and restored: what follows is bit for bit the same run. The first
seed's validation curves go to the log, and with --plot `ema-smooth` smooths and draws them. Needs torch and
scikit-learn.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn

from ema_cli import ParameterEMA

DECAY = 0.99
BATCH = 8
VALIDATE_EVERY = 10


class Run:
    """All that a run is, and what a checkpoint of it holds."""

    def __init__(self) -> None:
        self.model = nn.Sequential(nn.Linear(64, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 10))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.5, momentum=0.5)
        self.ema = ParameterEMA(self.model, decay=DECAY, warmup="tf")
        self.ema.follow(self.optimizer)

    def save(self, path: Path) -> None:
        parts = {"model": self.model, "optimizer": self.optimizer, "ema": self.ema}
        torch.save({name: part.state_dict() for name, part in parts.items()}, path)

    @classmethod
    def restored(cls, path: Path) -> Run:
        run = cls()
        saved = torch.load(path, weights_only=True)
        run.model.load_state_dict(saved["model"])
        run.optimizer.load_state_dict(saved["optimizer"])
        run.ema.load_state_dict(saved["ema"])
        return run


def load() -> tuple[Any, Any, Any, Any]:
    """Pixels and digits to train on, and to validate with."""
    digits = load_digits()
    x, y = torch.tensor(digits.data / 16.0, dtype=torch.float32), torch.tensor(digits.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    held_out, rest = order[:600], order[600:]
    return x[rest], y[rest], x[held_out], y[held_out]


def validated(model: nn.Module, x: Any, y: Any) -> tuple[float, float]:
    """(cross-entropy, share of wrong answers)."""
    model.eval()
    with torch.no_grad():
        answers = model(x)
    model.train()
    wrong = (answers.argmax(1) != y).float().mean()
    return float(nn.functional.cross_entropy(answers, y)), float(wrong)


def train(seed: int, steps: int, checkpoint: Path) -> Iterator[tuple[Any, ...]]:
    """Yield (step, loss and error of the parameters, loss and error of their averages)."""
    x, y, x_held_out, y_held_out = load()
    torch.manual_seed(seed)
    run = Run()
    for now in range(1, steps + 1):
        batch = torch.randint(len(x), (BATCH,))
        run.optimizer.zero_grad()
        nn.functional.cross_entropy(run.model(x[batch]), y[batch]).backward()
        run.optimizer.step()
        if now == steps // 2:  # as if the machine had gone down
            run.save(checkpoint)
            run = Run.restored(checkpoint)
        if now % VALIDATE_EVERY == 0:
            raw = validated(run.model, x_held_out, y_held_out)
            with run.ema.average_parameters():
                averaged = validated(run.model, x_held_out, y_held_out)
            yield now, *raw, *averaged


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--log", type=Path, default=Path("digits.csv"))
    parser.add_argument("--plot", type=Path, help="draw the first seed's curves with ema-smooth")
    options = parser.parse_args()
    torch.set_num_threads(1)  # so small a network is quicker on one
    print("validation after the last step     loss             wrong answers")
    print("seed                           raw    averaged      raw    averaged")
    finals = []
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            rows = list(train(seed, options.steps, Path(folder) / "checkpoint.pt"))
        finals.append(rows[-1][1:])
        print_row(str(seed), rows[-1][1:])
        if seed == 0:
            lines = [",".join(f"{value:.6g}" for value in row) + "\n" for row in rows]
            options.log.write_text("step,loss,wrong,loss_averaged,wrong_averaged\n" + "".join(lines))
    print_row("mean", torch.tensor(finals).mean(0).tolist())
    draw = [str(options.log), "-c", "loss", "-c", "loss_averaged", "--span", "20", "--x", "step"]
    draw += ["--only", "-o", str(options.log.with_suffix(".trend.csv"))]
    draw += ["--plot", str(options.plot or options.log.with_suffix(".png"))]
    print(f"\nThe first seed's curves, smoothed and drawn:\n  ema-smooth {' '.join(draw)}")
    if options.plot is not None:
        subprocess.run([sys.executable, "-m", "ema_cli", *draw], check=True)


def print_row(name: str, row: Any) -> None:
    raw, wrong, averaged, wrong_averaged = row
    losses, errors = f"{raw:6.4f}  {averaged:6.4f}", f"{wrong:6.2%}  {wrong_averaged:6.2%}"
    print(f"{name:4}                        {losses}        {errors}")


if __name__ == "__main__":
    main()
