"""`--plot`: a run is recorded while it goes on, and drawn when its output is complete."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from ema_cli.errors import FileTrouble, OptionError
from ema_cli.formats.base import Batch, Floats
from ema_cli.io.atomic import shared_mode
from ema_cli.io.streams import open_output
from ema_cli.job import Job, Summary
from ema_cli.plotting.chart import Chart, Look, make_chart
from ema_cli.plotting.record import PAGE, PICTURE, Limits, Record, recorded, recorded_runs, run_names
from ema_cli.run.observer import Observer
from ema_cli.run.selection import Selection

PAGES = ".html"
# The kinds of file that there are; all but the page are drawn by matplotlib.
SUFFIXES = (".png", ".svg", ".pdf", PAGES)
_SIZE = re.compile(r"([0-9]{1,5})[x×]([0-9]{1,5})")
LEAST_SIZE, MOST_SIZE = 10, 20_000
Note = Callable[[str], None]


class Recorder(Observer):
    """Keeps of one run what is needed to draw it; can be sent between processes."""

    def __init__(self, job: Job, limits: Limits) -> None:
        self.job, self.limits = job, limits
        self.record: Record | None = None
        self.summary = Summary()

    def begin(self, chosen: Selection) -> None:
        if self.record is None:  # the parts of a chain are one series
            self.record = Record(self.job, chosen, self.limits)

    def saw(self, batch: Batch, fields: Floats) -> None:
        if self.record is not None:
            self.record.add(batch, fields)

    def end(self, summary: Summary) -> None:
        self.summary = summary

    @property
    def empty(self) -> bool:
        """There was nothing to draw."""
        return self.record is None or not self.record.tracks


class Plotter(Recorder):
    """Draws one run into a file, or as text.

    target: the file, or `-` for the terminal at stderr. note: takes messages to the user. place: its end puts
    the file in place, or leaves the old one if it ends by an exception; so a picture appears after output and
    state, and one that can't be drawn leaves both as they were.
    Raises OptionError or FileTrouble, before any work, for a picture that can't be made.
    """

    def __init__(self, job: Job, target: str, look: Look, note: Note, place: ExitStack) -> None:
        check_target(job, target)
        super().__init__(job, limits_of(target))
        self.target, self.look, self.note, self.place = target, look, note, place
        self.went_on = goes_on(job)

    def end(self, summary: Summary) -> None:
        super().end(summary)
        if self.record is None or self.empty:
            return
        chart = make_chart(self.job, recorded(self.record), summary, self.look)
        if self.went_on and self.target != "-":
            chart.notes.append(state_note(self.target))
        data = tell_and_draw(chart, self.target, self.note)
        if data is not None:
            self.place.enter_context(open_output(self.target, shared_mode(self.job.inputs))).write(data)


class Comparison:
    """Draws several runs over each other, or with `chain` the parts of one."""

    def __init__(self, job: Job, target: str, look: Look, note: Note, *, chain: bool) -> None:
        check_target(job, target)
        self.job, self.target, self.look, self.note, self.chain = job, target, look, note, chain
        self.limits, self.went_on = limits_of(target), goes_on(job)
        self.runs: dict[str, Recorder] = {}
        # Makes the observer of a job; it can be sent to another process.
        self.make_observer = partial(Recorder, limits=self.limits)

    def finished(self, source: str, observer: Observer) -> None:
        """An input is done. observer: its own."""
        if isinstance(observer, Recorder) and not observer.empty:
            self.runs[source] = observer

    def draw(self) -> None:
        """Draw the inputs that are done. Raises FileTrouble."""
        if not self.runs:
            self.note(f"--plot {self.target}: no rows, so nothing is drawn")
            return
        order = [source for source in self.job.inputs if source in self.runs]
        runs = [self.runs[source] for source in order]
        records = [run.record for run in runs if run.record is not None]
        names = run_names(order)
        if self.chain:
            together = recorded(records[-1])
        else:
            together = recorded_runs(list(zip(names, records, strict=True)), self.limits)
        chart = make_chart(self.job, together, runs[0].summary, self.look)
        if self.went_on and self.target != "-":
            chart.notes.append(state_note(self.target))
        data = tell_and_draw(chart, self.target, self.note)
        if data is not None:
            with open_output(self.target, shared_mode(self.job.inputs)) as out:
                out.write(data)


def goes_on(job: Job) -> bool:
    """Whether a run goes on from a state, which stands for rows that can't be drawn."""
    return job.state is not None and Path(job.state).exists()


def state_note(target: str) -> str:
    """The note on a picture of a run that goes on from a state."""
    slider = "; the slider's trend begins afresh with them" * (suffix_of(target) == PAGES)
    return f"the rows of this run, which goes on from a state{slider}"


def tell_and_draw(chart: Chart, target: str, note: Note) -> bytes | None:
    """Give the notes, and draw: the bytes of a file; None if it was drawn in the terminal."""
    for left_out in chart.notes:
        note(f"{'the picture' if target == '-' else target} shows {left_out}")
    if target == "-":
        from ema_cli.plotting.terminal import abilities, draw_text

        sys.stderr.write(draw_text(chart, *abilities(sys.stderr)))
        return None
    return draw(chart, suffix_of(target))


def draw(chart: Chart, suffix: str) -> bytes:
    """The bytes of a picture file."""
    if suffix == PAGES:
        from ema_cli.plotting.page import draw_page

        return draw_page(chart)
    # It warns of caches that it can't write or that take long, which users of ours can't help.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    folder = os.environ.get("MPLCONFIGDIR")
    try:
        from ema_cli.plotting.picture import draw_picture

        return draw_picture(chart, suffix[1:])
    finally:
        # Without a home folder it makes a temporary one, to be removed as Python shuts down, which the
        # command skips (`console.leave`).
        made = os.environ.get("MPLCONFIGDIR")
        if made is not None and made != folder:
            shutil.rmtree(made, ignore_errors=True)


def suffix_of(target: str) -> str:
    return Path(target).suffix.lower()


def limits_of(target: str) -> Limits:
    """How much this kind of picture shows."""
    return PAGE if suffix_of(target) == PAGES else PICTURE


def read_size(text: str | None) -> tuple[int, int] | None:
    """Width and height, from `1600x900`. Raises OptionError."""
    if text is None:
        return None
    match = _SIZE.fullmatch(text.strip())
    if match is None or not all(LEAST_SIZE <= int(side) <= MOST_SIZE for side in match.groups()):
        raise OptionError(
            f"--size {text}: not a size of {LEAST_SIZE} to {MOST_SIZE:,} each way",
            "--size 1600x900 (pixels), or --size 100x30 (characters) with --plot -",
        )
    return int(match[1]), int(match[2])


def check_target(job: Job, target: str) -> None:
    """Raise OptionError or FileTrouble for a picture that can't be made, or would replace another file."""
    if target == "-":
        return
    suffix = suffix_of(target)
    if suffix not in SUFFIXES:
        kinds = ", ".join(SUFFIXES)
        raise OptionError(
            f"--plot {target}: not a kind of picture ({kinds})", "--plot trend.png, or --plot -"
        )
    if suffix != PAGES and not _installed("matplotlib"):
        problem = f"--plot {target} needs matplotlib, which is not installed"
        hint = "pip install matplotlib, or without it --plot trend.html and --plot - (in the terminal)"
        raise OptionError(problem, hint)
    own = os.path.realpath(target)
    others = {"an input": job.inputs, "the output": (job.output,), "the state": (job.state,)}
    for what, names in others.items():
        if any(name not in (None, "-") and os.path.realpath(str(name)) == own for name in names):
            raise OptionError(
                f"--plot {target} is also {what}", f"another name, such as --plot trend{suffix}"
            )
    folder = Path(own).parent
    if not folder.is_dir():
        raise FileTrouble(target, "no such folder", f"make the folder first: mkdir -p {Path(target).parent}")
    if Path(own).is_dir():
        raise FileTrouble(target, "is a folder", "name a file in it")


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return False
