"""Ctrl-C, SIGTERM and SIGHUP: leave no temporary files behind and end at once, wherever the program is."""

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
# Seconds that the main thread waits for another at most before it looks about. A signal that comes just
# before it begins to wait does not wake it, and only the main thread handles signals.
PROMPT = 0.5

_CAN_BLOCK = hasattr(signal, "pthread_sigmask")
# Where signals can't be blocked they are put off: how many blocks ask for that, and what came meanwhile.
_blocks = 0
_came: list[int] = []


def handle_interrupts() -> None:
    """From now on these signals end the process after it has removed its temporary files.

    What `nohup` or a shell's `&` has had ignored stays so.
    """
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupted)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """No such signal while the block runs, nor in a process forked in it until `unblock_interrupts`."""
    global _blocks  # noqa: PLW0603 - of the process, as signals are
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
    """End what `uninterrupted` began, in a process that was forked in it."""
    if _CAN_BLOCK:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def die_by(number: int) -> NoReturn:
    """End as if nobody had handled the signal, so that whoever waits sees what it was."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)


def die_of_closed_pipe() -> NoReturn:
    """End as `cat` does when nobody reads its output any more: by SIGPIPE, or with 1 where there is none."""
    clean_up()
    if hasattr(signal, "SIGPIPE"):
        die_by(signal.SIGPIPE)
    os._exit(1)


def _interrupted(number: int, _frame: FrameType | None) -> None:
    if _blocks:
        _came.append(number)
        return
    # Unwinding would wait for threads that may wait for ever, and a second Ctrl-C would interrupt it.
    signal.signal(number, signal.SIG_IGN)
    clean_up()
    if number == signal.SIGINT:
        os._exit(130)
    die_by(number)
