"""One tile's rows sorted out for folding, which all weights and models share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ema_cli.engine.fold import Moments, RowDecays, fold
from ema_cli.engine.kernel import Fold, Weights
from ema_cli.engine.lanes import BLOCK, Dense, Ints, Ragged, make_lanes
from ema_cli.engine.rows import Bools, Rows
from ema_cli.engine.state import State


@dataclass
class Plan:
    """What all weights share in one tile.

    first: index of the rows that only start their series (they become its carry); keep: the others.
    new: segments that have seen nothing yet. active: segments with rows to fold, which lie in `lanes`.
    """

    rows: Rows
    new: Bools
    seen: Ints
    first: Ints
    keep: Ints | slice
    active: Bools
    lanes: Dense | Ragged | None


def make_plan(rows: Rows, seen: Ints, consume: bool) -> Plan:
    """Set aside the rows that start a series (if `consume`) and lay the others out in lanes."""
    new = seen == 0
    first = rows.first[new] if consume else np.empty(0, np.int64)
    counts, position = rows.counts, seen
    keep: Ints | slice = slice(None)
    if consume:
        counts, position = counts - new, np.maximum(seen - 1, 0)
    if first.size:
        keep = np.delete(np.arange(len(rows.values)), first)
    active = counts > 0
    lanes = make_lanes(counts[active], position[active] % BLOCK) if active.any() else None
    return Plan(rows, new, seen, first, keep, active, lanes)


def fold_plan(plan: Plan, memory: Fold, weights: Weights | RowDecays, kind: tuple[bool, bool]) -> Moments:
    """Moments of all rows: the set-aside ones become carries, the rest is folded; moves `memory` on."""
    values = plan.rows.values
    out = [np.zeros(len(values)) for _ in range(3 if kind[1] else 1)]
    if plan.first.size:
        out[0][plan.first] = memory["carry"][plan.new] = values[plan.first]
    if plan.lanes is not None:
        part = {name: array[plan.active] for name, array in memory.items()}
        moments = fold(values[plan.keep], plan.lanes, weights, part, kind)
        for target, source in zip(out, (moments.mean, moments.std, moments.bias), strict=False):
            assert source is not None
            target[plan.keep] = source
        for name, array in memory.items():
            array[plan.active] = part[name]
    return Moments(*out)


def remember(state: State, memory: Fold, rows: Rows, weight: int) -> None:
    """Store each series' memory as its last segment left it."""
    state.store({name: array[rows.final] for name, array in memory.items()}, rows.series[rows.final], weight)
