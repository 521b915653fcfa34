"""From an exception to a message and an exit code: the one place where a command ends."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import NoReturn

import click

from ema_cli.errors import EmaError
from ema_cli.io.signals import die_of_closed_pipe, handle_interrupts
from ema_cli.safe_text import SPELLED, safe_text


def run_command(command: click.Command, name: str, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a click command and leave the process with its exit code; never a traceback.

    0: done. 1: trouble with data or files. 2: usage. 130: Ctrl-C. SIGPIPE where the reader has gone.
    """
    handle_interrupts()
    prepare_streams()
    if f"_{name.upper().replace('-', '_')}_COMPLETE" in os.environ:
        _complete(command, name)
    code = 1
    try:
        code = _invoke(command, name, list(sys.argv[1:] if arguments is None else arguments))
    except BrokenPipeError:
        die_of_closed_pipe()
    leave(code)


def _complete(command: click.Command, name: str) -> NoReturn:
    """Answer a shell that asks for completions."""
    try:
        command.main(prog_name=name)
    except SystemExit as done:
        leave(done.code if isinstance(done.code, int) else 0)
    leave(0)


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
    except BrokenPipeError:
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
    """Print a message on stderr: what is wrong and what to try. A closed stderr is no error."""
    text = safe_text(f"{name}: {problem}") + "\n" + (f"  try: {safe_text(hint)}\n" if hint else "")
    with contextlib.suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()


def prepare_streams() -> None:
    """Replace closed standard streams, and make them write any character, in ASCII if they have to.

    Otherwise the next file that is opened would get a closed stream's number, and messages with it. The
    replacement of stdin can't be read, and that of stdout can't be written, so using them is still an error.
    """
    for number, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # gets the lowest free number, which is this one
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        # A message must not fail because of an encoding such as a Windows code page.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=SPELLED)


def leave(code: int) -> NoReturn:
    """Flush and end the process at once: Arrow sometimes aborts while Python shuts down."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = code or 1
    os._exit(code)
