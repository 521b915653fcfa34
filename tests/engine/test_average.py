"""The options of the average: what they become, which contradict each other, what a state is held to."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from ema_cli.average import FLAGS, Average, make_average
from ema_cli.errors import OptionError
from ema_cli.like import FAMILY, SETS

REFUSED: list[tuple[dict[str, Any], bool, str]] = [
    ({}, False, "no weight given"),
    ({"alpha": None, "span": ()}, False, "no weight given"),
    ({"alpha": np.array([])}, False, "no weight given"),
    ({"alpha": 0.1, "span": 20}, False, "--alpha and --span"),
    ({"alpha": ["0.1", "0.1"]}, False, "--alpha 0.1 is given twice"),
    ({"alpha": ["auto", " auto"]}, False, "given twice"),
    ({"halflife": "5min"}, False, "rows need times"),
    ({"halflife": ["5min", "10"]}, True, "a duration, not --halflife 10"),
    ({"span": 20}, True, "a duration, not --span 20"),
    ({"alpha": "auto"}, True, "a duration, not --alpha auto"),
    ({"alpha": 0.1, "reset_gap": "1h"}, False, "needs the times"),
    ({"halflife": "1h", "reset_gap": "1"}, True, "not a duration"),
    ({"halflife": "1h", "reset_gap": "0s"}, True, "not a duration"),
    ({"alpha": 0.1, "adjust": "yes"}, False, "neither True nor False"),
    ({"alpha": 0.1, "std": 1}, False, "neither True nor False"),
    ({"alpha": 0.1, "fill": math.nan}, False, "neither True nor False"),
    ({"alpha": 0.1, "missing": "drop"}, False, "not one of skip, decay, error"),
    ({"alpha": 0.1, "missing": True}, False, "not one of"),
    ({"alpha": 0.1, "init": "last"}, False, "not one of first, zero, sma"),
    ({"alpha": 0.1, "init": True}, False, "not one of"),
    ({"alpha": 0.1, "init": math.nan}, False, "not one of"),
    ({"alpha": 0.1, "init": "inf"}, False, "not one of"),
    ({"alpha": 0.1, "init": 3, "adjust": True}, False, "--init 3.0 does not go with --adjust"),
    ({"halflife": "1h", "init": "sma:3"}, True, "does not go with --time"),
    ({"alpha": 0.1, "init": "sma"}, False, "first SPAN values"),
    ({"halflife": "1h", "init": "sma"}, True, "does not go with --time"),
    ({"wilder": 3}, True, "a half-life that is a duration, not --wilder 3"),
    ({"alpha": 0.1, "like": "talib-dema"}, False, "how --like talib-dema begins"),
    ({"span": 2.5, "init": "sma"}, False, "whole spans"),
    ({"alpha": 0.1, "init": "sma:0"}, False, "not one of first, zero, sma"),
    ({"alpha": 0.1, "min_periods": -1}, False, "whole number"),
    ({"alpha": 0.1, "min_periods": 2.0}, False, "whole number"),
    ({"alpha": 0.1, "min_periods": True}, False, "whole number"),
    ({"alpha": 0.1, "min_periods": "3"}, False, "whole number"),
    ({"alpha": 0.1, "bands": 0}, False, "above 0"),
    ({"alpha": 0.1, "bands": True}, False, "above 0"),
    ({"alpha": 0.1, "bands": math.inf}, False, "above 0"),
    ({"alpha": 0.1, "like": "excel"}, False, "not one of pandas, polars"),
    ({"alpha": 0.1, "like": True}, False, "not one of pandas, polars"),
    ({"alpha": 0.1, "like": "pandas", "missing": "skip"}, False, "means --missing decay, not --missing skip"),
    ({"alpha": 0.1, "like": "pandas", "adjust": False}, False, "means --adjust, not no --adjust"),
    ({"alpha": 0.1, "like": "polars", "fill": True}, False, "means no --fill, not --fill"),
    ({"alpha": 0.1, "like": "talib"}, False, r"how --like talib begins"),
    ({"alpha": 0.1, "like": "miller", "init": "zero"}, False, "means --init first, not --init zero"),
    ({"halflife": "1h", "like": "tensorboard"}, True, "counts rows"),
]


@pytest.mark.parametrize(("options", "timed", "message"), REFUSED)
def test_what_is_refused(options: dict[str, Any], timed: bool, message: str) -> None:
    with pytest.raises(OptionError) as raised:
        make_average(options, timed=timed)
    assert message in str(raised.value)
    assert raised.value.hint
    assert raised.value.exit_code == 2


def test_unset_is_none_not_falsehood() -> None:
    average = make_average({"alpha": 0, "init": 0, "min_periods": None, "bands": None, "adjust": None})
    assert average == Average(average.decays, init=0.0)
    assert average.decays[0].alpha == 0.0
    assert average.start == 0.0


@pytest.mark.parametrize("weights", [[0.1, 0.5], (0.1, 0.5), np.array([0.1, 0.5]), ["0.1", "0.5"]])
def test_several_weights(weights: Any) -> None:
    average = make_average({"alpha": weights, "std": True, "bands": 2, "residual": True})
    parts = ["ema", "residual", "std", "lower", "upper"]
    assert average.names("x") == [f"x_{part}_{w}" for w in ("0.1", "0.5") for part in parts]


def test_names_of_one_weight_do_without_it() -> None:
    assert make_average({"alpha": "0.10", "bands": "1.5"}).names("x") == ["x_ema", "x_lower", "x_upper"]


def test_equal_weights_typed_apart_are_two_columns() -> None:
    assert make_average({"alpha": ["0.1", "0.10"]}).names("x") == ["x_ema_0.1", "x_ema_0.10"]


def test_auto_stands_beside_other_weights() -> None:
    average = make_average({"alpha": ["auto", "0.5"]})
    assert average.auto
    found = average.with_alpha(0.25)
    assert not found.auto
    assert [decay.alpha for decay in found.decays] == [0.25, 0.5]
    assert found.names("x") == ["x_ema_auto", "x_ema_0.5"]


@pytest.mark.parametrize("like", SETS)
def test_like_may_be_repeated_by_options_that_say_the_same(like: str) -> None:
    family = {FAMILY.get(like, "span"): 10}
    assert make_average(family | {"like": like} | SETS[like]) == make_average(family | {"like": like})


@pytest.mark.parametrize("like", SETS)
def test_like_is_remembered_but_resolved_in_the_signature(like: str) -> None:
    family = {FAMILY.get(like, "span"): 10}
    average = make_average(family | {"like": like})
    assert average.like == like
    assert average.signature() == make_average(family | SETS[like]).signature()


def test_like_with_times() -> None:
    polars = make_average({"halflife": "1h", "like": "polars"}, timed=True)
    pandas = make_average({"halflife": "1h", "like": "pandas"}, timed=True)
    assert (polars.adjust, polars.fill, pandas.adjust, pandas.fill) == (False, False, True, True)


# One change of each option that shapes the numbers.
CHANGES: dict[str, Any] = {
    "alpha": 0.2,
    "adjust": True,
    "init": "zero",
    "missing": "decay",
    "min_periods": 3,
    "bands": 2,
    **dict.fromkeys(FLAGS, True),
}


def test_the_signature_holds_every_option() -> None:
    base = make_average({"alpha": 0.1}).signature()
    for name, value in CHANGES.items():
        weights = [0.1, 0.2] if name == "diff" else 0.1
        changed = make_average({"alpha": weights, name: value}).signature()
        differ = [key for key in base if changed[key] != base[key]]
        also = {"diff": ["alpha"], "centered": ["adjust"]}.get(name, [])
        assert differ == [*also, name.replace("_", "-")]
    timed = make_average({"halflife": "1h"}, timed=True).signature()
    gap = make_average({"halflife": "1h", "reset_gap": "1d"}, timed=True).signature()
    assert [key for key in gap if timed[key] != gap[key]] == ["reset-gap"]
    assert timed["timed"] is True
    fields = set(Average.__dataclass_fields__) - {"decays", "like", "name", "timed"}
    assert {name.replace("_", "-") for name in fields} <= set(gap)


def test_the_signature_is_json_and_one_for_all_spellings() -> None:
    one, other = make_average({"alpha": "0.10"}), make_average({"alpha": 0.1})
    assert one.signature() == other.signature()
    assert json.loads(json.dumps(one.signature())) == one.signature()
    auto = make_average({"alpha": "auto"})
    assert json.loads(json.dumps(auto.signature()))["alpha"] == ["auto"]
    assert auto.with_alpha(0.5).signature()["alpha"] == [0.5]
