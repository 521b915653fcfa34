"""Jobs of a batch in several processes; each process is started once and does one job after another."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from ema_cli.io.signals import PROMPT, handle_interrupts, unblock_interrupts, uninterrupted
from ema_cli.io.temporary import at_interrupt, forget_all
from ema_cli.job import Job
from ema_cli.process import may_fork
from ema_cli.run.outcome import MakeObserver, Outcome, no_observer, smooth_file

# Seconds that a worker has to remove its temporary files when it is told to end.
GRACE = 10


class Worker:
    """A process that does jobs. job: the one that it is doing now."""

    def __init__(self, others: Sequence[Worker], make_observer: MakeObserver) -> None:
        forks = may_fork()  # which spares every worker the imports
        context: Any = multiprocessing.get_context("fork" if forks else "spawn")
        self.connection, theirs = context.Pipe()
        # A forked worker has copies of these; while they are open it can't notice that its parent has ended.
        inherited = [self.connection, *(other.connection for other in others)] if forks else []
        self.process = context.Process(target=_work, args=(theirs, inherited, make_observer), daemon=True)
        self.process.start()
        theirs.close()
        self.job: Job | None = None

    def hand(self, job: Job | None) -> None:
        """Give it a job; None ends it."""
        self.job = job
        with suppress(OSError):  # it has died; `outcome` will find that out
            self.connection.send(job)

    def outcome(self) -> Outcome | None:
        """The outcome of its job; None if the process has died."""
        try:
            outcome: Outcome = self.connection.recv()
        except (EOFError, OSError):
            return None
        return outcome

    def end(self) -> None:
        """Make it remove its temporary files and end, whatever it is doing."""
        if self.process.is_alive():
            self.process.terminate()
        self.process.join(GRACE)


def at_once(
    jobs: Sequence[Job], workers: int, make_observer: MakeObserver = no_observer
) -> Iterator[Outcome]:
    """The outcomes of all jobs as they come, from `workers` processes. make_observer: can be pickled."""
    waiting = list(reversed(jobs))
    team: list[Worker] = []

    def end_all() -> None:
        for worker in team:
            worker.end()

    with ExitStack() as stack:
        stack.enter_context(at_interrupt(end_all))
        stack.callback(end_all)
        for _ in range(workers):
            _start(team, make_observer).hand(waiting.pop())
        while busy := {worker.connection: worker for worker in team if worker.job is not None}:
            for connection in wait(list(busy), PROMPT):
                worker = busy[connection]
                job, outcome = worker.job, worker.outcome()
                if outcome is None and job is not None:
                    worker.end()
                    outcome = _died(job, worker.process.exitcode)
                    team.remove(worker)
                    worker = _start(team, make_observer)
                worker.hand(waiting.pop() if waiting else None)
                if outcome is not None:
                    yield outcome


def _start(team: list[Worker], make_observer: MakeObserver) -> Worker:
    """Add a worker to the team; signals wait until it can be ended, and handles signals itself."""
    with uninterrupted():
        team.append(Worker(team, make_observer))
    return team[-1]


def _died(job: Job, code: int | None) -> Outcome:
    source = job.inputs[0]
    problem = f"{source}: its process was killed (exit code {code}); is there too little memory?"
    return Outcome(source, str(job.output), problem=problem, hint="a smaller -j", exit_code=1)


def _work(connection: Connection, inherited: Sequence[Connection], make_observer: MakeObserver) -> None:
    """What a worker does: jobs until it is told to end, or its parent is gone."""
    forget_all()
    handle_interrupts()
    unblock_interrupts()
    for other in inherited:
        other.close()
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while (job := connection.recv()) is not None:
            connection.send(smooth_file(job, make_observer))
    # As the command does (`console.leave`): Arrow sometimes aborts while Python shuts down.
    sys.stderr.flush()
    os._exit(0)
