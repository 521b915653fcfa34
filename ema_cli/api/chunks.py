"""Rows from Python (values, times, keys): checked, and folded tile by tile.

`smooth` and `Smoother` both call this and have no arithmetic of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ema_cli.api.columns import as_arrow, column, key_columns, named, plain_nanoseconds
from ema_cli.api.forms import form_of
from ema_cli.api.options import Settings, in_python
from ema_cli.api.tables import Form, Table, judge, place_of, text_of
from ema_cli.average import Average
from ema_cli.centered import Centered
from ema_cli.engine.engine import TILE, KeyedRows
from ema_cli.errors import DataError, OptionError
from ema_cli.formats import arrow_compute as pc
from ema_cli.formats.arrow_types import is_number
from ema_cli.formats.base import Clock, Floats, Ints, Projection
from ema_cli.formats.clock import BadClockError, ClockReader
from ema_cli.keys import KeyTable
from ema_cli.run.order import Admitted, KeptRows, LateError, RowOrder, admitting, scatter
from ema_cli.times.form import ISO
from ema_cli.trends import Trends

# Values in a tile: all are in memory anyway, and each tile has a fixed cost.
LARGE_TILE = 4 * TILE
NO_CLOCK = Clock()


@dataclass(frozen=True)
class Roles:
    """The other columns of the rows, each given by name or as values. axis: the axis that rows run along."""

    times: Any = None
    by: Any = None
    order: Any = None
    axis: Any = None
    weights: Any = None


@dataclass(frozen=True)
class Chunk:
    """Rows to smooth. keys: an Arrow array for each key column. weights: (rows,) float64."""

    table: Table
    times: Ints | None
    keys: tuple[Any, ...]
    clock: Clock = NO_CLOCK
    weights: Floats | None = None

    def __len__(self) -> int:
        return len(self.table.values)

    @property
    def tile(self) -> int:
        """How many rows are folded at once."""
        return max(LARGE_TILE // int(self.table.values.shape[1]), 1)

    @property
    def ordered(self) -> bool:
        """Whether rows have times or an order that may be wrong."""
        return self.times is not None or self.clock.order is not None

    def rows(self, begin: int, end: int) -> KeptRows:
        """Rows begin … end − 1."""
        some = slice(begin, end)
        times = None if self.times is None else self.times[some]
        keys = [key[begin:end] for key in self.keys]
        values = self.table.values[some]
        if self.weights is not None:  # as `Trends` takes them
            values = np.column_stack((values, self.weights[some]))
        return KeptRows(values, times, self.clock.picked(some), keys)

    def tiles(self, settings: Settings) -> Iterator[tuple[Floats, KeyedRows | None]]:
        """The values and keys of all rows, tile by tile."""
        table, order = KeyTable(), row_order(self, settings)
        for begin in range(0, len(self), TILE):
            admitted = order.admit(self.rows(begin, begin + TILE), table)
            admitted.accept()
            if admitted.rows.count:
                yield admitted.rows.values, admitted.keys


def row_order(chunk: Chunk, settings: Settings) -> RowOrder:
    """The memory of the order of rows, before the first one."""
    order = chunk.clock.order
    return new_order(settings, of_times=order is None or order.dtype == np.int64)


def new_order(settings: Settings, *, of_times: bool) -> RowOrder:
    """The same, by the kind of order alone."""
    return RowOrder(settings.late, of_times=of_times, zoned=settings.form.zone is not None)


def fold(chunk: Chunk, trends: Trends, keys: KeyTable, order: RowOrder) -> Any:
    """The chunk's new columns, as the kind of thing its values came as; trends, keys and order are updated.

    Raises DataError where time or order go backwards; the tiles before that are then folded in.
    """
    out = np.empty((trends.average.width(chunk.table.values.shape[1]), len(chunk)))
    both = Centered(trends.average, trends.columns) if trends.average.centered else None
    forward: list[tuple[int, Admitted, Floats]] = []
    for begin in range(0, len(chunk), chunk.tile):
        rows = chunk.rows(begin, begin + chunk.tile)
        place = out[:, begin : begin + chunk.tile]
        try:
            if both is not None:
                forward.append((begin, *_forward(rows, both, keys, order)))
                continue
            fields = _fold(rows, trends, keys, order, place)
        except LateError as error:
            what = "the order" if chunk.times is None else "the time"
            hint = "sort by it" if chunk.times is None else "sort by time"
            hint += "" if chunk.keys else ", or name what sets the series apart with by="
            raise DataError(
                f"{place_of(begin + error.row)}: {what} goes backwards", hint=f"{hint}; or late='skip'"
            ) from None
        if not np.may_share_memory(fields, out):
            place[:] = fields.T
    for begin, admitted, sums in reversed(forward):
        assert both is not None
        place = out[:, begin : begin + chunk.tile]
        fields = both.fields(admitted.rows.values, admitted.rows.times, admitted.keys, sums)
        place[:] = (fields if admitted.there is None else scatter(fields, admitted.there, place.shape[1])).T
    return chunk.table.results(out.T, trends.average)


def _fold(rows: KeptRows, trends: Trends, keys: KeyTable, order: RowOrder, out: Floats) -> Floats:
    """The new fields of a tile, blank for rows left out. Raises LateError, and then nothing was folded in."""
    with admitting(order, rows, keys) as admitted:
        own, into = admitted.rows, out if admitted.there is None else None
        fields = trends.update(own.values, own.times, admitted.keys, admitted.restarts, out=into)
    return fields if admitted.there is None else scatter(fields, admitted.there, rows.count)


def _forward(rows: KeptRows, both: Centered, keys: KeyTable, order: RowOrder) -> tuple[Admitted, Floats]:
    """The rows of a tile that are folded, and what `Centered.forward` gives for them. Raises LateError."""
    with admitting(order, rows, keys) as admitted:
        sums = both.forward(admitted.rows.values, admitted.rows.times, admitted.keys)
    return admitted, sums


def read_chunk(x: Any, roles: Roles, settings: Settings, before: Collection[str] = ()) -> Chunk:
    """Read rows and check them before any is folded in. Raises DataError and OptionError.

    before: names of the columns in earlier chunks.
    """
    form = form_of(x, roles.axis)
    given = {"times": roles.times, "order": roles.order}
    clocks = {name: column(x, form, one, name) for name, one in given.items() if one is not None}
    _check_order(clocks, settings)
    keys = [] if roles.by is None else key_columns(x, form, roles.by)
    table = judge(form.table(_role_names(form, roles), before), settings.invalid, settings.average.missing)
    _check_columns(table, settings.average)
    rows = len(table.values)
    times, clock = _read_clocks(clocks, table.values, settings)
    weights = None
    if roles.weights is not None:
        weights = _weights(as_arrow(column(x, form, roles.weights, "weights"), rows, "weights"), settings)
    return Chunk(table, times, tuple(as_arrow(key, rows, "by") for key in keys), clock, weights)


def _check_columns(table: Table, average: Average) -> None:
    """Raise OptionError where pairs are asked for but there are none, or new names would be equal."""
    if average.paired and table.deep:
        raise OptionError(
            "cov and corr are of pairs of columns; an array of more dimensions has none", "axis=0"
        )
    if average.paired and table.values.shape[1] < 2:
        option = "cov" if average.cov else "corr"
        raise OptionError(f"{option} is of pairs of columns, and there is but one", "two columns or more")
    labels = [text_of(label) for label in table.labels or ()]
    counts = Counter(average.all_names(labels))
    if labels and len(set(labels)) == len(labels) and (twice := [n for n, k in counts.items() if k > 1]):
        problem = f"{counts[twice[0]]} new columns would be called {twice[0]!r}"
        raise OptionError(problem, "fewer columns, or names that differ: name='{col}_{what}'")


def _weights(cells: Any, settings: Settings) -> Floats:
    """How often each row counts. Raises DataError for what is no number from 0 up."""
    if not is_number(cells.type) and len(cells) != cells.null_count:
        raise DataError(
            f"weights of type {cells.type}: no numbers", hint="astype(float), if these are numbers"
        )
    weights = _numbers(cells)
    strict = settings.average.missing == "error"
    wrong = np.isinf(weights) | (weights < 0.0) | (strict & ~(weights > 0.0))
    if wrong.any():
        row = int(wrong.argmax())
        problem = f"{place_of(row)}: a weight of {weights[row]:g}"
        raise DataError(problem, hint="a weight is a number from 0 up: how often its row counts")
    return weights


def _role_names(form: Form, roles: Roles) -> list[Hashable]:
    """The columns that are named as times, keys, order or weights, and so are not smoothed."""
    return [name for one in (roles.times, roles.by, roles.order, roles.weights) for name in named(form, one)]


def _check_order(clocks: dict[str, Any], settings: Settings) -> None:
    if len(clocks) > 1:
        raise OptionError("order: with times, rows are ordered by these", "one of the two")
    if settings.late != "error" and not clocks:
        raise OptionError(f"late={settings.late!r}: late by what?", "order=..., or times=...")


def _read_clocks(clocks: dict[str, Any], values: Floats, settings: Settings) -> tuple[Ints | None, Clock]:
    """The times, if any, and what else `times` or `order` say."""
    if not clocks:
        return None, NO_CLOCK
    ((option, given),) = clocks.items()
    if (
        option == "times"
        and settings.form == ISO
        and (plain := plain_nanoseconds(given, len(values))) is not None
    ):
        return plain, NO_CLOCK
    cells = as_arrow(given, len(values), option)
    steps = option == "order" and is_number(cells.type)
    wanted = Projection(
        values=(),
        time=0 if option == "times" else None,
        order=0 if option == "order" else None,
        time_form=settings.form,
        order_form=None if steps else settings.form,
        invalid=settings.invalid,
    )
    reader = ClockReader(wanted, values, lambda _column: cells, lambda _column: _numbers(cells))
    try:
        return reader.read()
    except BadClockError as error:
        what = f"{'time' if option == 'times' else option} " if error.problem.startswith("'") else ""
        problem = f"{place_of(error.row)}: {what}{error.problem}"
        raise DataError(problem, hint=in_python(error.hint)) from None


def _numbers(cells: Any) -> Floats:
    return np.asarray(pc.cast(cells, pa.float64(), safe=False).to_numpy(zero_copy_only=False))
