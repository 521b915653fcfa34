"""`ema_cli.plot`: every kind of frame in, the command's numbers in the page, a figure or a file."""

from __future__ import annotations

import json
import re
import zlib
from base64 import b64decode
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import ema_cli
from ema_cli import smooth

DAYS = pd.date_range("2024-01-01", periods=60)
VALUES = np.random.default_rng(2).normal(size=60).cumsum()


def frame() -> pd.DataFrame:
    return pd.DataFrame({"a": VALUES, "b": -VALUES, "shop": ["x", "y"] * 30}, index=DAYS)


def data_of(plot: ema_cli.plotting.notebook.Plot) -> dict[str, Any]:
    """What the page in the cell holds."""
    page = unescape(re.search(r'srcdoc="([^"]*)"', plot._repr_html_()).group(1))  # type: ignore[union-attr]
    data: dict[str, Any] = json.loads(page.split('id="data">')[1].split("</script>")[0])
    return data


def array(data: dict[str, Any], index: int) -> np.ndarray:
    """An array of the page, unpacked as the page does."""
    planes = np.frombuffer(zlib.decompress(b64decode(data["arrays"][index])), np.uint8)
    return planes.reshape(8, -1).T.copy().view("<f8")[:, 0]


def trend(plot: ema_cli.plotting.notebook.Plot, column: int = 0, series: int = 0) -> np.ndarray:
    data = data_of(plot)
    return array(data, data["columns"][column]["traces"][series]["series"][1])


@pytest.mark.parametrize(
    "data",
    [
        frame()[["a", "shop"]],
        frame()["a"],
        pl.from_pandas(frame()[["a", "shop"]]),
        pl.Series("a", VALUES),
        pa.table({"a": VALUES, "text": ["x"] * 60}),
        {"a": VALUES.tolist()},
        VALUES,
        VALUES.reshape(60, 1),
    ],
    ids=["pandas", "series", "polars", "polars series", "arrow", "mapping", "array", "matrix"],
)
def test_every_kind_of_data_gives_the_trends_of_smooth(data: Any) -> None:
    plot = ema_cli.plot(data, alpha=0.3, adjust=True)
    assert np.array_equal(trend(plot), smooth(VALUES, alpha=0.3, adjust=True))
    assert len(data_of(plot)["columns"]) == 1


def test_an_index_of_dates_is_the_axis_and_keys_and_times_are_names_or_columns() -> None:
    data = data_of(ema_cli.plot(frame(), span=5))
    assert data["axis"] == {"label": "index", "kind": "dates", "days": True}
    assert [column["name"] for column in data["columns"]] == ["a", "b"]
    data = data_of(ema_cli.plot(frame(), span=5, by="shop", x=np.arange(60)))
    assert (data["names"], data["axis"]["kind"]) == (["x", "y"], "numbers")
    named = frame().rename_axis("day")
    for times in ("day", DAYS):
        plot = ema_cli.plot(named, halflife="3d", times=times)
        assert np.array_equal(trend(plot), smooth(VALUES, halflife="3d", times=DAYS))


def test_it_says_what_it_is_in_a_line() -> None:
    assert repr(ema_cli.plot(frame(), span=5, by="shop")) == "<Plot of a, b, 2 keys: span 5>"


@pytest.mark.parametrize("suffix", [".html", ".png", ".svg", ".pdf"])
def test_it_is_saved_as_its_suffix_says(tmp_path: Path, suffix: str) -> None:
    if suffix != ".html":
        pytest.importorskip("matplotlib")
    ema_cli.plot(frame(), span=5, title="two", log=True).save(tmp_path / f"x{suffix}")
    assert (tmp_path / f"x{suffix}").stat().st_size > 2000


def test_the_figure_is_matplotlibs() -> None:
    pytest.importorskip("matplotlib")
    figure = ema_cli.plot(frame(), span=5, size=(1200, 600), title="mine").figure()
    assert figure.get_size_inches().tolist() == [10, 5]
    assert figure.get_suptitle() == "mine"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "no weight given"),
        ({"alpha": 2}, "alpha=2"),
        ({"alpha": 0.5, "x": "c"}, "there are: 'a', 'b', 'shop', 'index'"),
        ({"alpha": 0.5, "by": [1, 2]}, "by has 2 rows, the data has 60"),
        ({"halflife": "1d", "times": DAYS[::-1]}, "the time goes backwards"),
    ],
)
def test_what_is_wrong_is_said_in_pythons_words(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        ema_cli.plot(frame(), **options)
    assert "--" not in str(caught.value)
    assert "/" not in str(caught.value)


@pytest.mark.parametrize("data", [pd.DataFrame({"a": ["x"]}), pd.DataFrame({"a": []}), np.zeros((2, 2, 2))])
def test_nothing_to_draw_is_an_error(data: Any) -> None:
    with pytest.raises(ValueError, match=r"no column|no rows|dimensions"):
        ema_cli.plot(data, alpha=0.5)


def test_the_page_in_a_cell_is_shut_in() -> None:
    cell = ema_cli.plot(pd.DataFrame({'"><script>window.x=1</script>': VALUES}), alpha=0.5)._repr_html_()
    assert cell.startswith('<iframe srcdoc="')
    assert 'sandbox="allow-scripts allow-downloads"' in cell
    assert "<script" not in cell
