"""`--plot`: a run is recorded as it goes along and drawn when its output is complete."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

from ema_cli.errors import FileTrouble, OptionError
from ema_cli.extras import install_hint
from ema_cli.formats.base import Batch, Floats
from ema_cli.io.streams import open_output
from ema_cli.job import Job, Summary
from ema_cli.plot.chart import Chart, make_chart
from ema_cli.plot.record import Record
from ema_cli.process import with_pandas
from ema_cli.run.observer import Observer
from ema_cli.run.selection import Selection

# What draws each kind of file.
PACKAGES = {".png": "matplotlib", ".svg": "matplotlib", ".pdf": "matplotlib", ".html": "bokeh"}


class Plotter(Observer):
    """Draws a run into a file, or as text.

    target: the file, or `-` for the terminal that is stderr. note: takes what is to be said to the user.
    place: puts the file in its place when it is closed, or leaves the old one there if an exception ends it;
    so a picture appears after output and state, and one that can't be drawn leaves both as they were.
    Raises OptionError or FileTrouble, before any work, for a picture that can't be made.
    """

    def __init__(self, job: Job, target: str, note: Callable[[str], None], place: ExitStack) -> None:
        check_target(job, target)
        self.job, self.target, self.note, self.place = job, target, note, place
        self.record: Record | None = None

    def begin(self, chosen: Selection) -> None:
        self.record = Record(self.job.average, chosen)

    def saw(self, batch: Batch, fields: Floats) -> None:
        if self.record is not None:
            self.record.add(batch, fields)

    def end(self, summary: Summary) -> None:
        if self.record is None or self.empty:
            return
        chart = make_chart(self.job, self.record, summary)
        for note in chart.notes:
            self.note(f"{'the picture' if self.target == '-' else self.target} shows {note}")
        if self.target == "-":
            from ema_cli.plot.terminal import abilities, draw_text

            sys.stderr.write(draw_text(chart, *abilities(sys.stderr)))
            return
        data = draw(chart, suffix_of(self.target))
        self.place.enter_context(open_output(self.target)).write(data)

    @property
    def empty(self) -> bool:
        """There was nothing to draw."""
        return self.record is None or not self.record.reducers


def draw(chart: Chart, suffix: str) -> bytes:
    """The bytes of a picture file."""
    if suffix == ".html":
        # Bokeh looks for pandas, which the commands hide; it doesn't load it.
        with with_pandas():
            from ema_cli.plot.page import draw_page

            return draw_page(chart)
    # A cache that it can't write, a font cache that takes long: nothing a user of ours can do about.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    folder = os.environ.get("MPLCONFIGDIR")
    try:
        from ema_cli.plot.picture import draw_picture

        return draw_picture(chart, suffix[1:])
    finally:
        # Where it has made a temporary one for want of a home, it is removed as Python ends, which the
        # command doesn't wait for.
        made = os.environ.get("MPLCONFIGDIR")
        if made is not None and made != folder:
            shutil.rmtree(made, ignore_errors=True)


def suffix_of(target: str) -> str:
    return Path(target).suffix.lower()


def check_target(job: Job, target: str) -> None:
    """Refuse a picture that could not be made, or that would replace what the run needs."""
    if target == "-":
        return
    suffix = suffix_of(target)
    if suffix not in PACKAGES:
        kinds = ", ".join(PACKAGES)
        raise OptionError(
            f"--plot {target}: not a kind of picture ({kinds})", "--plot trend.png, or --plot -"
        )
    if not _installed(PACKAGES[suffix]):
        problem = f"--plot {target} needs {PACKAGES[suffix]}, which is not installed"
        raise OptionError(
            problem, f"{install_hint('plot', PACKAGES[suffix])}, or --plot - to draw in the terminal"
        )
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
