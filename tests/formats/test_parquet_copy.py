"""Parquet to Parquet by copying: the chunks that are kept are the input's, byte for byte."""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Callable
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

from ema_cli.errors import FileTrouble
from ema_cli.formats import columnar
from ema_cli.formats.base import Batch, Projection, Sink
from ema_cli.formats.parquet import copy as parquet_copy
from ema_cli.formats.parquet.copy import Original, ParquetCopySink, original_of
from ema_cli.formats.parquet.footer import FileMeta, split
from ema_cli.formats.parquet.source import ParquetSource
from ema_cli.formats.parquet.thrift import BINARY, I64, a_list, encode
from tests.conftest import Workshop
from tests.formats.parquet_files import big, converted, every_type, open_parquet_sink, saved


def chunk_bytes(data: bytes, column: int) -> list[bytes]:
    """The bytes of one leaf column's chunk in each row group."""
    metadata = pq.ParquetFile(io.BytesIO(data)).metadata
    out = []
    for k in range(metadata.num_row_groups):
        chunk = metadata.row_group(k).column(column)
        begin = chunk.dictionary_page_offset or chunk.data_page_offset
        out.append(data[begin : begin + chunk.total_compressed_size])
    return out


def is_copied(source: ParquetSource, new: int = 1) -> bool:
    return source.original("parquet", Projection(()), new) is not None


@pytest.mark.parametrize("options", [
    {"compression": "zstd"}, {"compression": "none"}, {"compression": "gzip", "data_page_version": "2.0"},
    {"compression": "snappy", "use_dictionary": False, "write_page_checksum": True},
    {"compression": "lz4", "column_encoding": {"i": "DELTA_BINARY_PACKED"}, "use_dictionary": ["s"]},
    {"compression": {"i": "zstd", "s": "none", "x": "snappy"}, "write_page_index": True, "version": "1.0"},
])  # fmt: skip
def test_chunks_are_the_inputs_own_bytes(options: dict[str, Any], tmp_path: Path) -> None:
    table = pa.table({"i": range(5000), "s": [f"k{k % 7}" for k in range(5000)], "x": np.arange(5000) / 7})
    source = saved(table, tmp_path / "t.parquet", row_group_size=1300, **options)
    assert is_copied(source)
    before = (tmp_path / "t.parquet").read_bytes()
    data = converted(source, Projection((2,)), ["x_ema"])
    for column in range(3):
        assert chunk_bytes(data, column) == chunk_bytes(before, column)
    file = pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True)
    assert [file.metadata.row_group(k).num_rows for k in range(4)] == [1300, 1300, 1300, 1100]
    expected = table.append_column("x_ema", pa.array(table["x"].to_numpy() / 10))
    assert file.read().equals(expected)
    assert file.read_row_group(3).equals(expected.slice(3900))
    assert pl.read_parquet(io.BytesIO(data)).equals(pl.DataFrame(expected))
    assert pd.read_parquet(io.BytesIO(data)).equals(expected.to_pandas())


def test_what_arrow_can_not_say_stays(tmp_path: Path) -> None:
    """Sorting columns, foreign notes, the writer's name, and types that Arrow would write otherwise."""
    table = every_type().drop_columns(["d256", "span", "nothing"])
    pq.write_table(
        table, tmp_path / "t.parquet", use_deprecated_int96_timestamps=True,
        sorting_columns=[pq.SortingColumn(1, descending=True)],
    )  # fmt: skip
    before = pq.ParquetFile(tmp_path / "t.parquet")
    after = pq.ParquetFile(
        io.BytesIO(converted(ParquetSource(tmp_path / "t.parquet", "t"), Projection((4,)), ["new"]))
    )
    assert after.metadata.row_group(0).sorting_columns == before.metadata.row_group(0).sorting_columns
    assert after.metadata.created_by == before.metadata.created_by
    assert after.metadata.format_version == before.metadata.format_version
    for k in range(len(before.schema)):
        assert after.schema.column(k).equals(before.schema.column(k))
    assert any(before.schema.column(k).physical_type == "INT96" for k in range(len(before.schema)))


def test_without_arrows_notes_none_are_added(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1.0, 2.0]}), tmp_path / "t.parquet", store_schema=False)
    data = converted(ParquetSource(tmp_path / "t.parquet", "t"), Projection((0,)), ["y"])
    assert pq.ParquetFile(io.BytesIO(data)).metadata.metadata is None
    assert pq.read_table(io.BytesIO(data)).to_pydict() == {"x": [1.0, 2.0], "y": [0.1, 0.2]}


def test_only_some_columns_nested_ones_too(tmp_path: Path) -> None:
    nested = pa.array([{"a": [1], "b": "x"}, None, {"a": [], "b": None}])
    pairs = pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int64()))
    table = pa.table({"u": [1, 2, 3], "n": nested, "m": pairs, "x": [1.0, 2.0, 3.0]})
    source = saved(table, tmp_path / "t.parquet", store_schema=False)
    assert is_copied(source)
    data = converted(source, Projection((3,), keep=(1, 2)), ["x_ema"])
    after = pq.read_table(io.BytesIO(data))
    assert after.schema.names == ["n", "m", "x_ema"]
    assert after["n"].to_pylist() == nested.to_pylist()
    assert after["m"].to_pylist() == pairs.to_pylist()


values = st.one_of(st.none(), st.floats(width=32, allow_infinity=False), st.integers(-5, 5).map(float))


@settings(deadline=None, max_examples=60)
@given(st.lists(values, min_size=1, max_size=90), st.integers(12, 70), st.data())
def test_however_batches_are_cut_the_bytes_are_the_same(
    x: list[float | None], group: int, data: st.DataObject
) -> None:
    """And statistics joined from pieces are those of the whole chunk."""
    outputs = []
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(parquet_copy, "GROUP_ROWS", data.draw(st.integers(1, 20)))
        pq.write_table(pa.table({"x": pa.array(x, pa.float64())}), Path(folder, "t"), row_group_size=group)
        for _ in range(2):
            patch.setattr(columnar, "BATCH_ROWS", data.draw(st.integers(1, 70)))
            processes = data.draw(st.integers(1, 3))
            source = ParquetSource(Path(folder, "t"), "t")
            outputs.append(converted(source, Projection((0,)), ["y"], processes))
    assert outputs[0] == outputs[1]
    file = pq.ParquetFile(io.BytesIO(outputs[0]))
    y = [None if v is None or np.isnan(v) else v / 10 for v in x]
    assert file.read()["y"].to_pylist() == y
    for k in range(file.num_row_groups):
        part = [v for v in y[k * group : (k + 1) * group] if v is not None]
        found = file.metadata.row_group(k).column(1).statistics
        assert found.null_count == len(y[k * group : (k + 1) * group]) - len(part)
        assert (found.min, found.max) == ((min(part), max(part)) if part else (None, None))


def test_predicates_on_the_new_column(tmp_path: Path) -> None:
    table = big()
    source = saved(table, tmp_path / "t.parquet", row_group_size=140_000)
    (tmp_path / "out.parquet").write_bytes(converted(source, Projection((2,)), ["x_ema"]))
    expected = table.append_column("x_ema", pa.array(table["x"].to_numpy() / 10))
    assert pq.read_table(tmp_path / "out.parquet").equals(expected)
    some = pl.scan_parquet(tmp_path / "out.parquet").filter(pl.col("x_ema") > 1.05).collect()
    assert some.equals(pl.DataFrame(expected).filter(pl.col("x_ema") > 1.05))


@pytest.mark.parametrize("name", ["many small groups", "a huge group", "an old writer", "a long footer"])
def test_what_is_better_written_anew(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"x": np.arange(900.0)})
    source = saved(table, tmp_path / "t.parquet", row_group_size=100)
    if name == "a huge group":
        monkeypatch.setattr(parquet_copy, "FEWEST_ROWS", 0)
        assert is_copied(source)
        monkeypatch.setattr(parquet_copy, "MOST_CELLS", 99)
    elif name == "an old writer":
        monkeypatch.setattr(parquet_copy, "FEWEST_ROWS", 0)
        monkeypatch.setattr(parquet_copy, "_MISCOUNTS", re.compile(b"parquet-cpp"))
    elif name == "a long footer":
        monkeypatch.setattr(parquet_copy, "FEWEST_ROWS", 0)
        monkeypatch.setattr(parquet_copy, "MOST_FOOTER", 100)
    assert not is_copied(source)
    data = converted(source, Projection((0,)), ["y"])
    assert pq.read_table(io.BytesIO(data))["y"].to_pylist() == (table["x"].to_numpy() / 10).tolist()


def doctored(path: Path, change: Callable[[Any], object]) -> Original | None:
    """The file with another footer, as `original_of` sees it."""
    source = ParquetSource(path, "t")
    data = path.read_bytes()
    footer = split(memoryview(data))[1]
    change(footer)
    return original_of(source._handle, "t", source._leaves, "zstd", encode(footer), 1)


def test_chunks_that_are_elsewhere_or_beyond_the_end_are_not_copied(tmp_path: Path) -> None:
    saved(pa.table({"x": [1.0]}), tmp_path / "t.parquet").close()

    def chunk(footer: Any) -> Any:
        return footer[FileMeta.GROUPS][1][1][0][1][1][1][0]

    assert doctored(tmp_path / "t.parquet", len) is not None
    for change in (
        lambda footer: chunk(footer).update({1: (BINARY, b"other.parquet")}),
        lambda footer: chunk(footer).update({8: chunk(footer)[3]}),
        lambda footer: chunk(footer).pop(3),
        lambda footer: chunk(footer)[3][1].update({7: (I64, 1 << 40)}),
        lambda footer: chunk(footer)[3][1].update({9: (I64, 1)}),
        lambda footer: chunk(footer)[3][1].update({6: (BINARY, b"1")}),
        lambda footer: chunk(footer)[3][1].pop(5),
        lambda footer: footer.update({FileMeta.ROWS: (I64, 2)}),
        lambda footer: footer.update({FileMeta.COLUMN_ORDERS: a_list([{}, {}, {}])}),
        lambda footer: footer.update({FileMeta.SCHEMA: a_list([])}),
    ):
        assert doctored(tmp_path / "t.parquet", change) is None


def write_all(sink: Sink, parts: list[tuple[Batch, Any]]) -> None:
    for batch, fields in parts:
        sink.write(batch, fields)
    sink.finish()


def test_rows_that_do_not_come_or_are_too_many_are_an_error(tmp_path: Path) -> None:
    for rows in (1, 3):
        source = saved(pa.table({"x": [1.0, 2.0]}), tmp_path / "t.parquet")
        wanted = Projection((0,))
        sink = open_parquet_sink(io.BytesIO(), source, wanted, ["y"])
        assert isinstance(sink, ParquetCopySink)
        (batch,) = source.batches(wanted)
        with pytest.raises(FileTrouble, match=r"in\.parquet: .*rows"):
            write_all(sink, [(batch, np.zeros((rows, 1)))])


def test_an_input_cut_short_meanwhile_is_an_error(tmp_path: Path) -> None:
    source = saved(big(), tmp_path / "t.parquet")
    sink = open_parquet_sink(io.BytesIO(), source, Projection((2,)), ["y"])
    batches = list(source.batches(Projection((2,), keep=())))
    with (tmp_path / "t.parquet").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(FileTrouble, match="became shorter"):
        write_all(sink, [(batch, batch.values) for batch in batches])


def test_from_a_pipe_and_in_place(shop: Workshop) -> None:
    table = big(20_000)
    pq.write_table(table, shop.folder / "t.parquet")
    options = ("-c", "x", "--alpha", "0.1", "-o")
    shop.run("t.parquet", *options, "whole.parquet")
    shop.run(*options, "piped.parquet", stdin=shop.read("t.parquet"))
    assert shop.read("piped.parquet") == shop.read("whole.parquet")
    shop.run("t.parquet", *options, "t.parquet")
    assert shop.read("t.parquet") == shop.read("whole.parquet")
