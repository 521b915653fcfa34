"""The text of `-v`: what a run has computed."""

from __future__ import annotations

import math

from ema_cli.average import Average
from ema_cli.decay import Decay
from ema_cli.job import Job, Summary
from ema_cli.like import describe as options_of


def describe(job: Job, summary: Summary) -> str:
    """Several lines: formula, weights, columns, counts."""
    average = job.average
    lines = [f"{', '.join(job.inputs)} → {job.output or 'stdout'}", formula(average)]
    if job.weights is not None:
        lines.append(f"each value counts so many times: {job.weights}")
    if average.like is not None:
        lines.append(f"like {average.like}: {options_of(average.like, average.timed)}")
    lines += [_weight(decay) for decay in average.decays if not decay.auto]
    if summary.alphas is not None:
        lines += [
            f"{name}: alpha {alpha!r}" for name, alpha in zip(summary.names, summary.alphas, strict=True)
        ]
    new = [", ".join(average.names(name)) for name in summary.names]
    lines += [f"{name} → {made}" for name, made in zip(summary.names, new, strict=True)]
    if average.paired:
        lines.append(f"pairs → {', '.join(average.pair_names(summary.names))}")
    lines.append(f"{summary.rows} rows, {summary.missing} missing cells, {summary.invalid} invalid ones")
    return "\n  ".join(lines)


def formula(average: Average) -> str:
    """The formula of the average, as docs/semantics.md writes it."""
    fade = "e^(−{}/τ)" if average.decays[0].family == "tau" else "2^(−{}/halflife)"
    if average.timed and average.adjust:
        text = f"y = Σ w·x / Σ w with w = {fade.format('|Δt|' if average.centered else 'age')}"
    elif average.timed:
        text = f"y[t] = d·y[t−1] + (1−d)·x[t] with d = {fade.format('Δt')}"
    elif average.centered:
        text = "y[t] = Σ (1−α)^|i−t|·x[i] / Σ (1−α)^|i−t|"
    elif average.adjust:
        text = "y[t] = Σ (1−α)^i·x[t−i] / Σ (1−α)^i"
    else:
        text = "y[t] = (1−α)·y[t−1] + α·x[t]"
    if average.seed_rows:
        firsts = " or ".join(str(decay.seed) for decay in average.decays)
        text += f", from the mean of the first {firsts} values"
    elif average.has_first:
        text += f", from {average.init}"
    return f"{text}; missing: {average.missing}{', held trend printed' if average.fill else ''}"


def _weight(decay: Decay) -> str:
    text = f"{decay.family} {decay.text}"
    if math.isnan(decay.alpha):
        return text
    halflife = "" if not 0 < decay.alpha < 1 else f", half-life {-1 / math.log2(1 - decay.alpha):.6g} rows"
    return f"{text}: alpha {decay.alpha:.6g}, decay {1 - decay.alpha:.6g}{halflife}"
