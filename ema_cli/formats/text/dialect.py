"""How a table of delimited text is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ema_cli.errors import Place
from ema_cli.formats.base import Layout
from ema_cli.formats.registry import format_of_name
from ema_cli.job import Job


@dataclass(frozen=True)
class Dialect(Layout):
    """How a text table is written."""

    delimiter: bytes = b","
    header: bool = True
    decimal_comma: bool = False

    def heading(self, names: Sequence[str]) -> tuple[bytes, bytes]:
        from ema_cli.formats import arrow_text  # which text alone never needs

        return (arrow_text.header(names, self.delimiter), b"\n") if self.header else (b"", b"")

    def rows(self, batch: Any, places: Sequence[Place], count: int) -> tuple[Any, memoryview]:
        from ema_cli.formats import arrow_text

        return arrow_text.rows(batch.columns, places, count, self.delimiter, self.decimal_comma)


def input_dialect(job: Job, name: str) -> Dialect:
    """How a text input is written."""
    kind = job.source or format_of_name(name)
    delimiter = job.delimiter or (b"\t" if kind == "tsv" else b",")
    return Dialect(delimiter, job.header, job.decimal_comma)


def output_dialect(job: Job) -> Dialect:
    """How a text output is written: a text keeps its own delimiter unless another format is asked for."""
    own = input_dialect(job, job.inputs[0])
    kind, came_as = job.target or format_of_name(job.output), job.source or format_of_name(job.inputs[0])
    if kind == "tsv":
        return replace(own, delimiter=b"\t")
    if kind == "csv" and came_as == "tsv" and own.delimiter == b"\t":
        return replace(own, delimiter=b",")
    return own
