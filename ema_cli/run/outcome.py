"""One job of a batch and its outcome, as plain data that can be sent between processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from ema_cli.errors import EmaError
from ema_cli.job import Job, Summary
from ema_cli.run.observer import SILENT, Observer
from ema_cli.run.pipeline import run


@dataclass(frozen=True)
class Outcome:
    """The outcome for one input: a summary, or a problem, with the exit code of its error.

    observer: the observer of the job, with what it has recorded.
    """

    source: str
    target: str
    summary: Summary = field(default_factory=Summary)
    problem: str | None = None
    hint: str = ""
    exit_code: int = 0
    observer: Observer = SILENT


# Gives each job of a batch its observer.
MakeObserver = Callable[[Job], Observer]


def no_observer(_: Job) -> Observer:
    """No observer."""
    return SILENT


def smooth_file(job: Job, make_observer: MakeObserver = no_observer) -> Outcome:
    """Do a job of one input and one output; its errors are part of the outcome."""
    observer = make_observer(job)
    return outcome_of(job, lambda: run(job, observer), observer)


def outcome_of(job: Job, work: Callable[[], Summary], observer: Observer = SILENT) -> Outcome:
    """Do this work for a job of one input; its errors are part of the outcome."""
    source, target = job.inputs[0], str(job.output)
    try:
        return Outcome(source, target, work(), observer=observer)
    except EmaError as error:
        problem, hint, code = error.problem, error.hint, error.exit_code
    except MemoryError:
        problem, hint, code = "not enough memory", "", 1
    except Exception as error:  # the other jobs of the batch go on
        if os.environ.get("EMA_TRACEBACK"):
            raise
        problem = f"internal error, {type(error).__name__}: {error}"
        hint, code = "EMA_TRACEBACK=1 shows where; please report it", 1
    if source not in problem:
        problem = f"{source}: {problem}"
    return Outcome(source, target, problem=problem, hint=hint, exit_code=code)
