"""Parquet."""

from __future__ import annotations

from typing import BinaryIO

from ema_cli.formats.base import Projection, Sink, Source
from ema_cli.formats.opened import Opened
from ema_cli.formats.pandas_index import adding
from ema_cli.formats.parquet.copy import ParquetCopySink
from ema_cli.formats.parquet.sink import ParquetSink
from ema_cli.formats.parquet.source import ParquetSource
from ema_cli.job import Job
from ema_cli.process import threads_for


def open_source(job: Job, name: str, opened: Opened) -> ParquetSource:  # noqa: ARG001 - as every format
    with opened.seekable() as file:  # which is opened anew by it
        return ParquetSource(file, opened.shown)


def open_sink(
    job: Job,
    out: BinaryIO,
    source: Source,
    wanted: Projection,
    names: list[str],
) -> Sink:
    """From Parquet, the chunks of the columns kept are copied where that can be done."""
    schema, threads = source.schema(wanted), threads_for(job.processes)
    if (original := source.original("parquet", wanted, len(names))) is not None:
        kept = range(len(source.columns)) if wanted.keep is None else wanted.keep
        return ParquetCopySink(out, original, adding(schema, names), kept, names, threads)
    return ParquetSink(out, schema, names, source.compression, threads)
