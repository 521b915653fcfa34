"""What the columnar formats share: Arrow record batches of a known schema to batches of rows and back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from ema_cli.errors import DataError, FileTrouble, Place
from ema_cli.formats import arrow_compute as pc
from ema_cli.formats import arrow_text
from ema_cli.formats.arrow_types import is_number
from ema_cli.formats.base import (
    BATCH_ROWS,
    Batch,
    Body,
    Clock,
    Floats,
    Ints,
    Layout,
    Oddity,
    Projection,
    Sample,
    Source,
)
from ema_cli.formats.clock import BadClockError, ClockReader
from ema_cli.formats.pandas_index import index_columns, keeping
from ema_cli.formats.settle import InexactError, exactly
from ema_cli.io.atomic import system_words

# Cells held at once: a table of more than 64 columns is read in shorter batches; and bytes, for long texts.
BATCH_CELLS = BATCH_ROWS * 64
BATCH_BYTES = 32 << 20
# What pyarrow raises for damaged files besides its own exceptions (found by fuzzing).
DAMAGE = (
    pa.ArrowException,
    OSError,
    ValueError,
    KeyError,
    IndexError,
    NotImplementedError,
    TypeError,
    OverflowError,
    MemoryError,
    RecursionError,
)
MISSING_HINT = "--invalid missing"


@dataclass(frozen=True)
class ArrowBody(Body):
    """Rows as an Arrow record batch; `places` is what its columns are called in messages."""

    batch: Any
    rows: int
    places: tuple[Place, ...]

    def texts(self, layout: Layout) -> tuple[Any, memoryview]:
        return layout.rows(self.batch, self.places, self.rows)

    def arrow(self) -> Any:
        return self.batch

    def head(self, rows: int) -> ArrowBody:
        return replace(self, batch=self.batch.slice(0, rows), rows=rows)


@dataclass(frozen=True)
class RowLocator:
    """Says where a row of a batch stands: counted from 1 over the whole file."""

    file: str
    columns: Sequence[str]
    first: int

    def __call__(self, row: int, column: int | None = None) -> Place:
        name = None if column is None else self.columns[column]
        return Place(self.file, self.first + row + 1, name, unit="row")


class ColumnarSource(Source):
    """Rows of a columnar format, which says how to read columns and how far it is.

    arrow_schema: of all columns of the input. settled: the same, or in wider types where the input is one of
    several parts.
    """

    arrow_schema: Any
    settled: Any = None

    def types(self) -> Any:
        return self.arrow_schema

    def settle(self, schema: Any) -> None:
        self.settled = schema

    @property
    def given(self) -> Any:
        """The schema of the columns that are handed over."""
        return self.arrow_schema if self.settled is None else self.settled

    def read(self, columns: Sequence[int]) -> Iterator[Any]:
        """These columns as record batches of at most `BATCH_ROWS` rows, in file order."""
        raise NotImplementedError

    def size_after(self, rows: int) -> int:
        """Bytes of input that have been read when so many rows have been."""
        raise NotImplementedError

    def sample(self, candidates: Sequence[int], most: int) -> Sample:  # noqa: ARG002 - types need no rows
        """Those candidates whose type is a number's; pandas' index is no column of the table."""
        index = index_columns(self.given)
        found = [
            k for k in candidates if is_number(self.given.field(k).type) and self.columns[k] not in index
        ]
        return Sample(found, [])

    def schema(self, wanted: Projection) -> Any:
        """The Arrow schema of the columns kept; its metadata leaves out what is not."""
        schema = self.given
        if wanted.keep is None:
            return schema
        return keeping(pa.schema([schema.field(k) for k in wanted.keep], schema.metadata))

    def header(self, wanted: Projection, layout: Layout) -> tuple[bytes, bytes]:
        return layout.heading([self.columns[k] for k in self._kept(wanted)])

    def batches(self, wanted: Projection) -> Iterator[Batch]:
        """All rows. Raises DataError for a column that is no number's, an infinity, or a bad time."""
        for column in wanted.values:
            kind = self.given.field(column).type
            if not (is_number(kind) or pa.types.is_null(kind)):
                place = Place(self.name, column=self.columns[column])
                hint = "choose numeric columns with -c"
                raise DataError(f"values of type {kind} are no numbers", place, hint)
        kept = self._kept(wanted)
        read = sorted({*kept, *wanted.values, *wanted.keys, *wanted.clocks, *wanted.extra})
        at = {column: k for k, column in enumerate(read)}
        places = tuple(Place(self.name, column=self.columns[k]) for k in kept)
        # Built once: a batch of its columns has no field of its own, and must have the schema's metadata.
        schema = self.schema(wanted)
        first = 0
        for part in self.read(read):
            columns, count = part.columns, part.num_rows
            rows = RowLocator(self.name, self.columns, first)
            columns = [self._as_settled(column, k, rows) for column, k in zip(columns, read, strict=False)]
            values, oddities = _values([columns[at[k]] for k in wanted.values], count, wanted, rows)
            times, clock = _clock(columns, at, wanted, (values, rows))
            batch = pa.RecordBatch.from_arrays([columns[at[k]] for k in kept], schema=schema)
            first += count
            yield Batch(
                count,
                values,
                times,
                [arrow_text.key_texts(columns[at[k]], rows(0, k)) for k in wanted.keys],
                ArrowBody(batch, count, places),
                rows,
                oddities,
                self.size_after(first),
                [arrow_text.texts(columns[at[k]], rows(0, k)) for k in wanted.extra],
                clock,
            )

    def _as_settled(self, column: Any, k: int, rows: RowLocator) -> Any:
        """A column in the type that it has in all parts."""
        kind = self.given.field(k).type
        if column.type.equals(kind):
            return column
        try:
            return exactly(column, kind)
        except InexactError as error:
            problem = f"{error.text} of type {column.type} is not exactly any {kind}, which the column is"
            hint = "write the column in one type in all parts"
            raise DataError(f"{problem} in all parts together", rows(error.row, k), hint) from None

    def _kept(self, wanted: Projection) -> Sequence[int]:
        return range(len(self.columns)) if wanted.keep is None else wanted.keep


def rows_at_once(columns: int) -> int:
    """How many rows of so many columns are read at once."""
    size = BATCH_ROWS
    while size > 1024 and size * columns > BATCH_CELLS:
        size //= 2
    return size


def new_columns(fields: Floats) -> list[Any]:
    """New fields, (new columns, rows), as Arrow columns with null where blank."""
    return [pa.array(column, from_pandas=True) for column in fields]


@contextlib.contextmanager
def trouble(name: str, what: str) -> Iterator[None]:
    """pyarrow's exceptions as FileTrouble: this is no sound `what`. Nothing but pyarrow runs inside."""
    try:
        yield
    except FileTrouble:
        raise
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise FileTrouble(name, system_words(error)) from error
        words = " ".join(str(error).split()) or type(error).__name__
        if "crypt" in words.lower():
            raise FileTrouble(name, "is encrypted, so it can't be read", "decrypt it first") from error
        raise FileTrouble(name, f"is no sound {what} ({words[:200]})") from error


def _values(
    columns: Sequence[Any], count: int, wanted: Projection, rows: RowLocator
) -> tuple[Floats, list[Oddity]]:
    """(count, columns) float64 with NaN where missing, and the cells that were infinite.

    Integers beyond 2**53 and long decimals are rounded to the nearest float64.
    """
    values = np.empty((len(columns), count)).T  # column after column, as the engine folds them
    for k, column in enumerate(columns):
        values[:, k] = pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    for number in wanted.notation.na_numbers:
        values[values == number] = np.nan
    odd = np.isinf(values)
    if not odd.any():
        return values, []
    rows_at = [np.flatnonzero(odd[:, k]).tolist() for k in range(len(columns))]
    oddities = [
        Oddity(wanted.values[k], len(at), at[0], str(columns[k].slice(at[0], 1).cast(pa.string())[0].as_py()))
        for k, at in enumerate(rows_at)
        if at
    ]
    if wanted.invalid == "error":
        first = min(oddities, key=lambda oddity: (oddity.row, oddity.column))
        raise DataError(f"no finite number: {first.text}", rows(first.row, first.column), MISSING_HINT)
    values[odd] = np.nan
    return values, oddities


def _clock(
    columns: Sequence[Any], at: Mapping[int, int], wanted: Projection, read: tuple[Floats, RowLocator]
) -> tuple[Ints | None, Clock]:
    values, rows = read

    def numbers(column: int) -> Floats:
        """Infinities are told as they are in values."""
        return _values([columns[at[column]]], len(values), replace(wanted, values=(column,)), rows)[0][:, 0]

    try:
        return ClockReader(wanted, values, lambda column: columns[at[column]], numbers).read()
    except BadClockError as error:
        raise DataError(error.problem, rows(error.row, error.column), error.hint) from None
