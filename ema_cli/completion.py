"""Shell completion: options and their values, files, and the columns of the input on the line.

Click's scripts and classes, corrected for `--option=value` and for names with commas.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click import shell_completion as shells
from click.shell_completion import CompletionItem, ShellComplete

SHELL = "_EMA_SMOOTH_COMPLETE"  # the variable in which click says which shell asks


def complete_columns(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The columns of the first input on the line that begin with what has been typed."""
    if incomplete in _inputs({}) and Path(incomplete).is_file():
        incomplete = ""  # if the word under the cursor is empty, click gives the next one instead
    names = [name for name in columns_of_line(context.params) if name.startswith(incomplete)]
    # Bash inserts a completion as it is; other shells quote it themselves.
    in_bash = os.environ.get(SHELL, "").startswith("bash")
    return [CompletionItem(_escaped(name) if in_bash else name) for name in names]


def complete_files(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """File names, which the shell itself knows best."""
    return [CompletionItem(incomplete, type="file")]


def complete_folders(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Folders, which the shell itself knows best."""
    return [CompletionItem(incomplete, type="dir")]


def complete_words(*words: str) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """A completion that offers these words; anything else may be typed too."""

    def offer(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(word) for word in words if word.startswith(incomplete)]

    return offer


def columns_of_line(options: dict[str, Any]) -> list[str]:
    """The columns of the first input that is a file; none if there is any error."""
    try:
        name = next(name for name in _inputs(options) if Path(name).is_file())
        return [column for column in _columns(name, options) if column.isprintable() and column]
    except Exception:  # messages about a half-typed line would fill the screen
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
    """A name escaped for bash, twice, since click's script has bash evaluate it once more."""
    for _ in range(2):
        name = re.sub(r"([^\w%+,./:=@^~-])", r"\\\1", name)
    return name


class _Joined(ShellComplete):
    """For shells that give `--option=value` as one word and expect one word back."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        option, sign, value = incomplete.partition("=")
        if not (sign and option.startswith("--")):
            return super().get_completions(args, incomplete)
        return [
            CompletionItem(f"{option}={text}", help=item.help)
            for item in super().get_completions([*args, option], value)
            for text in ([item.value] if item.type == "plain" else _paths(value, folders=item.type == "dir"))
        ]


def _paths(begin: str, folders: bool) -> list[str]:
    """The files, or only folders, whose path begins so."""
    found = sorted(glob.glob(glob.escape(begin) + "*"))  # noqa: PTH207 - paths as they were typed
    marked = [path + "/" if Path(path).is_dir() else path for path in found]
    return [path for path in marked if path.endswith("/") or not folders]


class Bash(shells.BashComplete):
    """Bash gives `--option=value` as three words."""

    def get_completion_args(self) -> tuple[list[str], str]:
        args, incomplete = super().get_completion_args()
        signs = {k for k, word in enumerate(args) if word == "=" and k and args[k - 1].startswith("--")}
        return [word for k, word in enumerate(args) if k not in signs], incomplete


class Zsh(_Joined, shells.ZshComplete):
    """zsh."""


class Fish(_Joined, shells.FishComplete):
    """fish; its script must split only at the first comma, since names may have commas."""

    source_template = shells.FishComplete.source_template.replace(
        'string split "," $completion', 'string split -m 1 "," $completion'
    )


SHELLS: dict[str, type[ShellComplete]] = {"bash": Bash, "zsh": Zsh, "fish": Fish}
for _kind in SHELLS.values():
    shells.add_completion_class(_kind)


def completion_script(command: click.Command, shell: str) -> str:
    """The script that makes a shell ask this command for completions."""
    name = str(command.name)
    complete = SHELLS[shell](command, {}, name, f"_{name.replace('-', '_').upper()}_COMPLETE")
    return complete.source_template % complete.source_vars()
