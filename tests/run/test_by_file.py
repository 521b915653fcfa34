"""Several inputs: each a series of its own where that is asked for, and a word where it looks so."""

from __future__ import annotations

import json
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import Workshop

A = "step,loss\n1,4\n2,2\n3,1\n"
B = "step,loss\n1,8\n2,6\n3,5\n"
RUNS = "--by-file makes each a series of its own"
OPTIONS = ["-c", "loss", "--span", "3"]


def test_each_input_is_a_series_of_its_own(shop: Workshop) -> None:
    shop.write("a.csv", A)
    shop.write("b.csv", B.rstrip("\n"))
    done = shop.run("a.csv", "b.csv", *OPTIONS, "--by-file")
    alone = [shop.run(name, *OPTIONS).out.split(b"\n", 1)[1] for name in ("a.csv", "b.csv")]
    assert done.out == b"step,loss,loss_ema\n" + b"".join(alone)
    assert done.err == ""
    only = shop.run("a.csv", "b.csv", *OPTIONS, "--by-file", "--only", "--by", "step")
    assert only.out + b"\n" == b"file,step,loss_ema\n" + b"".join(
        b"%s,%d,%d.0\n" % (name, step, loss)
        for name, losses in ((b"a.csv", (4, 2, 1)), (b"b.csv", (8, 6, 5)))
        for step, loss in enumerate(losses, 1)
    )
    assert (
        shop.run("a.csv", *OPTIONS, "--by-file", "--only").out
        == b"file,loss_ema\na.csv,4.0\na.csv,3.0\na.csv,2.0\n"
    )
    assert shop.run("-", *OPTIONS, "--by-file", "--only", stdin=A.encode()).out.startswith(
        b"file,loss_ema\nstdin,4.0"
    )


def test_an_input_that_is_given_twice_is_refused(shop: Workshop) -> None:
    """The second would go on where the first ended."""
    shop.write("a.csv", A)
    assert "a.csv is given twice" in shop.run("a.csv", "a.csv", *OPTIONS, "--by-file", code=2).err
    assert shop.run("a.csv", "a.csv", *OPTIONS).out.count(b"\n") == 7


def test_the_state_knows_them_by_name(shop: Workshop) -> None:
    """Pieces of two runs, in any order of the files, are what each run is by itself."""
    for name, text in {"a.csv": A, "b.csv": B}.items():
        shop.write(f"first/{name}", "".join(text.splitlines(keepends=True)[:3]))
        shop.write(name, text)
    shop.run("a.csv", "b.csv", *OPTIONS, "--by-file", "--state", "whole", "-o", "o.csv")
    for name, text in {"a.csv": A, "b.csv": B}.items():
        shop.write(name, "".join(text.splitlines(keepends=True)[:3]))
    first = shop.run("a.csv", "b.csv", *OPTIONS, "--by-file", "--state", "s")
    for name, text in {"a.csv": A, "b.csv": B}.items():
        shop.write(name, "step,loss\n" + text.splitlines(keepends=True)[3])
    second = shop.run("b.csv", "a.csv", *OPTIONS, "--by-file", "--state", "s")
    whole = shop.read("o.csv").splitlines()
    assert first.out.splitlines() == [whole[0], whole[1], whole[2], whole[4], whole[5]]
    assert second.out.splitlines() == [whole[0], whole[6], whole[3]]
    with zipfile.ZipFile(shop.folder / "s") as archive:
        assert json.loads(archive.read("state.json"))["options"]["by"] == ["file"]
        assert b"a.csvb.csv" in archive.read("key.0.bytes.npy")
    refused = shop.run("a.csv", *OPTIONS, "--state", "s", code=1)
    assert "by-file was True, is False" in refused.err


def test_parquet_and_other_formats(shop: Workshop) -> None:
    for name, losses in {"a": [4.0, 2.0, 1.0], "b": [8.0, 6.0, 5.0]}.items():
        pq.write_table(pa.table({"step": [1, 2, 3], "loss": losses}), shop.folder / f"{name}.parquet")
    options = [*OPTIONS, "--by-file", "--only"]
    shop.run("a.parquet", "b.parquet", *options, "-o", "o.parquet")
    found = pq.read_table(shop.folder / "o.parquet").to_pydict()
    assert found == {
        "file": ["a.parquet"] * 3 + ["b.parquet"] * 3,
        "loss_ema": [4.0, 3.0, 2.0, 8.0, 7.0, 6.0],
    }
    text = shop.run("a.parquet", "b.parquet", *options).out
    assert text.startswith(b"file,loss_ema\na.parquet,4.0\n")
    shop.write("a, b.csv", A)
    assert b'"a, b.csv",4.0' in shop.run("a, b.csv", *options).out
    shop.run("a, b.csv", *options, "-o", "p.parquet")
    assert pq.read_table(shop.folder / "p.parquet")["file"].to_pylist() == ["a, b.csv"] * 3


def test_json_lines_name_the_file_too(shop: Workshop) -> None:
    shop.write("a.jsonl", '{"loss":4}\n{"loss":2}\n')
    shop.write("b.jsonl", '{"loss":8}\n')
    only = shop.run("a.jsonl", "b.jsonl", *OPTIONS, "--by-file", "--only")
    assert only.out.splitlines() == [
        b'{"file":"a.jsonl","loss_ema":4.0}',
        b'{"file":"a.jsonl","loss_ema":3.0}',
        b'{"file":"b.jsonl","loss_ema":8.0}',
    ]
    text = shop.run("a.jsonl", "b.jsonl", *OPTIONS, "--by-file", "--only", "--to", "csv")
    assert text.out == b"file,loss_ema\na.jsonl,4.0\na.jsonl,3.0\nb.jsonl,8.0\n"


def test_what_does_not_go_with_it(shop: Workshop) -> None:
    shop.write("a.csv", "file,loss\nx,1\n")
    assert (
        "--output-dir makes several"
        in shop.run("a.csv", *OPTIONS, "--by-file", "--output-dir", "o", code=2).err
    )
    clash = shop.run("a.csv", *OPTIONS, "--by-file", "--by", "file", "--only", code=2)
    assert "'file' already" in clash.err


@pytest.mark.parametrize(
    ("first", "second", "noted"),
    [
        (A, B, True),
        (A, "step,loss\n4,8\n5,6\n6,5\n", False),
        (A, "step,loss\n2,8\n1,6\n3,5\n", False),
        ("loss\n1\n2\n3\n", "loss\n1\n2\n3\n", True),
        ("loss\n1\n3\n2\n", "loss\n1\n3\n2\n", False),
        ("v,date,loss\n9,2024-01-01,1\n1,2024-01-02,1\n9,2024-01-03,1\n",) * 2 + (True,),
        ("v,day,loss\n9,2024-01-01,1\n1,2024-01-02,1\n9,2024-01-03,1\n",) * 2 + (False,),
    ],
)
def test_files_that_look_like_runs_of_their_own(shop: Workshop, first: str, second: str, noted: bool) -> None:
    shop.write("a.csv", first)
    shop.write("b.csv", second)
    done = shop.run("a.csv", "b.csv", *OPTIONS)
    assert (RUNS in done.err) is noted
    assert not noted or "b.csv: " in done.err
    assert RUNS not in shop.run("a.csv", "b.csv", *OPTIONS, "--by-file").err


def test_a_step_or_a_time_that_begins_again(shop: Workshop) -> None:
    shop.write("a.csv", A)
    shop.write("b.csv", B)
    for options in (["--order", "step"], ["--time", "step", "--time-unit", "s"]):
        weight = ["--halflife", "3s"] if "--time" in options else ["--alpha", "0.5"]
        failed = shop.run("a.csv", "b.csv", "-c", "loss", *weight, *options, code=1)
        assert "b.csv, line 2, column 'step'" in failed.err
        assert "--by-file, if each file is a series of its own" in failed.err
        shop.run("a.csv", "b.csv", "-c", "loss", *weight, *options, "--by-file")


@pytest.mark.parametrize(
    ("days", "noted"),
    [
        (["2024-01-03", "2024-01-02", "2024-01-01"], True),
        (["2024-01-01", "2024-01-02", "2024-01-03"], False),
        (["2024-01-03", "2024-01-01", "2024-01-02"], False),
        (["03.01.2024", "02.01.2024", "01.01.2024"], True),
        (["01/19/2018", "01/18/2018", "01/17/2018"], True),
        (["2024-01-01"] * 3, False),
        (["2024-01-03", "2024-01-02"], False),
        (["c", "b", "a"], False),
        (["3", "2", "1"], False),
    ],
)
def test_a_first_column_of_dates_that_runs_backwards(shop: Workshop, days: list[str], noted: bool) -> None:
    shop.write("p.csv", "x,date,loss\n" + "".join(f"y,{day},1\n" for day in days))
    done = shop.run("p.csv", *OPTIONS)
    assert ("'date' runs backwards" in done.err) is noted
    assert "runs backwards" not in shop.run("p.csv", *OPTIONS, "--newest-first").err
