"""Temporary files: their names, and the list of those that a killed run would leave behind."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

_MOST_FILES = 8192  # that Windows lets a program have open
# What to do if the process is interrupted: files to remove, and functions to call.
_files: set[str] = set()
_actions: list[Callable[[], None]] = []


def temporary_path(path: Path) -> Path:
    """A new hidden name beside `path`, for a file that will be renamed to `path`."""
    return path.with_name(_temporary_name(path.name, os.urandom(4).hex()))


def _temporary_name(name: str, token: str) -> str:
    return f".{name[:40]}.{token}.part"


@contextlib.contextmanager
def removed_afterwards(path: Path) -> Iterator[None]:
    """Remove `path` however the block ends, by SIGTERM and Ctrl-C too.

    The block makes the file; it is noted before, so that it can't be left behind.
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
    """While the block runs, an interrupt also calls `action`."""
    _actions.append(action)
    try:
        yield
    finally:
        _actions.remove(action)


def clean_up() -> None:
    """Call the noted functions and remove the noted files, just before the process ends."""
    for action in list(_actions):
        action()
    if _remove(_files):
        # Windows removes no open file, so close them all: the process ends anyway.
        os.closerange(3, _MOST_FILES)
        _remove(_files)


def _remove(paths: Iterable[str]) -> list[str]:
    """Remove files, and return those that can't be removed."""
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
    """Remove the temporary files that processes left when they were killed while writing `names`."""
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
