"""`ema_cli.plot`: the picture of a frame's trends, in a notebook's cell or as a file."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import pyarrow as pa

from ema_cli.api.options import Options, Settings, in_python, read_options
from ema_cli.errors import DataError, EmaError, OptionError
from ema_cli.job import Job, Summary
from ema_cli.plotting.chart import Chart, Look, make_chart
from ema_cli.plotting.plot import PAGES, SUFFIXES, Recorder, draw, suffix_of
from ema_cli.plotting.record import PAGE, PICTURE, Limits, recorded
from ema_cli.run.pipeline import run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRAME = (
    '<iframe srcdoc="{page}" sandbox="allow-scripts allow-downloads" title="{title}" '
    'style="width:100%;height:{height}px;border:0"></iframe>'
)
HEIGHT = 760  # pixels of a cell


class Plot:
    """A picture of trends, as `plot` gives it: shows itself in a notebook's cell as a page with a slider."""

    def __init__(self, make: Callable[[Limits], Chart]) -> None:
        self._make, self._page = make, make(PAGE)

    @cached_property
    def _picture(self) -> Chart:
        return self._make(PICTURE)

    def __repr__(self) -> str:
        columns = ", ".join(column.name for column in self._page.columns[:5])
        columns += ", …" * (len(self._page.columns) > 5)
        keys = f", {len(self._page.names)} keys" * (len(self._page.names) > 1)
        return f"<Plot of {columns}{keys}: {self._page.title}>"

    def _repr_html_(self) -> str:
        """The page in a frame, so that it and the notebook can't change each other."""
        title = escape(self._page.title or "trend")
        return FRAME.format(page=escape(self.page()), title=title, height=HEIGHT)

    def page(self) -> str:
        """The page as HTML text that needs no other files."""
        return draw(self._page, PAGES).decode()

    def figure(self) -> Figure:
        """The picture as a matplotlib figure.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        from ema_cli.plotting.picture import styled_figure

        return styled_figure(self._picture)

    def save(self, path: str | Path) -> None:
        """Write it to a file.

        Parameters
        ----------
        path : str or Path
            Ends in .html, .png, .svg or .pdf, which says what is written.

        Raises
        ------
        ValueError
            For another suffix.
        """
        suffix = suffix_of(str(path))
        if suffix not in SUFFIXES:
            raise OptionError(f"{path}: not a kind of picture ({', '.join(SUFFIXES)})", "trend.html")
        Path(path).write_bytes(draw(self._page if suffix == PAGES else self._picture, suffix))


def plot(
    data: Any,
    *,
    x: Any = None,
    by: Any = None,
    times: Any = None,
    title: str | None = None,
    size: tuple[int, int] | None = None,
    log: bool = False,
    **options: Unpack[Options],
) -> Plot:
    """Draw values and trends, as the command's `--plot` does.

    Parameters
    ----------
    data
        A DataFrame or Series (pandas, polars), an Arrow table, a mapping of names to columns, or an array of
        (rows,) or (rows, columns). Columns that hold no numbers are left out.
    x, times, by
        The axis, the times and the key of the rows: a column's name (of pandas' index too), or a value a row;
        `by` may be a list of names. pandas' index, if it is more than row numbers, is the axis by default.
    title, size, log
        As `--title`, `--size` (pixels across and down) and `--log`.
    **options
        The average, as for `smooth`: ``alpha=0.1``, ``halflife="5min"``, ``adjust=True``, …

    Returns
    -------
    Plot
        Shows itself in a notebook's cell; ``.save("trend.html")`` (or .png, .svg, .pdf), ``.figure()``.

    Raises
    ------
    ValueError
        For options that are out of range or contradict each other, and for bad rows.
    """
    settings = read_options(options, timed=times is not None)
    table, job = _job(read_frame(data), (x, times, by), settings)
    return Plot(partial(_chart, job, table, Look(_title(job, title), size, log)))


def _job(
    frame: tuple[pa.Table, list[str], str | None], roles: tuple[Any, Any, Any], settings: Settings
) -> tuple[pa.Table, Job]:
    """The table with its columns of axis, times and keys, and what the command is to do with it."""
    (table, numeric, index), (x, times, by) = frame, roles
    if x is None and times is None:
        x = index
    table, axis = _with(table, "x", x)
    table, time = _with(table, "times", times)
    keys = by if isinstance(by, list) and all(isinstance(key, str) for key in by) else [by]
    names = []
    for key in keys if by is not None else []:
        table, name = _with(table, "by", key)
        names.append(str(name))
    columns = tuple(name for name in numeric if name not in (axis, time, *names))
    if not columns:
        raise DataError("no column holds numbers", hint="name a column of numbers, or astype(float)")
    form = settings.form
    job = Job(settings.average, columns=columns, by=tuple(names), time=time, only=True, x=axis)
    job = replace(job, time_unit=form.unit, time_format=form.format, time_zone=form.zone, late=settings.late)
    return table, replace(job, invalid=settings.invalid)


def _chart(job: Job, table: pa.Table, look: Look, limits: Limits) -> Chart:
    """The chart that the command makes of the table, by way of a temporary file."""
    with tempfile.TemporaryDirectory(prefix="ema-smooth-") as folder:
        source = str(Path(folder, "data.arrow"))
        with pa.ipc.new_file(source, table.schema) as out:
            out.write_table(table)
        job = replace(job, inputs=(source,), output=str(Path(folder, "trend.arrow")))
        recorder = Recorder(job, limits)
        try:
            summary: Summary = run(job, recorder)
        except EmaError as error:
            problem = error.problem.replace(f"{source}, ", "").replace(f"{source}: ", "")
            kind = OptionError if isinstance(error, OptionError) else DataError
            raise kind(in_python(problem), hint=in_python(error.hint)) from None
    if recorder.record is None or recorder.empty:
        raise DataError("no rows, so nothing is drawn")
    return make_chart(job, recorded(recorder.record), summary, look)


def _title(job: Job, title: str | None) -> str | None:
    """The weight, where no title is given: a frame has no name of its own."""
    first = job.average.decays[0]
    if title is not None or first.auto:
        return title
    return f"{first.family} {', '.join(decay.text for decay in job.average.decays)}"


def read_frame(data: Any) -> tuple[pa.Table, list[str], str | None]:
    """The data as an Arrow table, its columns of numbers, and the one that is pandas' index, if any."""
    pandas: Any = sys.modules.get("pandas")
    index = None
    if pandas is not None and isinstance(data, pandas.Series):
        data = data.to_frame("value" if data.name is None else data.name)
    if pandas is not None and isinstance(data, pandas.DataFrame):
        columns, index = _from_pandas(data, pandas)
    elif isinstance(data, Mapping):
        columns = {str(name): pa.array(np.asarray(column), from_pandas=True) for name, column in data.items()}
    elif hasattr(data, "__arrow_c_stream__") or isinstance(data, pa.RecordBatch):
        table = pa.table(data.to_frame() if hasattr(data, "to_frame") else data)
        columns = dict(zip(table.column_names, table.columns, strict=True))
    else:
        columns = _from_array(np.asarray(data))
    numeric = [name for name, column in columns.items() if name != index and _is_number(column.type)]
    return pa.table(columns), numeric, index


def _from_pandas(frame: Any, pandas: Any) -> tuple[dict[str, Any], str | None]:
    """The columns, and the levels of an index that says more than the rows' numbers."""
    columns: dict[str, Any] = {}
    for place, label in enumerate(frame.columns):
        name = "_".join(map(str, label)) if isinstance(label, tuple) else str(label)
        try:
            columns[name] = pa.array(frame.iloc[:, place], from_pandas=True)
        except pa.ArrowException:  # things of several kinds: no numbers
            continue
    if isinstance(frame.index, pandas.RangeIndex):
        return columns, None
    for level, label in enumerate(frame.index.names):
        name = f"index {level}" if label is None and frame.index.nlevels > 1 else str(label or "index")
        columns.setdefault(name, pa.array(frame.index.get_level_values(level), from_pandas=True))
    kind = columns[name].type
    usable = frame.index.nlevels == 1 and (_is_number(kind) or pa.types.is_temporal(kind))
    return columns, name if usable else None


def _from_array(array: Any) -> dict[str, Any]:
    if array.ndim not in (1, 2):
        raise DataError(f"an array of {array.ndim} dimensions; one or two can be drawn")
    if array.ndim == 1:
        return {"value": pa.array(array, from_pandas=True)}
    return {f"column {k + 1}": pa.array(column, from_pandas=True) for k, column in enumerate(array.T)}


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _with(table: Any, option: str, given: Any) -> tuple[Any, str | None]:
    """The table with what is given as a column, and its name; None where nothing is given."""
    if given is None:
        return table, None
    if isinstance(given, str):
        if given not in table.column_names:
            there = ", ".join(map(repr, table.column_names))
            raise OptionError(f"{option}={given!r}: no column of that name; there are: {there}")
        return table, given
    column = pa.array(given if hasattr(given, "dtype") else np.asarray(given), from_pandas=True)
    if len(column) != len(table):
        raise DataError(f"{option} has {len(column)} rows, the data has {len(table)}")
    name = str(getattr(given, "name", None) or option)
    while name in table.column_names:
        name += "_"
    return table.append_column(name, column), name
