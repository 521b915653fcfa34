"""Pictures for paper and pages: PNG, SVG and PDF by matplotlib. The same chart gives the same bytes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, StrMethodFormatter

from ema_cli.formats.base import Floats
from ema_cli.plotting.chart import (
    AROUND_ZERO,
    ROWS,
    VALUE,
    WITH_VALUES,
    Axis,
    Cell,
    Chart,
    Column,
    Curve,
    Panel,
    limits,
    short,
)
from ema_cli.times import DAY

# Distinguished by colour (safe for the colour-blind), and without it by dash, width and lightness.
COLOURS = ("#0059a8", "#d55e00", "#111111", "#009e73", "#b0457e")
RUN_COLOURS = (
    *("#0059a8", "#d55e00", "#009e73", "#b0457e", "#111111", "#8a6d00"),
    *("#3fa0d8", "#a33c00", "#5f9e3f", "#6a4fb0", "#777777", "#c23b3b"),
)
DASHES: tuple[Any, ...] = ("-", (0, (6, 1.5)), (0, (1.5, 1)), (0, (7, 1.5, 1.5, 1.5)), (0, (3, 2)))
LEGEND_WIDTH = 138  # characters
GREY = "#b0b0b0"
FEW = 80  # rows that are drawn as points too
# Inches, and dots an inch.
WIDTH, HEIGHT, LOWER_HEIGHT, CELL_HEIGHT, LEGEND_HEIGHT, DPI = 9.0, 3.3, 1.3, 2.2, 0.6, 120
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # which comes with matplotlib
    "font.size": 9,
    "text.parse_math": False,  # a column may be called "price in $ or C$"
    "svg.hashsalt": "ema-smooth",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "path.simplify": True,
    "figure.constrained_layout.h_pad": 0.06,
}
# No dates and no versions, so that a picture changes only where its data does.
METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def draw_picture(chart: Chart, kind: str) -> bytes:
    """The file's bytes; kind: png, svg or pdf."""
    with _our_style():
        figure = draw_figure(chart)
        out = BytesIO()
        figure.savefig(out, format=kind, dpi=DPI, metadata=METADATA[kind])
    return out.getvalue()


def styled_figure(chart: Chart) -> Figure:
    """The figure, drawn with our settings, for a caller's own use."""
    with _our_style():
        figure = draw_figure(chart)
        figure.canvas.draw()
        return figure


@contextmanager
def _our_style() -> Iterator[None]:
    """Set matplotlib to our settings, without the user's and without warnings about fonts."""
    with warnings.catch_warnings(), mpl.rc_context():
        warnings.simplefilter("ignore")
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def draw_figure(chart: Chart) -> Figure:
    """The chart as a matplotlib figure: a strip for each column, a cell for each key in it."""
    drawn = chart.cells()
    heights = [_height(cells) for _, cells in drawn]
    pixels = chart.look.size or (WIDTH * DPI, round((sum(heights) + 0.3 + 0.25 * len(chart.notes)) * DPI))
    figure = Figure(figsize=(_inches(pixels[0]), _inches(pixels[1])), layout="constrained")
    FigureCanvasAgg(figure)
    title = "\n".join([short(chart.title, 110), *(f"shown: {note}" for note in chart.notes)]).strip()
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    strips = figure.subfigures(len(drawn), 1, height_ratios=heights, squeeze=False)[:, 0]
    span = _span(chart)
    for strip, (column, cells) in zip(strips, drawn, strict=True):
        _draw_column(strip, column, cells, chart)
        for axes in strip.axes:
            axes.set_xlim(span)
    return figure


def _inches(pixels: float) -> float:
    """matplotlib 3.9 rounds down to whole pixels, and 245 / 120 · 120 is less than 245."""
    inches = pixels / DPI
    return inches if inches * DPI >= pixels else (pixels + 1e-6) / DPI


def _span(chart: Chart) -> tuple[float, float]:
    """The ends of the horizontal axis, the same in all panels."""
    first, last = chart.span()
    first, last = _x(np.array([first, last]), chart.axis)
    margin = 0.01 * (last - first) or 0.5
    return first - margin, last + margin


def _across(cells: int) -> int:
    """How many cells are side by side."""
    return cells if cells < 3 else 3 if cells != 4 else 2


def _height(cells: Sequence[Cell]) -> float:
    return math.ceil(len(cells) / _across(len(cells))) * sum(_heights(cells)) + LEGEND_HEIGHT


def _heights(cells: Sequence[Cell]) -> list[float]:
    """The heights of the panels of one cell; that of values is the highest."""
    first = HEIGHT if len(cells) == 1 else CELL_HEIGHT
    return [first if panel.kind == VALUE else LOWER_HEIGHT for panel in cells[0].panels]


def _draw_column(strip: SubFigure, column: Column, cells: Sequence[Cell], chart: Chart) -> None:
    """A grid of cells; rows of it that hold values are higher than those of the panels below them."""
    across, panels = _across(len(cells)), len(cells[0].panels)
    down = math.ceil(len(cells) / across)
    grid = strip.subplots(down * panels, across, squeeze=False, height_ratios=_heights(cells) * down)
    kinds = [panel.kind for panel in cells[0].panels]
    ranges = [limits(cells, k, log=chart.look.log and kind == VALUE) for k, kind in enumerate(kinds)]
    for number, cell in enumerate(cells):
        row, left = divmod(number, across)
        axes = grid[row * panels : (row + 1) * panels, left]
        _draw_cell(axes, cell, chart, last=number + across >= len(cells), across=across)
        for one, panel, limit in zip(axes, cell.panels, ranges, strict=True):
            if limit is not None:
                one.set_ylim(limit)
            if left == 0:
                one.set_ylabel(
                    _beside(column.name, panel.kind, cell.panels[0].kind, 34 if across == 1 else 18)
                )
    for number in range(len(cells), down * across):
        for unused in grid[number // across * panels :, number % across]:
            unused.remove()
    _legend(strip, grid[0, 0])


def _beside(name: str, kind: str, first: str, most: int) -> str:
    """What a panel of this kind is called; the first one has the column's name."""
    if kind == VALUE:
        return short(name, most)
    return f"{short(name, 18)}\n{kind}" if kind == first else kind


def _legend(strip: SubFigure, axes: Any) -> None:
    """One legend above a column's cells, outside of all axes, so that it covers nothing."""
    handles, labels = axes.get_legend_handles_labels()
    if not labels:
        return
    labels = [short(label, 100) for label in labels]
    # What varies most comes first: value, trends, then bands.
    order = sorted(range(len(handles)), key=lambda k: not isinstance(handles[k], Line2D))
    legend = strip.legend(
        [handles[k] for k in order],
        [labels[k] for k in order],
        loc="outside upper left",
        ncols=max(1, min(4, LEGEND_WIDTH // (max(map(len, labels)) + 10))),
        frameon=False,
        fontsize=8.5,
        handlelength=4,
    )
    legend.set_in_layout(True)


def _draw_cell(axes: Any, cell: Cell, chart: Chart, last: bool, across: int) -> None:
    """Panels one above the other; the axis is labelled under the last one of the lowest cell."""
    axis = chart.axis
    if cell.title:
        axes[0].set_title(short(cell.title, 90 // across), loc="left", fontsize=9, fontweight="bold")
    for one, panel in zip(axes, cell.panels, strict=True):
        _draw_panel(one, panel, chart)
        if chart.look.log and panel.kind == VALUE and panel.range(log=True) is not None:
            one.set_yscale("log", nonpositive="mask")
            # Its own labels are powers in TeX, which we leave to nobody's names.
            one.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            one.yaxis.set_minor_formatter(NullFormatter())
        if axis.dates:
            locator = AutoDateLocator(minticks=3, maxticks=7)
            one.xaxis.set_major_locator(locator)
            one.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        elif axis.kind == ROWS:
            one.xaxis.set_major_locator(MaxNLocator(nbins=8 if across < 3 else 4, integer=True))
            one.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        if one is not axes[-1]:
            one.tick_params(labelbottom=False)
            one.xaxis.offsetText.set_visible(False)
    if last:
        axes[-1].set_xlabel(axis.label)


def _draw_panel(axes: Any, panel: Panel, chart: Chart) -> None:
    for band in panel.bands:
        colour = _colour(band.series, band.weight, chart.runs)
        x = _x(band.x, chart.axis)
        label = "_" if chart.runs else _label(band.name)
        axes.fill_between(x, band.lower, band.upper, color=colour, alpha=0.17, lw=0, label=label)
    if panel.kind in AROUND_ZERO:
        axes.axhline(0, color="#555555", lw=0.8)
    for line in panel.lines:
        _draw_line(axes, line, chart)


def _draw_line(axes: Any, line: Curve, chart: Chart) -> None:
    x = _x(line.x, chart.axis)
    if line.part == VALUE:
        style: dict[str, Any] = {"color": GREY, "lw": 0.8, "zorder": 2}
        if chart.runs:
            style |= {"color": _colour(line.series, 0, True), "alpha": 0.3}
    else:
        heavy = line.part in WITH_VALUES
        # Runs have a colour each, and a dash as long as that is not taken for the weights.
        dash = line.weight if not chart.runs or len(chart.average.decays) > 1 else line.series
        style = {
            "color": _colour(line.series, line.weight, chart.runs),
            "ls": DASHES[dash % len(DASHES)] if heavy else "-",
            "lw": 1.7 if heavy else 0.8,
            "zorder": 3 + 0.01 * line.weight,
        }
    if len(x) <= FEW and line.part in (VALUE, "std"):
        style |= {"marker": ".", "ms": 4}
    axes.plot(x, line.y, label=_label(_said(line, chart)), **style)
    alone = line.alone()
    if alone.any() and "marker" not in style:
        colour, order = style["color"], style["zorder"]
        axes.plot(x[alone], line.y[alone], ".", ms=2.5, color=colour, zorder=order, alpha=style.get("alpha"))


def _said(line: Curve, chart: Chart) -> str:
    """What a legend calls a line; nothing for the values of runs, which have their trends' colours."""
    if not chart.runs:
        return line.name
    if line.part == VALUE:
        return "_"
    several = len(chart.average.decays) > 1
    return chart.names[line.series] + (f", {chart.average.decays[line.weight].text}" if several else "")


def _colour(series: int, weight: int, runs: bool) -> str:
    return RUN_COLOURS[series % len(RUN_COLOURS)] if runs else COLOURS[weight % len(COLOURS)]


def _x(x: Floats, axis: Axis) -> Floats:
    """Dates as matplotlib counts them: days since 1970."""
    return x / DAY if axis.dates else x


def _label(name: str) -> str:
    """A legend leaves out what begins with an underscore, so a mark without width goes before a column's."""
    return "\u200b" + name if name.startswith("_") and name != "_" else name
