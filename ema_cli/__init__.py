"""Exponential moving averages: of arrays, of streams, of the parameters of a model.

smooth(x, alpha=0.1)            an array, Series or DataFrame in, the same kind out
Smoother(alpha=0.1)             a stream, chunk by chunk, that can be carried on later
ParameterEMA(params, decay=…)   the averages of a model's parameters while it trains
plot(frame, alpha=0.1)          a picture of values and trends, a page with a slider in a notebook's cell
Options                         the keywords of `smooth`, `Smoother` and `plot`, with their types
EmaError                        what all of them raise for bad values; it is a ValueError

The names are resolved when they are first used, so that `import ema_cli` loads nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ema_cli.api.arrays import smooth
    from ema_cli.api.options import Options
    from ema_cli.api.smoother import Smoother
    from ema_cli.errors import EmaError
    from ema_cli.parameters.ema import ParameterEMA
    from ema_cli.plotting.notebook import plot

__all__ = ["EmaError", "Options", "ParameterEMA", "Smoother", "plot", "smooth"]

_HOMES = {
    "smooth": "ema_cli.api.arrays",
    "Smoother": "ema_cli.api.smoother",
    "Options": "ema_cli.api.options",
    "ParameterEMA": "ema_cli.parameters.ema",
    "EmaError": "ema_cli.errors",
    "plot": "ema_cli.plotting.notebook",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
