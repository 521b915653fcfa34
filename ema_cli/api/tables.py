"""What Python calls numbers, as tables of float64, and results as the kind of thing the numbers came as.

Each library has a module of its own (`of_numpy`, `of_pandas`, …), imported by `forms` where one of its
objects is given. This page is what they have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from ema_cli.average import Average
from ema_cli.engine.engine import TILE
from ema_cli.errors import DataError
from ema_cli.formats.base import Floats


@dataclass(frozen=True)
class New:
    """New columns, where they are not just one for each of the input's. of: for each the number of that."""

    names: list[str]
    of: list[int]


# Makes results what the input was: (rows, new columns) float64, and what these are, None: one for each.
Wrap = Callable[[Floats, New | None], Any]


@dataclass(frozen=True)
class Table:
    """values: (rows, columns) float64, NaN where missing. wrap: makes results what the input was.

    labels: what the columns are called, None where they have no names; numbered: these are told apart by
    number. deep: they are of an array of more than two dimensions.
    """

    values: Floats
    wrap: Wrap
    labels: Sequence[Any] | None = None
    numbered: bool = False
    deep: bool = False

    def results(self, fields: Floats, average: Average) -> Any:
        """The new columns as the kind of thing the values came as. fields: (rows, new columns) float64."""
        columns = self.values.shape[1]
        renamed = average.name is not None and self.labels is not None
        if fields.shape[1] == columns and not renamed:
            return self.wrap(fields, None)
        return self.wrap(fields, new_columns(average, self.labels or [None] * columns))

    def place(self, row: int, column: int) -> str:
        """Where a value is, as a message says it."""
        label = None if self.labels is None else self.labels[column]
        return place_of(row, column if self.numbered else label)


class Form:
    """An object of some library, seen as a table."""

    @property
    def single(self) -> bool:
        """It is one number, not rows."""
        return False

    @property
    def names(self) -> Sequence[Hashable] | None:
        """Of columns and of levels of an index, which `by` and `times` can name; None for what has none."""
        return None

    def column(self, name: Hashable) -> Any:
        """What has that name, one of `names`; None where several columns have it."""
        raise KeyError(name)

    def table(self, apart: Collection[Hashable], before: Collection[str]) -> Table:
        """The columns that hold numbers, but those `apart`.

        before: what columns were called that were smoothed in earlier chunks, and so are even where nothing
        stands in them. Raises DataError (a ValueError) for values that are no numbers.
        """
        raise NotImplementedError


def new_columns(average: Average, labels: Sequence[Any]) -> New:
    """What the new columns are, in the order of the engine's."""
    texts = [text_of(label) for label in labels]
    names = [name.removeprefix("_") for name in average.all_names(texts)]
    sources = [k for k in range(len(labels)) for _ in range(average.width(1))]
    if average.paired:  # what is of a pair has the type that comes of its first column
        of_each = len(average.pair_parts) * len(average.decays)
        sources += [k for k, _ in combinations(range(len(labels)), 2) for _ in range(of_each)]
    return New(names, sources)


def text_of(label: Any) -> str:
    """A column's label as the beginning of the new ones' names; '' for a Series without a name."""
    if isinstance(label, tuple):
        return "_".join(map(str, label))
    return "" if label is None else str(label)


def place_of(row: int, label: Any = None) -> str:
    """Where a value is, as a message says it."""
    return f"row {row} (counted from 0)" + ("" if label is None else f", column {label!r}")


def no_numbers(dtype: Any, label: Any, cast: str = "astype(float)") -> DataError:
    """The error for a column, or for all values, of a type that is none of numbers. cast: what makes some."""
    what = "the values" if label is None else f"column {label!r}"
    return DataError(f"{what} of dtype {dtype}: no numbers", hint=f"{cast}, if these are numbers")


def nothing_to_smooth(columns: Sequence[tuple[Any, Any]], cast: str = "astype(float)") -> DataError:
    """The error for a frame without a column of numbers. columns: what there are, each with its type."""
    listed = ", ".join(f"{label!r} ({dtype})" for label, dtype in columns[:20])
    there = f": none holds numbers; there are {listed}" if columns else ""
    return DataError(f"no column to smooth{there}", hint=f"{cast}, where these are numbers")


def judge(table: Table, invalid: str, missing: str) -> Table:
    """The table with infinities as missing values; or DataError that names the row; so for missing ones."""
    values = table.values
    if _has_infinities(values):
        odd = np.isinf(values)
        if invalid == "error":
            row, column = (int(k) for k in np.argwhere(odd)[0])
            problem = f"{table.place(row, column)}: {values[row, column]} is no finite number"
            raise DataError(problem, hint="invalid='missing'")
        table = replace(table, values=np.where(odd, np.nan, values))
    if missing == "error" and (blank := np.isnan(values)).any():
        row, column = (int(k) for k in np.argwhere(blank)[0])
        where = table.place(row, column)
        raise DataError(f"{where}: a missing value", hint="missing='skip' or missing='decay'")
    return table


def _has_infinities(values: Floats) -> bool:
    """Piece by piece, which stay in the cache."""
    return any(bool(np.isinf(values[k : k + TILE]).any()) for k in range(0, len(values), TILE))
