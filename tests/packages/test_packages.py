"""The packages: what is in them, what they say of themselves, and that they run where nothing else is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.conftest import ROOT, SAMPLES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
pytest.importorskip("hatchling", reason="builds the packages")
from packaging.metadata import Metadata  # noqa: E402 - comes with it

REPOSITORY = "https://github.com/ema-smooth/ema-smooth"
# Where this is no checkout, as in an unpacked sdist, there is nothing to compare the sdist with.
IN_GIT = (ROOT / ".git").exists() and shutil.which("git") is not None


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, and the wheel built from what is in the sdist, as an installer does it."""
    folder = tmp_path_factory.mktemp("dist")
    hatch = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run([*hatch, "-t", "sdist"], cwd=ROOT, check=True, capture_output=True)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # which came with Python 3.11.4
        archive.extractall(folder)
    unpacked = folder / sdist.name.removesuffix(".tar.gz")
    subprocess.run([*hatch, "-t", "wheel"], cwd=unpacked, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


def tracked(*folders: str) -> set[str]:
    listed = subprocess.run(
        ["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}


@pytest.mark.skipif(not IN_GIT, reason="no checkout")
def test_the_sdist_has_all_that_git_has(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as archive:
        found = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {name for name in tracked() if not name.startswith((".github/", ".ci/"))}
    assert wanted <= found
    assert found - wanted <= {"PKG-INFO", *found & ls_untracked()}


def ls_untracked() -> set[str]:
    """Files that are new in the checkout, and not ignored."""
    command = ["git", "ls-files", "--others", "--exclude-standard"]
    return set(
        subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    )


def test_the_wheel_has_the_package_and_nothing_else(built: tuple[Path, Path]) -> None:
    names = zipfile.ZipFile(built[1]).namelist()
    assert {name.split("/")[0] for name in names} == {
        "ema_cli",
        f"ema_smooth-{version('ema-smooth')}.dist-info",
    }
    assert {"ema_cli/py.typed", "ema_cli/io/locks.py"} <= set(names)
    here = {
        str(path.relative_to(ROOT).as_posix())
        for path in (ROOT / "ema_cli").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert here == {name for name in names if name.startswith("ema_cli/")}


def test_the_metadata_is_sound_and_its_links_lead_somewhere(built: tuple[Path, Path]) -> None:
    archive = zipfile.ZipFile(built[1])
    (name,) = (name for name in archive.namelist() if name.endswith("dist-info/METADATA"))
    data = Metadata.from_email(archive.read(name), validate=True)
    assert data.license_expression == "MIT"
    assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
    assert "Typing :: Typed" in (data.classifiers or [])
    assert str(data.requires_python) == ">=3.11"
    assert data.description_content_type == "text/markdown"
    targets = re.findall(r"\]\(([^)]+)\)", data.description or "")
    assert targets
    for target in targets:
        assert target.startswith(("https://", "#")), target
        if IN_GIT and (path := re.match(rf"{REPOSITORY}/blob/v[^/]+/([^#]+)", target)):
            assert (ROOT / path[1]).exists(), target
    entry = archive.read(name.replace("METADATA", "entry_points.txt")).decode()
    assert "ema-smooth = " in entry
    assert "ema-weights = " in entry


def test_the_unpacked_sdist_passes_its_tests(built: tuple[Path, Path]) -> None:
    unpacked = built[0].parent / built[0].name.removesuffix(".tar.gz")
    tests = [
        "tests/golden",
        "tests/test_structure.py",
        "tests/documents/test_samples.py",
        "tests/test_state_options.py",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=unpacked, env=os.environ | {"PYTHONPATH": str(unpacked)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]


def test_installed_where_nothing_else_is(built: tuple[Path, Path], tmp_path: Path) -> None:
    """With its own dependencies from the index, at the versions that the tests run with."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    bin_ = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    install = [bin_ / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    done = subprocess.run(
        [*install, "--constraint", ROOT / "constraints.txt", built[1]],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode and "No matching distribution" in done.stderr + done.stdout:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr

    def run(*command: str | Path) -> str:
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        ).stdout

    out = run(bin_ / "ema-smooth", SAMPLES / "co2.csv", "--alpha", "0.1")
    assert out.splitlines()[2] == "1958-04-05,317.3,316.22"
    assert run(bin_ / "ema-smooth", "--version").strip() == f"ema-smooth, version {version('ema-smooth')}"
    assert run(bin_ / "ema-smooth", "--man").startswith('.TH "EMA-SMOOTH"')
    assert "complete -o nosort" in run(bin_ / "ema-weights", "--completion", "bash")
    code = (
        "from ema_cli import smooth; import ema_cli; print(smooth([1.0, 3.0], alpha=0.5), ema_cli.__file__)"
    )
    assert run(bin_ / "python", "-c", code).startswith("[1. 2.] " + str(tmp_path))
    assert "site-packages" in run(bin_ / "python", "-c", code)
