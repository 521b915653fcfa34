"""From an exception to a message and an exit code: the one place where a command ends."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import click

from ema_cli.errors import EmaError


def run_command(command: click.Command, name: str, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a click command and leave the process with its exit code; never a traceback.

    0: done. 1: trouble with data or files. 2: usage. 130: Ctrl-C. SIGPIPE where the reader has gone.
    """
    signal.signal(signal.SIGTERM, _terminated)
    if f"_{name.upper().replace('-', '_')}_COMPLETE" in os.environ:
        command.main(prog_name=name)
    code = 1
    try:
        code = _invoke(command, name, list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        _die_by(signal.SIGPIPE)
    leave(code)


def _invoke(command: click.Command, name: str, arguments: list[str]) -> int:
    try:
        with command.make_context(name, arguments) as context:
            command.invoke(context)
        return 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.UsageError as error:
        say(name, error.format_message().rstrip("."), f"{name} --help")
        return 2
    except EmaError as error:
        say(name, error.problem, error.hint)
        return error.exit_code
    except (BrokenPipeError, KeyboardInterrupt):
        raise
    except MemoryError:
        say(name, "not enough memory")
    except Exception as error:
        if os.environ.get("EMA_TRACEBACK"):
            raise
        say(
            name,
            f"internal error, {type(error).__name__}: {error}",
            "EMA_TRACEBACK=1 shows where; please report it",
        )
    return 1


def say(name: str, problem: str, hint: str = "") -> None:
    """A message on stderr: what is wrong and what to try."""
    text = f"{name}: {problem}\n" + (f"  try: {hint}\n" if hint else "")
    sys.stderr.write(text.encode("utf-8", "replace").decode("utf-8"))


def leave(code: int) -> NoReturn:
    """Flush and be gone at once: Arrow sometimes aborts while Python takes itself down."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = code or 1
    os._exit(code)


def _terminated(number: int, _frame: FrameType | None) -> NoReturn:
    """SIGTERM: leave nothing lying about, then die by it."""
    from ema_cli.files import remove_temporaries

    remove_temporaries()
    _die_by(number)


def _die_by(number: int) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)
