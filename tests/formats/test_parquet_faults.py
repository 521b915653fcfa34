"""Parquet that is damaged, foreign or in odd places: an error in words, never an abort."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ema_cli.errors import EmaError, FileTrouble, Place
from ema_cli.formats.base import Batch, Projection
from ema_cli.formats.columnar import ArrowBody
from ema_cli.formats.parquet.sink import ParquetSink
from ema_cli.formats.parquet.source import ParquetSource
from ema_cli.io.spool import spool
from tests.formats.parquet_files import big, converted, saved


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
            wanted = Projection(
                tuple(source.sample(range(len(source.columns)), 0).numeric), invalid="missing"
            )
            converted(source, wanted, [])


def test_an_unknown_codec_does_not_abort(tmp_path: Path) -> None:
    """pyarrow's `ColumnChunkMetaData.compression` ends the process on such a file."""
    saved(pa.table({"x": [1.0]}), tmp_path / "t.parquet", compression="zstd")
    data = (tmp_path / "t.parquet").read_bytes()
    # In ColumnMetaData: path_in_schema ["x"], then the codec, 6 in zigzag.
    at = data.index(b"\x19\x18\x01x\x15\x0c") + 5
    (tmp_path / "t.parquet").write_bytes(data[:at] + b"\x3e" + data[at + 1 :])
    with pytest.raises(FileTrouble):
        list(ParquetSource(tmp_path / "t.parquet", "t").batches(Projection((0,))))


class Full(io.RawIOBase):
    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # noqa: ARG002 - whatever it is given
        raise OSError(28, "No space left on device")


def test_a_full_disk_is_the_systems_own_error(tmp_path: Path) -> None:
    source = saved(big(140_000), tmp_path / "t.parquet")
    with pytest.raises(OSError, match="No space left"):
        ParquetSink(Full(), source.schema(Projection((2,))), ["y"])  # type: ignore[arg-type]


class Sparing(io.BytesIO):
    """Takes a few bytes at a time, as a pipe may."""

    def write(self, data: Any) -> int:
        return super().write(bytes(data[:1000]))


def test_short_writes_lose_nothing(tmp_path: Path) -> None:
    source = saved(pa.table({"x": np.arange(2000.0)}), tmp_path / "t.parquet")
    out = Sparing()
    sink = ParquetSink(out, source.schema(Projection((0,))), ["y"])
    for batch in source.batches(Projection((0,))):
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
        (batch,) = source.batches(Projection((0,)))
        assert batch.values[:, 0].tolist() == [1.0, 2.0]
        source.close()
        assert os.fstat(file.fileno()).st_nlink == 0


def test_spool_without_room_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(FileTrouble, match=r"no such file.*\n.*TMPDIR"):
        spool(io.BytesIO(b"x"))


def test_pandas_notes_stay_json(tmp_path: Path) -> None:
    pd.DataFrame({"x": [1.0]}).to_parquet(tmp_path / "t.parquet")
    data = converted(ParquetSource(tmp_path / "t.parquet", "t"), Projection((0,)), ["x_ema"])
    notes = json.loads(pq.read_schema(io.BytesIO(data)).metadata[b"pandas"])
    assert [column["name"] for column in notes["columns"]] == ["x", "x_ema"]
    assert notes["index_columns"][0]["kind"] == "range"
