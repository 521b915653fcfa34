"""The steps of `parted`, done by a Dask cluster: `ema-smooth --dask`.

The scheduler, the workers, retries and the dashboard are Dask's. A step that is lost with its worker is
done again, which is safe: no step changes what it is given, and an output is complete or not there.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from dask.delayed import Delayed, delayed
from distributed import Client, Future, KilledWorker, LocalCluster, WorkerPlugin

from ema_cli.chain import Choice, choose, finish, load
from ema_cli.errors import EmaError, FileTrouble, OptionError
from ema_cli.extras.dask_graph import Stage, stages
from ema_cli.extras.remote import expand, is_remote, make_folder, staged
from ema_cli.files import at_interrupt, remove_temporaries_of
from ema_cli.folder import Report, Tally, make_local_folder, plan
from ema_cli.job import Job, Summary
from ema_cli.memory import Memory, open_memory
from ema_cli.outcome import Outcome, outcome_of
from ema_cli.parted import Loaded, begin
from ema_cli.pipeline import run
from ema_cli.process import settle

# Seconds to wait for a scheduler.
PATIENCE = 30


def run_on_cluster(
    job: Job, folder: str, address: str, *, chain: bool = False, report: Report = lambda _: None
) -> Tally:
    """`folder.run_folder` on a Dask cluster: the same outputs, bit for bit.

    address: of a scheduler, or `local` or `local:N`: a cluster on this machine for as long as the run
    takes, with a process for every processor, or N. Inputs may be patterns, and addresses that fsspec knows.
    Raises OptionError, StateError and FileTrouble before any work; what goes wrong later is an outcome.
    """
    if job.state is not None and not chain:
        problem = "--state with --output-dir: every input is a series of its own, but there is one state"
        raise OptionError(problem, "--chain, if they are parts of one series")
    job = replace(job, inputs=expand(job.inputs))
    parts = plan(job, folder)
    make_folder(folder) if is_remote(folder) else make_local_folder(folder)
    with ExitStack() as stack:
        memory = stack.enter_context(open_memory(job))
        stack.callback(_sweep, parts)
        client = stack.enter_context(connected(address, partial(_sweep, parts)))
        if chain:
            return _chained(client, memory, parts, report)
        futures = client.map(_smooth, parts, pure=False, key=f"smooth-{os.urandom(4).hex()}")
        tally = Tally()
        for part, future in zip(parts, futures, strict=True):
            outcome = _outcome(part, future)
            tally.count(outcome)
            report(outcome)
        return tally


def _chained(client: Client, memory: Memory, parts: Sequence[Job], report: Report) -> Tally:
    choice = _choose(client, memory, parts)
    first = choice.part if isinstance(choice, Choice) else choice
    before, after = parts[:first], parts[first:] if isinstance(choice, Choice) else []
    token = os.urandom(4).hex()
    finished = [_finish(part, None, None, token, k) for k, part in enumerate(before)]
    last: Stage | None = None
    if isinstance(choice, Choice):
        series = choice.series(memory.job)
        start = begin(series, *memory.carry_on(choice.chosen))
        loads = [
            delayed(_load, pure=False)(part, choice, dask_key_name=(f"load-{token}", k))
            for k, part in enumerate(after)
        ]
        *befores, last = stages(series, loads, start, token)
        for k, (part, stage) in enumerate(zip(after, befores, strict=True)):
            finished.append(_finish(part, choice, stage, token, first + k))
    wanted = [*finished, last.carried, last.position] if last is not None and memory.job.state else finished
    futures = client.compute(wanted)
    tally = Tally(skipped=len(parts))
    for part, future in zip(parts, futures, strict=False):
        outcome = _outcome(part, future)
        tally.count(outcome)
        report(outcome)
        tally.skipped -= 1
        if outcome.problem is not None:
            client.cancel(futures, force=True)
            return tally
    if len(wanted) > len(finished) and isinstance(choice, Choice):
        carried, position = client.gather(futures[-2:])
        with memory.saving() as keep:
            keep(choice.chosen, carried.trends(choice.series(memory.job)), position.keys)
    return tally


def _choose(client: Client, memory: Memory, parts: Sequence[Job]) -> Choice | int:
    """What is to be smoothed, as a worker finds it; checked against the state."""
    if memory.job.average.auto and memory.alphas is None:
        problem = "--alpha auto reads the whole series many times, which --dask does not do"
        raise OptionError(problem, "find the weight in a sample first: ema-smooth SAMPLE --alpha auto -v")
    found = client.submit(_choose_staged, parts, memory.columns, memory.places, pure=False)
    choice: Choice | int = found.result()
    if not isinstance(choice, Choice):
        return choice
    memory.check(choice.chosen)
    return replace(choice, alphas=memory.alphas)


def _finish(part: Job, choice: Choice | None, stage: Stage | None, token: str, k: int) -> Delayed:
    known = (None, None) if stage is None else (stage.carried, stage.position)
    return delayed(_finish_staged, pure=False)(part, choice, *known, dask_key_name=(f"finish-{token}", k))


def _choose_staged(parts: Sequence[Job], columns: list[str] | None, places: list[int] | None) -> Choice | int:
    """What the first part that tells settles for all; else how many parts there are to be done without it.

    An error ends the search: the part will say for itself what is wrong.
    """
    for number, part in enumerate(parts):
        try:
            with staged(part) as here:
                choice = choose(here, columns, places)
        except EmaError:
            return number + 1
        if choice is not None:
            return replace(choice, part=number)
    return len(parts)


def _load(part: Job, choice: Choice) -> Loaded:
    try:
        with staged(part) as here:
            return load(here, choice)
    except EmaError as error:  # of a kind that can travel
        raise EmaError(error.problem, error.hint) from None


def _finish_staged(part: Job, choice: Choice | None, carried: Any, position: Any) -> Outcome:
    return _outcome_staged(part, lambda here: finish(here, choice, carried, position))


def _smooth(part: Job) -> Outcome:
    return _outcome_staged(part, run)


def _outcome_staged(part: Job, work: Callable[[Job], Summary]) -> Outcome:
    def with_files() -> Summary:
        with staged(part, write=True) as here:
            summary = work(here)
            summary.notes = [note.replace(here.inputs[0], part.inputs[0]) for note in summary.notes]
            return summary

    return outcome_of(part, with_files)


def _outcome(part: Job, future: Future) -> Outcome:
    """What became of a part, whatever happened to those who did it."""
    source, target = part.inputs[0], str(part.output)
    try:
        outcome: Outcome = future.result()
        return outcome
    except KilledWorker as error:
        problem = f"{source}: {error.allowed_failures + 1} workers died of it; is there too little memory?"
        return Outcome(source, target, problem=problem, hint="smaller parts", exit_code=1)
    except EmaError as error:
        return Outcome(source, target, problem=str(error.problem), hint=error.hint, exit_code=1)
    except (
        Exception
    ) as error:  # whatever a worker may send: it may lack this package, or have another version
        problem = f"{source}: {type(error).__name__}: {error}"
        hint = "the same versions of ema-smooth and its packages on all workers"
        return Outcome(source, target, problem=problem, hint=hint, exit_code=1)


class Settled(WorkerPlugin):  # type: ignore[misc] # Dask's are not looked at
    """Makes the processes of a cluster of our own as quick as the command's."""

    name = "ema-smooth"

    def setup(self, worker: Any) -> None:  # noqa: ARG002 - Dask's signature
        settle(pandas=True)


@contextmanager
def connected(address: str, at_interrupt_too: Callable[[], None]) -> Iterator[Client]:
    """A client of the scheduler there; `local` and `local:N` are a cluster for the length of the block.

    at_interrupt_too: done when Ctrl-C has ended the processes of such a cluster. Raises FileTrouble where no
    scheduler answers, OptionError for an address that is none.
    """
    if address.split(":", maxsplit=1)[0] != "local":
        try:
            client = Client(address, timeout=PATIENCE, set_as_default=False)
        except (OSError, ValueError) as error:
            hint = "start one: dask scheduler; or use this machine: --dask local"
            raise FileTrouble(address, f"no Dask scheduler answers ({error})", hint) from None
        with client:
            yield client
        return
    with (
        LocalCluster(
            n_workers=_workers(address),
            threads_per_worker=1,
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):

        def end() -> None:
            for nanny in cluster.workers.values():
                with suppress(OSError, TypeError):
                    os.kill(nanny.pid, signal.SIGKILL)
            at_interrupt_too()

        with at_interrupt(end):
            client.register_plugin(Settled())
            yield client


def _workers(address: str) -> int:
    number = address.removeprefix("local").removeprefix(":")
    if not number:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not number.isdigit() or not int(number):
        raise OptionError(f"--dask {address}: not a number of processes", "--dask local:4")
    return int(number)


def _sweep(parts: Sequence[Job]) -> None:
    """Remove what workers that were killed have left."""
    for part in parts:
        if part.output is not None and not is_remote(part.output):
            remove_temporaries_of(part.output)
