"""Python's objects as tables of float64, and results as the same kind of object.

Each library has a module (`of_numpy`, `of_pandas`, …), which `forms` imports when it is given one of the
library's objects. This is what they have in common.
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
    """New columns that are not one for each input column. of: index of the input column of each."""

    names: list[str]
    of: list[int]


# Makes results the kind of object that the input was. Takes (rows, new columns) float64, and what the columns
# are; None: one for each input column.
Wrap = Callable[[Floats, New | None], Any]


@dataclass(frozen=True)
class Table:
    """An object's numbers.

    values: (rows, columns) float64, NaN where missing. wrap: makes results of them. labels: the columns'
    names, None if they have none. numbered: messages give columns by number. deep: the object is an array of
    more than two dimensions.
    """

    values: Floats
    wrap: Wrap
    labels: Sequence[Any] | None = None
    numbered: bool = False
    deep: bool = False

    def results(self, fields: Floats, average: Average) -> Any:
        """New fields, (rows, new columns) float64, as the kind of object that the values came as."""
        columns = self.values.shape[1]
        renamed = average.name is not None and self.labels is not None
        if fields.shape[1] == columns and not renamed:
            return self.wrap(fields, None)
        return self.wrap(fields, new_columns(average, self.labels or [None] * columns))

    def place(self, row: int, column: int) -> str:
        """The place of a value, for messages."""
        label = None if self.labels is None else self.labels[column]
        return place_of(row, column if self.numbered else label)


class Form:
    """An object of some library, to be read as a table; each kind of object has a subclass."""

    @property
    def single(self) -> bool:
        """Whether it is one number, not rows."""
        return False

    @property
    def names(self) -> Sequence[Hashable] | None:
        """Names of columns and index levels, which `by` and `times` can use; None if there are none."""
        return None

    def column(self, name: Hashable) -> Any:
        """The column of a name in `names`; None if several columns have it."""
        raise KeyError(name)

    def table(self, exclude: Collection[Hashable], before: Collection[str]) -> Table:
        """The columns that hold numbers, except `exclude`.

        before: names of columns smoothed in earlier chunks; these are smoothed even if they are empty now.
        Raises DataError (a ValueError) for values that are no numbers.
        """
        raise NotImplementedError


def new_columns(average: Average, labels: Sequence[Any]) -> New:
    """The names and sources of new columns, in the order of `Average.all_names`."""
    texts = [text_of(label) for label in labels]
    names = [name.removeprefix("_") for name in average.all_names(texts)]
    sources = [k for k in range(len(labels)) for _ in range(average.width(1))]
    if average.paired:  # the columns of a pair get the type of its first column
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
