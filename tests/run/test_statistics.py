"""Sums, pairs, weights of rows, averages of averages, both sides: the same bytes however the input comes."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from ema_cli import Smoother, smooth
from ema_cli.like import FAMILY, SETS
from tests.conftest import Workshop

ROWS = 3_000
TIMED = ("--time", "t", "--time-unit", "s")
OPTIONS = {
    "sums and pairs": ("--alpha", "0.1", "--adjust", "--sum", "--var", "--cov", "--corr"),
    "weights": ("--alpha", "0.1", "--alpha", "0.4", "--weights", "w", "--std", "--corr"),
    "weights by key": ("--span", "9", "--by", "key", "--weights", "w", "--sum", "--fill"),
    "averages of averages": ("--span", "9", "--init", "sma", "--double", "--triple", "--by", "key"),
    "a difference": ("--span", "5", "--span", "20", "--diff", "--missing", "decay"),
    "by time": (
        "--time",
        "t",
        "--time-unit",
        "s",
        "--tau",
        "1min",
        "--corr",
        "--sum",
        "--double",
        "--weights",
        "w",
    ),
}
BOTH_SIDES = {
    "rows": ("--alpha", "0.1", "--std"),
    "gaps and weights": ("--alpha", "0.1", "--missing", "decay", "--weights", "w", "--cov"),
    "keys by time": (*TIMED, "--halflife", "1min", "--by", "key", "--residual"),
}


def table(seed: int = 3) -> list[str]:
    rng = np.random.default_rng(seed)
    t = np.cumsum(rng.choice([0, 1, 5, 400], ROWS, p=[0.1, 0.5, 0.39, 0.01]))
    x, y = np.cumsum(rng.standard_normal((2, ROWS)), axis=1)
    lines = []
    for k in range(ROWS):
        cells = ["" if rng.random() < 0.1 else repr(round(float(value[k]), 6)) for value in (x, y)]
        lines.append(f"{t[k]},{'pqr'[rng.integers(3)]},{','.join(cells)},{rng.integers(5)}\n")
    return lines


HEADER = "t,key,x,y,w\n"
COLUMNS = ("-c", "x", "-c", "y")


@pytest.mark.parametrize(
    "options", [*OPTIONS.values(), *((*more, "--centered") for more in BOTH_SIDES.values())]
)
def test_file_pipe_and_parquet(options: tuple[str, ...], shop: Workshop) -> None:
    text = HEADER + "".join(table())
    shop.write("in.csv", text)
    whole = shop.run("in.csv", *COLUMNS, *options).out
    assert shop.run(*COLUMNS, *options, stdin=text.encode()).out == whole
    frame = pd.read_csv(shop.folder / "in.csv")
    frame.to_parquet(shop.folder / "in.parquet", row_group_size=700)
    shop.run("in.parquet", *COLUMNS, *options, "-o", "out.parquet")
    ours = pq.read_table(shop.folder / "out.parquet").to_pandas()
    (shop.folder / "out.csv").write_bytes(whole)
    want = pd.read_csv(shop.folder / "out.csv", dtype=str)
    for name in want.columns[5:]:  # to the last digit, which pandas' own reader does not give
        cells = [float(cell) for cell in want[name].fillna("nan")]
        np.testing.assert_array_equal(ours[name], cells, name)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
def test_pieces_through_a_state(options: tuple[str, ...], shop: Workshop) -> None:
    lines = table()
    shop.write("in.csv", HEADER + "".join(lines))
    whole = shop.run("in.csv", *COLUMNS, *options).out
    out, begin = b"", 0
    for end in (1, 2, 700, 701, ROWS):
        shop.write("part.csv", HEADER + "".join(lines[begin:end]))
        part = shop.run("part.csv", *COLUMNS, *options, "--state", "s").out
        out += part if not begin else part.partition(b"\n")[2]
        begin = end
    assert out == whole
    told = shop.run("part.csv", *COLUMNS, *options, "--residual", "--state", "s", code=1).err
    assert "residual was False, is True" in told


def test_a_live_pipe_is_answered_with_all_of_it(shop: Workshop) -> None:
    with shop.start(
        "-c", "x", "-c", "y", "--alpha", "0.5", "--corr", "--double", "--weights", "w"
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"x,y,w\n1,2,1\n3,5,2\n")
        process.stdin.flush()
        time.sleep(0.1)
        lines = [process.stdout.readline().decode() for _ in range(3)]
        assert lines[0] == "x,y,w,x_ema,x_dema,y_ema,y_dema,x_y_corr\n"
        assert lines[2].startswith("3,5,2,")
        process.stdin.close()
        assert process.wait() == 0


@pytest.mark.parametrize("options", BOTH_SIDES.values(), ids=list(BOTH_SIDES))
def test_both_sides_of_rows_in_falling_order(options: tuple[str, ...], shop: Workshop) -> None:
    """The average looks both ways anyway; the last digits are of the order in which it was added up."""
    lines = table()
    shop.write("in.csv", HEADER + "".join(lines))
    shop.write("turned.csv", HEADER + "".join(lines[::-1]))
    there = shop.run("in.csv", *COLUMNS, *options, "--centered", "-o", "a.csv")
    back = shop.run("turned.csv", *COLUMNS, *options, "--centered", "--newest-first", "-o", "b.csv")
    assert there.err == back.err == ""
    one, other = (pd.read_csv(shop.folder / name) for name in ("a.csv", "b.csv"))
    pd.testing.assert_frame_equal(one, other[::-1].reset_index(drop=True), check_exact=True)


def test_both_sides_of_what_is_left_out(shop: Workshop) -> None:
    """Late rows pass blank, and are as if they were not there."""
    rows = ["1,5", "2,7", "1,100", "3,1", "2,100", "4,2"]
    shop.write("in.csv", "s,x\n" + "\n".join(rows) + "\n")
    told = shop.run("in.csv", "-c", "x", "--alpha", "0.5", "--centered", "--order", "s", "--late", "skip")
    got = [line.rpartition(",")[2] for line in told.out.decode().splitlines()[1:]]
    assert [k for k, cell in enumerate(got) if not cell] == [2, 4]
    want = smooth([5.0, 7, 1, 2], alpha=0.5, centered=True)
    assert [float(cell) for cell in got if cell] == want.tolist()
    assert "2 rows left out" in told.err


def test_both_sides_need_the_end(shop: Workshop) -> None:
    """Nothing is written where a later row is at fault, and a named pipe is refused."""
    shop.write("in.csv", "x\n1\n2\nthree\n")
    told = shop.run("in.csv", "-c", "x", "--alpha", "0.5", "--centered", code=1)
    assert told.out == b""
    assert "line 4" in told.err
    for option in ("--state=s", "--fill", "--min-periods=3", "--double", "--init=zero"):
        told = shop.run("in.csv", "--alpha", "0.5", "--centered", option, code=2).err
        assert "does not go with" in told
        assert option.partition("=")[0] in told


@pytest.mark.parametrize("like", SETS)
def test_every_set_by_the_command(like: str, shop: Workshop) -> None:
    family, values = FAMILY.get(like, "span"), [1.0, 5, 4, 2, 8, 7, 3, 6]
    shop.write("in.csv", "x\n" + "".join(f"{value}\n" for value in values))
    lines = shop.run("in.csv", "--only", "--like", like, f"--{family}", "3").out.decode().splitlines()[1:]
    got = [[float(cell or "nan") for cell in line.split(",")] for line in lines]
    want = smooth(pd.DataFrame({"x": values}), like=like, **{family: 3})  # type: ignore[misc]
    np.testing.assert_array_equal(got, want)


def test_a_picture_shows_both_sides(shop: Workshop) -> None:
    pytest.importorskip("matplotlib")
    shop.write("in.csv", HEADER + "".join(table()))
    told = shop.run(
        "in.csv", *COLUMNS, "--alpha", "0.1", "--centered", "--corr", "--plot", "p.svg", "-o", "o.csv"
    )
    assert told.err == ""
    picture = (shop.folder / "p.svg").read_text()
    assert "x_ema" in picture
    assert "x_y_corr" in picture


def test_in_python_pieces_are_the_whole() -> None:
    frame = pd.DataFrame({"x": np.arange(9.0), "y": np.arange(9.0) ** 2, "w": [1, 2, 0, 1, 1, 3, 1, 1, 1]})
    options = {"alpha": 0.3, "corr": True, "sum": True, "double": True}
    whole = smooth(frame, weights="w", **options)
    assert list(whole) == ["x_ema", "x_sum", "x_dema", "y_ema", "y_sum", "y_dema", "x_y_corr"]
    smoother, parts = Smoother(**options), []
    for begin, end in ((0, 2), (2, 3), (3, 9)):
        parts.append(smoother.update(frame[begin:end], weights="w"))
        state = smoother.state_dict()
        smoother = Smoother(**options)
        smoother.load_state_dict(state)
    pd.testing.assert_frame_equal(pd.concat(parts), whole, check_exact=True)
    with pytest.raises(ValueError, match="without weights"):
        smoother.update(frame[["x", "y"]])
    with pytest.raises(ValueError, match="row 1"):
        smooth([1.0, 2.0], alpha=0.5, weights=[1, -1])


@pytest.mark.parametrize("name", ["x", "dir/{col}"])
def test_names(name: str, shop: Workshop, tmp_path: Path) -> None:
    shop.write("in.csv", "x\n1\n")
    told = shop.run("in.csv", "--alpha", "1", "--only", "--name", name)
    assert told.out.decode().splitlines()[0] == name.replace("{col}", "x")
    assert not (tmp_path / "dir").exists()
