"""An interactive picture: one HTML page, complete in itself, by Bokeh (1.3 MB of it; Plotly's are 4.8 MB).

Wheel and box zoom, all panels along the same axis together; hovering says all values of a row; a click in a
legend switches a series on and off, in every panel that has it.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from bokeh.embed import file_html
from bokeh.layouts import column as stacked
from bokeh.layouts import gridplot
from bokeh.models import (
    BoxZoomTool,
    ColumnDataSource,
    HoverTool,
    PanTool,
    Range1d,
    ResetTool,
    SaveTool,
    WheelZoomTool,
)
from bokeh.models.annotations import Legend, LegendItem, Span, Title
from bokeh.plotting import figure
from bokeh.resources import INLINE

from ema_cli.batch import Floats
from ema_cli.extras.chart import RESIDUAL, TREND, VALUE, Axis, Chart, Column, Line, Panel

COLOURS = ("#0059a8", "#d55e00", "#111111", "#009e73", "#b0457e")
DASHES: tuple[Any, ...] = ("solid", [10, 3], [3, 2], [10, 3, 3, 3], [5, 4])
GREY = "#9a9a9a"
HEIGHT, LOWER_HEIGHT, CELL_HEIGHT = 380, 170, 260  # pixels
ACROSS = 3  # cells beside each other
_UNIQUE = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# Bokeh counts times in milliseconds.
NANOSECONDS_A_STEP = 1_000_000


def draw_page(chart: Chart) -> bytes:
    """The page's bytes; the same chart gives the same."""
    return _settled(file_html(_draw(chart), INLINE, title=chart.title or "ema-smooth")).encode()


def _settled(page: str) -> str:
    """Bokeh's random names of elements by their order instead."""
    seen: dict[str, str] = {}
    return _UNIQUE.sub(lambda match: seen.setdefault(match[0], f"ema-smooth-{len(seen)}"), page)


def _draw(chart: Chart) -> Any:
    first, last = (_x(np.array([x]), chart.axis)[0] for x in chart.span())
    margin = 0.01 * (last - first) or 0.5
    along = Range1d(first - margin, last + margin)
    parts = [_draw_column(column, chart.axis, along) for column in chart.columns]
    above = " — ".join(filter(None, [chart.title, *(f"shown: {note}" for note in chart.notes)]))
    top = parts[0][0]
    top.add_layout(Title(text=above, text_font_style="normal", text_font_size="11pt"), "above")
    return stacked([layout for _, layout in parts], sizing_mode="stretch_width")


def _draw_column(column: Column, axis: Axis, along: Range1d) -> tuple[Any, Any]:
    """A column's first figure and the layout of all of them."""
    height = HEIGHT if len(column.cells) == 1 else CELL_HEIGHT
    shown: dict[str, list[Any]] = {}
    cells = []
    for cell in column.cells:
        figures = [_draw_panel(panel, column.name, (axis, along), shown, height) for panel in cell.panels]
        if cell.title:
            figures[0].title.text = cell.title
        figures[-1].xaxis.axis_label = axis.label
        cells.append(figures)
    first = cells[0][0]
    _legend(first, shown)
    if len(cells) == 1:
        return first, stacked(cells[0], sizing_mode="stretch_width")
    rows = [
        list(line)
        for at in range(0, len(cells), ACROSS)
        for line in zip(*cells[at : at + ACROSS], strict=True)
    ]
    return first, gridplot(rows, sizing_mode="stretch_width", toolbar_location="right")


def _draw_panel(
    panel: Panel, name: str, along: tuple[Axis, Range1d], shown: dict[str, list[Any]], height: int
) -> Any:
    """One figure. shown: for each name in the legend what it switches; what is drawn here is added."""
    axis, x_range = along
    value = panel.kind == VALUE
    plot = figure(
        height=height if value else LOWER_HEIGHT,
        x_range=x_range,
        x_axis_type="datetime" if axis.dates else "linear",
        y_axis_label=name if value else panel.kind,
        tools=[PanTool(), BoxZoomTool(), ResetTool(), SaveTool()],
        output_backend="canvas",
        sizing_mode="stretch_width",
    )
    wheel = WheelZoomTool()
    plot.add_tools(wheel)
    plot.toolbar.active_scroll = wheel
    plot.toolbar.logo = None
    for band in panel.bands:
        source = ColumnDataSource({"x": _x(band.x, axis), "lower": band.lower, "upper": band.upper})
        colour = COLOURS[band.weight % len(COLOURS)]
        area = plot.varea("x", "lower", "upper", source=source, fill_color=colour, fill_alpha=0.17)
        shown.setdefault(band.name, []).append(area)
    if panel.kind == RESIDUAL:
        plot.add_layout(Span(location=0, dimension="width", line_color="#555555", line_width=1))
    for line in panel.lines:
        shown.setdefault(line.name, []).append(_draw_line(plot, line, axis))
    plot.add_tools(_hover(axis))
    return plot


def _draw_line(plot: Any, line: Line, axis: Axis) -> Any:
    source = ColumnDataSource({"x": _x(line.x, axis), "y": line.y})
    k = line.weight % len(COLOURS)
    style: dict[str, Any] = {"line_color": GREY, "line_width": 1}
    if line.kind != VALUE:
        heavy = line.kind == TREND
        style = {"line_color": COLOURS[k], "line_width": 2.2 if heavy else 1}
        style["line_dash"] = DASHES[k] if heavy else "solid"
    return plot.line("x", "y", source=source, name=line.name, **style)


def _hover(axis: Axis) -> HoverTool:
    """Says the value of each line at the pointer's place along the axis."""
    if not axis.dates:
        place = "@x{0.[000000000]}"
    else:
        place = "@x{%F %T}" if axis.label.endswith("(UTC)") else "@x{%F}"
    tooltips = [(axis.label, place), ("$name", "@y{0.[000000]}")]
    formatters: Any = {"@x": "datetime"} if axis.dates else {}
    return HoverTool(tooltips=tooltips, formatters=formatters, mode="vline", line_policy="nearest")


def _legend(first: Any, shown: dict[str, list[Any]]) -> None:
    """One legend for all cells of a column; what is hidden in the first is hidden in the others."""
    items = []
    for name, renderers in shown.items():
        own = [renderer for renderer in renderers if renderer in first.renderers]
        if not own:
            continue
        items.append(LegendItem(label={"value": name}, renderers=own[:1]))
        for other in renderers:
            if other is not own[0]:
                own[0].js_link("visible", other, "visible")
    # Lines first, in their order; bands, which are drawn below them, after.
    items.sort(key=lambda item: item.renderers[0].glyph.__class__.__name__ == "VArea")
    legend = Legend(items=items, orientation="horizontal", click_policy="hide", border_line_alpha=0)
    first.add_layout(legend, "above")


def _x(x: Floats, axis: Axis) -> Floats:
    return x / NANOSECONDS_A_STEP if axis.dates else x
