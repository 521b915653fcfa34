"""Arrow columns as text: exact, quoted only where needed, and read back by others."""

from __future__ import annotations

import csv
import io
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ema_cli.errors import DataError, Place
from ema_cli.formats import arrow_text
from ema_cli.formats.base import Projection
from ema_cli.formats.columnar import ArrowBody
from ema_cli.formats.parquet.source import ParquetSource
from ema_cli.formats.text.dialect import Dialect
from ema_cli.times import to_nanoseconds
from tests.formats.parquet_files import converted, every_type, saved, text_of


def test_every_type_as_text(tmp_path: Path) -> None:
    got = list(
        csv.reader(io.StringIO(text_of(saved(every_type(), tmp_path / "t.parquet"), Projection(())).decode()))
    )
    by_name = {name: list(column) for name, *column in zip(*got, strict=True)}
    by_name["f64"][2] = repr(float(by_name["f64"][2]))  # Arrow 19 writes 1e300
    assert by_name == {
        "i8": ["1", "", "-3"],
        "u64": ["18446744073709551615", "", "0"],
        "f16": ["1.5", "", "-2.0"],
        "f32": ["0.1", "", "NaN"],
        "f64": ["0.1", "", "1e+300"],
        "d128": ["1.50", "", "-0.01"],
        "d256": ["0.00000000000000000001", "", "3.00000000000000000000"],
        "bool": ["true", "", "false"],
        "text": ["plain", "", ""],
        "large": ['say "hi", twice', "", "two\nlines"],
        "bytes": ["abc", "", "é"],
        "date": ["2013-01-01", "", "0001-01-01"],
        "ms": ["2013-01-01T06:00:00.500", "", "2013-01-01T06:00:00"],
        "us": ["2013-01-01T06:00:00.500000Z", "", "2013-01-01T06:00:00.500000Z"],
        "ns": ["2013-01-01T06:00:00.500000000Z", "", "2013-01-01T06:00:00.500000000Z"],
        "time": ["06:00:00.500000", "", "00:00:00.000000"],
        "span": ["1", "", "2"],
        "coded": ["a,b", "", "a,b"],
        "nothing": ["", "", ""],
    }


def test_quotes_only_where_needed_and_an_empty_text_is_no_null(tmp_path: Path) -> None:
    table = pa.table({"a,b": ["x,y", "", None, 'q"', "x\ty", "x\r"], "c": ["p"] * 6})
    source = saved(table, tmp_path / "t.parquet")
    assert text_of(source, Projection(())) == b'"a,b",c\n"x,y",p\n"",p\n,p\n"q""",p\nx\ty,p\n"x\r",p\n'
    source = ParquetSource(tmp_path / "t.parquet", "t")
    text = text_of(source, Projection((), keep=(0,)), Dialect(b"\t", header=False))
    assert text == b'x,y\n""\n\n"q"""\n"x\ty"\n"x\r"\n'


def test_decimal_comma(tmp_path: Path) -> None:
    table = pa.table({"x": [1.5], "d": [Decimal("2.25")], "s": ["1.5"]})
    pq.write_table(table, tmp_path / "t.parquet")
    for delimiter, row in ((b";", b"1,5;2,25;1.5\n"), (b",", b'"1,5","2,25",1.5\n')):
        source = ParquetSource(tmp_path / "t.parquet", "t")
        assert text_of(source, Projection(()), Dialect(delimiter, False, decimal_comma=True)) == row


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats()), min_size=1), st.sampled_from([pa.float32(), pa.float64()]))
def test_floats_read_back_as_the_same_number(values: list[float | None], kind: pa.DataType) -> None:
    column = pa.array(values, pa.float64()).cast(kind)
    for text, cell in zip(arrow_text.texts(column, Place()).to_pylist(), column.to_pylist(), strict=True):
        assert (text is None) == (cell is None)
        if text is not None:
            again = float(kind.to_pandas_dtype()(float(text)))
            assert again == cell or (np.isnan(again) and np.isnan(cell))


stamps = st.integers(-(2**63) + 10**10, 2**63 - 10**10)


@settings(deadline=None)
@given(
    st.lists(st.one_of(st.none(), stamps), min_size=1, max_size=5),
    st.sampled_from(["s", "ms", "us", "ns"]),
    st.booleans(),
)
def test_times_as_text_read_back_exactly(values: list[int | None], unit: str, zoned: bool) -> None:
    scale = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[unit]
    column = pa.array(
        [None if v is None else v // scale for v in values],
        pa.timestamp(unit, "Asia/Tokyo" if zoned else None),
    )
    texts = arrow_text.texts(column, Place())
    assert [text is None for text in texts.to_pylist()] == [v is None for v in values]
    if None not in values:
        assert to_nanoseconds(texts, None).tolist() == to_nanoseconds(column, None).tolist()
        assert all(text.endswith(b"Z") == zoned for text in texts.to_pylist())


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.none() | st.text(), st.none() | st.text('a;"\n\r'), st.none() | st.decimals(-99, 99, places=9)
        ),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([b",", b";", b"\t"]),
)
def test_text_read_by_the_csv_module_is_what_it_was(rows: list[tuple[Any, ...]], delimiter: bytes) -> None:
    kinds = [pa.string(), pa.string(), pa.decimal128(20, 9)]
    columns = [pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), kinds, strict=True)]
    body = ArrowBody(pa.RecordBatch.from_arrays(columns, names=["a", "b", "c"]), len(rows), (Place(),) * 3)
    texts, tail = body.texts(Dialect(delimiter))
    text = b"".join(texts.to_pylist()) + bytes(tail)
    got = list(csv.reader(io.StringIO(text.decode(), newline=""), delimiter=delimiter.decode()))
    assert got == [
        ["" if c is None else f"{c:f}" if isinstance(c, Decimal) else c for c in row] for row in rows
    ]


def test_what_has_no_text_says_so(tmp_path: Path) -> None:
    columns = {
        "list": pa.array([[b"1"]]),
        "raw": pa.array([b"\xff"]),
        "late": pa.array([2**62], pa.timestamp("ms")),
    }
    source = saved(pa.table(columns), tmp_path / "t.parquet")
    problems = {0: "type list<element: binary> have no text", 1: "no UTF-8", 2: "outside the calendar"}
    for column, problem in problems.items():
        with pytest.raises(DataError, match=f"in.parquet, column '{source.columns[column]}': .*{problem}"):
            text_of(ParquetSource(tmp_path / "t.parquet", "in.parquet"), Projection((), keep=(column,)))
    assert source.columns == list(columns)


def test_extension_types_are_kept_and_have_text(tmp_path: Path) -> None:
    number = uuid.uuid4()
    ids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([number.bytes, None], pa.binary(16)))
    table = pa.table({"id": ids, "x": [1.0, 2.0]})
    data = converted(saved(table, tmp_path / "t.parquet"), Projection((1,)), ["y"])
    assert pq.read_table(io.BytesIO(data)).select(["id", "x"]).equals(table)
    text = text_of(ParquetSource(tmp_path / "t.parquet", "t"), Projection(()))
    assert text == f"id,x\n{number},1.0\n,2.0\n".encode()
