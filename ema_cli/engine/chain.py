"""Elements joined one after the other: what is left to do above the last level of a tree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, islice, pairwise, repeat
from typing import Any

import numpy as np

from ema_cli.engine.kernel import Mix, blend, mix
from ema_cli.engine.moments import Moments, join, join_adjusted
from ema_cli.engine.scratch import Floats, Ints

TOGETHER = 32  # segments at a time, on average, from which a step of them all together is the faster way


def chain(
    counts: Ints, carries: list[Floats], values: Moments, links: tuple[Mix, Any], *, adjusted: bool
) -> tuple[Moments, Floats | None]:
    """The moments after each element, and if bias-corrected the mass they stand for.

    counts: elements of each segment (> 0), which lie segment after segment in `values`. carries: what is
    before them, by segment: the moments, and the mass if `adjusted`. links: how each element blends with
    what is before it, and the weight it enters with; numbers where these are the same for all.
    """
    way = _one_by_one if len(values.mean) < TOGETHER * counts.max() else _side_by_side
    return way(counts, carries, values, links, adjusted)


def _one_by_one(
    counts: Ints, begin: list[Floats], values: Moments, links: tuple[Mix, Any], adjusted: bool
) -> tuple[Moments, Floats | None]:
    """Where a step is one number, or few, Python's own are faster; they have the same bits."""
    (how, gain), masses = links, None
    carries = [array.tolist() for array in begin]
    n = len(values.mean)
    if adjusted:
        enters = zip(_each(how, n), np.broadcast_to(gain, n).tolist(), strict=True)
        lines = list(_lines(counts, carries.pop(), enters, lambda mass, by: blend(mass, 0.0, by[0]) + by[1]))
        left = blend(np.array([mass for line in lines for mass in line[:-1]]), np.zeros(n), how)
        masses = np.array([mass for line in lines for mass in line[1:]])
        how = mix(gain, left, masses)
    if values.std is None:
        means = zip(values.mean.tolist(), _each(how, n), strict=True)
        lines = list(_lines(counts, carries[0], means, lambda old, by: blend(old, *by)))
        return Moments(np.array([mean for line in lines for mean in line[1:]])), masses
    parts = values.given()
    elements = map(Moments, *(part.tolist() for _, part in parts))
    starts = list(map(Moments, *carries))
    steps = zip(elements, _each(how, n), strict=True)
    lines = list(_lines(counts, starts, steps, lambda older, by: join(older, *by)))
    totals = [one for line in lines for one in line[1:]]
    return Moments(*(np.array([getattr(one, name) for one in totals]) for name, _ in parts)), masses


def _lines(
    counts: Ints, carries: list[Any], steps: Iterator[Any], go: Callable[[Any, Any], Any]
) -> Iterator[list[Any]]:
    """For each segment its carry, and what is there after each of its steps."""
    for carry, count in zip(carries, counts.tolist(), strict=True):
        yield [*accumulate(islice(steps, count), go, initial=carry)]


def _each(how: Mix, n: int) -> Iterable[Mix]:
    """How each of so many elements blends."""
    if not isinstance(how.pull, np.ndarray):
        return repeat(how, n)
    return map(Mix, how.pull.tolist(), np.broadcast_to(how.newer, n).tolist())


def _side_by_side(
    counts: Ints, begin: list[Floats], values: Moments, links: tuple[Mix, Any], adjusted: bool
) -> tuple[Moments, Floats | None]:
    """All segments at once: first elements first, and of these the ones of the longest segments, so that
    those that go on are a slice."""
    n = len(values.mean)
    longest = np.argsort(-counts, kind="stable")
    place = np.empty_like(longest)
    place[longest] = np.arange(len(longest))
    rank = np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts)
    order = np.lexsort((np.repeat(place, counts), rank))
    begin = [array[longest] for array in begin]
    mass, masses = (begin.pop(), np.empty(n)) if adjusted else (None, None)
    older, totals = Moments(*begin), values.at(order)
    how, gain = links
    alike = not isinstance(how.pull, np.ndarray)
    for first, end in pairwise([0, *np.cumsum(np.bincount(rank)).tolist()]):
        at, going = slice(first, end), slice(0, end - first)
        older = older.at(going)
        link = how if alike else how.at(order[at])
        if mass is None or masses is None:
            older = join(older, totals.at(at), link)
        else:
            enters = gain if alike else gain[order[at]]
            older, mass = join_adjusted(older, mass[going], totals.at(at), link, enters)
            masses[at] = mass
        totals.put_spread(at, older)
    back = np.argsort(order)
    return totals.at(back), None if masses is None else masses[back]
