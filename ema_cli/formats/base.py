"""What a format implements: a `Source` yields `Batch`es, the trends are computed, a `Sink` writes both.

A format is one file or package with a source, a sink and a body, and a line in `registry.py`. Nothing outside
it asks which format it is: what a sink has to know of the input it asks the source, by the methods below.
Any sink can write any body, so every format converts into every other without a case for each pair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from ema_cli.errors import Advice, Place
from ema_cli.notation import PLAIN, Notation
from ema_cli.times.form import ISO, TimeForm

if TYPE_CHECKING:
    from ema_cli.io.streams import SharedFile

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
# Rows in a batch at most; the engine's own limit, so that a batch is a tile.
BATCH_ROWS = 65_536


@dataclass(frozen=True)
class Projection:
    """Which columns (by index, from 0) a source is to read, and how.

    Attributes
    ----------
    values : the columns to be smoothed, and the weights of rows last, if there are any.
    keys, time : the columns of keys and of time; time_of_day : the second column, if a time stands in two.
    time_form : how times are written.
    order : the column that should only grow; order_form : how times in it are written, None for numbers.
    invalid : 'error' or 'missing', for cells that are neither a finite number (or a time) nor missing.
    keep : the columns that are written; None: all of them.
    extra : columns to be read as text, for observers.
    notation : how numbers are written in cells of text, and which numbers stand for missing.
    weights : the column of weights, if there is one.
    file : name of a new first column that holds the name of the input; None: no such column.
    naive : times name no zone, so a format that has types writes them as times without a zone.
    """

    values: tuple[int, ...]
    keys: tuple[int, ...] = ()
    time: int | None = None
    time_form: TimeForm = ISO
    invalid: str = "error"
    keep: tuple[int, ...] | None = None
    extra: tuple[int, ...] = ()
    notation: Notation = PLAIN
    time_of_day: int | None = None
    order: int | None = None
    order_form: TimeForm | None = None
    file: str | None = None
    naive: bool = False
    weights: int | None = None

    def hint_on(self, column: int) -> str:
        """What to try for a cell of a column that is no number, where nothing is known of it."""
        option = {self.weights: "--weights", self.order: "--order", self.time: "--time"}.get(column)
        which = "other columns: -c" if option is None else f"another column: {option}"
        return f"correct it, or choose {which} COLUMN"

    @property
    def clocks(self) -> tuple[int, ...]:
        """The columns that say when a row was, or what it comes after."""
        return tuple(k for k in (self.time, self.time_of_day, self.order) if k is not None)


class Layout(Protocol):
    """How a text format writes rows of any other format; each text format has its own.

    A body of the same format has the text of its rows already; bodies of other formats call `rows`.
    """

    def heading(self, names: Sequence[str]) -> tuple[bytes, bytes]:
        """The header of columns of these names, cut in two where the new columns' names go."""

    def append_names(self, text: bytes, names: Iterable[str], *, alone: bool) -> bytes:
        """The first part of a heading, with more names at its end. alone: it has none yet."""

    def append_fields(self, own: Any, values: Mapping[str, str | None], *, alone: bool) -> Any:
        """The first part of `Body.texts`, with the same fields added to each row: name to text."""

    def rows(self, batch: Any, places: Sequence[Place], count: int) -> tuple[Any, memoryview]:
        """The rows of an Arrow RecordBatch as `Body.texts` gives them.

        Parameters
        ----------
        batch : pyarrow.RecordBatch
        places
            One a column: what messages call it.
        count
            Number of rows, which a batch without columns does not know.

        Raises
        ------
        DataError
            For values that have no text.
        """


class Body(Protocol):
    """The rows of a batch as they came, to be written with new fields added."""

    def texts(self, layout: Layout) -> tuple[Any, memoryview]:
        """The rows as text, cut where new fields go.

        Returns
        -------
        own : pyarrow.BinaryArray
            (rows,): for each row, the text from where the new fields of the row before it go (so the end of
            that row and blank lines first) to where its own new fields go.
        tail : memoryview
            What follows the last row's new fields.
        """

    def arrow(self) -> Any:
        """The rows as a pyarrow.RecordBatch with the source's `schema`."""

    def head(self, rows: int) -> Body:
        """The first rows alone."""


@dataclass(frozen=True)
class Oddity:
    """Cells of a column that are no number but count as missing: how many, and row and text of the first."""

    column: int
    count: int
    row: int
    text: str


@dataclass(frozen=True)
class Clock:
    """What else the columns of time and order say about rows; arrays of (rows,), or None.

    Attributes
    ----------
    later : int64 nanoseconds, how much later a time is if it is in the second of two equal wall-clock hours.
    order : float64 numbers, or int64 nanoseconds.
    left_out : bool, rows without a readable time or order, which take no part in the averages.
    unread : the cells for which that is so, except on blank rows.
    wall : int64 nanoseconds as the clock showed them, if that is not UTC.
    text : gives the text of a row's cell in the column that it is ordered by.
    """

    later: Ints | None = None
    order: Any | None = None
    left_out: NDArray[np.bool_] | None = None
    unread: tuple[Oddity, ...] = ()
    wall: Ints | None = None
    text: Callable[[int], str] = str

    def picked(self, rows: Any) -> Clock:
        """The same of some rows: a slice or an index array."""
        given = (self.later, self.order, self.left_out, self.wall)
        later, order, left_out, wall = (None if part is None else part[rows] for part in given)
        return replace(self, later=later, order=order, left_out=left_out, wall=wall)

    def saying(self, text: Callable[[int], str]) -> Clock:
        """The same with another `text`."""
        return replace(self, text=text)


@dataclass
class Batch:
    """Up to `BATCH_ROWS` consecutive rows.

    Attributes
    ----------
    values : (rows, columns) float64, NaN where missing; columns in the order of `Projection.values`.
    times : (rows,) int64 nanoseconds since 1970, if asked for.
    keys : a string or binary Arrow array for each key column.
    body : the rows as they came.
    place : says where in the input a row stands.
    oddities : for each column, the cells that were no number but count as missing.
    size : bytes of input read so far, for the progress bar.
    restarts : (rows,) bool, where the run has begun a series afresh; for observers.
    extra : like `keys`, for the columns of `Projection.extra`.
    clock : what the columns of time and order say besides the times.
    file : the input that the rows are from, if there are several.
    cells : gives cells of a column as an Arrow array: of (column, first row, count); None if it was not read.
    out : (new columns, rows) float64, an array that may be used for the new fields.
    """

    rows: int
    values: Floats
    times: Ints | None
    keys: list[Any]
    body: Body
    place: Locator
    oddities: Sequence[Oddity] = ()
    size: int = 0
    restarts: NDArray[np.bool_] | None = field(default=None, kw_only=True)
    extra: list[Any] = field(default_factory=list)
    clock: Clock = Clock()
    file: str = ""
    cells: Callable[[int, int, int], Any] | None = None
    out: Floats | None = None

    @property
    def invalid(self) -> int:
        """Cells that were no number and count as missing."""
        return sum(oddity.count for oddity in self.oddities)

    def head(self, rows: int) -> Batch:
        """The first rows alone: those above a row that something is wrong with."""
        times = None if self.times is None else self.times[:rows]
        keys, extra = [key[:rows] for key in self.keys], [column[:rows] for column in self.extra]
        values, clock, body = self.values[:rows], self.clock.picked(slice(rows)), self.body.head(rows)
        some = replace(self, rows=rows, values=values, times=times, keys=keys, body=body, extra=extra)
        some.clock, some.out = clock, None
        return some


class Locator(Protocol):
    """Says where in the input a row of a batch stands; called only if something is wrong with it."""

    def __call__(self, row: int, column: int | None = None) -> Place: ...


@dataclass(frozen=True)
class Sample:
    """What the first rows show: columns that hold numbers, columns without a value yet, rows looked at.

    lookalikes: columns whose cells look like numbers but can't be read as such, each with the options that
    would read them.
    """

    numeric: list[int]
    undecided: list[int]
    rows: int = 0
    lookalikes: dict[int, Advice] = field(default_factory=dict)


class Source(Protocol):
    """The rows of an input. Formats inherit from this and override what has no default or another answer.

    Attributes
    ----------
    name : what messages call the input.
    columns : the names of its columns in order.
    kind : name of the format's module; inputs of one kind may be parts of one series.
    text_format : the format of the output if that is to be text and no option says which.
    open_ended : more columns than `columns`, which are those of the first rows, may turn up later.
    compression : codec for new columns, for sinks that choose one by column.
    delimiter : what separates fields in a text, if the input itself says so.
    """

    name: str
    columns: list[str]
    kind: str
    text_format: str = "csv"
    open_ended: bool = False
    compression: str = "zstd"
    delimiter: bytes | None = None

    def sample(self, candidates: Sequence[int], most: int) -> Sample:
        """Which of the candidates hold numbers, by their first value within the first `most` rows.

        These rows are read ahead, and `batches` still yields them.
        """

    def batches(self, wanted: Projection) -> Iterator[Batch]:
        """All rows in order.

        Raises
        ------
        DataError
            For a cell that can't be read, after the rows above it have been yielded.
        """

    def batches_by(
        self, read: Callable[[Source, Projection], Iterator[Batch]], wanted: Projection
    ) -> Iterator[Batch]:
        """All rows in order, read by calling `read` for each input that this source is made of."""
        return read(self, wanted)

    def header(self, wanted: Projection, layout: Layout) -> tuple[bytes, bytes]:
        """The header with the columns kept, as `Layout.heading` has it."""

    def schema(self, wanted: Projection) -> Any:
        """The Arrow schema, metadata and all, of the columns kept."""

    def advice(self, names: Sequence[str] = ()) -> Advice | None:  # noqa: ARG002 - most formats say what they are
        """Options that may help if columns of these names are not found, or no column holds numbers."""
        return None

    def further(self, name: str, key: bool) -> int | None:  # noqa: ARG002 - most formats have none
        """The index of a column that is not among `columns`, such as a member of one; None if there is none.

        key: whether it is asked for as a key. The index lies beyond those of `columns`.
        """
        return None

    def label(self, column: int) -> str:
        """The name of a column, which may be one that `further` has found."""
        return self.columns[column]

    @property
    def labels(self) -> list[str]:
        """The names of all columns by index; in an open-ended input also those that `further` has found."""
        return self.columns

    def follow(self, labels: Sequence[str]) -> None:  # noqa: ARG002 - tables have a header that says it
        """Be a later part of a series whose `labels` are these; called only for open-ended inputs.

        What stands only at the beginning of a file, such as a byte order mark, is then not passed on.
        """
        return

    def unseen(self) -> set[str]:
        """The columns asked for that no row had, once an open-ended input has been read."""
        return set()

    def notes(self) -> list[str]:
        """Messages to the user, once the input has been read."""
        return []

    def types(self) -> Any | None:
        """The Arrow schema of all columns, if the input has one before a row is read."""
        return None

    def cast_to(self, schema: Any) -> None:  # noqa: ARG002 - where there are no types
        """Yield columns in the types of this schema, which are as wide as those of `types` or wider."""
        return

    def has_naive_times(self, wanted: Projection) -> bool:  # noqa: ARG002 - where types or nothing tells
        """Whether times are text and the first one, which is read ahead, names no zone."""
        return False

    def separator(self, wanted: Projection) -> Batch | None:  # noqa: ARG002 - most formats need none
        """A batch without rows, whose text has to stand between the last row and the next part of the series,
        such as the line ending that the last line lacks."""
        return None

    def original(self, sink: str, wanted: Projection, new: int) -> Any | None:  # noqa: ARG002 - or none
        """The input itself, for a sink of that format that copies it, adds `new` columns and closes it.

        None if everything has to be written anew.
        """
        return None

    def divisible(self) -> Divisible | None:
        """This source as blocks for other processes; None for formats that can't be cut unread."""
        return None

    def close(self) -> None:
        """Close the input."""


class Divisible(Protocol):
    """A source whose blocks may be read by other processes, several at once.

    A block is whole records, as far as can be told without reading them. A block that turns out to be
    otherwise, or bad, is put back and read with `next_batches`; so errors come from one place. The last block
    may lack its line ending, so it is never taken.

    Attributes
    ----------
    shared : the file that all blocks are in, if other processes can read it too.
    at : where in it the next block begins.
    ended : there is nothing more to take.
    ready : taking a block does not wait.
    line : the line that the next block begins on; whoever has a block read elsewhere advances it.
    size : bytes of text read so far.
    taken : gives the bytes of the (perhaps compressed) input read so far.
    most : the best size of a block, in bytes.
    """

    name: str
    shared: SharedFile | None
    ended: bool
    size: int
    most: int
    line: int
    taken: Callable[[], int]

    @property
    def ready(self) -> bool: ...

    @property
    def at(self) -> int: ...

    def next_batches(self, wanted: Projection) -> Iterator[Batch] | None:
        """The rows of the next block, read here; None at the end."""

    def take(self, buffer: memoryview, least: int) -> int:
        """Take the next block, at most as long as the `buffer`, and give its length in bytes.

        It is copied into the buffer, unless the input is `shared`. 0, and nothing taken, if fewer than
        `least` bytes or no whole record have arrived.
        """

    def put_back(self, data: bytes, begin: int) -> None:
        """Undo `take`, for blocks that are not whole records.

        data: their bytes, not used if the input is `shared`. begin: where in that file they begin.
        """

    def detached(self) -> Divisible:
        """A copy without the input, which can only `read_block`, and can be pickled."""

    def read_block(self, data: bytes, wanted: Projection, line: int = 1) -> tuple[list[Batch], int] | None:
        """The rows of a block that begins on that line, and its lines; None: it must be put back."""


class Splicer(Protocol):
    """The part of a text format's sink that may run in another process: texts and fields in, bytes out."""

    out: BinaryIO
    layout: Layout

    def append(self, own: Any, tail: memoryview, fields: Floats) -> None:
        """Append rows: what `Body.texts` gives, and their new fields, (rows, new columns) float64."""


class Sink(Protocol):
    """Where rows and their new fields are written.

    Attributes
    ----------
    needs_bodies : whether `write` uses the body of a batch.
    splicer : for text formats, what can do the work of `write` in another process; else None.
    """

    needs_bodies: bool = True
    splicer: Splicer | None = None

    def write(self, batch: Batch, fields: Floats) -> None:
        """Append the batch with its new fields, (rows, new columns) float64, NaN where blank."""

    def finish(self) -> None:
        """Write what the format has at its end. The file is closed by whoever opened it."""
