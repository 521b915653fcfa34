"""Ctrl-C, SIGTERM and SIGHUP: remove temporary files and end at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from ema_cli.io.temporary import clean_up

# Windows has no SIGHUP but Ctrl-Break.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
)
# The longest time in seconds that the main thread waits for another thread at once. Only the main thread
# handles signals, and one that comes just before it begins to wait does not wake it.
PROMPT = 0.5

_CAN_BLOCK = hasattr(signal, "pthread_sigmask")
# Where signals can't be blocked they are postponed: how many blocks ask for that, and the signals so far.
_blocks = 0
_came: list[int] = []


def handle_interrupts() -> None:
    """From now on these signals remove temporary files and end the process.

    Signals that `nohup` or a shell's `&` has set to be ignored stay ignored.
    """
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupted)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Postpone these signals while the block runs, and in processes forked in it until they call
    `unblock_interrupts`."""
    global _blocks  # noqa: PLW0603 - signals are the process's
    if _CAN_BLOCK:
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        return
    _blocks += 1
    try:
        yield
    finally:
        _blocks -= 1
        if _came and not _blocks:
            _interrupted(_came.pop(), None)


def unblock_interrupts() -> None:
    """Undo `uninterrupted` in a process that was forked in its block."""
    if _CAN_BLOCK:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def die_by(number: int) -> NoReturn:
    """End as if the signal had not been handled, so that the parent process sees which it was."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)


def die_of_closed_pipe() -> NoReturn:
    """End as `cat` does when its output is closed: by SIGPIPE, or with 1 where the system has none."""
    clean_up()
    if hasattr(signal, "SIGPIPE"):
        die_by(signal.SIGPIPE)
    os._exit(1)


def _interrupted(number: int, _frame: FrameType | None) -> None:
    if _blocks:
        _came.append(number)
        return
    # An exception would wait for threads that may never end, and a second Ctrl-C would interrupt that.
    signal.signal(number, signal.SIG_IGN)
    clean_up()
    if number == signal.SIGINT:
        os._exit(130)
    die_by(number)
