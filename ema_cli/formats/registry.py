"""Which format an input or output has: by what was asked for, else its suffix, else its first bytes."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, BinaryIO

from ema_cli.formats.base import Dialect, Projection, Sink, Source
from ema_cli.io.streams import SUFFIXES, Pushback, Reader, open_raw, open_text

if TYPE_CHECKING:
    from ema_cli.job import Job

KINDS = {".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".parquet": "parquet", ".pq": "parquet"}


def kind_of_name(name: str | None) -> str | None:
    """The format that a file's suffix names, None where it names none."""
    base = (name or "").lower()
    for suffix in SUFFIXES:
        base = base.removesuffix(suffix)
    return KINDS.get(os.path.splitext(base)[1])  # noqa: PTH122 - a name, not a path: `-` and URLs too


def input_dialect(job: Job, name: str) -> Dialect:
    """How a text input is written."""
    kind = job.source or kind_of_name(name)
    delimiter = b" " if job.spaces else job.delimiter or (b"\t" if kind == "tsv" else b",")
    return Dialect(
        delimiter,
        job.header,
        job.decimal_comma,
        job.notation,
        job.delimiter is not None,
        job.spaces,
        job.skip_lines,
        tuple(text.encode("utf-8", "surrogateescape") for text in job.comments),
        job.ragged == "pad",
    )


def output_kind(job: Job) -> str:
    """csv, tsv, parquet, or text (as the input is written)."""
    return job.target or kind_of_name(job.output) or "text"


def output_dialect(job: Job) -> Dialect:
    """How a text output is written: a text keeps its own delimiter unless another format is asked for."""
    own = input_dialect(job, job.inputs[0])
    kind, came_as = output_kind(job), job.source or kind_of_name(job.inputs[0])
    if kind == "tsv":
        return Dialect(b"\t", own.header, own.decimal_comma)
    if kind == "csv" and own.spaces:
        return Dialect(b",", own.header, own.decimal_comma)
    if kind == "csv" and came_as == "tsv" and own.delimiter == b"\t":
        return Dialect(b",", own.header, own.decimal_comma)
    return own


def open_source(job: Job, name: str) -> Source:
    """The rows of one input. Raises FileTrouble where it can't be read, DataError where it is no table."""
    from ema_cli.formats.text.source import TextSource

    kind = job.source or kind_of_name(name)
    raw = open_raw(name)
    shown = "stdin" if name == "-" else name
    reader: Reader | None = None
    try:
        if kind == "parquet" and stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
            from ema_cli.formats.parquet.source import ParquetSource

            with raw:  # which is opened anew by it
                return ParquetSource(raw, shown)
        head = Pushback(raw, shown)
        reader = open_text(head)
        if kind is None or kind == "parquet":
            peeked = Pushback(reader, shown)
            if kind == "parquet" or is_parquet(peeked):
                from ema_cli.formats.parquet.source import ParquetSource
                from ema_cli.io.spool import spool

                with peeked, spool(peeked) as spooled:
                    return ParquetSource(spooled, shown)
            reader = peeked
        return TextSource(reader, shown, input_dialect(job, name), lambda: head.count)
    except BaseException:
        (raw if reader is None else reader).close()
        raise


def is_parquet(reader: Pushback) -> bool:
    """True where the first bytes are Parquet's; waits only as long as they might be."""
    while b"PAR1".startswith(reader.peeked) and len(reader.peeked) < 4 and reader.peek_more():
        pass
    return reader.peeked.startswith(b"PAR1")


def open_sink(job: Job, out: BinaryIO, source: Source, wanted: Projection, names: list[str]) -> Sink:
    """Where the rows of `source` go, with new columns of these names."""
    if output_kind(job) == "parquet":
        return open_parquet_sink(out, source, wanted, names)
    from ema_cli.formats.text.sink import TextSink

    dialect = output_dialect(job)
    return TextSink(
        out, source.header(wanted, dialect), names, dialect, digits=job.digits, alone=wanted.keep == ()
    )


def open_parquet_sink(out: BinaryIO, source: Source, wanted: Projection, names: list[str]) -> Sink:
    """From Parquet, the chunks of the columns kept are copied where that can be done."""
    from ema_cli.formats.parquet.copy import ParquetCopySink
    from ema_cli.formats.parquet.pandas_index import adding
    from ema_cli.formats.parquet.sink import ParquetSink
    from ema_cli.formats.parquet.source import ParquetSource
    from ema_cli.formats.text.body import utf8_name

    names = [utf8_name(name) for name in names]
    schema = source.schema(wanted)
    if isinstance(source, ParquetSource) and (original := source.original(len(names))) is not None:
        kept = range(len(source.columns)) if wanted.keep is None else wanted.keep
        return ParquetCopySink(out, original, adding(schema, names), kept, names)
    return ParquetSink(out, schema, names, getattr(source, "compression", "zstd"))
