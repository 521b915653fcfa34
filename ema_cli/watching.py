"""Who looks on at a run of the command: a bar, a picture, or nobody."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ema_cli.job import Job
from ema_cli.progress import Progress, make_progress
from ema_cli.watcher import Several, Watcher

Say = Callable[[str], None]


@contextmanager
def watching(job: Job, plot: str | None, progress: bool | None, say: Say) -> Iterator[Watcher]:
    """The watcher of a run; at the end of the block, however it ends, the bar is gone from the terminal.

    plot: a file to draw, or `-`. progress: whether there is a bar; None: on a terminal, when it takes long.
    say: takes messages to the user. Raises OptionError or FileTrouble for a picture that can't be made.
    """
    watchers: list[Watcher] = []
    bar: Progress | None = make_progress(job.inputs, sys.stderr, progress)
    if bar is not None:
        watchers.append(bar)
    plotter = None
    if plot is not None:
        from ema_cli.extras.plot import Plotter

        plotter = Plotter(job, plot, sys.stderr, say)
        watchers.append(plotter)
    try:
        yield Several(watchers)
    finally:
        if bar is not None:
            bar.erase()
    if plotter is not None and plotter.empty:
        say(f"--plot {plot}: no rows, so nothing is drawn")
