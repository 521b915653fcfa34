"""Delimited text: CSV, TSV and their like."""

from __future__ import annotations

from typing import BinaryIO

from ema_cli.formats.base import Projection, Source
from ema_cli.formats.opened import Opened
from ema_cli.formats.text.dialect import input_dialect, output_dialect
from ema_cli.formats.text.sink import TextSink
from ema_cli.formats.text.source import TextSource
from ema_cli.job import Job


def open_source(job: Job, name: str, opened: Opened) -> TextSource:
    return TextSource(
        opened.text, opened.shown, input_dialect(job, name), opened.taken, waits=not opened.is_file
    )


def open_sink(job: Job, out: BinaryIO, source: Source, wanted: Projection, names: list[str]) -> TextSink:
    dialect = output_dialect(job, source.delimiter)
    header = source.header(wanted, dialect)
    return TextSink(
        out, header, names, dialect, digits=job.digits, alone=wanted.keep == () and wanted.file is None
    )
