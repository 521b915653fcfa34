"""Settings of the whole process, made once by a command before anything heavy is imported."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType

# glibc's numbers for mallopt, from malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8


class NoPandas:
    """Keeps Arrow from importing pandas, which it does to see whether what it converts is pandas' own.

    That takes longer than all other imports together, and the commands never hold anything of pandas'.
    """

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:  # noqa: ARG004 - Python's signature
        if name == "pandas":
            raise ImportError("the commands do without pandas")


@contextlib.contextmanager
def with_pandas() -> Iterator[None]:
    """For a package that asks what pandas is; meanwhile nothing of Arrow's may be at work."""
    blockers = [finder for finder in sys.meta_path if isinstance(finder, NoPandas)]
    for blocker in blockers:
        sys.meta_path.remove(blocker)
    try:
        yield
    finally:
        sys.meta_path[:0] = blockers


def set_process_defaults() -> None:
    """Make the process quick: no spinning BLAS threads, no pandas behind Arrow's back, buffers kept."""
    # NumPy's BLAS starts threads that spin; nothing here uses it. It looks when NumPy is imported.
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    # Arrow's own allocator keeps a heap beside Python's: one for both takes a fifth less memory.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    # Reading, computing and writing hand the interpreter's lock on often; the usual 5 ms is most of a batch.
    sys.setswitchinterval(0.0005)
    sys.meta_path.insert(0, NoPandas())
    # To import makes a hundred thousand objects and no garbage to look for.
    gc.set_threshold(50_000)
    keep_buffers()


def usable_processors() -> int:
    """How many processors this process may use, which may be fewer than the machine has."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def keep_buffers() -> None:
    """Let the memory allocator keep what is freed for what comes next.

    Buffers of a few MB come and go with every batch: by default glibc gives each back to the system and
    fetches it anew, a quarter of the time in page faults. 32 MiB is the most it takes.
    """
    if (library := linux_c_library()) is not None and hasattr(library, "mallopt"):
        library.mallopt(_MMAP_THRESHOLD, 32 << 20)
        library.mallopt(_TRIM_THRESHOLD, 256 << 20)
        # One heap for all threads: what one has freed is warm for the next.
        library.mallopt(_ARENA_MAX, 1)


def linux_c_library() -> ctypes.CDLL | None:
    """The C library, for what Python has no name for; None on other systems than Linux."""
    if sys.platform != "linux":
        return None
    try:
        return ctypes.CDLL(None)
    except (OSError, TypeError):  # a Python that is linked statically
        return None
