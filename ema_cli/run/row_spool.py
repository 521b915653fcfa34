"""Rows in a temporary file, to be read from the last to the first; and their new fields, to be read again.

Only what is folded is kept, 8 bytes a number and the texts of keys, whatever the input is: so one way does
for files of any format, compressed ones and pipes, in the memory of a few batches.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa

from ema_cli.errors import FileTrouble
from ema_cli.formats import arrow_compute as pc
from ema_cli.formats.base import BATCH_ROWS, Batch, Clock, Floats, Ints
from ema_cli.io.atomic import system_words
from ema_cli.io.output import write_all

HINT = "set TMPDIR to a folder with more room"


@contextmanager
def _wording() -> Iterator[None]:
    """What the temporary folder says, in words."""
    try:
        yield
    except OSError as error:
        raise FileTrouble(tempfile.gettempdir(), system_words(error), HINT) from error


def _temporary() -> BinaryIO:
    with _wording():
        return cast(BinaryIO, tempfile.TemporaryFile(prefix="ema-smooth."))


@dataclass(frozen=True)
class Stored:
    """What is folded of rows, and what observers want of them: `Batch` says what is what."""

    values: Floats
    times: Ints | None
    clock: Clock
    keys: list[Any]
    extra: list[Any]

    @property
    def count(self) -> int:
        return len(self.values)


class RowSpool:
    """Rows, appended in their order. `rows` counts them."""

    def __init__(self) -> None:
        self.rows = 0
        self._file = _temporary()
        self._writer: Any = None
        self._waiting: list[Any] = []
        self._count = 0
        self._starts: list[int] = []

    def add(self, batch: Batch) -> None:
        """Append the rows of a batch."""
        if not batch.rows:
            return
        # Small batches go together, for each one costs a little in the file's index.
        if self._count + batch.rows > BATCH_ROWS:
            self._flush()
        self._waiting.append(_packed(batch))
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

    def backwards(self) -> Iterator[tuple[int, Stored]]:
        """All rows from the last to the first, a batch at a time; how many stand before its first row."""
        if self._writer is None:
            return
        reader = pa.ipc.open_file(pa.PythonFile(self._file, mode="r"))
        for k in range(reader.num_record_batches - 1, -1, -1):
            yield self._starts[k], _unpacked(reader.get_batch(k))

    def close(self) -> None:
        self._file.close()


def _packed(batch: Batch) -> Any:
    """What is folded of a batch as an Arrow record batch."""
    clock = batch.clock
    arrays: dict[str, Any] = {f"v{k}": pa.array(column) for k, column in enumerate(batch.values.T)}
    if batch.times is not None:
        arrays["times"] = pa.array(batch.times)
    if clock.order is not None:
        arrays["order"] = pa.array(clock.order)
    # There or not from batch to batch, and a file has one schema.
    nothing = np.zeros(batch.rows, np.int64)
    arrays["later"] = pa.array(nothing if clock.later is None else clock.later)
    arrays["left_out"] = pa.array(nothing > 0 if clock.left_out is None else clock.left_out)
    texts = {f"k{k}": key for k, key in enumerate(batch.keys)}
    texts |= {f"x{k}": column for k, column in enumerate(batch.extra)}
    arrays |= {name: pc.cast(column, pa.large_binary()) for name, column in texts.items()}
    return pa.RecordBatch.from_pydict(arrays)


def _unpacked(stored: Any) -> Stored:
    """The rows of a stored batch, the last one first."""
    names = stored.schema.names
    backwards = np.arange(stored.num_rows - 1, -1, -1)

    def column(name: str) -> Any:
        return stored.column(name).to_numpy(zero_copy_only=False)[::-1].copy() if name in names else None

    values = np.empty((sum(name[0] == "v" for name in names), stored.num_rows)).T
    for k in range(values.shape[1]):
        values[:, k] = column(f"v{k}")
    later, left_out = column("later"), column("left_out")
    clock = Clock(later if later.any() else None, column("order"), left_out if left_out.any() else None)
    keys, extra = (
        [pc.take(stored.column(name), backwards) for name in names if name[0] == kind] for kind in "kx"
    )
    return Stored(values, column("times"), clock, keys, extra)


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

    def take(self, rows: int) -> Floats:
        """Those of the next rows; fewer where there are no more."""
        size, parts = rows * self.width * 8, []
        while size and (part := self._file.read(size)):
            parts.append(part)
            size -= len(part)
        return np.frombuffer(b"".join(parts)).reshape(-1, self.width)

    def close(self) -> None:
        self._file.close()
