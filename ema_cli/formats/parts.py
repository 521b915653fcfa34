"""Several inputs as parts of one series: one header, then the rows of each in the order given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ema_cli.batch import Batch, Dialect, Source, Wanted
from ema_cli.errors import DataError, Place
from ema_cli.formats.text import TextSource, empty_records
from ema_cli.formats.text_body import TextBody


class Parts:
    """A source made of sources; the first is opened at once, the others when their turn comes."""

    def __init__(self, names: Sequence[str], opener: Callable[[str], Source]) -> None:
        self.names, self.opener = list(names), opener
        self.current = opener(self.names[0])
        self.first_schema: Any = None
        self.name, self.columns = self.current.name, self.current.columns

    def numeric(self, candidates: Sequence[int]) -> list[int]:
        return self.current.numeric(candidates)

    def header(self, wanted: Wanted, dialect: Dialect) -> tuple[bytes, bytes]:
        return self.current.header(wanted, dialect)

    def schema(self, wanted: Wanted) -> Any:
        return self.current.schema(wanted)

    @property
    def compression(self) -> str:
        return getattr(self.current, "compression", "zstd")

    def batches(self, wanted: Wanted) -> Iterator[Batch]:
        size = 0
        for batch in self.current.batches(wanted):
            size = batch.size
            yield batch
        before = size
        for name in self.names[1:]:
            earlier = self.current
            earlier.close()
            self.current = self.opener(name)
            self._check_same(earlier)
            if isinstance(earlier, TextSource) and earlier.unfinished:
                yield _newline(earlier, wanted, size)
            for batch in self.current.batches(wanted):
                size = batch.size = batch.size + before
                yield batch
            before = size

    def _check_same(self, earlier: Source) -> None:
        """Raise DataError where a later part has another header or is of another kind."""
        if type(earlier) is not type(self.current):
            raise DataError("another format than the parts before it", Place(self.current.name))
        check_header(self.current.columns, self.columns, self.current.name)

    def close(self) -> None:
        self.current.close()


def check_header(columns: Sequence[str], first: Sequence[str], name: str) -> None:
    """Raise DataError where a part has other columns than the first one."""
    if list(columns) != list(first):
        problem = f"columns {', '.join(columns)}; the first part has {', '.join(first)}"
        hint = "parts of one series have the same header; for a series each: --output-dir without --chain"
        raise DataError(problem, Place(name), hint)


def _newline(source: TextSource, wanted: Wanted, size: int) -> Batch:
    """The line ending that the last record of a part lacks, as a batch without rows."""
    columns = len(source.columns)
    nothing = np.empty((0, len(wanted.values)))
    no_times = None if wanted.time is None else np.empty(0, np.int64)
    body = TextBody(
        empty_records(b"\n", columns), 0, source.dialect, source.columns, wanted, (nothing, no_times)
    )
    keys = [np.empty(0, object) for _ in wanted.keys]
    return Batch(0, nothing, no_times, keys, body, lambda _row, _column=None: Place(source.name), 0, size)
