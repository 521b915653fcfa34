"""Other systems' averages, as sets of the options that reproduce their numbers.

Each set is what the system does when asked for nothing in particular, and `tests/test_like.py` holds it
against the real one. What a set does not name is free: pandas has `min_periods` too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ema_cli.errors import OptionError

_RECURSIVE = {"adjust": False, "init": "first"}

# pandas: Series.ewm(...).mean(): adjust=True, ignore_na=False, and the held average on missing rows.
# polars: Expr.ewm_mean(...): adjust=True, ignore_nulls=False; missing rows stay missing.
# talib: EMA(x, timeperiod): the plain mean of the first timeperiod values, then the recursion.
# tensorboard: the scalar chart's debiased smoothing, whose weight is `decay`; NaN passes through.
# miller: `mlr step -a ewma`, on clean data; a missing cell ruins all that follows there, but not here.
# talib-rma: Wilder's smoothing, which is inside of TA-Lib's ATR, RSI and ADX. talib-dema: DEMA; talib-tema:
# TEMA.
# clickhouse: exponentialMovingAverage(x)(value, row number); with times exponentialTimeDecayedAvg(x)(v, t).
# influxdb: Flux's exponentialMovingAverage(n). questdb: avg(x, 'alpha' or 'period', N); with times avg(x,
# 'second' or another unit, N), where of rows of equal time the last counts alone.
SETS: dict[str, dict[str, Any]] = {
    "pandas": {"adjust": True, "missing": "decay", "fill": True},
    "polars": {"adjust": True, "missing": "decay", "fill": False},
    "talib": {"adjust": False, "init": "sma"},
    "tensorboard": {"adjust": True, "missing": "skip", "fill": False},
    "miller": _RECURSIVE,
    "talib-rma": {"adjust": False, "init": "sma"},
    "talib-dema": {"adjust": False, "init": "sma", "double": True},
    "talib-tema": {"adjust": False, "init": "sma", "triple": True},
    "clickhouse": {"adjust": False, "init": "zero"},
    "influxdb": {"adjust": False, "init": "sma", "missing": "skip", "fill": False},
    "questdb": _RECURSIVE | {"missing": "skip", "fill": True},
}
# The one family that a set is of, where a weight of another would be another average.
FAMILY = {"talib-rma": "wilder"}
# With times: pandas' ewm(times=) and polars' ewm_mean_by, ClickHouse and QuestDB; the others have none.
TIMED: dict[str, dict[str, Any]] = {
    "pandas": {"adjust": True, "fill": True},
    "polars": {"adjust": False, "fill": False},
    "clickhouse": {"adjust": True, "fill": False},
    "questdb": {"adjust": False, "fill": True},
}


def resolve_like(options: Mapping[str, Any], timed: bool) -> dict[str, Any]:
    """The options with `like`, if there is one, replaced by what it stands for.

    An option given beside it that says the same is fine. Raises OptionError for one that contradicts, for
    a system that is not known, and for times where the system has none.
    """
    like = options.get("like")
    if like is None:
        return dict(options)
    if not isinstance(like, str) or like not in SETS:
        raise OptionError(f"--like {like}: not one of {', '.join(SETS)}", "--like pandas")
    if timed and like not in TIMED:
        raise OptionError(f"--like {like} does not go with --time: {like} counts rows", "--like polars")
    chosen = (TIMED if timed else SETS)[like]
    if (family := FAMILY.get(like)) is not None and options.get(family) in (None, ()):
        raise OptionError(f"--like {like} needs --{family}", f"--like {like} --{family} 14")
    for name, value in chosen.items():
        given = options.get(name)
        if given is not None and given != value:
            raise OptionError(
                f"--like {like} means {_say(name, value)}, not {_say(name, given)}",
                f"--like {like} alone, or the options one by one: {describe(like, timed)}",
            )
    return {**options, **chosen}


def describe(like: str, timed: bool = False) -> str:
    """What a set stands for, as options to type."""
    chosen = (TIMED if timed else SETS)[like].items()
    return " ".join(_say(name, value) for name, value in chosen if value is not False) or "the default"


def _say(name: str, value: Any) -> str:
    option = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return option if value else f"no {option}"
    return f"{option} {value}"
