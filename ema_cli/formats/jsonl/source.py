"""JSON lines in: the bytes of each object pass as they are, only the wanted members are read.

Objects may differ in their members. The columns are the members of the first object that has any, so that a
live pipe is answered from its first line on; other members are smoothed if they are named.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ema_cli.errors import Advice, DataError, Place
from ema_cli.formats.base import BATCH_ROWS, Batch, Clock, Floats, Ints, Layout, Projection, Sample, Source
from ema_cli.formats.blocks import BlocksOfLines
from ema_cli.formats.clock import BadClockError, ClockReader
from ema_cli.formats.foreign import document_error, jq, lacks_newline_byte, named, refuse_foreign, rows_filter
from ema_cli.formats.jsonl import values as members
from ema_cli.formats.jsonl.body import FILE, JsonBody, json_schema
from ema_cli.formats.jsonl.lines import ABSENT, BadLineError, JsonLines, Record, index_lines, member, parse
from ema_cli.io.streams import BLOCK_BYTES, Reader
from ema_cli.notation import Notation

BOM = b"\xef\xbb\xbf"
LONGEST_LINE = 1 << 26
# Objects within which the first members must appear, and in which further members are noticed.
LOOKED_AT = 1000


@dataclass(frozen=True)
class JsonBlock:
    """Whole lines as they arrived, what is in them, and the line that they begin on."""

    lines: JsonLines
    records: list[Record]
    line: int


class JsonSource(BlocksOfLines, Source):
    """JSON lines, block by block. taken: gives the bytes of the (perhaps compressed) input read so far."""

    kind = "jsonl"
    text_format = "jsonl"
    open_ended = True
    most = BLOCK_BYTES  # an object takes ten times the room of its line

    def __init__(
        self, reader: Reader, name: str, notation: Notation, taken: Callable[[], int] | None = None
    ) -> None:
        self.reader, self.name, self.notation = reader, name, notation
        self.rest, self.line, self.size = b"", 1, 0
        self.taken = taken or (lambda: self.size)
        self.ended = self.unfinished = False
        self.waiting: list[JsonBlock] = []
        self._alone: Record | None = None  # the only object
        self.columns = self._first_members()
        # All columns by index; those asked for that no object has had yet; and others that hold numbers.
        self._names, self._unseen = list(self.columns), set[str]()
        self._noticed: dict[str, None] = {}
        self._looked = 0
        self._by_default = self._follows = False

    def _first_members(self) -> list[str]:
        seen = 0
        while seen < LOOKED_AT and (block := self._next_block()) is not None:
            self.waiting.append(block)
            for record in block.records:
                if record:
                    self._alone = record if len(block.records) == 1 and self.ended and not self.rest else None
                    return list(record)
            seen += len(block.records)
        return []

    def further(self, name: str, key: bool) -> int | None:  # noqa: ARG002 - any member may be any column
        if name not in self._names:
            self._names.append(name)
            self._unseen.add(name)
        return self._names.index(name)

    def label(self, column: int) -> str:
        return self._names[column]

    @property
    def labels(self) -> list[str]:
        return self._names

    def follow(self, labels: Sequence[str]) -> None:
        self._follows = True
        self._unseen = {name for name in labels if name not in self.columns}
        self._names = list(labels)

    def unseen(self) -> set[str]:
        return self._unseen

    def notes(self) -> list[str]:
        if not self._by_default or not self._noticed:
            return []
        names = list(self._noticed)
        listed = ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        hint = " ".join(f"-c {shlex.quote(name)}" for name in names[:5])
        return [f"{self.name}: left out, for the first object does not have it: {listed} ({hint})"]

    def header(self, wanted: Projection, layout: Layout) -> tuple[bytes, bytes]:
        return layout.heading([name for _, name in self._kept(wanted)])

    def schema(self, wanted: Projection) -> Any:
        return json_schema(self._kept(wanted), wanted)

    def separator(self, wanted: Projection) -> Batch | None:
        """The line ending that the last object lacks."""
        if not self.unfinished:
            return None
        values = np.empty((0, len(wanted.values)))
        times = None if wanted.time is None else np.empty(0, np.int64)
        none = np.empty(0, np.int64)
        body = JsonBody(
            JsonLines(b"\n", none, none, 1), 0, [], wanted, self._kept(wanted), (values, times), self.name
        )
        empty = [np.empty(0, object) for _ in (*wanted.keys, *wanted.extra)]
        place = lambda _row, _column=None: Place(self.name)  # noqa: E731 - nobody asks for a row of none
        keys, extra = empty[: len(wanted.keys)], empty[len(wanted.keys) :]
        return Batch(0, values, times, keys, body, place, extra=extra)

    def _kept(self, wanted: Projection) -> list[tuple[int, str]]:
        """The columns for another format: only those asked for, since the others may hold anything."""
        asked = {*wanted.keys, *wanted.clocks, *wanted.values}
        kept = [(k, self._names[k]) for k in (sorted(asked) if wanted.keep is None else wanted.keep)]
        return kept if wanted.file is None else [(FILE, wanted.file), *kept]

    # -- reading

    def _more(self) -> None:
        """Append what has arrived to `rest`; sets `ended` at the end."""
        if len(self.rest) > LONGEST_LINE:
            raise DataError(f"a line longer than {LONGEST_LINE >> 20} MiB", Place(self.name, self.line))
        chunk = self.reader.read(max(BLOCK_BYTES, len(self.rest)))
        self.ended = not chunk
        self.size += len(chunk)
        self.rest += chunk

    def _next_block(self) -> JsonBlock | None:
        """The next objects, None at the end; the lines above a bad one come before its error."""
        while (not self.ended and b"\n" not in self.rest) or not self.rest:
            if self.ended:
                return None
            self._more()
        begin = len(BOM) if self.line == 1 and self.rest.startswith(BOM) else 0
        lines = index_lines(self.rest, self.ended, begin)
        try:
            records = parse(lines)
        except BadLineError as error:
            above = lines.cut(0, error.row)
            if above.length <= begin:
                raise self._bad(lines, error) from None
            lines, records = above, parse(above)
        block = JsonBlock(lines, records, self.line)
        self.line += self.rest.count(b"\n", 0, lines.length)
        self.unfinished = self.rest[lines.length - 1] != 10
        self.rest = self.rest[lines.length :]
        return block

    def _bad(self, lines: JsonLines, error: BadLineError) -> DataError:
        """The error of a bad line; if it is the first, of a file that is no JSON lines."""
        text = lines.text(error.row)
        line = self.line + self.rest.count(b"\n", 0, int(lines.starts[error.row]))
        place = Place(self.name, line)
        if self.waiting or self._is_later():
            return DataError(f"{error.problem}: {_shown(text)}", place, "an object a line: {...}")
        while lacks_newline_byte(self.rest) and not self.ended:
            self._more()
        refuse_foreign(self.rest, self.name, "JSON lines")
        if text.startswith((b"[", b"{")):
            return document_error(self.rest, self.name)
        if text.startswith(b"<"):
            problem = "this is a page of HTML or XML, not JSON lines"
            return DataError(
                problem, place, "fetch the data that the page shows; where from, its source may say"
            )
        return DataError(f"this is not JSON lines: {_shown(text)}", place, "--from csv, if it is a table")

    def _is_later(self) -> bool:
        """Whether objects have been read already."""
        return self.size > len(self.rest)

    # -- handing over

    def sample(self, candidates: Sequence[int], most: int) -> Sample:
        self._by_default = True
        from ema_cli.formats.text.numerals import judge_cells

        undecided, found, seen, k = list(candidates), [], 0, 0
        alike: dict[int, Advice] = {}
        while undecided and seen < most:
            if k == len(self.waiting):
                block = self._next_block()
                if block is None:
                    break
                self.waiting.append(block)
            records = self.waiting[k].records[: most - seen]
            for column in list(undecided):
                cells = members.column_of(records, self._names[column])
                first = next((cell for cell in cells if not members.is_missing(cell, self.notation)), None)
                if first is not None:
                    undecided.remove(column)
                    found += [column] * members.is_number(first, self.notation)
                if isinstance(first, str) and column not in found:
                    # By that cell alone: which others are here depends on how the input was cut.
                    judged = judge_cells([first.encode("utf-8", "surrogatepass")], self.notation)
                    if judged is not None and judged.says:
                        safe = () if "--strip" in judged.options else judged.options
                        alike[column] = Advice(judged.cause, safe)
            seen += len(records)
            k += 1
        return Sample(sorted(found), undecided, seen, alike)

    def _batches_in(self, block: JsonBlock, wanted: Projection) -> Iterator[Batch]:
        done = 0
        for at, lines in block.lines.pieces(BATCH_ROWS):
            # Drop a byte order mark where it would be in the middle of the output.
            marked = self._follows and block.line == 1 and not at and lines.data.startswith(BOM)
            begin = len(BOM) if marked else at
            records = block.records[done : done + len(lines)]
            done += len(lines)
            self._look_at(records)
            yield from self._batches_of(lines, records, begin, (wanted, partial(self._place, block)))

    # -- for several processes: see `Divisible`

    @property
    def ready(self) -> bool:
        # Blocks are read here until all members that are looked for have been seen.
        looks = self._by_default and self._looked < LOOKED_AT
        return super().ready and not (self._unseen or looks)

    def detached(self) -> JsonSource:
        twin = super().detached()
        twin.taken = int
        return twin

    def read_block(self, data: bytes, wanted: Projection, line: int = 1) -> tuple[list[Batch], int] | None:
        lines = index_lines(data, final=False)
        try:
            batches = list(self._batches_in(JsonBlock(lines, parse(lines), line), wanted))
        except (BadLineError, DataError):
            return None
        return batches, data.count(b"\n")

    def _look_at(self, records: Sequence[Record]) -> None:
        """Note which members asked for have appeared, and unexpected ones that hold numbers."""
        for name in list(self._unseen):
            if any(member(record, name) is not ABSENT for record in records):
                self._unseen.discard(name)
        if self._by_default and self._looked < LOOKED_AT:
            known = set(self._names)
            for record in records[: LOOKED_AT - self._looked]:
                for name in record.keys() - known:
                    if type(record[name]) in (int, float):
                        self._noticed[name] = None
            self._looked += len(records)

    def _batches_of(
        self, lines: JsonLines, records: Sequence[Record], begin: int, how: tuple[Projection, Any]
    ) -> Iterator[Batch]:
        """One batch; if a member is bad, the objects above it, and then the error."""
        place = how[1]
        try:
            yield self._batch(lines, records, begin, how)
            return
        except members.BadMemberError as error:
            otherwise = how[0].hint_on(error.column)
            where, hint = place(lines, error.row, error.column), self._number_hint(records, error, otherwise)
            row, bad = error.row, DataError(f"not a number: {error.text}", where, hint)
        except BadClockError as error:
            row = error.row
            bad = DataError(error.problem, place(lines, row, error.column), error.hint)
        above = lines.cut(0, row)
        if above.length > begin:
            yield from self._batches_of(above, records[:row], begin, how)
        raise bad

    def _number_hint(self, records: Sequence[Record], error: members.BadMemberError, otherwise: str) -> str:
        """What to try for a cell that is no number, from the cell alone: which others are there depends on
        how the input was cut. otherwise: if nothing is known of it."""
        from ema_cli.formats.text.numerals import advice_on_cells

        cell = members.column_of(records[error.row : error.row + 1], self._names[error.column])[0]
        if not isinstance(cell, str):
            return str(self.advice() or otherwise)
        advice = advice_on_cells([cell.encode("utf-8", "surrogatepass")], self.notation, otherwise)
        # Other cells may have nothing beside them.
        return otherwise if "--strip" in advice.options else str(advice)

    def advice(self, names: Sequence[str] = ()) -> Advice | None:  # noqa: ARG002 - whichever they are
        """How to get at the rows of a document on one line, which is one object here."""
        if self._alone is None or (rows := rows_filter(self._alone)) is None:
            return None
        return Advice(named(jq(rows), self.name), ())

    def _batch(
        self, lines: JsonLines, records: Sequence[Record], begin: int, how: tuple[Projection, Any]
    ) -> Batch:
        wanted, place = how
        values, oddities = self._values(records, wanted)
        times, clock = self._clock(records, values, wanted)
        keys = [members.keys(members.column_of(records, self._names[k])) for k in wanted.keys]
        extra = [members.times(members.column_of(records, self._names[k])) for k in wanted.extra]
        body = JsonBody(lines, begin, records, wanted, self._kept(wanted), (values, times), self.name)
        where = partial(place, lines)
        return Batch(len(lines), values, times, keys, body, where, oddities, self.taken(), extra, clock)

    def _values(self, records: Sequence[Record], wanted: Projection) -> tuple[Floats, list[Any]]:
        values = np.empty(
            (len(wanted.values), len(records))
        ).T  # column after column, as the engine folds them
        oddities: list[Any] = []
        errors = []
        for k, column in enumerate(wanted.values):
            cells = members.column_of(records, self._names[column])
            try:
                values[:, k], odd = members.numbers(cells, column, self.notation, wanted.invalid)
                oddities += odd
            except members.BadMemberError as error:
                errors.append(error)
        if errors:
            raise min(errors, key=lambda error: error.row)
        return values, oddities

    def _clock(
        self, records: Sequence[Record], values: Floats, wanted: Projection
    ) -> tuple[Ints | None, Clock]:
        def cells(column: int) -> Any:
            return members.times(members.column_of(records, self._names[column]))

        def numbers(column: int) -> Floats:
            order = members.column_of(records, self._names[column])
            return members.numbers(order, column, self.notation, wanted.invalid)[0]

        return ClockReader(wanted, values, cells, numbers).read()

    def _place(self, block: JsonBlock, lines: JsonLines, row: int, column: int | None = None) -> Place:
        line = block.line + lines.data.count(b"\n", 0, int(lines.starts[row]))
        return Place(self.name, line, None if column is None else self._names[column])


def _shown(text: bytes) -> str:
    shown = text.decode("utf-8", "replace")
    return repr(shown if len(shown) <= 60 else shown[:57] + "...")
