"""What a picture shows, in plain values; modules for each kind of picture decide how it looks."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ema_cli.average import Average
from ema_cli.errors import readable
from ema_cli.formats.base import Floats
from ema_cli.job import Job, Summary
from ema_cli.plotting.record import Recorded
from ema_cli.plotting.reduce import Reduced
from ema_cli.safe_text import safe_text
from ema_cli.times import DAY, NANOSECONDS

YEAR = 366 * DAY
MILLISECOND = NANOSECONDS["ms"]
FLATTEST = 4.0  # times its own range that a panel may be stretched to for comparison
DATES, ROWS, NUMBERS = "dates", "rows", "numbers"
VALUE, TREND, RESIDUAL, LOWER, UPPER, DIFF = "value", "ema", "residual", "lower", "upper", "diff"
WITH_VALUES = (VALUE, TREND, "dema", "tema")
AROUND_ZERO = (RESIDUAL, DIFF, "cov", "corr")


def clean(text: str) -> str:
    """A name that can be shown anywhere: control characters and the like are written as escapes."""
    return safe_text(readable(text)).replace("\n", "\\n").replace("\t", "\\t")


def short(text: str, most: int) -> str:
    """A name cut in its middle to at most `most` characters."""
    tail = (most - 1) // 2
    return text if len(text) <= most else f"{text[: most - 1 - tail]}…{text[-tail:]}"


@dataclass(frozen=True)
class Look:
    """The options of a picture. title: None for the default. size: width and height, in pixels of a file or
    characters of a terminal. log: the axis of values is logarithmic. relative: every series begins at 0."""

    title: str | None = None
    size: tuple[int, int] | None = None
    log: bool = False
    relative: bool = False


@dataclass(frozen=True)
class Field:
    """One column that is drawn. part: VALUE, or a part of `Average.parts`. weight: index of the average's
    weight."""

    name: str
    part: str
    weight: int


@dataclass(frozen=True)
class Curve:
    """One line. series: index of its key or run. x, y: (n,) float64, y NaN where the line is broken."""

    field: Field
    series: int
    x: Floats
    y: Floats

    @property
    def part(self) -> str:
        return self.field.part

    @property
    def weight(self) -> int:
        return self.field.weight

    @property
    def name(self) -> str:
        return self.field.name

    def alone(self) -> NDArray[np.bool_]:
        """(n,): whether a value stands between two blanks, where no line shows it."""
        blank = np.concatenate(([True], np.isnan(self.y), [True]))
        return ~blank[1:-1] & blank[:-2] & blank[2:]


@dataclass(frozen=True)
class Band:
    """The area between two lines over the same x, all (n,) float64."""

    name: str
    weight: int
    series: int
    x: Floats
    lower: Floats
    upper: Floats


@dataclass
class Panel:
    """One pair of axes. kind: VALUE for values and trends, or the part that it shows."""

    kind: str
    lines: list[Curve] = field(default_factory=list)
    bands: list[Band] = field(default_factory=list)

    def range(self, *, log: bool = False) -> tuple[float, float] | None:
        """The least and the greatest value that it shows; None if there is none."""
        every = [line.y for line in self.lines] + [side for b in self.bands for side in (b.lower, b.upper)]
        flat = np.concatenate(every) if every else np.empty(0)
        flat = flat[flat > 0] if log else flat[~np.isnan(flat)]
        return (float(flat.min()), float(flat.max())) if len(flat) else None


@dataclass
class Cell:
    """The panels of one column and one key, or of several runs, from the top down. title: the key."""

    title: str
    panels: list[Panel]


@dataclass(frozen=True)
class Trace:
    """One column of one series. All (n,) float64: x, where its rows stand; since, nanoseconds since its first
    time, where rows are spaced by time; number, how many rows there are up to each one, where there are more
    than these; afresh, 1 where the series begins again; weights, what its rows count for, where they don't
    count alike."""

    series: int
    reduced: Reduced
    x: Floats
    since: Floats | None
    number: Floats | None
    afresh: Floats | None
    weights: Floats | None

    def lines(self, fields: Sequence[Field], places: Sequence[int]) -> Iterator[Curve]:
        """These fields as lines, each with the rows that it needs alone."""
        for place in places:
            needed = self.reduced.needed([place])
            x, y = self.x[needed], self.reduced.values[needed, place]
            there = ~np.isnan(x)
            if self.reduced.lonely[place]:
                # Most values stand alone: blanks are the distance between them, not a gap.
                there &= ~np.isnan(y)
            yield Curve(fields[place], self.series, x[there], y[there])

    def band(self, fields: Sequence[Field], place: int) -> Band:
        """The band whose lower side is at this place."""
        needed = self.reduced.needed([place, place + 1])
        x, both = self.x[needed], self.reduced.values[needed, place : place + 2]
        name = f"{fields[place].name} to {UPPER}"
        there = ~np.isnan(x)
        return Band(name, fields[place].weight, self.series, x[there], both[there, 0], both[there, 1])


@dataclass
class Column:
    """One column, or a pair of them, with a trace of each series that has it. fields: what stands in the
    traces' tables; panels: what is drawn of them, from the top down."""

    name: str
    fields: list[Field]
    traces: list[Trace]
    panels: list[str]

    def cells(self, names: Sequence[str], *, together: bool) -> list[Cell]:
        """A cell for each series, or one for all."""
        if together:
            return [Cell("", [self._panel(kind, self.traces) for kind in self.panels])]
        return [
            Cell(names[trace.series], [self._panel(kind, [trace]) for kind in self.panels])
            for trace in self.traces
        ]

    def _panel(self, kind: str, traces: Sequence[Trace]) -> Panel:
        parts = WITH_VALUES if kind == VALUE else (kind,)
        drawn = [k for k, one in enumerate(self.fields) if one.part in parts]
        lower = [k for k, one in enumerate(self.fields) if one.part == LOWER and kind == VALUE]
        panel = Panel(kind)
        for trace in traces:
            panel.lines += trace.lines(self.fields, drawn)
            panel.bands += [trace.band(self.fields, k) for k in lower]
        return panel


def limits(cells: Sequence[Cell], panel: int, *, log: bool = False) -> tuple[float, float] | None:
    """One range for a panel of all cells, to compare them; None where it would flatten most of them."""
    panels = [cell.panels[panel] for cell in cells]
    ranges = [found for one in panels if (found := one.range(log=log)) is not None]
    if len(ranges) < 2:
        return None
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    if log:
        return low / 1.1, high * 1.1
    typical = float(np.median([high / 2 - low / 2 for low, high in ranges]))
    if not high / 2 - low / 2 <= FLATTEST * typical:
        return None
    margin = 0.04 * (high - low)
    return low - margin, high + margin


@dataclass(frozen=True)
class Axis:
    """The horizontal axis. kind: DATES for nanoseconds since 1970, ROWS for row numbers, else NUMBERS."""

    label: str
    kind: str
    origin: int = 0
    scale: int = 1

    @property
    def dates(self) -> bool:
        return self.kind == DATES

    @property
    def days(self) -> bool:
        """Whether its dates are whole days."""
        return self.dates and not self.label.endswith("(UTC)")

    def place(self, x: NDArray[Any]) -> Floats:
        """The places of rows on it."""
        placed: Floats = (x - self.origin) / self.scale
        return placed


@dataclass
class Chart:
    """All of it. names: the series'; runs: they are drawn over each other. notes: what is left out.
    average: whose trends these are; alphas: the weights that were found for its columns. rows: the options
    that say which rows are averaged with which, as they are typed."""

    title: str
    axis: Axis
    columns: list[Column]
    names: list[str]
    runs: bool
    notes: list[str]
    average: Average
    alphas: list[float] | None
    look: Look
    rows: list[str]

    def cells(self) -> list[tuple[Column, list[Cell]]]:
        """Each column and its cells."""
        return [(column, column.cells(self.names, together=self.runs)) for column in self.columns]

    def span(self) -> tuple[float, float]:
        """The ends of the axis."""
        every = [trace.x for column in self.columns for trace in column.traces]
        every = [x for x in every if not np.isnan(x).all()]
        low = min((float(np.nanmin(x)) for x in every), default=0.0)
        return low, max((float(np.nanmax(x)) for x in every), default=1.0)


def make_chart(job: Job, recorded: Recorded, summary: Summary, look: Look = Look()) -> Chart:
    """The chart of one or several runs that have ended."""
    tracks = recorded.reduced()
    axis = _axis(job, recorded, tracks)
    columns = []
    for name in (*recorded.columns, *recorded.pairs):
        traces = [
            _trace(recorded, series, track[name], axis)
            for series, track in enumerate(tracks)
            if name in track
        ]
        pair, average = recorded.pairs.get(name), recorded.average
        of_it = fields_of(average, name) if pair is None else fields_of_pair(average, *pair)
        fields = [Field(clean(one.name), one.part, one.weight) for one in of_it]
        panels = list(_panels(average)) if pair is None else average.pair_parts
        columns.append(Column(clean(name), fields, traces, panels))
    if look.relative:
        axis, columns = _relative(axis, columns)
    title = clean(_title(job, summary, recorded) if look.title is None else look.title)
    names = [clean(track.name) for track in recorded.tracks]
    notes = [clean(note) for note in recorded.notes]
    of_rows = [clean(option) for option in _row_options(job)]
    given = recorded.average, summary.alphas, look, of_rows
    return Chart(title, axis, columns, names, recorded.runs, notes, *given)


def _row_options(job: Job) -> Iterator[str]:
    """The options that say which rows are averaged with which, and how they count."""
    given: dict[str, Any] = {
        "by": job.by,
        "time": [job.time, job.time_of_day],
        "time-unit": [job.time_unit],
        "time-format": [job.time_format],
        "time-zone": [job.time_zone],
        "order": [job.order],
        "late": [None if job.late == "error" else job.late],
        "weights": [job.weights],
        "na": job.na,
    }
    for option, values in given.items():
        yield from (f"--{option} {shlex.quote(value)}" for value in values if value is not None)
    flags = {"newest-first": job.newest_first, "by-file": job.by_file}
    yield from (f"--{option}" for option, is_set in flags.items() if is_set)


def fields_of(average: Average, column: str) -> Iterator[Field]:
    """The column itself and each new one of it: its name, what it is and which weight it is of."""
    yield Field(column, VALUE, 0)
    names = iter(average.names(column))
    for weight in range(len(average.decays)):
        for part in average.parts:
            yield Field(next(names), part, weight)
    for name in names:
        yield Field(name, DIFF, 0)


def fields_of_pair(average: Average, one: str, other: str) -> Iterator[Field]:
    """Each new column of a pair of columns."""
    names = iter(average.names_of_pair(one, other))
    for weight in range(len(average.decays)):
        for part in average.pair_parts:
            yield Field(next(names), part, weight)


def _panels(average: Average) -> Iterator[str]:
    yield VALUE
    yield from (part for part in average.parts if part not in (*WITH_VALUES, LOWER, UPPER))
    if average.diff:
        yield DIFF


def _trace(recorded: Recorded, series: int, reduced: Reduced, axis: Axis) -> Trace:
    carried = dict(zip(recorded.carried, reduced.carried.T, strict=True))
    since, number = carried.get("since"), carried.get("number")
    if recorded.time is not None and since is None:
        since = (reduced.x - recorded.tracks[series].first).astype(float)
    thinned = reduced.shift is not None and since is None
    afresh = carried.get("afresh")
    if afresh is not None and not afresh.any():
        afresh = None
    x = axis.place(_places(recorded, reduced))
    return Trace(series, reduced, x, since, number if thinned else None, afresh, carried.get("weight"))


def _places(recorded: Recorded, reduced: Reduced) -> NDArray[Any]:
    """Where the rows stand: times, rows' numbers, or an axis of their own."""
    column = recorded.carried.index("x") if "x" in recorded.carried else None
    places: NDArray[Any] = reduced.x if column is None else reduced.carried[:, column]
    return places


def _axis(job: Job, recorded: Recorded, tracks: Sequence[dict[str, Reduced]]) -> Axis:
    if recorded.x is not None and not recorded.dates:
        return Axis(clean(recorded.x), NUMBERS)
    every = [one for track in tracks for one in track.values() if len(one.x)]
    if recorded.x is not None:
        places = np.concatenate([_places(recorded, one) for one in every] or [np.empty(0)])
        whole = not (places[~np.isnan(places)] % DAY).any()
        return Axis(clean(recorded.x) + ("" if whole else " (UTC)"), DATES)
    if recorded.time is None:
        return Axis("row of its key" if recorded.keyed else "row", ROWS)
    time = clean(recorded.time)
    ends = [int(_places(recorded, one)[at]) for one in every for at in (0, -1)]
    first, last = min(ends, default=0), max(ends, default=0)
    if job.time_unit is not None and first > -YEAR and last < YEAR:
        # Numbers that small are a stopwatch's, not a calendar's.
        return Axis(f"{time} ({job.time_unit})", NUMBERS, scale=NANOSECONDS[job.time_unit])
    if 0 < last - first < MILLISECOND:
        begin = np.datetime_as_string(np.datetime64(first, "ns"))
        return Axis(f"{time} (ns after {begin})", NUMBERS, origin=first)
    whole_days = all(not (_places(recorded, one) % DAY).any() for one in every)
    return Axis(time if whole_days else f"{time} (UTC)", DATES)


def _relative(axis: Axis, columns: list[Column]) -> tuple[Axis, list[Column]]:
    """Every series from its own beginning on; times in the largest unit that suits the longest of them."""
    begins: dict[int, float] = {}
    for trace in (trace for column in columns for trace in column.traces):
        if len(trace.x) and not np.isnan(trace.x).all():
            begin = float(np.nanmin(trace.x))
            begins[trace.series] = min(begin, begins.get(trace.series, begin))
    longest = max(
        (float(np.nanmax(trace.x)) - begins[trace.series] for c in columns for trace in c.traces), default=0
    )
    scale, unit = 1, ""
    if axis.dates:
        units = {"d": DAY, "h": DAY // 24, "min": DAY // 1440, "s": NANOSECONDS["s"], "ms": MILLISECOND}
        unit = next((name for name, size in units.items() if longest >= 2 * size), "ms")
        scale = units[unit]
        unit = f" ({unit})"
    label = f"{axis.label.removesuffix(' (UTC)')} since the start{unit}"
    moved = [
        replace(
            column,
            traces=[
                replace(trace, x=(trace.x - begins.get(trace.series, 0.0)) / scale) for trace in column.traces
            ],
        )
        for column in columns
    ]
    return Axis(label, NUMBERS), moved


def _title(job: Job, summary: Summary, recorded: Recorded) -> str:
    """The file, and the weight where the names of the trends don't say it."""
    name = "" if job.inputs[0] == "-" else os.path.basename(job.inputs[0])  # noqa: PTH119 - as it was typed
    if recorded.runs:
        name = f"{len(recorded.tracks):,} run{'s' * (len(recorded.tracks) != 1)}"
    elif len(job.inputs) > 1:
        name += f" and {len(job.inputs) - 1} more"
    decays = job.average.decays
    if summary.alphas is not None and len(summary.alphas) == 1:
        weight = f"alpha {summary.alphas[0]:.4g}, found from the data"
    else:
        weight = f"{decays[0].family} {', '.join(decay.text for decay in decays)}"
    if job.average.bands is not None:
        weight += f", bands of {job.average.bands:g} standard deviations"
    return ", ".join(filter(None, [name, weight]))
