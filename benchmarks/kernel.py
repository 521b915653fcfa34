"""The kernel alone, a million float64, against the libraries that people use: `python benchmarks/kernel.py`.

All run in one process, one after the other in turn, and a ratio is taken between neighbours in the same turn;
the median of those is printed. Before anything is timed the numbers have to agree. A peer that is not
installed is left out, with a note.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
from ema_cli.engine.kernel import Mix, blend
from ema_cli.engine.lanes import BLOCK

from ema_cli.average import make_average
from ema_cli.engine.engine import TILE, Engine, KeyedRows

ROWS = 1_000_000
ALPHA = 0.1
Floats = np.ndarray[Any, np.dtype[np.float64]]
Run = Callable[[], Floats]


@dataclass
class Case:
    """One comparison. alike: our run that gives a peer's numbers, where those are not the timed run's."""

    title: str
    ours: Run
    peers: dict[str, Run]
    alike: dict[str, Run] = field(default_factory=dict)


def engine(x: Floats, times: Any = None, codes: Any = None, **options: Any) -> Run:
    average = make_average(options, timed=times is not None)
    values = x[:, np.newaxis]
    size = TILE if codes is not None or times is not None else len(x)  # only those have to be cut

    def run() -> Floats:
        folding, out = Engine(average, 1), np.empty(len(x))
        for begin in range(0, len(x), size):
            part = slice(begin, begin + size)
            keys = None if codes is None else KeyedRows(codes[part], np.arange(int(codes.max()) + 1))
            room = out[part].reshape(1, 1, -1)
            _, std = folding.update(values[part], None if times is None else times[part], keys, room)
            if std is not None:
                out[part] = std[0, :, 0]
        return out

    return run


def by_row(title: str, x: Floats, parts: dict[str, Any], std: bool = False, adjust: bool = False) -> Case:
    """An average that counts rows, by those of the libraries that have it."""
    case = Case(title, engine(x, alpha=ALPHA, std=std, adjust=adjust), {})
    if pd := parts["pandas"]:
        peer = pd.Series(x).ewm(alpha=ALPHA, adjust=adjust, ignore_na=True)
        case.peers["pandas"] = lambda: (peer.std() if std else peer.mean()).to_numpy()
    if pl := parts["polars"]:
        column = pl.Series(x).fill_nan(None)
        method = column.ewm_std if std else column.ewm_mean
        case.peers["polars"] = lambda: method(alpha=ALPHA, adjust=adjust, ignore_nulls=True).to_numpy()
    if (signal := parts["scipy.signal"]) and not (std or adjust or np.isnan(x).any()):
        start = [(1 - ALPHA) * x[0]]
        case.peers["scipy lfilter"] = lambda: signal.lfilter([ALPHA], [1, ALPHA - 1], x, zi=start)[0]
    if (numbagg := parts["numbagg"]) and not std:
        case.peers["numbagg"] = lambda: numbagg.move_exp_nanmean(x, alpha=ALPHA)
        # It has only bias-corrected weights, which fade in gaps; about the same work as the plain average.
        case.alike["numbagg"] = engine(x, alpha=ALPHA, adjust=True, missing="decay")
    return case


def cases(parts: dict[str, Any]) -> list[Case]:
    rng = np.random.default_rng(0)
    x = 50.0 + rng.standard_normal(ROWS)
    gaps = np.where(rng.random(ROWS) < 0.05, np.nan, x)
    times = np.cumsum(rng.integers(1, 2_000_000_000, ROWS))
    codes = rng.integers(0, 1000, ROWS).astype(np.uint16)
    out = [
        by_row("clean", x, parts),
        by_row("5 % missing", gaps, parts),
        by_row("adjust", x, parts, adjust=True),
        by_row("std", x, parts, std=True),
        Case("by time", engine(x, times, halflife="1min"), {}),
        Case("1000 keys", engine(x, codes=codes, alpha=ALPHA), {}),
    ]
    if pl := parts["polars"]:
        frame = pl.DataFrame({"t": times, "k": codes, "x": x})
        by_time = pl.col("x").ewm_mean_by("t", half_life="60000000000i")
        by_key = pl.col("x").ewm_mean(alpha=ALPHA, adjust=False).over("k")
        out[-2].peers["polars"] = lambda: frame.select(by_time)["x"].to_numpy()
        out[-1].peers["polars"] = lambda: frame.select(by_key)["x"].to_numpy()
    return out


def passes() -> dict[str, Run]:
    """What NumPy has to do for the plain average whatever is written round it, one tile at a time.

    Blocks lie side by side; a step is a blend, base + pull·(new − old), three operations.
    """
    x = 50.0 + np.random.default_rng(0).standard_normal(TILE)
    some = np.random.default_rng(1).random(TILE) > 0.05
    where, out, steps = np.flatnonzero(some), np.empty(TILE), np.empty((BLOCK, TILE // BLOCK))
    few, carry = x[where], x[: TILE // BLOCK].copy()
    how = Mix(ALPHA, False)

    def walk() -> Floats:
        before = steps[0]
        for step in steps[1:]:
            before = blend(before, step, how)
        return steps

    def join() -> Floats:
        for step in steps:
            blend(carry, step, how)
        return steps

    def put(target: Floats, index: Any, values: Floats) -> Run:
        def run() -> Floats:
            target[index] = values
            return target

        return run

    return {
        "find missing cells": lambda: np.isnan(x),
        "lay blocks side by side": put(steps, ..., x.reshape(-1, BLOCK).T),
        "walk them": walk,
        "join what was before": join,
        "back in order": put(out.reshape(-1, BLOCK), ..., steps.T),
        "only with gaps: where values are": lambda: np.flatnonzero(some),
        "only with gaps: gather them": lambda: np.take(x, where, out=few, mode="clip"),
        "only with gaps: blanks": put(out, ..., np.array(np.nan)),
        "only with gaps: put them back": put(out, where, few),
    }


def print_passes(turns: int) -> None:
    print(f"NumPy's own passes over {TILE:,} float64 in the cache, ns a row")
    clean = gaps = 0.0
    for name, run in passes().items():
        taken, _ = measure(run, {}, 20 * turns)
        gaps += taken / TILE * 1e9
        clean += 0.0 if name.startswith("only") else taken / TILE * 1e9
        print(f"  {name:34}{taken / TILE * 1e9:5.2f}")
    print(f"  {'together':34}{clean:5.2f}   with gaps {gaps:.2f}")


def measure(ours: Run, peers: dict[str, Run], turns: int) -> tuple[float, dict[str, tuple[float, float]]]:
    """Our median time, and of each peer its own and the median of ours ÷ its."""
    mine: list[float] = []
    theirs: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(turns):
        for name, run in {"": ours, **peers}.items():
            begin = time.perf_counter()
            run()
            (theirs[name] if name else mine).append(time.perf_counter() - begin)
    ratios = {
        name: (median(t), median(a / b for a, b in zip(mine, t, strict=True))) for name, t in theirs.items()
    }
    return median(mine), ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--passes", action="store_true", help="what NumPy's passes alone take")
    given = parser.parse_args()
    turns = given.turns
    if given.passes:
        print_passes(turns)
        return
    parts: dict[str, Any] = {}
    for module in ("pandas", "polars", "scipy.signal", "numbagg"):
        try:
            parts[module] = importlib.import_module(module)
        except ImportError:
            parts[module] = None
            print(f"{module} is not installed: left out")
    print(f"{'':14}{'ema-smooth':>12}   ns a row, and our time ÷ theirs")
    for case in cases(parts):
        for name, run in case.peers.items():
            got, want = case.alike.get(name, case.ours)(), run()
            some = ~np.isnan(want) & ~np.isnan(got)
            np.testing.assert_allclose(got[some], want[some], rtol=1e-9, err_msg=f"{case.title}: {name}")
        mine, ratios = measure(case.ours, case.peers, turns)
        line = "".join(f"   {name} {t / ROWS * 1e9:.1f} ({ratio:.2f})" for name, (t, ratio) in ratios.items())
        print(f"{case.title:14}{mine / ROWS * 1e9:12.1f}{line}", flush=True)


if __name__ == "__main__":
    main()
