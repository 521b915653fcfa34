"""The interactive page: one HTML file that needs no others, with a slider for the weight.

Not made with a plotting library: the slider has to compute as the command does, and a library would draw a
tenth of what is here at twenty times the size. Nothing can run in it or be fetched by it but our one script,
which its Content-Security-Policy names by its hash.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from base64 import b64encode
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np

from ema_cli.average import Average
from ema_cli.decay import duration_text
from ema_cli.formats.base import Floats
from ema_cli.plotting.chart import Chart, Column, Trace

LEVEL = 6  # of compression: 9 takes three times as long for a hundredth less


def draw_page(chart: Chart) -> bytes:
    """The page's bytes; the same chart gives the same."""
    parts = {name: _asset(name) for name in ("page.html", "page.css", "average.js", "page.js")}
    script = parts["average.js"] + parts["page.js"]
    filled = {
        "TITLE": escape(chart.title or "ema-smooth"),
        "STYLE_HASH": _hash(parts["page.css"]),
        "SCRIPT_HASH": _hash(script),
        "STYLE": parts["page.css"],
        "SCRIPT": script,
        "DATA": _data(chart),
    }
    page = parts["page.html"]
    # Each is filled once, from the end, so that no text in the data is taken for a placeholder.
    for name in ("TITLE", "STYLE_HASH", "SCRIPT_HASH", "STYLE", "SCRIPT", "DATA"):
        before, _, after = page.rpartition(f"@{name}@")
        page = before + filled[name] + after
    return page.encode()


def _asset(name: str) -> str:
    return files("ema_cli.plotting").joinpath("assets", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return b64encode(hashlib.sha256(text.encode()).digest()).decode()


class _Arrays:
    """Arrays of float64 as text, each of them once."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.known: dict[bytes, int] = {}

    def add(self, values: Floats) -> int:
        """Where the array stands among them."""
        data = np.ascontiguousarray(values, "<f8")
        # The bytes of one place together: they repeat where whole numbers of eight bytes don't.
        planes = data.view(np.uint8).reshape(-1, 8).T.tobytes()
        digest = hashlib.sha256(planes).digest()
        if digest not in self.known:
            self.known[digest] = len(self.texts)
            self.texts.append(b64encode(zlib.compress(planes, LEVEL)).decode())
        return self.known[digest]


def _data(chart: Chart) -> str:
    """All that the page knows, as JSON that no markup can end."""
    arrays = _Arrays()
    columns = [_column(column, arrays) for column in chart.columns]
    data = {
        "title": chart.title,
        "notes": [f"Shown: {note}." for note in chart.notes],
        "axis": {"label": chart.axis.label, "kind": chart.axis.kind, "days": chart.axis.days},
        "names": chart.names,
        "runs": chart.runs,
        "log": chart.look.log,
        "relative": chart.look.relative,
        "size": chart.look.size,
        "spacing": _spacing(chart),
        "average": _average(chart),
        "columns": columns,
        "arrays": arrays.texts,
    }
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _column(column: Column, arrays: _Arrays) -> dict[str, Any]:
    return {
        "name": column.name,
        "panels": column.panels,
        "fields": [{"name": one.name, "part": one.part, "weight": one.weight} for one in column.fields],
        "traces": [_trace(trace, arrays) for trace in column.traces],
    }


def _trace(trace: Trace, arrays: _Arrays) -> dict[str, Any]:
    reduced = trace.reduced
    since = None if trace.since is None else arrays.add(trace.since)
    number = None if trace.number is None else arrays.add(trace.number)
    afresh = None if trace.afresh is None else arrays.add(trace.afresh)
    weights = None if trace.weights is None else arrays.add(trace.weights)
    return {
        "of": trace.series,
        "rows": reduced.rows,
        "reduced": reduced.shift is not None,
        "x": arrays.add(trace.x),
        "since": since,
        "number": number,
        "afresh": afresh,
        "weights": weights,
        "series": [arrays.add(values) for values in reduced.values.T],
        "lonely": reduced.lonely.tolist(),
    }


def _average(chart: Chart) -> dict[str, Any]:
    """What shapes the numbers, as the page's own recursion has it."""
    average = chart.average
    first = average.decays[0]
    return {
        "timed": average.timed,
        "family": first.family,
        "weights": [
            {"family": decay.family, "text": text, "alpha": alpha, "rate": rate}
            for decay, (text, alpha, rate) in zip(average.decays, _weights(chart), strict=True)
        ],
        "adjust": average.adjust,
        "centered": average.centered,
        "start": average.start,
        "lead": average.time_step,
        "seed": average.seed_rows,
        "missing": average.missing,
        "fill": average.fill,
        "needed": average.min_periods,
        "gap": average.reset_gap,
        "init": None if average.init == "first" else _said(average.init),
        "others": _others(average) + chart.rows,
    }


def _weights(chart: Chart) -> list[tuple[str, float | None, float | None]]:
    """Text, alpha and rate a nanosecond of each weight; one of alpha and rate."""
    out: list[tuple[str, float | None, float | None]] = []
    for decay in chart.average.decays:
        if decay.halflife_ns is not None:
            out.append((decay.text, None, math.log(2) / decay.halflife_ns))
        elif decay.auto:
            alpha = chart.alphas[0] if chart.alphas else 0.1
            out.append((f"{alpha:.9g}", alpha, None))
        else:
            out.append((decay.text, decay.alpha, None))
    return out


def _others(average: Average) -> list[str]:
    """The other options of the average that the page's trend obeys, as they are typed."""
    out = []
    if average.missing != "skip":
        out.append(f"--missing {average.missing}")
    if average.fill:
        out.append("--fill")
    if average.min_periods:
        out.append(f"--min-periods {average.min_periods}")
    if average.reset_gap is not None:
        out.append(f"--reset-gap {duration_text(average.reset_gap)}")
    return out


def _said(value: Any) -> str:
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _spacing(chart: Chart) -> dict[str, float]:
    """The shortest and the longest half-life that make a difference, in rows or nanoseconds."""
    traces = [trace for column in chart.columns for trace in column.traces]
    if not chart.average.timed:
        return {"shortest": 1, "longest": max((trace.reduced.rows for trace in traces), default=1)}
    steps = [np.diff(trace.since) for trace in traces if trace.since is not None and len(trace.since) > 1]
    ahead = [step[step > 0] for step in steps]
    typical = [float(np.median(step)) for step in ahead if len(step)]
    ends = [float(trace.since[-1]) for trace in traces if trace.since is not None and len(trace.since)]
    return {"shortest": min(typical, default=1.0), "longest": max(ends, default=1.0) or 1.0}
