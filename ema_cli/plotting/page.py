"""An interactive picture: one HTML page, complete in itself, by Bokeh (1.3 MB of it; Plotly's are 4.8 MB).

Wheel and box zoom, all panels along the same axis together; hovering says all values of a row; a click in a
legend switches a series on and off, in every panel that has it.
"""

from __future__ import annotations

import re
from html import escape
from typing import Any

import numpy as np
from bokeh.embed import file_html
from bokeh.layouts import column as stacked
from bokeh.layouts import gridplot
from bokeh.models import (
    BoxZoomTool,
    ColumnDataSource,
    HoverTool,
    NumeralTickFormatter,
    PanTool,
    Range1d,
    ResetTool,
    SaveTool,
    WheelZoomTool,
)
from bokeh.models.annotations import Legend, LegendItem, Span
from bokeh.models.glyphs import VArea
from bokeh.plotting import figure
from bokeh.resources import INLINE

from ema_cli.formats.base import Floats
from ema_cli.plotting.chart import RESIDUAL, ROWS, TREND, VALUE, Axis, Chart, Column, Line, Panel

COLOURS = ("#0059a8", "#d55e00", "#111111", "#009e73", "#b0457e")
DASHES: tuple[Any, ...] = ("solid", [10, 3], [3, 2], [10, 3, 3, 3], [5, 4])
GREY = "#9a9a9a"
HEIGHT, LOWER_HEIGHT, CELL_HEIGHT = 380, 170, 260  # pixels
ACROSS = 3  # cells beside each other
_RANDOM = re.compile(r'(?: id=|"docid":)"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"')
# Bokeh counts times in milliseconds.
NANOSECONDS_A_STEP = 1_000_000
# What is put into Bokeh's own template, by the names of its blocks.
TEMPLATE = """
{% block postamble %}
<style>
  body { font-family: sans-serif; margin: 1em } h1 { font-size: 1.1em; font-weight: normal } p { color: #555 }
</style>
{% endblock %}
{% block contents %}{{ heading }}{{ super() }}{% endblock %}
"""


def draw_page(chart: Chart) -> bytes:
    """The page's bytes; the same chart gives the same."""
    heading = f"<h1>{escape(chart.title)}</h1>" if chart.title else ""
    heading += "".join(f"<p>Shown: {escape(note)}.</p>" for note in chart.notes)
    page = file_html(
        _draw(chart),
        INLINE,
        title=chart.title or "ema-smooth",
        template=TEMPLATE,
        template_variables={"heading": heading},
    )
    return _settled(page).encode()


def _settled(page: str) -> str:
    """Bokeh's random names of elements by their order instead; they stand as ids and before they are used."""
    for number, match in enumerate(dict.fromkeys(_RANDOM.findall(page))):
        page = page.replace(match, f"ema-smooth-{number}")
    return page


def _draw(chart: Chart) -> Any:
    first, last = _x(np.array(chart.span()), chart.axis)
    margin = 0.01 * (last - first) or 0.5
    along = Range1d(start=first - margin, end=last + margin)
    strips = [_draw_column(column, chart.axis, along) for column in chart.columns]
    return stacked([part for strip in strips for part in strip], sizing_mode="stretch_width")


def _draw_column(column: Column, axis: Axis, along: Range1d) -> list[Any]:
    """A column's legend and below it the grid of its cells."""
    shown: dict[str, list[Any]] = {}
    cells = []
    height = HEIGHT if len(column.cells) == 1 else CELL_HEIGHT
    for cell in column.cells:
        figures = []
        for k, panel in enumerate(cell.panels):
            plot = _figure(height if k == 0 else LOWER_HEIGHT, axis, along)
            _draw_panel(plot, panel, axis, shown)
            plot.yaxis.axis_label = column.name if k == 0 else panel.kind
            limits = column.limits(k)
            if limits is not None:
                plot.y_range = Range1d(start=limits[0], end=limits[1])
            figures.append(plot)
        figures[0].title.text = cell.title
        figures[-1].xaxis.axis_label = axis.label
        cells.append(figures)
    rows = [
        list(line)
        for at in range(0, len(cells), ACROSS)
        for line in zip(*cells[at : at + ACROSS], strict=True)
    ]
    return [_legend(shown), gridplot(rows, sizing_mode="stretch_width", toolbar_options={"logo": None})]


def _figure(height: int, axis: Axis, along: Range1d) -> Any:
    wheel: Any = WheelZoomTool()
    tools: Any = [PanTool(), BoxZoomTool(), wheel, ResetTool(), SaveTool()]
    plot: Any = figure(
        height=height,
        x_range=along,
        x_axis_type="datetime" if axis.dates else "linear",
        tools=tools,
        sizing_mode="stretch_width",
    )
    plot.toolbar.active_scroll = wheel
    if axis.kind == ROWS:
        plot.xaxis.formatter = NumeralTickFormatter(format="0,0")
    return plot


def _draw_panel(plot: Any, panel: Panel, axis: Axis, shown: dict[str, list[Any]]) -> None:
    """Bands, lines and what hovering says. shown: what each name in the legend switches, and is added to."""
    data = {f"s{k}": values for k, values in enumerate(panel.table.T)}
    table = ColumnDataSource({"x": _x(panel.x, axis), **data})
    for band in panel.bands:
        colour = COLOURS[band.weight % len(COLOURS)]
        sides = (f"s{band.column}", f"s{band.column + 1}")
        area = plot.varea("x", *sides, source=table, fill_color=colour, fill_alpha=0.17)
        shown.setdefault(band.name, []).append(area)
    if panel.kind == RESIDUAL:
        plot.add_layout(Span(location=0, dimension="width", line_color="#555555", line_width=1))
    for line in panel.lines:
        source, y = table, f"s{line.column}"
        if line.joined:
            source = ColumnDataSource({"x": _x(line.x, axis), y: line.y})
        drawn = shown.setdefault(line.name, [])
        drawn.append(plot.line("x", y, source=source, **_style(line)))
        alone = line.alone()
        if alone.any():
            points: dict[str, Any] = {"x": _x(line.x[alone], axis), "y": line.y[alone]}
            colour = _style(line)["line_color"]
            drawn.append(plot.scatter("x", "y", source=ColumnDataSource(points), size=3, color=colour))
    # Hovering finds a row by a line that can't be seen, so that it works whatever is switched off.
    places = panel.table[:, [line.column for line in panel.lines]]
    table.data["any"] = _first_of_each_row(places)
    anchor = plot.line("x", "any", source=table, line_alpha=0)
    plot.add_tools(_hover(panel, axis, anchor))


def _style(line: Line) -> dict[str, Any]:
    if line.kind == VALUE:
        return {"line_color": GREY, "line_width": 1}
    k, heavy = line.weight % len(COLOURS), line.kind == TREND
    dash = DASHES[k] if heavy else "solid"
    return {"line_color": COLOURS[k], "line_width": 2.2 if heavy else 1, "line_dash": dash}


def _first_of_each_row(table: Floats) -> Floats:
    """(n,): of each row of (n, k) the first value that is not NaN."""
    out = table[:, 0].copy()
    for column in table.T[1:]:
        out = np.where(np.isnan(out), column, out)
    return out


def _hover(panel: Panel, axis: Axis, anchor: Any) -> HoverTool:
    """Says all values of the row at the pointer's place along the axis."""
    place = "@x{0.[000000000]}"
    if axis.dates:
        place = "@x{%F %T}" if axis.label.endswith("(UTC)") else "@x{%F}"
    tooltips = [(axis.label, place), *((name, f"@s{k}{{0.[000000]}}") for k, name in enumerate(panel.names))]
    formatters: Any = {"@x": "datetime"} if axis.dates else {}
    return HoverTool(
        renderers=[anchor], tooltips=tooltips, formatters=formatters, mode="vline", line_policy="nearest"
    )


def _legend(shown: dict[str, list[Any]]) -> Any:
    """A strip with a legend that switches what it names in all cells of a column."""
    strip: Any = figure(height=34, toolbar_location=None, tools=[], sizing_mode="stretch_width", min_border=0)
    strip.x_range = strip.y_range = Range1d(start=0, end=1)  # of nothing, Bokeh would find no range
    strip.axis.visible = strip.grid.visible = False
    strip.outline_line_color = None
    # A legend can only show what its own figure draws: the same glyphs without data.
    items = []
    nothing = ColumnDataSource({"x": [0.0], "s0": [np.nan], "s1": [np.nan]})
    for name, renderers in shown.items():
        glyph = renderers[0].glyph.clone()
        band = isinstance(glyph, VArea)
        glyph.update(x="x", y1="s0", y2="s1") if band else glyph.update(x="x", y="s0")
        own = strip.add_glyph(nothing, glyph)
        for renderer in renderers:
            own.js_link("visible", renderer, "visible")
        items.append((band, LegendItem(label={"value": name}, renderers=[own])))
    items.sort(key=lambda item: item[0])  # lines first, in their order
    legend: Any = Legend(items=[item for _, item in items], orientation="horizontal", click_policy="hide")
    legend.update(location="center_left", border_line_alpha=0, margin=0, padding=4, spacing=16)
    strip.add_layout(legend, "center")
    return strip


def _x(x: Floats, axis: Axis) -> Floats:
    return x / NANOSECONDS_A_STEP if axis.dates else x
