"""Keys in an input's path, as data lakes have them: `sales/year=2024/month=5/part-0.parquet`.

They are columns that `--by` may name and `--only` writes, though they are not in the table itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from ema_cli.errors import Advice
from ema_cli.formats.arrow_types import utf8_name
from ema_cli.formats.base import Batch, Body, Layout, Projection, Sample, Source

# The indexes of such columns begin here, beyond those of any table.
FIRST = 1 << 20
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


def path_keys(name: str) -> dict[str, str | None]:
    """The keys in a path's folders, by name; None for one without a value."""
    found: dict[str, str | None] = {}
    for folder in PurePath(name).parts[:-1]:
        key, mark, value = folder.partition("=")
        if key and mark:
            found[unquote(key)] = None if value == NO_VALUE else unquote(value)
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class KeyedBody(Body):
    """Rows with the path's keys at the end of each. alone: no column of the table itself is kept."""

    inner: Body
    rows: int
    kept: Mapping[str, str | None]
    alone: bool

    def texts(self, layout: Layout) -> tuple[Any, memoryview]:
        own, tail = self.inner.texts(layout)
        return layout.append_fields(own, self.kept, alone=self.alone), tail

    def arrow(self) -> Any:
        batch = self.inner.arrow()
        columns = [pa.repeat(pa.scalar(value, pa.string()), self.rows) for value in self.kept.values()]
        return pa.RecordBatch.from_arrays([*batch.columns, *columns], schema=_with(batch.schema, self.kept))

    def head(self, rows: int) -> KeyedBody:
        return replace(self, inner=self.inner.head(rows), rows=rows)


class KeyedSource(Source):
    """An input and the keys of its path."""

    def __init__(self, inner: Source, keys: Mapping[str, str | None]) -> None:
        self.inner, self.keys = inner, keys
        self._names = list(keys)
        self.name, self.columns, self.kind = inner.name, inner.columns, inner.kind
        self.text_format, self.compression = inner.text_format, inner.compression
        self.open_ended, self.delimiter = inner.open_ended, inner.delimiter

    def further(self, name: str, key: bool) -> int | None:
        if key and name in self.keys:
            return FIRST + self._names.index(name)
        return self.inner.further(name, key)

    def label(self, column: int) -> str:
        return self._names[column - FIRST] if column >= FIRST else self.inner.label(column)

    @property
    def labels(self) -> list[str]:
        return self.inner.labels

    def batches(self, wanted: Projection) -> Iterator[Batch]:
        own, kept = self._own(wanted), self._kept(wanted)
        for batch in self.inner.batches(own):
            given = iter(batch.keys)
            batch.keys = [self._key(k, batch.rows) if k >= FIRST else next(given) for k in wanted.keys]
            if kept:
                batch.body = KeyedBody(batch.body, batch.rows, kept, own.keep == ())
            yield batch

    def _key(self, column: int, rows: int) -> Any:
        value = self.keys[self.label(column)]
        return pa.repeat(pa.scalar(None if value is None else value.encode(), pa.binary()), rows)

    def _own(self, wanted: Projection) -> Projection:
        """The projection for the table itself."""
        keep = None if wanted.keep is None else tuple(k for k in wanted.keep if k < FIRST)
        return replace(wanted, keys=tuple(k for k in wanted.keys if k < FIRST), keep=keep)

    def _kept(self, wanted: Projection) -> dict[str, str | None]:
        return {self.label(k): self.keys[self.label(k)] for k in wanted.keep or () if k >= FIRST}

    def header(self, wanted: Projection, layout: Layout) -> tuple[bytes, bytes]:
        own, kept = self._own(wanted), self._kept(wanted)
        text, ending = self.inner.header(own, layout)
        return (layout.append_names(text, kept, alone=own.keep == ()) if kept else text), ending

    def schema(self, wanted: Projection) -> Any:
        return _with(self.inner.schema(self._own(wanted)), self._kept(wanted))

    def original(self, sink: str, wanted: Projection, new: int) -> Any | None:
        return None if self._kept(wanted) else self.inner.original(sink, wanted, new)

    # -- as the input itself has it

    def sample(self, candidates: Sequence[int], most: int) -> Sample:
        return self.inner.sample(candidates, most)

    def advice(self, names: Sequence[str] = ()) -> Advice | None:
        return self.inner.advice(names)

    def follow(self, labels: Sequence[str]) -> None:
        self.inner.follow(labels)

    def unseen(self) -> set[str]:
        return self.inner.unseen()

    def notes(self) -> list[str]:
        return self.inner.notes()

    def types(self) -> Any | None:
        return self.inner.types()

    def cast_to(self, schema: Any) -> None:
        self.inner.cast_to(schema)

    def separator(self, wanted: Projection) -> Batch | None:
        return self.inner.separator(self._own(wanted))

    def close(self) -> None:
        self.inner.close()


def _with(schema: Any, kept: Mapping[str, str | None]) -> Any:
    for name in kept:
        schema = schema.append(pa.field(utf8_name(name), pa.string()))
    return schema
