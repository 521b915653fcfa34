"""What alpha, span, com, halflife and decay mean, and what is refused."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ema_cli.decay import FAMILIES, duration_text, make_decay, number_in, parse_duration
from ema_cli.errors import OptionError


@pytest.mark.parametrize(
    ("family", "given", "alpha"),
    [
        ("alpha", 0.25, 0.25),
        ("alpha", "1e-3", 0.001),
        ("alpha", 0, 0.0),
        ("alpha", np.float32(0.5), 0.5),
        ("span", 3, 0.5),
        ("span", "19", 0.1),
        ("com", 9, 0.1),
        ("decay", 0.999, 0.001),
        ("decay", "0.9", 0.1),
        ("halflife", 1, 0.5),
        ("halflife", 1e300, math.log(2) / 1e300),
    ],
)
def test_alpha_of_each_family(family: str, given: Any, alpha: float) -> None:
    assert make_decay(family, given).alpha == alpha


@pytest.mark.parametrize(("family", "given"), [("span", 20.5), ("com", 3.7), ("halflife", 12.3)])
def test_conversions_are_those_of_pandas(family: str, given: float) -> None:
    x = pd.Series([1.0, 2.0, 5.0, -3.0])
    alpha = make_decay(family, given).alpha
    expected = x.ewm(**{family: given}, adjust=False).mean()
    np.testing.assert_allclose(x.ewm(alpha=alpha, adjust=False).mean(), expected, rtol=1e-13)


@pytest.mark.parametrize(
    ("given", "text"),
    [("0.10", "0.10"), (" 0.1 ", "0.1"), ("1e-3", "1e-3"), (0.1, "0.1"), (20, "20"), (20.0, "20")],
)
def test_the_text_names_the_columns_as_typed(given: Any, text: str) -> None:
    assert make_decay("alpha" if given != 20 else "span", given).text == text


def test_two_weights_never_share_a_text() -> None:
    assert make_decay("alpha", 0.1 + 0.2).text != make_decay("alpha", 0.3).text


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "given",
    [True, False, np.True_, math.nan, math.inf, "nan", "inf", "", "1_0", "0x1", "x", None, [], -0.5, 1j],
)
def test_what_is_no_weight(family: str, given: Any) -> None:
    with pytest.raises(OptionError, match=f"--{family}"):
        make_decay(family, given)


@pytest.mark.parametrize(
    ("family", "given", "problem", "hint"),
    [
        ("alpha", 10, "between 0 and 1", "--span 10"),
        ("decay", "1.5", "between 0 and 1", "--span 1.5"),
        ("span", "20min", "a duration can only be a half-life", "--time COLUMN --halflife 20min"),
        ("alpha", timedelta(seconds=90), "--alpha 90s: a duration", "--halflife 90s"),
        ("span", 0.5, "1 or more", "--span 20"),
        ("span", "auto", "not a number", "--span 20"),
        ("halflife", 0, "more than 0", "--halflife 10"),
        ("halflife", "0min", "longer than nothing", "--halflife 5min"),
        ("halflife", "5 parsecs", "not a number", "--halflife 5min"),
        ("com", -1, "0 or more", "--com 9.5"),
    ],
)
def test_messages_say_what_to_try(family: str, given: Any, problem: str, hint: str) -> None:
    with pytest.raises(OptionError) as raised:
        make_decay(family, given)
    assert problem in raised.value.problem
    assert hint in raised.value.hint


def test_fractions_wilder_and_time_constants() -> None:
    assert make_decay("alpha", "1/14").alpha == 1 / 14
    assert make_decay("wilder", 14).alpha == 1 / 14
    assert make_decay("tau", "1s").halflife_ns == 1e9 * math.log(2)
    for family, text in (
        ("alpha", "1/0"),
        ("wilder", "2.5"),
        ("wilder", 0),
        ("tau", 5),
        ("alpha", "1/0.5"),
        ("halflife", "1 month"),
    ):
        with pytest.raises(OptionError):
            make_decay(family, text)


def test_auto_is_of_alpha_alone() -> None:
    assert make_decay("alpha", "auto").auto
    assert math.isnan(make_decay("alpha", "auto").alpha)


@pytest.mark.parametrize(
    ("given", "nanoseconds"),
    [
        ("5min", 300 * 10**9),
        ("1h30m", 5400 * 10**9),
        ("1 day", 86_400 * 10**9),
        ("24H", 86_400 * 10**9),
        ("2 Weeks", 14 * 86_400 * 10**9),
        ("1w2d", 9 * 86_400 * 10**9),
        ("3 milliseconds", 3 * 10**6),
        ("1M", None),
        ("2 months", None),
        ("1y", None),
        ("1h30min", 5400 * 10**9),
        ("2d12h", 60 * 3600 * 10**9),
        ("1.5h", 5400 * 10**9),
        ("250ms", 250 * 10**6),
        ("0.1us", 100),
        (" 1 s ", 10**9),
        ("7ns", 7),
        (timedelta(days=1, microseconds=1), 86_400 * 10**9 + 1000),
        (timedelta(microseconds=-1), -1000),
        (pd.Timedelta(7, "ns"), 7),
        (pd.Timedelta("1D"), 86_400 * 10**9),
        (pd.Timedelta(-1, "ns"), -1),
        ("5", None),
        ("min", None),
        ("", None),
        (5, None),
        (None, None),
    ],
)
def test_durations(given: Any, nanoseconds: int | None) -> None:
    assert parse_duration(given) == nanoseconds


@settings(deadline=None)
@given(st.integers(1, 10**18))
def test_duration_texts_read_back(nanoseconds: int) -> None:
    assert parse_duration(duration_text(nanoseconds)) == nanoseconds


@pytest.mark.parametrize(
    ("given", "value"), [("0.10", 0.1), ("5min", "300000000000ns"), ("300s", "300000000000ns")]
)
def test_the_value_is_one_for_all_spellings(given: str, value: float | str) -> None:
    assert make_decay("halflife", given).value == value


@pytest.mark.parametrize("given", ["1", "-1.5", ".5", "5.", "1e5", " 2 ", 3, np.int8(4), np.float32(0.5)])
def test_numbers(given: Any) -> None:
    assert number_in(given) == float(given)
