"""Where a run's time goes: `python benchmarks/profile.py FILE [OPTIONS of ema-smooth]`.

Each stage of the road is a handful of functions. Every call of them is timed by the wall and by the CPU
clock of its thread, less what it spends in another stage. Reading, computing and writing overlap, so the CPU
times add up to more than the run takes; where a stage's wall time exceeds its CPU time, it waits: for the
interpreter's lock, a free core or the disk.
"""

from __future__ import annotations

import importlib
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

BEGUN = time.perf_counter()
# By stage the functions that make it up; a name with (…) gives an iterator, whose steps are timed.
STAGES = {
    "read the input": ["formats.streams:InputFile.read"],
    "find the records": ["formats.text:index_records", "formats.text:TextSource._next_block"],
    "text to numbers": ["formats.cells:NumberReader.read"],
    "keys and times": ["keys:KeyTable.encode", "formats.text:to_nanoseconds", "formats.fields:contents"],
    "decode Parquet": ["formats.parquet:ParquetSource._record_batches()", "formats.parquet:_values"],
    "the average": ["trends:Trends.update"],
    "numbers to text": ["formats.text_sink:texts_of"],
    "splice": ["formats.text_sink:TextSink.write"],
    "encode Parquet": [
        "formats.parquet_sink:ParquetSink.write",
        "formats.parquet_sink:encoded",
        "formats.parquet_copy:encoded",
    ],
    "write the output": ["formats.streams:Output.write"],
    "sync the output": ["files:os.fsync"],
}


class Clock:
    """Adds up by stage the time that calls take, less that of the stages they call."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = defaultdict(float)
        self.cpu: dict[str, float] = defaultdict(float)
        self._local = threading.local()

    def call(self, stage: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        above = getattr(self._local, "inner", None)
        self._local.inner = [0.0, 0.0]
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            return function(*args, **options)
        finally:
            took = time.perf_counter() - wall, time.thread_time() - cpu
            self.wall[stage] += took[0] - self._local.inner[0]
            self.cpu[stage] += took[1] - self._local.inner[1]
            if above is not None:
                above[0] += took[0]
                above[1] += took[1]
            self._local.inner = above

    def steps(self, stage: str, items: Iterator[Any]) -> Iterator[Any]:
        while (item := self.call(stage, next, items, None)) is not None:
            yield item

    def watch(self, stage: str, where: str) -> None:
        """Put a timed function in the place of this one."""
        module, _, path = where.removesuffix("()").partition(":")
        *owners, name = path.split(".")
        owner: Any = importlib.import_module(f"ema_cli.{module}")
        for part in owners:
            owner = getattr(owner, part)
        function = getattr(owner, name)

        @wraps(function)
        def timed(*args: Any, **options: Any) -> Any:
            if where.endswith("()"):
                return self.steps(stage, function(*args, **options))
            return self.call(stage, function, *args, **options)

        setattr(owner, name, timed)


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        raise SystemExit(__doc__)
    from ema_cli.process import settle

    settle()
    from ema_cli.cli import command, make_job
    from ema_cli.run.pipeline import run

    job = make_job(command.make_context("profile", sys.argv[1:]).params)
    clock = Clock()
    for stage, functions in STAGES.items():
        for function in functions:
            clock.watch(stage, function)
    started, cpu = time.perf_counter(), time.process_time()
    run(job)
    wall, all_cpu = time.perf_counter() - started, time.process_time() - cpu
    print(f"{'start and imports':18} {started - BEGUN:8.3f} s wall {cpu:8.3f} s CPU", file=sys.stderr)
    print(f"{'the run':18} {wall:8.3f} s wall {all_cpu:8.3f} s CPU, of which", file=sys.stderr)
    for stage in STAGES:
        if clock.wall[stage] > 0.0005:
            share = clock.cpu[stage] / all_cpu
            print(
                f"  {stage:16} {clock.wall[stage]:8.3f} s wall {clock.cpu[stage]:8.3f} s CPU {share:6.1%}",
                file=sys.stderr,
            )
    rest = all_cpu - sum(clock.cpu.values())
    print(f"  {'all else':16} {'':15} {rest:8.3f} s CPU {rest / all_cpu:6.1%}", file=sys.stderr)


if __name__ == "__main__":
    main()
