"""A plugin for pytest that puts pandas' exponential windows on `ema_cli.smooth`, for pandas' own tests.

What pandas asks of any window (selections, groups and their labels, pairs of columns, its own checks of
arguments) stays pandas'. The numbers are ours: of a Series or DataFrame as it is, of groups and pairs as
arrays. Three things are asked for in pandas' way: bool and object columns are cast first, infinities count as
missing, and results are `float64` where ours would be nullable.

numba, which pandas can use instead of its own loops, is there in name alone: where it is asked for, and for
`online()`, which asks for it always, `smooth` and `Smoother` answer too.

Of the tests that it is given those run whose text, or a function among whose parameters, speaks of such
windows. How each ended that made one is written to the file that EMA_PANDAS_TESTS names.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
from pandas._libs.window import aggregations
from pandas.core.window.ewm import (
    ExponentialMovingWindow,
    ExponentialMovingWindowGroupBy,
    OnlineExponentialMovingWindow,
)
from pandas.errors import DataError

from ema_cli import Smoother, smooth

Floats = np.ndarray[Any, np.dtype[np.float64]]


class Ewm:
    """The methods that are put in place of `ExponentialMovingWindow`'s."""

    def mean(self: Any, numeric_only: bool = False, engine: Any = None, engine_kwargs: Any = None) -> Any:
        _check_engine(engine, engine_kwargs)
        return _smoothed(self, "ema", numeric_only)

    def sum(self: Any, numeric_only: bool = False, engine: Any = None, engine_kwargs: Any = None) -> Any:
        _check_engine(engine, engine_kwargs)
        if not self.adjust:
            raise NotImplementedError("sum is not implemented with adjust=False")
        return _smoothed(self, "sum", numeric_only)

    def var(self: Any, bias: bool = False, numeric_only: bool = False) -> Any:
        return _smoothed(self, "var", numeric_only, bias=bias)

    def std(self: Any, bias: bool = False, numeric_only: bool = False) -> Any:
        return _smoothed(self, "std", numeric_only, bias=bias)


class Online:
    """The methods that are put in place of `OnlineExponentialMovingWindow`'s."""

    def mean(self: Any, *, update: Any = None, update_times: Any = None) -> Any:
        if update_times is not None:
            raise NotImplementedError("update_times is not implemented.")
        if update is None:
            self._smoother = Smoother(**_weight(self), **_rows(self), fill=True, invalid="missing")
        elif getattr(self, "_smoother", None) is None:
            raise ValueError("Must call mean with update=None first before passing update")
        return self._smoother.update(self._selected_obj if update is None else update)

    def reset(self: Any) -> None:
        self._smoother = None


def _check_engine(engine: Any, engine_kwargs: Any) -> None:
    if engine not in (None, "cython", "numba"):
        raise ValueError("engine must be either 'numba' or 'cython'")
    if engine_kwargs is not None and engine != "numba":
        raise ValueError("cython engine does not accept engine_kwargs")


def _smoothed(window: Any, what: str, numeric_only: bool, bias: bool = False) -> Any:
    name = "mean" if what == "ema" else what
    if window.times is not None and what != "ema":
        raise NotImplementedError(f"{name} is not implemented with times")
    window._validate_numeric_only(name, numeric_only)
    asked = _asked(what, bias) | _rows(window)
    if isinstance(window, ExponentialMovingWindowGroupBy):
        return _of_groups(window, what, asked, numeric_only)
    numbers = _numbers(window._create_data(window._selected_obj, numeric_only))
    if numbers.size == 0:
        return numbers
    result = smooth(numbers, times=window.times, **_weight(window), **asked)
    return _only(result, what, numbers).astype("float64")


def _weight(window: Any) -> dict[str, Any]:
    given = {name: getattr(window, name) for name in ("com", "span", "halflife", "alpha")}
    if window.times is None or sum(value is not None for value in given.values()) == 1:
        return given
    # With times pandas takes a second weight: what is left after one half-life, where that is not a half.
    alpha = 1 / (1 + window._com)
    return {"halflife": pd.Timedelta(window.halflife) / -math.log2(1 - alpha)}


def _rows(window: Any) -> dict[str, Any]:
    """How rows count."""
    missing = "skip" if window.ignore_na else "decay"
    return {"adjust": window.adjust, "missing": missing, "min_periods": window.min_periods}


def _asked(what: str, bias: bool) -> dict[str, Any]:
    """What is asked for beside the mean."""
    wanted = {} if what == "ema" else {what: True}
    return wanted | ({"bias": True} if bias else {}) | {"fill": True, "invalid": "missing"}


def _numbers(data: Any) -> Any:
    """A Series or DataFrame with bool and object columns as float64, as pandas has them."""

    def cast(column: Any) -> Any:
        odd = column.dtype == object or pd.api.types.is_bool_dtype(column.dtype)
        try:
            column = column.astype("float64") if odd else column
        except (TypeError, ValueError):
            odd = True
        if not pd.api.types.is_numeric_dtype(column.dtype):
            text = "No numeric types to aggregate" if data.ndim == 1 else "Cannot aggregate non-numeric type"
            raise DataError(f"{text}: {column.dtype}")
        return column

    if data.ndim == 1:
        return cast(data)
    columns = [cast(data.iloc[:, k]) for k in range(data.shape[1])]
    if not columns:
        return data.astype("float64")
    return pd.concat(columns, axis=1).set_axis(data.columns, axis=1)


def _only(result: Any, what: str, like: Any) -> Any:
    """The columns of one statistic, labelled as the input is."""
    if result.ndim == like.ndim and result.shape == like.shape:
        return result
    chosen = result.loc[:, [str(name).rpartition("_")[2] == what for name in result.columns]]
    return chosen.iloc[:, 0].rename(like.name) if like.ndim == 1 else chosen.set_axis(like.columns, axis=1)


def _of_groups(window: Any, what: str, asked: dict[str, Any], numeric_only: bool) -> Any:
    """Groups, which pandas has sorted: each column as an array with the number of the group as key."""
    weight = _weight(window)
    times = window.times
    if times is not None:
        times = pd.Index(times).take(np.concatenate(list(window._grouper.indices.values())))

    def of_column(values: Floats, begin: Sequence[int], end: Sequence[int], _min_periods: int) -> Floats:
        keys = np.repeat(np.arange(len(begin)), np.subtract(end, begin))
        if not len(values):
            return values
        result = smooth(pd.Series(values, name="x"), by=keys, times=times, **weight, **asked)
        return np.asarray(_only(result, what, pd.Series(values, name="x")))

    return window._apply(of_column, name="mean" if what == "ema" else what, numeric_only=numeric_only)


def covariance(
    x: Floats,
    begin: Sequence[int],
    end: Sequence[int],
    min_periods: int,
    *rest: Any,
) -> Floats:
    """In place of `aggregations.ewmcov`, which pandas' cov and corr call for each pair of columns."""
    y, com, adjust, ignore_na, bias = rest
    if not len(x):
        return x
    result = smooth(
        pd.DataFrame({"x": x, "y": y}),
        by=np.repeat(np.arange(len(begin)), np.subtract(end, begin)),
        com=com,
        adjust=adjust,
        missing="skip" if ignore_na else "decay",
        min_periods=max(min_periods, 1),
        **_asked("cov", bias),
    )
    return np.asarray(result["x_y_cov"])


# -- the plugin

made: list[Any] = []
ended: dict[str, str] = {}


def pytest_configure() -> None:
    init = ExponentialMovingWindow.__init__

    def noted(self: Any, *given: Any, **named: Any) -> None:
        made.append(type(self))
        init(self, *given, **named)

    ExponentialMovingWindow.__init__ = noted
    for name in ("mean", "sum", "var", "std"):
        setattr(ExponentialMovingWindow, name, getattr(Ewm, name))
    for name in ("mean", "reset"):
        setattr(OnlineExponentialMovingWindow, name, getattr(Online, name))
    aggregations.ewmcov = covariance
    numba = sys.modules["numba"] = ModuleType("numba")
    numba.__version__ = "1000"  # type: ignore[attr-defined]


def pytest_collection_modifyitems(items: list[Any]) -> None:
    items[:] = [item for item in items if _makes_windows(item)]


def _makes_windows(item: Any) -> bool:
    given = item.callspec.params.values() if hasattr(item, "callspec") else ()
    functions = [item.function, *(one for one in given if inspect.isfunction(one))]
    return any(re.search(r"\bewm\b|_ewm\b", inspect.getsource(function)) for function in functions)


def pytest_runtest_setup() -> None:
    made.clear()


def pytest_runtest_logreport(report: Any) -> None:
    if made and (report.when == "call" or report.outcome != "passed"):
        ended[report.nodeid.rpartition("pandas/tests/")[2]] = report.outcome


def pytest_sessionfinish() -> None:
    Path(os.environ["EMA_PANDAS_TESTS"]).write_text(json.dumps(ended))
