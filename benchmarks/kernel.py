"""The arithmetic alone, a million float64, as users call it: `python benchmarks/kernel.py`.

`smooth()` in an ordinary Python process, and the engine under it, against what people use instead. All run
in one process, in turn; a ratio is taken between neighbours of the same turn, and the median of those is
printed. Before anything is timed the numbers have to agree. A peer that is not installed is left out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from ema_cli import smooth
from ema_cli.average import make_average
from ema_cli.engine.engine import TILE, Engine
from ema_cli.engine.rows import Tile

ROWS = 1_000_000
ALPHA = 0.1
Floats = np.ndarray[Any, np.dtype[np.float64]]
Run = Callable[[], Any]


def engine(x: Floats, times: Any = None, **options: Any) -> Run:
    """The engine alone, tile by tile."""
    average = make_average(options, timed=times is not None)
    values = x[:, np.newaxis]

    def run() -> None:
        folding = Engine(average, 1)
        for begin in range(0, len(x), TILE):
            part = slice(begin, begin + TILE)
            folding.update(Tile(values[part], None if times is None else times[part]))

    return run


def cases() -> dict[str, tuple[Run, Run, Run | None]]:
    """By name: `smooth`, the peer, and the engine alone."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=ROWS).cumsum()
    holes = np.where(rng.random(ROWS) < 0.05, np.nan, x)
    elapsed = np.cumsum(rng.integers(1, 10**9, ROWS))
    times, keys = elapsed.view("M8[ns]"), rng.integers(0, 1000, ROWS)
    series, gappy, index = pd.Series(x), pd.Series(holes), pd.to_datetime(elapsed)
    found: dict[str, tuple[Run, Run, Run | None]] = {
        "clean": (
            lambda: smooth(x, alpha=ALPHA),
            lambda: series.ewm(alpha=ALPHA, adjust=False).mean(),
            engine(x, alpha=ALPHA),
        ),
        "adjusted": (
            lambda: smooth(x, alpha=ALPHA, adjust=True),
            lambda: series.ewm(alpha=ALPHA).mean(),
            engine(x, alpha=ALPHA, adjust=True),
        ),
        "5 % missing": (
            lambda: smooth(holes, alpha=ALPHA, fill=True),
            lambda: gappy.ewm(alpha=ALPHA, adjust=False, ignore_na=True).mean(),
            engine(holes, alpha=ALPHA),
        ),
        "by time": (
            lambda: smooth(x, halflife="2s", times=times, adjust=True),
            lambda: series.ewm(halflife="2s", times=index).mean(),
            engine(x, elapsed, halflife="2s", adjust=True),
        ),
        "std": (
            lambda: smooth(x, alpha=ALPHA, std=True)[:, 1],
            lambda: series.ewm(alpha=ALPHA, adjust=False).std(),
            engine(x, alpha=ALPHA, std=True),
        ),
    }
    try:
        import polars as pl
    except ImportError:
        print("polars is not installed: 1,000 keys are left out")
        return found
    frame = pl.DataFrame({"x": x, "k": keys})
    over = pl.col("x").ewm_mean(alpha=ALPHA, adjust=False).over("k")
    found["1,000 keys"] = (
        lambda: smooth(x, alpha=ALPHA, by=keys),
        lambda: frame.select(over).to_series().to_numpy(),
        None,
    )
    return found


def timed(run: Run) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=15)
    turns = parser.parse_args().turns
    print(f"{'':14}{'smooth ÷ peer':>14}{'engine ÷ peer':>15}   (median of {turns}; pandas, keys: polars)")
    for name, (ours, peer, alone) in cases().items():
        np.testing.assert_allclose(ours(), peer(), rtol=1e-9, equal_nan=True, err_msg=name)
        ratios: list[tuple[float, float]] = []
        for _ in range(turns):
            theirs = timed(peer)
            ratios.append((timed(ours) / theirs, timed(alone) / theirs if alone else float("nan")))
        whole, inside = (median(column) for column in zip(*ratios, strict=True))
        print(f"{name:14}{whole:14.2f}" + (f"{inside:15.2f}" if alone else ""))


if __name__ == "__main__":
    main()
