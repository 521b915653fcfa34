"""What columnar formats share: Arrow record batches of a known schema to batches of rows and back."""

from __future__ import annotations

import contextlib
import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from ema_cli.errors import Advice, DataError, FileTrouble, Place
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
from ema_cli.formats.text_column import NotANumberError, holds_text, read_numbers
from ema_cli.formats.unify import InexactError, exactly
from ema_cli.io.atomic import system_words
from ema_cli.notation import PLAIN

# Cells and bytes of a batch at most: tables of more than 64 columns or of long texts have shorter batches.
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
# Cells around a bad one that are looked at to tell how numbers are written.
LOOKED_AT = 1000


@dataclass(frozen=True)
class ArrowBody(Body):
    """Rows as an Arrow record batch. places: what messages call its columns."""

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
    """Says where a row of a batch stands: its number in the file, from 1."""

    file: str
    label: Callable[[int], str]
    first: int

    def __call__(self, row: int, column: int | None = None) -> Place:
        name = None if column is None else self.label(column)
        return Place(self.file, self.first + row + 1, name, unit="row")


@dataclass(frozen=True)
class Further:
    """A column that is a member of a record. top: index of the record's column. path: names of the members on
    the way to it."""

    name: str
    top: int
    path: tuple[str, ...]


class ColumnarSource(Source):
    """Rows of a format of columns. A subclass defines `read` and `size_after`.

    arrow_schema: of all columns of the input. unified: the same in the types that all parts of the series
    have; None if there is one part.
    """

    arrow_schema: Any
    unified: Any = None
    _further: Sequence[Further] = ()
    _texts: Sequence[int] = ()

    def types(self) -> Any:
        return self.arrow_schema

    def cast_to(self, schema: Any) -> None:
        self.unified = schema

    @property
    def given(self) -> Any:
        """The schema of the columns that batches have."""
        return self.arrow_schema if self.unified is None else self.unified

    def read(self, columns: Sequence[int]) -> Iterator[Any]:
        """These columns, by index, as record batches of at most `BATCH_ROWS` rows, in file order."""
        raise NotImplementedError

    def size_after(self, rows: int) -> int:
        """Bytes of input read after so many rows, for the progress bar."""
        raise NotImplementedError

    def further(self, name: str, key: bool) -> int | None:  # noqa: ARG002 - whatever it is for
        """A member of a record, or of a record in it: `a.b`."""
        if name in (names := [further.name for further in self._further]):
            return len(self.columns) + names.index(name)
        for k, column in enumerate(self.columns):
            if name.startswith(column + ".") and self.columns.count(column) == 1:
                path = _path_to(name[len(column) + 1 :], self.given.field(k).type)
                if path is not None:
                    self._further = [*self._further, Further(name, k, path)]
                    return len(self.columns) + len(self._further) - 1
        return None

    def label(self, column: int) -> str:
        own = len(self.columns)
        return self.columns[column] if column < own else self._further[column - own].name

    def _field(self, column: int) -> Any:
        """The Arrow field of a column, which may be a member of another."""
        own = len(self.columns)
        if column < own:
            return self.given.field(column)
        further = self._further[column - own]
        kind = self.given.field(further.top).type
        for name in further.path:
            kind = kind.field(name).type
        return pa.field(further.name, kind)

    def _top(self, column: int) -> int:
        """The column of the table that a column is, or is a member of."""
        own = len(self.columns)
        return column if column < own else self._further[column - own].top

    def first_rows(self, columns: Sequence[int], most: int) -> Any | None:  # noqa: ARG002 - or none
        """The first rows of these columns as a record batch; None if they can't be read twice."""
        return None

    def notes(self) -> list[str]:
        return [
            f"{self.name}: column {self.label(k)!r} holds numbers as text and was left out: "
            f"-c {shlex.quote(self.label(k))}"
            for k in self._texts
        ]

    def _look_at_texts(self, candidates: Sequence[int], most: int) -> dict[int, Advice]:
        """Columns of text that look like numbers, with what would read them; notes those that are numbers."""
        texts = [k for k in candidates if holds_text(self._field(k).type)]
        batch = self.first_rows(texts, most) if texts else None
        if batch is None:
            return {}
        from ema_cli.formats.text.numerals import judge_cells

        alike, self._texts = {}, []
        for k, column in zip(texts, batch.columns, strict=True):
            cells = _texts_of(column.slice(0, most))
            if _is_number(next(filter(None, cells), b"")):
                self._texts.append(k)
            elif (judged := judge_cells(cells, PLAIN)) is not None and judged.says:
                alike[k] = judged
        return alike

    def sample(self, candidates: Sequence[int], most: int) -> Sample:
        """The candidates of a numeric type, except columns of pandas' index."""
        alike = self._look_at_texts(candidates, most)
        index = index_columns(self.given)
        found = [k for k in candidates if is_number(self._field(k).type) and self.label(k) not in index]
        return Sample(found, [], lookalikes=alike)

    def schema(self, wanted: Projection) -> Any:
        """The Arrow schema of the columns kept, with metadata on these alone."""
        schema = self.given
        if wanted.keep is None:
            return schema
        first = [] if wanted.file is None else [pa.field(wanted.file, pa.string())]
        return keeping(pa.schema(first + [self._field(k) for k in wanted.keep], schema.metadata))

    def header(self, wanted: Projection, layout: Layout) -> tuple[bytes, bytes]:
        first = [] if wanted.file is None else [wanted.file]
        return layout.heading(first + [self.label(k) for k in self._kept(wanted)])

    def batches(self, wanted: Projection) -> Iterator[Batch]:
        """All rows. Raises DataError for a column that is no number's, an infinity, or a bad time."""
        self._check_values(wanted)
        kept = self._kept(wanted)
        read = sorted({*kept, *wanted.values, *wanted.keys, *wanted.clocks, *wanted.extra})
        tops = sorted({self._top(k) for k in read})
        places = tuple(Place(self.name, column=self.label(k)) for k in kept)
        places = places if wanted.file is None else (Place(self.name), *places)
        # Built once, with the metadata that all batches need.
        schema = self.schema(wanted)
        first = 0
        for part in self.read(tops):
            rows = RowLocator(self.name, self.label, first)
            whole = {
                k: self._as_unified(column, k, rows) for k, column in zip(tops, part.columns, strict=False)
            }
            columns = {k: self._member(whole, k) for k in read}
            count = part.num_rows
            values, oddities = _values([columns[k] for k in wanted.values], count, wanted, rows)
            times, clock = _clock(columns, wanted, (values, rows))
            first_column = [] if wanted.file is None else [pa.repeat(self.name, count)]
            batch = pa.RecordBatch.from_arrays(first_column + [columns[k] for k in kept], schema=schema)
            first += count
            yield Batch(
                count,
                values,
                times,
                [arrow_text.key_texts(columns[k], rows(0, k)) for k in wanted.keys],
                ArrowBody(batch, count, places),
                rows,
                oddities,
                self.size_after(first),
                [arrow_text.texts(columns[k], rows(0, k)) for k in wanted.extra],
                clock,
                cells=partial(_cells, columns),
            )

    def _check_values(self, wanted: Projection) -> None:
        """Raise DataError for a column to be smoothed whose type holds no numbers."""
        for column in wanted.values:
            kind = self._field(column).type
            if not (is_number(kind) or pa.types.is_null(kind) or holds_text(kind)):
                place, hint = Place(self.name, column=self.label(column)), "choose numeric columns with -c"
                if pa.types.is_struct(kind) and kind.num_fields:
                    hint = f"a member of it: -c {shlex.quote(f'{self.label(column)}.{kind.field(0).name}')}"
                raise DataError(f"values of type {kind} are no numbers", place, hint)

    def _member(self, whole: Mapping[int, Any], column: int) -> Any:
        """A column, which may be a member of another."""
        own = len(self.columns)
        if column < own:
            return whole[column]
        further = self._further[column - own]
        return pc.struct_field(whole[further.top], list(further.path))

    def _as_unified(self, column: Any, k: int, rows: RowLocator) -> Any:
        """A column in the type that it has in all parts of the series."""
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


def _is_number(text: bytes) -> bool:
    number = PLAIN.read(text)
    return number is not None and not math.isnan(number)


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
    """Turn pyarrow's exceptions into FileTrouble "is no sound `what`"; the block calls only pyarrow."""
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


def _cells(columns: Mapping[int, Any], column: int, first: int, count: int) -> Any:
    """`count` cells of a column, from row `first` on; None if it was not read."""
    return None if (cells := columns.get(column)) is None else cells[first : first + count]


def _values(
    columns: Sequence[Any], count: int, wanted: Projection, rows: RowLocator
) -> tuple[Floats, list[Oddity]]:
    """(count, columns) float64 with NaN where missing, and the cells that were infinite.

    Integers beyond 2**53 and long decimals are rounded to the nearest float64.
    """
    values = np.empty((len(columns), count)).T  # column after column, as the engine folds them
    oddities: list[Oddity] = []
    for k, (at, column) in enumerate(zip(wanted.values, columns, strict=True)):
        if holds_text(column.type):
            values[:, k], wrong = _from_text(column, at, wanted, rows)
            oddities += wrong
        else:
            values[:, k] = pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    for number in wanted.notation.na_numbers:
        values[values == number] = np.nan
    odd = np.isinf(values)
    if odd.any():
        oddities += _infinite(columns, odd, wanted, rows)
        values[odd] = np.nan
    return values, oddities


def _from_text(column: Any, at: int, wanted: Projection, rows: RowLocator) -> tuple[Floats, list[Oddity]]:
    """As `_values`, for one column of text."""
    try:
        values, oddities = read_numbers(column, wanted.notation, wanted.invalid)
    except NotANumberError as error:
        from ema_cli.formats.text.numerals import advice_on_cells

        near = column[max(0, error.row - LOOKED_AT) : error.row + LOOKED_AT]
        hint = str(advice_on_cells(_texts_of(near), wanted.notation, wanted.hint_on(at)))
        raise DataError(f"not a number: {error.text[:60]!r}", rows(error.row, at), hint) from None
    return values, [replace(oddity, column=at) for oddity in oddities]


def _texts_of(column: Any) -> list[bytes]:
    """The cells of a column of text."""
    return [cell.encode("utf-8", "surrogatepass") for cell in column.to_pylist() if cell is not None]


def _infinite(columns: Sequence[Any], odd: Any, wanted: Projection, rows: RowLocator) -> list[Oddity]:
    """The infinite cells; raises DataError unless they count as missing."""
    rows_at = [np.flatnonzero(odd[:, k]).tolist() for k in range(len(columns))]
    oddities = [
        Oddity(wanted.values[k], len(at), at[0], str(columns[k].slice(at[0], 1).cast(pa.string())[0].as_py()))
        for k, at in enumerate(rows_at)
        if at
    ]
    if wanted.invalid == "error":
        first = min(oddities, key=lambda oddity: (oddity.row, oddity.column))
        raise DataError(
            f"no finite number: {first.text}", rows(first.row, first.column), wanted.hint_on(first.column)
        )
    return oddities


def _path_to(name: str, kind: Any) -> tuple[str, ...] | None:
    """The names of the members on the way to `name` in a record of this type; names may contain points."""
    if not pa.types.is_struct(kind):
        return None
    for field in kind:
        if field.name == name:
            return (name,)
        if name.startswith(field.name + "."):
            rest = _path_to(name[len(field.name) + 1 :], field.type)
            if rest is not None:
                return (field.name, *rest)
    return None


def _clock(
    columns: Mapping[int, Any], wanted: Projection, read: tuple[Floats, RowLocator]
) -> tuple[Ints | None, Clock]:
    values, rows = read

    def numbers(column: int) -> Floats:
        """A column of numbers; infinities are treated as in values."""
        return _values([columns[column]], len(values), replace(wanted, values=(column,)), rows)[0][:, 0]

    try:
        return ClockReader(wanted, values, columns.__getitem__, numbers).read()
    except BadClockError as error:
        raise DataError(error.problem, rows(error.row, error.column), error.hint) from None
