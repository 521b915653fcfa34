"""How far `--dask` scales: what its steps cost here, and what that comes to on larger clusters.

    python benchmarks/cluster_model.py [--rows 1000000]

Measures the CPU seconds of each step on CSV parts of two columns to smooth (one series, plain averages), and
what a task costs Dask; then works out runs of 10¹² rows. What a worker does with a part is its own affair
and grows with the rows alone; what goes one after the other — the client's thread of the run and the
scheduler — has a price a part and a price a row.
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
from distributed import Client, LocalCluster, as_completed

from ema_cli.average import make_average
from ema_cli.cluster.chain import choose, finish, load
from ema_cli.cluster.parted import begin, carry, cut_out, digest, measure
from ema_cli.job import Job
from ema_cli.keys import KeyTable

TRILLION = 1e12
TASKS = 2_000


@dataclass(frozen=True)
class Costs:
    """CPU seconds. row: of a worker. thread_part, thread_row: of the client, one after the other. task: of
    the scheduler and the client, for one that does nothing."""

    row: float
    thread_part: float
    thread_row: float
    task: float


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


def nothing(number: int) -> int:
    """A task that costs only what Dask costs."""
    return number


def task_seconds() -> float:
    """CPU seconds of client and scheduler, which here are one process, for a task that does nothing."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        client.submit(nothing, -1).result()
        begin_at = time.process_time()
        futures = [client.submit(nothing, k, pure=False) for k in range(TASKS)]
        for _ in as_completed(futures, with_results=True):
            pass
        return (time.process_time() - begin_at) / TASKS


def table(costs: Costs) -> None:
    """10¹² rows by workers and rows a part."""
    print("\n| workers | rows a part | parts | hours | the thread is busy | efficiency |")
    print("|---|---|---|---|---|---|")
    for workers in (1, 10, 100, 1_000, 10_000):
        for rows in (1e6, 1e7, 1e8):
            parts = TRILLION / rows
            work = TRILLION * costs.row / workers
            thread = parts * (costs.thread_part + 4 * costs.task) + TRILLION * costs.thread_row
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
    print("| step | where | ns a row | ms a part of " + f"{rows:,} rows |\n|---|---|---|---|")
    for name, seconds in many.items():
        if name != "bytes":
            where = "worker" if name in ("load", "measure", "digest", "finish") else "client"
            print(f"| {name} | {where} | {seconds / rows * 1e9:.2f} | {seconds * 1e3:.2f} |")
    task = task_seconds()
    print(f"\na task: {task * 1e3:.2f} ms; a part's digest and state: {many['bytes'] / 1e3:.0f} KB")
    thread = {name: few[name] for name in ("advance", "cut out", "carry")}
    slope = max(0.0, sum(many[name] - few[name] for name in thread) / (rows - rows // 10))
    worker = sum(many[name] for name in ("load", "measure", "digest", "finish")) / rows
    costs = Costs(worker, sum(thread.values()) - slope * (rows // 10), slope, task)
    print(f"the thread: {costs.thread_part * 1e3:.2f} ms a part and {costs.thread_row * 1e9:.3f} ns a row")
    table(costs)


if __name__ == "__main__":
    main()
