"""Where a run's time goes: `python benchmarks/stages.py FILE [OPTIONS of ema-smooth]`.

Each stage of the road is a handful of functions. Every call of them is timed by the wall clock and by the CPU
clock of its thread, less what it spends in another stage. Where a stage's wall time exceeds its CPU time it
waits: for the interpreter's lock, a free core or the disk; or Arrow's own threads work for it.
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
# By stage the functions that make it up; a name with () gives an iterator, whose steps are timed.
STAGES = {
    "read the input": ["io.streams:InputFile.read"],
    "find the records": ["formats.text.source:index_records", "formats.text.source:TextSource._next_block"],
    "text to numbers": ["formats.text.cells:NumberReader.read"],
    "keys and times": [
        *("keys:KeyTable.encode", "formats.clock:read_times", "formats.text.fields:contents"),
        "run.order:RowOrder.admit",
    ],
    "decode Parquet": ["formats.parquet.source:ParquetSource._record_batches()"],
    "the average": ["trends:Trends.update"],
    "numbers to text": ["formats.text.sink:texts_of"],
    "splice": ["formats.text.sink:TextSink.append"],
    "encode Parquet": ["formats.parquet.sink:encoded", "formats.parquet.copy:encoded"],
    "join Parquet": ["formats.parquet.sink:ParquetSink.write", "formats.parquet.copy:ParquetCopySink.write"],
    "write the output": ["io.output:Output.write"],
    "sync the output": ["io.atomic:os.fsync"],
}


class Clock:
    """Adds up by stage the (wall, CPU) seconds that calls take, less those of the stages they call."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._local = threading.local()

    def call(self, stage: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        above = getattr(self._local, "inner", [0.0, 0.0])
        self._local.inner = inner = [0.0, 0.0]
        begun = time.perf_counter(), time.thread_time()
        try:
            return function(*args, **options)
        finally:
            ended = time.perf_counter(), time.thread_time()
            for k in range(2):
                self.spent[stage][k] += ended[k] - begun[k] - inner[k]
                above[k] += ended[k] - begun[k]
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
    from ema_cli.process import set_process_defaults

    set_process_defaults()
    from ema_cli.cli import command, make_job
    from ema_cli.run.pipeline import run

    # In one process, so that all of it is seen here; see `cores.py` for several.
    job = make_job(command.make_context("profile", [*sys.argv[1:], "-j", "1"]).params)
    imported, cpu = time.perf_counter() - BEGUN, time.process_time()
    clock = Clock()
    for stage, functions in STAGES.items():
        for function in functions:
            clock.watch(stage, function)
    begun, before = time.perf_counter(), time.process_time()
    run(job)
    wall, spent = time.perf_counter() - begun, time.process_time() - before
    lines = [f"{'start and imports':18}{imported:8.3f}{cpu:8.3f}", f"{'the run':18}{wall:8.3f}{spent:8.3f}"]
    for stage in STAGES:
        took, part = clock.spent[stage]
        if took > 0.0005:
            lines.append(f"  {stage:16}{took:8.3f}{part:8.3f}{part / spent:7.0%}")
    rest = spent - sum(part for _, part in clock.spent.values())
    lines.append(f"  {'all else':16}{'':8}{rest:8.3f}{rest / spent:7.0%}")
    print(f"{'':18}{'wall s':>8}{'CPU s':>8}", *lines, sep="\n", file=sys.stderr)


if __name__ == "__main__":
    main()
