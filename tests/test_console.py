"""What the commands say: nothing that a terminal obeys, suggestions that are meant, help that fits."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import pytest

from ema_cli.extras import EXTRAS, install_hint
from ema_cli.help_groups import MEANINGS
from ema_cli.process import usable_processors
from ema_cli.safe_text import safe_text
from tests.conftest import ROOT, Workshop

EVIL = "a\x1b[31m\x07b\u202ec\x9b2Jd"
SHOWN = r"a\x1b[31m\x07b\u202ec\x9b2Jd"
# What a terminal might obey: control characters but for line breaks, and those that turn the direction round.
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (EVIL, SHOWN),
        ("line\nema-smooth: all is well", r"line\nema-smooth: all is well"),
        ("a list:\n  one\n  two", "a list:\n  one\n  two"),
        ("tab\tand\rreturn", r"tab\tand\rreturn"),
        ("gr\udcfcn.csv", r"gr\xfcn.csv"),
        ("größe → α, 数", "größe → α, 数"),
    ],
)
def test_safe_text(text: str, shown: str) -> None:
    assert safe_text(text) == shown


def evil_table() -> str:
    return f'"{EVIL}",x\n1,2\n2,3\n'


@pytest.mark.parametrize(
    "arguments",
    [
        ["evil.csv", "-c", "nope", "--alpha", "0.1"],  # the list of columns
        ["evil.csv", "--alpha", "auto", "-o", "o.csv"],
        ["evil.csv", "--alpha", "0.1", "-v", "-o", "o.csv"],
        ["evil.csv", "--alpha", "0.1", "--plot", "-", "-o", "o.csv"],
        ["keys.csv", "--alpha", "0.1", "--by", "k", "--plot", "-", "-o", "o.csv"],
        ["keys.csv", "-c", "k", "--alpha", "0.1"],  # a bad cell
        [f"{EVIL}.csv", "--alpha", "0.1", "-v", "-o", "o.csv"],
        [f"none-{EVIL}.csv", "--alpha", "0.1"],
        [f"{EVIL}.csv", "none.csv", "--alpha", "0.1", "--output-dir", "out", "-v"],
        [f"--{EVIL}", "1"],
        ["evil.csv", "--alpha", EVIL],
        ["evil.csv", "--missing", EVIL],
        ["evil.csv", "--alpha", "0.1", "--state", f"{EVIL}.csv"],
    ],
)
def test_nothing_said_is_obeyed_by_a_terminal(shop: Workshop, arguments: list[str]) -> None:
    shop.write("evil.csv", evil_table())
    shop.write(f"{EVIL}.csv", evil_table())
    shop.write("keys.csv", f"k,v\n{EVIL},1\n{EVIL},2\nplain,3\n")
    result = shop.run(*arguments, code=None)
    assert not OBEYED.search(result.err), result.err
    assert r"\x1b" in result.err


def test_nor_by_ema_weights(shop: Workshop) -> None:
    import numpy as np

    np.savez(shop.folder / f"{EVIL}1.npz", **{EVIL: np.ones(2)})
    np.savez(shop.folder / "b.npz", x=np.ones(2))
    base = [sys.executable, "-m", "ema_cli.weights_cli", f"{EVIL}1.npz"]
    for more in (["b.npz", "--decay", "0.5", "-o", "o.npz"], ["--decay", "0.5", "--dry-run"]):
        done = subprocess.run(
            [*base, *more], cwd=shop.folder, env=shop.environment, capture_output=True, check=False
        )
        for text in (done.stdout.decode(), done.stderr.decode()):
            assert not OBEYED.search(text)
        assert b"\\x1b" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--smoothing", "--decay 0.6 --adjust"),
        ("--weight", "--alpha 0.1"),
        ("--window", "--span 20"),
        ("--rma", "--wilder 14"),
        ("--dema", "--double"),
        ("--macd", "--span 12 --span 26 --diff"),
        ("--correlation", "--corr"),
        ("--time-constant", "--tau 5min"),
        ("--groupby", "--by COL"),
        ("--sep", "-d C"),
        ("--alhpa", "--alpha"),
        ("--halflive", "--halflife"),
        ("-a", "--alpha 0.1"),
        ("--uniform", "ema-smooth --help"),
        ("--qwertyuiop", "ema-smooth --help"),
    ],
)
def test_suggestions_by_meaning(shop: Workshop, given: str, meant: str) -> None:
    error = shop.run("x.csv", given, "3", code=2).err
    assert error.startswith(f"ema-smooth: no option {given}\n  try: {meant}")


def test_no_meaning_hides_an_option_of_that_name() -> None:
    """A name that the commands do have needs no word; it would only be dead."""
    from ema_cli.cli import command as smooth
    from ema_cli.weights_cli import command as weights

    both = [
        {text for param in each.params for text in (*param.opts, *param.secondary_opts)}
        for each in (smooth, weights)
    ]
    for names, text in MEANINGS.items():
        for name in names.split():
            assert not all(name in options for options in both), name
        if text.startswith("-"):
            assert any(text.split()[0] in options for options in both), text


@pytest.mark.parametrize("width", [60, 80, 100, 200])
@pytest.mark.parametrize("module", ["ema_cli", "ema_cli.weights_cli"])
def test_help_fits_the_terminal(shop: Workshop, module: str, width: int) -> None:
    environment = shop.environment | {"COLUMNS": str(width)}
    for option in ("-h", "--help"):
        done = subprocess.run(
            [sys.executable, "-m", module, option],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        lines = done.stdout.splitlines()
        assert lines[0].startswith("Usage: ")
        options = lines[: lines.index("Examples:")]
        assert max(map(len, options)) <= min(width, 100)
        assert max(map(len, lines)) <= max(min(width, 100), 80)


def test_a_small_run_loads_nothing_that_it_does_without(shop: Workshop) -> None:
    """Each of these takes as long as a tenth of it."""
    shop.write("in.csv", "day,v\n2024-01-01,1\n2024-01-02,2\n2024-01-03,3\n")
    command = shop.command("in.csv", "-c", "v", "--alpha", "0.1", "--state", "s", "-o", "out.csv")
    done = subprocess.run(
        [command[0], "-X", "importtime", *command[1:]],
        cwd=shop.folder, env=shop.environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "numpy" in loaded
    assert not {"numpy.random", "numpy.ma", "pyarrow.compute", "multiprocessing", "pandas.core"} & loaded


@pytest.mark.parametrize("name", ["o.xlsx", "o.feather2", "o.xlsx.gz", "o.h5"])
def test_a_suffix_of_another_format_is_refused(shop: Workshop, name: str) -> None:
    shop.write("in.csv", "v\n1\n")
    error = shop.run("in.csv", "--alpha", "0.1", "-o", name, code=2).err
    assert "no format goes by ." in error
    assert "--to csv" in error
    assert shop.names() == ["in.csv"]
    shop.run("in.csv", "--alpha", "0.1", "-o", name, "--to", "csv")
    assert shop.names() == ["in.csv", name]


@pytest.mark.parametrize("name", ["o", "o.txt", "o.dat.gz", "o.2024", "o.weird", ".csv", "o.csv.tmp"])
def test_a_suffix_that_promises_nothing_is_text(shop: Workshop, name: str) -> None:
    shop.write("in.weird", "v\n1\n")
    shop.run("in.weird", "--alpha", "0.1", "-o", name)
    assert name in shop.names()


def test_extras_are_those_of_the_package() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {name: list(wanted) for name, wanted in EXTRAS.items()}.items() <= declared.items()


def test_a_hint_names_packages_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert install_hint("plot").startswith("pip install 'matplotlib>=")
    assert install_hint("dask").startswith("pip install 'dask[dataframe]>=")
    monkeypatch.setattr(sys, "prefix", "/home/me/.local/share/pipx/venvs/ema-smooth")
    assert install_hint("weights").startswith("pipx inject ema-smooth 'ml_dtypes>=")


def test_nothing_asks_for_a_name_on_the_index_that_is_nobodys() -> None:
    """Until it is published (RELEASING.md), `pip install ema-smooth` could be anybody's package."""
    pattern = re.compile(r"(pip|pipx|uv|uvx)\b[^\n]*\binstall\b[^\n./]*\bema-smooth\b")
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", *(ROOT / "ema_cli").rglob("*.py")]
    for page in pages:
        assert not pattern.search(page.read_text()), page


def test_jobs_counts_what_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setattr(os, "process_cpu_count", lambda: 3, raising=False)
    assert usable_processors() == 3
    monkeypatch.delattr(os, "process_cpu_count")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5}, raising=False)
    assert usable_processors() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_processors() == 1
