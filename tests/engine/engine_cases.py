"""Series, options and cuts for the engine's tests, drawn by Hypothesis; and the engine run on them.

The numbers come from a seeded generator: Hypothesis shrinks the length, the options and the kind of
numbers, which says more about a failure than a minimal list of digits, and draws in microseconds.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ema_cli.average import Average, make_average
from ema_cli.engine.engine import KeyedRows
from ema_cli.trends import Trends

# More examples, for a night's run: EMA_EXAMPLES=20 python -m pytest tests/laws/test_laws_engine.py
EFFORT = int(os.environ.get("EMA_EXAMPLES", "1"))
ALPHAS = ("0", "1e-6", "1e-3", "0.1", "0.3", "0.5", "0.500001", "0.9", "0.999999", "1")
HALFLIVES = ("1ns", "7ns", "1us", "40us", "3s", "2d")
# Around the ends of blocks, of blocks of blocks, and far from them.
LENGTHS = (1, 2, 3, 5, 15, 16, 17, 18, 33, 127, 129, 130, 255, 256, 257, 258, 300, 520)
KINDS = ("small", "wide", "steps", "special", "constant", "drift", "integers")


def examples(count: int) -> settings:
    return settings(deadline=None, max_examples=count * EFFORT)


@dataclass(frozen=True)
class Case:
    """A table of values, and what to make of it. keys: the key of each row, or None; weights: its weight."""

    options: dict[str, Any]
    values: NDArray[np.float64]
    times: NDArray[np.int64] | None = None
    keys: NDArray[np.int64] | None = None
    seed: int = 0
    weights: NDArray[np.float64] | None = None
    average: Average = field(init=False)

    def __post_init__(self) -> None:
        average = make_average(self.options, timed=self.times is not None, weighted=self.weights is not None)
        object.__setattr__(self, "average", average)

    @property
    def table(self) -> NDArray[np.float64]:
        """The values as `Trends` takes them."""
        return self.values if self.weights is None else np.column_stack((self.values, self.weights))

    def picked(self, rows: Any) -> Case:
        """Some of the rows."""
        given = {name: getattr(self, name) for name in ("times", "keys", "weights")}
        some = {name: array[rows] for name, array in given.items() if array is not None}
        return replace(self, values=self.values[rows], **some)

    def __repr__(self) -> str:
        keys = 0 if self.keys is None else len(set(self.keys.tolist()))
        return f"Case({self.options}, {self.values.shape}, timed={self.times is not None}, {keys} keys)"

    def part(self, begin: int, end: int) -> Case:
        return self.picked(slice(begin, end))


def numbers(rng: np.random.Generator, kind: str, shape: tuple[int, int]) -> NDArray[np.float64]:
    sign = rng.choice([-1.0, 1.0], shape)
    if kind == "wide":
        return sign * 10.0 ** rng.uniform(-300, 300, shape)
    if kind == "steps":  # long calm stretches, each of another magnitude
        steps = 10.0 ** np.repeat(rng.integers(-300, 300, (shape[0] // 20 + 1, shape[1])), 20, axis=0)
        return sign * steps[: shape[0]] * rng.uniform(1, 2, shape)
    if kind == "special":
        return rng.choice([0.0, -0.0, 5e-324, -5e-324, 1e-310, 1e300, -1e300, 1e-300, 1.0, 3.0], shape)
    if kind == "constant":
        return np.full(shape, rng.choice([0.1, 1 / 3, 1e300, 1e-300, -7.7, 5e-324, -0.0]))
    small = rng.standard_normal(shape)
    if kind == "drift":
        return 1e9 + np.cumsum(small, axis=0)
    return np.rint(9.0 * small) if kind == "integers" else small


def clock(rng: np.random.Generator, rows: int) -> NDArray[np.int64]:
    """Times with ties, bursts and long silences."""
    kind = rng.integers(3)
    if kind == 0:
        steps = rng.integers(0, 3, rows)
    elif kind == 1:
        steps = rng.integers(0, 100_000, rows)
    else:
        steps = np.exp(rng.uniform(0, 30, rows)).astype(np.int64)
    steps[rng.random(rows) < rng.choice([0.0, 0.2])] = 0
    return rng.integers(-(10**18), 10**18) + np.cumsum(steps)


@st.composite
def by_row(draw: st.DrawFn) -> dict[str, Any]:
    """Options of an average that counts rows."""
    options: dict[str, Any] = {"missing": draw(st.sampled_from(["skip", "decay"]))}
    kind = draw(st.integers(0, 6))
    if kind == 0:
        spans = draw(
            st.lists(st.sampled_from(["1", "2", "5", "20", "150"]), min_size=1, max_size=2, unique=True)
        )
        return options | {"span": tuple(spans), "init": "sma"}
    if kind == 1:
        return options | {"wilder": draw(st.sampled_from(["1", "3", "14", "40"]))}
    if kind == 2:
        init = draw(st.sampled_from(["sma:1", "sma:2", "sma:17"]))
        return options | {"alpha": (draw(st.sampled_from([*ALPHAS, "1/14"])),), "init": init}
    options["alpha"] = tuple(draw(st.lists(st.sampled_from(ALPHAS), min_size=1, max_size=3, unique=True)))
    if draw(st.booleans()):
        return options | {"adjust": True}
    return options | {"init": draw(st.sampled_from(["first", "zero", "2.5", "-1e300"]))}


@st.composite
def by_time(draw: st.DrawFn) -> dict[str, Any]:
    """Options of an average that goes by the clock."""
    halflives = draw(st.lists(st.sampled_from(HALFLIVES), min_size=1, max_size=2, unique=True))
    gap = draw(st.sampled_from([None, None, "1ns", "50us", "1s"]))
    options = {"halflife": tuple(halflives), "adjust": draw(st.booleans()), "reset_gap": gap}
    if draw(st.integers(0, 4)) == 0:
        options = {"tau": tuple(halflives), "adjust": draw(st.booleans()), "reset_gap": gap}
    if not options["adjust"] and draw(st.integers(0, 2)) == 0:
        options["init"] = draw(st.sampled_from(["zero", "2.5"]))
        options["time_unit"] = draw(st.sampled_from(["ns", "us", "s"]))
    return options


@st.composite
def further(draw: st.DrawFn, weights: int, columns: int, stages: bool) -> dict[str, Any]:
    """What else there is to ask for of so many weights and columns. stages: averages of averages too."""
    names = ["residual", "sum", "bias"] + ["double", "triple"] * stages
    names += ["diff"] * (weights == 2) + ["cov", "corr"] * (columns > 1)
    options = dict.fromkeys(draw(st.lists(st.sampled_from(names), max_size=3)), True)
    return options | ({"bands": 2} if draw(st.integers(0, 4)) == 0 else {})


@st.composite
def cases(
    draw: st.DrawFn,
    max_rows: int = 520,
    keyed: bool | None = None,
    std: bool | None = None,
    more: bool = False,
    stages: bool = True,
) -> Case:
    """more: also weights of rows, and all that can be asked for besides trend and std. stages: averages of
    averages too."""
    timed = draw(st.booleans())
    options = draw(by_time() if timed else by_row())
    options["fill"] = draw(st.booleans())
    options["min_periods"] = draw(st.sampled_from([0, 0, 1, 2, 4, 40]))
    options["std"] = draw(st.booleans()) if std is None else std
    rows = draw(st.sampled_from([n for n in LENGTHS if n <= max_rows]))
    columns = draw(st.sampled_from([1, 1, 2, 3]))
    seed = draw(st.integers(0, 2**31))
    rng = np.random.default_rng(seed)
    values = numbers(rng, draw(st.sampled_from(KINDS)), (rows, columns))
    values[rng.random(values.shape) < draw(st.sampled_from([0.0, 0.05, 0.4, 0.95]))] = np.nan
    keys = None
    if draw(st.booleans()) if keyed is None else keyed:
        keys = np.sort(rng.zipf(1.3, rows).clip(1, draw(st.sampled_from([1, 3, 40, 1000]))))
        keys = keys if draw(st.booleans()) else rng.permutation(keys)
    weights = None
    if more:
        families = (options.get(name, "") for name in ("alpha", "span", "halflife", "tau"))
        options |= draw(further(sum(len(f) for f in families if isinstance(f, tuple)), columns, stages))
        if draw(st.booleans()):
            weights = rng.choice([1.0, 3.0, 0.25, 1e-3, 1e6], rows)
            weights[rng.random(rows) < 0.1] = 0.0
            weights[rng.random(rows) < 0.05] = np.nan
    return Case(options, values, clock(rng, rows) if timed else None, keys, seed, weights)


def feed(trends: Trends, part: Case, slots: dict[int, int]) -> NDArray[np.float64]:
    """One update; keys get their slots as they appear, and codes in no particular order."""
    if part.keys is None:
        return trends.update(part.table, part.times)
    if not len(part.keys):
        return trends.update(part.table, part.times, KeyedRows(np.empty(0, np.uint16), np.empty(0, np.int64)))
    for key in part.keys.tolist():
        slots.setdefault(key, len(slots))
    names, codes = np.unique(part.keys, return_inverse=True)
    shuffled = np.random.default_rng(part.seed).permutation(len(names))
    where = np.empty(len(names), np.int64)
    where[shuffled] = [slots[name] for name in names.tolist()]
    return trends.update(part.table, part.times, KeyedRows(shuffled[codes].astype(np.uint16), where))


def run(case: Case, cuts: list[int], pauses: int = 0) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """The new columns and the final state; `pauses`: after every so many parts, save and restore."""
    columns = case.values.shape[1]
    trends, slots = Trends(case.average, columns), dict[int, int]()
    out = []
    ends = [*sorted(cuts), len(case.values)]
    for k, (begin, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        out.append(feed(trends, case.part(begin, end), slots))
        if pauses and k % pauses == 0:
            saved, keys = trends.state(), trends.engines[0].state.keys
            trends = Trends(case.average, columns)
            trends.restore(saved, keys)
    return np.concatenate(out), trends.state()
