"""The steps of `parted` as lazy Dask tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from dask.delayed import Delayed, delayed

from ema_cli.cluster.parted import Carried, Position, Smoothing, Spot, carried_of, carry, digest, measure


@dataclass(frozen=True)
class Stage:
    """Where a part begins, and the state there, as delayed objects."""

    position: Any
    carried: Any


def stages(
    smoothing: Smoothing, loads: Sequence[Any], start: tuple[Position, Carried], token: str
) -> list[Stage]:
    """The stage before each part, and the one after the last. loads: each part's `Loaded`, delayed.

    token: makes the names of this run's tasks unique.
    """

    def task(step: Callable[..., Any], name: str, k: int, *given: Any) -> Delayed:
        return delayed(step, pure=False)(*given, dask_key_name=(f"{name}-{token}", k))

    before = Stage(task(partial(_same, start[0]), "begin", 0), task(partial(_same, start[1]), "begin", 1))
    out = [before]
    for k, loaded in enumerate(loads):
        size = task(partial(_measure, smoothing), "measure", k, loaded)
        followed = task(_follow, "follow", k, before.position, size)
        position, spot = (task(pick, pick.__name__[1:], k, followed) for pick in (_position, _spot))
        digested = task(partial(digest, smoothing), "digest", k, loaded, spot)
        before = Stage(position, task(partial(_carry, smoothing), "carry", k, before.carried, digested, spot))
        out.append(before)
    return out


def _same(what: Any) -> Any:
    return what


def _measure(smoothing: Smoothing, loaded: Any) -> tuple[Any, Any]:
    """The counts and keys of a part, from which it follows where the next one begins."""
    return measure(smoothing, loaded), loaded.texts


def _follow(position: Position, size: tuple[Any, Any]) -> tuple[Position, Spot]:
    position = position.copy()
    spot = position.advance(*size)
    return position, spot


def _carry(smoothing: Smoothing, carried: Carried, summaries: Any, spot: Spot) -> Carried:
    trends = carried.trends(smoothing)
    carry(trends, summaries, spot)
    return carried_of(trends)


def _position(followed: tuple[Position, Spot]) -> Position:
    return followed[0]


def _spot(followed: tuple[Position, Spot]) -> Spot:
    return followed[1]
