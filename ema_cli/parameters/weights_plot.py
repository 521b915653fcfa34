"""`ema-weights --plot`: the weight of each checkpoint, and the profile that a post-hoc average comes to."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ema_cli.errors import OptionError
from ema_cli.io.atomic import atomic_write
from ema_cli.io.output import write_all
from ema_cli.parameters.plan import AveragePlan, Plan, profile_of
from ema_cli.parameters.post_hoc import Profile, cumulative

_SUFFIXES = (".png", ".svg", ".pdf")
_POINTS = 400
_COLOURS = ("#1f6fb4", "#d2691e", "#2e8b57", "#8b3a8b", "#b8860b", "#555555")


@contextlib.contextmanager
def drawn(plan: Plan, name: str | None) -> Iterator[None]:
    """Draw the weights into a file called `name`, if any; it is in its place at the end of the block.

    What prevents that is raised before the block, which may take long. Raises FileTrouble, or OptionError for
    a suffix that is not known.
    """
    if name is None:
        yield
        return
    picture = _picture(plan, name)
    with atomic_write(name) as out:
        write_all(out, picture)
        yield


def _picture(plan: Plan, name: str) -> bytes:
    suffix = Path(name).suffix.lower()
    if suffix not in _SUFFIXES:
        raise OptionError(f"--plot {name}: pictures are {', '.join(_SUFFIXES)}", "--plot weights.png")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise OptionError("--plot needs matplotlib", "pip install matplotlib") from None
    # No clock and no random ids in it: the same weights give the same picture.
    import matplotlib as mpl

    figure = Figure(figsize=(8, 6 if plan.averages[0].fit else 3.6), layout="constrained")
    axes = figure.subplots(2 if plan.averages[0].fit else 1, squeeze=False)[:, 0]
    _stems(axes[0], plan)
    if plan.averages[0].fit is not None:
        _profiles(axes[1], plan)
    picture = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "ema-weights", "text.parse_math": False}):
        metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}[suffix]
        figure.savefig(picture, format=suffix[1:], dpi=120, metadata=metadata)
    return picture.getvalue()


def _stems(axes: Any, plan: Plan) -> None:
    files = plan.averages[0].files
    stepped = all(file.step is not None for file in files)
    places = [file.step for file in files] if stepped else range(1, len(files) + 1)
    for average, colour in zip(plan.averages, _cycle(len(plan.averages)), strict=True):
        axes.plot(places, average.weights(), "o-", ms=3, lw=0.8, color=colour, label=average.length.option)
    axes.axhline(0.0, color="#999999", lw=0.6)
    axes.set_ylabel("weight")
    axes.set_xlabel("step" if stepped else "checkpoint")
    axes.legend(frameon=False, fontsize=8)


def _profiles(axes: Any, plan: Plan) -> None:
    """The share of all weight given to the updates so far: as wanted (dashed), and as it comes out."""
    profiles = [profile_of(checkpoint) for checkpoint in plan.checkpoints]
    for average, colour in zip(plan.averages, _cycle(len(plan.averages)), strict=True):
        steps, got, wanted = curves(average, profiles)
        axes.plot(steps, got, color=colour, lw=1.6, label=f"{average.length.option}: fitted")
        axes.plot(steps, wanted, "--", color="black", lw=0.8)
    axes.plot([], [], "--", color="black", lw=0.8, label="wanted")
    axes.set_xlabel("step")
    axes.set_ylabel("weight up to a step")
    axes.legend(frameon=False, fontsize=8)


def curves(average: AveragePlan, profiles: list[Profile]) -> tuple[Any, Any, Any]:
    """(steps, cumulative weight as fitted, as wanted)."""
    assert average.fit is not None  # only post-hoc averages have profiles
    steps = np.unique(np.linspace(1, average.fit.step, _POINTS).round())
    got = cumulative(profiles, average.fit.coefficients, steps)
    return steps, got, cumulative([Profile(average.fit.step, average.fit.gamma)], [1.0], steps)


def _cycle(count: int) -> list[str]:
    return [_COLOURS[k % len(_COLOURS)] for k in range(count)]
