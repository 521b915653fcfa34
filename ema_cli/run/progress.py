"""The progress bar: one line on stderr, removed at the end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from ema_cli.formats.base import Batch, Floats
from ema_cli.io.atomic import total_size
from ema_cli.job import Summary
from ema_cli.run.observer import Observer

LARGE = 50 << 20  # bytes of input from which the bar appears at once
PATIENCE = 2.0  # seconds after which it appears in any run
REDRAW = 0.1  # seconds between two drawings
LOG_EVERY = 10.0  # seconds between two lines if `out` is no terminal
BAR = 24  # characters


class Progress(Observer):
    """Draws itself on `out` as bytes of input go by.

    total: bytes of input, if known. redraws: `out` is a terminal, on which a line can be drawn over; else
    every drawing is a line of its own, and they are few. at_once: don't wait until the run takes long.
    """

    def __init__(
        self,
        out: TextIO,
        total: int | None,
        redraws: bool = True,
        at_once: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.out, self.total, self.redraws, self.clock = out, total, redraws, clock
        self.started = clock()
        self.due = self.started if at_once or (total or 0) > LARGE else self.started + PATIENCE
        self.visible = False
        self.done = self.rows = self.files = self.drawn = 0

    def saw(self, batch: Batch, fields: Floats) -> None:  # noqa: ARG002 - an observer's
        self.done = max(self.done, batch.size)
        self.rows += batch.rows
        self._draw_if_due()

    def finished(self, name: str) -> None:
        """One file of a batch is done."""
        with suppress(OSError):
            self.done += Path(name).stat().st_size
        self.files += 1
        self._draw_if_due()

    def end(self, summary: Summary) -> None:  # noqa: ARG002 - an observer's
        if not self.redraws or (self.visible and self.drawn < self.done):
            self.draw(self.clock())
        self.erase()

    def _draw_if_due(self) -> None:
        now = self.clock()
        if now >= self.due:
            self.draw(now)
            self.due = now + (REDRAW if self.redraws else LOG_EVERY)

    def draw(self, now: float) -> None:
        """Draw one line, not wider than the terminal."""
        text = self.text(now - self.started)
        if not self.redraws:
            self.out.write(text + "\n")
            return
        self.out.write("\r\x1b[K" + text[: width_of(self.out) - 1])
        self.out.flush()
        self.visible, self.drawn = True, self.done

    def erase(self) -> None:
        """Remove the line."""
        if self.visible:
            self.out.write("\r\x1b[K")
            self.out.flush()
            self.visible = False

    def text(self, elapsed: float) -> str:
        """The text of the line after so many seconds."""
        rate = self.done / elapsed if elapsed > 0 else 0.0
        count = f"{self.files:,} file{'s' * (self.files != 1)}" if self.files else f"{self.rows:,} rows"
        so_far = f"{size_text(self.done)}, {count}, {size_text(rate)}/s"
        if not self.total:
            return f"{so_far}, {time_text(elapsed)}"
        share = min(self.done / self.total, 1.0)
        full = int(share * BAR)
        left = f", {time_text(elapsed / share - elapsed)} left" if 0 < share < 1 else ""
        return f"{share:4.0%} [{'#' * full}{'.' * (BAR - full)}] {so_far}{left}"


def make_progress(
    inputs: Sequence[str], out: TextIO | None, wanted: bool | None, prints: bool = True
) -> Progress | None:
    """A bar for these inputs on `out`; None if there is to be none.

    wanted: None is yes if `out` is a terminal and the data is not printed to one. prints: the data goes to
    stdout.
    """
    if out is None or wanted is False:
        return None
    terminal = out.isatty() and os.environ.get("TERM") != "dumb"
    if wanted is None and (not terminal or (prints and os.isatty(1))):
        return None
    return Progress(out, total_size(inputs), redraws=terminal, at_once=wanted is True)


def width_of(out: TextIO) -> int:
    """The columns of a terminal; 80 if unknown."""
    try:
        return os.get_terminal_size(out.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def size_text(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"


def time_text(seconds: float) -> str:
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, hours = whole // 60, whole // 3600
    return f"{minutes}:{whole % 60:02} min" if minutes < 60 else f"{hours}:{minutes % 60:02} h"
