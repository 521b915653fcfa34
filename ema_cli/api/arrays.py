"""`smooth`: averages of arrays, Series, frames, tables and tensors in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from ema_cli.api.chunks import Roles, fold, read_chunk, row_order
from ema_cli.api.options import Options, read_options
from ema_cli.auto import best_alphas
from ema_cli.formats.base import Floats
from ema_cli.keys import KeyTable
from ema_cli.trends import Trends

if TYPE_CHECKING:
    from typing import Unpack

    import pandas as pd
    import polars as pl
    from numpy.typing import NDArray

    Frame = TypeVar("Frame", pd.DataFrame, pl.DataFrame)


@overload
def smooth(
    x: NDArray[Any],
    *,
    times: Any = ...,
    by: Any = ...,
    order: Any = ...,
    weights: Any = ...,
    axis: int | None = ...,
    **options: Unpack[Options],
) -> Floats: ...
@overload
def smooth(
    x: Frame,
    *,
    times: Any = ...,
    by: Any = ...,
    order: Any = ...,
    weights: Any = ...,
    axis: Any = ...,
    **options: Unpack[Options],
) -> Frame: ...
@overload
def smooth(
    x: Any,
    *,
    times: Any = ...,
    by: Any = ...,
    order: Any = ...,
    weights: Any = ...,
    axis: Any = ...,
    **options: Unpack[Options],
) -> Any: ...
def smooth(
    x: Any,
    *,
    times: Any = None,
    by: Any = None,
    order: Any = None,
    weights: Any = None,
    axis: int | None = None,
    **options: Unpack[Options],
) -> Any:
    """The exponential moving average of x, as the kind of thing that x is, with its shape and labels.

    Parameters
    ----------
    x
        (rows,) or (rows, columns) of any kind of number: an array or anything NumPy makes one of, a Series or
        DataFrame of pandas or polars, an Arrow array or table, a torch tensor. NaN, None, null, NA and masked
        values are missing. Columns of a frame or table that hold no numbers are left out.
    times
        One time a row, never decreasing (for each key): datetimes of any unit or zone, periods, ISO 8601 text
        or what `time_format` says, or numbers with `time_unit`; needs `halflife="5min"` or another duration.
    by
        One key a row for independent series, or a list of several keys; a missing key is a key.
    order
        A number or time a row that should only grow (for each key), as `times` do; see `late`.
    weights
        How often each row counts, a number from 0 up; 0 and what is missing make the row a missing one.
    axis
        Along which rows run, for arrays and tensors: 0, the first, where there are at most two.
    **options
        The average, and what is asked for besides trends: see `Options`.

    Returns
    -------
    What x is
        float64 (`Float64` for pandas' nullable dtypes, `double[pyarrow]` for Arrow's; null is blank there, in
        polars and in Arrow), on the same device and in the same floating dtype for tensors. Where several
        columns are asked for each of x's (a list of weights, `residual`, `std`, `bands`, …), they stand side
        by side, for one column of x after the other, as `x_ema_0.1`, `x_residual_0.1`, …, then those of pairs
        (`cov`, `corr`): a DataFrame or table for what has names, else (rows, new columns).

    Raises
    ------
    ValueError
        For values that are no numbers or infinite, for times that are missing or go backwards (all by row,
        counted from 0) and for options that are out of range or contradict each other.
    TypeError
        For an option there is not, and for what holds no rows, such as a LazyFrame.

    Notes
    -----
    With `alpha="auto"`, `result.attrs["alpha"]` of a pandas Series or DataFrame holds what was found, by
    column.

    `times`, `by`, `order` and `weights` may be names of columns, or of index levels in pandas; such columns
    are not smoothed.

    Examples
    --------
    >>> smooth([1.0, 2.0, 3.0], alpha=0.5)
    array([1.  , 1.5 , 2.25])
    """
    settings = read_options(options, timed=times is not None, weighted=weights is not None)
    chunk = read_chunk(x, Roles(times, by, order, axis, weights), settings)
    width = chunk.table.values.shape[1]
    alphas = None
    if settings.average.auto:
        alphas = best_alphas(lambda: chunk.tiles(settings), settings.average, width)
    found = fold(chunk, Trends(settings.average, width, alphas), KeyTable(), row_order(chunk, settings))
    if alphas is not None and isinstance(getattr(found, "attrs", None), dict):
        labels = chunk.table.labels or range(width)
        found.attrs["alpha"] = dict(zip(labels, alphas, strict=True))
    return found
