"""Parts whose types differ: every pair of types gives the values of both, or an error that names them."""

from __future__ import annotations

import datetime
import itertools
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ema_cli.average import make_average
from ema_cli.errors import DataError
from ema_cli.formats.unify import InexactError, common_type, exactly
from ema_cli.job import Job
from ema_cli.run.pipeline import run
from tests.conftest import Workshop

NOON = datetime.datetime(2024, 5, 6, 12, 30, 1, 500_000)
TYPES: dict[str, tuple[pa.DataType, list[Any]]] = {
    "null": (pa.null(), [None, None]),
    "bool": (pa.bool_(), [True, None]),
    "int8": (pa.int8(), [-128, None]),
    "int64": (pa.int64(), [2**53, -5]),
    "large int64": (pa.int64(), [2**53 + 1, -5]),
    "uint32": (pa.uint32(), [2**32 - 1, None]),
    "uint64": (pa.uint64(), [2**64 - 1, 0]),
    "half": (pa.float16(), [np.float16(1.5), None]),
    "float": (pa.float32(), [0.1, None]),
    "double": (pa.float64(), [1e300, float("nan")]),
    "decimal": (pa.decimal128(10, 2), [Decimal("1.50"), None]),
    "wide decimal": (pa.decimal128(38, 30), [Decimal("0.000000000000000000000000000001"), None]),
    "string": (pa.string(), ["007", None]),
    "large string": (pa.large_string(), ["x", ""]),
    "categories": (pa.dictionary(pa.int32(), pa.string()), ["a", "b"]),
    "binary": (pa.binary(), [b"\xff", None]),
    "date": (pa.date32(), [NOON.date(), None]),
    "ms": (pa.timestamp("ms"), [NOON, None]),
    "us": (pa.timestamp("us"), [NOON, datetime.datetime(9999, 1, 1)]),
    "ns": (pa.timestamp("ns"), [NOON, None]),
    "utc": (pa.timestamp("us", "UTC"), [NOON.replace(tzinfo=datetime.UTC), None]),
    "paris": (pa.timestamp("us", "Europe/Paris"), [NOON.replace(tzinfo=datetime.UTC), None]),
    "clock": (pa.time32("ms"), [NOON.time(), None]),
    "fine clock": (pa.time64("ns"), [NOON.time(), None]),
    "list": (pa.list_(pa.int64()), [[1], None]),
    "list of floats": (pa.list_(pa.float64()), [[1.5], None]),
    "record": (pa.struct({"a": pa.int32()}), [{"a": 1}, None]),
    "wider record": (pa.struct({"a": pa.int64()}), [{"a": 2}, None]),
    "other record": (pa.struct({"b": pa.int32()}), [{"b": 1}, None]),
}
WORK = make_average({"alpha": ["0.5"]})


def plain(cell: Any) -> Any:
    """The cell, None where it is NaN, which is equal to nothing."""
    return None if isinstance(cell, float) and np.isnan(cell) else cell


def write(path: Path, name: str) -> pa.Array:
    kind, cells = TYPES[name]
    column = pa.array(cells, kind)
    pq.write_table(pa.table({"v": column, "x": [1.0, 2.0]}), path)
    return pq.read_table(path)["v"]


@pytest.mark.parametrize("one", TYPES)
def test_every_pair_is_kept_without_loss_or_refused(one: str, tmp_path: Path) -> None:
    for other in TYPES:
        columns = [write(tmp_path / f"{k}.parquet", name) for k, name in enumerate((one, other))]
        parts = tuple(str(tmp_path / f"{k}.parquet") for k in range(2))
        job = Job(WORK, parts, str(tmp_path / "out.parquet"), columns=("x",))
        try:
            run(job)
        except DataError as error:
            said = str(error)
            assert "column 'v'" in said
            assert "1.parquet" in said or "0.parquet" in said
            assert all(str(column.type) in said for column in columns) or "not exactly" in said
            # What is refused has no common type, or a value that this does not hold.
            both = common_type(*(column.type for column in columns))
            if both is not None:
                with pytest.raises(InexactError):
                    [exactly(chunk, both) for column in columns for chunk in column.chunks]
            continue
        out = pq.read_table(tmp_path / "out.parquet")
        assert out["x_ema"].to_pylist() == [1.0, 1.5, 1.25, 1.625]
        before = [cell for column in columns for cell in column.to_pylist()]
        for was, now in zip(before, out["v"].to_pylist(), strict=True):
            # One value as another type says it: the same number, instant or text, not nearly the same.
            assert plain(now) == plain(was), (one, other)
            assert not (isinstance(was, str) ^ isinstance(now, str)) or was is None


@pytest.mark.parametrize(("one", "other", "kind"), [
    ("int8", "int64", "int64"), ("int64", "double", "double"), ("int8", "half", "double"),
    ("half", "double", "double"), ("null", "string", "string"), ("double", "null", "double"),
    ("ms", "ns", "timestamp[ns]"), ("string", "large string", "large_string"),
    ("categories", "string", "string"), ("clock", "fine clock", "time64[ns]"),
    ("record", "wider record", "struct<a: int64>"), ("int8", "uint32", "int64"),
    ("utc", "paris", None), ("utc", "us", None), ("date", "us", None), ("string", "int64", None),
    ("int64", "uint64", None), ("bool", "int8", None), ("string", "binary", None), ("int64", "decimal", None),
    ("record", "other record", None), ("list", "list of floats", None), ("list", "int64", None),
])  # fmt: skip
def test_common_types(one: str, other: str, kind: str | None) -> None:
    for a, b in ((one, other), (other, one)):
        both = common_type(TYPES[a][0], TYPES[b][0])
        assert (None if both is None else str(both)) == kind


@pytest.mark.parametrize("names", list(itertools.permutations(["null", "int8", "double"])))
def test_three_parts_in_any_order(names: tuple[str, ...], tmp_path: Path) -> None:
    cells = []
    for k, name in enumerate(names):
        cells += write(tmp_path / f"{k}.parquet", name).to_pylist()
    job = Job(WORK, tuple(str(tmp_path / f"{k}.parquet") for k in range(3)), str(tmp_path / "o.parquet"))
    summary = run(job)
    assert summary.names == ["v", "x"]  # a part without values leaves nothing out
    found = pq.read_table(tmp_path / "o.parquet")["v"].to_pylist()
    assert list(map(plain, found)) == list(map(plain, cells))


def test_an_inexact_value_is_an_error_at_its_row(shop: Workshop) -> None:
    pq.write_table(pa.table({"v": [1, 2**53 + 1]}), shop.folder / "a.parquet")
    pq.write_table(pa.table({"v": [1.5]}), shop.folder / "b.parquet")
    done = shop.run("a.parquet", "b.parquet", "--alpha", "0.5", "-o", "o.parquet", code=1)
    assert "a.parquet, row 2, column 'v': 9007199254740993" in done.err
    assert not (shop.folder / "o.parquet").exists()


def test_types_are_settled_before_a_row_is_written(shop: Workshop) -> None:
    pq.write_table(pa.table({"v": [1.0], "k": [1]}), shop.folder / "a.parquet")
    pq.write_table(pa.table({"v": [1.0], "k": ["007"]}), shop.folder / "b.parquet")
    done = shop.run("a.parquet", "b.parquet", "-c", "v", "--alpha", "0.5", code=1)
    assert done.out == b""
    assert "b.parquet, column 'k': string, but int64 in a.parquet" in done.err


def test_numeric_keys_are_one_key_where_they_are_one_number(shop: Workshop) -> None:
    """In parts of one run, and in runs joined by a state."""
    kinds = [pa.int64(), pa.float64(), pa.float32()]
    for k, kind in enumerate(kinds):
        table = pa.table({"k": pa.array([7, 0, 8], kind), "v": [1.0 + k, 5.0 + k, 10.0 + k]})
        pq.write_table(table, shop.folder / f"{k}.parquet")
    by = ["-c", "v", "--by", "k", "--alpha", "0.5"]
    whole = shop.run("0.parquet", "1.parquet", "2.parquet", *by).out.decode().split()
    assert [float(line.split(",")[2]) for line in whole[1:]] == [1, 5, 10, 1.5, 5.5, 10.5, 2.25, 6.25, 11.25]
    found = []
    for k in range(3):
        found += shop.run(f"{k}.parquet", *by, "--state", "s").out.decode().split()[1:]
    assert [line.split(",")[2] for line in found] == [line.split(",")[2] for line in whole[1:]]


def test_arrow_parts_and_a_part_from_a_pipe(shop: Workshop) -> None:
    one, two = pa.table({"v": pa.array([1, 2], pa.int32())}), pa.table({"v": [0.5, None]})
    with pa.ipc.new_file(shop.folder / "a.arrow", one.schema) as writer:
        writer.write_table(one)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, two.schema) as writer:
        writer.write_table(two)
    data = sink.getvalue().to_pybytes()
    out = shop.run("a.arrow", "-", "--from", "arrow", "--alpha", "0.5", stdin=data).out
    assert out == b"v,v_ema\n1.0,1.0\n2.0,1.5\n0.5,1.0\n,\n"
