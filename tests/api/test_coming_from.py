"""docs/python.md, "Coming from pandas or polars": each line of its table gives the same numbers."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from ema_cli import smooth
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "python.md").read_text().partition("## Coming from")[2]
LINES = [(theirs, own) for theirs, own in re.findall(r"^\| `([^`]+)` \| `([^`]+)`", PAGE, re.MULTILINE)]


@pytest.mark.parametrize(("theirs", "own"), LINES)
def test_the_same_numbers(theirs: str, own: str) -> None:
    rng = np.random.default_rng(7)
    seconds = rng.integers(1, 9000, 40).cumsum()
    x, hours = rng.normal(size=40), pd.Timestamp("2024-01-01") + pd.to_timedelta(seconds, "s")
    frame = pl.DataFrame({"x": x})
    names: dict[str, Any] = {"smooth": smooth, "pl": pl, "frame": frame, "lazy": frame.lazy()}
    names |= {"s": pd.Series(x), "t": pd.Series(hours), "df": pd.DataFrame({"k": np.arange(40) % 3, "x": x})}
    if "ewm_mean_by" in theirs:
        names |= {"s": frame["x"], "t": pl.Series(hours.to_numpy())}
    if theirs.startswith("lazy"):
        theirs = "lazy.select(pl.col('x').ewm_mean(alpha=0.1, adjust=False))"
    wanted, found = eval(theirs, names), eval(own, names)
    if isinstance(wanted, pl.Expr):
        wanted = frame.select(wanted)
    if isinstance(wanted, pl.LazyFrame):
        wanted, found = wanted.collect(), found.collect()
    if "groupby" in theirs:
        wanted = wanted.droplevel(0).sort_index()[["x"]]
    np.testing.assert_allclose(np.asarray(found).ravel(), np.asarray(wanted).ravel(), rtol=1e-12)
    assert type(found) is type(wanted)


def test_expressions_of_polars() -> None:
    frame = pl.DataFrame({"x": [1.0, 5.0]})
    found = frame.select(pl.col("x").map_batches(lambda series: smooth(series, alpha=0.5)))
    assert found["x"].to_list() == [1.0, 3.0]


def test_all_lines_are_there() -> None:
    assert len(LINES) == 6
