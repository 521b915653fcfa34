"""Several inputs as parts of one series: one header, then the rows of each in the order given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from ema_cli.errors import Advice, DataError, Place
from ema_cli.formats.base import Batch, Layout, Projection, Sample, Source
from ema_cli.formats.unify import unified_schema


class Parts(Source):
    """A source made of sources; the first is opened at once, each other one when its rows are read.

    A later part is opened earlier if the first ones have too few rows to see which columns hold numbers.
    by_file: the name of the part is the first key of each row.
    """

    def __init__(
        self, names: Sequence[str], opener: Callable[[str], Source], *, by_file: bool = False
    ) -> None:
        self.names, self.opener, self.by_file = list(names), opener, by_file
        self.first = opener(names[0])
        while not self.first.columns and len(self.names) > 1:  # empty: not even a header
            self.first.close()
            self.first = opener(self.names[1])
            del self.names[0]
        self.opened = {0: self.first}
        self.unified: Any | None = None
        self.further_ones: list[tuple[str, bool, int]] = []
        self.name, self.columns, self.kind = self.first.name, self.first.columns, self.first.kind
        self.text_format, self.compression = self.first.text_format, self.first.compression
        self.open_ended, self.delimiter = self.first.open_ended, self.first.delimiter
        self._unseen, self._notes = self.first.unseen(), list[str]()
        try:
            self.unified = self._unified_schema()
        except BaseException:
            self.close()
            raise
        if self.unified is not None:
            for part in self.opened.values():
                part.cast_to(self.unified)

    def _unified_schema(self) -> Any | None:
        """The schema that fits the rows of all parts, if they have types; reads the schemas of all parts."""
        schemas = [(self.first.name, self.first.types())]
        if schemas[0][1] is None:
            return None
        for k in range(1, len(self.names)):
            part = self._part(k)
            if part.columns:
                schemas.append((part.name, part.types()))
            if Path(self.names[k]).is_file():  # it can be opened again, and there may be very many
                self.opened.pop(k).close()
        return unified_schema(schemas)

    def sample(self, candidates: Sequence[int], most: int) -> Sample:
        found, k = self.first.sample(candidates, most), 1
        while found.undecided and found.rows < most and k < len(self.names):
            more = self._part(k).sample(found.undecided, most - found.rows)
            alike = found.lookalikes | more.lookalikes
            numeric, rows = sorted(found.numeric + more.numeric), found.rows + more.rows
            found = Sample(numeric, more.undecided, rows, alike)
            k += 1
        return found

    def advice(self, names: Sequence[str] = ()) -> Advice | None:
        return self.first.advice(names)

    def further(self, name: str, key: bool) -> int | None:
        found = self.first.further(name, key)
        if found is not None:
            self.further_ones.append((name, key, found))
        return found

    def label(self, column: int) -> str:
        return self.first.label(column)

    def unseen(self) -> set[str]:
        return self._unseen

    def notes(self) -> list[str]:
        return self._notes

    def has_naive_times(self, wanted: Projection) -> bool:
        return self.first.has_naive_times(wanted)

    def header(self, wanted: Projection, layout: Layout) -> tuple[bytes, bytes]:
        return self.first.header(wanted, layout)

    def schema(self, wanted: Projection) -> Any:
        return self.first.schema(wanted)

    def batches(self, wanted: Projection) -> Iterator[Batch]:
        return self.batches_by(lambda part, wanted: part.batches(wanted), wanted)

    def batches_by(
        self, read: Callable[[Source, Projection], Iterator[Batch]], wanted: Projection
    ) -> Iterator[Batch]:
        size = before = 0
        earlier: Source | None = None
        for k in range(len(self.names)):
            part = self._part(k)
            if not part.columns:
                continue
            if earlier is not None and (separator := earlier.separator(wanted)) is not None:
                yield self._named(replace(separator, size=size), earlier)
            earlier = part
            if part is not self.first:
                self._follow_first(part)
            for batch in read(part, wanted):
                size = batch.size = batch.size + before
                yield self._named(batch, part)
            before = size
            self._unseen = part.unseen() if part is self.first else self._unseen & part.unseen()
            self._notes += part.notes()
            self.opened.pop(k).close()

    def _named(self, batch: Batch, part: Source) -> Batch:
        """The batch with the name of its part."""
        batch.file = part.name
        if self.by_file:
            batch.keys = [pa.repeat(part.name, batch.rows), *batch.keys]
        return batch

    def _part(self, k: int) -> Source:
        if k not in self.opened:
            part = self.opened[k] = self.opener(self.names[k])
            self._check_same(part)
            if self.unified is not None:
                part.cast_to(self.unified)
            if self.open_ended:
                self._follow_first(part)
        return self.opened[k]

    def _follow_first(self, part: Source) -> None:
        """Give a later part the columns of the first one, those found by `further` too."""
        part.follow(self.first.labels)
        for name, key, place in self.further_ones:
            if part.further(name, key) != place:
                raise DataError(f"no {name!r}, which the parts before it have", Place(part.name))

    def _check_same(self, part: Source) -> None:
        """Raise DataError if a later part has another header or is of another kind."""
        if not part.columns:  # empty: no rows either
            return
        if part.kind != self.kind:
            raise DataError("another format than the parts before it", Place(part.name))
        if not self.open_ended:
            check_header(part.columns, self.columns, part.name)

    def close(self) -> None:
        for part in self.opened.values():
            part.close()


def check_header(columns: Sequence[str], first: Sequence[str], name: str) -> None:
    """Raise DataError if a part has other columns than the first one."""
    if list(columns) != list(first):
        problem = f"columns {', '.join(columns)}; the first part has {', '.join(first)}"
        hint = "parts of one series have the same header; for a series each: --output-dir without --chain"
        raise DataError(problem, Place(name), hint)
