"""What the tests of Parquet share: a table of every type, and the road without the command round it."""

from __future__ import annotations

import datetime
import io
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ema_cli.average import make_average
from ema_cli.formats.base import Projection, Sink, Source
from ema_cli.formats.parquet.source import ParquetSource
from ema_cli.formats.registry import open_sink
from ema_cli.formats.text.dialect import Dialect
from ema_cli.job import Job

PLAIN = Dialect()
MOMENT = datetime.datetime(2013, 1, 1, 6, 0, 0, 500000)


def saved(table: pa.Table, path: Path, **options: Any) -> ParquetSource:
    pq.write_table(table, path, **options)
    return ParquetSource(path, "in.parquet")


def open_parquet_sink(
    out: io.BytesIO, source: Source, wanted: Projection, names: list[str], processes: int = 0
) -> Sink:
    job = Job(make_average({"alpha": ["0.5"]}), target="parquet", processes=processes)
    return open_sink(job, out, source, wanted, names)


def converted(source: ParquetSource, wanted: Projection, names: list[str], processes: int = 0) -> bytes:
    """The input with new columns, each a tenth of a wanted one."""
    out = io.BytesIO()
    sink = open_parquet_sink(out, source, wanted, names, processes)
    for batch in source.batches(wanted if sink.needs_bodies else replace(wanted, keep=())):
        sink.write(batch, batch.values[:, : len(names)] / 10)
    sink.finish()
    source.close()
    return out.getvalue()


def text_of(source: ParquetSource, wanted: Projection, dialect: Dialect = PLAIN) -> bytes:
    """The input as text, joined as a text sink joins it."""
    out = b"".join(source.header(wanted, dialect))
    for batch in source.batches(wanted):
        texts, tail = batch.body.texts(dialect)
        assert len(texts) == batch.rows
        out += b"".join(texts.to_pylist()) + bytes(tail)
    source.close()
    return out


def every_type() -> pa.Table:
    values = {
        "i8": pa.array([1, None, -3], pa.int8()),
        "u64": pa.array([2**64 - 1, None, 0], pa.uint64()),
        "f16": pa.array([np.float16(1.5), None, np.float16(-2)], pa.float16()),
        "f32": pa.array([0.1, None, float("nan")], pa.float32()),
        "f64": pa.array([0.1, None, 1e300]),
        "d128": pa.array([Decimal("1.50"), None, Decimal("-0.01")], pa.decimal128(20, 2)),
        "d256": pa.array([Decimal("1E-20"), None, Decimal(3)], pa.decimal256(60, 20)),
        "bool": pa.array([True, None, False]),
        "text": pa.array(["plain", None, ""]),
        "large": pa.array(['say "hi", twice', None, "two\nlines"], pa.large_string()),
        "bytes": pa.array([b"abc", None, b"\xc3\xa9"]),
        "date": pa.array([MOMENT.date(), None, datetime.date(1, 1, 1)]),
        "ms": pa.array([MOMENT, None, MOMENT.replace(microsecond=0)], pa.timestamp("ms")),
        "us": pa.array([MOMENT, None, MOMENT], pa.timestamp("us", "UTC")),
        "ns": pa.array([MOMENT, None, MOMENT], pa.timestamp("ns", "Europe/Paris")),
        "time": pa.array([MOMENT.time(), None, datetime.time()], pa.time64("us")),
        "span": pa.array([1, None, 2], pa.duration("s")),
        "coded": pa.array(["a,b", None, "a,b"]).dictionary_encode(),
        "nothing": pa.nulls(3),
    }
    fields = [pa.field(name, array.type, metadata={"unit": name}) for name, array in values.items()]
    return pa.Table.from_arrays(list(values.values()), schema=pa.schema(fields, {"who": "me"}))


def big(rows: int = 300_000) -> pa.Table:
    random_ = np.random.default_rng(5)
    return pa.table(
        {
            "t": pa.array(np.datetime64("2024-01-01", "us") + np.arange(rows) * 1_000_000),
            "k": [f"key {k % 100}" for k in range(rows)],
            "x": random_.normal(size=rows),
        }
    )
