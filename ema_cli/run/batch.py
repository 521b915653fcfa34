"""Many inputs in one run: an output for each in a folder, several at once or as one chained series."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ema_cli.errors import FileTrouble, OptionError
from ema_cli.formats.registry import FORMATS, format_of_name, split_suffix
from ema_cli.io.atomic import make_folder, same_file, syncing_once, system_words
from ema_cli.job import Job
from ema_cli.process import usable_processors
from ema_cli.run.observer import Observer
from ema_cli.run.outcome import MakeObserver, Outcome, no_observer, outcome_of, smooth_file
from ema_cli.run.pipeline import run_part
from ema_cli.run.saved_state import open_saved_state, save_nothing


@dataclass
class Tally:
    """The outcomes of all inputs, counted. skipped: parts of a chain after a bad one."""

    written: int = 0
    failed: int = 0
    skipped: int = 0
    rows: int = 0
    exit_codes: set[int] = field(default_factory=set)

    def count(self, outcome: Outcome) -> None:
        self.exit_codes.add(outcome.exit_code)
        self.failed += outcome.problem is not None
        self.written += outcome.problem is None
        self.rows += outcome.summary.rows

    @property
    def exit_code(self) -> int:
        """0 if all went well, 2 if all failed because of the options, else 1."""
        return max(self.exit_codes, default=0) if len(self.exit_codes) < 2 else 1

    def __str__(self) -> str:
        every = self.written + self.failed + self.skipped
        text = f"{self.written:,} of {every:,} file{'s' * (every != 1)} written, {self.rows:,} rows"
        text += f"; {self.failed:,} failed" if self.failed else ""
        return text + (f"; {self.skipped:,} after it not begun" if self.skipped else "")


Report = Callable[[Outcome], None]


def run_folder(
    job: Job,
    folder: str,
    jobs: int = 1,
    chain: bool = False,
    report: Report = lambda _: None,
    make_observer: MakeObserver = no_observer,
) -> Tally:
    """Smooth each input of the job into a file of the same base name in `folder`, which is made if need be.

    jobs: how many at once; 0 is as many as there are processors. chain: the inputs are parts of one series;
    after a bad one nothing more is written, and the state stays as it was. report: called with every outcome
    as it comes; one failing input does not stop the others. make_observer: called for each job (once for all
    parts of a chain), and can be pickled.
    Raises OptionError before any work where two outputs would have one name or one would replace an input,
    FileTrouble where the folder can't be made, StateError.
    """
    if chain and job.newest_first:
        problem = "--chain goes from the first file to the last, --newest-first from the last to the first"
        raise OptionError(problem, "-o FILE for one output of all files, or no --chain")
    if job.state is not None and not chain:
        problem = "--state with --output-dir: every input is a series of its own, but there is one state"
        raise OptionError(problem, "--chain, if they are parts of one series")
    parts = plan(job, folder)
    make_local_folder(folder)
    outcomes: Iterable[Outcome]
    if chain:
        return count_outcomes(_chained(job, parts, make_observer(job)), len(parts), report)
    if (workers := min(jobs or usable_processors(), len(parts))) > 1:
        from ema_cli.run.workers import at_once

        outcomes = at_once(parts, workers, make_observer)
    else:
        outcomes = map(partial(smooth_file, make_observer=make_observer), parts)
    with syncing_once(folder):
        return count_outcomes(outcomes, len(parts), report)


def count_outcomes(outcomes: Iterable[Outcome], parts: int, report: Report) -> Tally:
    """Report outcomes as they come, and count them. parts: how many there should be."""
    tally = Tally()
    for outcome in outcomes:
        tally.count(outcome)
        report(outcome)
    tally.skipped = parts - tally.written - tally.failed
    return tally


def plan(job: Job, folder: str) -> list[Job]:
    """One job an input. Raises OptionError for outputs that collide with each other or with an input."""
    parts = []
    owners: dict[str, str] = {}
    inputs = {os.path.realpath(name) for name in job.inputs}
    for source in job.inputs:
        if source == "-":
            raise OptionError("--output-dir: stdin has no name that its output could have", "name the files")
        target = os.path.join(folder, target_name(source, job.target))  # noqa: PTH118 - as it was typed
        real = os.path.realpath(target)
        if real in owners:
            problem = f"{owners[real]} and {source} would both be written to {target}"
            raise OptionError(problem, "a folder for each, or other names")
        if real in inputs or (os.path.exists(real) and same_file(real, source)):  # noqa: PTH110
            problem = f"{target} is an input: a batch that is cut short could not be run again"
            raise OptionError(problem, "another folder for the outputs")
        if job.state is not None and any(same_file(real, job.state + end) for end in ("", ".lock")):
            raise OptionError(f"--state {job.state} is also an output", "--state ema.state")
        if os.path.islink(target):  # noqa: PTH114
            problem = f"{target} is a link that leads elsewhere, and was not named"
            raise OptionError(problem, f"remove it, or write that file alone: -o {target}")
        owners[real] = source
        parts.append(replace(job, inputs=(source,), output=target))
    return parts


def target_name(source: str, target: str | None) -> str:
    """The base name of an output: the input's, with the suffix of another format where one is asked for."""
    base = os.path.basename(source)  # noqa: PTH119 - as it was typed
    if target is None:
        return base
    stem, suffix, packed = split_suffix(base)
    packed = "" if FORMATS[target].binary else packed
    came_as = format_of_name(base)
    if came_as == target:
        return stem + suffix + packed
    return f"{stem if came_as else stem + suffix}.{target}{packed}"


def make_local_folder(folder: str) -> None:
    """Make the folder that outputs go to, if need be. Raises FileTrouble."""
    try:
        make_folder(Path(folder))
    except FileExistsError as error:
        raise FileTrouble(folder, "is a file, not a folder", "name another folder") from error
    except OSError as error:
        raise FileTrouble(folder, system_words(error)) from error


class _BrokenChainError(Exception):
    """A part was bad: nothing after it, and no state."""


def _chained(job: Job, parts: Sequence[Job], observer: Observer) -> Iterator[Outcome]:
    """The outcomes of parts, each going on where the last one ended, up to the first bad one."""
    folder = os.path.dirname(parts[0].output or "")  # noqa: PTH120 - as it was typed
    # All outputs are synced to the disk before the state.
    with (
        suppress(_BrokenChainError),
        open_saved_state(job) as memory,
        memory.saving() as save,
        syncing_once(folder),
    ):
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            outcome = outcome_of(
                part, partial(run_part, part, memory, save if last else save_nothing, observer), observer
            )
            yield outcome
            if outcome.problem is not None:
                raise _BrokenChainError
