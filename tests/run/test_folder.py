"""`--output-dir`, `-j` and `--chain`: the same bytes as one by one, and a bad input costs no other."""

from __future__ import annotations

import gzip
import os
import random
from pathlib import Path

import pytest

from ema_cli.average import make_average
from ema_cli.errors import OptionError
from ema_cli.job import Job
from ema_cli.run.batch import Outcome, plan, run_folder, target_name
from tests.conftest import Workshop

ALPHA = ["--alpha", "0.1"]


def make_inputs(shop: Workshop, count: int, rows: int = 50) -> list[str]:
    names = []
    for k in range(count):
        chance = random.Random(k)
        lines = [f"{i},{chance.random():.4f},{chance.choice('ab')}\n" for i in range(rows)]
        names.append(f"raw/{k:03}.csv")
        shop.write(names[-1], "t,v,key\n" + "".join(lines))
    return names


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_each_input_is_a_series_of_its_own(shop: Workshop) -> None:
    names = make_inputs(shop, 3)
    result = shop.run(*names, *ALPHA, "-c", "v", "--output-dir", "out/deep")
    assert result.out == b""
    assert result.err == "ema-smooth: out/deep: 3 of 3 files written, 150 rows\n"
    for name in names:
        assert shop.read(f"out/deep/{Path(name).name}") == shop.run(name, *ALPHA, "-c", "v").out


@pytest.mark.parametrize("jobs", ["0", "2", "3", "40"])
def test_any_number_of_workers_gives_the_same_bytes(shop: Workshop, jobs: str) -> None:
    names = make_inputs(shop, 12)
    shop.run(*names, *ALPHA, "--adjust", "--std", "--by", "key", "--output-dir", "one")
    shop.run(*names, *ALPHA, "--adjust", "--std", "--by", "key", "--output-dir", "many", "-j", jobs)
    assert contents(shop.folder / "one") == contents(shop.folder / "many")


@pytest.mark.parametrize("jobs", ["1", "3"])
def test_a_bad_input_is_named_and_the_others_are_done(shop: Workshop, jobs: str) -> None:
    names = make_inputs(shop, 4)
    shop.write("raw/bad.csv", "t,v,key\n1,2,a\n3,x,b\n")
    shop.write("out/bad.csv", "old\n")
    arguments = [*names[:2], "raw/bad.csv", "raw/none.csv", *names[2:], "--output-dir", "out", "-j", jobs]
    result = shop.run(*arguments, *ALPHA, "-c", "v", code=1)
    assert "raw/bad.csv, line 3, column 'v': not a number: 'x'\n" in result.err
    assert "raw/none.csv: no such file or directory\n" in result.err
    assert result.err.endswith("ema-smooth: out: 4 of 6 files written, 200 rows; 2 failed\n")
    assert sorted(contents(shop.folder / "out")) == [*(f"{k:03}.csv" for k in range(4)), "bad.csv"]
    assert shop.read("out/bad.csv") == b"old\n"


def test_a_misspelt_column_in_all_of_them_is_a_usage_error(shop: Workshop) -> None:
    names = make_inputs(shop, 2)
    assert "no column 'w'" in shop.run(*names, *ALPHA, "-c", "w", "--output-dir", "out", code=2).err


def test_a_chain_is_one_series(shop: Workshop) -> None:
    names = make_inputs(shop, 5)
    shop.write("raw/empty.csv", "t,v,key\n")
    names.insert(2, "raw/empty.csv")
    options = [*ALPHA, "-c", "v", "--std", "--by", "key", "--missing", "decay"]
    whole = shop.run(*names, *options, "--state", "whole.state").out
    shop.run(*names, *options, "--output-dir", "out", "--chain", "--state", "chain.state", "-j", "2")
    parts = [shop.read(f"out/{Path(name).name}").partition(b"\n") for name in names]
    assert parts[0][0] + b"\n" + b"".join(rows for _, _, rows in parts) == whole
    assert shop.read("chain.state") == shop.read("whole.state")
    # And the next chain goes on from it.
    following = shop.run(names[0], *options, "--state", "whole.state").out
    shop.run(names[0], *options, "--output-dir", "next", "--chain", "--state", "chain.state")
    assert shop.read("next/000.csv") == following
    assert not list(shop.folder.glob("*.lock"))


def test_a_chain_with_a_weight_found_from_all_parts(shop: Workshop) -> None:
    names = make_inputs(shop, 3)
    whole = shop.run(*names, "--alpha", "auto", "-c", "v").out
    shop.run(*names, "--alpha", "auto", "-c", "v", "--output-dir", "out", "--chain")
    parts = [shop.read(f"out/{Path(name).name}").partition(b"\n") for name in names]
    assert parts[0][0] + b"\n" + b"".join(rows for _, _, rows in parts) == whole


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("t,v,key\n1,x,a\n", "raw/bad.csv, line 2, column 'v'"),
        ("v,t,key\n1,2,a\n", "raw/bad.csv: columns v, t, key; the first part has t, v, key"),
    ],
)
def test_after_a_bad_part_nothing_is_written(shop: Workshop, bad: str, said: str) -> None:
    names = make_inputs(shop, 4)
    shop.write("raw/bad.csv", bad)
    shop.run(names[0], *ALPHA, "-c", "v", "--state", "s")
    before = shop.read("s")
    arguments = [*names[:2], "raw/bad.csv", *names[2:], "--output-dir", "out", "--chain", "--state", "s"]
    result = shop.run(*arguments, *ALPHA, "-c", "v", code=1)
    assert said in result.err
    assert result.err.endswith("2 of 5 files written, 100 rows; 1 failed; 2 after it not begun\n")
    assert sorted(contents(shop.folder / "out")) == ["000.csv", "001.csv"]
    assert shop.read("s") == before


def test_a_state_that_can_not_be_put_in_place_is_an_error(shop: Workshop) -> None:
    names = make_inputs(shop, 1)
    shop.write("s", "no state\n")
    assert (
        "s: damaged" in shop.run(*names, *ALPHA, "--output-dir", "out", "--chain", "--state", "s", code=1).err
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["raw/000.csv", "other/000.csv", "--output-dir", "out"], "would both be written to out/000.csv"),
        (["raw/000.csv", "raw/000.csv", "--output-dir", "out"], "would both be written to out/000.csv"),
        (["raw/x.csv", "raw/x.tsv", "--to", "parquet", "--output-dir", "out"], "out/x.parquet"),
        (["raw/000.csv", "--output-dir", "raw"], "raw/000.csv is an input"),
        (["raw/000.csv", "--output-dir", "link"], "link/000.csv is an input"),
        (["raw/001.csv", "raw/000.csv", "--output-dir", "hard"], "hard/000.csv is an input"),
        (["-", "--output-dir", "out"], "stdin"),
        (["--output-dir", "out"], "stdin"),
        (["raw/000.csv", "--output-dir", "out", "-o", "x.csv"], "exclude each other"),
        (["raw/000.csv", "--output-dir", "out", "--state", "s"], "--chain"),
        (["raw/000.csv", "--output-dir", "out", "--chain", "--state", "out/000.csv"], "is also an output"),
        (["raw/000.csv", "--chain"], "--chain needs --output-dir"),
        (["raw/000.csv", "--output-dir", "out", "-j", "-1"], "-1"),
    ],
)
def test_what_is_refused_before_any_work(shop: Workshop, arguments: list[str], said: str) -> None:
    make_inputs(shop, 2)
    shop.write("other/000.csv", "v\n1\n")
    (shop.folder / "link").symlink_to("raw")
    (shop.folder / "hard").mkdir()
    (shop.folder / "hard/000.csv").hardlink_to(shop.folder / "raw/000.csv")
    before = shop.names()
    assert said in shop.run(*arguments, *ALPHA, code=2).err
    assert shop.names() == before


def test_a_folder_that_can_not_be_made(shop: Workshop) -> None:
    names = make_inputs(shop, 1)
    shop.write("file", "x")
    assert "not a folder" in shop.run(*names, *ALPHA, "--output-dir", "file", code=1).err
    assert "file" in shop.run(*names, *ALPHA, "--output-dir", "file/deeper", code=1).err


@pytest.mark.parametrize(
    ("source", "target", "name"),
    [
        ("a/b.csv", None, "b.csv"),
        ("b.csv.gz", None, "b.csv.gz"),
        ("b.log", None, "b.log"),
        ("b.csv", "csv", "b.csv"),
        ("b.csv.gz", "tsv", "b.tsv.gz"),
        ("b.csv.GZ", "parquet", "b.parquet"),
        ("b.parquet", "csv", "b.csv"),
        ("b.pq", "parquet", "b.pq"),
        ("b.2024.log", "parquet", "b.2024.log.parquet"),
        ("b", "csv", "b.csv"),
        (".csv", "tsv", ".csv.tsv"),
    ],
)
def test_names_of_outputs(source: str, target: str | None, name: str) -> None:
    assert target_name(source, target) == name


def test_formats_and_compression_go_by_the_name(shop: Workshop) -> None:
    shop.write("raw/a.csv.gz", gzip.compress(b"v\n1\n2\n"))
    shop.write("raw/b.tsv", "v\tw\n1\tx\n")
    shop.run("raw/a.csv.gz", "raw/b.tsv", *ALPHA, "--output-dir", "out")
    assert gzip.decompress(shop.read("out/a.csv.gz")) == b"v,v_ema\n1,1.0\n2,1.1\n"
    assert shop.read("out/b.tsv") == b"v\tw\tv_ema\n1\tx\t1.0\n"
    shop.run("raw/a.csv.gz", "raw/b.tsv", *ALPHA, "--output-dir", "out", "--to", "parquet")
    assert sorted(contents(shop.folder / "out")) == ["a.csv.gz", "a.parquet", "b.parquet", "b.tsv"]
    shop.run("out/a.parquet", *ALPHA, "-c", "v", "--output-dir", "back", "--to", "csv", "--only")
    assert shop.read("back/a.csv") == b"v_ema\n1.0\n1.1\n"


def test_what_each_input_has_to_say_names_it(shop: Workshop) -> None:
    names = make_inputs(shop, 2)
    shop.write("raw/empty.csv", "")
    result = shop.run(*names, "raw/empty.csv", "--alpha", "auto", "-c", "v", "--output-dir", "out")
    assert "raw/empty.csv: empty, passed on as it is\n" in result.err
    assert "raw/000.csv, column v: --alpha 0." in result.err


def test_python_callers_get_outcomes_and_no_prose(shop: Workshop) -> None:
    names = [str(shop.folder / name) for name in make_inputs(shop, 2)]
    shop.write("raw/bad.csv", "t,v,key\n1,x,a\n")
    seen: list[Outcome] = []
    job = Job(make_average({"alpha": ["0.1"]}), (*names, str(shop.folder / "raw/bad.csv")), columns=("v",))
    tally = run_folder(job, str(shop.folder / "out"), report=seen.append)
    assert (tally.written, tally.failed, tally.rows, tally.exit_code) == (2, 1, 100, 1)
    assert [outcome.problem is None for outcome in seen] == [True, True, False]
    with pytest.raises(OptionError):
        plan(Job(job.average), "out")


def test_thousands_of_small_files_take_one_process_start(shop: Workshop) -> None:
    """Measured at 2 to 3 ms a file on two cores; the bound leaves room for a machine that is busy."""
    names = make_inputs(shop, 310, rows=200)

    def spent(names: list[str], out: str) -> float:
        """Processor time of a batch, its processes' starts included."""
        begin = os.times()
        shop.run(*names, *ALPHA, "-c", "v", "--output-dir", out, "-j", "2")
        end = os.times()
        return end.children_user + end.children_system - begin.children_user - begin.children_system

    assert (spent(names, "out") - spent(names[:10], "few")) / 300 < 0.012
    assert len(contents(shop.folder / "out")) == 310


def test_workers_that_are_started_afresh(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where forking is not safe: on other systems, and where threads are at work."""
    names = [str(shop.folder / name) for name in make_inputs(shop, 4)]
    monkeypatch.setattr("threading.active_count", lambda: 2)
    job = Job(make_average({"alpha": ["0.1"]}), (*names, "none.csv"), columns=("v",))
    tally = run_folder(job, str(shop.folder / "out"), jobs=2)
    assert (tally.written, tally.failed) == (4, 1)
    shop.run(*names, *ALPHA, "-c", "v", "--output-dir", "one")
    assert contents(shop.folder / "out") == contents(shop.folder / "one")


def test_an_empty_part_of_a_chain_passes_and_breaks_nothing(shop: Workshop) -> None:
    for name, text in (("a.csv", "v\n1\n2\n"), ("b.csv", ""), ("c.csv", "v\n3\n")):
        shop.write(name, text)
    for _ in range(2):  # the second time from a state
        shop.run(
            "a.csv", "b.csv", "c.csv", "--alpha", "0.5", "--output-dir", "out", "--chain", "--state", "s"
        )
    assert shop.read("out/b.csv") == b""
    assert shop.read("out/c.csv") == b"v,v_ema\n3,2.40625\n"
