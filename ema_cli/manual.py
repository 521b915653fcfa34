"""`--completion SHELL` and `--man`: a completion script and the manual page, made from the command."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import click

from ema_cli.help_groups import under

Function = Callable[..., Any]


def about_itself(function: Function) -> Function:
    """Add the two options to a command; they print and end it, whatever other options are given."""
    option = under("Running")
    eager = {"is_eager": True, "expose_value": False}
    function = option(
        "--man",
        is_flag=True,
        callback=_print_manual,
        help="Print the manual page: `--man | man -l -`.",
        **eager,
    )(function)
    return option(
        "--completion",
        type=click.Choice(["bash", "zsh", "fish"]),
        callback=_print_completion,
        help="Print the completion script of a shell.",
        **eager,
    )(function)


def _print_completion(context: click.Context, _: click.Parameter, shell: str | None) -> None:
    if shell is None or context.resilient_parsing:
        return
    from ema_cli.completion import completion_script

    click.echo(completion_script(context.command, shell), nl=False)
    context.exit()


def _print_manual(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    click.echo(man_page(context.command), nl=False)
    context.exit()


def man_page(command: click.Command) -> str:
    """A command's help in roff, for man(1)."""
    context = click.Context(command, info_name=command.name, **command.context_settings)
    name = str(command.name)
    summary, _, rest = inspect.cleandoc(command.help or "").partition("\n")
    words = " ".join(command.collect_usage_pieces(context))
    lines = [f'.TH "{name.upper()}" 1', ".SH NAME", f"{_roff(name)} \\- {_roff(summary.rstrip('.'))}"]
    lines += [".SH SYNOPSIS", f".B {_roff(name)}", _roff(words), ".SH DESCRIPTION"]
    lines += [_roff(line) if line.strip() else ".PP" for line in (summary + "\n" + rest).strip().splitlines()]
    lines.append(".SH OPTIONS")
    for group, records in option_records(command, context).items():
        lines.append(f".SS {_roff(group)}")
        for flags, text in records:
            lines += [".TP", f".B {_roff(flags)}", _roff(text)]
    lines += [".SH NOTES", ".nf", *map(_roff, (command.epilog or "").strip().splitlines()), ".fi"]
    return "\n".join(lines) + "\n"


def option_records(command: click.Command, context: click.Context) -> dict[str, list[tuple[str, str]]]:
    """The options and their help, by heading; "Other" last."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for param in command.get_params(context):
        record = param.get_help_record(context)
        if record is not None and isinstance(param, click.Option):
            groups.setdefault(getattr(param, "group", "Other"), []).append(record)
    groups["Other"] = groups.pop("Other", [])
    return groups


def _roff(text: str) -> str:
    """Text escaped for roff: hyphens stay hyphens, and no line is a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text[:1] in (".", "'") else text
