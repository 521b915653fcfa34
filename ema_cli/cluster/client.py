"""The steps of `parted`, done by a Dask cluster: `ema-smooth --dask`.

The scheduler, the workers, retries and the dashboard are Dask's. A step that is lost with its worker is
repeated, which is safe: no step changes its arguments, and an output is complete or does not exist.
"""

from __future__ import annotations

import logging
import os
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from distributed import Client, LocalCluster, WorkerPlugin

from ema_cli.cluster.chain import Chosen, choose
from ema_cli.cluster.dask_chain import Chain, as_typed, finish_staged, outcome_staged, unexpected
from ema_cli.cluster.remote import anywhere, expand, make_folder, staged
from ema_cli.errors import EmaError, FileTrouble, OptionError
from ema_cli.io.names import is_address
from ema_cli.io.temporary import at_interrupt, remove_abandoned
from ema_cli.job import Job
from ema_cli.process import set_process_defaults, usable_processors
from ema_cli.run.batch import Report, Tally, count_outcomes, make_local_folder, plan
from ema_cli.run.outcome import Outcome
from ema_cli.run.pipeline import run
from ema_cli.run.saved_state import SavedState, open_saved_state

# Seconds to wait for a scheduler.
PATIENCE = 30


def run_on_cluster(
    job: Job, folder: str, address: str, *, chain: bool = False, report: Report = lambda _: None
) -> Tally:
    """`folder.run_folder` on a Dask cluster: the same outputs, bit for bit.

    address: of a scheduler, or `local` or `local:N`: a cluster on this machine for as long as the run
    takes, with a process for every processor, or N. Inputs may be patterns, and addresses that fsspec knows.
    Raises OptionError, StateError and FileTrouble before any work; later errors are part of the outcomes.
    """
    if job.state is not None and not chain:
        problem = "--state with --output-dir: every input is a series of its own, but there is one state"
        raise OptionError(problem, "--chain, if they are parts of one series")
    if chain:
        refuse_order(job)
    job = replace(job, inputs=expand(job.inputs))
    typed = plan(job, folder)
    parts = [anywhere(part) for part in typed]
    make_folder(folder) if is_address(folder) else make_local_folder(folder)
    with ExitStack() as stack:
        memory = stack.enter_context(open_saved_state(job))
        if job.average.auto and memory.alphas is None and chain:
            problem = "--alpha auto reads the whole series many times, which --dask does not do"
            raise OptionError(problem, "find the weight in a sample first: ema-smooth SAMPLE --alpha auto")
        stack.callback(_sweep, parts)
        stack.enter_context(warnings.catch_warnings())
        # A part with a million keys needs the state of them all, so what is sent is large.
        warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
        client = stack.enter_context(connected(address, partial(_sweep, parts)))
        outcomes = _chained(client, memory, parts) if chain else _each(client, _smooth, parts)
        named = (as_typed(outcome, *both) for outcome, *both in zip(outcomes, parts, typed, strict=False))
        return count_outcomes(named, len(parts), report)


def refuse_order(job: Job) -> None:
    """Raise OptionError for options that compare each row with those before, which parts don't know."""
    given = {
        "--order": job.order is not None,
        f"--late {job.late}": job.late != "error",
        "--time-zone": job.time_zone is not None,
        "--newest-first": job.newest_first,
    }
    for option, there in given.items():
        if there:
            problem = f"{option} goes from part to part, which --dask with --chain does not do"
            raise OptionError(problem, "--chain without --dask")


def _chained(client: Client, memory: SavedState, parts: Sequence[Job]) -> Iterator[Outcome]:
    """The outcome of each part, in order, up to the first bad one; if none is bad, the state is saved."""
    choice = _choose(client, memory, parts)
    first = choice.part if isinstance(choice, Chosen) else choice
    for outcome in _each(client, finish_staged, parts[:first], None):
        yield outcome
        if outcome.problem is not None:
            return
    if not isinstance(choice, Chosen):
        return
    chain = Chain(client, memory, choice, parts[first:])
    for outcome in chain.outcomes():
        yield outcome
        if outcome.problem is not None:
            return
    with memory.saving() as save:
        save(choice.chosen, chain.trends, chain.keys)


def _each(
    client: Client, what: Callable[..., Outcome], parts: Sequence[Job], *more: Any
) -> Iterator[Outcome]:
    """The outcomes of independent parts, in order."""
    key = f"each-{os.urandom(4).hex()}"
    futures = [client.submit(what, part, *more, key=(key, k), priority=-k) for k, part in enumerate(parts)]
    for part, future in zip(parts, futures, strict=True):
        try:
            yield future.result()
        except Exception as error:  # a worker may raise anything: it may lack this package
            yield unexpected(part, error)


def _choose(client: Client, memory: SavedState, parts: Sequence[Job]) -> Chosen | int:
    """The columns to smooth, chosen by a worker and checked against the state; else as `_choose_staged`."""
    found = client.submit(_choose_staged, parts, memory.columns, memory.places, pure=False)
    choice: Chosen | int = found.result()
    if not isinstance(choice, Chosen):
        return choice
    memory.check(choice.chosen)
    return replace(choice, alphas=memory.alphas)


def _choose_staged(parts: Sequence[Job], columns: list[str] | None, places: list[int] | None) -> Chosen | int:
    """The columns, from the first part that has any; else how many parts to smooth without.

    An error ends the search: smoothing that part will report it.
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


def _smooth(part: Job) -> Outcome:
    return outcome_staged(part, run)


class ProcessDefaults(WorkerPlugin):  # type: ignore[misc] # Dask's are not looked at
    """Gives the processes of a local cluster the settings of the command's process."""

    name = "ema-smooth"

    def setup(self, worker: Any) -> None:  # noqa: ARG002 - Dask's signature
        set_process_defaults()


@contextmanager
def connected(address: str, at_interrupt_too: Callable[[], None]) -> Iterator[Client]:
    """A client of that scheduler; `local` and `local:N` are a cluster that lives as long as the block.

    at_interrupt_too: called when Ctrl-C has ended the processes of such a cluster. Raises FileTrouble where
    no scheduler answers, OptionError for a bad address.
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
        _quiet(),
        LocalCluster(
            n_workers=_workers(address),
            threads_per_worker=1,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):

        def end() -> None:
            for nanny in cluster.workers.values():
                with suppress(OSError, TypeError):
                    os.kill(nanny.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
            at_interrupt_too()

        with at_interrupt(end):
            client.register_plugin(ProcessDefaults())
            yield client


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress Python's warnings, about Dask's leftovers, in processes that the block starts."""
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = "ignore"
    try:
        yield
    finally:
        del os.environ["PYTHONWARNINGS"]
        if before is not None:
            os.environ["PYTHONWARNINGS"] = before


def _workers(address: str) -> int:
    number = address.removeprefix("local").removeprefix(":")
    if not number:
        return usable_processors()
    if not number.isdigit() or not int(number):
        raise OptionError(f"--dask {address}: not a number of processes", "--dask local:4")
    return int(number)


def _sweep(parts: Sequence[Job]) -> None:
    """Remove the temporary files of killed workers."""
    outputs = [part.output for part in parts if part.output is not None]
    remove_abandoned(name for name in outputs if not is_address(name))
