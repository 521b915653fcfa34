"""Reading, computing and writing at the same time, each in its own thread, a few batches apart."""

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
    """Writes batches and their new fields while others are computed."""

    def write(self, batch: Batch, fields: Floats) -> None: ...


@contextlib.contextmanager
def overlapped(
    source: Source, wanted: Projection, sink: Sink, job: Job
) -> Iterator[tuple[Iterable[Batch], Writer]]:
    """The batches, read in advance, and a writer that has written everything when the block ends.

    Large text is shared with other processes (see `crew`); other large inputs use three threads. Whoever
    reads the source closes it.
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
    reader = ReaderThread(source.batches(wanted), source.close)
    try:
        with WriterThread(sink, reader.fail) as writer:
            yield reader, writer
    finally:
        reader.stop()


class ReaderThread:
    """Iterates in a thread, a few items in advance of whoever asks for them.

    close: called in that thread at its end, since a file must not be closed while another thread reads it.
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
        with contextlib.suppress(Exception):  # everything has been read, so a failing close is harmless
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
        """Raise this error in the thread that waits for an item."""
        with contextlib.suppress(Full):  # then it does not wait
            self.queue.put_nowait((False, error))

    def stop(self) -> None:
        """Make the thread end at its next item; wait for that a short time only."""
        self.stopped = True
        for _ in range(PATIENCE):
            with contextlib.suppress(Empty):
                while True:
                    self.queue.get_nowait()
            self.thread.join(0.01)
            if not self.thread.is_alive():
                return


class WriterThread:
    """Writes to a sink in a thread; when its `with` block ends, everything has been written.

    An error in the thread is raised at the caller's next step, and given to `failed` at once.
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

    def __enter__(self) -> WriterThread:
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
