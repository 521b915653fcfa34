"""Times to nanoseconds: the same by every path, and what Python's own datetime and Decimal say."""

from __future__ import annotations

import datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ema_cli.times import BadTimeError, TimeForm, grammar, numbers, read_times, reader, to_nanoseconds

EPOCH = datetime.datetime(1970, 1, 1)
MICROSECOND = datetime.timedelta(microseconds=1)
SCALE = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
moments = st.datetimes(datetime.datetime(1677, 9, 22), datetime.datetime(2262, 4, 10))
zones = st.sampled_from(["", "Z", "+01:00", "-0930", "+14", "-00:00"])


def nanoseconds(moment: datetime.datetime) -> int:
    return (moment - EPOCH) // MICROSECOND * 1000


def one(text: str | bytes | None, unit: str | None = None) -> int:
    kind = pa.binary() if isinstance(text, bytes) else pa.string()
    return int(to_nanoseconds(pa.array([text], kind), unit)[0])


def problem(column: pa.Array, unit: str | None = None) -> BadTimeError:
    with pytest.raises(BadTimeError) as caught:
        to_nanoseconds(column, unit)
    return caught.value


@st.composite
def stamps(draw: st.DrawFn) -> tuple[str, int]:
    """A time as text in one of the forms that are read, and its nanoseconds."""
    moment, zone = draw(moments), draw(zones)
    digits = draw(st.integers(0, 9))
    fraction = draw(st.integers(0, 10**digits - 1))
    basic = draw(st.booleans())
    moment = moment.replace(microsecond=0)
    form = (
        f"%Y%m%d{draw(st.sampled_from('T '))}%H%M%S"
        if basic
        else f"%Y-%m-%d{draw(st.sampled_from('T '))}%H:%M:%S"
    )
    text = moment.strftime(form)
    if digits:
        text += draw(st.sampled_from(".,")) + f"{fraction:0{digits}d}" + "0" * draw(st.integers(0, 3))
    east = 0
    if zone not in ("", "Z"):
        east = int(zone[1:3]) * 3600 + int(zone[3:].lstrip(":") or 0) * 60
        east *= -1 if zone[0] == "-" else 1
    value = nanoseconds(moment) + fraction * 10 ** (9 - digits) - east * 10**9
    pad = draw(st.sampled_from(["", " ", "\t"]))
    return pad + text + draw(st.sampled_from(["", " "])) * bool(zone) + zone + pad, value


@settings(deadline=None)
@given(st.lists(stamps(), min_size=1, max_size=8), st.booleans())
def test_text_of_any_mixture_reads_as_datetime_does(cells: list[tuple[str, int]], binary: bool) -> None:
    texts = pa.array([text for text, _ in cells], pa.binary() if binary else pa.string())
    assert to_nanoseconds(texts, None).tolist() == [value for _, value in cells]


def by_scalar(text: str, unit: str | None) -> int:
    """A cell by the grammar alone, without a column about it. Raises ValueError."""
    cell = text.strip(" \t").encode()
    if unit is not None:
        return numbers.read_decimal(cell, unit)
    match = grammar.ISO.fullmatch(cell)
    if match is None:
        raise ValueError(text)
    return grammar.read_cell(match)[0]


@settings(deadline=None)
@given(
    st.lists(st.text("0123456789-:.,TZ +eEx_/", max_size=24), min_size=1, max_size=3),
    st.sampled_from([None, "s", "ns", "h"]),
)
def test_any_text_gives_the_same_by_the_fast_path_and_the_slow_one(
    cells: list[str], unit: str | None
) -> None:
    read = read_times([pa.array(cells)], TimeForm(unit), "missing")
    for row, cell in enumerate(cells):
        try:
            expected = by_scalar(cell, unit)
        except ValueError:
            assert read.unread is not None
            assert read.unread[row]
        else:
            assert read.unread is None or not read.unread[row]
            assert read.nanoseconds[row] == expected


@settings(deadline=None)
@given(
    st.lists(moments, min_size=1, max_size=5),
    st.sampled_from(
        ["%Y-%m-%d", "%Y-%m-%dT%H", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S.%f"]
    ),
    st.sampled_from(["", "Z", "+01:30"]),
)
def test_uniform_text_takes_the_fast_path_and_agrees(
    cells: list[datetime.datetime], form: str, zone: str
) -> None:
    assume(not reader.WRAPS or all(1678 <= cell.year < 2262 for cell in cells))  # which older Arrows can't do
    texts = [cell.strftime(form) + zone * ("H" in form) for cell in cells]
    fast = reader._iso_by_arrow(pa.array(texts))
    assert fast.nanoseconds.tolist() == [by_scalar(text, None) for text in texts]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2024-01-01", 1704067200 * 10**9),
        ("20240101", 1704067200 * 10**9),
        ("20240101T120000Z", 1704110400 * 10**9),
        ("2024-01-01T12", 1704110400 * 10**9),
        ("2024-01-01T12:00", 1704110400 * 10**9),
        ("2024-01-01 00:00:00.123456789", 1704067200123456789),
        ("2024-01-01 00:00:00,5 +01:00", 1704063600500000000),
        ("2024-01-01 00:00:00 UTC", 1704067200 * 10**9),
        ("2023-12-31T24:00:00", 1704067200 * 10**9),
        ("1969-12-31T23:59:59.999999999", -1),
        ("2262-04-11T23:47:16.854775807Z", 2**63 - 1),
        ("1677-09-21T00:12:43.145224193Z", -(2**63) + 1),
        ("2262-04-12T00:00:00+01:00", 9223369200 * 10**9),
        (b"2024-01-01", 1704067200 * 10**9),
    ],
)
def test_iso_forms(text: str | bytes, value: int) -> None:
    assert one(text) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "missing"),
        ("  ", "missing"),
        (None, "missing"),
        ("yesterday", "not a time"),
        ("2024-02-30", "no day"),
        ("2024-1-1", "not a time"),
        ("2024-0101", "not a time"),
        ("2024-01-01T25:00", "no time of the day"),
        ("2024-01-01T23:59:60", "no time of the day"),
        ("2024-01-01T24:00:01", "no time of the day"),
        ("2024-01-01T00:00+24:00", "no time zone"),
        ("2024-01-01T00:00:00.1234567891", "finer than a nanosecond"),
        ("1677-09-21", "outside the years"),
        ("1677-09-21T00:12:43.145224192", "outside the years"),
        ("2262-04-11T23:47:16.854775808", "outside the years"),
        ("9999-12-31", "outside the years"),
        ("1700000000", "a number"),
        ("12.5", "a number"),
        (b"2024-01-01\xff", "not a time"),
    ],
)
def test_what_is_no_time_says_why(text: str | bytes | None, says: str) -> None:
    kind = pa.binary() if isinstance(text, bytes) else pa.string()
    good: str | bytes = b"2024-01-01" if isinstance(text, bytes) else "2024-01-01"
    error = problem(pa.array([good, text, None], kind))
    assert error.row == 1
    assert says in error.problem


@settings(deadline=None)
@given(
    st.lists(st.decimals(-9_000_000_000, 9_000_000_000, places=12), min_size=1, max_size=6),
    st.sampled_from(["s", "ms", "us", "ns"]),
    st.sampled_from(["{:f}", "{:e}", " {:f}", "+{:f}"]),
)
def test_numbers_in_text_are_exact_decimals(cells: list[Decimal], unit: str, form: str) -> None:
    texts = [form.format(cell).replace("+-", "-") for cell in cells]
    scaled = [cell * SCALE[unit] for cell in cells]
    fine = next((row for row, value in enumerate(scaled) if value != int(value)), None)
    if fine is None:
        assert to_nanoseconds(pa.array(texts), unit).tolist() == scaled
    else:
        error = problem(pa.array(texts), unit)
        assert (error.row, error.problem) == (fine, "finer than a nanosecond")


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("1700000000.123456789", "s", 1700000000123456789),
        ("1700000000.12345678900000", "s", 1700000000123456789),
        ("1.7e9", "s", 1700000000 * 10**9),
        ("-.5", "ms", -500000),
        ("5.", "us", 5000),
        ("0e999999999999", "s", 0),
        ("0" * 60 + "7", "ns", 7),
        (str(2**63 - 1), "ns", 2**63 - 1),
        ("1700000000123", "ms", 1700000000123 * 10**6),
    ],
)
def test_decimal_forms(text: str, unit: str, value: int) -> None:
    assert one(text, unit) == value


@pytest.mark.parametrize(
    ("text", "unit", "says"),
    [
        ("1.5", "ns", "finer"),
        ("1e-999999999999", "s", "finer"),
        ("1e999999999999", "s", "outside"),
        ("1e11", "s", "outside"),
        (str(2**63), "ns", "outside"),
        (str(-(2**63)), "ns", "outside"),
        (str(2**64 + 5), "ns", "outside"),
        ("2024-01-01", "s", "not a number"),
        ("0x1F", "s", "not a number"),
        ("1_000", "s", "not a number"),
        ("nan", "s", "not a number"),
        (".", "s", "not a number"),
        ("e5", "s", "not a number"),
        ("", "s", "missing"),
    ],
)
def test_bad_decimals(text: str, unit: str, says: str) -> None:
    assert says in problem(pa.array(["1", text]), unit).problem


@settings(deadline=None)
@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5),
    st.sampled_from(["s", "ms", "us", "ns"]),
)
def test_ints_timestamps_and_durations_are_exact_or_out_of_range(cells: list[int], unit: str) -> None:
    for kind in (pa.int64(), pa.timestamp(unit), pa.timestamp(unit, "Europe/Paris"), pa.duration(unit)):
        column = pa.array(cells, pa.int64()).cast(kind)
        beyond = next((row for row, cell in enumerate(cells) if abs(cell * SCALE[unit]) > 2**63 - 1), None)
        if beyond is None:
            assert to_nanoseconds(column, unit).tolist() == [cell * SCALE[unit] for cell in cells]
        else:
            assert problem(column, unit).row == beyond


@settings(deadline=None)
@given(st.lists(st.dates(datetime.date(1678, 1, 1), datetime.date(2261, 12, 31)), max_size=5))
def test_dates_are_their_midnight(days: list[datetime.date]) -> None:
    expected = [(day - EPOCH.date()).days * 86400 * 10**9 for day in days]
    for kind in (pa.date32(), pa.date64()):
        assert to_nanoseconds(pa.array(days, kind), None).tolist() == expected
    assert to_nanoseconds(pa.array([day.isoformat() for day in days], pa.string()), None).tolist() == expected


@settings(deadline=None)
@given(st.lists(st.floats(-9e9, 9e9), min_size=1, max_size=5), st.sampled_from(["s", "ms"]))
def test_floats_are_within_half_a_nanosecond_of_what_they_print_as(cells: list[float], unit: str) -> None:
    got = to_nanoseconds(pa.array(cells), unit).tolist()
    for value, cell in zip(got, cells, strict=True):
        assert abs(value - Decimal(repr(cell)) * SCALE[unit]) <= 1


def test_a_float_of_seconds_is_the_decimal_it_prints_as() -> None:
    cells = [1700000000.123, 1700000000.5, 0.1, 0.1 + 0.2]
    assert to_nanoseconds(pa.array(cells), "s").tolist() == [
        1700000000123000000,
        1700000000500000000,
        100000000,
        300000000,
    ]
    assert problem(pa.array([1.0, float("nan")]), "s").problem == "missing"
    assert problem(pa.array([1.0, float("inf")]), "s").row == 1
    assert "outside" in problem(pa.array([1.0, 1e300]), "s").problem
    assert to_nanoseconds(pa.array([1.5], pa.float32()), "s").tolist() == [1500000000]


def test_other_types() -> None:
    assert to_nanoseconds(pa.array([5], pa.uint8()), "s").tolist() == [5 * 10**9]
    assert problem(pa.array([2**64 - 1], pa.uint64()), "ns").row == 0
    assert to_nanoseconds(pa.array([Decimal("1.25")]), "s").tolist() == [1250000000]
    coded = pa.array(["2024-01-01", "2024-01-02"]).dictionary_encode()
    assert to_nanoseconds(coded, None).tolist() == [1704067200 * 10**9, 1704153600 * 10**9]
    for kind in (pa.int64(), pa.float64()):
        assert problem(pa.array([1_700_000_000], kind)).hint == "--time-unit s"
    assert "list" in problem(pa.array([[1]]), "s").problem
    assert "bool" in problem(pa.array([True]), "s").problem
    assert problem(pa.array([None, None]), "s").row == 0
    assert problem(pa.array([1, None]), "s").row == 1
    assert len(to_nanoseconds(pa.array([], pa.null()), "s")) == 0
    assert to_nanoseconds(pa.array(["x", "2024-01-01"]).slice(1), None).tolist() == [1704067200 * 10**9]
    assert to_nanoseconds(pa.array(["x", "2", "3"]).slice(1), "ns").tolist() == [2, 3]
    assert to_nanoseconds(pa.array([9, 2], pa.timestamp("ns")).slice(1), None).tolist() == [2]
    assert to_nanoseconds(pa.array(["2024-01-01"], pa.large_string()), None).dtype == np.int64


def test_text_of_every_arrow_type_is_text() -> None:
    kinds = [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary(10)]
    for kind in kinds:
        assert to_nanoseconds(pa.array([b"2024-01-01"], kind), None).tolist() == [1704067200 * 10**9]
