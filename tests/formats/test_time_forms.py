"""Formats, zones, units and hints: what Python's own strptime and zoneinfo say, by column as by cell."""

from __future__ import annotations

import datetime
import re
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ema_cli.errors import OptionError
from ema_cli.times import BadTimeError, TimeForm, check_form, read_times
from ema_cli.times.grammar import compile_format, read_cell
from ema_cli.times.hints import PLAIN, formats_of
from ema_cli.times.zones import Zone

EPOCH = datetime.datetime(1970, 1, 1)
SECOND = 10**9
HOUR = 3600 * SECOND
DAY = 24 * HOUR
moments = st.datetimes(datetime.datetime(1970, 1, 1), datetime.datetime(2068, 12, 31))
FORMATS = [
    "%d.%m.%Y %H:%M",
    "%d/%m/%Y %H:%M:%S",
    "%m/%d/%Y %I:%M %p",
    "%Y%m%d%H",
    "%Y%m%d",
    "%d%m%y",
    "%d-%b-%Y %H:%M:%S.%f",
    "%A, %d %B %Y",
    "%b %d, %Y %I:%M:%S %p",
    "%Y.%j",
    "%y-%m-%d",
    "%d/%b/%Y:%H:%M:%S %z",
    "%H:%M:%S",
    "at %H h 17 on %d.%m.%Y",
]


def at(text: str) -> int:
    """Nanoseconds of ISO text."""
    return int(np.datetime64(text, "ns").astype(np.int64))


def read(cells: list[str | None], **form: str) -> list[int]:
    return read_times([pa.array(cells, pa.string())], TimeForm(**form)).nanoseconds.tolist()


def problem(cells: list[str | None], **form: str) -> BadTimeError:
    with pytest.raises(BadTimeError) as caught:
        read(cells, **form)
    return caught.value


def python_says(text: str, form: str) -> int | None:
    """Nanoseconds by Python's strptime; None where it refuses."""
    try:
        moment = datetime.datetime.strptime(text, form)
    except ValueError:
        return None
    if moment.tzinfo is not None:
        moment = moment.astimezone(datetime.UTC).replace(tzinfo=None)
    return (moment - EPOCH) // datetime.timedelta(microseconds=1) * 1000


@settings(deadline=None)
@given(st.lists(moments, min_size=1, max_size=40), st.sampled_from(FORMATS), st.data())
def test_a_format_reads_as_strptime_does(
    cells: list[datetime.datetime], form: str, data: st.DataObject
) -> None:
    zone = datetime.timezone(datetime.timedelta(minutes=data.draw(st.integers(-720, 840))))
    texts = [cell.replace(tzinfo=zone).strftime(form) for cell in cells]
    if data.draw(st.booleans()):  # as people write them: 1/5/2021 for 01/05/2021
        texts = [re.sub(r"(?<!\d)0(?=\d[/. :])", "", text) for text in texts]
    if data.draw(st.booleans()):
        texts = [text.upper() for text in texts]
    assert read(list(texts), format=form) == [python_says(text, form) for text in texts]


@settings(deadline=None)
@given(
    st.sampled_from(["%m%d%y", "%d.%m.%Y %H:%M", "%Y%m%d%H", "%H%M%S", "%j%y", "%m/%d/%y", "%d 1%m %Y"]),
    st.lists(st.text("0123456789./: ", min_size=3, max_size=12), min_size=1, max_size=6),
)
@example("%m%d%y", ["13121", "11221"])
def test_a_column_reads_as_its_cells_do(form: str, cells: list[str]) -> None:
    grammar = compile_format(form)
    read = read_times([pa.array(cells)], TimeForm(format=form), "missing")
    for row, cell in enumerate(cells):
        match = grammar.fullmatch(cell.strip().encode())
        try:
            expected = None if match is None else read_cell(match)[0]
        except ValueError:
            expected = None
        unread = read.unread is not None and bool(read.unread[row])
        assert (None if unread else read.nanoseconds[row]) == expected


def test_many_shapes_in_one_column() -> None:
    days = [datetime.datetime(2020, 1, 1) + datetime.timedelta(hours=7 * k) for k in range(4000)]
    form = "%A, %d %B %Y %I:%M %p"
    texts = [re.sub(r"\b0", "", day.strftime(form)) for day in days]
    assert read(texts, format=form) == [at(day.isoformat()) for day in days]


def test_hour_24_is_midnight_of_the_next_day() -> None:
    assert read(["2021050123", "2021050124", "2021050201"], format="%Y%m%d%H") == [
        at("2021-05-01T23"),
        at("2021-05-02T00"),
        at("2021-05-02T01"),
    ]
    assert read(["2021-05-01 23:00", "2021-05-01 24:00"]) == [at("2021-05-01T23"), at("2021-05-02T00")]
    assert read(["31.12.2021 24:00"], format="%d.%m.%Y %H:%M") == [at("2022-01-01")]
    for text, form in [("2021-05-01 24:30", None), ("01.05.2021 24:30", "%d.%m.%Y %H:%M")]:
        assert problem([text], **({} if form is None else {"format": form})).problem == "no time of the day"
    assert "not of the form" in problem(["01.05.2021 25:00"], format="%d.%m.%Y %H:%M").problem


def test_names_are_english_whatever_the_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert read(["5 may 2021", "5 DEC 2021"], format="%d %b %Y") == [at("2021-05-05"), at("2021-12-05")]
    assert "not of the form" in problem(["5 Mai 2021"], format="%d %b %Y").problem


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ("%d.%m.%Q", "%Q is not read"),
        ("%d.%m.%", "% is not read"),
        ("%d.%d.%Y", "twice"),
        ("%I:%M", "%I and %p"),
        ("%H:%M %p", "%I and %p"),
        ("%Y %y", "same thing"),
        ("%m %b", "same thing"),
        ("noon", "no part of a time"),
        ("", "no part of a time"),
    ],
)
def test_a_format_that_cannot_be_followed(form: str, says: str) -> None:
    with pytest.raises(OptionError, match=re.escape(says)) as caught:
        check_form(TimeForm(format=form))
    assert caught.value.exit_code == 2
    assert caught.value.hint


def test_options_that_contradict_each_other() -> None:
    for form in (TimeForm("s", "%Y"), TimeForm("s", None, "Europe/Berlin")):
        with pytest.raises(OptionError):
            check_form(form)
    with pytest.raises(OptionError, match="no such time zone") as caught:
        check_form(TimeForm(zone="Europe/Berln"))
    assert "Europe/Berlin" in caught.value.hint


def test_excel_days() -> None:
    assert read(["44317", "44317.5", "44317.4166666667"], format="excel") == [
        at("2021-05-01"),
        at("2021-05-01T12"),
        at("2021-05-01T10"),
    ]
    column = pa.array([44317, None, 60], pa.int32())
    read_ = read_times([column], TimeForm(format="excel"), "missing")
    assert read_.nanoseconds[0] == at("2021-05-01")
    assert read_.unread is not None
    assert read_.unread.tolist() == [False, True, True]
    assert "1900" in problem(["12"], format="excel").problem
    assert "not a number" in problem(["12/1/2021"], format="excel").problem
    assert "outside" in problem(["1e9"], format="excel").problem


def test_units_of_minutes_hours_and_days() -> None:
    for unit, size in {"min": 60 * SECOND, "h": HOUR, "d": DAY}.items():
        assert read(["1", "1.5", "-2", "0.1"], unit=unit) == [size, size * 3 // 2, -2 * size, size // 10]
        assert read(["1", "x2", "+1.5"][::2], unit=unit) == [size, size * 3 // 2]
        floats = read_times([pa.array([1.0, 0.1, 20_000.25])], TimeForm(unit)).nanoseconds
        assert floats.tolist() == [size, size // 10, 20_000 * size + size // 4]
        third = [str(1 / 3), "0.333333333333333333333"]
        assert read(list(third), unit=unit) == [round(size / 3)] * 2
    assert "outside" in problem(["1e9"], unit="d").problem


def test_date_and_time_of_day_in_two_columns() -> None:
    days, clocks = pa.array(["2021-05-01 ", "2021-05-01"]), pa.array(["10:00", " 24:00"])
    expected = [at("2021-05-01T10"), at("2021-05-02")]
    assert read_times([days, clocks], TimeForm()).nanoseconds.tolist() == expected
    typed = [days.cast(pa.string()), pa.array([36_000, 36_001], pa.time32("s"))]
    typed[0] = pa.array([datetime.date(2021, 5, 1)] * 2)
    assert read_times(typed, TimeForm()).nanoseconds.tolist() == [
        at("2021-05-01T10"),
        at("2021-05-01T10:00:01"),
    ]
    half = read_times([days, pa.array(["10:00", None])], TimeForm(), "missing")
    assert half.unread is not None
    assert half.unread.tolist() == [False, True]


# -- zones

ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Pacific/Apia", "UTC"]


@settings(deadline=None)
@given(
    st.lists(st.datetimes(datetime.datetime(1890, 1, 1), datetime.datetime(2200, 1, 1)), max_size=8),
    st.sampled_from(ZONES),
)
@example([datetime.datetime(2011, 12, 30, 12), datetime.datetime(2021, 4, 4, 1, 45)], "Pacific/Apia")
@example([datetime.datetime(2021, 10, 31, 2, 30), datetime.datetime(2021, 3, 28, 2, 30)], "Europe/Berlin")
def test_a_zone_is_what_zoneinfo_says(cells: list[datetime.datetime], name: str) -> None:
    local = np.array([at(cell.isoformat()) for cell in cells], np.int64)
    found, zone = Zone(name).instants(local), ZoneInfo(name)
    for k, cell in enumerate(cells):
        first, second = (cell.replace(tzinfo=zone, fold=fold).astimezone(datetime.UTC) for fold in (0, 1))
        there = first.astimezone(zone).replace(tzinfo=None) == cell
        assert bool(found.lost[k]) is not there
        if there:
            assert found.nanoseconds[k] == at(first.replace(tzinfo=None).isoformat())
            assert found.later[k] == max(0, (second - first) // datetime.timedelta(microseconds=1)) * 1000


def test_times_of_a_zone() -> None:
    cells: list[str | None] = ["2021-07-01 12:00", "2021-10-31 02:30", "2021-10-31T02:30+01:00"]
    read_ = read_times([pa.array(cells)], TimeForm(zone="Europe/Berlin"))
    assert read_.nanoseconds.tolist() == [
        at("2021-07-01T10:00"),
        at("2021-10-31T00:30"),
        at("2021-10-31T01:30"),
    ]
    assert read_.later is not None
    assert read_.later.tolist() == [0, HOUR, 0]
    lost = problem(["2021-03-28 01:59", "2021-03-28 02:30"], zone="Europe/Berlin")
    assert (lost.row, lost.text) == (1, "2021-03-28 02:30")
    assert "Europe/Berlin" in lost.problem
    assert read_times([pa.array([0], pa.timestamp("s", "UTC"))], TimeForm(zone="Asia/Tokyo")).nanoseconds == 0
    naive = read_times([pa.array([0], pa.timestamp("s"))], TimeForm(zone="Asia/Tokyo")).nanoseconds
    assert naive == -9 * HOUR


def test_spaces_and_halves_of_the_day_as_programs_write_them() -> None:
    cells = pa.array(["1/5/2021 9:00\u202fPM", "1/5/2021 9:30\u00a0p.m.", "1/5/2021 10:00 P.M."])
    times = read_times([cells], TimeForm(format="%d/%m/%Y %I:%M %p"), "error")
    assert (np.diff(times.nanoseconds) == 1_800_000_000_000).all()
    assert (
        times.nanoseconds[0]
        == int(datetime.datetime(2021, 5, 1, 21, tzinfo=datetime.UTC).timestamp()) * 10**9
    )


# -- hints


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("1704153600", "--time-unit s"),
        ("1704153600.25", "--time-unit s"),
        ("1704153600000", "--time-unit ms"),
        ("1704153600000000", "--time-unit us"),
        ("1704153600000000000", "--time-unit ns"),
        ("2021050110", "--time-format %Y%m%d%H"),
        ("202105011030", "--time-format %Y%m%d%H%M"),
        ("20210501103000", "--time-format %Y%m%d%H%M%S"),
        ("44317.4166", "--time-format excel, if these are Excel's days"),
        ("17", "--time-unit with what they count: one of s, ms, us, ns, min, h, d"),
        ("01.05.2021 10:00", "--time-format '%d.%m.%Y %H:%M'"),
        ("13/05/2021", "--time-format '%d/%m/%Y'"),
        ("05/13/2021 9:00 AM", "--time-format '%m/%d/%Y %I:%M %p'"),
        (
            "5/1/2021 9:00",
            "--time-format '%d/%m/%Y %H:%M' if the day comes first, '%m/%d/%Y %H:%M' if the month does",
        ),
        ("2021/05/01 10:00:00.5", "--time-format '%Y/%m/%d %H:%M:%S.%f'"),
        ("2021-05-01 9:30", "--time-format '%Y-%m-%d %H:%M'"),
        ("Jan 5, 2021", "--time-format '%b %d, %Y'"),
        ("Monday, 5 April 2021 10:00", "--time-format '%A, %d %B %Y %H:%M'"),
        ("10/Oct/2000:13:55:36 -0700", "--time-format '%d/%b/%Y:%H:%M:%S %z'"),
        ("2021", "--time-format %Y, if these are years"),
        ("2021121", "--time-format %Y%j"),
        ("2021-121", "--time-format '%Y-%j'"),
        ("2021-05", "--time-format '%Y-%m'"),
        ("05/2021", "--time-format '%m/%Y'"),
        ("20210501_103000", "--time-format '%Y%m%d_%H%M%S'"),
        ("01MAY2021:10:00:00", "--time-format '%d%b%Y:%H:%M:%S'"),
        ("01-MAY-21 10.00.00.000000 AM", "--time-format '%d-%b-%y %I.%M.%S.%f %p'"),
        ("Sat May  1 10:00:00 2021", "--time-format '%a %b  %d %H:%M:%S %Y'"),
        ("2021-05-01 10:00:00.5 +0000 UTC", "--time-format '%Y-%m-%d %H:%M:%S.%f %z UTC'"),
        ("2021年5月1日", "--time-format '%Y年%m月%d日'"),
        ("13/05/2021 9:00\u202fp.m.", "--time-format '%d/%m/%Y %I:%M %p'"),
        ("10:15:01.123", "--time-format '%H:%M:%S.%f' if all of one day"),
        ("10:15", "--time-format '%H:%M' if these are hours and minutes, all of one day"),
        ("May  1 10:00:00", PLAIN),  # of no year
        ("2021-05-01 10:00:00 CET", PLAIN),
        ("2021-W05", PLAIN),
        ("01.05.2021 10:00 - 01.05.2021 11:00", PLAIN),
    ],
)
def test_a_hint_is_made_from_the_cell(text: str, hint: str) -> None:
    assert problem([text]).hint == hint


def test_eight_digits_that_are_a_number_are_hinted_as_a_date() -> None:
    with pytest.raises(BadTimeError) as caught:
        read_times([pa.array([20210501])], TimeForm())
    assert caught.value.hint == "--time-format %Y%m%d"
    days = read_times([pa.array([20210501])], TimeForm(format="%Y%m%d")).nanoseconds
    assert days == at("2021-05-01")


@settings(deadline=None)
@given(moments, st.sampled_from(FORMATS))
def test_a_hint_never_reads_another_time_without_a_word(moment: datetime.datetime, form: str) -> None:
    """Whoever follows the only format that is hinted at gets the time that was written."""
    text = moment.strftime(form)
    formats = formats_of(text)
    if len(formats) == 1 and "%Y" in form and "%j" not in form:
        assert read([text], format=next(iter(formats))) == [python_says(text, form)]
