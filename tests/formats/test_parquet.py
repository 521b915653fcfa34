"""Parquet in and out: nothing of the input changes, the same bytes however it is cut."""

from __future__ import annotations

import datetime
import io
import tempfile
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

from ema_cli.errors import DataError, Place
from ema_cli.formats import base as road
from ema_cli.formats import columnar
from ema_cli.formats.base import Projection
from ema_cli.formats.parquet import copy as parquet_copy
from ema_cli.formats.parquet import sink as parquet_sink
from ema_cli.formats.parquet.source import ParquetSource
from ema_cli.times import TimeForm
from tests.formats.parquet_files import MOMENT, big, converted, every_type, saved, text_of


@pytest.fixture(params=["copied", "anew"], autouse=True)
def road_taken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Chunks are copied where they can be; everything must also hold where all is written anew."""
    if request.param == "anew":
        monkeypatch.setattr(parquet_copy, "MOST_FOOTER", 0)
    return str(request.param)


@pytest.mark.parametrize("rows", [0, 1, 1000, 65_536, 65_537, 150_000])
@pytest.mark.parametrize("group", [999, 200_000])
def test_batches_are_as_long_whatever_the_row_groups(rows: int, group: int, tmp_path: Path) -> None:
    coded = pa.array([str(k // 7) for k in range(rows)]).dictionary_encode()
    table = pa.table({"x": np.arange(rows, dtype=np.float64), "k": coded})
    source = saved(table, tmp_path / "t.parquet", row_group_size=group)
    batches = list(source.batches(Projection((0,), keys=(1,))))
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
    monkeypatch.setattr(columnar, "BATCH_CELLS", 65_536 * 2)
    table = pa.table({str(k): np.arange(40_000) for k in range(5)})
    batches = list(saved(table, tmp_path / "t.parquet").batches(Projection((4,))))
    assert [batch.rows for batch in batches] == [16_384, 16_384, 7232]
    assert batches[2].values[-1, 0] == 39_999


def test_numbers_of_every_type_become_float64(tmp_path: Path) -> None:
    table = every_type()
    source = saved(table, tmp_path / "t.parquet")
    numbers = source.sample(range(len(table.schema)), 0).numeric
    assert [source.columns[k] for k in numbers] == ["i8", "u64", "f16", "f32", "f64", "d128", "d256"]
    (batch,) = source.batches(Projection(tuple(numbers)))
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
    assert source.sample([0, 1], 0).numeric == [0]


def test_an_infinity_is_an_error_or_missing(tmp_path: Path) -> None:
    source = saved(pa.table({"k": ["a", "b"], "x": [1.0, float("-inf")]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"in\.parquet, row 2, column 'x': no finite number: -inf") as caught:
        list(source.batches(Projection((1,))))
    assert caught.value.place == Place("in.parquet", 2, "x", unit="row")
    (batch,) = source.batches(Projection((1,), invalid="missing"))
    assert batch.invalid == 1
    assert np.isnan(batch.values[1, 0])


def test_text_is_no_number(tmp_path: Path) -> None:
    source = saved(pa.table({"k": ["a"]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="column 'k': not a number: 'a'"):
        list(source.batches(Projection((0,))))


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
    (batch,) = saved(table, tmp_path / "t.parquet").batches(Projection((4,), keys=(0, 1, 2, 3), keep=(4,)))
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
    (batch,) = source.batches(Projection((2,), time=1, time_form=TimeForm("ms")))
    assert batch.times is not None
    assert batch.times.tolist() == [1_000_000, 2_000_000]
    with pytest.raises(DataError, match=r"in\.parquet, row 2, column 't': the time is missing"):
        list(source.batches(Projection((2,), time=0)))
    with pytest.raises(DataError, match=r"row 1, column 'n'.*\n.*--time-unit with what they count"):
        list(source.batches(Projection((2,), time=1)))


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
    data = converted(source, Projection((4, 0)), ["f64_ema", "i8_ema"])
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


# Where all is written anew the row groups are of one size, whatever the input's are.
anew = pytest.mark.parametrize("road_taken", ["anew"], indirect=True)
cells = st.one_of(st.none(), st.floats(width=32), st.integers(-5, 5).map(float))


@anew
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
            patch.setattr(columnar, "BATCH_ROWS", data.draw(st.integers(1, 70)))
            processes = data.draw(st.integers(1, 3))
            group = data.draw(st.integers(1, 70))
            source = saved(table, Path(folder, "t.parquet"), row_group_size=group)
            text = text_of(source, Projection((0,)))
            source = ParquetSource(Path(folder, "t.parquet"), "t")
            outputs.append((converted(source, Projection((0,)), ["x_ema"], processes), text))
    assert outputs[0] == outputs[1]
    after = pq.ParquetFile(io.BytesIO(outputs[0][0]))
    assert [after.metadata.row_group(k).num_rows for k in range(after.num_row_groups)][:-1] == [16] * (
        (len(rows) - 1) // 16
    )
    assert after.read().select(["x", "k"]).equals(table)


@anew
def test_row_groups_encoded_apart_make_one_sound_file(tmp_path: Path) -> None:
    table = big()
    source = saved(table, tmp_path / "t.parquet", compression="zstd", row_group_size=70_000)
    (tmp_path / "out.parquet").write_bytes(converted(source, Projection((2,)), ["x_ema"]))
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


@anew
def test_dictionaries_only_where_values_recur(tmp_path: Path) -> None:
    data = converted(saved(big(), tmp_path / "t.parquet"), Projection((2,)), ["x_ema"])
    group = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0)
    assert [group.column(k).has_dictionary_page for k in range(4)] == [False, True, False, False]


def test_duplicate_names_are_told_apart_by_number(tmp_path: Path) -> None:
    columns = [pa.array([1.0]), pa.array([[7, 8]]), pa.array([3.0]), pa.array([4.0])]
    source = saved(pa.Table.from_arrays(columns, names=["a", "l", "a", "b.c"]), tmp_path / "t.parquet")
    (batch,) = source.batches(Projection((2, 3), keep=(2,)))
    assert batch.values.tolist() == [[3.0, 4.0]]
    assert batch.body.arrow().columns[0].to_pylist() == [3.0]
    after = pq.ParquetFile(io.BytesIO(converted(source, Projection((2,)), ["a_ema"]))).read()
    assert after.schema.names == ["a", "l", "a", "b.c", "a_ema"]
    assert [column.to_pylist() for column in after.columns] == [[1.0], [[7, 8]], [3.0], [4.0], [0.3]]


@pytest.mark.parametrize("columns", [0, 2])
def test_no_rows(columns: int, tmp_path: Path) -> None:
    table = pa.table({str(k): pa.array([], pa.float64()) for k in range(columns)})
    names = ["new"] if columns else []
    data = converted(saved(table, tmp_path / "t.parquet"), Projection(tuple(range(columns))), names)
    assert pq.read_table(io.BytesIO(data)).schema.names == table.schema.names + names
    assert text_of(ParquetSource(tmp_path / "t.parquet", "t"), Projection(())) == (
        b"0,1\n" if columns else b"\n"
    )


def test_row_groups_without_rows(tmp_path: Path) -> None:
    table = pa.table({"x": [1.0, 2.0]})
    with pq.ParquetWriter(tmp_path / "t.parquet", table.schema) as writer:
        for part in (table.slice(0, 0), table.slice(0, 1), table.slice(0, 0), table.slice(1)):
            writer.write_table(part)
    data = converted(ParquetSource(tmp_path / "t.parquet", "t"), Projection((0,)), ["y"])
    assert pq.read_table(io.BytesIO(data)).to_pydict() == {"x": [1.0, 2.0], "y": [0.1, 0.2]}


def test_only_new_columns_are_left_when_nothing_is_kept(tmp_path: Path) -> None:
    source = saved(pa.table({"x": [1.0, 2.0]}), tmp_path / "t.parquet")
    wanted = Projection((0,), keep=())
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
    wanted = Projection((0,), keep=(1,) if only else None)
    (tmp_path / "out.parquet").write_bytes(converted(source, wanted, ["x_ema"]))
    back = pd.read_parquet(tmp_path / "out.parquet")
    assert back["x_ema"].tolist() == [0.1, 0.2, 0.3]
    if not only:
        pd.testing.assert_frame_equal(back.drop(columns="x_ema"), frame, check_freq=False)
    elif index == "range":
        assert back.columns.tolist() == ["c", "x_ema"]


def test_ordered_categories_stay_in_order(tmp_path: Path) -> None:
    rows = 200_000
    sizes = pd.Categorical.from_codes(
        np.arange(rows) % 3, ["small", "medium", "large", "unused"], ordered=True
    )
    frame = pd.DataFrame({"size": sizes, "x": np.arange(float(rows))})
    frame.to_parquet(tmp_path / "t.parquet", row_group_size=30_000)
    data = converted(ParquetSource(tmp_path / "t.parquet", "t"), Projection((1,)), ["y"])
    pd.testing.assert_frame_equal(pd.read_parquet(io.BytesIO(data))[["size", "x"]], frame)


@pytest.mark.parametrize("nest", ["none", "struct", "list"])
def test_dictionaries_that_differ_between_row_groups(nest: str, tmp_path: Path) -> None:
    parts = [pa.array(texts).dictionary_encode() for texts in (["a", "b"], ["c", "a"])]
    if nest == "struct":
        parts = [pa.StructArray.from_arrays([part], ["k"]) for part in parts]
    elif nest == "list":
        parts = [pa.ListArray.from_arrays([0, 1, 2], part) for part in parts]
    table = pa.table({"d": pa.chunked_array(parts), "x": [1.0, 2.0, 3.0, 4.0]})
    data = converted(saved(table, tmp_path / "t.parquet", row_group_size=2), Projection((1,)), ["y"])
    assert pq.read_table(io.BytesIO(data))["d"].to_pylist() == table["d"].to_pylist()


@pytest.mark.parametrize("names", [pd.Index([0, 1]), pd.MultiIndex.from_tuples([("a", "b"), ("a", "c")])])
def test_pandas_with_names_that_are_no_text(names: Any, tmp_path: Path) -> None:
    frame = pd.DataFrame([[1.0, 2.0]], columns=names)
    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "t.parquet")
    source = ParquetSource(tmp_path / "t.parquet", "t")
    (tmp_path / "out.parquet").write_bytes(converted(source, Projection((0,)), [f"{source.columns[0]}_ema"]))
    back = pd.read_parquet(tmp_path / "out.parquet")
    assert back.shape == (1, 3)
    assert back.iloc[0].tolist() == [1.0, 2.0, 0.1]


@pytest.mark.parametrize("notes", [b"", b"[]", b"{}", b"\xff", b'{"index_columns": 5, "columns": []}'])
def test_foreign_pandas_notes_are_left_alone(notes: bytes, tmp_path: Path) -> None:
    table = pa.table({"x": [1.0]}).replace_schema_metadata({"pandas": notes})
    data = converted(saved(table, tmp_path / "t.parquet"), Projection((0,), keep=(0,)), ["y"])
    assert pq.read_schema(io.BytesIO(data)).metadata[b"pandas"] == notes
