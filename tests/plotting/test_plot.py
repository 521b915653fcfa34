"""`--plot`: pictures of every kind, what they refuse, and that the data does not notice them."""

from __future__ import annotations

import os
import re
import stat
import struct
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from tests.conftest import ROOT, SAMPLES, Workshop

CO2 = (SAMPLES / "co2.csv", "--span", "52", "--bands", "2", "--residual")
WEATHER = (SAMPLES / "weather.csv", "--by", "location", "--time", "time", "--halflife", "6h", "-c", "temp")
BEGINNINGS = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF", "html": b"<!DOCTYPE html>"}


def need(target: str) -> None:
    """Skip where what draws this kind of file is not here; the terminal and the page need nothing."""
    if target != "-" and not target.endswith("html"):
        pytest.importorskip("matplotlib")


@pytest.mark.parametrize("kind", BEGINNINGS)
def test_the_data_is_the_same_and_so_is_the_picture(shop: Workshop, kind: str) -> None:
    need(kind)
    plain = shop.run(*CO2)
    for name in ("one", "two"):
        drawn = shop.run(*CO2, "--plot", f"{name}.{kind}")
        assert (drawn.out, drawn.err) == (plain.out, "")
    picture = shop.read(f"one.{kind}")
    assert picture.lstrip().startswith(BEGINNINGS[kind])
    assert picture == shop.read(f"two.{kind}")


@pytest.mark.parametrize(
    "options",
    [
        WEATHER,
        (*WEATHER, "--bands", "2", "--std", "--residual"),
        (SAMPLES / "fx_rates.csv", "--alpha", "0.1", "--alpha", "0.5"),
        (
            SAMPLES / "fx_rates.csv",
            "--span",
            "20",
            "--span",
            "60",
            "--cov",
            "--corr",
            "--var",
            "--sum",
            "--diff",
        ),
        (SAMPLES / "training_loss.csv", "--alpha", "auto", "-c", "train_loss"),
        (SAMPLES / "co2.parquet", "--alpha", "0.1"),
    ],
)
def test_stdout_and_a_terminal_picture_keep_apart(shop: Workshop, options: tuple[str, ...]) -> None:
    plain = shop.run(*options)
    drawn = shop.run(*options, "--plot", "-")
    assert drawn.out == plain.out
    assert len(drawn.err) > len(plain.err)


def test_the_picture_does_not_depend_on_how_the_rows_come(shop: Workshop) -> None:
    need("svg")
    data = (SAMPLES / "co2.csv").read_bytes()
    shop.run("--alpha", "0.1", "--plot", "one.svg", stdin=data)
    command = shop.command("--alpha", "0.1", "--plot", "two.svg")
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=shop.folder, env=shop.environment
    )
    assert process.stdin is not None
    for begin in range(0, len(data), 5000):
        process.stdin.write(data[begin : begin + 5000])
        process.stdin.flush()
    process.stdin.close()
    assert process.wait() == 0
    assert shop.read("one.svg") == shop.read("two.svg")


def test_a_spike_among_a_million_rows_is_drawn(shop: Workshop) -> None:
    from ema_cli.average import make_average
    from ema_cli.job import Job, Summary
    from ema_cli.plotting.chart import Look, make_chart
    from ema_cli.plotting.record import PICTURE, Record, recorded

    average = make_average({"alpha": "0.5"}, timed=False)
    record = Record(Job(average), _chosen(), PICTURE)  # type: ignore[arg-type]
    for begin in range(0, 1_000_000, 50_000):
        values = np.zeros((50_000, 1))
        if begin == 350_000:
            values[77] = 99.0
        record.add(_batch(values), values / 2)
    chart = make_chart(Job(average), recorded(record), Summary(), Look())
    line, trend = chart.cells()[0][1][0].panels[0].lines
    assert len(line.x) < 20_000
    assert (line.x[line.y == 99.0], trend.y.max()) == (350_078, 49.5)
    assert shop.folder.is_dir()


def _chosen() -> object:
    from ema_cli.formats.base import Projection
    from ema_cli.run.selection import Selection

    return Selection(Projection((0,)), ["x"], [], ["x_ema"])


def _batch(values: np.ndarray) -> object:
    from ema_cli.formats.base import Batch

    return Batch(len(values), values, None, [], None, None)  # type: ignore[arg-type]


# -- what is refused, before any work


@pytest.mark.parametrize("name", ["trend.gif", "trend", "png", "trend.png.gz"])
def test_an_unknown_kind_is_refused(shop: Workshop, name: str) -> None:
    done = shop.run(*CO2, "--plot", name, code=2)
    assert done.out == b""
    assert ".png, .svg, .pdf, .html" in done.err


@pytest.mark.parametrize("name", ["x.png", "x.svg", "x.pdf"])
def test_a_missing_package_is_named_before_any_work(shop: Workshop, name: str) -> None:
    done = without(shop, *CO2, "--plot", name, "-o", "out.csv")
    assert done.returncode == 2
    assert "pip install matplotlib" in done.stderr
    assert not (shop.folder / "out.csv").exists()


@pytest.mark.parametrize("options", [(), ("--plot", "-"), ("--plot", "x.html")])
def test_the_core_the_terminal_and_the_page_need_no_package(shop: Workshop, options: tuple[str, ...]) -> None:
    done = without(shop, *CO2, *options, "-o", "out.csv")
    assert done.returncode == 0, done.stderr
    assert shop.read("out.csv") == shop.run(*CO2).out


def without(shop: Workshop, *arguments: str | os.PathLike[str]) -> subprocess.CompletedProcess[str]:
    """Run the command where there is no matplotlib to import."""
    code = "import sys; sys.modules.update(dict.fromkeys(['matplotlib', 'PIL'])); import runpy\n"
    code += "sys.argv[0] = 'ema-smooth'; runpy.run_module('ema_cli', run_name='__main__')"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(
        command, cwd=shop.folder, env=shop.environment, capture_output=True, text=True, check=False
    )


def test_pairs_of_columns_are_drawn_after_them(shop: Workshop) -> None:
    pair = (SAMPLES / "fx_rates.csv", "-c", "usd", "-c", "jpy", "--alpha", "0.1", "--cov", "--corr")
    lines = shop.run(*pair, "--plot", "-").err.splitlines()
    at = lines.index("usd and jpy")
    assert lines[at + 1].split() == ["cov"]
    assert lines[at + 7].split() == ["corr"]
    assert lines[at + 8].split()[0] == "1"  # the highest that there is
    wide = [",".join(f"c{k}" for k in range(14))]
    wide += [",".join(str(row * k % 7) for k in range(14)) for row in range(5)]
    shop.write("wide.csv", "\n".join(wide) + "\n")
    done = shop.run("wide.csv", "--alpha", "0.1", "--corr", "--plot", "-")
    assert "the first 12 of 14 columns" in done.err
    assert "the first 12 of 91 pairs" in done.err
    assert len(re.findall("^c0 and c[0-9]+$", done.err, re.MULTILINE)) == 12


@pytest.mark.parametrize("kind", ["png", "svg", "html"])
def test_a_picture_of_pairs_is_the_same_each_time(shop: Workshop, kind: str) -> None:
    need(kind)
    options = (
        SAMPLES / "fx_rates.csv",
        "--x",
        "date",
        "--span",
        "20",
        "--span",
        "60",
        "--cov",
        "--corr",
        "--diff",
    )
    plain = shop.run(*options)
    for name in ("one", "two"):
        assert shop.run(*options, "--plot", f"{name}.{kind}").out == plain.out
    assert shop.read(f"one.{kind}") == shop.read(f"two.{kind}")


def test_a_cluster_draws_nothing_and_says_why(shop: Workshop) -> None:
    done = shop.run(*CO2, "--output-dir", "out", "--dask", "local", "--plot", "x.html", code=2)
    assert "draws rows as they pass, and there they pass elsewhere" in done.err
    assert not (shop.folder / "out").exists()


@pytest.mark.parametrize("other", ["-o", "--state"])
def test_a_picture_is_no_other_file_of_the_run(shop: Workshop, other: str) -> None:
    need("png")
    done = shop.run(*CO2, "--plot", "./x.png", other, "x.png", "--to", "csv", code=2)
    assert "is also the" in done.err


def test_a_picture_is_no_input(shop: Workshop) -> None:
    need("svg")
    shop.write("x.svg", "x\n1\n")
    assert "is also an input" in shop.run("x.svg", "--alpha", "0.1", "--plot", "x.svg", code=2).err
    assert shop.read("x.svg") == b"x\n1\n"


def test_a_folder_that_is_missing_is_named_before_any_work(shop: Workshop) -> None:
    need("png")
    done = shop.run(*CO2, "--plot", "none/x.png", code=1)
    assert done.out == b""
    assert "mkdir -p none" in done.err


# -- old or complete


def test_where_a_row_is_at_fault_the_old_picture_stays(shop: Workshop) -> None:
    need("png")
    shop.write("x.png", b"old")
    shop.write("bad.csv", "x\n1\n2\noops\n")
    shop.run("bad.csv", "--alpha", "0.1", "--plot", "x.png", code=1)
    assert shop.read("x.png") == b"old"
    assert sorted(path.name for path in shop.folder.iterdir()) == ["bad.csv", "x.png"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_picture_that_can_not_be_written_leaves_output_and_state_as_they_were(shop: Workshop) -> None:
    need("png")
    (shop.folder / "x.png").symlink_to("/dev/full")
    done = shop.run(*CO2, "--plot", "x.png", "-o", "out.csv", "--state", "s.ema", code=1)
    assert "x.png" in done.err
    assert not (shop.folder / "out.csv").exists()
    assert not (shop.folder / "s.ema").exists()


def test_a_picture_that_is_replaced_keeps_its_mode(shop: Workshop) -> None:
    need("svg")
    shop.write("x.svg", b"old").chmod(0o640)
    shop.run(*CO2, "--plot", "x.svg")
    assert shop.read("x.svg") != b"old"
    assert stat.S_IMODE((shop.folder / "x.svg").stat().st_mode) == 0o640


@pytest.mark.parametrize("text", ["", "x\n"])
def test_without_rows_there_is_no_picture_and_a_word_about_it(shop: Workshop, text: str) -> None:
    need("png")
    shop.write("empty.csv", text)
    done = shop.run("empty.csv", "--alpha", "0.1", "--plot", "x.png")
    assert "nothing is drawn" in done.err
    assert not (shop.folder / "x.png").exists()


# -- what pictures must bear


def test_twelve_keys_are_drawn_and_it_says_so(shop: Workshop) -> None:
    need("svg")
    rows = "".join(f"k{k},{row * k}\n" for row in range(20) for k in range(30))
    shop.write("keys.csv", "key,x\n" + rows)
    done = shop.run("keys.csv", "--by", "key", "--alpha", "0.3", "--plot", "-")
    assert "the picture shows the first 12 of 30 keys" in done.err
    assert "k11: x" in done.err
    assert "k12: x" not in done.err
    done = shop.run("keys.csv", "--by", "key", "--alpha", "0.3", "--plot", "keys.svg")
    assert "keys.svg shows the first 12 of 30 keys" in done.err


def test_twelve_columns_are_drawn_and_it_says_so(shop: Workshop) -> None:
    need("png")
    shop.write("wide.csv", ",".join(f"c{k}" for k in range(20)) + "\n" + ",".join(["1"] * 20) + "\n")
    done = shop.run("wide.csv", "--alpha", "0.3", "--plot", "wide.png")
    assert "wide.png shows the first 12 of 20 columns" in done.err


# -- the axis, the title, the size


def steps(shop: Workshop) -> None:
    """A log of steps with a gap, that was resumed from step 300 on."""
    rows = [*range(0, 400, 10), *range(300, 1000, 10)]
    shop.write(
        "log.csv",
        "step,when,loss\n"
        + "".join(
            f"{step},2024-01-01T{row // 60:02}:{row % 60:02}:00Z,{1 / (step + 10):.6f}\n"
            for row, step in enumerate(rows)
        ),
    )


@pytest.mark.parametrize("suffix", ["csv", "parquet", "arrow", "jsonl"])
def test_a_step_is_the_axis_and_is_not_smoothed(shop: Workshop, suffix: str) -> None:
    steps(shop)
    if suffix == "jsonl":
        lines = [line.split(",") for line in shop.read("log.csv").decode().splitlines()[1:]]
        rows = (f'{{"step": {step}, "when": "{when}", "loss": {loss}}}\n' for step, when, loss in lines)
        shop.write("log.jsonl", "".join(rows))
    elif suffix != "csv":
        table = pyarrow.csv.read_csv(shop.folder / "log.csv")
        write = pq.write_table if suffix == "parquet" else feather.write_feather
        write(table, str(shop.folder / f"log.{suffix}"))
    done = shop.run(f"log.{suffix}", "--alpha", "0.2", "--x", "step", "--plot", "-", "--to", "csv")
    assert done.out.splitlines()[0].endswith(b"loss,loss_ema")
    assert re.search(r"\n +0 +step +990\n", done.err)
    done = shop.run(
        f"log.{suffix}", "-c", "loss", "--alpha", "0.2", "--x", "when", "--plot", "-", "--to", "csv"
    )
    assert re.search(r"2024-01-01 00:00 +when \(UTC\) +2024-01-01 01:49\n", done.err)


def test_a_step_that_goes_back_is_drawn_there_and_a_spike_in_it_is_kept() -> None:
    from ema_cli.plotting.record import PICTURE, RowPlaces, Track
    from ema_cli.plotting.reduce import Reducer

    track = Track("", {"x": Reducer(1, PICTURE.rows // 4, 2)})
    count = 300_000
    step = np.concatenate([np.arange(count), np.arange(count // 2, count)]).astype(float)
    values = np.zeros((len(step), 1, 1))
    values[count + 1000] = 7.0
    for begin in range(0, len(step), 50_000):
        piece = slice(begin, begin + 50_000)
        track.add(RowPlaces(None, step[piece]), [values[piece, 0]])
    reduced = track.reducers["x"].result()
    assert len(reduced.x) < 20_000
    (at,) = np.flatnonzero(reduced.values[:, 0] == 7.0)
    assert reduced.carried[at].tolist() == [count // 2 + 1000, count + 1001]
    assert np.count_nonzero(np.diff(reduced.carried[:, 0]) < 0) == 1


def test_rows_without_a_step_are_counted_and_a_column_of_words_is_refused(shop: Workshop) -> None:
    shop.write("x.csv", "step,word,y\n1,a,1\n,b,2\nthree,c,3\n4,d,4\n")
    done = shop.run("x.csv", "-c", "y", "--alpha", "0.5", "--x", "step", "--plot", "-")
    assert "the picture shows all rows but 2 that have no step" in done.err
    done = shop.run("x.csv", "-c", "y", "--alpha", "0.5", "--x", "word", "--plot", "-", code=1)
    assert "'a' is neither a number nor a time" in done.err
    assert "line 2" in done.err
    assert "no column 'stop'" in shop.run("x.csv", "--alpha", "0.5", "--x", "stop", "--plot", "-", code=2).err


def test_title_and_size_are_as_asked_for(shop: Workshop) -> None:
    need("png")
    shop.run(*CO2, "--plot", "x.png", "--title", "mine", "--size", "1200x500")
    assert struct.unpack(">II", shop.read("x.png")[16:24]) == (1200, 500)
    shop.run(*CO2, "--plot", "x.png", "--size", "490x246")  # which are no whole pixels once they are inches
    assert struct.unpack(">II", shop.read("x.png")[16:24]) == (490, 246)
    done = shop.run(*CO2, "--plot", "-", "--title", "Carbon dioxide", "--size", "60x20")
    lines = done.err.splitlines()
    assert lines[0] == "Carbon dioxide"
    assert max(map(len, lines)) <= 60
    shop.run(*CO2, "--plot", "x.html", "--title", "mine", "--size", "800x300")
    assert b"<title>mine</title>" in shop.read("x.html")


@pytest.mark.parametrize("size", ["big", "0x0", "5x5", "100", "99999x99999"])
def test_what_is_no_size_is_refused_with_one_that_is(shop: Workshop, size: str) -> None:
    done = shop.run(*CO2, "--plot", "-", "--size", size, code=2)
    assert "--size 1600x900" in done.err
    assert done.out == b""


@pytest.mark.parametrize("option", [("--title", "a"), ("--size", "100x100"), ("--log",), ("--relative",)])
def test_an_option_of_pictures_without_a_picture_is_refused(shop: Workshop, option: tuple[str, ...]) -> None:
    assert "is for a picture" in shop.run(*CO2, *option, code=2).err


@pytest.mark.parametrize("target", ["x.png", "x.svg", "x.html", "-"])
@pytest.mark.parametrize("values", ["1\n10\n\n100\n0\n-5\n1000", "-1\n-2", "0\n0", "1e-300\n1e300", "5"])
def test_a_logarithmic_axis_bears_what_it_can_not_show(shop: Workshop, target: str, values: str) -> None:
    need(target)
    shop.write("x.csv", f"x\n{values}\n")
    shop.run("x.csv", "--alpha", "0.5", "--log", "--residual", "--bands", "1", "--plot", target)


def test_on_a_logarithmic_axis_equal_factors_are_equally_high(shop: Workshop) -> None:
    shop.write("x.csv", "x\n" + "".join(f"{10 ** (k / 10)}\n" for k in range(61)))
    lines = shop.run("x.csv", "--alpha", "1", "--log", "--plot", "-", "--size", "80x30").err.splitlines()
    plot = [line.split("│")[-1].split("┤")[-1] for line in lines if "│" in line or "┤" in line]
    starts = [len(line) - len(line.lstrip()) for line in plot]
    steps_between = -np.diff(starts)
    assert steps_between.min() >= 1
    assert steps_between.max() - steps_between.min() <= 2


# -- several runs


def make_runs(shop: Workshop) -> list[str]:
    for k, name in enumerate(("a", "b", "c")):
        rows = "".join(f"{10 * row},{(k + 1) * row}\n" for row in range(50 + 10 * k))
        shop.write(f"{name}.csv", "step,y\n" + rows)
    return ["a.csv", "b.csv", "c.csv"]


@pytest.mark.parametrize("target", ["x.png", "x.svg", "x.pdf", "x.html", "-"])
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_runs_are_drawn_in_one_picture_and_their_outputs_are_as_ever(
    shop: Workshop, target: str, jobs: str
) -> None:
    need(target)
    files = make_runs(shop)
    options = ("--decay", "0.9", "--x", "step", "--output-dir", "out", "-j", jobs)
    shop.run(*files, *options)
    plain = [shop.read(f"out/{name}") for name in files]
    done = shop.run(*files, *options, "--plot", target)
    assert [shop.read(f"out/{name}") for name in files] == plain
    if target == "-":
        assert "* a  + b  x c" in done.err
        assert re.search(r"0 +step +690", done.err)
    else:
        assert (shop.folder / target).stat().st_size > 5000


def test_by_file_the_files_are_runs_of_one_output(shop: Workshop) -> None:
    if b"--by-file" not in shop.run("--help").out:
        pytest.skip("--by-file is not here yet")
    files = make_runs(shop)
    options = ("--by-file", "--decay", "0.9", "--x", "step")
    plain = shop.run(*files, *options)
    done = shop.run(*files, *options, "--plot", "-")
    assert done.out == plain.out
    assert "* a  + b  x c" in done.err
    assert done.err.startswith("3 runs, decay 0.9")
    assert re.search(r"0 +step +690", done.err)
    shop.write("one.csv", "key,y\n" + "k,1\nl,2\n" * 5)
    shop.write("two.csv", "key,y\n" + "k,1\n" * 5)
    done = shop.run("one.csv", "two.csv", "--by-file", "--by", "key", "--decay", "0.9", "--plot", "-")
    assert "* one: k  + one: l  x two: k" in done.err


def test_relative_begins_every_run_at_nought(shop: Workshop) -> None:
    for name, begin in (("a", 1000), ("b", 5000)):
        shop.write(f"{name}.csv", "step,y\n" + "".join(f"{begin + row},{row}\n" for row in range(90)))
    options = ("a.csv", "b.csv", "--decay", "0.9", "--x", "step", "--output-dir", "out", "--plot", "-")
    assert re.search(r"1000 +step +5089", shop.run(*options).err)
    assert re.search(r"\n +0 +step since the start +89\n", shop.run(*options, "--relative").err)
    for name, day in (("a", 1), ("b", 20)):
        rows = "".join(f"2024-01-{day:02}T{hour:02}:00:00Z,{hour}\n" for hour in range(24))
        shop.write(f"{name}.csv", "t,y\n" + rows)
    options = ("a.csv", "b.csv", "--time", "t", "--halflife", "2h", "--output-dir", "out", "--plot", "-")
    assert re.search(r"\n +0 +t since the start \(h\) +23\n", shop.run(*options, "--relative").err)


def test_parts_of_a_chain_are_one_series(shop: Workshop) -> None:
    files = make_runs(shop)
    done = shop.run(*files, "-c", "y", "--alpha", "0.5", "--chain", "--output-dir", "out", "--plot", "-")
    assert re.search(r"1 +row +180\n", done.err)


def test_a_bad_run_is_said_and_the_others_are_drawn(shop: Workshop) -> None:
    files = make_runs(shop)
    shop.write("bad.csv", "step,y\n0,1\n1,oops\n")
    options = ("-c", "y", "--alpha", "0.5", "--output-dir", "out", "--plot", "-")
    done = shop.run(*files, "bad.csv", *options, code=1)
    assert "not a number" in done.err
    assert "* a  + b  x c" in done.err


def test_runs_are_called_by_what_tells_them_apart() -> None:
    from ema_cli.plotting.record import run_names

    assert run_names(["runs/a/log.csv", "runs/b/log.csv"]) == ["a", "b"]
    assert run_names(["x/lr-0.1.csv", "x/lr-0.01.csv.gz"]) == ["lr-0.1", "lr-0.01"]
    assert run_names(["a.csv", "a.tsv"]) == ["a.csv", "a.tsv"]
    assert run_names(["deep/down/loss.parquet"]) == ["loss"]
    assert run_names(["lr-0.1", "lr-0.3"]) == ["lr-0.1", "lr-0.3"]


# -- names

HOSTILE = "</text><script>alert(1)</script>\x1b[31m\x07\u202e$\\frac{1}{2}$ &amp; \"'"


@pytest.mark.parametrize("target", ["x.svg", "x.pdf", "x.png", "-"])
def test_names_steer_nothing_and_are_text(shop: Workshop, target: str) -> None:
    need(target)
    name = HOSTILE.replace('"', '""')
    shop.write("odd.csv", f'key,"{name}"\n' + "".join(f'"{name}",{row}\n' for row in range(9)))
    options = ("--alpha", "0.5", "--residual", "--title", HOSTILE.replace("\x00", ""), "--plot", target)
    for by in ((), ("--by", "key")):
        done = shop.run("odd.csv", "-c", "2", *by, *options)
        assert not re.search("[\x07\x1b\u202e]", done.err)
    if target == "-":
        assert "\\x1b[31m\\x07\\u202e" in done.err
    elif target == "x.svg":
        tree = ElementTree.fromstring(shop.read("x.svg"))
        tags = {element.tag.rpartition("}")[2] for element in tree.iter()}
        assert not tags & {"script", "a", "image", "foreignObject", "iframe"}


ODD = {
    "one row": "x\n1\n",
    "no value": "x,y\n1,\n,\n",
    "the largest": "x\n8e307\n-8e307\n8e307\n",
    "the smallest": "x\n5e-324\n1e-300\n",
    "constant": "x\n7\n7\n7\n",
    "marks": '"$a$ $b","_y","<b>&</b></script>"\n1,2,3\n3,2,1\n',
    "letters": "温度,Größe\n1,2\n2,1\n",
    "isolated": "x\n1\n2\n\n5\n\n\n3\n4\n",
}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
@pytest.mark.parametrize("target", ["x.png", "x.html", "-"])
def test_odd_tables_are_drawn(shop: Workshop, text: str, target: str) -> None:
    need(target)
    shop.write("odd.csv", text)
    done = shop.run("odd.csv", "--alpha", "0.5", "--residual", "--bands", "1", "--plot", target)
    assert target == "-" or done.err == ""
    assert target == "-" or (shop.folder / target).stat().st_size > 2000


TIMES = {
    "nanoseconds apart": ("2024-01-01T00:00:00.000000001Z", "2024-01-01T00:00:00.000000009Z"),
    "at the ends of what there is": ("1677-09-22", "2262-04-11"),
    "all at once": ("2024-01-01", "2024-01-01"),
    "hours": ("2024-01-01T01:00:00+02:00", "2024-01-01T09:00:00+02:00"),
}


@pytest.mark.parametrize("times", TIMES.values(), ids=TIMES)
@pytest.mark.parametrize("target", ["x.png", "x.html", "-"])
def test_odd_times_are_drawn(shop: Workshop, times: tuple[str, str], target: str) -> None:
    need(target)
    shop.write("odd.csv", f"t,x\n{times[0]},1\n{times[1]},2\n")
    shop.run("odd.csv", "--time", "t", "--halflife", "1h", "--plot", target)


def test_numbers_of_a_stopwatch_are_no_dates(shop: Workshop) -> None:
    shop.write("make_observer.csv", "t,x\n0.5,1\n1.5,2\n2.25,3\n")
    done = shop.run("make_observer.csv", "--time", "t", "--time-unit", "s", "--halflife", "1s", "--plot", "-")
    assert re.search(r"0\.5 +t \(s\) +2\.25", done.err)


def test_a_picture_is_as_wide_as_the_terminal_and_no_wider(shop: Workshop) -> None:
    done = shop.run(*CO2, "--plot", "-")  # the environment says COLUMNS=100
    widths = [len(line) for line in done.err.splitlines()]
    assert 95 <= max(widths) <= 100
    assert "\x1b" not in done.err


def test_on_a_terminal_it_has_colour_unless_that_is_not_wanted(shop: Workshop) -> None:
    from tests.run.test_progress import on_terminal

    for extra, colour in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
        environment = {**shop.environment, "TERM": "xterm", **extra}
        code, seen = on_terminal(shop.command(*CO2, "--plot", "-"), shop.folder, environment)
        assert code == 0
        assert ("\x1b[34m" in seen) is colour


def test_pictures_leave_nothing_of_matplotlib_to_the_core() -> None:
    """No module but those that draw imports what the core does without."""
    users = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "ema_cli").rglob("*.py")
        if re.search(r"^\s*(import|from) matplotlib", path.read_text(), re.MULTILINE)
    }
    assert users == {
        "ema_cli/plotting/picture.py",
        "ema_cli/parameters/weights_plot.py",
        "ema_cli/plotting/notebook.py",
    }


def test_long_names_are_shortened_in_the_middle_and_fit(shop: Workshop) -> None:
    shop.write("long.csv", "key," + "y" * 300 + "\n" + "k" * 200 + ",1\n" + "k" * 200 + ",2\n")
    done = shop.run("long.csv", "--by", "key", "--span", "5", "--span", "7", "--plot", "-")
    assert max(map(len, done.err.splitlines())) <= 100
    assert "y_ema_5\n" in done.err
    assert "y_ema_7\n" in done.err


def test_a_home_that_can_not_be_written_is_no_matter(shop: Workshop) -> None:
    need("png")
    shop.write("file", "")
    nowhere = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"), str(shop.folder / "file" / "x"))
    done = subprocess.run(
        shop.command(*CO2, "--plot", "x.png"),
        cwd=shop.folder,
        env=shop.environment | nowhere | {"TMPDIR": str(shop.folder)},
        capture_output=True,
        check=True,
    )
    assert done.stderr == b""
    assert sorted(path.name for path in shop.folder.iterdir()) == ["file", "x.png"]
