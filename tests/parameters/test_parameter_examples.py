"""The training runs in examples/: the averages do better, and agree with torch's own."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_averages_do_better_on_every_seed_and_the_log_can_be_smoothed(tmp_path: Path) -> None:
    out = run(tmp_path, str(ROOT / "examples" / "train_with_ema.py"), "--seeds", "3")
    assert "averaged is better in 3 of 3" in out
    command = out.splitlines()[-1].split()
    assert command[0] == "ema-smooth"
    smoothed = run(tmp_path, "-m", "ema_cli", *command[1:]).splitlines()
    assert smoothed[0] == "step,val_loss,val_loss_averaged,val_loss_ema"
    with (tmp_path / "train_log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(smoothed) - 1 == 150
    settled = rows[50:]
    better = sum(float(row["val_loss_averaged"]) < float(row["val_loss"]) for row in settled)
    assert better > 0.95 * len(settled)


def test_the_same_run_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    logs = []
    for name in ("one", "two"):
        run(tmp_path, str(ROOT / "examples" / "train_with_ema.py"), "--seeds", "1", "--log", name)
        logs.append((tmp_path / name).read_bytes())
    assert logs[0] == logs[1]


@pytest.mark.torch
def test_torch_loop_agrees_with_averaged_model(tmp_path: Path) -> None:
    out = run(tmp_path, str(ROOT / "examples" / "torch_loop.py"), "--steps", "400")
    assert float(out.split()[-1]) <= 1e-6


def test_a_length_chosen_afterwards_is_better_than_the_last_parameters_and_every_fixed_decay(
    tmp_path: Path,
) -> None:
    out = run(tmp_path, str(ROOT / "examples" / "choose_length.py"), "--seeds", "3", "--keep", "kept")
    assert out.splitlines()[-1] == "the chosen length is better than all of them in 3 of 3"
    assert out.count("<- best") == 1
    kept = {path.name for path in (tmp_path / "kept").iterdir()}
    assert {"snap-3000-0.05.safetensors", "snap-3000-0.1.safetensors", "ema-0.25.npz"} <= kept


@pytest.mark.torch
def test_digits_averages_do_better_and_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the digits are scikit-learn's")
    pytest.importorskip("matplotlib", reason="pictures are of the extra [plot]")
    arguments = ["--seeds", "1", "--steps", "400", "--plot", "digits.png"]
    out = run(tmp_path, str(ROOT / "examples" / "digits.py"), *arguments)
    _, raw, averaged, *_ = next(line for line in out.splitlines() if line.startswith("mean")).split()
    assert float(averaged) < float(raw)
    assert (tmp_path / "digits.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "digits.trend.csv").open(newline="") as file:
        assert set(next(csv.reader(file))) >= {"loss_ema", "loss_averaged_ema"}
