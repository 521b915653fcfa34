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
from ema_cli.plot.chart import VALUE, Axis, Cell, Chart, Line, Panel, short
from ema_cli.run.progress import width_of
from ema_cli.safe_text import safe_text

# Which bit of a braille character each of its dots is, row by row.
DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
# Trends as ANSI colours; without colour, each has a mark that stands for its dots.
COLOURS, MARKS = (34, 31, 36, 32, 35), "*+xo#"
FAINT = 90
HEIGHTS = (5, 18)  # characters: the least and the most that one pair of axes has
LOWER_HEIGHT = 5
Grid = NDArray[np.bool_]


def abilities(out: TextIO) -> tuple[int, int, bool]:
    """Columns, lines and whether there is colour (https://no-color.org)."""
    colour = out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    size = shutil.get_terminal_size((80, 24))
    return (width_of(out) if out.isatty() else size.columns), size.lines, colour


def draw_text(chart: Chart, width: int, lines: int, colour: bool) -> str:
    """The chart as lines of text that are at most `width` wide, and so high that one column fills `lines`."""
    cells = [(column.name, cell) for column in chart.columns for cell in column.cells]
    height = min(max(lines // max(1, len(cells)) - 5, HEIGHTS[0]), HEIGHTS[1])
    out = [short(safe_text(chart.title), width - 1)] if chart.title else []
    for name, cell in cells:
        out += _draw_cell(name, cell, chart, (width, height), colour)
    return "\n".join(line.rstrip() for line in out) + "\n"


def _draw_cell(name: str, cell: Cell, chart: Chart, size: tuple[int, int], colour: bool) -> list[str]:
    width, height = size
    ranges = [panel.range() or (0.0, 1.0) for panel in cell.panels]
    labels = [(_number(high), _number(low)) for low, high in ranges]
    margin = max(len(text) for pair in labels for text in pair)
    across = max(8, width - margin - 3)
    out = _key(cell, name, width, colour)
    for panel, limits, (top, bottom) in zip(cell.panels, ranges, labels, strict=True):
        down = height if panel.kind == VALUE else LOWER_HEIGHT
        if panel.kind != VALUE:
            out.append(f"{'':{margin}} {panel.kind}")
        rows = _draw_panel(panel, (chart.span(), limits), (across, down), colour)
        for k, row in enumerate(rows):
            label = top if k == 0 else bottom if k == down - 1 else ""
            out.append(f"{label:>{margin}} {'┤' if label else '│'}{row}")
    first, last = (_place(x, chart.axis) for x in chart.span())
    middle = safe_text(chart.axis.label).center(max(1, across - len(first) - len(last)))
    return [*out, f"{'':{margin}} └{'─' * across}", f"{'':{margin}}  {first}{middle}{last}"[: width - 1]]


def _key(cell: Cell, name: str, width: int, colour: bool) -> list[str]:
    """What the lines are called: in one line if that is wide enough, else in one each."""
    words, length = [], 0
    for line in cell.panels[0].lines:
        mark = "⣿" if colour or line.kind == VALUE else MARKS[line.weight % len(MARKS)]
        text = short(safe_text(line.name), width - 4)
        length += len(text) + 4
        words.append(f"{_painted(mark, _paint(line)) if colour else mark} {text}")
    title = short(safe_text(f"{cell.title}: {name}"), width - 1) if cell.title else ""
    return ["", *([title] if title else []), *(["  ".join(words)] if length <= width else words)]


def _draw_panel(
    panel: Panel, limits: tuple[tuple[float, float], tuple[float, float]], size: tuple[int, int], colour: bool
) -> list[str]:
    """The rows of characters of one panel."""
    across, down = size
    text = np.full((down, across), " ", dtype="<U16")
    dots = np.zeros((down, across), np.int64)
    paint = np.zeros((down, across), np.int64)
    for line in panel.lines:
        grid = rasterize(line.x, line.y, limits, (2 * across, 4 * down))
        cells = grid.reshape(down, 4, across, 2).transpose(0, 2, 1, 3)
        bits = (cells * DOTS).sum(axis=(2, 3))
        if colour or line.kind == VALUE or panel.kind != VALUE:
            dots |= bits
            paint[bits > 0] = _paint(line)
        else:
            text[bits > 0] = MARKS[line.weight % len(MARKS)]
    braille = (dots > 0) & (text == " ")
    text[braille] = [chr(0x2800 + int(bits)) for bits in dots[braille]]
    if colour:
        return ["".join(map(_painted, *row)) for row in zip(text.tolist(), paint.tolist(), strict=True)]
    return ["".join(row) for row in text.tolist()]


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


def _paint(line: Line) -> int:
    return FAINT if line.kind == VALUE else COLOURS[line.weight % len(COLOURS)]


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
    return moment.strftime("%Y-%m-%d" if not axis.label.endswith("(UTC)") else "%Y-%m-%d %H:%M")
