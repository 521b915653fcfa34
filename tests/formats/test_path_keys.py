"""Keys that an input's path says: `year=2024/` names a column that `--by` may use."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ema_cli.formats.path_keys import path_keys
from tests.conftest import Workshop

ROWS = {"a/year=2023/p-1.x": [1.0, 3.0], "a/year=2024/p-2.x": [10.0], "a/year=2023/p-10.x": [5.0]}


def test_keys_of_a_path() -> None:
    assert path_keys("lake/b=2/a%20b=x%2Fy/part=1.csv") == {"a b": "x/y", "b": "2"}
    assert path_keys("a=__HIVE_DEFAULT_PARTITION__/f") == {"a": None}
    assert path_keys("f=1.csv") == path_keys("=a/f") == path_keys("-") == {}


def write(shop: Workshop, suffix: str) -> list[str]:
    for name, cells in ROWS.items():
        path = shop.folder / name.replace(".x", f".{suffix}")
        path.parent.mkdir(parents=True, exist_ok=True)
        if suffix == "parquet":
            pq.write_table(pa.table({"v": cells}), path)
        elif suffix == "arrow":
            with pa.ipc.new_file(path, pa.table({"v": cells}).schema) as writer:
                writer.write_table(pa.table({"v": cells}))
        elif suffix == "jsonl":
            path.write_text("".join(json.dumps({"v": cell}) + "\n" for cell in cells))
        else:
            path.write_text("v\n" + "".join(f"{cell}\n" for cell in cells))
    return [f"a/year={k}/p-{n}.{suffix}" for k, n in ((2023, 1), (2023, 10), (2024, 2))]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet", "arrow"])
@pytest.mark.parametrize("given", ["a", "a/*/*", "named"])
def test_a_folder_is_a_series_for_each_key(shop: Workshop, suffix: str, given: str) -> None:
    names = write(shop, suffix)
    inputs = names if given == "named" else [given]
    out = shop.run(*inputs, "-c", "v", "--by", "year", "--alpha", "0.5", "--to", "csv").out
    assert out == b"v,v_ema\n1.0,1.0\n3.0,2.0\n5.0,3.5\n10.0,10.0\n"
    only = shop.run(*inputs, "-c", "v", "--by", "year", "--alpha", "0.5", "--only", "--to", "csv").out
    assert only == b"year,v_ema\n2023,1.0\n2023,2.0\n2023,3.5\n2024,10.0\n"
    shop.run(*inputs, "-c", "v", "--by", "year", "--alpha", "0.5", "--only", "-o", "o.parquet")
    assert pq.read_table(shop.folder / "o.parquet").to_pydict() == {
        "year": ["2023", "2023", "2023", "2024"], "v_ema": [1.0, 2.0, 3.5, 10.0],
    }  # fmt: skip
    lines = shop.run(*inputs, "-c", "v", "--by", "year", "--alpha", "0.5", "--only", "--to", "jsonl").out
    assert lines.startswith(b'{"year":"2023","v_ema":1.0}\n')


def test_pieces_through_a_state(shop: Workshop) -> None:
    names = write(shop, "parquet")
    by = ["-c", "v", "--by", "year", "--alpha", "0.5", "--only"]
    whole = shop.run(*names, *by).out.splitlines()[1:]
    parts: list[Any] = []
    for name in names:
        parts += shop.run(name, *by, "--state", "s").out.splitlines()[1:]
    assert parts == whole


def test_a_column_of_that_name_comes_first_and_a_part_without_the_key_is_an_error(shop: Workshop) -> None:
    shop.write("k=1/a.csv", "k,v\nx,1\ny,2\n")
    assert (
        shop.run("k=1/a.csv", "-c", "v", "--by", "k", "--alpha", "0.5", "--only").out
        == b"k,v_ema\nx,1.0\ny,2.0\n"
    )
    shop.write("j=1/a.csv", "v\n1\n")
    shop.write("b.csv", "v\n3\n")
    assert "no 'j'" in shop.run("j=1/a.csv", "b.csv", "--by", "j", "--alpha", "0.5", code=1).err
    assert shop.run("j=1/a.csv", "b.csv", "--alpha", "0.5").out == b"v,v_ema\n1,1.0\n3,2.0\n"
    assert "no column 'j'" in shop.run("j=1/a.csv", "-c", "j", "--alpha", "0.5", code=2).err


def test_parquet_chunks_are_still_copied(shop: Workshop) -> None:
    """A key of the path is not in the output, so nothing keeps its columns from passing as they are."""
    write(shop, "parquet")
    shop.run("a/year=2023/p-1.parquet", "--by", "year", "-c", "v", "--alpha", "0.5", "-o", "o.parquet")
    before = pq.ParquetFile(shop.folder / "a/year=2023/p-1.parquet").metadata
    after = pq.ParquetFile(shop.folder / "o.parquet").metadata
    assert (
        after.row_group(0).column(0).total_compressed_size
        == before.row_group(0).column(0).total_compressed_size
    )
    assert after.created_by == before.created_by
