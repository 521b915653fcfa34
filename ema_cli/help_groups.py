"""Help in groups, and suggestions for unknown options."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import click

from ema_cli.errors import OptionError

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
# For both commands: `-h`, and help as wide as the terminal up to a width that is still easy to read.
SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

# Options of other programs, and ours for the same. Only options that the command has are suggested.
MEANINGS = {
    "--smoothing": "--decay 0.6 --adjust (TensorBoard's curve: --like tensorboard)",
    "--weight": "--alpha 0.1 (weight of the newest value), or --weights (how often each counts)",
    "--factor --smoothing-factor --smoothing-level --lr --lambda": "--alpha 0.1 (weight of the newest value)",
    "--momentum --beta --beta1 --ema-decay --rate": "--decay 0.9 (weight of the old average)",
    "--window --period --periods --length --n --timeperiod": "--span 20",
    "--half-life --half_life": "--halflife 10",
    "--uniform --mean --average": "--uniform",
    "--swa": "--uniform (the plain mean)",
    "--ignore-na --ignore_na --ignore-missing": "--missing skip",
    "--fillna --ffill --forward-fill": "--fill",
    "--bias-correction --debias --unbiased": "--adjust",
    "--group --group-by --groupby --key --keys --over --partition-by": "--by COL",
    "--timestamp --timestamps --times --date --datetime --index": "--time COL",
    "--columns --col --cols --field --fields --select --value --values": "-c NAME",
    "--sep --separator --field-separator --fs --ifs": "-d C",
    "--out --output-file --outfile --to-file --inplace --in-place": "-o FILE",
    "--outdir --out-dir --output-folder --directory": "--output-dir DIR",
    "--format --output-format --ofmt --type": "--to FORMAT",
    "--input-format": "--from FORMAT",
    "--noheader --skip-header --headerless --implicit-csv-header": "--no-header",
    "--precision --round --decimals --float-format": "--digits 4",
    "--threads --workers --processes --parallel --cores --nproc": "-j N",
    "--sd --stdev --stddev --deviation": "--std",
    "--variance": "--var",
    "--covariance": "--cov",
    "--correlation": "--corr",
    "--rma --smma --wilders": "--wilder 14",
    "--dema": "--double",
    "--tema": "--triple",
    "--macd": "--span 12 --span 26 --diff",
    "--time-constant --timeconstant": "--tau 5min",
    "--two-sided --zero-phase --filtfilt": "--centered",
    "--bollinger --envelope --sigma": "--bands 2",
    "--detrend --diff-from-trend --residuals": "--residual",
    "--min-count --minperiods --warmup --min_periods": "--min-periods N",
    "--na-values --null --nulls --missing-values --nan": "--na TEXT",
    "--sort --sorted": "--order COL",
    "--reverse --descending": "--newest-first",
    "--volume --vwap --weight-column": "--weights COL",
    "--resume --checkpoint --continue": "--state FILE",
    "--quiet --silent": "--no-progress",
    "--chart --graph --figure --draw": "--plot FILE",
    "--input --file --in": "the file by its name alone: ema-smooth FILE",
    "-a": "--alpha 0.1",
    "-s -n -w": "--span 20",
    "-t": "--time COL",
    "-b -g": "--by COL",
    "-f": "-c NAME, or the file by its name alone",
    "-i": "the file by its name alone, and -o FILE",
}
_BY_NAME = {name: text for names, text in MEANINGS.items() for name in names.split()}
_CLOSE = 0.75  # of difflib; below it a suggestion is more often silly than right


class GroupedOption(click.Option):
    """An option with a heading."""

    def __init__(self, *args: Any, group: str = "Other", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose help lists options under their headings, and keeps the line breaks of its epilog."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise OptionError(f"no option {error.option_name}", self._suggestion(error.option_name)) from None

    def _suggestion(self, name: str) -> str:
        """The option that may be meant, by its meaning elsewhere, else by its spelling."""
        options = [text for param in self.params for text in (*param.opts, *param.secondary_opts)]
        meant = _BY_NAME.get(name.lower(), "")
        if meant and (not meant.startswith("-") or meant.split()[0] in options):
            return meant
        if close := get_close_matches(name, options, n=2, cutoff=_CLOSE):
            return " or ".join(close)
        return f"{self.name} --help"

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
