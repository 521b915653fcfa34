"""Who looks on at a run of the command: a bar, a picture, or nobody."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from ema_cli.job import Job
from ema_cli.run.observer import Observer, Several
from ema_cli.run.outcome import Outcome
from ema_cli.run.progress import Progress, make_progress

Say = Callable[[str], None]
Report = Callable[[Outcome], None]


@contextmanager
def watching(job: Job, plot: str | None, progress: bool | None, say: Say) -> Iterator[Observer]:
    """The watcher of a run; when the block ends, the bar is gone and the picture in its place.

    plot: a file to draw, or `-`. progress: whether there is a bar; None: on a terminal, when it takes long.
    say: takes messages to the user. Raises OptionError or FileTrouble for a picture that can't be made.
    """
    watchers: list[Observer] = []
    prints = job.output in (None, "-")
    bar: Progress | None = make_progress(job.inputs, sys.stderr, progress, prints)
    if bar is not None:
        watchers.append(bar)
    plotter, place = None, ExitStack()
    if plot is not None:
        from ema_cli.plot.plot import Plotter

        plotter = Plotter(job, plot, say, place)
        watchers.append(plotter)
    with place:
        try:
            yield Several(watchers)
        finally:
            if bar is not None:
                bar.erase()
    if plotter is not None and plotter.empty:
        say(f"--plot {plot}: no rows, so nothing is drawn")


@contextmanager
def counting(job: Job, progress: bool | None, report: Report) -> Iterator[Report]:
    """`report` with a bar for a batch of files below what it says, which goes on with every file."""
    bar = make_progress(job.inputs, sys.stderr, progress, prints=False)
    if bar is None:
        yield report
        return

    def report_and_count(outcome: Outcome) -> None:
        bar.erase()
        report(outcome)
        bar.finished(outcome.source)

    try:
        yield report_and_count
    finally:
        bar.erase()
