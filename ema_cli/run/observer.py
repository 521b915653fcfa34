"""Who looks on while a run goes along: a progress bar, a picture. None of them changes what is written."""

from __future__ import annotations

from collections.abc import Sequence

from ema_cli.formats.base import Batch, Floats
from ema_cli.job import Summary
from ema_cli.run.selection import Selection


class Observer:
    """Told of each step of a run; this one does nothing with it.

    An input that is passed on as it is, for it has no rows, is not told of at all.
    """

    def begin(self, chosen: Selection) -> None:
        """The columns are chosen; no row has been computed."""

    def saw(self, batch: Batch, fields: Floats) -> None:
        """A batch has been handed to the sink with its new fields, (rows, new columns) float64, NaN where
        blank. Neither may be changed, for they are still being written, nor kept."""

    def end(self, summary: Summary) -> None:
        """The output is complete, but neither it nor the state is in its place yet; what is raised here
        leaves both as they were."""


SILENT = Observer()


class Several(Observer):
    """Watchers one after another."""

    def __init__(self, watchers: Sequence[Observer]) -> None:
        self.watchers = watchers

    def begin(self, chosen: Selection) -> None:
        for watcher in self.watchers:
            watcher.begin(chosen)

    def saw(self, batch: Batch, fields: Floats) -> None:
        for watcher in self.watchers:
            watcher.saw(batch, fields)

    def end(self, summary: Summary) -> None:
        for watcher in self.watchers:
            watcher.end(summary)
