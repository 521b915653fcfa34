"""Arrow IPC in and out: files and streams, batch by batch, nothing of the input changed."""

from __future__ import annotations

import contextlib
import io
import random
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pytest

from ema_cli.average import make_average
from ema_cli.errors import EmaError
from ema_cli.formats import columnar
from ema_cli.job import Job
from ema_cli.run.pipeline import run
from tests.conftest import Workshop
from tests.formats.parquet_files import every_type


def stream(table: pa.Table, rows: int) -> bytes:
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return out.getvalue()


def file(table: pa.Table, path: Path, rows: int) -> None:
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)


def cuts(path: Path) -> list[int]:
    reader = pa.ipc.open_file(path)
    return [reader.get_batch(k).num_rows for k in range(reader.num_record_batches)]


@pytest.mark.parametrize("name", ["in.arrow", "in.feather", "unnamed"])
def test_a_file_keeps_types_metadata_and_batches(shop: Workshop, name: str) -> None:
    table = pa.concat_tables([every_type()] * 3)
    file(table, shop.folder / name, 4)
    shop.run(name, "-c", "f64", "--alpha", "0.5", "--invalid", "missing", "-o", "out.arrow")
    out = pa.ipc.open_file(shop.folder / "out.arrow").read_all()
    assert out.schema.names == [*table.schema.names, "f64_ema"]
    assert out.schema.remove(len(table.schema)).equals(table.schema, check_metadata=True)
    assert str(out.select(table.schema.names).to_pydict()) == str(table.to_pydict())
    assert cuts(shop.folder / "out.arrow") == [3, 3, 3]  # concatenated tables are written chunk by chunk
    assert out["f64_ema"][0].as_py() == 0.1
    assert out["f64_ema"][1].as_py() is None


def test_a_stream_is_answered_batch_by_batch(shop: Workshop) -> None:
    table = pa.table({"x": [1.0, 3.0, 5.0]})
    with shop.start("--from", "arrow", "--to", "arrow", "--alpha", "0.5") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        writer = pa.ipc.new_stream(process.stdin, table.schema)
        reader = None
        answers = []
        for k in range(3):
            writer.write_batch(table.slice(k, 1).to_batches()[0])
            process.stdin.flush()
            reader = reader or pa.ipc.open_stream(process.stdout)
            answers.append(reader.read_next_batch()["x_ema"].to_pylist())  # before the next one is sent
        assert answers == [[1.0], [2.0], [3.5]]
        writer.close()
        process.stdin.close()
        assert process.wait(20) == 0


def test_text_from_a_stream_and_a_stream_from_text(shop: Workshop) -> None:
    table = pa.table({"k": ["a", "b", "a"], "x": [1.0, None, 3.0]})
    assert shop.run("--alpha", "0.5", stdin=stream(table, 2)).out == b"k,x,x_ema\na,1.0,1.0\nb,,\na,3.0,2.0\n"
    data = shop.run("--alpha", "0.5", "--to", "arrow", stdin=b"k,x\na,1\nb,\na,3\n").out
    assert pa.ipc.open_stream(data).read_all().to_pydict() == {
        "k": ["a", "b", "a"], "x": [1.0, None, 3.0], "x_ema": [1.0, None, 2.0],
    }  # fmt: skip


@pytest.mark.parametrize("source", ["csv", "parquet", "arrow"])
def test_pieces_through_a_state_are_one_run(shop: Workshop, source: str) -> None:
    """Keys, times and ties, as a file, as a stream, and in two pieces; the same numbers from every format."""
    rows = 90
    dice = np.random.default_rng(3)
    table = pa.table({
        "k": pa.array(dice.choice(["a", "b,c", "d"], rows)),
        "t": pa.array(np.sort(dice.integers(0, 50, rows)), pa.timestamp("s", "UTC")),
        "x": pa.array(dice.normal(size=rows), mask=dice.random(rows) < 0.2),
    })  # fmt: skip
    options = ["-c", "x", "--by", "k", "--time", "t", "--halflife", "7s", "--std", "--state", "s"]
    file(table, shop.folder / "all.arrow", 17)
    whole = shop.run("all.arrow", *options).out
    (shop.folder / "s").unlink()
    parts = []
    for begin, end in ((0, 40), (40, rows)):
        part = table.slice(begin, end - begin)
        file(part, shop.folder / "part.arrow", 5)
        if source != "arrow":
            shop.run("part.arrow", "-c", "x", "--alpha", "1", "-o", f"wide.{source}")
            parts.append(shop.run(f"wide.{source}", *options, "--only").out)
        else:
            parts.append(shop.run(*options, "--only", stdin=stream(part, 11)).out)
    (shop.folder / "s").unlink()
    only = shop.run("all.arrow", *options, "--only").out
    header = only.partition(b"\n")[0] + b"\n"
    assert b"".join(part.removeprefix(header) for part in parts) == only.removeprefix(header)
    assert whole.count(b"\n") == rows + 1


def test_text_to_arrow_is_the_same_however_it_arrives(shop: Workshop) -> None:
    rows = "".join(f"{k % 7},{k / 3}\n" for k in range(70_000))
    shop.write("in.csv", "k,x\n" + rows)
    shop.run("in.csv", "--alpha", "0.1", "-o", "out.arrow")
    piped = shop.run("--alpha", "0.1", "-o", "piped.arrow", stdin=shop.read("in.csv"))
    assert piped.code == 0
    assert shop.read("piped.arrow") == shop.read("out.arrow")
    assert cuts(shop.folder / "out.arrow") == [65_536, 4464]


def test_large_batches_are_read_in_pieces_and_written_whole(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columnar, "BATCH_BYTES", 1000)
    table = pa.table({"s": [f"{k:020}" for k in range(500)], "x": np.arange(500.0)})
    file(table, shop.folder / "in.arrow", 300)
    job = Job(make_average({"alpha": ["1"]}), (str(shop.folder / "in.arrow"),), str(shop.folder / "o.arrow"))
    run(job)
    assert cuts(shop.folder / "o.arrow") == [300, 200]
    assert pa.ipc.open_file(shop.folder / "o.arrow").read_all().select(["s", "x"]).equals(table)


def test_categories_that_change_between_batches(shop: Workshop) -> None:
    parts = [pa.array(texts).dictionary_encode() for texts in (["a", "b"], ["c", "a"], ["a", "a"])]
    table = pa.table({"d": pa.chunked_array(parts), "x": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]})
    data = stream(table, 2)
    for target in ("o.arrow", "o.arrows", "o.parquet"):
        shop.run("--alpha", "0.5", "-c", "x", "-o", target, stdin=data)
    for out in (pa.ipc.open_file(shop.folder / "o.arrow"), pa.ipc.open_stream(shop.read("o.arrows"))):
        assert out.read_all()["d"].to_pylist() == ["a", "b", "c", "a", "a", "a"]
    again = shop.run("o.arrow", "--alpha", "0.5", "-c", "x", "--by", "d", "--only").out
    assert again == b"d,x_ema\na,1.0\nb,2.0\nc,3.0\na,2.5\na,3.75\na,4.875\n"


def test_no_rows_and_empty_batches(shop: Workshop) -> None:
    table = pa.table({"x": pa.array([], pa.float64())})
    shop.write("none.arrows", stream(table, 1))
    shop.run("none.arrows", "--alpha", "0.5", "-o", "o.arrow")
    assert pa.ipc.open_file(shop.folder / "o.arrow").read_all().schema.names == ["x", "x_ema"]
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as writer:
        for rows in (0, 2, 0, 1):
            writer.write_batch(pa.record_batch([pa.array(range(rows), pa.float64())], schema=table.schema))
    got = shop.run("--alpha", "1", "--to", "arrow", stdin=out.getvalue()).out
    assert [batch.num_rows for batch in pa.ipc.open_stream(got)] == [0, 2, 0, 1]


def test_what_is_no_arrow_says_so(shop: Workshop) -> None:
    shop.write("cut.arrow", b"ARROW1\0\0 and no more")
    assert "no sound Arrow file" in shop.run("cut.arrow", "--alpha", "0.5", code=1).err
    assert "Feather V2" in shop.run("--alpha", "0.5", stdin=b"FEA1....", code=1).err
    data = stream(pa.table({"x": np.arange(1000.0)}), 100)
    done = shop.run("--alpha", "0.5", stdin=data[:-3000], code=1)
    assert "no sound Arrow file" in done.err
    assert done.out.startswith(b"x,x_ema\n0.0,0.0\n")  # what came before is answered


@pytest.mark.parametrize("seed", range(3))
def test_damaged_files_are_an_error_in_words_or_read(seed: int, tmp_path: Path) -> None:
    table = pa.table({
        "x": np.arange(120) / 7,
        "s": [f"k{k % 7}" for k in range(120)],
        "d": pa.array([f"k{k % 7}" for k in range(120)]).dictionary_encode(),
        "l": [[k] for k in range(120)],
    })  # fmt: skip
    if seed % 2:
        pyarrow.feather.write_feather(table, tmp_path / "in.arrow", chunksize=50, compression="zstd")
    else:
        file(table, tmp_path / "in.arrow", 50)
    sound = (tmp_path / "in.arrow").read_bytes() if seed < 2 else stream(table, 50)
    dice = random.Random(seed)
    for _ in range(200):
        data = bytearray(sound)
        for _ in range(dice.choice([1, 1, 3])):
            data[dice.randrange(len(data))] = dice.choice([0, 127, 128, 255, dice.randrange(256)])
        if dice.random() < 0.2:
            del data[dice.randrange(len(data)) :]
        (tmp_path / "bad.arrow").write_bytes(data)
        job = Job(make_average({"alpha": ["0.5"]}), (str(tmp_path / "bad.arrow"),), "/dev/null", by=("s",))
        with contextlib.suppress(EmaError):
            run(job)
        with contextlib.suppress(EmaError):
            run(Job(job.average, job.inputs, str(tmp_path / "o.arrow"), columns=("x",)))


def test_a_terminal_gets_no_arrow(shop: Workshop) -> None:
    done = subprocess.run(
        ["script", "-qec", " ".join(shop.command("--to", "arrow", "--alpha", "0.5")), "/dev/null"],
        input=b"x\n1\n", capture_output=True, env=shop.environment, cwd=shop.folder, check=False, timeout=60,
    )  # fmt: skip
    assert b"arrow is nothing to read in a terminal" in done.stdout
