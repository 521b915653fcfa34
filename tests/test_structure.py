"""The house rules that a machine can hold: imports point one way, rooms stay small, starting up is cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import ROOT, SAMPLES, Workshop

FILES = sorted((ROOT / "ema_cli").rglob("*.py"))
# From the ground up: a module may import from its own floor and those below.
FLOORS = [
    ["errors", "process"],
    ["decay", "files", "like"],
    ["average", "tensors", "schedule", "interrupts"],
    ["engine", "batch", "job"],
    ["trends", "keys", "times", "auto", "options"],
    ["formats", "tables", "chunks"],
    ["smoother", "arrays", "selection", "checkpoints", "parted"],
    ["parameter_state", "weights_plan"],
    ["parameters", "weights"],
    ["memory", "describe", "overlap", "watcher"],
    ["progress"],
    ["extras"],
    ["pipeline"],
    ["outcome", "chain"],
    ["workers"],
    ["folder", "watching"],
    ["extras.dask", "extras.dask_graph", "extras.dask_chain", "extras.dask_frames", "extras.remote"],
    ["dask"],
    ["completion", "console", "help_groups"],
    ["cli", "weights_cli"],
    ["__init__", "__main__"],
]


LEVELS = {name: level for level, names in enumerate(FLOORS) for name in names}


def level(parts: Sequence[str]) -> int:
    """The floor of a module: its own, or that of the room it is in."""
    return LEVELS.get(".".join(parts[:2]), LEVELS.get(parts[0], -1))


def imports(path: Path) -> set[tuple[str, ...]]:
    """The modules of this package that a file imports, by their names without `ema_cli`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ema_cli."):
            found.add(tuple(node.module.split(".")[1:]))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    own = path.relative_to(ROOT / "ema_cli").with_suffix("").parts
    assert level(own) >= 0, f"{own}: give it a floor"
    assert not {other for other in imports(path) if level(other) > level(own)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_rooms_stay_small(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 300, "split it"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 40 or node.name == "command", node.name


def test_only_the_command_line_knows_click() -> None:
    users = {path.stem for path in FILES if "import click" in path.read_text()}
    assert users <= {"cli", "weights_cli", "help_groups", "console", "completion"}


def loaded_by(code: str) -> set[str]:
    """The modules that are loaded after `code` has run in a fresh interpreter."""
    code += "\nimport sys; sys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return set(done.stderr.split())


def test_help_loads_nothing_heavy() -> None:
    code = "from ema_cli.cli import command\ntry: command.main(['--help'])\nexcept SystemExit: pass"
    assert not loaded_by(code) & {"numpy", "pandas", "pyarrow", "asyncio"}


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not loaded_by("import ema_cli") & {"numpy", "pandas", "pyarrow", "click"}


def test_csv_to_csv_loads_no_pandas_and_no_parquet(shop: Workshop) -> None:
    out = shop.folder / "out.csv"
    code = (
        "from ema_cli.process import settle; settle()\n"
        "from ema_cli.cli import command\n"
        f"arguments = [{str(SAMPLES / 'co2.csv')!r}, '--alpha', '0.1', '-o', {str(out)!r}]\n"
        "command.main(arguments, standalone_mode=False)"
    )
    assert not loaded_by(code) & {"pandas", "pyarrow.parquet", "matplotlib"}
    assert out.exists()
