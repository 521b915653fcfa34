"""Optional packages: the command that installs a missing one."""

from __future__ import annotations

import re
import shlex
import sys

# The packages of each extra, as in pyproject.toml, which a test compares.
EXTRAS = {
    "weights": ("ml_dtypes>=0.4",),
    "plot": ("matplotlib>=3.9",),
    "dask": ("dask[dataframe]>=2025.7", "distributed>=2025.7", "fsspec>=2024.6"),
}


def install_hint(extra: str, package: str | None = None) -> str:
    """The command that installs an extra's packages, or one of them, for this installation."""
    wanted = [text for text in EXTRAS[extra] if package is None or re.match(rf"{package}\b", text)]
    tool = "pipx inject ema-smooth" if "pipx" in sys.prefix else "pip install"
    return f"{tool} {' '.join(map(shlex.quote, wanted))}"
