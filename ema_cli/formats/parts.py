"""Several inputs as parts of one series: one header, then the rows of each in the order given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from ema_cli.errors import Advice, DataError, Place
from ema_cli.formats.base import Batch, Layout, Projection, Sample, Source


class Parts(Source):
    """A source made of sources; the first is opened at once, the others when their turn comes.

    A later part is opened early where the first ones have too few rows to tell which columns hold numbers.
    """

    def __init__(self, names: Sequence[str], opener: Callable[[str], Source]) -> None:
        self.names, self.opener = list(names), opener
        self.first = opener(names[0])
        while not self.first.columns and len(self.names) > 1:  # empty: not even a header
            self.first.close()
            self.first = opener(self.names[1])
            del self.names[0]
        self.opened = [self.first]
        self.name, self.columns, self.kind = self.first.name, self.first.columns, self.first.kind
        self.text_format, self.compression = self.first.text_format, self.first.compression
        self.delimiter = self.first.delimiter

    def sample(self, candidates: Sequence[int], most: int) -> Sample:
        found = self.first.sample(candidates, most)
        while found.undecided and found.rows < most and len(self.opened) < len(self.names):
            more = self._part(len(self.opened)).sample(found.undecided, most - found.rows)
            alike = found.lookalikes | more.lookalikes
            numeric, rows = sorted(found.numeric + more.numeric), found.rows + more.rows
            found = Sample(numeric, more.undecided, rows, alike)
        return found

    def advice(self, names: Sequence[str] = ()) -> Advice | None:
        return self.first.advice(names)

    def header(self, wanted: Projection, layout: Layout) -> tuple[bytes, bytes]:
        return self.first.header(wanted, layout)

    def schema(self, wanted: Projection) -> Any:
        return self.first.schema(wanted)

    def batches(self, wanted: Projection) -> Iterator[Batch]:
        size = before = 0
        earlier: Source | None = None
        for k in range(len(self.names)):
            part = self._part(k)
            if not part.columns:
                continue
            if earlier is not None and (joint := earlier.joint(wanted)) is not None:
                yield replace(joint, size=size)
            earlier = part
            for batch in part.batches(wanted):
                size = batch.size = batch.size + before
                yield batch
            before = size
            part.close()

    def _part(self, k: int) -> Source:
        if k == len(self.opened):
            self.opened.append(self.opener(self.names[k]))
            self._check_same(self.opened[k])
        return self.opened[k]

    def _check_same(self, part: Source) -> None:
        """Raise DataError where a later part has another header or is of another kind."""
        if not part.columns:  # empty: no rows either
            return
        if part.kind != self.kind:
            raise DataError("another format than the parts before it", Place(part.name))
        check_header(part.columns, self.columns, part.name)

    def close(self) -> None:
        for part in self.opened:
            part.close()


def check_header(columns: Sequence[str], first: Sequence[str], name: str) -> None:
    """Raise DataError where a part has other columns than the first one."""
    if list(columns) != list(first):
        problem = f"columns {', '.join(columns)}; the first part has {', '.join(first)}"
        hint = "parts of one series have the same header; for a series each: --output-dir without --chain"
        raise DataError(problem, Place(name), hint)
