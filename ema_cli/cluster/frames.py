"""`smooth` for Dask's own DataFrames and Series: partitions are parts of one series, smoothed lazily."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import dask.dataframe as dd
from dask.delayed import delayed

from ema_cli.api.arrays import smooth as smooth_at_once
from ema_cli.api.chunks import Chunk, Roles, fold, read_chunk, row_order
from ema_cli.api.options import Options, Settings, read_options
from ema_cli.cluster.graph import stages
from ema_cli.cluster.parted import Carried, Gatherer, Loaded, Position, Smoothing, begin
from ema_cli.engine.engine import TILE
from ema_cli.errors import DataError, EmaError, OptionError
from ema_cli.keys import KeyTable

if TYPE_CHECKING:
    from typing import Unpack


@dataclass(frozen=True)
class ReadOptions:
    """How partitions are read: names of the columns or index levels of times, keys and weights."""

    times: Any
    by: Any
    weights: Any
    settings: Settings

    def chunk(self, partition: Any) -> Chunk:
        return read_chunk(partition, Roles(self.times, self.by, weights=self.weights), self.settings)


def smooth(
    x: Any, *, times: Any = None, by: Any = None, weights: Any = None, **options: Unpack[Options]
) -> Any:
    """The exponential moving average of a Dask DataFrame or Series.

    Parameters
    ----------
    x : dask.dataframe.DataFrame or Series
        Its partitions are parts of one series, in order.
    times, by, weights : str or other label
        Names of columns or index levels, as for `ema_cli.smooth`; they are not smoothed. `by` may be a list.
    **options
        As for `ema_cli.smooth`; but without `alpha="auto"`, `centered`, `late` and `time_zone`.

    Returns
    -------
    dask.dataframe.DataFrame or Series
        Lazy, with the divisions and labels of x. Its partitions are read when it is computed, each twice, and
        are what `ema_cli.smooth` gives for the whole table, bit for bit.

    Raises
    ------
    ValueError
        For options that are out of range or contradict each other, and for names that are not there. Bad
        values raise it when they are computed.
    TypeError
        If x is not Dask's.
    """
    if not isinstance(x, dd.DataFrame | dd.Series):
        raise TypeError(f"a Dask DataFrame or Series, not {type(x).__name__}; ema_cli.smooth takes others")
    for option, given in (("times", times), ("by", by), ("weights", weights)):
        for name in given if isinstance(given, list) else [given]:
            if not isinstance(name, Hashable) or hasattr(name, "dtype"):
                raise OptionError(f"{option}={type(name).__name__}: not a name", f"{option}='COLUMN'")
    settings = read_options(options, timed=times is not None, weighted=weights is not None)
    reading = ReadOptions(times, by, weights, settings)
    if reading.settings.average.auto:
        problem = "alpha='auto' reads the whole series many times, which a Dask DataFrame should not be"
        raise OptionError(problem, "find the weight in a sample first: ema_cli.smooth(sample, alpha='auto')")
    _check_order(reading.settings)
    average = reading.settings.average
    if average.centered:
        problem = "centered=True: a partition would need those after it too"
        raise OptionError(problem, "ema_cli.smooth on what fits in memory")
    like = x._meta_nonempty
    meta = smooth_at_once(like, times=times, by=by, weights=weights, **options).iloc[:0]
    smoothing = Smoothing(reading.settings.average, reading.chunk(like).table.values.shape[1])
    partitions = x.to_delayed()
    smoothed = _smoothed(partitions, smoothing, reading)
    return dd.from_delayed(smoothed, meta=meta, divisions=x.divisions, verify_meta=False, prefix="ema")


def _check_order(settings: Settings) -> None:
    """Raise OptionError for what depends on the order of rows in earlier partitions."""
    if settings.late != "error" or settings.form.zone is not None:
        option = "late" if settings.late != "error" else "time_zone"
        hint = "sort the frame" if option == "late" else "times with their zone: dt.tz_localize(…)"
        raise OptionError(f"{option}: partitions do not know how the one before ends", hint)
    if settings.invalid == "missing" and settings.average.timed:
        raise OptionError("invalid='missing' does not go with times here", "drop such rows before")


def _smoothed(partitions: Sequence[Any], smoothing: Smoothing, reading: ReadOptions) -> list[Any]:
    """Each partition's result, as a delayed object."""
    token = os.urandom(8).hex()
    loads = [
        delayed(partial(_load, reading, k), pure=False)(one, dask_key_name=(f"load-{token}", k))
        for k, one in enumerate(partitions)
    ]
    befores = stages(smoothing, loads, begin(smoothing.trends(), KeyTable()), token)[:-1]
    return [
        delayed(partial(_finish, reading, smoothing, k), pure=False)(
            one, stage.carried, stage.position, dask_key_name=(f"finish-{token}", k)
        )
        for k, (one, stage) in enumerate(zip(partitions, befores, strict=True))
    ]


def _load(reading: ReadOptions, number: int, partition: Any) -> Loaded:
    try:
        chunk = reading.chunk(partition)
    except EmaError as error:
        raise DataError(f"partition {number}: {error.problem}", hint=error.hint) from None
    gathered = Gatherer(chunk.table.values.shape[1] + (chunk.weights is not None))
    for at in range(0, len(chunk), TILE):
        rows = chunk.rows(at, at + TILE)
        gathered.add(rows.values, rows.times, rows.keys)
    return gathered.loaded()


def _finish(
    reading: ReadOptions,
    smoothing: Smoothing,
    number: int,
    partition: Any,
    carried: Carried,
    position: Position,
) -> Any:
    try:
        chunk = reading.chunk(partition)
        order = row_order(chunk, reading.settings)
        return fold(chunk, carried.trends(smoothing), position.keys.copy(), order)
    except EmaError as error:
        raise DataError(f"partition {number}: {error.problem}", hint=error.hint) from None
