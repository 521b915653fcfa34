"""A process that shares the work on one input: how it is started, what it does, the memory it has in common.

Loads nothing heavy before there is a process: those who start one do so before they load anything themselves.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from io import FileIO
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.heap import Arena
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, cast

from ema_cli.errors import DataError
from ema_cli.io.signals import SIGNALS, unblock_interrupts, uninterrupted
from ema_cli.io.temporary import forget_all
from ema_cli.process import may_fork, set_process_defaults

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ema_cli.formats.base import Batch, Clock, Divisible, Projection, Splicer
    from ema_cli.io.output import Output, Texts

# Blocks that a process has under way: one it works on, the next, and one that waits for its turn.
REGIONS = 3
# Room for each: a block, what is read in it and its new fields. Memory that is not used is not there.
REGION_BYTES = 32 << 20
_PARENT_DEATH_SIGNAL = 1  # of Linux' prctl.h

# Where an array is in a region: its first byte, its type and shape.
Where = tuple[int, str, tuple[int, ...]]


def shared_memory() -> Arena:
    """Memory that a spawned process is handed as an argument; pages appear as they are written."""
    size = REGIONS * REGION_BYTES
    if not hasattr(os, "memfd_create"):
        return Arena(size)
    # On Linux it would be a file in /dev/shm, which containers keep small.
    file = os.memfd_create("ema-smooth")
    os.ftruncate(file, size)
    return Arena(size, file)


class Region:
    """A part of the shared memory, filled from its beginning."""

    def __init__(self, memory: Arena, number: int) -> None:
        size = memory.size // REGIONS
        self.number, self.used = number, 0
        self.room = memoryview(memory.buffer)[number * size : (number + 1) * size]

    def place(self, arrays: Sequence[NDArray[Any]]) -> list[Where] | None:
        """Place arrays; None where there is no room for all."""
        import numpy as np

        whole = [np.ascontiguousarray(array) for array in arrays]
        places = self.put([cast(Any, array.reshape(-1).view(np.uint8)).data for array in whole])
        if places is None:
            return None
        return [(at, array.dtype.str, array.shape) for (at, _), array in zip(places, whole, strict=True)]

    def floats(self, *shape: int) -> NDArray[np.float64] | None:
        """Room for numbers; None where there is too little."""
        import numpy as np

        begin = -(-self.used // 64) * 64
        end = begin + 8 * shape[0] * shape[1]
        if end > len(self.room):
            return None
        self.used = end
        return np.ndarray(shape, np.float64, self.room, begin)

    def where(self, array: NDArray[Any]) -> list[Where] | None:
        """Where an array is that is here already; None where it isn't."""
        import numpy as np

        at = _address(array) - _address(np.frombuffer(self.room, np.uint8))
        if not (0 <= at < len(self.room) and array.flags.c_contiguous):
            return None
        return [(at, array.dtype.str, array.shape)]

    def put(self, pieces: Sequence[memoryview]) -> list[tuple[int, int]] | None:
        """Place bytes one behind the other, each at a multiple of 64; None where there is no room for all."""
        places, end = [], self.used
        for piece in pieces:
            begin = -(-end // 64) * 64
            end = begin + len(piece)
            places.append((begin, len(piece)))
        if end > len(self.room):
            return None
        for (begin, size), piece in zip(places, pieces, strict=True):
            self.room[begin : begin + size] = piece
        self.used = end
        return places

    def views(self, places: Sequence[tuple[int, int]]) -> list[memoryview]:
        return [self.room[begin : begin + size] for begin, size in places]


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


@dataclass(eq=False)
class Helper:
    """A process of its own.

    free: regions that nothing is in; under_way: what is in the others, by number. ready: it has its modules.
    """

    process: Any
    connection: Any
    free: list[Region]
    under_way: dict[int, Any] = field(default_factory=dict)
    ready: bool = False

    def tell(self, *task: Any) -> None:
        with suppress(OSError):  # it is gone, as whoever listens to it finds
            self.connection.send(task)


# Those that were started before anybody knew that they would be needed. Unused ones end with this process.
_early: list[Helper] = []


def start_early(helpers: int) -> None:
    """Start so many, so that they load their modules while this process does; not where they can be forked
    when it has."""
    if sys.platform == "linux":
        return
    with suppress(OSError):
        for _ in range(helpers):
            _early.append(_start(forked=False))


def start() -> Helper:
    """A helper that is on its way."""
    return _early.pop() if _early else _start(forked=may_fork())


def _start(*, forked: bool) -> Helper:
    """A new process. Forked it has all modules; all else is as where it is spawned."""
    context: Any = multiprocessing.get_context("fork" if forked else "spawn")
    if os.name == "posix" and not forked:
        # With its first process the library starts one of its own, and then unblocks signals.
        resource_tracker.ensure_running()
    ours, theirs = context.Pipe()
    memory = shared_memory()
    process = context.Process(target=serve, args=(theirs, memory, os.getpid()), daemon=True)
    with uninterrupted(), _without_main(), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # of newer Pythons: Arrow's allocator has a thread
        process.start()
    theirs.close()
    return Helper(process, ours, [Region(memory, k) for k in range(REGIONS)])


@contextmanager
def _without_main() -> Iterator[None]:
    """A spawned process runs the main module once more, for the names in it; a helper needs none of them."""
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def serve(connection: Connection, memory: Arena, parent: int) -> NoReturn:
    """What the process does: one task after another until it is told to end, or its parent is gone."""
    forget_all()
    for number in SIGNALS:  # Ctrl-C goes to all of them, and the parent decides
        signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)
    unblock_interrupts()
    _go_with(parent)
    set_process_defaults()
    import ema_cli.formats.text.sink
    import ema_cli.formats.text.source  # noqa: F401 - while there is nothing to do yet

    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        connection.send(("ready",))
        tasks = Tasks([Region(memory, k) for k in range(REGIONS)], connection.send)
        while (task := connection.recv()) is not None:
            try:
                getattr(tasks, task[0])(*task[1:])
            except BaseException as error:  # raised by the parent
                connection.send(("failed", error))
    # As the command itself does: Arrow sometimes aborts while Python takes itself down.
    os._exit(0)


def _go_with(parent: int) -> None:
    """Let the system kill this process when its parent ends, however that happens, where it can.

    Elsewhere it ends when it wants its next task.
    """
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # which it has already
        os._exit(1)


class Tasks:
    """The tasks, by name; tell: takes what the parent is to know."""

    source: Divisible | None
    wanted: Projection
    splicer: Splicer
    out: Output

    def __init__(self, regions: Sequence[Region], tell: Callable[[Any], None]) -> None:
        self.regions, self.tell = regions, tell
        self.read: dict[int, list[tuple[Any, memoryview]]] = {}
        self.ready: dict[int, Texts] = {}

    def begin(self, what: bytes) -> None:
        """What the run is about. target: the file to write into; None: stdout, in turn."""
        from ema_cli.io.output import Output

        self.source, self.wanted, self.splicer, target, name = pickle.loads(what)
        raw = FileIO(1, "wb", closefd=False) if target is None else FileIO(target, "r+b")
        self.out = Output(cast(BinaryIO, raw), name)

    def look(self, number: int, size: int, begin: int | None) -> None:
        """Read the block in a region, or in the input's file from a place on."""
        source, region = self.source, self.regions[number]
        assert source is not None
        if begin is None or source.shared is None:
            data, region.used = bytes(region.room[:size]), size
        else:
            data, region.used = source.shared.read(begin, size), 0
        found = source.read_block(data, self.wanted) if len(data) == size else None
        own = None if found is None else self._texts(found[0])
        if found is not None and own is not None:
            batches, lines = found
            buffers: list[pickle.PickleBuffer] = []
            bare = pickle.dumps(list(map(_bare, batches)), 5, buffer_callback=buffers.append)
            places = region.put([buffer.raw() for buffer in buffers])
            if places is not None:
                self.read[number] = own
                self.tell(("looked", number, bare, places, lines))
                return
        self.tell(("looked", number, None, [], 0))

    def _texts(self, batches: Sequence[Batch]) -> list[tuple[Any, memoryview]] | None:
        """What of these is written, which takes less room than all that was read; None where it can't be."""
        try:
            return [batch.body.texts(self.splicer.layout) for batch in batches]
        except DataError:
            return None

    def lay_out(self, number: int, batch: int, piece: int, where: Where) -> None:
        """Make text of a batch that was read here, with its new fields."""
        texts = self.read[number]
        own, tail = texts[batch]
        if batch == len(texts) - 1:
            del self.read[number]
        self._append(number, piece, own, tail, where)

    def append(self, number: int, piece: int, own: tuple[Where, Where], tail: Where, where: Where) -> None:
        """Make text of rows that were read elsewhere."""
        from ema_cli.formats.arrow_types import binary_array

        offsets, text = (array_at(self.regions[number], place) for place in own)
        after = memoryview(array_at(self.regions[number], tail))
        self._append(number, piece, binary_array(offsets, text), after, where)

    def _append(self, number: int, piece: int, own: Any, tail: memoryview, where: Where) -> None:
        from ema_cli.io.output import Texts

        texts = self.ready[piece] = Texts()
        self.splicer.out = cast(BinaryIO, texts)
        self.splicer.append(own, tail, array_at(self.regions[number], where).T)
        self.tell(("laid_out", piece, texts.size))

    def write(self, piece: int, at: int | None) -> None:
        """Write a text, at that place of the output."""
        self.ready.pop(piece).write_to(cast(BinaryIO, self.out), at)
        self.tell(("written", piece))


def array_at(region: Region, where: Where) -> Any:
    """An array in a region, in place."""
    import numpy as np

    begin, kind, shape = where
    return np.ndarray(shape, kind, region.room, begin)


def _bare(batch: Batch) -> Batch:
    """A batch without what only its own process can be asked, which the parent puts in again.

    Where keys come again and again, they are numbers and the texts that these count.
    """
    from ema_cli.keys import FEW

    clock: Clock = batch.clock.saying(str)
    coded = [key.dictionary_encode() for key in batch.keys]
    few = [FEW * len(code.dictionary) <= batch.rows for code in coded]
    keys = [code if known else key for key, code, known in zip(batch.keys, coded, few, strict=True)]
    cells = None if batch.cells is None else nothing_here
    return replace(batch, body=cast(Any, None), place=cast(Any, None), cells=cells, clock=clock, keys=keys)


def nothing_here(_column: int, _first: int, _count: int) -> None:
    """Stands for cells that only the process that read them has."""
