"""The steps of `parted` for files: what to read of a part, and how to write it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from ema_cli.cluster.parted import Carried, Gatherer, Loaded, Smoothing, numbered
from ema_cli.errors import DataError
from ema_cli.formats.parts import check_header
from ema_cli.formats.registry import open_source
from ema_cli.job import Job, Summary
from ema_cli.keys import KeyTable
from ema_cli.run.order import KeptRows
from ema_cli.run.pipeline import refused, run_part
from ema_cli.run.saved_state import SavedState, save_nothing
from ema_cli.run.selection import Selection, select


@dataclass(frozen=True)
class Chosen:
    """The columns of all parts, chosen by the first one that has any. part: its index."""

    chosen: Selection
    header: list[str]
    alphas: list[float] | None = None
    part: int = 0

    def smoothing(self, job: Job) -> Smoothing:
        return Smoothing(job.average, len(self.chosen.smoothed), self.alphas)

    def memory(self, job: Job, carried: Carried | None = None, texts: Sequence[Any] = ()) -> SavedState:
        """What a part of the job carries on from. texts: the keys of the state."""
        memory = SavedState(job)
        memory.columns, memory.places = self.chosen.smoothed, self.chosen.places
        memory.header, memory.alphas = self.header, self.alphas
        if carried is not None:
            keys = KeyTable()
            if texts:
                numbered(keys, texts)
            memory.live = carried.trends(self.smoothing(job)), keys
        return memory


def choose(part: Job, columns: list[str] | None, places: list[int] | None) -> Chosen | None:
    """The columns to smooth, if this part has any. columns, places: those of a state that is carried on."""
    memory = SavedState(part)
    memory.columns, memory.places = columns, places
    with closing(open_source(part, part.inputs[0])) as source:
        chosen = select(source, part, memory.find_columns(source))
        return None if chosen is None else Chosen(chosen, source.columns)


def load(part: Job, choice: Chosen) -> Loaded:
    """A part's values, times and keys. Raises EmaError for a bad part."""
    memory = choice.memory(part)
    gathered = Gatherer(len(choice.chosen.wanted.values))
    with closing(open_source(part, part.inputs[0])) as source:
        if source.columns:
            if not source.open_ended:
                check_header(source.columns, choice.header, source.name)
            chosen = select(source, part, memory.find_columns(source))
            for batch in source.batches(chosen.wanted) if chosen is not None else ():
                if refused(part.average, batch.values).any():
                    raise DataError("a cell that is refused")  # `finish` will say where
                left_out = batch.clock.left_out
                rows = KeptRows.of(batch, None if left_out is None else np.flatnonzero(~left_out))
                gathered.add(rows.values, rows.times, rows.keys)
    return gathered.loaded()


def finish(part: Job, choice: Chosen | None, carried: Carried | None, texts: Sequence[Any]) -> Summary:
    """Smooth a part into its output, from the state before it. Raises EmaError for a bad part."""
    memory = SavedState(part) if choice is None else choice.memory(part, carried, texts)
    return run_part(part, memory, save_nothing)
