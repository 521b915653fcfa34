"""Optional packages: what to type where one is missing, by the packages' own names on the index."""

from __future__ import annotations

import re
import shlex
import sys

# What each extra of pyproject.toml is for here; the tests hold it to that file.
EXTRAS = {
    "weights": ("ml_dtypes>=0.4",),
    "plot": ("matplotlib>=3.9",),
    "dask": ("dask[dataframe]>=2025.7", "distributed>=2025.7", "fsspec>=2024.6"),
}


def install_hint(extra: str, package: str | None = None) -> str:
    """The command that installs an extra's packages, or the one that is meant, where this program runs."""
    wanted = [text for text in EXTRAS[extra] if package is None or re.match(rf"{package}\b", text)]
    tool = "pipx inject ema-smooth" if "pipx" in sys.prefix else "pip install"
    return f"{tool} {' '.join(map(shlex.quote, wanted))}"
