"""Folders and patterns as inputs: the files in them, in the order in which people count."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ema_cli.errors import FileTrouble
from ema_cli.io.names import expanded, natural_key
from tests.conftest import Workshop


@given(st.lists(st.text("a9-01٣²", max_size=6), unique=True), st.randoms(use_true_random=False))
def test_natural_order_is_an_order(names: list[str], chance: random.Random) -> None:
    """Of any names, digits of other scripts among them, and the same from whatever order they come in."""
    shuffled = chance.sample(names, len(names))
    assert sorted(shuffled, key=natural_key) == sorted(names, key=natural_key)


def test_natural_order() -> None:
    assert sorted(["day-10", "day-9", "a10b2", "a10b10", "day"], key=natural_key) == [
        "a10b2", "a10b10", "day", "day-9", "day-10",
    ]  # fmt: skip


def test_a_folder_stands_for_its_files(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop.folder)
    for name in ("d/day-10.csv", "d/day-9.csv", "d/_temporary.csv", "d/.hidden", "d/e/day-1.csv", "f.csv"):
        shop.write(name, "x\n1\n")
    assert expanded(["d", "f.csv", "-"]) == ("d/day-9.csv", "d/day-10.csv", "d/e/day-1.csv", "f.csv", "-")
    assert expanded(["d/*"]) == ("d/day-9.csv", "d/day-10.csv", "d/e/day-1.csv")
    assert expanded(["d/day-?.csv"]) == ("d/day-9.csv",)
    assert expanded(["d/_*"]) == ("d/_temporary.csv",)
    assert expanded(["**/day-1*.csv"]) == ("d/day-10.csv", "d/e/day-1.csv")
    assert expanded(["d"], exclude=["d/day-10.csv", None]) == ("d/day-9.csv", "d/e/day-1.csv")
    assert expanded(["s3://bucket/*.csv", "none.csv"]) == ("s3://bucket/*.csv", "none.csv")
    shop.write("a[1].csv", "x\n1\n")
    assert expanded(["a[1].csv"]) == ("a[1].csv",)  # a file that is there
    for name in ("*.parquet", "g"):
        (shop.folder / "g").mkdir(exist_ok=True)
        with pytest.raises(FileTrouble, match=f"{name}: ".replace("*", r"\*")):
            expanded([name])


def test_parts_of_a_folder_are_one_series_and_the_output_is_no_part(shop: Workshop) -> None:
    for day, rows in ((9, "1\n3\n"), (10, "5\n")):
        shop.write(f"d/day-{day}.csv", "x\n" + rows)
    for _ in range(2):  # the second time the output lies there
        shop.run("d", "--alpha", "0.5", "-o", "d/all.csv")
        assert shop.read("d/all.csv") == b"x,x_ema\n1,1.0\n3,2.0\n5,3.5\n"
    done = shop.run("d/day-*.csv", "--alpha", "0.5", "--output-dir", "out")
    assert "2 of 2 files" in done.err
