"""The observers of a run of the command, or of a batch of runs: a bar, a picture, both or none."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ema_cli.errors import OptionError
from ema_cli.job import Job
from ema_cli.run.observer import Observer, Several
from ema_cli.run.outcome import MakeObserver, Outcome, no_observer
from ema_cli.run.progress import Progress, make_progress

if TYPE_CHECKING:
    from ema_cli.plotting.chart import Look

Say = Callable[[str], None]
Report = Callable[[Outcome], None]


@dataclass(frozen=True)
class Drawing:
    """A picture that is asked for. target: a file, or `-` for the terminal."""

    target: str
    look: Look


def make_drawing(options: dict[str, Any]) -> Drawing | None:
    """The picture that the command's options ask for. Raises OptionError."""
    target = options["plot"]
    if target is None:
        given = [name for name in ("title", "size", "log", "relative") if options[name]]
        if given:
            raise OptionError(f"--{given[0]} is for a picture", f"--plot trend.png --{given[0]} …")
        return None
    from ema_cli.plotting.chart import Look
    from ema_cli.plotting.plot import read_size

    size = read_size(options["size"])
    return Drawing(target, Look(options["title"], size, options["log"], options["relative"]))


@contextmanager
def observing(job: Job, drawing: Drawing | None, progress: bool | None, say: Say) -> Iterator[Observer]:
    """The observer of a run; at the end of the block the bar is removed and the picture put in its place.

    drawing: the picture that is asked for. progress: whether there is a bar; None: on a terminal, when it
    takes long. say: takes messages to the user.
    Raises OptionError or FileTrouble for a picture that can't be made.
    """
    observers: list[Observer] = []
    prints = job.output in (None, "-")
    bar: Progress | None = make_progress(job.inputs, sys.stderr, progress, prints)
    if bar is not None:
        observers.append(bar)
    plotter, place = None, ExitStack()
    if drawing is not None:
        from ema_cli.plotting.plot import Plotter

        plotter = Plotter(job, drawing.target, drawing.look, say, place)
        observers.append(plotter)
    with place:
        try:
            yield Several(observers)
        finally:
            if bar is not None:
                bar.erase()
    if plotter is not None and plotter.empty:
        say(f"--plot {plotter.target}: no rows, so nothing is drawn")


@contextmanager
def comparing(
    job: Job, drawing: Drawing | None, *, chain: bool, report: Report, say: Say
) -> Iterator[tuple[Report, MakeObserver]]:
    """`report` that also keeps what the observers of a batch recorded, and what makes these observers; at the
    end of the block the picture of all inputs is drawn. chain: they are parts of one series.

    Raises OptionError or FileTrouble for a picture that can't be made.
    """
    if drawing is None:
        yield report, no_observer
        return
    from ema_cli.plotting.plot import Comparison

    comparison = Comparison(job, drawing.target, drawing.look, say, chain=chain)

    def report_and_keep(outcome: Outcome) -> None:
        report(outcome)
        comparison.finished(outcome.source, outcome.observer)

    yield report_and_keep, comparison.make_observer
    comparison.draw()


@contextmanager
def counting(job: Job, progress: bool | None, report: Report) -> Iterator[Report]:
    """`report` with a bar for a batch of files below its messages, which advances with every file."""
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
