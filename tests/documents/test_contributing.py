"""CONTRIBUTING.md and its like name files, functions and make targets that there are."""

from __future__ import annotations

import itertools
import re
import tomllib
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from tests.conftest import ROOT

PAGES = ["CONTRIBUTING.md", "RELEASING.md", "SECURITY.md", "README.md"]
TARGETS = set(re.findall(r"^([a-z-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))
PATH = re.compile(r"`((?:[\w.-]+/)*[\w.-]+\.(?:py|md|txt|toml|cff)|(?:[\w-]+/)+)`")
FOLDERS = (ROOT, ROOT / "ema_cli", ROOT / "tests", ROOT / "docs", ROOT / "ema_cli" / "run")


def exists(name: str) -> bool:
    return "NAME" in name or any((folder / name).exists() for folder in FOLDERS)


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_are_there(page: str) -> None:
    for name in PATH.findall((ROOT / page).read_text()):
        if page == "README.md" and not name.startswith(("docs/", "tests/", "examples/")):
            continue  # README's files are those of its examples
        assert exists(name), f"{page}: {name}"


WORKFLOWS = [".github/workflows/test.yml", ".github/workflows/release.yml"]


@pytest.mark.parametrize("page", [*PAGES, "docs/reliability.md", *WORKFLOWS, ".ci/run"])
def test_make_targets_that_are_named_are_there(page: str) -> None:
    path = ROOT / page
    if not path.exists():
        pytest.skip("not in an sdist")
    text = path.read_text()
    begin = r"^\s+" if page.endswith(".md") else r"^\s*"  # prose has a line that begins with the word
    calls = re.findall(rf"(?:{begin}|`|run: )make ((?:[a-z][a-z-]* ?)+)", text, re.MULTILINE)
    matrix = re.findall(r"\btarget: \[([a-z, -]+)\]", text)  # where a workflow calls ${{ matrix.target }}
    for words in (*calls, *(targets.replace(",", " ") for targets in matrix)):
        assert set(words.split()) <= TARGETS | {"sets"}, f"{page}: make {words}"


def test_names_in_code_that_are_named_are_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    sources = "".join(
        path.read_text() for path in (*(ROOT / "ema_cli").rglob("*.py"), *(ROOT / "tests").rglob("*.py"))
    )
    for name in re.findall(r"`(_?[A-Za-z_]+[A-Za-z])(?:\([^`]*\))?`", text):
        if "_" in name or name[0].isupper():
            assert re.search(rf"\b{name}\b", sources), name


def test_every_test_that_a_promise_names_is_there() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text()
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    for name in set(re.findall(r"\b(test_\w+)`", text)):
        assert f"def {name}(" in sources or any((ROOT / "tests").rglob(f"{name}.py")), name


def test_lowest_versions_are_those_that_are_declared() -> None:
    """`>=19.0.1` is tested with 19.0.1: each bound of pyproject.toml stands in constraints-lowest.txt."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lines = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    extras = project["project"]["optional-dependencies"]
    for wanted in [*project["project"]["dependencies"], *itertools.chain(*extras.values())]:
        name, bound = re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", wanted).groups()  # type: ignore[union-attr]
        assert re.sub(r"(\.0)+$", "", pinned[name]) == re.sub(r"(\.0)+$", "", bound), wanted


def test_what_is_pinned_runs_on_every_python_that_is_declared() -> None:
    """Debian 12 has 3.11.2, and a package that asks for 3.11.5 keeps `make test` from beginning there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lowest = project["requires-python"].removeprefix(">=") + ".0"
    pinned = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    looked_at = 0
    for name, version in pinned:
        with suppress(PackageNotFoundError):
            found = metadata(name)
            if found["Version"] == version:
                assert SpecifierSet(found.get("Requires-Python", "")).contains(lowest), f"{name}=={version}"
                looked_at += 1
    if looked_at < len(pinned) / 2:
        pytest.skip("an environment of other versions")


def test_the_version_is_the_same_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in Path(ROOT / "CITATION.cff").read_text()
