"""A chain of parts on a Dask cluster: workers do the parallel steps of `parted`, this process the others.

The state stays here, so a worker that dies loses nothing but the parts that it was working on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from distributed import Client, Future, KilledWorker, as_completed

from ema_cli.cluster.chain import Chosen, finish, load
from ema_cli.cluster.parted import Loaded, Smoothing, Spot, begin, carried_of, carry, cut_out, digest, measure
from ema_cli.cluster.remote import staged
from ema_cli.engine.digest import Digest
from ema_cli.errors import EmaError
from ema_cli.job import Job
from ema_cli.job import Summary as Account
from ema_cli.run.outcome import Outcome, outcome_of
from ema_cli.run.saved_state import SavedState

# Parts begun for each thread of the cluster: one is worked on, others wait for earlier parts.
IN_HAND = 3
SAME = "the same versions of ema-smooth and its packages on all workers"


class Chain:
    """The parts of one series, from the first that has something to smooth.

    trends, keys: the state after the parts that have been carried so far; at the end, after all.
    """

    def __init__(self, client: Client, memory: SavedState, choice: Chosen, parts: Sequence[Job]) -> None:
        self.client, self.choice, self.parts = client, choice, parts
        self.smoothing = choice.smoothing(memory.job)
        self.trends, self.keys = memory.carry_on(choice.chosen)
        self.position, _ = begin(self.trends, self.keys)
        self.token = os.urandom(4).hex()
        self.arrivals = as_completed(loop=client.loop, with_results=True, raise_errors=False)
        self.loads: dict[int, Future] = {}
        self.sizes: dict[int, Any] = {}
        self.spots: dict[int, tuple[Spot, Sequence[Any]]] = {}
        self.digests: dict[int, list[Digest]] = {}
        self.bad: dict[int, BaseException] = {}
        self.done: dict[int, Outcome] = {}
        self.most = self.next_look = 0
        # How many parts, from the first, have passed each step.
        self.begun = self.placed = self.asked = self.carried = self.finished = 0

    def outcomes(self) -> Iterator[Outcome]:
        """The outcome of each part, in order, up to the first bad one."""
        self._begin_more()
        for future, result in self.arrivals:
            step, k = future.key
            self._arrived(step.split("-")[0], k, result, _error_of(future, result))
            while (outcome := self.done.pop(self.finished, None)) is not None:
                yield outcome
                if outcome.problem is not None:
                    return
                self.finished += 1
            self._begin_more()

    def _begin_more(self) -> None:
        """Begin more parts, but only as many as the cluster's threads can do soon."""
        if self.begun == len(self.parts) or self.bad:
            return
        if self.begun >= self.next_look:  # a cluster may grow
            self.most = IN_HAND * max(1, sum(self.client.nthreads().values()))
            self.next_look = self.begun + self.most
        for k in range(self.begun, min(self.finished + self.most, len(self.parts))):
            self.loads[k] = self._ask(load_staged, "load", k, self.parts[k], self.choice)
            self.arrivals.add(self._ask(_size, "measure", k, self.smoothing, self.loads[k]))
            self.begun = k + 1

    def _ask(self, what: Callable[..., Any], step: str, k: int, *given: Any) -> Future:
        """Submit a step; earlier parts go first."""
        key = (f"{step}-{self.token}", k)
        return self.client.submit(what, *given, key=key, priority=-k, pure=False)

    def _arrived(self, step: str, k: int, result: Any, error: BaseException | None) -> None:
        """Note the result of a step, and do what it makes possible."""
        if step == "finish":
            self.done[k] = result if error is None else unexpected(self.parts[k], error)
            if k in self.bad and self.done[k].problem is None:
                self.done[k] = unexpected(self.parts[k], self.bad[k])
            return
        if error is not None:
            self.bad[k] = error
            del self.loads[k]
        elif step == "measure":
            self.sizes[k] = result
        else:
            self.digests[k] = result
            del self.loads[k]
        self._place()
        self._carry_over()

    def _place(self) -> None:
        """Compute where parts begin, as far as all parts before them are counted."""
        while (size := self.sizes.pop(self.placed, None)) is not None:
            k, (counts, texts) = self.placed, size
            self.spots[k] = self.position.advance(counts, texts), texts
            self.arrivals.add(self._ask(digest, "digest", k, self.smoothing, self.loads[k], self.spots[k][0]))
            self.placed += 1

    def _carry_over(self) -> None:
        """Submit parts to be finished, and carry the state past them, as far as possible."""
        while True:
            k = self.carried
            if k == self.asked and (k in self.spots or k in self.bad):
                self._finish(k)
            if k not in self.digests or k in self.bad:
                return
            spot, _ = self.spots.pop(k)
            try:
                carry(self.trends, self.digests.pop(k), spot)
            except EmaError as error:
                self.bad[k] = error
                return
            self.carried += 1

    def _finish(self, k: int) -> None:
        """Submit a part to be written; for a bad one, this gives the best error message."""
        if k in self.spots:
            spot, texts = self.spots[k]
            before = cut_out(self.trends, spot)
        else:
            before, texts = carried_of(self.trends), self.keys.texts()
        self.arrivals.add(self._ask(finish_staged, "finish", k, self.parts[k], self.choice, before, texts))
        self.asked += 1


def _error_of(future: Future, result: Any) -> BaseException | None:
    """What a step that has arrived failed of.

    Its result is here: it is no error if the cluster has lost it since, with the worker that had it.
    """
    if future.status == "error":
        error: BaseException = future.exception()
        return error
    return RuntimeError("the cluster has dropped it") if isinstance(result, BaseException) else None


def _size(smoothing: Smoothing, loaded: Loaded) -> tuple[Any, Any]:
    """The counts and keys of a part, from which it follows where the next one begins."""
    return measure(smoothing, loaded), loaded.texts


def load_staged(part: Job, choice: Chosen) -> Loaded:
    """`chain.load` of a part that may be remote."""
    try:
        with staged(part) as here:
            return load(here, choice)
    except EmaError as error:  # as one that can be pickled
        raise EmaError(error.problem, error.hint) from None


def finish_staged(part: Job, choice: Chosen | None, before: Any = None, texts: Sequence[Any] = ()) -> Outcome:
    """`chain.finish` of a part that may be remote; errors are part of the outcome."""
    return outcome_staged(part, lambda here: finish(here, choice, before, texts))


def outcome_staged(part: Job, work: Callable[[Job], Account]) -> Outcome:
    """Do a job on local copies of its files; errors are part of the outcome."""

    def with_files() -> Account:
        with staged(part, write=True) as here:
            account = work(here)
            account.notes = [note.replace(here.inputs[0], part.inputs[0]) for note in account.notes]
            return account

    return outcome_of(part, with_files)


def unexpected(part: Job, error: BaseException) -> Outcome:
    """The outcome of a part for which no worker could give one."""
    source, target = part.inputs[0], str(part.output)
    if isinstance(error, KilledWorker):
        problem = f"{source}: {error.allowed_failures + 1} workers died of it; is there too little memory?"
        hint = "smaller parts"
    elif isinstance(error, EmaError):
        problem, hint = error.problem, error.hint
    else:
        problem, hint = f"{source}: {type(error).__name__}: {error}", SAME
    return Outcome(source, target, problem=problem, hint=hint, exit_code=1)


def as_typed(outcome: Outcome, part: Job, typed: Job) -> Outcome:
    """The outcome with the names that the user typed in place of those that the workers used."""

    def renamed(text: str) -> str:
        return text.replace(part.inputs[0], typed.inputs[0]).replace(str(part.output), str(typed.output))

    outcome.summary.notes = [renamed(note) for note in outcome.summary.notes]
    problem = None if outcome.problem is None else renamed(outcome.problem)
    source, target = typed.inputs[0], str(typed.output)
    return replace(outcome, source=source, target=target, problem=problem, hint=renamed(outcome.hint))
