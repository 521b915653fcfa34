"""What a picture shows, in plain values; how it looks is up to whoever draws it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ema_cli.average import Average
from ema_cli.formats.base import Floats, Ints
from ema_cli.job import Job, Summary
from ema_cli.plot.record import Record
from ema_cli.plot.reduce import Reduced
from ema_cli.times import DAY, NANOSECONDS

YEAR = 366 * DAY
MILLISECOND = NANOSECONDS["ms"]
FLATTEST = 4.0  # times its own range that a panel may be stretched to for comparison
DATES, ROWS, NUMBERS = "dates", "rows", "numbers"
VALUE, TREND, RESIDUAL, STD = "value", "trend", "residual", "std"


@dataclass(frozen=True)
class Line:
    """One line. kind: VALUE, TREND, RESIDUAL or STD; weight: which of the average's, from 0.

    x, y: (n,) float64; y is NaN where the line is broken. column: the same in its panel's table, which has
    more rows if others need them; where the line is joined over blanks, the table is not.
    """

    name: str
    kind: str
    weight: int
    column: int
    joined: bool
    x: Floats
    y: Floats

    def alone(self) -> NDArray[np.bool_]:
        """(n,): whether a value stands between two blanks, where no line shows it."""
        blank = np.concatenate(([True], np.isnan(self.y), [True]))
        return ~blank[1:-1] & blank[:-2] & blank[2:]


@dataclass(frozen=True)
class Band:
    """The room between two lines over the same x, all (n,) float64; column: the lower one in the panel's
    table, after which comes the upper one."""

    name: str
    weight: int
    column: int
    x: Floats
    lower: Floats
    upper: Floats


@dataclass
class Panel:
    """One pair of axes. kind: VALUE for values and trends, RESIDUAL or STD for those.

    x: (n,) and table: (n, names) float64, the rows that its lines and bands need, with all of their values.
    """

    kind: str
    x: Floats
    table: Floats
    names: list[str]
    lines: list[Line] = field(default_factory=list)
    bands: list[Band] = field(default_factory=list)

    def range(self) -> tuple[float, float] | None:
        """The least and the greatest of what it shows; None where that is nothing."""
        every = [line.y for line in self.lines] + [side for b in self.bands for side in (b.lower, b.upper)]
        flat = np.concatenate(every)
        flat = flat[~np.isnan(flat)]
        return (float(flat.min()), float(flat.max())) if len(flat) else None


@dataclass
class Cell:
    """The panels of one column and one key, from the top down. title: the key."""

    title: str
    panels: list[Panel]


@dataclass
class Column:
    """One column: a cell for each key, or one."""

    name: str
    cells: list[Cell]

    def limits(self, panel: int) -> tuple[float, float] | None:
        """One range for a panel of all cells, to compare them; None where it would flatten most of them."""
        panels = [cell.panels[panel] for cell in self.cells]
        ranges = [found for panel in panels if (found := panel.range()) is not None]
        if len(ranges) < 2:
            return None
        low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
        typical = float(np.median([high / 2 - low / 2 for low, high in ranges]))
        if not high / 2 - low / 2 <= FLATTEST * typical:
            return None
        margin = 0.04 * (high - low)
        return low - margin, high + margin


@dataclass(frozen=True)
class Axis:
    """The axis along. kind: DATES for nanoseconds since 1970, ROWS for whole numbers, else NUMBERS, of what
    the label says."""

    label: str
    kind: str
    origin: int = 0
    scale: int = 1

    @property
    def dates(self) -> bool:
        return self.kind == DATES

    def place(self, x: Ints) -> Floats:
        """Where rows stand on it."""
        return (x - self.origin) / self.scale


@dataclass
class Chart:
    """All of it. notes: what is left out."""

    title: str
    axis: Axis
    columns: list[Column]
    notes: list[str]

    def span(self) -> tuple[float, float]:
        """Where the axis begins and ends."""
        cells = [cell for column in self.columns for cell in column.cells]
        every = [line.x for cell in cells for panel in cell.panels for line in panel.lines if len(line.x)]
        return min((float(x[0]) for x in every), default=0.0), max((float(x[-1]) for x in every), default=1.0)


def short(text: str, most: int) -> str:
    """A name as it fits into so many characters, without line breaks; names differ at their ends."""
    text = " ".join(text.split())
    tail = (most - 1) // 2
    return text if len(text) <= most else f"{text[: most - 1 - tail]}…{text[-tail:]}"


def make_chart(job: Job, record: Record, summary: Summary) -> Chart:
    """The chart of a run that is over."""
    reduced = record.result()
    axis = _axis(job, record, reduced)
    names = record.names()
    columns = []
    for k, name in enumerate(record.columns):
        cells = [Cell(key, _panels(record, rows, k, axis)) for key, rows in zip(names, reduced, strict=True)]
        columns.append(Column(name, cells))
    return Chart(_title(job, summary), axis, columns, record.notes())


def _panels(record: Record, rows: Reduced, k: int, axis: Axis) -> list[Panel]:
    """The panels of a record's column number k for one key."""
    average, name = record.average, record.columns[k]
    # Which of the record's series each panel shows: (place in the column, part, weight, name).
    content: dict[str, list[tuple[int, str, int, str]]] = {kind: [] for kind in _kinds(average)}
    content[VALUE].append((0, VALUE, 0, name))
    for place, weight, part, new in _fields(average, name):
        kind = part if part in (RESIDUAL, STD) else VALUE
        if kind in content:
            content[kind].append((place, part, weight, new))
    panels = []
    for kind, series in content.items():
        places = [k * record.width + place for place, *_ in series]
        x, table = rows.series(places)
        panel = Panel(kind, axis.place(x), table, [new for *_, new in series])
        for column, (_, part, weight, new) in enumerate(series):
            if part == "upper":
                x, both = rows.series(places[column - 1 : column + 1])
                both_names = f"{panel.names[column - 1]} to {part}"
                band = Band(both_names, weight, column - 1, axis.place(x), both[:, 0], both[:, 1])
                panel.bands.append(band)
            elif part != "lower":
                what = (new, TREND if part == "ema" else part, weight, column)
                panel.lines.append(_line(rows, places[column], axis, what))
        panels.append(panel)
    return panels


def _kinds(average: Average) -> Iterator[str]:
    yield VALUE
    if average.residual:
        yield RESIDUAL
    if average.std:
        yield STD


def _fields(average: Average, column: str) -> Iterator[tuple[int, int, str, str]]:
    """Of each new column its place after the value, which weight it is of, what it is and its name."""
    names = average.names(column)
    parts = ["ema"] + ["residual"] * average.residual + ["std"] * average.std
    parts += ["lower", "upper"] * (average.bands is not None)
    for k, name in enumerate(names):
        yield k + 1, k // len(parts), parts[k % len(parts)], name


def _line(rows: Reduced, series: int, axis: Axis, what: tuple[str, str, int, int]) -> Line:
    x, values = rows.series([series])
    y = values[:, 0]
    joined = bool(rows.lonely[series])
    if joined:
        # Most values stand alone: blanks are the distance between them, not a gap.
        there = ~np.isnan(y)
        x, y = x[there], y[there]
    return Line(*what, joined, axis.place(x), y)


def _axis(job: Job, record: Record, reduced: Sequence[Reduced]) -> Axis:
    time = record.chosen.time
    if time is None:
        return Axis("row of its key" if record.keys is not None else "row", ROWS)
    ends = [int(rows.x[at]) for rows in reduced for at in (0, -1) if rows.rows]
    first, last = min(ends, default=0), max(ends, default=0)
    if job.time_unit is not None and first > -YEAR and last < YEAR:
        # Numbers that small are a stopwatch's, not a calendar's.
        return Axis(f"{time} ({job.time_unit})", NUMBERS, scale=NANOSECONDS[job.time_unit])
    if 0 < last - first < MILLISECOND:
        begin = np.datetime_as_string(np.datetime64(first, "ns"))
        return Axis(f"{time} (ns after {begin})", NUMBERS, origin=first)
    whole_days = all(not (rows.x % DAY).any() for rows in reduced)
    return Axis(time if whole_days else f"{time} (UTC)", DATES)


def _title(job: Job, summary: Summary) -> str:
    """The file, and the weight where the names of the trends don't say it."""
    name = "" if job.inputs[0] == "-" else os.path.basename(job.inputs[0])  # noqa: PTH119 - as it was typed
    if len(job.inputs) > 1:
        name += f" and {len(job.inputs) - 1} more"
    decays = job.average.decays
    weight = ""
    if summary.alphas is not None and len(summary.alphas) == 1:
        weight = f"alpha {summary.alphas[0]:.4g}, found from the data"
    else:
        weight = f"{decays[0].family} {', '.join(decay.text for decay in decays)}"
    if job.average.bands is not None:
        weight += f"{', ' if weight else ''}bands of {job.average.bands:g} standard deviations"
    return ", ".join(filter(None, [name, weight]))
