"""House rules that a machine can hold: one way for imports, functions of a screen, a cheap start."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from ema_cli.formats.registry import FORMATS
from tests.conftest import ROOT, SAMPLES, Workshop

FILES = sorted((ROOT / "ema_cli").rglob("*.py"))
# From the lowest layer up: a module or package may import from its own layer and those below.
LAYERS = [
    ["errors", "choices", "process", "help_groups", "state_options", "safe_text", "extras"],
    ["io", "decay", "like", "notation"],
    ["average"],
    ["job", "engine"],
    ["formats", "times", "keys", "trends", "centered", "auto"],
    ["api", "run", "parameters"],
    ["plotting", "cluster", "integrations"],
    ["observing", "completion", "manual", "console", "dask"],
    ["cli", "weights_cli"],
    ["__init__", "__main__"],
]


LAYER_OF = {name: layer for layer, names in enumerate(LAYERS) for name in names}


def module_of(path: Path) -> str:
    """A file's name as a module, without `ema_cli`; a package's `__init__` is the package."""
    return ".".join(path.relative_to(ROOT / "ema_cli").with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path) for path in FILES}


def imports(path: Path) -> set[str]:
    """The modules of this package that a file imports, anywhere in it, without `ema_cli`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ema_cli"):
            parent = node.module.removeprefix("ema_cli").removeprefix(".")
            names = {f"{parent}.{alias.name}".removeprefix(".") for alias in node.names}
            # `from package import module` is an import of the module, `from module import name` of that one.
            found |= {name if name in MODULES else parent for name in names} - {""}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    own = module_of(path).split(".")[0]
    assert own in LAYER_OF, f"{own}: give it a layer"
    assert not {other for other in imports(path) if LAYER_OF[other.split(".")[0]] > LAYER_OF[own]}


def test_no_circles_within_a_layer() -> None:
    graph = {module_of(path): imports(path) for path in FILES}
    TopologicalSorter(graph).prepare()  # raises CycleError


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_fit_on_a_screen(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            # What it says of itself does not count: what is public says it in NumPy's layout.
            said = len((ast.get_docstring(node) or "").splitlines())
            assert (node.end_lineno or 0) - node.lineno - said < 40 or node.name == "command", node.name


def package_of(module: str) -> str:
    """The package of a format; for a format in one file, that file."""
    return ".".join(module.split(".")[:2])


FORMAT_PACKAGES = {f"formats.{each.module}" for each in FORMATS.values()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nobody_asks_which_format_it_is(path: Path) -> None:
    """Sources, sinks and bodies of a format are named in its package alone; all others ask the protocol."""
    own, tree = package_of(module_of(path)), ast.parse(path.read_text())
    kinds = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ema_cli.formats"):
            package = package_of(node.module.removeprefix("ema_cli."))
            names = {alias.name for alias in node.names if alias.name[:1].isupper()}
            if package in FORMAT_PACKAGES and package != own:
                assert not {name for name in names if name.endswith(("Source", "Sink", "Body"))}
            if package != own:
                kinds |= names
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > 1:
            asked = {name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name)}
            assert node.func.id not in ("isinstance", "issubclass") or not asked & kinds
            if node.func.id in ("getattr", "hasattr"):
                of_whom = ast.unparse(node.args[0]).split(".")[-1]
                assert of_whom not in ("source", "sink", "body", "part", "first", "batch", "splicer")


def test_only_the_command_line_knows_click() -> None:
    users = {path.stem for path in FILES if "import click" in path.read_text()}
    assert users <= {"cli", "weights_cli", "help_groups", "console", "completion", "manual"}


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
        "from ema_cli.process import set_process_defaults; set_process_defaults()\n"
        "from ema_cli.cli import command\n"
        f"arguments = [{str(SAMPLES / 'co2.csv')!r}, '--alpha', '0.1', '-o', {str(out)!r}]\n"
        "command.main(arguments, standalone_mode=False)"
    )
    assert not loaded_by(code) & {"pandas", "pyarrow.compute", "pyarrow.parquet", "matplotlib"}
    assert out.exists()


def test_nothing_heavy_is_loaded_before_the_process_has_its_settings(tmp_path: Path) -> None:
    """Else NumPy has started the threads that are in the way of a fork, and Arrow asks for pandas."""
    code = """
import os, sys
from ema_cli import process
defaults = process.set_process_defaults
def set_process_defaults():
    print(sorted({"numpy", "pyarrow"} & sys.modules.keys()), file=sys.stderr)
    defaults()
process.set_process_defaults = set_process_defaults
from ema_cli.cli import main
from ema_cli import console
console.leave = lambda code: (print(process.may_fork(), file=sys.stderr), os._exit(code))
main()
"""
    options = ["-c", "co2", "--alpha", "0.1", "-o", str(tmp_path / "out.csv")]
    command = [sys.executable, "-c", code, str(SAMPLES / "co2.csv"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stderr.splitlines()[0] == "[]"
    if sys.platform == "linux":
        assert done.stderr.splitlines()[-1] == "True"
