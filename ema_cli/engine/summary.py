"""What a run of rows does to a state, worked out without the state: most of it, in a few numbers.

The blocks of a series' tree that lie wholly within the run are folded; what is left on each level are the
few elements before its first whole block and after its last one. `Engine.absorb` takes them up in order,

    head rows, elements of levels 1, 2, … up to the last, and down again …, 2, 1, tail rows,

and the state is then, bit for bit, what folding the rows one by one would have made it. The carries on a
level come from the elements of the one above it, so the last block of every level is left to the tail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ema_cli.average import Average
from ema_cli.engine.fold import Kind, fold_blocks
from ema_cli.engine.lanes import BLOCK
from ema_cli.engine.models import OneWeight, make_model
from ema_cli.engine.moments import Moments
from ema_cli.engine.progress import Observations, last_segments, observe
from ema_cli.engine.rows import Rows, Tile
from ema_cli.engine.scratch import Bools, Ints, Scratch
from ema_cli.engine.state import LEVELS
from ema_cli.engine.weights import Decays

AT_ONCE = 65_536  # elements folded at once, so that what is needed in between stays in the cache

Elements = list[tuple[Moments, Decays | None]]  # by weight


@dataclass(frozen=True)
class Run:
    """Elements of one level, series after series. before: those of the same level before them."""

    level: int
    series: Ints
    counts: Ints
    before: Ints
    elements: Elements


@dataclass(frozen=True)
class Middle:
    """The series that have whole blocks, and what is in these.

    observations, rows: how many (less the rows that the head has too). last: time of the newest, if any.
    """

    series: Ints
    rows: Ints
    observations: Ints
    last: Ints
    runs: Sequence[Run]


@dataclass(frozen=True)
class Summary:
    """All that a state has to be told of a part. Places are among the part's own series.

    began, ended: time of each key's first and last row, if there are times; at: those first rows.
    behind: rows since each series' last value at the end, or all where it has none (then `unseen`).
    """

    head: Rows
    middle: Middle
    tail: Rows
    began: Ints | None
    ended: Ints | None
    at: Ints
    series: Ints
    behind: Ints
    unseen: Bools


def summarise(average: Average, tile: Tile, before: Ints) -> Summary:
    """Fold the blocks that lie within a tile of any size.

    before: observations of each series that has a value before the first one here (see `Progress.advance`).
    """
    weights = make_model(average).weights
    rows = tile.make_rows()
    unseen = ~np.isin(tile.series, rows.series)
    behind = np.zeros(len(tile.series), np.int64)
    if average.missing == "decay" and not average.timed:
        rows.gaps, behind = tile.gaps(behind)
    began = ended = None
    if tile.times is not None:
        times = tile.sorted(tile.times)
        began, ended = times[tile.first], times[tile.first + tile.counts - 1]
    at = tile.first if tile.order is None else tile.order[tile.first]
    rows, _ = last_segments(rows, average.reset_gap)
    joined = average.timed and not average.adjust
    found = observe(rows, joined=joined)
    # A pending observation, which its last row may still change, is not folded: one more is left.
    cut = cut_at_blocks(found.counts, before, weights[0].lead, 2 if joined else 1)
    rank = found.of_row
    early = rank < np.repeat(cut.head, rows.counts)
    late = rank >= np.repeat(cut.head + cut.inner, rows.counts)
    inside = ~(early | late)
    # The last observation of the head is folded when the one after it begins.
    triggers = np.zeros_like(inside)
    if joined:
        triggers = inside & found.opens & (rank == np.repeat(cut.head, rows.counts))
    return Summary(
        rows.pick(early | triggers),
        _fold_middle(rows, found, weights, cut, (inside, triggers)),
        rows.pick(late),
        *(began, ended, at, tile.series, behind, unseen),
    )


@dataclass(frozen=True)
class Cut:
    """Of each segment: observations in head and middle, and the elements that are before the middle."""

    head: Ints
    inner: Ints
    before: Ints


def cut_at_blocks(counts: Ints, before: Ints, lead: int, keep: int) -> Cut:
    """Where the whole blocks of each segment are.

    The first observation always belongs to the head, which may know better how far it is from the one
    before; at least `keep` are left for the tail.
    """
    opening = np.clip(lead - before, 0, counts)
    position = np.maximum(before - lead, 0)
    head = opening + np.minimum(counts - opening, BLOCK - position % BLOCK)
    begin, end = position + head - opening, position + counts - opening
    return Cut(head, np.maximum((end - keep) // BLOCK * BLOCK - begin, 0), begin)


def _fold_middle(
    rows: Rows,
    found: Observations,
    weights: Sequence[OneWeight[Any]],
    cut: Cut,
    inside: tuple[Bools, Bools],
) -> Middle:
    """inside: the rows of the middle, and those of them that the head has too."""
    some = cut.inner > 0
    inner, mine = cut.inner[some], inside[0][found.opens]
    apart, last = rows.gaps, np.zeros(len(inner), np.int64)
    if found.times is not None:
        apart = np.diff(found.times, prepend=found.times[:1])
        last = found.times[mine][np.cumsum(inner) - 1]
    means = Moments(found.means[mine])
    apart = None if apart is None else apart[mine]
    elements: Elements = [(means, weight.decays(apart, Scratch())) for weight in weights]
    run = Run(0, rows.series[some], inner, cut.before[some], elements)
    only = inside[0] & ~inside[1]
    of_rows = np.add.reduceat(only, rows.first, dtype=np.int64)[some] if len(rows.counts) else inner
    return Middle(rows.series[some], of_rows, inner, last, fold_up(run, weights))


def fold_up(run: Run, weights: Sequence[OneWeight[Any]]) -> list[Run]:
    """Whole blocks of rows as the fewest elements of higher levels, in the order they are taken up."""
    kinds = [weight.kind for weight in weights]
    up: list[Run] = []
    down: list[Run] = []
    while len(run.counts):
        run = _blocks_of(run, kinds)
        if run.level == LEVELS:
            up.append(run)
            break
        head = np.minimum(run.counts, -run.before % BLOCK)
        begin, end = run.before + head, run.before + run.counts
        inner = np.maximum((end - 1) // BLOCK * BLOCK - begin, 0)
        nothing = np.zeros_like(head)
        up.append(_piece(run, nothing, head))
        down.append(_piece(run, head + inner, run.counts - head - inner))
        run = _piece(run, head, inner)
    return [run for run in (*up, *down[::-1]) if len(run.counts)]


def _piece(run: Run, skip: Ints, counts: Ints) -> Run:
    """So many elements of each series, after those skipped."""
    rank = np.arange(int(run.counts.sum())) - np.repeat(np.cumsum(run.counts) - run.counts, run.counts)
    begin = np.repeat(skip, run.counts)
    mine = (rank >= begin) & (rank < begin + np.repeat(counts, run.counts))
    some = counts > 0
    elements = [
        (moments.at(mine), None if decays is None else decays.at(mine)) for moments, decays in run.elements
    ]
    return Run(run.level, run.series[some], counts[some], (run.before + skip)[some], elements)


def _blocks_of(run: Run, kinds: Sequence[Kind]) -> Run:
    """The blocks that these elements are, which must be whole."""
    elements: Elements = []
    scratch = Scratch()
    total = int(run.counts.sum())
    for kind, (moments, decays) in zip(kinds, run.elements, strict=True):
        parts = []
        for begin in range(0, total, AT_ONCE):
            at = slice(begin, begin + AT_ONCE)
            scratch.clear()
            some = None if decays is None else decays.at(at)
            parts.append(fold_blocks(moments.at(at), some, kind, run.level, scratch))
        elements.append(_joined(parts))
    return Run(run.level + 1, run.series, run.counts // BLOCK, run.before // BLOCK, elements)


def _joined(parts: Sequence[tuple[Moments, Decays | None]]) -> tuple[Moments, Decays | None]:
    arrays = ([part for _, part in moments.given()] for moments, _ in parts)
    moments = Moments(*(np.concatenate(one) for one in zip(*arrays, strict=True)))
    decays = [how for _, how in parts if how is not None]
    if not decays:
        return moments, None
    gains = [how.gain for how in decays if how.gain is not None]
    decay, share = (np.concatenate([getattr(how, name) for how in decays]) for name in ("decay", "share"))
    return moments, Decays(decay, share, np.concatenate(gains) if gains else None)
