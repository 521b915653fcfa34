"""`--plot`: pictures of every kind, what they refuse, and that the data does not notice them."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

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
    record = Record(average, _chosen(), PICTURE)  # type: ignore[arg-type]
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

    return Selection(Projection((0,)), ["x"], [], None, ["x_ema"])


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


@pytest.mark.parametrize("other", ["-o", "--state"])
def test_a_picture_is_no_other_file_of_the_run(shop: Workshop, other: str) -> None:
    need("png")
    done = shop.run(*CO2, "--plot", "./x.png", other, "x.png", code=2)
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
    shop.write("watch.csv", "t,x\n0.5,1\n1.5,2\n2.25,3\n")
    done = shop.run("watch.csv", "--time", "t", "--time-unit", "s", "--halflife", "1s", "--plot", "-")
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
    assert users == {"ema_cli/plotting/picture.py"}


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
