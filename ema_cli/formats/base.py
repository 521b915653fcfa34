"""What a format offers: a `Source` yields `Batch`es, the trends are computed, a `Sink` writes both.

A format is one file or package with a source, a sink and a body, and a line in `registry.py`. Nothing outside
it asks which format it is: what a sink has to know of the input is asked of its source, in the words of this
page. Any sink takes any body, so every format converts into every other without a case for each pair.
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
    """Which columns (by index, from 0) to hand over, and how to read them.

    values: to be smoothed. keys, time: the key and time columns. time_form: how times are written.
    invalid: 'error' or 'missing', for cells that are no finite number or no time. keep: columns that the
    output has (all of them, or key, time and no more with `--only`). extra: columns to hand over as text, for
    observers. time_of_day: the other column where a time stands in two. order: what should only grow, and
    order_form: how times there are written; None where it holds numbers. file: what a column before those
    kept is called that names the input; None: there is none. naive: the first time names no zone, so where
    the output has types, times are written as those of a wall clock.
    notation: how cells of text are written, and which numbers stand for missing.
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

    @property
    def clocks(self) -> tuple[int, ...]:
        """The columns that say when a row was, or what it comes after."""
        return tuple(k for k in (self.time, self.time_of_day, self.order) if k is not None)


class Layout(Protocol):
    """How a text-like format writes rows; each such format has its own.

    A body of the same format has the text of its rows already and only splices; all others are laid out from
    Arrow columns.
    """

    def heading(self, names: Sequence[str]) -> tuple[bytes, bytes]:
        """What stands before the first row: up to where new names are added, and what follows these."""

    def more_names(self, text: bytes, names: Iterable[str], *, alone: bool) -> bytes:
        """A heading with more names at its end. alone: there are none before them."""

    def more(self, own: Any, values: Mapping[str, str | None], *, alone: bool) -> Any:
        """Rows as `Body.texts` has them, with the same further values, by name, at the end of each."""

    def rows(self, batch: Any, places: Sequence[Place], count: int) -> tuple[Any, memoryview]:
        """Rows of an Arrow RecordBatch as `Body.texts` gives them.

        places: what the columns are called in messages. count: how many rows (a batch without columns does
        not know). Raises DataError for values that have no text.
        """


class Body(Protocol):
    """The rows of a batch as they came, to be written with new fields added."""

    def texts(self, layout: Layout) -> tuple[Any, memoryview]:
        """Each row's text up to where new fields are added, as an Arrow binary array; what follows the last.

        The text of a row is preceded by whatever stood between the place where the fields of the row before
        it go and this row: what ends that row, blank lines.
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


@dataclass(frozen=True)
class Clock:
    """What else the columns of time and order say of rows; all of (rows,), or None.

    later: int64, how much later a time is if the second reading of an hour that comes twice is meant, else 0.
    order: float64 numbers, or int64 nanoseconds. left_out: bool, rows that have no time or place in the order
    and so are as if they were not there. unread: the cells for which that is so, blank rows apart. wall:
    int64, times as their clock shows them, where that is another than UTC. text: says what stands in the cell
    of a row by which it is ordered.
    """

    later: Ints | None = None
    order: Any | None = None
    left_out: NDArray[np.bool_] | None = None
    unread: tuple[Oddity, ...] = ()
    wall: Ints | None = None
    text: Callable[[int], str] = str

    def picked(self, rows: Any) -> Clock:
        """That of some rows: a slice, or places."""
        given = (self.later, self.order, self.left_out, self.wall)
        later, order, left_out, wall = (None if part is None else part[rows] for part in given)
        return replace(self, later=later, order=order, left_out=left_out, wall=wall)

    def saying(self, text: Callable[[int], str]) -> Clock:
        """The same with another way to say what stands in a row."""
        return replace(self, text=text)


@dataclass
class Batch:
    """Up to `BATCH_ROWS` consecutive rows.

    values: (rows, chosen columns) float64, NaN where missing. times: (rows,) int64 nanoseconds, if wanted.
    keys: one Arrow string or binary array a key column. oddities: cells that were no number and count as
    missing, a column each. size: bytes of input read so far, for the progress bar. restarts: (rows,) bool,
    where the run has begun a series afresh; for observers. extra: as `keys`, for the
    columns of `Projection.extra`. clock: what the columns of time and order say besides the times. file: of
    several inputs the one it is from. cells: gives so many cells of a column, from that row on, as an Arrow
    array, None where it was not read. room: (new columns, rows), where the new fields may be put.
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
    room: Floats | None = None

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
        some.clock, some.room = clock, None
        return some


class Locator(Protocol):
    """Says where a row of a batch stands in the input; asked only when something is wrong with it."""

    def __call__(self, row: int, column: int | None = None) -> Place: ...


@dataclass(frozen=True)
class Sample:
    """What the first rows tell: columns that hold numbers, columns without a value yet, rows looked at.

    lookalikes: columns that hold numbers too, but not as they are read; each with what would read them.
    """

    numeric: list[int]
    undecided: list[int]
    rows: int = 0
    lookalikes: dict[int, Advice] = field(default_factory=dict)


class Source(Protocol):
    """Rows to read; what has a value here is what most formats say, who inherit it.

    name: for messages. columns: the header's names in order. kind: which inputs may be parts of one series.
    text_format: the format that rows are written in where a text is wanted and nothing says which.
    open_ended: `columns` are those of the first rows, and others may come.
    compression: the codec for columns that are added to the input's, where a sink can choose. delimiter: what
    separates fields in a text, where the input itself says so.
    """

    name: str
    columns: list[str]
    kind: str
    text_format: str = "csv"
    open_ended: bool = False
    compression: str = "zstd"
    delimiter: bytes | None = None

    def sample(self, candidates: Sequence[int], most: int) -> Sample:
        """Which of the candidates hold numbers, by their first value within `most` rows (read ahead)."""

    def batches(self, wanted: Projection) -> Iterator[Batch]:
        """All rows in order. Raises DataError for a cell that can't be read."""

    def batches_by(
        self, read: Callable[[Source, Projection], Iterator[Batch]], wanted: Projection
    ) -> Iterator[Batch]:
        """All rows in order, those of each input that this is made of by this function."""
        return read(self, wanted)

    def header(self, wanted: Projection, layout: Layout) -> tuple[bytes, bytes]:
        """The header with the columns kept, as `Layout.heading` has it."""

    def schema(self, wanted: Projection) -> Any:
        """The Arrow schema, metadata and all, of the columns kept."""

    def advice(self, names: Sequence[str] = ()) -> Advice | None:  # noqa: ARG002 - most formats say what they are
        """How else the input may be meant, if columns of these names are not there or none holds numbers."""
        return None

    def further(self, name: str, key: bool) -> int | None:  # noqa: ARG002 - most formats have none
        """Where a column is that is not among `columns` but can be had all the same, such as a member of one.

        key: whether it is to tell series apart. None where there is none of that name.
        """
        return None

    def label(self, column: int) -> str:
        """The name of a column, which may be a further one."""
        return self.columns[column]

    @property
    def labels(self) -> list[str]:
        """The names of all columns by position, further ones too, where the input is open-ended."""
        return self.columns

    def follow(self, labels: Sequence[str]) -> None:  # noqa: ARG002 - tables have a header that says it
        """This is a later part of a series, whose columns are these; only an open-ended one has to be told.

        What only the beginning of a file has, such as a byte order mark, does not pass.
        """
        return

    def unseen(self) -> set[str]:
        """Of an open-ended input that has been read: the columns asked for that no row had."""
        return set()

    def notes(self) -> list[str]:
        """What there is to say to the user of an input that has been read."""
        return []

    def types(self) -> Any | None:
        """The Arrow schema of all columns, where the input has one before a row is read."""
        return None

    def settle(self, schema: Any) -> None:  # noqa: ARG002 - where there are no types
        """Hand over columns in the types of this schema, which hold what `types` said and more."""
        return

    def has_naive_times(self, wanted: Projection) -> bool:  # noqa: ARG002 - where types or nothing tells
        """Whether times stand as text and the first names no zone (read ahead)."""
        return False

    def joint(self, wanted: Projection) -> Batch | None:  # noqa: ARG002 - most formats need none
        """What has to stand between the last row and another part of the series, as a batch without rows."""
        return None

    def original(self, sink: str, wanted: Projection, new: int) -> Any | None:  # noqa: ARG002 - or none
        """The input itself, for a sink of that format which copies it beside so many new columns, and closes
        it; None where all is to be written anew."""
        return None

    def divisible(self) -> Divisible | None:
        """The same input as blocks that may be read elsewhere; None for formats that can't be cut unread."""
        return None

    def close(self) -> None:
        """Let go of the input."""


class Divisible(Protocol):
    """A source whose blocks may be read elsewhere, several at once and by other processes.

    A block is whole records, as far as can be told without reading them. Whatever turns out to be otherwise,
    or wrong, is put back, and then read as ever with `next_batches`; so there is one way to go wrong.
    The last one may lack its line ending, and so is never taken.
    shared: the file that all blocks are in, where others can read it too. at: where the next one begins in
    it. ended: there is nothing more to take. ready: to take does not wait. line: on which the next one
    begins; who reads a block elsewhere moves it on. size: bytes of text that have been read. taken: how many
    of the input that was given, packed as it may be. most: bytes that a block had better have at most.
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

    def take(self, room: memoryview, least: int) -> int:
        """Put the next block at the beginning of this room, and give its bytes; 0 where what has come is less
        than so many bytes, or no whole record; then it has not been taken. Of a file that others can read
        nothing is put there, or read."""

    def put_back(self, data: bytes, begin: int) -> None:
        """These have not been taken after all, for they are no whole records. begin: where in the shared file
        they begin, where there is one; then `data` does not matter."""

    def apart(self) -> Divisible:
        """One that is only there to read blocks, and can be pickled."""

    def read_block(self, data: bytes, wanted: Projection, line: int = 1) -> tuple[list[Batch], int] | None:
        """The rows of a block that was taken, which begins on that line, and how many lines it has.

        None where it has to be put back.
        """


class Splicer(Protocol):
    """The part of a text-like sink that may run elsewhere: texts and fields in, bytes out."""

    out: BinaryIO
    layout: Layout

    def append(self, own: Any, tail: memoryview, fields: Floats) -> None:
        """Append rows, their texts as `Body.texts` gives them, with their new fields."""


class Sink(Protocol):
    """Where rows and their new fields go; made with the names of the new columns.

    needs_bodies: whether `write` looks at the body of a batch. splicer: of a text-like format, which may be
    told to append in another process instead of `write`; None where that can't be.
    """

    needs_bodies: bool = True
    splicer: Splicer | None = None

    def write(self, batch: Batch, fields: Floats) -> None:
        """Append the batch with its new fields, (rows, new columns) float64, NaN where blank."""

    def finish(self) -> None:
        """Write what a format keeps for its end. The file itself is closed by whoever opened it."""
