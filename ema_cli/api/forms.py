"""Finds the library of an object, and imports the module that reads its objects."""

from __future__ import annotations

from typing import Any

from ema_cli.api.of_numpy import NumpyArray, array_of
from ema_cli.api.tables import Form
from ema_cli.errors import OptionError

# Objects that hold no rows yet, and how to get the rows.
ELSEWHERE = {
    "LazyFrame": "smooth(x.collect(), …), or frame.map_batches(lambda rows: smooth(rows, …))",
    "Expr": "expr.map_batches(lambda series: smooth(series, …))",
    "RecordBatchReader": "smooth(x.read_all(), …), or a Smoother, batch by batch",
    "dask": "ema_cli.dask.smooth(x, …)",
    "groupby": "smooth(frame, by=…)",
}


def library_of(x: Any) -> str:
    """The package that defines an object's type, or the type it derives from: 'pandas', 'builtins', …"""
    known = ("pandas", "polars", "pyarrow", "torch")
    roots = [cls.__module__.partition(".")[0] for cls in type(x).__mro__]
    return next((root for root in roots if root in known), roots[0])


def form_of(x: Any, axis: Any = None) -> Form:
    """The form of an object. Raises TypeError for what can't be a table."""
    library = library_of(x)
    form: Form | None = None
    if library == "pandas":
        from ema_cli.api import of_pandas

        form = of_pandas.form_of(x)
    elif library == "polars":
        from ema_cli.api import of_polars

        form = of_polars.form_of(x)
    elif library == "pyarrow":
        from ema_cli.api import of_arrow

        form = of_arrow.form_of(x)
    elif library == "torch":
        from ema_cli.api import of_torch

        form = of_torch.form_of(x, _axis_number(axis))
        axis = None
    _check_elsewhere(x, library)
    if (
        form is None
        and not isinstance(x, type)
        and (hasattr(x, "__arrow_c_stream__") or hasattr(x, "__arrow_c_array__"))
    ):
        from ema_cli.api import of_arrow

        form = of_arrow.table_of(x)
    if form is None:
        return NumpyArray(array_of(x), _axis_number(axis))
    if axis not in (None, 0, "index", "rows"):
        raise OptionError(f"axis={axis!r}: rows run down a {type(x).__name__}", "smooth(x.T, …).T")
    return form


def _check_elsewhere(x: Any, library: str) -> None:
    """Raise TypeError for objects that hold no rows yet."""
    name = type(x).__name__
    kind = "groupby" if "GroupBy" in name else "dask" if library == "dask" and name != "Array" else name
    if kind in ELSEWHERE:
        raise TypeError(f"{name} holds no rows yet\n  try: {ELSEWHERE[kind]}")


def _axis_number(axis: Any) -> int | None:
    if axis is None or (isinstance(axis, int) and not isinstance(axis, bool)):
        return axis
    raise OptionError(f"axis={axis!r}: not a whole number", "axis=0")
