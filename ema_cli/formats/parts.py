"""Several inputs as parts of one series: one header, then the rows of each in the order given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ema_cli.errors import DataError, Place
from ema_cli.formats.base import Batch, Dialect, Projection, Sample, Source
from ema_cli.formats.text.body import TextBody
from ema_cli.formats.text.source import TextSource, empty_records


class Parts:
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
        self.name, self.columns = self.first.name, self.first.columns

    def sample(self, candidates: Sequence[int], most: int) -> Sample:
        found = self.first.sample(candidates, most)
        while found.undecided and found.rows < most and len(self.opened) < len(self.names):
            more = self._part(len(self.opened)).sample(found.undecided, most - found.rows)
            found = Sample(sorted(found.numeric + more.numeric), more.undecided, found.rows + more.rows)
        return found

    def header(self, wanted: Projection, dialect: Dialect) -> tuple[bytes, bytes]:
        return self.first.header(wanted, dialect)

    def schema(self, wanted: Projection) -> Any:
        return self.first.schema(wanted)

    @property
    def compression(self) -> str:
        return getattr(self.first, "compression", "zstd")

    def batches(self, wanted: Projection) -> Iterator[Batch]:
        size = before = 0
        earlier: Source | None = None
        for k in range(len(self.names)):
            part = self._part(k)
            if not part.columns:
                continue
            if isinstance(earlier, TextSource) and earlier.unfinished:
                yield _newline(earlier, wanted, size)
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
        if type(part) is not type(self.first):
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


def _newline(source: TextSource, wanted: Projection, size: int) -> Batch:
    """The line ending that the last record of a part lacks, as a batch without rows."""
    columns = len(source.columns)
    nothing = np.empty((0, len(wanted.values)))
    no_times = None if wanted.time is None else np.empty(0, np.int64)
    body = TextBody(
        empty_records(b"\n", columns), 0, source.dialect, source.columns, wanted, (nothing, no_times)
    )
    keys = [np.empty(0, object) for _ in wanted.keys]
    return Batch(0, nothing, no_times, keys, body, lambda _row, _column=None: Place(source.name), [], size)
