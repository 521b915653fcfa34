"""Ctrl-C, SIGTERM and SIGHUP: leave nothing lying about and be gone, from wherever the program is."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from ema_cli.io.atomic import remove_leftovers

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Seconds that the main thread waits for another at most before it looks about. A signal that comes just
# before it begins to wait does not wake it, and only the main thread minds signals.
PROMPT = 0.5


def mind_interrupts() -> None:
    """From now on these signals end the process after it has removed its temporary files.

    What `nohup` or a shell's `&` has had ignored stays so.
    """
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupted)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """No such signal while the block runs, nor in a process that is forked in it until `let_interrupts`."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def let_interrupts() -> None:
    """End what `uninterrupted` began, in a process that was forked in it."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def die_by(number: int) -> NoReturn:
    """End as if nobody had minded the signal, so that whoever waits sees what it was."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)


def _interrupted(number: int, _frame: FrameType | None) -> NoReturn:
    # Unwinding would wait for threads that may wait for ever, and a second Ctrl-C would interrupt it.
    signal.signal(number, signal.SIG_IGN)
    remove_leftovers()
    if number == signal.SIGINT:
        os._exit(130)
    die_by(number)
