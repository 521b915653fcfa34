"""JSON lines: an object a line."""

from __future__ import annotations

from typing import BinaryIO

from ema_cli.formats.base import Projection, Source
from ema_cli.formats.jsonl.layout import JsonSink
from ema_cli.formats.jsonl.source import JsonSource
from ema_cli.formats.opened import Opened
from ema_cli.job import Job


def open_source(job: Job, name: str, opened: Opened) -> JsonSource:  # noqa: ARG001 - as every format
    return JsonSource(opened.text, opened.shown, job.notation, opened.taken)


def open_sink(
    job: Job,
    out: BinaryIO,
    source: Source,  # noqa: ARG001 - lines have no header to ask for
    wanted: Projection,  # noqa: ARG001
    names: list[str],
) -> JsonSink:
    return JsonSink(out, names, job.digits)
