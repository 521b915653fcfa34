"""What a shell may complete: the columns of the file that is named on the line, and file names."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

SHELL = "_EMA_SMOOTH_COMPLETE"  # click says in it which shell asks


def complete_columns(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The columns of the first input on the line that begin with what has been typed."""
    if incomplete in _inputs({}) and Path(incomplete).is_file():
        incomplete = ""  # click loses an empty word under the cursor, and takes the next one for it
    names = [name for name in columns_of_line(context.params) if name.startswith(incomplete)]
    # What bash is given it puts on the line as it is; other shells quote it themselves.
    in_bash = os.environ.get(SHELL, "").startswith("bash")
    return [CompletionItem(_escaped(name) if in_bash else name) for name in names]


def complete_files(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """File names, which the shell itself knows best."""
    return [CompletionItem(incomplete, type="file")]


def columns_of_line(options: dict[str, Any]) -> list[str]:
    """The columns of the first input that is a file. No names rather than an error, whatever is wrong."""
    try:
        name = next(name for name in _inputs(options) if Path(name).is_file())
        return [column for column in _columns(name, options) if column.isprintable() and column]
    except Exception:  # a half-typed line and a foreign file are no reason to fill the screen
        return []


def _inputs(options: dict[str, Any]) -> list[str]:
    """The inputs on the line: those before the cursor, then any word that might be one after it."""
    return [*(options.get("input") or ()), *os.environ.get("COMP_WORDS", "").split()[1:]]


def _columns(name: str, options: dict[str, Any]) -> list[str]:
    from ema_cli.average import make_average
    from ema_cli.formats.registry import open_source
    from ema_cli.job import Job, read_delimiter

    job = Job(
        make_average({"alpha": "0.5"}, timed=False),  # any: nothing is averaged
        source=options.get("source"),
        delimiter=read_delimiter(options.get("delimiter")),
        header=not options.get("no_header"),
        decimal_comma=options.get("decimal") == ",",
        skip_lines=options.get("skip_lines") or 0,
        comments=options.get("comment") or (),
    )
    source = open_source(job, name)
    try:
        return list(source.columns)
    finally:
        source.close()


def _escaped(name: str) -> str:
    """A name as it stands on bash's line; twice, for click's script has bash read it as if it were typed."""
    for _ in range(2):
        name = re.sub(r"([^\w%+,./:=@^~-])", r"\\\1", name)
    return name
