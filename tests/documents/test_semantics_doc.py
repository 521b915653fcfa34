"""docs/semantics.md: every worked example is what `smooth` gives, and every set is what it is said to be."""

from __future__ import annotations

import math
import re
import shlex
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ema_cli import smooth
from ema_cli.like import SETS, TIMED, describe
from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "semantics.md").read_text()
FLAGS = {
    "adjust",
    "fill",
    "std",
    "residual",
    "var",
    "sum",
    "cov",
    "corr",
    "double",
    "triple",
    "diff",
    "centered",
}
NUMBERS = {"bands", "min_periods"}
EXAMPLES = re.findall(r"^`(--[^`]+)`\n\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
ROWS = re.findall(r"^\| `(--[^`]+)` \| ([^|]*) \| ([^|]*) \| ([^|]*) \|", TEXT, re.MULTILINE)


def keywords(options: str) -> dict[str, Any]:
    """The command's options as Python's, --time and --by as the names of columns."""
    words, found = iter(shlex.split(options)), {}
    for word in words:
        name = word.removeprefix("--").replace("-", "_")
        if name in FLAGS:
            found[name] = True
        else:
            value = next(words)
            key = {"time": "times"}.get(name, name)
            given = float(value) if name in NUMBERS else value
            found[key] = [*np.atleast_1d(found[key]).tolist(), given] if key in found else given
    return found


def cells(table: str) -> pd.DataFrame:
    lines = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()]
    return pd.DataFrame(lines[2:], columns=lines[0])


def shown(number: float) -> str:
    return "" if math.isnan(number) else f"{round(number, 4) + 0.0:.15g}"


@pytest.mark.parametrize(("options", "table"), EXAMPLES, ids=[options for options, _ in EXAMPLES])
def test_worked_examples(options: str, table: str) -> None:
    written = cells(table)
    given = pd.DataFrame({name: pd.to_numeric(written[name]) for name in ("x", "y", "w") if name in written})
    if "t" in written:
        given["t"] = pd.to_datetime("2024-01-01 " + written["t"])
    if "key" in written:
        given["key"] = written["key"]
    found = smooth(given, **keywords(options))
    found.columns = [name if "_" in name else f"{name}_ema" for name in found.columns]
    assert len(written) == 5
    assert [name for name in written if name not in given] == found.columns.tolist()
    for name in found.columns:
        assert written[name].tolist() == [shown(number) for number in found[name]], name


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_one_missing_five(row: tuple[str, ...]) -> None:
    options = keywords(row[0])
    if "times" in options:
        options["times"] = np.array([0, 60, 120], "datetime64[s]")
    found = smooth([1, None, 5], **options)
    assert [cell.strip() for cell in row[1:]] == [shown(number) for number in found]


def test_everything_is_found() -> None:
    assert len(EXAMPLES) == 18
    assert len(ROWS) == 14


def test_the_sets_are_what_they_are_said_to_be() -> None:
    table = re.findall(
        r"^\| `([a-z][a-z-]*)`( with `--time`)? \| [^|]* \| `?([^|`]*)`? \|$", TEXT, re.MULTILINE
    )
    assert [name for name, timed, _ in table if not timed] == list(SETS)
    assert [name for name, timed, _ in table if timed] == list(TIMED)
    for name, timed, said in table:
        assert said == describe(name, bool(timed)), name


@pytest.mark.skipif(int(pd.__version__.split(".")[0]) < 3, reason="the fault came with pandas 3")
def test_pandas_fault_at_one_half_is_still_there() -> None:
    """The table of reasons names it; when pandas has mended it, this fails and the row goes."""
    given = pd.Series([1, np.nan, 5])
    assert given.ewm(alpha=0.5, adjust=False).mean()[2] == 4.0
    ours = smooth(given, alpha=0.3, missing="decay")[2]
    assert given.ewm(alpha=0.3, adjust=False).mean()[2] == pytest.approx(ours, rel=1e-14)
