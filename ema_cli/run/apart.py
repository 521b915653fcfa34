"""Writing text in a process of its own, for large files.

To turn numbers to text and splice it in is as much work as to read, and most of both holds the interpreter's
lock: in threads they take turns. A forked process has a lock of its own. Batches are handed to it in memory
that both processes share.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from mmap import mmap
from types import TracebackType
from typing import Any, BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray

from ema_cli.errors import EmaError
from ema_cli.formats.arrow_types import binary_array, offsets_and_bytes
from ema_cli.formats.base import Batch, Floats, Splicer
from ema_cli.io.signals import SIGNALS, unblock_interrupts, uninterrupted
from ema_cli.io.temporary import at_interrupt, forget_all

# Batches under way, and the room for each; what is larger goes through the pipe.
SLOTS, SLOT_BYTES = 3, 16 << 20
_END = "all written"
_PARENT_DEATH_SIGNAL = 1  # of Linux' prctl.h

# Of each array that is handed over: where it begins, its type and shape.
Layout = list[tuple[int, str, tuple[int, ...]]]


class Apart:
    """A text-like sink run in a process forked for it. As a context manager it ends with everything written.

    What goes wrong there is raised here, at the next step.
    """

    def __init__(self, splicer: Splicer) -> None:
        self.splicer = splicer
        self.shared = np.frombuffer(mmap(-1, SLOTS * SLOT_BYTES), np.uint8).reshape(SLOTS, SLOT_BYTES)
        self.free = list(range(SLOTS))
        self.failed = False
        self.stack = ExitStack()
        (jobs, self.jobs), (self.news, news) = _pipe(), _pipe()
        parent = os.getpid()
        with uninterrupted():
            self.process = os.fork()
            if not self.process:
                _go_with(parent)
                self._serve(jobs, news)
            self.stack.enter_context(at_interrupt(self._kill))
        jobs.close()
        news.close()

    def write(self, batch: Batch, fields: Floats) -> None:
        own, tail = batch.body.texts(self.splicer.layout)
        arrays: list[NDArray[Any]] = [fields.T, *offsets_and_bytes(own), np.frombuffer(tail, np.uint8)]
        layout, size = _lay_out(arrays)
        while not self.free:
            self._hear()
        slot = self.free.pop()
        large = np.empty(size, np.uint8) if size > SLOT_BYTES else None
        places = _laid_out(layout, self.shared[slot] if large is None else large)
        for array, place in zip(arrays, places, strict=True):
            np.copyto(place, array)
        self._send((slot, layout, large))

    def _send(self, message: Any) -> None:
        try:
            _send(self.jobs, message)
        except OSError:  # it is gone, and may have said why
            while True:
                self._hear()

    def _hear(self) -> bool:
        """Take its next message: a slot that is free again, or an error, which is raised; False: the end."""
        try:
            message = pickle.load(self.news)
        except (EOFError, OSError, pickle.UnpicklingError):
            message = EmaError("the process that writes was killed", "is there too little memory?")
        if isinstance(message, BaseException):
            self.failed = True
            raise message
        if message == _END:
            return False
        self.free.append(message)
        return True

    def __enter__(self) -> Apart:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            if value is not None and not isinstance(value, Exception):
                self._kill()
            elif not self.failed:
                self._send(None)
                while self._hear():
                    pass
        finally:
            with suppress(OSError):  # what could not be sent to it
                self.jobs.close()
            self.news.close()
            os.waitpid(self.process, 0)
            self.stack.close()

    def _kill(self) -> None:
        os.kill(self.process, signal.SIGKILL)

    def _serve(self, jobs: BinaryIO, news: BinaryIO) -> NoReturn:
        """What the process does: write until it is told to end."""
        forget_all()
        for number in SIGNALS:  # Ctrl-C goes to both, and the parent decides
            signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)
        unblock_interrupts()
        message: Any = _END
        try:
            while (job := pickle.load(jobs)) is not None:
                slot, layout, large = job
                room = self.shared[slot] if large is None else large
                fields, offsets, text, tail = _laid_out(layout, room)
                self.splicer.append(binary_array(offsets, text), tail.data, fields.T)
                _send(news, slot)
        except BaseException as error:  # raised by the parent
            message = error
        with suppress(OSError):
            _send(news, message)
        os._exit(0)


def _go_with(parent: int) -> None:
    """Let the system kill this process when its parent ends, however that happens."""
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # which it has already
        os._exit(1)


def _pipe() -> tuple[BinaryIO, BinaryIO]:
    """Its two ends: to read from, and to write to."""
    read, write = os.pipe()
    return os.fdopen(read, "rb"), os.fdopen(write, "wb")


def _send(pipe: BinaryIO, message: Any) -> None:
    pickle.dump(message, pipe, pickle.HIGHEST_PROTOCOL)
    pipe.flush()


def _lay_out(arrays: Sequence[NDArray[Any]]) -> tuple[Layout, int]:
    """Where arrays go one behind the other, each at a multiple of 8; and the bytes of all."""
    layout, end = [], 0
    for array in arrays:
        layout.append((end, array.dtype.str, array.shape))
        end += -(-array.nbytes // 8) * 8
    return layout, end


def _laid_out(layout: Layout, room: NDArray[np.uint8]) -> list[NDArray[Any]]:
    """The arrays in this room, in place."""
    return [np.ndarray(shape, kind, room, begin) for begin, kind, shape in layout]
