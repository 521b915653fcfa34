"""`smooth`: averages of arrays, Series and DataFrames in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from ema_cli.api.chunks import fold, read_chunk
from ema_cli.api.options import Options, read_options
from ema_cli.auto import best_alphas
from ema_cli.formats.base import Floats
from ema_cli.keys import KeyTable
from ema_cli.trends import Trends

if TYPE_CHECKING:
    from typing import Unpack

    import pandas as pd
    from numpy.typing import NDArray


@overload
def smooth(x: NDArray[Any], *, times: Any = ..., by: Any = ..., **options: Unpack[Options]) -> Floats: ...
@overload
def smooth(
    x: pd.DataFrame, *, times: Any = ..., by: Any = ..., **options: Unpack[Options]
) -> pd.DataFrame: ...
@overload
def smooth(x: Any, *, times: Any = ..., by: Any = ..., **options: Unpack[Options]) -> Any: ...
def smooth(x: Any, *, times: Any = None, by: Any = None, **options: Unpack[Options]) -> Any:
    """The exponential moving average of x, with the shape and the labels of x.

    x: (rows,) or (rows, columns) of any kind of number: an array or anything NumPy makes one of, a Series, a
    DataFrame. NaN, None, NA and masked values are missing. The result is float64: an array for what is not
    pandas', else a Series or DataFrame with x's index and names. Where several columns are asked for each
    of x's (a list of weights, `residual`, `std`, `bands`), they stand side by side, column after column of
    x, as `x_ema_0.1`, `x_residual_0.1`, …: a DataFrame for pandas, else (rows, new columns).

    times: one time a row, never decreasing (for each key): datetimes of any unit or zone, ISO 8601 text, or
    numbers with `time_unit`; needs `halflife="5min"` or another duration. by: one key a row for independent
    series, or a list of several keys; a missing key is a key. For a DataFrame both may be names of columns,
    which are then not smoothed, and for anything of pandas' of index levels.

    options: see `Options`. Raises ValueError for values that are no numbers or infinite, for times that are
    missing or go backwards (all by row, counted from 0) and for options that are out of range or contradict
    each other; TypeError for an option there is not.

    >>> smooth([1.0, 2.0, 3.0], alpha=0.5)
    array([1.  , 1.5 , 2.25])
    """
    settings = read_options(options, timed=times is not None)
    chunk = read_chunk(x, times, by, settings)
    width = chunk.table.values.shape[1]
    alphas = best_alphas(chunk.tiles, settings.average, width) if settings.average.auto else None
    return fold(chunk, Trends(settings.average, width, alphas), KeyTable())
