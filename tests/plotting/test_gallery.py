"""The gallery and the pages made from the help: every command runs, and what is committed is current."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import ROOT


def _build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build = _build()
PICTURES = ROOT / "docs" / "pictures"
LARGEST = 150_000  # bytes of a committed picture


def png_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack(">II", data[16:24])
    return width, height


@pytest.mark.parametrize("command", build.gallery_commands())
def test_every_command_draws(command: str, tmp_path: Path) -> None:
    if "--plot -" not in command and ".html" not in command:
        pytest.importorskip("matplotlib")
    said = build.run(command, tmp_path, build.prepare(tmp_path))
    written = [*tmp_path.glob("trend.csv"), *tmp_path.glob("smooth/*.csv")]
    assert len(written) == (3 if "--output-dir" in command else 1)
    assert min(path.stat().st_size for path in written) > 10_000
    if "--plot -" in command:
        assert f"```text\n{said}```" in build.GALLERY.read_text()
        return
    assert said == ("ema-smooth: smooth: 3 of 3 files written, 6,000 rows\n" if len(written) > 1 else "")
    (picture,) = [path for path in tmp_path.iterdir() if path.suffix in (".png", ".svg", ".html")]
    if picture.suffix == ".html":
        assert 80_000 < picture.stat().st_size < 1_000_000
        return
    made, committed = picture.read_bytes(), (PICTURES / picture.name).read_bytes()
    # Other versions of the libraries set other pixels, but neither the kind nor the layout is theirs.
    assert made[:5] == committed[:5]
    assert 0.8 < len(made) / len(committed) < 1.25
    if picture.suffix == ".png":
        assert png_size(made) == png_size(committed)


def test_every_picture_is_small_and_shown() -> None:
    text = build.GALLERY.read_text()
    pictures = sorted(PICTURES.iterdir())
    assert len(pictures) >= 6
    for picture in pictures:
        assert picture.stat().st_size < LARGEST, picture.name
        assert f"(pictures/{picture.name})" in text


@pytest.mark.parametrize("path", build.texts(), ids=lambda path: path.name)
def test_what_is_made_from_the_help_is_current(path: Path) -> None:
    assert path.read_text() == build.texts()[path], "run: python docs/build.py"
