"""Parquet in and out: nothing of the input changes, the same bytes however it is cut, faults in words."""

from __future__ import annotations

import contextlib
import csv
import datetime
import io
import json
import os
import random
import tempfile
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ema_cli import batch as road
from ema_cli.batch import Batch, Dialect, Wanted
from ema_cli.errors import DataError, EmaError, FileTrouble, Place
from ema_cli.formats import arrow_text, parquet, parquet_sink
from ema_cli.formats.parquet import ArrowBody, ParquetSource
from ema_cli.formats.parquet_sink import ParquetSink
from ema_cli.formats.spool import spool
from ema_cli.times import to_nanoseconds

PLAIN = Dialect()
MOMENT = datetime.datetime(2013, 1, 1, 6, 0, 0, 500000)


def saved(table: pa.Table, path: Path, **options: Any) -> ParquetSource:
    pq.write_table(table, path, **options)
    return ParquetSource(path, "in.parquet")


def converted(source: ParquetSource, wanted: Wanted, names: list[str]) -> bytes:
    """The input with new columns, each a tenth of a wanted one."""
    out = io.BytesIO()
    sink = ParquetSink(out, source.schema(wanted), names, source.compression)
    for batch in source.batches(wanted):
        sink.write(batch, batch.values[:, : len(names)] / 10)
    sink.finish()
    source.close()
    return out.getvalue()


def text_of(source: ParquetSource, wanted: Wanted, dialect: Dialect = PLAIN) -> bytes:
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


# -- the columns handed over


@pytest.mark.parametrize("rows", [0, 1, 1000, 65_536, 65_537, 150_000])
@pytest.mark.parametrize("group", [999, 200_000])
def test_batches_are_as_long_whatever_the_row_groups(rows: int, group: int, tmp_path: Path) -> None:
    coded = pa.array([str(k // 7) for k in range(rows)]).dictionary_encode()
    table = pa.table({"x": np.arange(rows, dtype=np.float64), "k": coded})
    source = saved(table, tmp_path / "t.parquet", row_group_size=group)
    batches = list(source.batches(Wanted((0,), keys=(1,))))
    assert [batch.rows for batch in batches[:-1]] == [road.BATCH_ROWS] * (len(batches) - 1)
    assert np.array_equal(np.concatenate([b.values[:, 0] for b in batches] or [np.empty(0)]), np.arange(rows))
    keys = [key for batch in batches for key in batch.keys[0].to_pylist()]
    assert keys == [str(k // 7).encode() for k in range(rows)]
    if rows:
        assert batches[-1].size == (tmp_path / "t.parquet").stat().st_size
        assert (
            str(batches[-1].place(0, 0)) == f"in.parquet, row {(len(batches) - 1) * 65_536 + 1}, column 'x'"
        )


def test_wide_tables_come_in_shorter_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "BATCH_CELLS", 65_536 * 2)
    table = pa.table({str(k): np.arange(40_000) for k in range(5)})
    batches = list(saved(table, tmp_path / "t.parquet").batches(Wanted((4,))))
    assert [batch.rows for batch in batches] == [16_384, 16_384, 7232]
    assert batches[2].values[-1, 0] == 39_999


def test_numbers_of_every_type_become_float64(tmp_path: Path) -> None:
    table = every_type()
    source = saved(table, tmp_path / "t.parquet")
    numbers = source.numeric(range(len(table.schema)))
    assert [source.columns[k] for k in numbers] == ["i8", "u64", "f16", "f32", "f64", "d128", "d256"]
    (batch,) = source.batches(Wanted(tuple(numbers)))
    expected = [1, 2.0**64, 1.5, float(np.float32(0.1)), 0.1, 1.5, 1e-20]
    assert batch.values.dtype == np.float64
    assert batch.values[0].tolist() == expected
    assert np.isnan(batch.values[1]).all()
    assert np.isnan(batch.values[2, 3])


def test_pandas_index_is_no_column_to_be_smoothed(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0]}, index=pd.Index([7, 8], name="id"))
    frame.to_parquet(tmp_path / "t.parquet")
    source = ParquetSource(tmp_path / "t.parquet", "t")
    assert source.columns == ["x", "id"]
    assert source.numeric([0, 1]) == [0]


def test_an_infinity_is_an_error_or_missing(tmp_path: Path) -> None:
    source = saved(pa.table({"k": ["a", "b"], "x": [1.0, float("-inf")]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"in\.parquet, row 2, column 'x': no finite number: -inf") as caught:
        list(source.batches(Wanted((1,))))
    assert caught.value.place == Place("in.parquet", 2, "x", unit="row")
    (batch,) = source.batches(Wanted((1,), invalid="missing"))
    assert batch.invalid == 1
    assert np.isnan(batch.values[1, 0])


def test_text_is_no_number(tmp_path: Path) -> None:
    source = saved(pa.table({"k": ["a"]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="column 'k': values of type string are no numbers"):
        list(source.batches(Wanted((0,))))


def test_keys_are_exact_texts_and_null_is_not_empty(tmp_path: Path) -> None:
    table = pa.table(
        {
            "s": ["007", "", None],
            "i": pa.array([7, None, 7]),
            "d": pa.array(["x", None, "x"]).dictionary_encode(),
            "t": pa.array([MOMENT, None, MOMENT], pa.timestamp("us", "UTC")),
            "x": [1.0, 2.0, 3.0],
        }
    )
    (batch,) = saved(table, tmp_path / "t.parquet").batches(Wanted((4,), keys=(0, 1, 2, 3), keep=(4,)))
    assert [key.to_pylist() for key in batch.keys] == [
        [b"007", b"", None],
        [b"7", None, b"7"],
        [b"x", None, b"x"],
        [b"2013-01-01T06:00:00.500000Z", None, b"2013-01-01T06:00:00.500000Z"],
    ]
    assert batch.body.arrow().schema.names == ["x"]


def test_times_are_nanoseconds_or_an_error_with_its_row(tmp_path: Path) -> None:
    table = pa.table({"t": pa.array([MOMENT, None], pa.timestamp("us")), "n": [1, 2], "x": [1.0, 2.0]})
    source = saved(table, tmp_path / "t.parquet")
    (batch,) = source.batches(Wanted((2,), time=1, time_unit="ms"))
    assert batch.times is not None
    assert batch.times.tolist() == [1_000_000, 2_000_000]
    with pytest.raises(DataError, match=r"in\.parquet, row 2, column 't': the time is missing"):
        list(source.batches(Wanted((2,), time=0)))
    with pytest.raises(DataError, match=r"row 1, column 'n'.*\n.*--time-unit s"):
        list(source.batches(Wanted((2,), time=1)))


# -- Parquet to Parquet


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "brotli", "lz4", "zstd"])
def test_schema_types_order_metadata_and_codec_are_kept(codec: str, tmp_path: Path) -> None:
    table = every_type()
    nested = pa.array([{"a": [1], "b": "x"}, None, {"a": [], "b": None}])
    table = table.append_column("nested", nested)
    table = table.append_column(pa.field("must", pa.int64(), nullable=False), pa.array([1, 2, 3]))
    source = saved(table, tmp_path / "t.parquet", compression=codec)
    assert source.compression == codec
    before = pq.read_table(tmp_path / "t.parquet")
    data = converted(source, Wanted((4, 0)), ["f64_ema", "i8_ema"])
    after = pq.read_table(io.BytesIO(data))
    kept = after.select(before.schema.names)
    assert kept.schema.equals(before.schema, check_metadata=True)
    assert str(kept.to_pydict()) == str(before.to_pydict())  # NaN is equal to itself as text
    assert after.schema.names[-2:] == ["f64_ema", "i8_ema"]
    assert after["f64_ema"].to_pylist() == [0.01, None, 1e299]
    assert after.schema.field("must").nullable is False
    file = pq.ParquetFile(io.BytesIO(data))
    names = {"UNCOMPRESSED": "none"}
    group = file.metadata.row_group(0)
    codecs = {group.column(k).compression for k in range(group.num_columns)}
    assert {names.get(name, name.lower()) for name in codecs} == {codec}


cells = st.one_of(st.none(), st.floats(width=32), st.integers(-5, 5).map(float))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(cells, st.text('a,"\n é', max_size=3)), max_size=60), st.data())
def test_however_it_is_cut_the_bytes_are_the_same(rows: list[tuple[Any, str]], data: st.DataObject) -> None:
    x = pa.array([x if x is None or np.isfinite(x) else None for x, _ in rows], pa.float64())
    table = pa.table({"x": x, "k": pa.array([k for _, k in rows], pa.string())})
    outputs = []
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(parquet_sink, "GROUP_ROWS", 16)
        patch.setattr(parquet_sink, "SAMPLE_ROWS", 8)
        for _ in range(2):
            patch.setattr(parquet, "BATCH_ROWS", data.draw(st.integers(1, 70)))
            patch.setattr(parquet_sink, "MOST_WORKERS", data.draw(st.integers(1, 3)))
            group = data.draw(st.integers(1, 70))
            source = saved(table, Path(folder, "t.parquet"), row_group_size=group)
            text = text_of(source, Wanted((0,)))
            source = ParquetSource(Path(folder, "t.parquet"), "t")
            outputs.append((converted(source, Wanted((0,)), ["x_ema"]), text))
    assert outputs[0] == outputs[1]
    after = pq.ParquetFile(io.BytesIO(outputs[0][0]))
    assert [after.metadata.row_group(k).num_rows for k in range(after.num_row_groups)][:-1] == [16] * (
        (len(rows) - 1) // 16
    )
    assert after.read().select(["x", "k"]).equals(table)


def big(rows: int = 300_000) -> pa.Table:
    random_ = np.random.default_rng(5)
    return pa.table(
        {
            "t": pa.array(np.datetime64("2024-01-01", "us") + np.arange(rows) * 1_000_000),
            "k": [f"key {k % 100}" for k in range(rows)],
            "x": random_.normal(size=rows),
        }
    )


def test_row_groups_encoded_apart_make_one_sound_file(tmp_path: Path) -> None:
    table = big()
    source = saved(table, tmp_path / "t.parquet", compression="zstd", row_group_size=70_000)
    (tmp_path / "out.parquet").write_bytes(converted(source, Wanted((2,)), ["x_ema"]))
    file = pq.ParquetFile(tmp_path / "out.parquet", page_checksum_verification=True)
    groups = [file.metadata.row_group(k) for k in range(file.num_row_groups)]
    assert [group.num_rows for group in groups] == [131_072, 131_072, 37_856]
    assert file.metadata.num_rows == 300_000
    assert groups[1].column(2).statistics.max == max(table["x"][131_072:262_144].to_pylist())
    expected = table.append_column("x_ema", pa.array(table["x"].to_numpy() / 10))
    assert file.read().equals(expected)
    assert file.read_row_group(2).equals(expected.slice(262_144))
    assert pd.read_parquet(tmp_path / "out.parquet").equals(expected.to_pandas())
    assert pl.read_parquet(tmp_path / "out.parquet").equals(pl.DataFrame(expected))
    tail = pl.scan_parquet(tmp_path / "out.parquet").filter(pl.col("t") > datetime.datetime(2024, 1, 4, 11))
    assert tail.collect()["x_ema"].to_list() == expected["x_ema"][298_801:].to_pylist()


def test_dictionaries_only_where_values_recur(tmp_path: Path) -> None:
    data = converted(saved(big(), tmp_path / "t.parquet"), Wanted((2,)), ["x_ema"])
    group = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0)
    assert [group.column(k).has_dictionary_page for k in range(4)] == [False, True, False, False]


def test_duplicate_names_are_told_apart_by_number(tmp_path: Path) -> None:
    columns = [pa.array([1.0]), pa.array([[7, 8]]), pa.array([3.0]), pa.array([4.0])]
    source = saved(pa.Table.from_arrays(columns, names=["a", "l", "a", "b.c"]), tmp_path / "t.parquet")
    (batch,) = source.batches(Wanted((2, 3), keep=(2,)))
    assert batch.values.tolist() == [[3.0, 4.0]]
    assert batch.body.arrow().columns[0].to_pylist() == [3.0]
    after = pq.ParquetFile(io.BytesIO(converted(source, Wanted((2,)), ["a_ema"]))).read()
    assert after.schema.names == ["a", "l", "a", "b.c", "a_ema"]
    assert [column.to_pylist() for column in after.columns] == [[1.0], [[7, 8]], [3.0], [4.0], [0.3]]


@pytest.mark.parametrize("columns", [0, 2])
def test_no_rows(columns: int, tmp_path: Path) -> None:
    table = pa.table({str(k): pa.array([], pa.float64()) for k in range(columns)})
    names = ["new"] if columns else []
    data = converted(saved(table, tmp_path / "t.parquet"), Wanted(tuple(range(columns))), names)
    assert pq.read_table(io.BytesIO(data)).schema.names == table.schema.names + names
    assert text_of(ParquetSource(tmp_path / "t.parquet", "t"), Wanted(())) == (b"0,1\n" if columns else b"\n")


def test_row_groups_without_rows(tmp_path: Path) -> None:
    table = pa.table({"x": [1.0, 2.0]})
    with pq.ParquetWriter(tmp_path / "t.parquet", table.schema) as writer:
        for part in (table.slice(0, 0), table.slice(0, 1), table.slice(0, 0), table.slice(1)):
            writer.write_table(part)
    data = converted(ParquetSource(tmp_path / "t.parquet", "t"), Wanted((0,)), ["y"])
    assert pq.read_table(io.BytesIO(data)).to_pydict() == {"x": [1.0, 2.0], "y": [0.1, 0.2]}


def test_only_new_columns_are_left_when_nothing_is_kept(tmp_path: Path) -> None:
    source = saved(pa.table({"x": [1.0, 2.0]}), tmp_path / "t.parquet")
    wanted = Wanted((0,), keep=())
    assert text_of(ParquetSource(tmp_path / "t.parquet", "t"), wanted) == b"\n\n\n"
    assert pq.read_table(io.BytesIO(converted(source, wanted, ["y"]))).to_pydict() == {"y": [0.1, 0.2]}


# -- pandas


FRAMES = {
    "range": pd.RangeIndex(3),
    "dates": pd.date_range("2024-01-01", periods=3, name="day"),
    "levels": pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)], names=["k", "n"]),
    "unnamed": pd.Index([3.5, 4.5, 5.5]),
}


@pytest.mark.parametrize("index", FRAMES)
@pytest.mark.parametrize("only", [False, True])
def test_pandas_gets_its_index_back(index: str, only: bool, tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0], "c": pd.Categorical(["u", "v", "u"])}, index=FRAMES[index])
    frame.to_parquet(tmp_path / "t.parquet")
    source = ParquetSource(tmp_path / "t.parquet", "t")
    wanted = Wanted((0,), keep=(1,) if only else None)
    (tmp_path / "out.parquet").write_bytes(converted(source, wanted, ["x_ema"]))
    back = pd.read_parquet(tmp_path / "out.parquet")
    assert back["x_ema"].tolist() == [0.1, 0.2, 0.3]
    if not only:
        pd.testing.assert_frame_equal(back.drop(columns="x_ema"), frame, check_freq=False)
    elif index == "range":
        assert back.columns.tolist() == ["c", "x_ema"]


@pytest.mark.parametrize("names", [pd.Index([0, 1]), pd.MultiIndex.from_tuples([("a", "b"), ("a", "c")])])
def test_pandas_with_names_that_are_no_text(names: Any, tmp_path: Path) -> None:
    frame = pd.DataFrame([[1.0, 2.0]], columns=names)
    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "t.parquet")
    source = ParquetSource(tmp_path / "t.parquet", "t")
    (tmp_path / "out.parquet").write_bytes(converted(source, Wanted((0,)), [f"{source.columns[0]}_ema"]))
    back = pd.read_parquet(tmp_path / "out.parquet")
    assert back.shape == (1, 3)
    assert back.iloc[0].tolist() == [1.0, 2.0, 0.1]


@pytest.mark.parametrize("notes", [b"", b"[]", b"{}", b"\xff", b'{"index_columns": 5, "columns": []}'])
def test_foreign_pandas_notes_are_left_alone(notes: bytes, tmp_path: Path) -> None:
    table = pa.table({"x": [1.0]}).replace_schema_metadata({"pandas": notes})
    data = converted(saved(table, tmp_path / "t.parquet"), Wanted((0,), keep=(0,)), ["y"])
    assert pq.read_schema(io.BytesIO(data)).metadata[b"pandas"] == notes


# -- Parquet to text


def test_every_type_as_text(tmp_path: Path) -> None:
    got = list(
        csv.reader(io.StringIO(text_of(saved(every_type(), tmp_path / "t.parquet"), Wanted(())).decode()))
    )
    by_name = {name: list(column) for name, *column in zip(*got, strict=True)}
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
    assert text_of(source, Wanted(())) == b'"a,b",c\n"x,y",p\n"",p\n,p\n"q""",p\nx\ty,p\n"x\r",p\n'
    source = ParquetSource(tmp_path / "t.parquet", "t")
    text = text_of(source, Wanted((), keep=(0,)), Dialect(b"\t", header=False))
    assert text == b'x,y\n""\n\n"q"""\n"x\ty"\n"x\r"\n'


def test_decimal_comma(tmp_path: Path) -> None:
    table = pa.table({"x": [1.5], "d": [Decimal("2.25")], "s": ["1.5"]})
    pq.write_table(table, tmp_path / "t.parquet")
    for delimiter, row in ((b";", b"1,5;2,25;1.5\n"), (b",", b'"1,5","2,25",1.5\n')):
        source = ParquetSource(tmp_path / "t.parquet", "t")
        assert text_of(source, Wanted(()), Dialect(delimiter, False, decimal_comma=True)) == row


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
        "list": pa.array([[1]]),
        "raw": pa.array([b"\xff"]),
        "late": pa.array([2**62], pa.timestamp("ms")),
    }
    source = saved(pa.table(columns), tmp_path / "t.parquet")
    problems = {0: "type list<element: int64> have no text", 1: "no UTF-8", 2: "outside the calendar"}
    for column, problem in problems.items():
        with pytest.raises(DataError, match=f"in.parquet, column '{source.columns[column]}': .*{problem}"):
            text_of(ParquetSource(tmp_path / "t.parquet", "in.parquet"), Wanted((), keep=(column,)))
    assert source.columns == list(columns)


def test_extension_types_are_kept_and_have_text(tmp_path: Path) -> None:
    number = uuid.uuid4()
    ids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([number.bytes, None], pa.binary(16)))
    table = pa.table({"id": ids, "x": [1.0, 2.0]})
    data = converted(saved(table, tmp_path / "t.parquet"), Wanted((1,)), ["y"])
    assert pq.read_table(io.BytesIO(data)).select(["id", "x"]).equals(table)
    text = text_of(ParquetSource(tmp_path / "t.parquet", "t"), Wanted(()))
    assert text == f"id,x\n{number},1.0\n,2.0\n".encode()


# -- faults


def test_not_parquet_missing_and_folders(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    (tmp_path / "empty").write_bytes(b"")
    for name, words in (
        ("t.csv", "no sound Parquet"),
        ("empty", "no sound Parquet"),
        ("none", "no such file"),
        (".", ""),
    ):
        with pytest.raises(FileTrouble, match=f"x: .*{words}"):
            ParquetSource(tmp_path / name, "x")


def test_encrypted_parquet_says_so(tmp_path: Path) -> None:
    saved(pa.table({"x": [1.0]}), tmp_path / "t.parquet")
    data = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(data[:-4] + b"PARE")
    with pytest.raises(FileTrouble, match="encrypted"):
        ParquetSource(tmp_path / "t.parquet", "x")


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_an_error_in_words_or_read(seed: int, tmp_path: Path) -> None:
    rows = 120
    table = pa.table(
        {
            "t": pa.array(range(rows), pa.timestamp("us")),
            "x": np.arange(rows) / 7,
            "s": [f"k{k % 7}" for k in range(rows)],
            "l": [[k] for k in range(rows)],
        }
    )
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=50, compression=["zstd", "none"][seed % 2])
    sound = (tmp_path / "t.parquet").read_bytes()
    dice = random.Random(seed)
    for _ in range(250):
        data = bytearray(sound)
        for _ in range(dice.choice([1, 1, 3])):
            data[dice.randrange(len(data))] = dice.choice([0, 127, 128, 255, dice.randrange(256)])
        if dice.random() < 0.2:
            del data[dice.randrange(len(data)) :]
        (tmp_path / "bad.parquet").write_bytes(data)
        with contextlib.suppress(EmaError):
            source = ParquetSource(tmp_path / "bad.parquet", "bad")
            wanted = Wanted(tuple(source.numeric(range(len(source.columns)))), invalid="missing")
            converted(source, wanted, [])


def test_an_unknown_codec_does_not_abort(tmp_path: Path) -> None:
    """pyarrow's `ColumnChunkMetaData.compression` ends the process on such a file."""
    saved(pa.table({"x": [1.0]}), tmp_path / "t.parquet", compression="zstd")
    data = (tmp_path / "t.parquet").read_bytes()
    # In ColumnMetaData: path_in_schema ["x"], then the codec, 6 in zigzag.
    at = data.index(b"\x19\x18\x01x\x15\x0c") + 5
    (tmp_path / "t.parquet").write_bytes(data[:at] + b"\x3e" + data[at + 1 :])
    with pytest.raises(FileTrouble):
        list(ParquetSource(tmp_path / "t.parquet", "t").batches(Wanted((0,))))


class Full(io.RawIOBase):
    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # noqa: ARG002 - whatever it is given
        raise OSError(28, "No space left on device")


def test_a_full_disk_is_the_systems_own_error(tmp_path: Path) -> None:
    source = saved(big(140_000), tmp_path / "t.parquet")
    with pytest.raises(OSError, match="No space left"):
        ParquetSink(Full(), source.schema(Wanted((2,))), ["y"])  # type: ignore[arg-type]


class Sparing(io.BytesIO):
    """Takes a few bytes at a time, as a pipe may."""

    def write(self, data: Any) -> int:
        return super().write(bytes(data[:1000]))


def test_short_writes_lose_nothing(tmp_path: Path) -> None:
    source = saved(pa.table({"x": np.arange(2000.0)}), tmp_path / "t.parquet")
    out = Sparing()
    sink = ParquetSink(out, source.schema(Wanted((0,))), ["y"])
    for batch in source.batches(Wanted((0,))):
        sink.write(batch, batch.values)
    sink.finish()
    assert pq.read_table(out)["y"].to_pylist() == list(range(2000))


def test_any_body_can_be_written() -> None:
    """A text source's rows: strings, in whatever batches."""
    schema = pa.schema([("a", pa.string())])
    out = io.BytesIO()
    sink = ParquetSink(out, schema, ["y"])
    for k in range(3):
        body = ArrowBody(pa.record_batch([pa.array([f"r{k}"])], schema=schema), 1, (Place(),))
        sink.write(
            Batch(1, np.empty((1, 0)), None, [], body, lambda *_: Place()),
            np.array([[np.nan if k == 1 else k]]),
        )
    sink.finish()
    assert pq.read_table(out).to_pydict() == {"a": ["r0", "r1", "r2"], "y": [0.0, None, 2.0]}


def test_spooled_input_reads_like_a_file(tmp_path: Path) -> None:
    saved(pa.table({"x": [1.0, 2.0]}), tmp_path / "t.parquet").close()
    with (tmp_path / "t.parquet").open("rb") as reader, spool(reader) as file:
        source = ParquetSource(file, "-")
        (batch,) = source.batches(Wanted((0,)))
        assert batch.values[:, 0].tolist() == [1.0, 2.0]
        source.close()
        assert os.fstat(file.fileno()).st_nlink == 0


def test_spool_without_room_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(FileTrouble, match=r"no such file.*\n.*TMPDIR"):
        spool(io.BytesIO(b"x"))


def test_pandas_notes_stay_json(tmp_path: Path) -> None:
    pd.DataFrame({"x": [1.0]}).to_parquet(tmp_path / "t.parquet")
    data = converted(ParquetSource(tmp_path / "t.parquet", "t"), Wanted((0,)), ["x_ema"])
    notes = json.loads(pq.read_schema(io.BytesIO(data)).metadata[b"pandas"])
    assert [column["name"] for column in notes["columns"]] == ["x", "x_ema"]
    assert notes["index_columns"][0]["kind"] == "range"
