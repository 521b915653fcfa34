"""How far `--dask` scales: what its steps cost here, and what that comes to on larger clusters.

    python benchmarks/cluster_model.py [--rows 1000000]

Measures the CPU seconds of each step on CSV parts of two columns to smooth (one series, plain averages), and
what a part costs client and scheduler whatever is in it; then works out runs of 10¹² rows. What a worker does
with a part is its own affair and grows with the rows alone; what goes one after the other — the client's
thread of the run and the scheduler — has a price a part and a price a row.
"""

from __future__ import annotations

import argparse
import pickle
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from distributed import LocalCluster

from ema_cli.average import make_average
from ema_cli.cluster.chain import choose, finish, load
from ema_cli.cluster.client import run_on_cluster
from ema_cli.cluster.parted import begin, carry, cut_out, digest, measure
from ema_cli.job import Job
from ema_cli.keys import KeyTable

TRILLION = 1e12
PARTS = 300


@dataclass(frozen=True)
class Costs:
    """CPU seconds. row: of a worker. part: of client and scheduler together. thread: of the client, a row,
    one after the other."""

    row: float
    part: float
    thread: float


def timed(work: Callable[[], Any], times: int = 3) -> tuple[float, Any]:
    """The least CPU seconds of a few runs, and what came of the last."""
    least = 1e9
    for _ in range(times):
        start = time.process_time()
        result = work()
        least = min(least, time.process_time() - start)
    return least, result


def make_part(path: Path, rows: int) -> None:
    rng = np.random.default_rng(1)
    columns = {"t": np.arange(rows), "x": rng.standard_normal(rows).round(3), "y": rng.random(rows).round(3)}
    pyarrow.csv.write_csv(pa.table(columns | {"station": pa.array(["north"] * rows)}), path)


def steps(folder: Path, rows: int) -> dict[str, float]:
    """CPU seconds of each step on a part of so many rows."""
    make_part(folder / "part.csv", rows)
    average = make_average({"alpha": ("0.1",)})
    out = str(folder / "out.csv")
    job = Job(average, inputs=(str(folder / "part.csv"),), output=out, columns=("x", "y"))
    choice = choose(job, None, None)
    if choice is None:
        raise SystemExit("nothing to smooth")
    series, took = choice.series(job), {}
    took["load"], loaded = timed(lambda: load(job, choice))
    took["measure"], counts = timed(lambda: measure(series, loaded))
    trends, keys = series.trends(), KeyTable()
    position, _ = begin(series, trends, keys)
    took["advance"], spot = timed(lambda: position.copy().advance(counts, loaded.texts))
    took["digest"], digests = timed(lambda: digest(series, loaded, spot))
    took["cut out"], before = timed(lambda: cut_out(trends, spot), 20)
    took["finish"], _ = timed(lambda: finish(replace(job), choice, before, loaded.texts))
    took["carry"], _ = timed(lambda: carry(series.trends(), digests, spot), 20)
    took["bytes"] = float(len(pickle.dumps(digests)) + len(pickle.dumps(before)))
    return took


def part_seconds(folder: Path) -> float:
    """CPU seconds of client and scheduler, which here are one process, for a part of next to nothing."""
    names = []
    for number in range(PARTS):
        (folder / f"{number}.csv").write_text("x\n1\n2\n")
        names.append(str(folder / f"{number}.csv"))
    job = Job(make_average({"alpha": ("0.1",)}), inputs=tuple(names))
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster:
        run_on_cluster(job, str(folder / "out"), cluster.scheduler_address, chain=True)
        start = time.process_time()
        run_on_cluster(job, str(folder / "out"), cluster.scheduler_address, chain=True)
        return (time.process_time() - start) / PARTS


def table(costs: Costs) -> None:
    """10¹² rows by workers and rows a part."""
    print("\n| workers | rows a part | parts | hours | the thread is busy | efficiency |")
    print("|---|---|---|---|---|---|")
    for workers in (1, 10, 100, 1_000, 10_000):
        for rows in (1e6, 1e7, 1e8):
            parts = TRILLION / rows
            work = TRILLION * costs.row / workers
            thread = parts * costs.part + TRILLION * costs.thread
            # The first part goes through alone, and so does the last.
            whole = max(work, thread) + 2 * rows * costs.row
            ideal = TRILLION * costs.row / workers
            cells = (f"{workers:,}", f"{rows:,.0f}", f"{parts:,.0f}", f"{whole / 3600:,.2f}")
            print(f"| {' | '.join(cells)} | {thread / whole:.0%} | {ideal / whole:.0%} |")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as room:
        few, many = steps(Path(room), rows // 10), steps(Path(room), rows)
        part = part_seconds(Path(room))
    print("| step | where | ns a row | ms a part of " + f"{rows:,} rows |\n|---|---|---|---|")
    for name, seconds in many.items():
        if name != "bytes":
            where = "worker" if name in ("load", "measure", "digest", "finish") else "client"
            print(f"| {name} | {where} | {seconds / rows * 1e9:.2f} | {seconds * 1e3:.2f} |")
    print(f"\na part's digest and state: {many['bytes'] / 1e3:.0f} KB")
    grows = sum(many[name] - few[name] for name in ("advance", "cut out", "carry"))
    worker = sum(many[name] for name in ("load", "measure", "digest", "finish")) / rows
    costs = Costs(worker, part, max(0.0, grows) / (rows - rows // 10))
    print(f"client and scheduler: {costs.part * 1e3:.1f} ms a part and {costs.thread * 1e9:.3f} ns a row")
    table(costs)


if __name__ == "__main__":
    main()
