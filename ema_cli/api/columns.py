"""Times, keys, order and weights of rows, given by name or as columns, as Arrow arrays."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import pyarrow as pa

from ema_cli.api.forms import library_of
from ema_cli.api.tables import Form
from ema_cli.errors import DataError, OptionError
from ema_cli.formats.base import Ints


def is_name(form: Form, given: Any) -> bool:
    """Whether `given` names a column: a text or other label, for an object whose columns have names."""
    if given is None or form.names is None:
        return False
    if isinstance(given, tuple):
        return given in form.names
    return isinstance(given, str) or (np.ndim(given) == 0 and isinstance(given, Hashable))


def named(form: Form, given: Any) -> list[Hashable]:
    """What of `given`, one thing or a list, names a column."""
    return [one for one in (given if isinstance(given, list) else [given]) if is_name(form, one)]


def column(x: Any, form: Form, given: Any, option: str) -> Any:
    """The column of that name, or what was given itself. Raises OptionError for an unknown name."""
    if not is_name(form, given):
        if isinstance(given, str) and not form.single:
            raise OptionError(f"{option}={given!r} names a column, and {type(x).__name__} has no names")
        _check_index(x, given, option)
        return [given] if form.single else given
    if form.names is None or given not in form.names:
        listed = ", ".join(repr(name) for name in form.names or ())
        raise OptionError(
            f"{option}={given!r}: no column or index level of that name; there are: {listed or 'none'}"
        )
    found = form.column(given)
    if found is None:
        raise OptionError(f"{option}={given!r}: several columns have that name")
    return found


def _check_index(x: Any, given: Any, option: str) -> None:
    """Raise DataError for two pandas objects with different indexes, which pandas would align by label."""
    if library_of(x) != "pandas" or library_of(given) != "pandas":
        return
    theirs, own = getattr(given, "index", None), getattr(x, "index", None)
    if theirs is not None and own is not None and not theirs.equals(own):
        raise DataError(
            f"{option} and x are two Series with different indexes",
            hint=f"{option}=....reindex(x.index), or .to_numpy() to go by position",
        )


def key_columns(x: Any, form: Form, by: Any) -> list[Any]:
    """`by` as one key column, or several: a list of names or of columns, or the columns of a table."""
    if isinstance(by, list | tuple) and len(by):
        if form.single or all(_is_column(one) for one in by):
            return [column(x, form, one, "by") for one in by]
        # A list as long as x that holds no names is one key for each row; others are names, perhaps misspelt.
        if isinstance(by, list) and form.names is not None and (len(by) != len(x) or _all_names(form, by)):
            return [column(x, form, one, "by") for one in by]
    if library_of(by) == "pandas" and np.ndim(by) == 2:
        return [column(x, form, by[label], "by") for label in by.columns]
    if library_of(by) in ("polars", "pyarrow") and hasattr(by, "columns"):
        return list(by.iter_columns() if hasattr(by, "iter_columns") else by.columns)
    return [column(x, form, by, "by")]


def _is_column(given: Any) -> bool:
    return not isinstance(given, str) and (hasattr(given, "__len__") and np.ndim(given) == 1)


def _all_names(form: Form, given: list[Any]) -> bool:
    known = set(form.names or ())
    return all(isinstance(name, Hashable) and name in known for name in given)


def as_arrow(given: Any, rows: int, option: str) -> Any:
    """One column of times or keys as an Arrow array. Raises DataError where it is not one of so many rows."""
    given = _plain(given)
    if np.ndim(given) != 1:
        raise DataError(f"{option} must have one dimension, not {np.ndim(given)}")
    if len(given) != rows:
        raise DataError(f"{option} has {len(given)} rows, x has {rows}")
    try:
        array = pa.array(given, from_pandas=True)
    except (pa.ArrowException, TypeError) as error:
        raise DataError(f"{option}: {error}", hint=f"one type for all of {option}") from None
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _plain(given: Any) -> Any:
    """Tensors, periods, and times in units unknown to Arrow, as something that it knows."""
    library = library_of(given)
    if library == "torch":
        from ema_cli.api.of_torch import to_numpy

        return to_numpy(given)
    if isinstance(given, list | tuple):
        first = next((one for one in given if one is not None), None)
        if isinstance(first, np.datetime64 | np.timedelta64):
            given = np.array(given, f"{first.dtype.kind}8")
        elif type(first).__name__ == "Period" and library_of(first) == "pandas":
            return _plain(_of_pandas(given))
    if library == "pandas" and type(getattr(given, "dtype", None)).__name__ == "PeriodDtype":
        return getattr(given, "dt", given).to_timestamp()
    if isinstance(given, np.ndarray) and given.dtype.kind in "mM":
        unit = np.datetime_data(given.dtype)[0]
        if unit in ("D", "h", "m") or (given.dtype.kind == "M" and unit in ("Y", "M", "W")):
            return given.astype(f"{given.dtype.kind}8[s]")
    return given


def _of_pandas(periods: Any) -> Any:
    import pandas as pd

    return pd.PeriodIndex(periods)


def plain_nanoseconds(given: Any, rows: int) -> Ints | None:
    """Times that are datetime64[ns] without missing ones, as integers; None for all others."""
    plain = getattr(given, "to_numpy", None) if library_of(given) == "pandas" else None
    array = given if plain is None else plain()
    if isinstance(array, np.ndarray) and array.dtype == "datetime64[ns]" and array.shape == (rows,):
        whole = array.view(np.int64)
        if whole.min(initial=0) > np.iinfo(np.int64).min:
            return whole
    return None
