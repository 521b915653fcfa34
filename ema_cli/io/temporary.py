"""Temporary files: their names, and the list of those that a killed run would leave behind."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

_MOST_FILES = 8192  # that Windows lets a program have open
# The files to remove if the process is interrupted, and what else is to be done then.
_files: set[str] = set()
_actions: list[Callable[[], None]] = []


def temporary_path(path: Path) -> Path:
    """A new hidden name beside `path`, for what is to become `path` later."""
    return path.with_name(_temporary_name(path.name, os.urandom(4).hex()))


def _temporary_name(name: str, token: str) -> str:
    return f".{name[:40]}.{token}.part"


@contextlib.contextmanager
def removed_afterwards(path: Path) -> Iterator[None]:
    """Whatever ends the block, SIGTERM and Ctrl-C too, `path` is not there afterwards.

    It is noted before it is made, so that there is no moment in which it could be left behind.
    """
    _files.add(str(path))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        _files.discard(str(path))


@contextlib.contextmanager
def at_interrupt(action: Callable[[], None]) -> Iterator[None]:
    """While the block runs, an interrupt calls `action` too."""
    _actions.append(action)
    try:
        yield
    finally:
        _actions.remove(action)


def clean_up() -> None:
    """Do the noted actions and remove the noted files. Called when the process ends at once after that."""
    for action in list(_actions):
        action()
    if _remove(_files):
        # Windows removes no file that is open; nobody will write to one any more.
        os.closerange(3, _MOST_FILES)
        _remove(_files)


def _remove(paths: Iterable[str]) -> list[str]:
    """Remove files, and give those that can't be."""
    left = []
    for path in list(paths):
        try:
            Path(path).unlink(missing_ok=True)
        except OSError:
            left.append(path)
    return left


def forget_all() -> None:
    """Empty the lists: a new worker process does not remove its parent's files."""
    _files.clear()
    _actions.clear()


def remove_abandoned(names: Iterable[str]) -> None:
    """Remove the temporary files that killed processes have left of their attempts to write `names`."""
    by_folder: dict[Path, set[str]] = {}
    for name in names:
        path = Path(os.path.realpath(name))
        by_folder.setdefault(path.parent, set()).add(path.name)
    for folder, files in by_folder.items():
        begins = {_temporary_name(name, "") for name in files}
        with contextlib.suppress(OSError):
            for left in list(folder.glob(".*.part")):
                # A token has eight digits, and after it comes `.part`.
                if left.name[:-13] + ".part" in begins:
                    left.unlink(missing_ok=True)
