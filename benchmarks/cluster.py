"""A chain of parts on one process and on Dask: the same outputs? how long, and how much memory a worker?

    python benchmarks/cluster.py [--rows 20000000] [--parts 64] [--format csv] [--by]

Runs the command four times on the same parts: `--chain` alone, `--dask local:1`, `--dask local:2`, and that
again with one of the workers killed in the middle. A run has as many processors as it has workers. Prints a
table and fails where the outputs differ.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Outcome:
    """What a run took. worker_mb: the most that any one worker held. digest: of all outputs.

    cpu: seconds of all processes, which other users of the machine change less than `seconds`.
    """

    seconds: float
    cpu: float
    worker_mb: float
    killed: int
    digest: str


def make_parts(folder: Path, rows: int, parts: int, kind: str) -> list[Path]:
    """A clock, one of 50 stations, and two readings with 3 % of one missing; parts of unequal length."""
    rng = np.random.default_rng(1)
    ends = np.sort(rng.choice(np.arange(1, rows), parts - 1, replace=False)) if parts > 1 else []
    even = np.linspace(0, rows, parts + 1).astype(int)[1:-1]
    bounds = [0, *((2 * even + ends) // 3 if parts > 1 else []), rows]
    out = []
    stations = pa.array([f"s{k:02}" for k in range(50)])
    for part in range(parts):
        begin, end = int(bounds[part]), int(bounds[part + 1])
        count = end - begin
        temperature = np.round(20 + np.cumsum(rng.standard_normal(count)) / 10, 2)
        missing = rng.random(count) < 0.03
        table = pa.table(
            {
                "t": np.arange(begin, end) * 1_000,
                "station": stations.take(pa.array(rng.integers(0, 50, count))),
                "temperature": pa.array(temperature, mask=missing),
                "load": rng.integers(0, 100_000, count) / 1_000,
            }
        )
        path = folder / f"part-{part:04}.{kind}"
        if kind == "csv":
            pyarrow.csv.write_csv(table, path)
        else:
            pyarrow.parquet.write_table(table, path)
        out.append(path)
    return out


def run(parts: list[Path], folder: Path, options: list[str], cores: int, *, kill: bool) -> Outcome:
    """One run of the command, watched from outside; `kill`: the largest worker when half is written."""
    command = [sys.executable, "-m", "ema_cli", *map(str, parts), "--output-dir", str(folder), "--chain"]
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(mine)[:cores])  # which the command and its workers inherit
    begin = time.perf_counter()
    process = psutil.Popen([*command, *options], env={**os.environ, "PYTHONPATH": str(ROOT)})
    os.sched_setaffinity(0, mine)
    peaks: dict[int, int] = {}
    cpu: dict[int, float] = {}
    killed = 0
    while process.poll() is None:
        sizes = {}
        try:
            for one in [process, *process.children(recursive=True)]:
                if one.is_running() and one.status() != psutil.STATUS_ZOMBIE:
                    sizes[one.pid] = one.memory_info().rss
                    cpu[one.pid] = sum(one.cpu_times()[:2])
        except psutil.Error:
            continue
        for pid, size in sizes.items():
            peaks[pid] = max(peaks.get(pid, 0), size)
        if kill and not killed and len(list(folder.glob("[!.]*"))) * 2 >= len(parts):
            victim = max(sizes.keys() - {process.pid}, key=sizes.__getitem__)
            os.kill(victim, signal.SIGKILL)
            killed = victim
        time.sleep(0.05)
    seconds = time.perf_counter() - begin
    if process.returncode:
        raise SystemExit(f"exit code {process.returncode}: {' '.join(options)}")
    workers = [size for pid, size in peaks.items() if pid != process.pid] or [peaks[process.pid]]
    return Outcome(
        seconds, sum(cpu.values()), max(workers) / 1e6, int(bool(killed)), digest(folder, len(parts))
    )


def digest(folder: Path, parts: int) -> str:
    """sha256 over all outputs by name; there must be one for each part, and nothing else."""
    names = sorted(folder.iterdir())
    if len(names) != parts:
        raise SystemExit(f"{len(names)} files, not {parts}: {names[:5]}")
    whole = hashlib.sha256()
    for name in names:
        with name.open("rb") as file:
            whole.update(f"{name.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--parts", type=int, default=64)
    parser.add_argument("--format", choices=["csv", "parquet"], default="csv")
    parser.add_argument("--by", action="store_true", help="50 interleaved series, not one")
    given = parser.parse_args()
    options = ["--alpha", "0.1", "-c", "temperature", "-c", "load", *(["--by", "station"] * given.by)]
    runs = {
        "one process": ([], 1, False),
        "--dask local:1": (["--dask", "local:1"], 1, False),
        "--dask local:2": (["--dask", "local:2"], 2, False),
        "the same, one worker killed": (["--dask", "local:2"], 2, True),
    }
    found: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory(prefix="ema-cluster-") as room:
        parts_folder, out = Path(room, "in"), Path(room, "out")
        parts_folder.mkdir()
        parts = make_parts(parts_folder, given.rows, given.parts, given.format)
        size = max(part.stat().st_size for part in parts) / 1e6
        print(f"{given.rows:,} rows in {given.parts} parts of up to {size:.1f} MB, {given.format}")
        for name, (more, cores, kill) in runs.items():
            found[name] = one = run(parts, out, [*options, *more], cores, kill=kill)
            took = f"{one.seconds:7.1f} s {one.cpu:7.1f} s of CPU {one.worker_mb:7.0f} MB"
            print(f"{name:28} {took} {one.killed} killed {one.digest[:16]}", flush=True)
            shutil.rmtree(out)
    ratio = found["--dask local:1"].seconds / found["--dask local:2"].seconds
    print(f"two workers are {ratio:.2f} times as fast as one")
    if len({one.digest for one in found.values()}) != 1:
        raise SystemExit("the outputs differ")
    print("four identical sets of outputs")


if __name__ == "__main__":
    main()
