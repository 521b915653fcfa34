"""Help in groups: options that know which heading of `--help` they stand under."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class GroupedOption(click.Option):
    """An option with a heading."""

    def __init__(self, *args: Any, group: str = "Other", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose help lists options under their headings, and keeps the line breaks of its epilog."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                groups.setdefault(getattr(param, "group", "Other"), []).append(record)
        rest = groups.pop("Other", [])
        for heading, records in (groups | {"Other": rest}).items():
            with formatter.section(heading):
                formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        formatter.write("\n" + (self.epilog or ""))


def under(group: str) -> Callable[..., Decorator]:
    """`option = under("Input")` makes options of that group."""

    def option(*names: str, **kwargs: Any) -> Decorator:
        return click.option(*names, cls=GroupedOption, group=group, **kwargs)

    return option
