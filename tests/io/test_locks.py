"""Locks: one holder, no link followed, nothing left, with flock, with msvcrt and with neither."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ema_cli.errors import StateError
from ema_cli.io.locks import locked
from tests.conftest import Workshop

fcntl = pytest.importorskip("fcntl")


def windows_locks() -> SimpleNamespace:
    """`msvcrt` as far as it is used, on top of flock."""

    def locking(file: int, mode: int, size: int) -> None:
        assert (mode, size) == (2, 1)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PermissionError(13, "Permission denied") from None

    return SimpleNamespace(locking=locking, LK_NBLCK=2)


@pytest.fixture(params=["flock", "msvcrt", "neither"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param != "flock":
        monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", windows_locks() if request.param == "msvcrt" else None)
    return str(request.param)


def test_one_at_a_time(system: str, tmp_path: Path) -> None:
    lock = tmp_path / "s.lock"
    for _ in range(2):
        with locked(lock, "s"):
            assert lock.exists()
            if system != "neither":
                with pytest.raises(StateError, match="s: in use by another run"), locked(lock, "s"):
                    pytest.fail("both hold it")
                assert lock.exists()
        assert not lock.exists()


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "s.lock").symlink_to(tmp_path / "elsewhere")
    with (
        pytest.raises(StateError, match="a link stands where the lock belongs"),
        locked(tmp_path / "s.lock", "s"),
    ):
        pytest.fail("taken")
    assert [path.name for path in tmp_path.iterdir()] == ["s.lock"]


def test_the_command_follows_no_planted_link(shop: Workshop) -> None:
    (shop.folder / "s.lock").symlink_to(shop.folder / "elsewhere")
    assert "a link" in shop.run("--alpha", "0.1", "--state", "s", stdin=b"v\n1\n", code=1).err
    assert shop.names() == ["s.lock"]
