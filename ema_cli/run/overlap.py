"""Reading, computing and writing at the same time, each in a thread of its own, a few batches apart."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, Full, Queue
from types import TracebackType
from typing import Any, Protocol

from ema_cli.formats.base import Batch, Floats, Projection, Sink, Source
from ema_cli.io.atomic import total_size
from ema_cli.io.signals import PROMPT
from ema_cli.job import Job
from ema_cli.run.crew import crew_for

# Batches that may wait between two threads: enough to keep both busy, few enough to keep memory small.
DEPTH = 2
# Bytes of input below which threads only get in each other's way.
SMALL_INPUT = 1 << 18
# Hundredths of a second that `stop` waits for a thread which may be reading from a silent pipe.
PATIENCE = 20


class Writer(Protocol):
    """Takes batches and their new fields, and writes them meanwhile."""

    def write(self, batch: Batch, fields: Floats) -> None: ...


@contextlib.contextmanager
def overlapped(
    source: Source, wanted: Projection, sink: Sink, job: Job
) -> Iterator[tuple[Iterable[Batch], Writer]]:
    """The batches, and a writer that has written all at the end of the block, each beside the other.

    Text may be shared with other processes (see `crew`). All else goes through three threads, unless it is
    small. The source is closed by whoever reads it.
    """
    size = total_size(job.inputs)
    crew = crew_for(source, wanted, sink, job.processes, size)
    if crew is not None:
        with crew:
            yield crew.batches(), crew
        return
    if size is not None and size < SMALL_INPUT:
        with contextlib.closing(source):
            yield source.batches(wanted), sink
        return
    ahead = Ahead(source.batches(wanted), source.close)
    try:
        with Behind(sink, ahead.fail) as behind:
            yield ahead, behind
    finally:
        ahead.stop()


class Ahead:
    """An iterator run in a thread, a few items ahead of whoever asks for them.

    close: called in that thread when it has ended, for nobody may close a file while another reads it.
    """

    def __init__(self, items: Iterator[Batch], close: Callable[[], None] = lambda: None) -> None:
        self.items, self.close = items, close
        self.queue: Queue[tuple[bool, Any]] = Queue(DEPTH)
        self.stopped = False
        self.thread = threading.Thread(target=self._run, name="read", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            for item in self.items:
                self.queue.put((True, item))
                if self.stopped:
                    break
            end = None
        except BaseException as error:  # handed to whoever asks
            end = error
        with contextlib.suppress(Exception):  # of what has been read nothing depends on it any more
            self.close()
        self.queue.put((False, end))

    def __iter__(self) -> Iterator[Batch]:
        while True:
            try:
                more, item = self.queue.get(timeout=PROMPT)
            except Empty:
                continue
            if more:
                yield item
            elif item is None:
                return
            else:
                raise item

    def fail(self, error: BaseException) -> None:
        """Let whoever waits for an item have this error instead."""
        with contextlib.suppress(Full):  # then nobody waits
            self.queue.put_nowait((False, error))

    def stop(self) -> None:
        """Let the thread end at its next item; waits for that only if it comes soon."""
        self.stopped = True
        for _ in range(PATIENCE):
            with contextlib.suppress(Empty):
                while True:
                    self.queue.get_nowait()
            self.thread.join(0.01)
            if not self.thread.is_alive():
                return


class Behind:
    """A sink run in a thread. As a context manager it ends with everything written that was handed over.

    What goes wrong in the thread is raised in the caller's, at its next step; `failed` is told at once.
    """

    def __init__(self, sink: Sink, failed: Callable[[BaseException], None] = lambda _: None) -> None:
        self.sink, self.failed = sink, failed
        self.queue: Queue[tuple[Batch, Floats] | None] = Queue(DEPTH)
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="write", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while (item := self.queue.get()) is not None:
            if self.error is None:
                try:
                    self.sink.write(*item)
                except BaseException as error:  # raised by `write` or `__exit__`
                    self.error = error
                    self.failed(error)

    def write(self, batch: Batch, fields: Floats) -> None:
        if self.error is not None:
            raise self.error
        self._put((batch, fields))

    def _put(self, item: tuple[Batch, Floats] | None) -> None:
        while True:
            with contextlib.suppress(Full):
                self.queue.put(item, timeout=PROMPT)
                return

    def __enter__(self) -> Behind:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, _: TracebackType | None
    ) -> None:
        if value is not None and not isinstance(value, Exception):
            return  # Ctrl-C: don't wait for a reader that may never read again
        self._put(None)
        while self.thread.is_alive():
            self.thread.join(PROMPT)
        if self.error is not None and value is not self.error:
            raise self.error
