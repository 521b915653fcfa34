"""What travels the road: a `Source` yields `Batch`es, the trends are computed, a `Sink` writes both.

A format is one file that offers a source, a sink and a body; nothing else on the road knows which it is.
Any sink takes any body, so every format converts into every other without a case for each pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ema_cli.errors import Place
from ema_cli.notation import PLAIN, Notation

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
# Rows in a batch at most; the engine's own limit, so that a batch is a tile.
BATCH_ROWS = 65_536


@dataclass(frozen=True)
class Projection:
    """Which columns (by index, from 0) to hand over, and how to read them.

    values: to be smoothed. keys, time: the key and time columns. time_unit: of times that are numbers.
    invalid: 'error' or 'missing', for cells that are no finite number. keep: columns that the output has
    (all of them, or key, time and no more with `--only`). extra: columns to hand over as text, for observers.
    """

    values: tuple[int, ...]
    keys: tuple[int, ...] = ()
    time: int | None = None
    time_unit: str | None = None
    invalid: str = "error"
    keep: tuple[int, ...] | None = None
    extra: tuple[int, ...] = ()


@dataclass(frozen=True)
class Dialect:
    """How a text table is written.

    decimal_comma: of numbers that are written; notation: of those that are read. named: the delimiter was
    asked for, whatever the input says of it. spaces: runs of spaces and tabs separate fields. skip: lines
    before the table. comments: what lines begin with that are no records. pad: records may have fewer fields.
    """

    delimiter: bytes = b","
    header: bool = True
    decimal_comma: bool = False
    notation: Notation = PLAIN
    named: bool = False
    spaces: bool = False
    skip: int = 0
    comments: tuple[bytes, ...] = ()
    pad: bool = False

    def separates_like(self, other: Dialect) -> bool:
        """Whether a record stands in both as it is."""
        return (self.delimiter, self.spaces) == (other.delimiter, other.spaces)


class Body(Protocol):
    """The rows of a batch as they came, to be written with new fields added."""

    def texts(self, dialect: Dialect) -> tuple[Any, memoryview]:
        """Each row's own text without its line ending, as an Arrow binary array, and what follows the last.

        The text of a row is preceded by whatever stood between it and the row before: the line ending of
        that row, blank lines.
        """

    def arrow(self) -> Any:
        """The rows as an Arrow RecordBatch that has the source's `schema`."""

    def head(self, rows: int) -> Body:
        """The first rows alone."""


@dataclass(frozen=True)
class Oddity:
    """Cells of a column that are no number and count as missing: how many, and row and text of the first."""

    column: int
    count: int
    row: int
    text: str


@dataclass
class Batch:
    """Up to `BATCH_ROWS` consecutive rows.

    values: (rows, chosen columns) float64, NaN where missing. times: (rows,) int64 nanoseconds, if wanted.
    keys: one Arrow string or binary array a key column. oddities: cells that were no number and count as
    missing, a column each. size: bytes of input read so far, for the progress bar. extra: as `keys`, for the
    columns of `Projection.extra`.
    """

    rows: int
    values: Floats
    times: Ints | None
    keys: list[Any]
    body: Body
    place: Locator
    oddities: Sequence[Oddity] = ()
    size: int = 0
    extra: list[Any] = field(default_factory=list)

    @property
    def invalid(self) -> int:
        """Cells that were no number and count as missing."""
        return sum(oddity.count for oddity in self.oddities)

    def head(self, rows: int) -> Batch:
        """The first rows alone: those above a row that something is wrong with."""
        times = None if self.times is None else self.times[:rows]
        keys, extra = [key[:rows] for key in self.keys], [column[:rows] for column in self.extra]
        body = self.body.head(rows)
        return replace(
            self, rows=rows, values=self.values[:rows], times=times, keys=keys, body=body, extra=extra
        )


class Locator(Protocol):
    """Says where a row of a batch stands in the input; asked only when something is wrong with it."""

    def __call__(self, row: int, column: int | None = None) -> Place: ...


@dataclass(frozen=True)
class Sample:
    """What the first rows tell: columns that hold numbers, columns without a value yet, rows looked at."""

    numeric: list[int]
    undecided: list[int]
    rows: int = 0


class Source(Protocol):
    """Rows to read. `name` is for messages, `columns` the header's names in order."""

    name: str
    columns: list[str]

    def sample(self, candidates: Sequence[int], most: int) -> Sample:
        """Which of the candidates hold numbers, by their first value within `most` rows (read ahead)."""

    def batches(self, wanted: Projection) -> Iterator[Batch]:
        """All rows in order. Raises DataError for a cell that can't be read."""

    def header(self, wanted: Projection, dialect: Dialect) -> tuple[bytes, bytes]:
        """The text of the header with the columns kept, and the line ending that goes after it."""

    def schema(self, wanted: Projection) -> Any:
        """The Arrow schema, metadata and all, of the columns kept."""

    def close(self) -> None:
        """Let go of the input."""


class Sink(Protocol):
    """Where rows and their new fields go; made with the names of the new columns.

    needs_bodies: whether `write` looks at the body of a batch.
    """

    needs_bodies: bool

    def write(self, batch: Batch, fields: Floats) -> None:
        """Append the batch with its new fields, (rows, new columns) float64, NaN where blank."""

    def finish(self) -> None:
        """Write what a format keeps for its end. The file itself is closed by whoever opened it."""
