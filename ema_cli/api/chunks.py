"""Rows as Python gives them — values, times, keys — checked, and folded tile by tile.

`smooth` and `Smoother` are two ways to call this; neither has arithmetic of its own.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ema_cli.api.options import Settings, in_python
from ema_cli.api.tables import Table, judge, pandas_kind, place_of, read_table
from ema_cli.engine.engine import TILE, BackwardsTimeError, KeyedRows
from ema_cli.errors import DataError, OptionError
from ema_cli.formats.base import Floats, Ints
from ema_cli.keys import KeyTable
from ema_cli.times import BadTimeError, to_nanoseconds
from ema_cli.trends import Trends

# Values in a tile where there are no keys: in memory anyway, and each tile has its fixed cost.
LARGE_TILE = 4 * TILE


@dataclass(frozen=True)
class Chunk:
    """Rows to smooth. keys: one Arrow array a key column, () where there are none."""

    table: Table
    times: Ints | None
    keys: tuple[Any, ...]

    def __len__(self) -> int:
        return len(self.table.values)

    def encoded(self, table: KeyTable, begin: int) -> KeyedRows | None:
        """The keys of the tile that begins there."""
        return table.encode([key[begin : begin + TILE] for key in self.keys]) if self.keys else None

    def tiles(self) -> Iterator[tuple[Floats, KeyedRows | None]]:
        """Values and keys, from the first row on."""
        table = KeyTable()
        for begin in range(0, len(self), TILE):
            yield self.table.values[begin : begin + TILE], self.encoded(table, begin)


def fold(chunk: Chunk, trends: Trends, keys: KeyTable) -> Any:
    """The chunk's new columns, as the kind of thing its values came as. Moves `trends` and `keys` on.

    Raises DataError where the time goes backwards; the tiles above are then folded in.
    """
    values, times = chunk.table.values, chunk.times
    width = len(trends.average.names("")) * values.shape[1]
    out = np.empty((width, len(chunk)))
    size = TILE if chunk.keys else LARGE_TILE // values.shape[1]
    for begin in range(0, len(chunk), size):
        rows = slice(begin, begin + size)
        now = None if times is None else times[rows]
        try:
            fields = trends.update(values[rows], now, chunk.encoded(keys, begin), out=out[:, rows])
        except BackwardsTimeError as error:
            hint = "sort by time" + ("" if chunk.keys else ", or name what sets the series apart with by=")
            raise DataError(f"{place_of(begin + error.row)}: the time goes backwards", hint=hint) from None
        if not np.may_share_memory(fields, out):
            out[:, rows] = fields.T
    return chunk.table.wrap(out.T, trends.average)


def read_chunk(x: Any, times: Any, by: Any, settings: Settings) -> Chunk:
    """Check all there is to check about rows before any is folded in. Raises DataError and OptionError."""
    single = pandas_kind(x) is None and np.ndim(x) == 0
    clock = None if times is None else _column(x, times, "times", single)
    keys = [] if by is None else _key_columns(x, by, single)
    table = read_table(x, apart=_names(x, times, by) if pandas_kind(x) == "frame" else [])
    table = judge(table, settings.invalid, settings.average.missing)
    rows = len(table.values)
    return Chunk(
        table,
        None if clock is None else _clock(clock, rows, settings.time_unit),
        tuple(_arrow(key, rows, "by") for key in keys),
    )


def _names(x: Any, times: Any, by: Any) -> list[Hashable]:
    """Which of x's columns or levels `times` and `by` name."""
    given = [times, *(by if isinstance(by, list) else [by])]
    return [name for name in given if _is_name(x, name)]


def _is_name(x: Any, given: Any) -> bool:
    """True for text and other labels beside pandas' objects; keys and times themselves come in columns."""
    if given is None or pandas_kind(x) not in ("series", "frame"):
        return False
    return (
        isinstance(given, str)
        or (np.ndim(given) == 0 and isinstance(given, Hashable))
        or (isinstance(given, tuple) and pandas_kind(x) == "frame" and given in x.columns)
    )


def _column(x: Any, given: Any, option: str, single: bool) -> Any:
    """The column that a name stands for, or what was given itself."""
    if not _is_name(x, given):
        if isinstance(given, str) and not single:
            raise OptionError(f"{option}={given!r} names a column, and {type(x).__name__} has no names")
        if pandas_kind(given) == "series" and pandas_kind(x) and not given.index.equals(x.index):
            raise DataError(
                f"{option} and x are two Series with different indexes",
                hint=f"{option}=....reindex(x.index), or .to_numpy() to go by position",
            )
        return [given] if single else given
    if pandas_kind(x) == "frame" and given in x.columns:
        found = x[given]
        if pandas_kind(found) != "series":
            raise OptionError(f"{option}={given!r}: several columns have that name")
        return found
    if given in x.index.names:
        return x.index.get_level_values(given)
    there = [*(x.columns if pandas_kind(x) == "frame" else ()), *(n for n in x.index.names if n is not None)]
    listed = ", ".join(repr(name) for name in there)
    raise OptionError(
        f"{option}={given!r}: no column or index level of that name; there are: {listed or 'none'}"
    )


def _key_columns(x: Any, by: Any, single: bool) -> list[Any]:
    """`by` as one key column, or several: a list of names or of columns, or the columns of a table."""
    if isinstance(by, list | tuple) and len(by):
        if single or all(np.ndim(one) == 1 or pandas_kind(one) for one in by):
            return [_column(x, one, "by", single) for one in by]
        # One key a row if so many keys are given and they are no names; else names, right or misspelt.
        if isinstance(by, list) and pandas_kind(x) and (len(by) != len(x) or _all_names(x, by)):
            return [_column(x, one, "by", single) for one in by]
    if pandas_kind(by) == "frame":
        return [_column(x, by[label], "by", single) for label in by.columns]
    return [_column(x, by, "by", single)]


def _all_names(x: Any, given: list[Any]) -> bool:
    known: set[Any] = {*x.index.names, *(x.columns if pandas_kind(x) == "frame" else ())}
    return all(isinstance(name, Hashable) and name in known for name in given)


def _arrow(column: Any, rows: int, option: str) -> Any:
    """One column of times or keys as an Arrow array. Raises DataError where it is not one of so many rows."""
    if np.ndim(column) != 1:
        raise DataError(f"{option} must have one dimension, not {np.ndim(column)}")
    if len(column) != rows:
        raise DataError(f"{option} has {len(column)} rows, x has {rows}")
    if isinstance(column, list | tuple) and column and isinstance(column[0], np.datetime64):
        column = np.array(column)
    if isinstance(column, np.ndarray) and column.dtype.kind == "M":
        unit = np.datetime_data(column.dtype)[0]
        column = column.astype("datetime64[s]") if unit in ("Y", "M", "W", "D", "h", "m") else column
    try:
        array = pa.array(column, from_pandas=True)
    except pa.ArrowException as error:
        raise DataError(f"{option}: {error}", hint=f"one type for all of {option}") from None
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _clock(clock: Any, rows: int, unit: str | None) -> Ints:
    """The times as nanoseconds; those that are just that, with none missing, are taken as they are."""
    plain = getattr(clock, "to_numpy", None) if pandas_kind(clock) else None
    array = clock if plain is None else plain()
    if isinstance(array, np.ndarray) and array.dtype == "datetime64[ns]" and array.shape == (rows,):
        whole = array.view(np.int64)
        if unit is None and whole.min(initial=0) > np.iinfo(np.int64).min:
            return whole
    return _nanoseconds(_arrow(clock, rows, "times"), unit)


def _nanoseconds(times: Any, unit: str | None) -> Ints:
    try:
        return to_nanoseconds(times, unit)
    except BadTimeError as error:
        shown = f"time {error.text!r} is " if error.text else "the time is "
        raise DataError(
            f"{place_of(error.row)}: {shown}{error.problem}", hint=in_python(error.hint)
        ) from None
