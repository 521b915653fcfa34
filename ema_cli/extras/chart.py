"""What a picture shows, in plain values; how it looks is up to whoever draws it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ema_cli.average import Average
from ema_cli.batch import Floats, Ints
from ema_cli.extras.record import Record
from ema_cli.extras.reduce import Reduced
from ema_cli.job import Job, Summary
from ema_cli.times import DAY, NANOSECONDS

YEAR = 366 * DAY
MILLISECOND = NANOSECONDS["ms"]
VALUE, TREND, RESIDUAL, STD = "value", "trend", "residual", "std"


@dataclass(frozen=True)
class Line:
    """One line. kind: VALUE, TREND, RESIDUAL or STD; weight: which of the average's, from 0.

    x, y: (n,) float64; y is NaN where the line is broken.
    """

    name: str
    kind: str
    weight: int
    x: Floats
    y: Floats


@dataclass(frozen=True)
class Band:
    """The room between two lines over the same x, all (n,) float64."""

    name: str
    weight: int
    x: Floats
    lower: Floats
    upper: Floats


@dataclass
class Panel:
    """One pair of axes. kind: VALUE for values and trends, RESIDUAL or STD for those."""

    kind: str
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


@dataclass(frozen=True)
class Axis:
    """The axis along. dates: x is nanoseconds since 1970, else a plain number as the label says."""

    label: str
    dates: bool
    origin: int = 0
    scale: int = 1

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
    average, name = record.average, record.columns[k]
    at = k * record.width
    panels = {kind: Panel(kind) for kind in _kinds(average)}
    panels[VALUE].lines.append(_line(rows, at, axis, (name, VALUE, 0)))
    band: dict[int, int] = {}
    for place, weight, part, new in _fields(average, name):
        if part == "lower":
            band[weight] = at + place
        elif part == "upper":
            x, both = rows.series([band[weight], at + place])
            names = f"{average.names(name)[place - 2]} to {new.removeprefix(name + '_')}"
            panels[VALUE].bands.append(Band(names, weight, axis.place(x), both[:, 0], both[:, 1]))
        elif part in panels or part == "ema":
            kind = TREND if part == "ema" else part
            panels[VALUE if kind == TREND else kind].lines.append(
                _line(rows, at + place, axis, (new, kind, weight))
            )
    return list(panels.values())


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


def _line(rows: Reduced, series: int, axis: Axis, what: tuple[str, str, int]) -> Line:
    x, values = rows.series([series])
    y = values[:, 0]
    if rows.lonely[series]:
        # Most values stand alone: blanks are the distance between them, not a gap.
        there = ~np.isnan(y)
        x, y = x[there], y[there]
    return Line(*what, axis.place(x), y)


def _axis(job: Job, record: Record, reduced: Sequence[Reduced]) -> Axis:
    if job.time is None:
        return Axis("row of its key" if record.keys is not None else "row", dates=False)
    ends = [int(rows.x[at]) for rows in reduced for at in (0, -1) if rows.rows]
    first, last = min(ends, default=0), max(ends, default=0)
    if job.time_unit is not None and first > -YEAR and last < YEAR:
        # Numbers that small are a stopwatch's, not a calendar's.
        return Axis(f"{job.time} ({job.time_unit})", dates=False, scale=NANOSECONDS[job.time_unit])
    if 0 < last - first < MILLISECOND:
        begin = np.datetime_as_string(np.datetime64(first, "ns"))
        return Axis(f"{job.time} (ns after {begin})", dates=False, origin=first)
    whole_days = all(not (rows.x % DAY).any() for rows in reduced)
    return Axis(job.time if whole_days else f"{job.time} (UTC)", dates=True)


def _title(job: Job, summary: Summary) -> str:
    """The file, and the weight where the names of the trends don't say it."""
    name = "" if job.inputs[0] == "-" else os.path.basename(job.inputs[0])  # noqa: PTH119 - as it was typed
    if len(job.inputs) > 1:
        name += f" and {len(job.inputs) - 1} more"
    decays = job.average.decays
    weight = ""
    if summary.alphas is not None and len(summary.alphas) == 1:
        weight = f"alpha {summary.alphas[0]:.4g}, found from the data"
    elif len(decays) == 1:
        weight = f"{decays[0].family} {decays[0].text}"
    if job.average.bands is not None:
        weight += f"{', ' if weight else ''}bands of {job.average.bands:g} standard deviations"
    return ", ".join(filter(None, [name, weight]))
