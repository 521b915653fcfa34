"""New files are no more readable than what they are made of, and never written through a planted link."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ema_cli.io import atomic
from ema_cli.io.atomic import atomic_write, shared_mode
from tests.conftest import SAMPLES, Workshop


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    ("modes", "made"),
    [
        ([], 0o666),
        ([0o644], 0o666),
        ([0o600], 0o600),
        ([0o640], 0o660),
        ([0o644, 0o600], 0o600),
        ([0o604, 0o640], 0o600),
        ([0o400], 0o600),
    ],
    ids=str,
)
def test_the_mode_of_what_is_made(tmp_path: Path, modes: list[int], made: int) -> None:
    names = [str(tmp_path / str(k)) for k in range(len(modes))]
    for name, mode in zip(names, modes, strict=True):
        Path(name).write_text("")
        Path(name).chmod(mode)
    assert shared_mode([*names, "missing", "s3://bucket/x"]) == made


@pytest.fixture
def wide_open() -> object:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("wide_open")
def test_new_files_get_it_less_the_umask(tmp_path: Path) -> None:
    for mode, umask, found in ((0o666, 0o022, 0o644), (0o600, 0o022, 0o600), (0o660, 0o002, 0o660)):
        os.umask(umask)
        with atomic_write(tmp_path / "new", mode) as out:
            out.write(b"x")
        assert mode_of(tmp_path / "new") == found
        (tmp_path / "new").unlink()


def test_all_that_a_private_input_makes_is_private(shop: Workshop) -> None:
    path = shop.write("in.csv", "v\n1\n2\n")
    path.chmod(0o600)
    shop.run("in.csv", "--alpha", "0.1", "-o", "o.csv", "--state", "s", "--plot", "p.html")
    assert {name: mode_of(shop.folder / name) for name in ("o.csv", "s", "p.html")} == dict.fromkeys(
        ("o.csv", "s", "p.html"), 0o600
    )
    (shop.folder / "o.csv").chmod(0o644)  # somebody has said so
    shop.run("in.csv", "--alpha", "0.1", "-o", "o.csv")
    assert mode_of(shop.folder / "o.csv") == 0o644
    shop.run("in.csv", "--alpha", "0.1", "--output-dir", "out")
    assert mode_of(shop.folder / "out" / "in.csv") == 0o600


def test_a_folder_of_outputs_holds_no_way_out(shop: Workshop) -> None:
    shop.write("in.csv", "v\n1\n")
    shop.write("elsewhere", "precious")
    (shop.folder / "out").mkdir()
    (shop.folder / "out" / "in.csv").symlink_to("../elsewhere")
    error = shop.run("in.csv", "--alpha", "0.1", "--output-dir", "out", code=2).err
    assert "out/in.csv is a link that leads elsewhere" in error
    assert shop.read("elsewhere") == b"precious"


def test_the_example_makefile_and_a_name_with_a_space(shop: Workshop) -> None:
    import shutil
    import subprocess

    if shutil.which("make") is None:
        pytest.skip("no make here")
    from tests.conftest import ROOT

    for name in ("raw/a.csv", "raw/with space.csv"):
        shop.write(name, (SAMPLES / "co2.csv").read_bytes())
    script = shop.write("smooth", '#!/bin/sh\ncp "$1" "${5:-$4}"\n')
    script.chmod(0o755)
    command = ["make", "-f", str(ROOT / "examples" / "Makefile"), f"EMA_SMOOTH={script}", "FLAGS=--span 20"]
    done = subprocess.run(command, cwd=shop.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "names with spaces are left out" in done.stderr
    assert (shop.folder / "trend" / "a.csv").exists()


def test_a_new_folder_is_on_the_disk_with_those_above_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(atomic, "sync_folder", synced.append)
    atomic.make_folder(tmp_path / "a" / "b")
    atomic.make_folder(tmp_path / "a" / "b")
    assert sorted(synced) == [tmp_path, tmp_path / "a"]
