"""Settings of the whole process, made by a command before anything heavy is imported; and its processors.

These are unusual, so here is what each one gains. Measured in November 2026 on two
busy cores: CPU time, the best of six runs, of 500,000 rows of CSV to a file, and of 2,284 rows. What earned
less than a tenth is gone: mallopt, the switch interval, the threshold of the garbage collector, one BLAS
thread, sync_file_range.

    what                        worth                            where it can't be had
    pandas is not imported by   1.5 / 1.7 times the time and     everywhere
      Arrow (`NoPandas`)        1.4 times the memory without
    one heap, Arrow's and       a seventh less memory with keys  Arrow's own, where it has no `system`
      Python's (here)
    private functions of Arrow  an eighth of a small run         `pyarrow.compute` itself, if they move
      (`formats/arrow_compute`)
    `os._exit` at the end       a tenth of a small run; Arrow    everywhere
      (`console.leave`)         26.0.1 sometimes aborts while
                                Python shuts down
    forked helpers, workers     a sixth of a second each         spawned
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType


class NoPandas:
    """Keeps Arrow from importing pandas, which it does to see whether it is given pandas objects.

    That takes longer than all other imports together, and the commands have no pandas objects.
    """

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:  # noqa: ARG004 - Python's signature
        if name == "pandas":
            raise ImportError("the commands do without pandas")


def set_process_defaults() -> None:
    """Make the settings of the docstring above that are for the whole process."""
    # BLAS starts threads that nothing here uses and that prevent a fork (see `may_fork`). It reads these
    # variables when NumPy is imported.
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    sys.meta_path.insert(0, NoPandas())


# So many bytes of input pay for one further process. A fork starts at once; elsewhere a process takes a sixth
# of a second to start, in which a running one does 30 MB.
FORK_PAYS, SPAWN_PAYS = 16 << 20, 48 << 20
# With more processes than these, the one that folds is the slowest, and others wait for it.
MOST_PROCESSES = 8


def may_fork() -> bool:
    """Whether this process can be forked safely: a fork has none of the other threads.

    The thread of Arrow's allocator is no problem, since it handles forks itself.
    """
    if sys.platform != "linux":
        return False
    threads = [thread for thread in Path("/proc/self/task").iterdir() if int(thread.name) != os.getpid()]
    return {(thread / "comm").read_text() for thread in threads} <= {"jemalloc_bg_thd\n"}


def helpers_for(size: int, processes: int) -> int:
    """How many processes are to help with an input of so many bytes.

    processes: how many there may be in all, 0: as many as help; never more than processors.
    """
    most = min(processes or MOST_PROCESSES, usable_processors()) - 1
    if most < 1 or size < FORK_PAYS:
        return 0
    return min(most, size // (FORK_PAYS if may_fork() else SPAWN_PAYS))


def threads_for(processes: int) -> int:
    """How many threads are to pack what this process writes; `processes` as for `helpers_for`."""
    processors = usable_processors()
    return 1 if is_one_of_many() else min(processes or processors, processors)


def is_one_of_many() -> bool:
    """Whether this process is itself one of those that share the work, of a batch or on a cluster."""
    library = sys.modules.get("multiprocessing")  # which such a process has
    return library is not None and bool(library.current_process().daemon)


def usable_processors() -> int:
    """How many processors this process may use, which may be fewer than the machine has."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1
