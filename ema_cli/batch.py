"""What travels the road: a `Source` yields `Batch`es, the engine adds trends, a `Sink` writes both.

A format is one file that offers a source and a sink; nothing else on the road knows which it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ema_cli.errors import Place

if TYPE_CHECKING:
    from ema_cli.formats.text import TextBody

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
# Rows in a batch at most; the engine's own limit, so that a batch is a tile.
BATCH_ROWS = 65_536


@dataclass(frozen=True)
class Wanted:
    """Which columns (by index) to hand over, and how to read them."""

    values: tuple[int, ...]
    keys: tuple[int, ...] = ()
    time: int | None = None
    time_unit: str | None = None
    invalid: str = "error"


@dataclass
class Batch:
    """Up to `BATCH_ROWS` consecutive rows.

    values: (rows, chosen columns) float64, NaN where missing. times: (rows,) int64 nanoseconds, if wanted.
    keys: one Arrow string or binary array a key column. invalid: cells that were no number and count as
    missing. body: the rows as they came, an Arrow RecordBatch or records of text. size: bytes of input
    read so far, for the progress bar.
    """

    rows: int
    values: Floats
    times: Ints | None
    keys: list[Any]
    body: TextBody | Any
    place: _Placer
    invalid: int = 0
    size: int = 0


class _Placer(Protocol):
    """Says where a row of a batch stands in the input; asked only when something is wrong with it."""

    def __call__(self, row: int, column: int | None = None) -> Place: ...


class Source(Protocol):
    """Rows to read. `name` is for messages, `columns` the header's names in order."""

    name: str
    columns: list[str]

    def numeric(self, candidates: Sequence[int]) -> list[int]:
        """Those of the candidate columns that hold numbers (reads ahead as far as the spec allows)."""

    def batches(self, wanted: Wanted) -> Iterator[Batch]:
        """All rows in order. Raises DataError for a cell that can't be read."""

    def close(self) -> None:
        """Let go of the input."""


class Sink(Protocol):
    """Where rows and their new fields go."""

    def write(self, batch: Batch, fields: Floats) -> None:
        """Append the batch with its new fields, (rows, new columns) float64, NaN where blank."""

    def finish(self) -> None:
        """Write what a format keeps for its end. The file itself is closed by whoever opened it."""
