"""How a table of delimited text is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ema_cli.errors import Place
from ema_cli.formats.base import Layout
from ema_cli.formats.registry import format_of_name
from ema_cli.job import Job
from ema_cli.notation import PLAIN, Notation


@dataclass(frozen=True)
class Dialect(Layout):
    """How a text table is written.

    decimal_comma: how numbers are written. notation: how they are read. named: `-d` gave the delimiter, which
    a `sep=` line does not change. spaces: runs of spaces and tabs separate fields. skip: lines before the
    table. comments: beginnings of lines that are no records. pad: records may have fewer fields.
    """

    delimiter: bytes = b","
    header: bool = True
    decimal_comma: bool = False
    notation: Notation = PLAIN
    named: bool = False
    spaces: bool = False
    skip: int = 0
    comments: tuple[bytes, ...] = ()
    pad: bool = False

    def separates_like(self, other: Dialect) -> bool:
        """Whether records are the same in both dialects."""
        return (self.delimiter, self.spaces) == (other.delimiter, other.spaces)

    def heading(self, names: Sequence[str]) -> tuple[bytes, bytes]:
        from ema_cli.formats import arrow_text  # not needed from text to text

        return (arrow_text.header(names, self.delimiter), b"\n") if self.header else (b"", b"")

    def append_names(self, text: bytes, names: Iterable[str], *, alone: bool) -> bytes:
        if not self.header:
            return text
        return text + self._fields([name.encode("utf-8", "surrogateescape") for name in names], alone)

    def append_fields(self, own: Any, values: Mapping[str, str | None], *, alone: bool) -> Any:
        from ema_cli.formats import arrow_compute as pc

        return pc.join_same(own, self._fields([(value or "").encode() for value in values.values()], alone))

    def _fields(self, texts: Sequence[bytes], alone: bool) -> bytes:
        """Fields with these texts, each after a delimiter; alone: the first one without."""
        return self.delimiter * (not alone) + self.delimiter.join(self.quoted(text) for text in texts)

    def quoted(self, text: bytes) -> bytes:
        """A field with this text, in quotes only if needed."""
        marks = (b" ", b"\t") if self.spaces else (self.delimiter,)
        if any(mark in text for mark in (*marks, b'"', b"\n", b"\r")) or (self.spaces and not text):
            return b'"' + text.replace(b'"', b'""') + b'"'
        return text

    def rows(self, batch: Any, places: Sequence[Place], count: int) -> tuple[Any, memoryview]:
        from ema_cli.formats import arrow_text

        return arrow_text.rows(batch.columns, places, count, self.delimiter, self.decimal_comma)


def input_dialect(job: Job, name: str) -> Dialect:
    """How a text input is written."""
    kind = job.source or format_of_name(name)
    return Dialect(
        b" " if job.spaces else job.delimiter or (b"\t" if kind == "tsv" else b","),
        job.header,
        job.decimal_comma,
        job.notation,
        job.delimiter is not None,
        job.spaces,
        job.skip_lines,
        tuple(text.encode("utf-8", "surrogateescape") for text in job.comments),
        job.ragged == "pad",
    )


def output_dialect(job: Job, delimiter: bytes | None) -> Dialect:
    """How a text output is written: a text keeps its own delimiter unless another format is asked for.

    delimiter: what the input says itself.
    """
    own = input_dialect(job, job.inputs[0])
    if delimiter is not None:
        own = replace(own, delimiter=delimiter)
    kind, came_as = job.target or format_of_name(job.output), job.source or format_of_name(job.inputs[0])
    if kind == "tsv":
        return replace(own, delimiter=b"\t", spaces=False)
    if kind == "csv" and (
        (own.spaces and job.target == "csv") or (came_as == "tsv" and own.delimiter == b"\t")
    ):
        return replace(own, delimiter=b",", spaces=False)
    return own
