"""Rows in a temporary file, to be read from the last to the first; and new fields in another.

Only what is folded is stored, 8 bytes a number and the texts of keys. So this works for inputs of any format,
compressed ones and pipes, in the memory of a few batches.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ema_cli.errors import FileTrouble, Place
from ema_cli.formats import arrow_compute as pc
from ema_cli.formats.base import BATCH_ROWS, Batch, Body, Clock, Floats, Ints, Layout, Locator
from ema_cli.io.atomic import system_words
from ema_cli.io.output import write_all

HINT = "set TMPDIR to a folder with more room"
_NOTHING: Mapping[str, NDArray[Any]] = {}


@contextmanager
def _wording() -> Iterator[None]:
    """Turns errors of the temporary folder into FileTrouble."""
    try:
        yield
    except OSError as error:
        raise FileTrouble(tempfile.gettempdir(), system_words(error), HINT) from error


def _temporary() -> BinaryIO:
    with _wording():
        return cast(BinaryIO, tempfile.TemporaryFile(prefix="ema-smooth."))


class _NoBody(Body):
    """The body of a batch that is not written."""

    def texts(self, layout: Layout) -> tuple[Any, memoryview]:
        raise NotImplementedError

    def arrow(self) -> Any:
        raise NotImplementedError

    def head(self, rows: int) -> Body:  # noqa: ARG002 - nothing of it is there
        return self


_NO_BODY = _NoBody()


def nowhere(row: int, column: int | None = None) -> Place:
    """The locator of rows that can't be at fault."""
    raise NotImplementedError


@dataclass(frozen=True)
class Stored:
    """What is folded of rows, and what observers need; attributes as those of `Batch`.

    more: further numbers of each row, by name.
    """

    values: Floats
    times: Ints | None
    clock: Clock
    keys: list[Any]
    extra: list[Any]
    more: dict[str, NDArray[Any]]

    @property
    def count(self) -> int:
        return len(self.values)

    def turned(self) -> Stored:
        """The same rows, the last one first."""
        there = np.arange(self.count - 1, -1, -1)
        keys, extra = ([pc.take(column, there) for column in part] for part in (self.keys, self.extra))
        times = None if self.times is None else self.times[there]
        values = np.asfortranarray(self.values[there])
        more = {name: array[there] for name, array in self.more.items()}
        return Stored(values, times, self.clock.picked(there), keys, extra, more)

    def batch(self, place: Locator, text: Callable[[int], str], size: int) -> Batch:
        """The rows as a batch that is not written. text: as in `Clock`."""
        batch = Batch(self.count, self.values, self.times, self.keys, _NO_BODY, place)
        batch.size, batch.extra, batch.clock = size, self.extra, self.clock.saying(text)
        return batch


class RowSpool:
    """Rows, appended in their order. `rows` counts them."""

    def __init__(self) -> None:
        self.rows = 0
        self._file = _temporary()
        self._writer: Any = None
        self._waiting: list[Any] = []
        self._count = 0
        self._starts: list[int] = []

    def add(self, batch: Batch, more: Mapping[str, NDArray[Any]] = _NOTHING) -> None:
        """Append the rows of a batch. more: further numbers of each, by name."""
        if not batch.rows:
            return
        # Small batches are joined, since each one costs a little in the file's index.
        if self._count + batch.rows > BATCH_ROWS:
            self._flush()
        self._waiting.append(_packed(batch, more))
        self._count += batch.rows

    def _flush(self) -> None:
        if not self._waiting:
            return
        with _wording():
            if self._writer is None:
                self._writer = pa.ipc.new_file(self._file, self._waiting[0].schema)
            table = pa.Table.from_batches(self._waiting).combine_chunks()
            self._writer.write_batch(table.to_batches()[0])
        self._starts.append(self.rows)
        self.rows += self._count
        self._waiting, self._count = [], 0

    def finish(self) -> None:
        """No more rows are coming."""
        self._flush()
        if self._writer is not None:
            with _wording():
                self._writer.close()

    def batches(self, *, last_first: bool = False) -> Iterator[tuple[int, Stored]]:
        """All rows in batches, each with the number of rows before it. last_first: the last batch first."""
        if self._writer is None:
            return
        reader = pa.ipc.open_file(pa.PythonFile(self._file, mode="r"))
        every = range(reader.num_record_batches)
        for k in reversed(every) if last_first else every:
            yield self._starts[k], _unpacked(reader.get_batch(k))

    def close(self) -> None:
        self._file.close()


def _packed(batch: Batch, more: Mapping[str, NDArray[Any]]) -> Any:
    """What is folded of a batch as an Arrow record batch."""
    clock = batch.clock
    arrays: dict[str, Any] = {f"v{k}": pa.array(column) for k, column in enumerate(batch.values.T)}
    if batch.times is not None:
        arrays["times"] = pa.array(batch.times)
    if clock.order is not None:
        arrays["order"] = pa.array(clock.order)
    # Not all batches have these, but a file has one schema.
    nothing = np.zeros(batch.rows, np.int64)
    arrays["later"] = pa.array(nothing if clock.later is None else clock.later)
    arrays["left_out"] = pa.array(nothing > 0 if clock.left_out is None else clock.left_out)
    arrays |= {f"m{name}": pa.array(array) for name, array in more.items()}
    texts = {f"k{k}": key for k, key in enumerate(batch.keys)}
    texts |= {f"x{k}": column for k, column in enumerate(batch.extra)}
    arrays |= {name: pc.cast(column, pa.large_binary()) for name, column in texts.items()}
    return pa.RecordBatch.from_pydict(arrays)


def _unpacked(stored: Any) -> Stored:
    """The rows of a stored batch."""
    names = stored.schema.names

    def column(name: str) -> Any:
        return stored.column(name).to_numpy(zero_copy_only=False) if name in names else None

    values = np.empty((sum(name[0] == "v" for name in names), stored.num_rows)).T
    for k in range(values.shape[1]):
        values[:, k] = column(f"v{k}")
    later, left_out = column("later"), column("left_out")
    clock = Clock(later if later.any() else None, column("order"), left_out if left_out.any() else None)
    keys, extra = ([stored.column(name) for name in names if name[0] == kind] for kind in "kx")
    more = {name[1:]: column(name) for name in names if name[0] == "m"}
    return Stored(values, column("times"), clock, keys, extra, more)


class FieldSpool:
    """New fields of rows, put at their places in any order and read from the first to the last."""

    def __init__(self, width: int) -> None:
        self.width, self._file = width, _temporary()

    def put(self, first: int, fields: Floats) -> None:
        """The fields of the rows from `first` on, (rows, new columns) float64."""
        with _wording():
            self._file.seek(first * self.width * 8)
            write_all(self._file, np.ascontiguousarray(fields).tobytes())

    def rewind(self) -> None:
        self._file.seek(0)

    def read(self, rows: int) -> Floats:
        """The fields of the next rows; fewer at the end."""
        size, parts = rows * self.width * 8, []
        while size and (part := self._file.read(size)):
            parts.append(part)
            size -= len(part)
        return np.frombuffer(b"".join(parts)).reshape(-1, self.width)

    def close(self) -> None:
        self._file.close()
