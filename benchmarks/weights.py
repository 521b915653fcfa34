"""ema-weights beside a plain script that loads every checkpoint and averages: time and peak memory.

    python benchmarks/weights.py --checkpoints 5 --mb 1000

Writes that many float32 safetensors checkpoints of that size into a temporary folder (--folder says where)
and removes them. Each contender is a process of its own; the peak is what the kernel saw of it (VmHWM), its
imports included. Each runs once before the clock, so that both read from the page cache.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).resolve().parent.parent
DECAY = 0.9
# The largest tensor, an embedding, is this share of the whole.
LARGEST = 0.4

PLAIN = """
import sys
from safetensors.numpy import load_file, save_file
*names, output = sys.argv[1:]
models = [load_file(name) for name in names]
weights = [0.9 ** (len(models) - 1 - i) for i in range(len(models))]
average = {
    key: (sum(w * m[key].astype("float64") for w, m in zip(weights, models)) / sum(weights)).astype(m0.dtype)
    for key, m0 in models[-1].items()
}
save_file(average, output)
"""
OURS = """
import sys
from ema_cli.weights_cli import command
*names, output = sys.argv[1:]
command.main([*names, "--decay", "0.9", "-o", output, "--force"], standalone_mode=False)
"""
REPORT = """
for line in open("/proc/self/status"):
    if line.startswith("VmHWM"): print(int(line.split()[1]) / 1000)
"""


def write_checkpoints(folder: Path, count: int, megabytes: int) -> list[str]:
    """Checkpoints of one large and many middling tensors, each step a little off the one before."""
    rng = np.random.default_rng(0)
    elements = megabytes * 1_000_000 // 4
    sizes = {"embedding": int(elements * LARGEST)}
    sizes |= {f"layer.{i}": int(elements * (1 - LARGEST) / 24) for i in range(24)}
    names = []
    for step in range(count):
        model = {name: rng.standard_normal(size, np.float32) for name, size in sizes.items()}
        names.append(str(folder / f"step_{step}.safetensors"))
        save_file(model, names[-1])
    return names


def measured(program: str, names: list[str], output: Path) -> tuple[float, float]:
    """(seconds, MB at the peak) of the second run."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    seconds, peak = 0.0, 0.0
    for _ in range(2):
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", program + REPORT, *names, str(output)],
            check=True,
            capture_output=True,
            text=True,
            env=environment,
        )
        seconds, peak = time.perf_counter() - start, float(done.stdout.split()[-1])
    return seconds, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoints", type=int, default=5)
    parser.add_argument("--mb", type=int, default=100, help="size of each, in MB of 10^6 bytes")
    parser.add_argument("--folder", help="where to put them, instead of the system's temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        names = write_checkpoints(Path(folder), options.checkpoints, options.mb)
        largest = options.mb * LARGEST
        print(f"{options.checkpoints} checkpoints of {options.mb} MB, largest tensor {largest:.0f} MB")
        outputs = {}
        for who, program in {"load all and average": PLAIN, "ema-weights": OURS}.items():
            outputs[who] = Path(folder) / f"{who.replace(' ', '_')}.safetensors"
            seconds, peak = measured(program, names, outputs[who])
            print(f"{who:22} {seconds:6.1f} s  {peak:8.0f} MB")
        plain, ours = (load_file(path) for path in outputs.values())
        off = max(float(np.abs(plain[name] - ours[name]).max()) for name in ours)
        print(f"largest difference between the two: {off:.1e}")


if __name__ == "__main__":
    main()
