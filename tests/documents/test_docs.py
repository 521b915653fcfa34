"""What the documents show is true: every `console` block is run, and prints what stands below it.

A block is a session of a shell in a folder that holds `sample_data/`. Lines that start with `$ ` are
commands (continued with a backslash), the others are what they print, stderr included. A line `...` stands
for any number of lines. Blocks of one document run one after another in the same folder.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import FORKS, ROOT, SAMPLES

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
SNIPPET = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
TORCH_SNIPPET = re.compile(r"^ *import torch$", re.MULTILINE)


def with_text(pattern: re.Pattern[str]) -> list[Path]:
    return [path for path in DOCUMENTS if pattern.search(path.read_text())]


def steps(session: str) -> list[tuple[str, str]]:
    """The commands of a session, each with what it prints."""
    parts = re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]
    out = []
    for part in parts:
        command = re.match(r"(?:.*\\\n)*.*\n", part)
        assert command is not None
        out.append((command.group(), part[command.end() :]))
    return out


TOOLS = ("unzip", "jq")  # of sessions, beside what every system has


def matches(expected: str, found: str) -> bool:
    pattern = "".join(
        r"(?:.*\n)*?" if line == "...\n" else re.escape(line) for line in expected.splitlines(True)
    )
    return re.fullmatch(pattern, found) is not None


def shell(folder: Path) -> dict[str, str]:
    """The environment of a session: the commands of this checkout come first on the path."""
    for name, module in (("ema-smooth", "ema_cli"), ("ema-weights", "ema_cli.weights_cli")):
        script = folder / "bin" / name
        script.parent.mkdir(exist_ok=True)
        if FORKS is not None:
            FORKS().script(script, name)
            continue
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    path = f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "LC_ALL": "C.UTF-8"}


@pytest.mark.parametrize("document", with_text(BLOCK), ids=lambda path: path.name)
def test_sessions(document: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    shutil.copytree(SAMPLES, work / "sample_data")
    environment = shell(tmp_path)
    left_out = set()
    for session in BLOCK.findall(document.read_text()):
        for command, expected in steps(session):
            if missing := [tool for tool in TOOLS if f"{tool} " in command and not shutil.which(tool)]:
                left_out.update(missing)
                continue
            done = subprocess.run(
                ["bash", "-c", command],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=work,
                env=environment,
                timeout=120,
                check=False,
            )
            found = done.stdout.decode()
            assert matches(expected, found), f"$ {command}{found}"
    if left_out:
        pytest.skip(f"all is as it says, but what needs {', '.join(sorted(left_out))}, which is not here")


def run_snippets(document: Path, folder: Path, left_out: str | None = None) -> None:
    """Run the Python snippets of a document one after another, but for those with some text."""
    shutil.copytree(SAMPLES, folder / "sample_data")
    names: dict[str, object] = {}
    for snippet in SNIPPET.findall(document.read_text()):
        if left_out is None or left_out not in snippet:
            exec(compile(snippet, document.name, "exec"), names)


@pytest.mark.parametrize("document", with_text(SNIPPET), ids=lambda path: path.name)
def test_python(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_snippets(document, tmp_path, left_out="import torch")  # which is no dependency


@pytest.mark.torch
@pytest.mark.parametrize("document", with_text(TORCH_SNIPPET), ids=lambda path: path.name)
def test_python_with_torch(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_snippets(document, tmp_path)


def test_links_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_reference_is_the_help(tmp_path: Path) -> None:
    reference = (ROOT / "docs" / "reference.md").read_text()
    for name in ("ema-smooth", "ema-weights"):
        done = subprocess.run(
            [name, "--help"],
            env=shell(tmp_path) | {"COLUMNS": "100"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"```text\n{done.stdout}```" in reference, f"run `make docs`: {name}"
