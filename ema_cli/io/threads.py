"""Threads that pack what is written: Arrow and the compressors leave the interpreter to others meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Threads:
    """Calls functions side by side, and gives what they return in the order in which they were handed over.

    most: how many calls may be under way.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.pool = ThreadPoolExecutor(most, "pack")  # whose threads start as there is something to do
        self.under_way: deque[Future[Any]] = deque()

    def call(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.under_way.append(self.pool.submit(function, *arguments))

    def results(self, *, all_of_them: bool = False) -> Iterator[Any]:
        """Those that are there; waits where more calls than `most` are under way, or for all of them."""
        most = 0 if all_of_them else self.most
        while self.under_way and (len(self.under_way) > most or self.under_way[0].done()):
            yield self.under_way.popleft().result()

    def stop(self) -> None:
        """Don't wait for calls under way, and begin no other."""
        self.pool.shutdown(wait=False, cancel_futures=True)
