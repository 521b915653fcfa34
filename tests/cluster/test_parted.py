"""The steps of a chain in many places, done here one after another: no cluster, and no Dask."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ema_cli.average import make_average
from ema_cli.cluster.chain import Chosen, choose, finish, load
from ema_cli.cluster.parted import begin, carry, cut_out, digest, measure
from ema_cli.errors import DataError
from ema_cli.io.temporary import remove_abandoned
from ema_cli.job import Job
from ema_cli.keys import KeyTable
from ema_cli.run.batch import plan, run_folder
from tests.conftest import ROOT, Workshop


def in_steps(job: Job, folder: str) -> None:
    """Every part read, digested and written on its own, the state carried past digests alone."""
    parts = plan(job, folder)
    choice = choose(parts[0], None, None)
    assert isinstance(choice, Chosen)
    series = choice.smoothing(job)
    trends, keys = series.trends(), KeyTable()
    position, _ = begin(trends, keys)
    for part in parts:
        loaded = load(part, choice)
        spot = position.advance(measure(series, loaded), loaded.texts)
        summaries = digest(series, loaded, spot)
        finish(part, choice, cut_out(trends, spot), loaded.texts)
        carry(trends, summaries, spot)


@pytest.mark.parametrize(
    "options",
    [
        {"by": ("k",)},
        {"by": ("k", "x"), "adjust": True, "missing": "decay", "fill": True},
        {"std": True, "sum": True},
        {"by": ("k",), "double": True, "triple": True, "sum": True},
    ],
    ids=str,
)
def test_digests_carry_the_state(options: dict[str, Any], shop: Workshop) -> None:
    names = []
    row = 0
    for part, rows in enumerate((900, 0, 1, 7_000, 300)):
        lines = [f"{row + k},{(row + k) ** 2 % 11},{(row + k) * 7 % 13 or ''}" for k in range(rows)]
        names.append(str(shop.write(f"in/{part}.csv", "\n".join(["x,k,y", *lines]) + "\n")))
        row += rows
    by = options.get("by", ())
    average = make_average({"alpha": ("0.1", "0.01")} | {n: v for n, v in options.items() if n != "by"})
    job = Job(average=average, inputs=tuple(names), columns=("y",), by=by)
    one, many = shop.folder / "one", shop.folder / "many"
    run_folder(job, str(one), chain=True)
    many.mkdir()
    in_steps(job, str(many))
    for path in one.iterdir():
        assert path.read_bytes() == (many / path.name).read_bytes(), path.name


def test_a_part_that_begins_too_early(shop: Workshop) -> None:
    names = tuple(str(shop.write(f"{k}.csv", f"t,y\n{9 - k},1\n{9 - k},2\n")) for k in range(2))
    job = Job(make_average({"halflife": "1s"}, timed=True), names, time="t", time_unit="s")
    (shop.folder / "out").mkdir()
    with pytest.raises(DataError, match="backwards"):
        in_steps(job, str(shop.folder / "out"))


def test_what_killed_workers_leave_is_removed(shop: Workshop) -> None:
    long = "x" * 60 + ".csv"
    for name in (
        ".a.csv.0123abcd.part",
        f".{long[:40]}.0123abcd.part",
        ".b.csv.0123abcd.part",
        "a.csv",
        ".part",
    ):
        shop.write(name, "")
    remove_abandoned([str(shop.folder / name) for name in ("a.csv", long, "c.csv")])
    assert shop.names() == [".b.csv.0123abcd.part", ".part", "a.csv"]


def test_without_dask_the_option_says_what_to_install(shop: Workshop) -> None:
    shop.write("a.csv", "x\n1\n")
    code = (
        "import sys; sys.modules['distributed'] = None\n"
        "from ema_cli.cli import main\n"
        "sys.argv = ['ema-smooth', 'a.csv', '--alpha', '0.1', '--output-dir', 'out', '--dask', 'local']\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=shop.folder, env=shop.environment, capture_output=True, check=False
    )
    assert done.returncode == 2
    assert b"pip install 'dask[dataframe]>=" in done.stderr
    assert not (shop.folder / "out").exists()


@pytest.mark.parametrize(
    "options", [["--dask", "local"], ["--dask", "local", "--output-dir", "o", "-j", "2"]]
)
def test_what_does_not_go_with_dask(options: list[str], shop: Workshop) -> None:
    shop.write("a.csv", "x\n1\n")
    assert "local:4" in shop.run("a.csv", "--alpha", "0.1", "--dask", "local", *options, code=2).err


def test_only_the_cluster_imports_dask() -> None:
    for path in (ROOT / "ema_cli").rglob("*.py"):
        lines = path.read_text().splitlines()
        users = [
            line for line in lines if line.lstrip().startswith(("import dask", "from dask", "from distr"))
        ]
        assert not users or path.parent == Path(ROOT, "ema_cli", "cluster"), path
