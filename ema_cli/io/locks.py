"""Lock files: no two runs use one state at the same time. A lock ends with the process that holds it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from ema_cli.errors import StateError
from ema_cli.io.atomic import wording
from ema_cli.io.signals import uninterrupted
from ema_cli.io.temporary import removed_afterwards


class _Locking(NamedTuple):
    """lock: locks a file, or raises OSError at once. removes_open: a file that is open can be removed."""

    lock: Callable[[int], object]
    removes_open: bool


def _locking() -> _Locking:
    """This system's way to lock files; without one, nothing is locked."""
    try:
        import fcntl
    except ImportError:
        pass
    else:
        return _Locking(lambda file: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB), removes_open=True)
    try:
        import msvcrt
    except ImportError:
        return _Locking(lambda _: None, removes_open=False)
    return _Locking(lambda file: msvcrt.locking(file, msvcrt.LK_NBLCK, 1), removes_open=False)  # type: ignore[attr-defined]


@contextmanager
def locked(lock: Path, name: str) -> Iterator[None]:
    """Hold `lock`, a file that is there only while the block runs. name: what is locked, for messages.

    Raises StateError where another run holds it, FileTrouble where it can't be made. A link in its place is
    not followed.
    """
    locking = _locking()
    with ExitStack() as stack:
        # No signal between making the file and noting that it is to be removed.
        with uninterrupted():
            with wording(name):
                file = _taken(lock, name, locking)
            if locking.removes_open:  # remove it while it is locked, so that nobody locks a removed file
                stack.callback(os.close, file)
                stack.enter_context(removed_afterwards(lock))
            else:  # Windows does not remove it if another run has opened it since, which is as good
                stack.enter_context(removed_afterwards(lock))
                stack.callback(os.close, file)
        yield


def _taken(lock: Path, name: str, locking: _Locking) -> int:
    while True:
        if lock.is_symlink():
            raise StateError(f"{lock}: a link stands where the lock belongs", "remove it, if it is not yours")
        file = os.open(lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            locking.lock(file)
        except (BlockingIOError, PermissionError):
            os.close(file)
            raise StateError(
                f"{name}: in use by another run", "wait for it, or give each run a state of its own"
            ) from None
        except OSError:
            os.close(file)
            raise
        # The run before may have removed the file between our opening and locking it.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), lock.stat()):
                return file
        os.close(file)
