"""Taking up a summary: the state moves on past a part as if its rows had been folded here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ema_cli.engine.engine import BackwardsTimeError, Engine
from ema_cli.engine.fold import Folding, make_floors
from ema_cli.engine.plan import empty_moments
from ema_cli.engine.progress import place
from ema_cli.engine.rows import Rows
from ema_cli.engine.scratch import Ints
from ema_cli.engine.state import REMEMBERED
from ema_cli.engine.summary import Middle, Run, Summary


def absorb(engine: Engine, summary: Summary, slots: Ints) -> None:
    """Move `engine` on past a part that `summarise` has looked at: what `update` of its rows would do.

    slots: for good, of the part's keys. Raises BackwardsTimeError, before anything is folded in.
    """
    if not len(slots):
        return
    state, columns = engine.state, engine.columns
    state.grow(int(slots.max()) + 1)
    _move_clock(engine, summary, slots)
    head = replace(summary.head, series=place(summary.head.series, slots, columns))
    _move_gaps(engine, summary, head, slots)
    with np.errstate(all="ignore"):
        _absorb_rows(engine, head)
        if len(summary.middle.series):
            _absorb_middle(engine, summary.middle, slots)
        _absorb_rows(engine, replace(summary.tail, series=place(summary.tail.series, slots, columns)))


def _move_clock(engine: Engine, summary: Summary, slots: Ints) -> None:
    if summary.began is None or summary.ended is None:
        return
    clock, started = engine.state.load_keys(("clock", "started"), slots)
    wrong = (started > 0) & (summary.began < clock)
    if wrong.any():
        raise BackwardsTimeError(int(summary.at[wrong].min()))
    engine.state.store({"clock": summary.ended, "started": np.ones_like(slots)}, slots)


def _move_gaps(engine: Engine, summary: Summary, head: Rows, slots: Ints) -> None:
    """Rows without a value at the end of the part before count for the first value of this one."""
    if "gap" not in engine.state.arrays:
        return
    gap = engine.state.arrays["gap"]
    if head.gaps is not None and len(head.values):
        head.gaps = head.gaps.copy()
        head.gaps[head.first] += gap[head.series]
    series = place(summary.series, slots, engine.columns)
    gap[series] = np.where(summary.unseen, gap[series], 0) + summary.behind


def _absorb_rows(engine: Engine, rows: Rows) -> None:
    """Fold rows as ever; what is printed at the last one is what is held."""
    if not len(rows.values):
        return
    engine.scratch.clear()
    rows.scratch = engine.scratch
    average, held = engine.average, engine.state.arrays
    into = [empty_moments(engine.scratch, len(rows.values), average.needs_std) for _ in average.decays]
    early = engine.fold_rows(rows, into)
    if not average.fill:
        return
    series, last = rows.series[rows.final], rows.last[rows.final]
    blank = np.isin(last, [] if early is None else early)
    for weight, moments in enumerate(into):
        held["held_mean"][weight, series] = np.where(blank, np.nan, moments.mean[last])
        if average.needs_std:
            held["held_std"][weight, series] = np.where(blank, np.nan, moments.unbiased_std()[last])


def _absorb_middle(engine: Engine, middle: Middle, slots: Ints) -> None:
    state, columns = engine.state, engine.columns
    for run in middle.runs:
        _absorb_run(engine, run, place(run.series, slots, columns))
    series = place(middle.series, slots, columns)
    state.arrays["seen"][series] += middle.rows
    if "groups" in state.arrays:
        # The newest observation has been folded; none is pending until the tail begins one.
        state.arrays["groups"][series] += middle.observations
        state.store({"tie_time": middle.last, "ties": np.zeros_like(series)}, series)
    state.store({"last_time": middle.last}, series)


def _absorb_run(engine: Engine, run: Run, series: Ints) -> None:
    fresh = np.zeros(len(series), bool)
    for weight, (kind, (moments, decays)) in enumerate(zip(engine.model.kinds, run.elements, strict=True)):
        engine.scratch.clear()
        memory = engine.state.load(REMEMBERED, series, fresh, weight)
        floors = make_floors(run.counts, run.before, engine.scratch, run.level)
        Folding(floors, memory, kind).take(moments, decays, run.level)
        engine.state.store(memory, series, weight)
