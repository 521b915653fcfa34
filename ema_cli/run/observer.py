"""What observes a run: a progress bar, a picture. None of them changes what is written."""

from __future__ import annotations

from collections.abc import Sequence

from ema_cli.formats.base import Batch, Floats
from ema_cli.job import Summary
from ema_cli.run.selection import Selection


class Observer:
    """Is told of each step of a run; this base class does nothing.

    Not called for an input that is passed on as it is because it has no rows.
    """

    def begin(self, chosen: Selection) -> None:
        """The columns are chosen; no row has been computed."""

    def saw(self, batch: Batch, fields: Floats) -> None:
        """A batch and its new fields, (rows, new columns) float64, NaN where blank, have gone to the sink.

        Neither may be kept, nor changed, since they are still being written.
        """

    def end(self, summary: Summary) -> None:
        """The output is complete, but neither it nor the state has been renamed to its place; an exception
        raised here leaves both as they were."""


SILENT = Observer()


class Several(Observer):
    """Observers one after another."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self.observers = observers

    def begin(self, chosen: Selection) -> None:
        for observer in self.observers:
            observer.begin(chosen)

    def saw(self, batch: Batch, fields: Floats) -> None:
        for observer in self.observers:
            observer.saw(batch, fields)

    def end(self, summary: Summary) -> None:
        for observer in self.observers:
            observer.end(summary)
