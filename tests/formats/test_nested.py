"""Members of records, and columns of text that hold numbers, in Parquet and Arrow."""

from __future__ import annotations

import csv
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import Workshop


def save(shop: Workshop, name: str, table: pa.Table) -> None:
    if name.endswith("parquet"):
        pq.write_table(table, shop.folder / name)
    else:
        with pa.ipc.new_file(shop.folder / name, table.schema) as writer:
            writer.write_table(table)


def load(shop: Workshop, name: str) -> pa.Table:
    return pq.read_table(shop.folder / name) if name.endswith("parquet") else pa.ipc.open_file(
        shop.folder / name).read_all()  # fmt: skip


RECORDS = [
    {"x": 1.0, "y": 2, "in": {"z": "a"}, "p.q": 1.0},
    {"x": 3.0, "y": None, "in": None, "p.q": 2.0},
    None,
    {"x": 5.0, "y": 6, "in": {"z": "a"}, "p.q": 3.0},
]


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_a_member_is_a_column(shop: Workshop, suffix: str) -> None:
    table = pa.table({"i": [1, 2, 3, 4], "m": RECORDS})
    save(shop, f"in.{suffix}", table)
    shop.run(f"in.{suffix}", "-c", "m.x", "-c", "m.p.q", "--alpha", "0.5", "-o", f"out.{suffix}")
    out = load(shop, f"out.{suffix}")
    assert out.select(["i", "m"]).equals(table)
    assert out.schema.names == ["i", "m", "m.x_ema", "m.p.q_ema"]
    assert out["m.x_ema"].to_pylist() == [1.0, 2.0, None, 3.5]
    assert out["m.p.q_ema"].to_pylist() == [1.0, 1.5, None, 2.25]
    text = shop.run(f"in.{suffix}", "-c", "m.x", "--by", "m.in.z", "--alpha", "0.5", "--only").out
    assert text == b"m.in.z,m.x_ema\na,1.0\n,3.0\n,\na,3.0\n"
    text = shop.run(f"in.{suffix}", "-c", "m.y", "--alpha", "0.5").out
    cells = next(csv.reader([text.decode().splitlines()[1]]))
    assert (cells[0], cells[2]) == ("1", "2.0")
    assert json.loads(cells[1]) == {"x": 1.0, "y": 2, "in": {"z": "a"}, "p.q": 1.0}


def test_members_in_parts_and_through_a_state(shop: Workshop) -> None:
    for k, cells in enumerate(([1, 3], [5.0, None])):
        save(shop, f"{k}.parquet", pa.table({"m": [{"x": cell} for cell in cells]}))
    both = shop.run("0.parquet", "1.parquet", "-c", "m.x", "--alpha", "0.5", code=1)
    assert "column 'm': struct<x: double>, but struct<x: int64> in 0.parquet" in both.err
    save(shop, "0.parquet", pa.table({"m": [{"x": 1.0}, {"x": 3.0}]}))
    options = ["-c", "m.x", "--alpha", "0.5", "--only"]
    assert shop.run("0.parquet", "1.parquet", *options).out == b"m.x_ema\n1.0\n2.0\n3.5\n\n"
    parts = [shop.run(f"{k}.parquet", *options, "--state", "s").out for k in range(2)]
    assert parts == [b"m.x_ema\n1.0\n2.0\n", b"m.x_ema\n3.5\n\n"]
    # The state knows the column, so it need not be named again.
    assert shop.run("0.parquet", "--alpha", "0.5", "--only", "--state", "s").out == b"m.x_ema\n2.25\n2.625\n"


def test_what_is_no_member_says_so(shop: Workshop) -> None:
    save(shop, "in.parquet", pa.table({"i": [1], "m": [{"x": 1.0}], "l": [[{"x": 1.0}]]}))
    assert "-c m.x" in shop.run("in.parquet", "-c", "m", "--alpha", "0.5", code=1).err
    for name in ("m.y", "l.x", "i.x", "m."):
        assert f"no column '{name}'" in shop.run("in.parquet", "-c", name, "--alpha", "0.5", code=2).err


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_numbers_as_text_are_read_as_in_csv(shop: Workshop, suffix: str, kind: Any) -> None:
    cells = ["1.5", " 2.5 ", "n/a", None, "", "1e1", "007"]
    table = pa.table({"v": pa.array(cells).cast(kind)})
    save(shop, f"in.{suffix}", table)
    shop.run(f"in.{suffix}", "-c", "v", "--alpha", "1", "-o", f"out.{suffix}")
    out = load(shop, f"out.{suffix}")
    assert out["v_ema"].to_pylist() == [1.5, 2.5, None, None, None, 10.0, 7.0]
    assert out["v"].to_pylist() == cells  # nothing of the input changes


def test_text_that_is_no_number(shop: Workshop) -> None:
    save(shop, "in.parquet", pa.table({"v": ["1.5", "x", "2,5"], "w": ["1.200,5", "3", ""]}))
    done = shop.run("in.parquet", "-c", "v", "--alpha", "1", code=1)
    assert "in.parquet, row 2, column 'v': not a number: 'x'" in done.err
    out = shop.run("in.parquet", "-c", "v", "--alpha", "1", "--only", "--invalid", "missing").out
    assert out == b"v_ema\n1.5\n\n\n"
    out = shop.run(
        "in.parquet", "-c", "w", "--alpha", "1", "--only", "--decimal", ",", "--thousands", "."
    ).out
    assert out == b'w_ema\n"1200,5"\n"3,0"\n\n'
    out = shop.run("in.parquet", "-c", "w", "--alpha", "1", "--only", "--na", "3", "--decimal", ",",
                   "--thousands", ".").out  # fmt: skip
    assert out == b'w_ema\n"1200,5"\n\n\n'


def test_a_column_of_nothing_is_missing(shop: Workshop) -> None:
    save(shop, "in.parquet", pa.table({"v": pa.nulls(2), "x": [1.0, 2.0]}))
    assert shop.run("in.parquet", "-c", "v", "--alpha", "1", "--only").out == b"v_ema\n\n\n"


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_numbers_as_text_that_are_left_out_are_said(shop: Workshop, suffix: str) -> None:
    table = pa.table({"i": [1, 2], "v": [None, "1.5"], "id": ["a1", "b2"], "k": ["3", "x"]})
    save(shop, f"in.{suffix}", table)
    done = shop.run(f"in.{suffix}", "--alpha", "1", "--by", "k")
    assert done.out == b"i,v,id,k,i_ema\n1,,a1,3,1.0\n2,1.5,b2,x,2.0\n"
    assert done.err.count("\n") == 1
    assert "column 'v' holds numbers as text and was left out: -c v" in done.err
    assert shop.run(f"in.{suffix}", "--alpha", "1", "-c", "i").err == ""


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet", "arrow"])
def test_a_hint_names_the_option_that_the_column_was_given_with(suffix: str, shop: Workshop) -> None:
    texts = {"csv": "v,w\n1,1\n2,b4\n", "jsonl": '{"v":1,"w":"1"}\n{"v":2,"w":"b4"}\n'}
    if suffix in texts:
        shop.write(f"in.{suffix}", texts[suffix])
    else:
        save(shop, f"in.{suffix}", pa.table({"v": [1.0, 2.0], "w": ["1", "b4"]}))
    # In formats that have types, an order of type text is one of times.
    for option in ("--weights", *["--order"] * (suffix in texts)):
        done = shop.run(f"in.{suffix}", "-c", "v", option, "w", "--alpha", "1", "-o", "out.csv", code=1)
        assert f"try: correct it, or choose another column: {option} COLUMN" in done.err
    done = shop.run(f"in.{suffix}", "-c", "w", "--alpha", "1", "-o", "out.csv", code=1)
    assert "try: correct it, or choose other columns: -c COLUMN" in done.err
