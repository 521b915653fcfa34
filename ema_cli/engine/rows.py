"""The observed values of one tile, series after series: what the engine hands to a model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ema_cli.engine.kernel import Bools, Floats
from ema_cli.engine.lanes import Ints


@dataclass
class Rows:
    """The observed values of a tile, series after series, and the runs (segments) they form.

    values, times: one a row. place: row in the key-sorted tile. counts: rows of each segment (> 0);
    series: its place in the state; fresh: it starts from nothing; final: it is its series' last.
    """

    values: Floats
    times: Ints | None
    place: Ints
    column: Ints
    counts: Ints
    series: Ints
    fresh: Bools
    final: Bools
    gaps: Ints | None = None

    @property
    def first(self) -> Ints:
        """Index of each segment's first row."""
        return np.asarray(np.cumsum(self.counts) - self.counts)

    @property
    def last(self) -> Ints:
        """Index of each segment's last row."""
        return np.asarray(np.cumsum(self.counts) - 1)
