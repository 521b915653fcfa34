"""Pictures in a terminal, in braille: two dots across and four down a character. Needs no package."""

from __future__ import annotations

import math
import os
import shutil
from datetime import UTC, datetime
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from ema_cli.formats.base import Floats
from ema_cli.plotting.chart import VALUE, Axis, Cell, Chart, Curve, Panel, short
from ema_cli.run.progress import width_of

# Which bit of a braille character each of its dots is, row by row.
DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
# Trends as ANSI colours; without colour, each has a mark in place of its dots.
COLOURS, MARKS = (34, 31, 36, 32, 35), "*+xo#@%"
FAINT = 90
HEIGHTS = (5, 18)  # characters: the least and the most that one pair of axes has
LOWER_HEIGHT = 5
MOST_NARROW = 20
Grid = NDArray[np.bool_]


def abilities(out: TextIO) -> tuple[int, int, bool]:
    """The terminal's columns and lines, and whether it has colour (https://no-color.org)."""
    colour = out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    size = shutil.get_terminal_size((80, 24))
    return (width_of(out) if out.isatty() else size.columns), size.lines, colour


def draw_text(chart: Chart, width: int, lines: int, colour: bool) -> str:
    """The chart as text, at most `width` wide; one column of it fills `lines` lines."""
    if chart.look.size is not None:
        width, lines = max(MOST_NARROW, chart.look.size[0]), chart.look.size[1]
    cells = [(column.name, cell) for column, drawn in chart.cells() for cell in drawn]
    asked = lines // max(1, len(cells)) - 5
    height = max(asked, HEIGHTS[0])
    if chart.look.size is None:
        height = min(height, HEIGHTS[1])
    out = [short(chart.title, width - 1)] if chart.title else []
    for name, cell in cells:
        out += _Drawing(chart, colour).cell(name, cell, (width, height))
    return "\n".join(line.rstrip() for line in out) + "\n"


class _Drawing:
    """How a chart is drawn."""

    def __init__(self, chart: Chart, colour: bool) -> None:
        self.chart, self.colour = chart, colour

    def cell(self, name: str, cell: Cell, size: tuple[int, int]) -> list[str]:
        width, height = size
        chart, log = self.chart, self.chart.look.log
        logs = [log and panel.kind == VALUE for panel in cell.panels]
        ranges = [
            panel.range(log=own) or ((0.1, 10.0) if own else (0.0, 1.0))
            for panel, own in zip(cell.panels, logs, strict=True)
        ]
        labels = [(_number(high), _number(low)) for low, high in ranges]
        margin = max(len(text) for pair in labels for text in pair)
        across = max(8, width - margin - 3)
        out = self.key(cell, name, width)
        for panel, limits, (top, bottom) in zip(cell.panels, ranges, labels, strict=True):
            down = height if panel.kind == VALUE else LOWER_HEIGHT
            if panel.kind != VALUE:
                out.append(f"{'':{margin}} {panel.kind}")
            rows = self.panel(panel, (chart.span(), limits), (across, down))
            for k, row in enumerate(rows):
                label = top if k == 0 else bottom if k == down - 1 else ""
                out.append(f"{label:>{margin}} {'┤' if label else '│'}{row}")
        first, last = (_place(x, chart.axis) for x in chart.span())
        middle = short(chart.axis.label, max(1, across - len(first) - len(last)))
        middle = middle.center(max(1, across - len(first) - len(last)))
        return [*out, f"{'':{margin}} └{'─' * across}", f"{'':{margin}}  {first}{middle}{last}"[: width - 1]]

    def key(self, cell: Cell, name: str, width: int) -> list[str]:
        """What the lines are called: in one line if that is wide enough, else in one each."""
        words, length = [], 0
        lines, has_values = cell.panels[0].lines, cell.panels[0].kind == VALUE
        alone = len({self.number(line) for line in lines}) == 1
        for line in lines:
            if (self.chart.runs and line.part == VALUE) or (alone and not has_values):
                continue
            mark = "⣿" if self.colour or line.part == VALUE else self.mark(line)
            text = short(self.called(line), width - 4)
            length += len(text) + 4
            words.append(f"{_painted(mark, self.paint(line)) if self.colour else mark} {text}")
        title = short(f"{cell.title}: {name}", width - 1) if cell.title else ""
        if self.chart.runs or (not has_values and not title):
            title = short(name, width - 1)
        if words and length <= width:
            words = ["  ".join(words)]
        return ["", *([title] if title else []), *words]

    def called(self, line: Curve) -> str:
        if not self.chart.runs:
            return line.name
        several = len(self.chart.average.decays) > 1
        weight = f", {self.chart.average.decays[line.weight].text}" if several else ""
        return self.chart.names[line.series] + weight

    def panel(
        self, panel: Panel, limits: tuple[tuple[float, float], tuple[float, float]], size: tuple[int, int]
    ) -> list[str]:
        """The rows of characters of one panel."""
        across, down = size
        log = self.chart.look.log and panel.kind == VALUE
        alone = panel.kind != VALUE and len({self.number(line) for line in panel.lines}) == 1
        text = np.full((down, across), " ", dtype="<U16")
        dots = np.zeros((down, across), np.int64)
        paint = np.zeros((down, across), np.int64)
        for line in panel.lines:
            grid = rasterize(*_scaled(line, limits, log=log), (2 * across, 4 * down))
            cells = grid.reshape(down, 4, across, 2).transpose(0, 2, 1, 3)
            bits = (cells * DOTS).sum(axis=(2, 3))
            if self.colour or line.part == VALUE or alone:
                dots |= bits
                paint[bits > 0] = self.paint(line)
            else:
                text[bits > 0] = self.mark(line)
        braille = (dots > 0) & (text == " ")
        text[braille] = [chr(0x2800 + int(bits)) for bits in dots[braille]]
        if self.colour:
            return ["".join(map(_painted, *row)) for row in zip(text.tolist(), paint.tolist(), strict=True)]
        return ["".join(row) for row in text.tolist()]

    def mark(self, line: Curve) -> str:
        return MARKS[self.number(line) % len(MARKS)]

    def paint(self, line: Curve) -> int:
        return FAINT if line.part == VALUE else COLOURS[self.number(line) % len(COLOURS)]

    def number(self, line: Curve) -> int:
        """By what lines are told apart: runs, else weights."""
        return line.series if self.chart.runs else line.weight


def _scaled(
    line: Curve, limits: tuple[tuple[float, float], tuple[float, float]], *, log: bool
) -> tuple[Floats, Floats, tuple[tuple[float, float], tuple[float, float]]]:
    """A line and its limits as they stand on the axis upwards."""
    if not log:
        return line.x, line.y, limits
    with np.errstate(divide="ignore", invalid="ignore"):
        y = np.where(line.y > 0, np.log(line.y), math.nan)
    return line.x, y, (limits[0], (math.log(limits[1][0]), math.log(limits[1][1])))


def rasterize(
    x: Floats, y: Floats, limits: tuple[tuple[float, float], tuple[float, float]], size: tuple[int, int]
) -> Grid:
    """The dots, (high, wide) bool, that a line through the points touches; none where it is broken."""
    (left, right), (bottom, top) = limits
    wide, high = size
    grid = np.zeros((high, wide), bool)
    # Halves, since the difference of two of the greatest numbers is infinite.
    across = (x / 2 - left / 2) / ((right / 2 - left / 2) or 1.0) * (wide - 1)
    down = (top / 2 - y / 2) / ((top / 2 - bottom / 2) or 1.0) * (high - 1)
    there = ~np.isnan(y)
    grid[down[there].round().astype(int), across[there].round().astype(int)] = True
    joined = np.flatnonzero(there[:-1] & there[1:])
    steps = np.ceil(np.maximum(np.abs(np.diff(across)), np.abs(np.diff(down)))[joined]).astype(int)
    for at, count in zip(joined[steps > 1], steps[steps > 1], strict=True):
        part = np.arange(count) / count
        rows = down[at] + part * (down[at + 1] - down[at])
        columns = across[at] + part * (across[at + 1] - across[at])
        grid[rows.round().astype(int), columns.round().astype(int)] = True
    return grid


def _painted(text: str, paint: int) -> str:
    return f"\x1b[{paint}m{text}\x1b[0m" if paint and text != " " else text


def _number(value: float) -> str:
    return f"{value:.5g}"


def _place(x: float, axis: Axis) -> str:
    """An end of the axis along."""
    if not axis.dates:
        return f"{x:.10g}"
    if not math.isfinite(x):
        return ""
    moment = datetime.fromtimestamp(x / 1e9, UTC)
    return moment.strftime("%Y-%m-%d" if axis.days else "%Y-%m-%d %H:%M")
