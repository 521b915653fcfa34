"""The same story with torch: update after each step, averages into the checkpoint, restore, predict.

    python examples/torch_loop.py [--steps 300]

Ends by comparing the averages with torch's own `AveragedModel`, which has followed the same steps.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from train_with_ema import load_weather

from ema_cli import ParameterEMA

DECAY = 0.99


def save(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, ema: ParameterEMA) -> None:
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "ema": ema.state_dict()}
    torch.save(state, path)


def restore(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> ParameterEMA:
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    ema = ParameterEMA(model, decay=DECAY)
    ema.load_state_dict(state["ema"])
    return ema


def train(steps: int, checkpoint: Path) -> dict[str, float]:
    """Validation loss of the parameters and of their averages, and how far off AveragedModel is at most."""
    torch.manual_seed(0)
    x, y = (torch.from_numpy(part).float() for part in load_weather())
    order = torch.randperm(len(x))
    held_out, rest = order[: len(x) // 5], order[len(x) // 5 :]
    model = torch.nn.Sequential(torch.nn.Linear(8, 24), torch.nn.Tanh(), torch.nn.Linear(24, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    ema = ParameterEMA(model, decay=DECAY)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    theirs.update_parameters(model)  # its first call copies, which ParameterEMA has done already

    def validate() -> float:
        with torch.no_grad():
            return float(torch.nn.functional.mse_loss(model(x[held_out]).squeeze(1), y[held_out]))

    for now in range(steps):
        batch = rest[torch.randint(len(rest), (8,))]
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x[batch]).squeeze(1), y[batch]).backward()
        optimizer.step()
        ema.update()
        theirs.update_parameters(model)
        if now == steps // 2:
            save(checkpoint, model, optimizer, ema)
            ema = restore(checkpoint, model, optimizer)

    raw = validate()
    with ema.average_parameters():
        averaged = validate()
    other: dict[str, Any] = theirs.module.state_dict()
    off = max(float((ema.ema[name] - tensor).abs().max()) for name, tensor in other.items())
    return {"raw": raw, "averaged": averaged, "off": off}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = train(options.steps, Path(folder) / "checkpoint.pt")
    print(f"validation loss: {found['raw']:.4f} of the parameters, {found['averaged']:.4f} of their averages")
    print(f"largest difference from torch's AveragedModel: {found['off']:.1e}")


if __name__ == "__main__":
    main()
