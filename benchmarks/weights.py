"""ema-weights beside a plain script that loads every checkpoint and averages: time and peak memory.

    python benchmarks/weights.py --checkpoints 5 --mb 1000 [--beside OTHER_CHECKOUT] [--rounds 3]

Writes that many float32 safetensors checkpoints of that size into a temporary folder (--folder says where)
and removes them. Each contender is a process of its own; the peak is what the kernel saw of it (VmHWM), its
imports included. Every round runs all of them one after the other; the best time of each counts, but not the
first round, so that all read from the page cache. In brackets, the ratio to ema-weights.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).resolve().parent.parent
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
command.main([*sys.argv[1:], "--force"], standalone_mode=False)
"""
REPORT = """
for line in open("/proc/self/status"):
    if line.startswith("VmHWM"): print(int(line.split()[1]) / 1000)
"""
THREE = ("--decay", "0.8", "--decay", "0.9", "--decay", "0.95")


def cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@dataclass
class Contender:
    """A program and its arguments, the checkout that it imports, and what was seen of it."""

    name: str
    program: str
    arguments: list[str]
    root: Path = ROOT
    seconds: float = float("inf")
    cpu: float = float("inf")
    peak: float = 0.0

    def run(self) -> None:
        start, before = time.perf_counter(), cpu_of_children()
        done = subprocess.run(
            [sys.executable, "-c", self.program + REPORT, *self.arguments],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(self.root)},
        )
        self.seconds = min(self.seconds, time.perf_counter() - start)
        self.cpu = min(self.cpu, cpu_of_children() - before)
        self.peak = max(self.peak, float(done.stdout.split()[-1]))


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


def contenders(names: list[str], folder: Path, beside: Path | None) -> list[Contender]:
    """What is measured. The shards that one writes are read by the next, once for each checkpoint."""
    first = [*names, "--decay", "0.9", "-o"]
    split = [str(folder / "shards/") + "/", "--shard-size", "300MB"]
    again = [split[0]] * len(names) + ["--decay", "0.9", "-o", str(folder / "again") + "/", *split[1:]]
    found = [
        Contender("load all and average", PLAIN, [*names, str(folder / "plain.safetensors")]),
        Contender("ema-weights", OURS, [*first, str(folder / "ours.safetensors")]),
        Contender("  into a folder of shards", OURS, [*first, *split]),
        Contender("  from and into shards", OURS, again),
        Contender(
            "  three lengths in one pass", OURS, [*names, *THREE, "-o", f"{folder}/ema-{{}}.safetensors"]
        ),
    ]
    if beside is not None:
        old = [*first, str(folder / "old.safetensors")]
        found.insert(2, Contender("ema-weights, the other checkout", OURS, old, beside))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoints", type=int, default=5)
    parser.add_argument("--mb", type=int, default=100, help="size of each, in MB of 10^6 bytes")
    parser.add_argument("--folder", help="where to put them, instead of the system's temporary folder")
    parser.add_argument("--beside", type=Path, help="another checkout, such as one of an older commit")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        names = write_checkpoints(Path(folder), options.checkpoints, options.mb)
        largest = options.mb * LARGEST
        print(f"{options.checkpoints} checkpoints of {options.mb} MB, largest tensor {largest:.0f} MB")
        runs = contenders(names, Path(folder), options.beside)
        for turn in range(options.rounds + 1):
            for each in runs:
                each.run()
                if turn == 0:
                    each.seconds = each.cpu = float("inf")
        ours = next(each for each in runs if each.name == "ema-weights")
        for each in runs:
            wall, cpu = each.seconds / ours.seconds, each.cpu / ours.cpu
            print(
                f"{each.name:32} {each.seconds:6.2f} s ({wall:.2f})   CPU {each.cpu:6.2f} s ({cpu:.2f})"
                f"   {each.peak:6.0f} MB"
            )
        plain, mine = (load_file(Path(folder) / f"{who}.safetensors") for who in ("plain", "ours"))
        off = max(float(np.abs(plain[name] - mine[name]).max()) for name in mine)
        print(f"largest difference between the two: {off:.1e}")


if __name__ == "__main__":
    main()
