"""`ema-smooth`: options to a `Job`, and what it did to a few words on stderr."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import click

from ema_cli.choices import Invalid, Late, Missing, TimeUnit, words_of
from ema_cli.completion import complete_columns, complete_files, complete_folders, complete_words
from ema_cli.console import run_command, say
from ema_cli.formats.registry import FORMATS
from ema_cli.help_groups import SETTINGS, GroupedCommand, under
from ema_cli.like import SETS
from ema_cli.manual import about_itself

if TYPE_CHECKING:
    from collections.abc import Callable

    from ema_cli.average import Average
    from ema_cli.job import Job, Summary
    from ema_cli.observing import Drawing
    from ema_cli.run.batch import Tally
    from ema_cli.run.outcome import Outcome

NAME = "ema-smooth"
EPILOG = """\
Examples:
  ema-smooth input.csv --alpha 0.1            a trend for every number column
  tail -f log.csv | ema-smooth --decay 0.99   answers every line as it comes
  ema-smooth w.parquet --by id --time t --halflife 6h -o trend.parquet

Missing cells stay blank, and nothing of the input changes. Exit codes:
0 done, 1 data or files, 2 usage, 130 Ctrl-C. Formulas: docs/semantics.md
"""
inputs, columns, average = under("Input and output"), under("Columns"), under("The average")
spacing, running = under("Keys and times"), under("Running")


@click.command(NAME, cls=GroupedCommand, epilog=EPILOG, context_settings=SETTINGS)
@click.argument("input", nargs=-1, shell_complete=complete_files)
@inputs(
    "-o",
    "--output",
    metavar="FILE",
    shell_complete=complete_files,
    help="Write FILE, complete or not at all; may be the input.",
)
@inputs(
    "--output-dir",
    metavar="DIR",
    shell_complete=complete_folders,
    help="Write each input's output into DIR, by the same name.",
)
@inputs(
    "-j",
    "--jobs",
    type=click.IntRange(0),
    metavar="N",
    help="Processes for a large text, threads that pack Parquet and compressed output [as help]; "
    "with --output-dir files at once [1]. 0: one a CPU.",
)
@inputs("--chain", is_flag=True, help="With --output-dir: the files are parts of one series, in this order.")
@inputs(
    "--dask",
    metavar="ADDRESS",
    shell_complete=complete_words("local"),
    help="With --output-dir: on a Dask cluster, or `local`. Extra: [dask].",
)
@inputs("--from", "source", type=click.Choice(list(FORMATS)), help="Format of the input.")
@inputs("--to", "target", type=click.Choice(list(FORMATS)), help="Format of the output.")
@inputs("-d", "--delimiter", metavar="C", help="Field delimiter: one character, `tab`, or `spaces`.")
@inputs("--no-header", "no_header", is_flag=True, help="No header; columns are called 1, 2, …")
@inputs("--skip-lines", type=click.IntRange(0), default=0, metavar="N", help="Lines before the table.")
@inputs("--comment", multiple=True, metavar="TEXT", help="Lines that begin so are no records.")
@inputs(
    "--ragged",
    type=click.Choice(["error", "pad"]),
    default="error",
    help="Records with too few fields, or empty ones at the end [error].",
)
@inputs("--decimal", type=click.Choice([".", ","]), default=".", help="Decimal mark of all numbers.")
@inputs("--thousands", metavar="C", help="Mark between groups of three digits: , . ' _ or a space.")
@inputs("--strip", multiple=True, metavar="TEXT", help="Taken off either end of a cell, such as %.")
@inputs("--na", multiple=True, metavar="TEXT", help="One more spelling of missing, such as -999.")
@inputs("--digits", type=click.IntRange(0, 30), metavar="N", help="Decimals printed [shortest exact].")
@columns(
    "-c",
    "--column",
    multiple=True,
    metavar="NAME",
    shell_complete=complete_columns,
    help="Column to smooth, or its number [all numeric].",
)
@columns("--only", is_flag=True, help="Write only key, time and new columns.")
@columns("--residual", is_flag=True, help="Add value − trend.")
@columns("--std", is_flag=True, help="Add the weighted standard deviation.")
@columns("--var", is_flag=True, help="Add the weighted variance.")
@columns("--bands", metavar="K", help="Add trend ± K standard deviations.")
@columns("--sum", is_flag=True, help="Add the sum Σ (1−α)^i·x.")
@columns("--cov", is_flag=True, help="Add the covariance of every pair of columns.")
@columns("--corr", is_flag=True, help="Add the correlation of every pair of columns.")
@columns("--double", is_flag=True, default=None, help="Add 2y − ema(y), which lags less (DEMA).")
@columns("--triple", is_flag=True, default=None, help="Add 3y − 3·ema(y) + ema(ema(y)) (TEMA).")
@columns("--diff", is_flag=True, help="With two weights: add the first trend less the second.")
@columns(
    "--name",
    metavar="PATTERN",
    help="Names of new columns, from {col}, {what}, {weight} [{col}_{what}; _{weight} where several].",
)
@average(
    "--alpha",
    multiple=True,
    metavar="A",
    shell_complete=complete_words("auto"),
    help="Weight of the newest value: 0 to 1, 1/14, or `auto`.",
)
@average("--span", multiple=True, metavar="N", help="α = 2/(N+1).")
@average("--halflife", multiple=True, metavar="H", help="α = 1 − 2^(−1/H), or a duration with --time.")
@average("--com", multiple=True, metavar="C", help="α = 1/(1+C), the centre of mass.")
@average("--decay", multiple=True, metavar="D", help="α = 1 − D, as TensorBoard and torch say it.")
@average("--wilder", multiple=True, metavar="N", help="α = 1/N from the mean of the first N: Wilder's RMA.")
@average("--tau", multiple=True, metavar="DURATION", help="With --time: a time constant, e^(−Δt/τ).")
@average("--adjust", is_flag=True, default=None, help="Bias-corrected weights (pandas' adjust=True).")
@average(
    "--init",
    metavar="first|zero|sma[:N]|NUMBER",
    shell_complete=complete_words("first", "zero", "sma"),
    help="The average before the first row [first].",
)
@average("--missing", type=click.Choice(words_of(Missing)), help="What a missing cell does [skip].")
@average("--fill", is_flag=True, default=None, help="Print the held trend on missing rows.")
@average(
    "--invalid",
    type=click.Choice(words_of(Invalid)),
    default="error",
    help="Cells that are no number [error].",
)
@average(
    "--weights",
    metavar="COL",
    shell_complete=complete_columns,
    help="A value counts so many times, such as a volume; 0 is missing.",
)
@average("--centered", is_flag=True, help="Look both ways: Σ (1−α)^|i−t|·x[i] / Σ (1−α)^|i−t|.")
@average("--min-periods", type=int, metavar="N", help="Blank until N values were seen.")
@average(
    "--like",
    type=click.Choice(list(SETS)),
    metavar="SYSTEM",
    help=f"The options that give that system's numbers: {', '.join(SETS)}.",
)
@spacing(
    "--by",
    multiple=True,
    metavar="COL",
    shell_complete=complete_columns,
    help="A series for each key, rows interleaved in any way.",
)
@spacing(
    "--time",
    multiple=True,
    metavar="COL",
    shell_complete=complete_columns,
    help="Timestamps of the rows, for irregular spacing; twice: date and time of day.",
)
@spacing(
    "--time-unit",
    type=click.Choice(words_of(TimeUnit)),
    help="Unit of times that are numbers.",
)
@spacing("--time-format", metavar="FMT", help="Format of times: strptime's, English names; or `excel`.")
@spacing("--time-zone", metavar="ZONE", help="Zone of times that name none, such as Europe/Berlin [UTC].")
@spacing(
    "--order",
    metavar="COL",
    shell_complete=complete_columns,
    help="A column that only grows, such as a step; it is not smoothed.",
)
@spacing(
    "--late",
    type=click.Choice(words_of(Late)),
    default="error",
    help="A row where --order or --time goes back: stop, leave it out, or start its series afresh [error].",
)
@spacing(
    "--newest-first", is_flag=True, help="The rows stand in falling order: smooth from the last to the first."
)
@spacing("--by-file", is_flag=True, help="Each input is a series of its own, in one output.")
@spacing("--reset-gap", metavar="DURATION", help="Start afresh after a silence longer than this.")
@running(
    "--state",
    metavar="FILE",
    shell_complete=complete_files,
    help="Carry on from FILE if it is there, and leave the state in it.",
)
@running(
    "--plot",
    metavar="FILE",
    shell_complete=complete_files,
    help="Draw value and trend: png, svg, pdf, html; `-` in the terminal. Not with --dask.",
)
@running(
    "--x",
    metavar="COL",
    shell_complete=complete_columns,
    help="Draw along this column, a step or a time; it is not smoothed [--time, else rows].",
)
@running("--title", metavar="TEXT", help="The picture's title [the file and the weight].")
@running("--size", metavar="WxH", help="Its size in pixels, of characters in the terminal.")
@running("--log", is_flag=True, help="Draw values on a logarithmic axis.")
@running("--relative", is_flag=True, help="Draw every series from its own start.")
@running("--progress/--no-progress", default=None, help="A bar on stderr [on terminals, when it takes long].")
@running("-v", "--verbose", is_flag=True, help="Say on stderr what was done.")
@about_itself
@click.version_option(None, "-V", "--version", package_name=NAME, prog_name=NAME)
def command(**options: Any) -> None:
    """Append exponential moving averages to the columns of CSV, TSV, JSON lines, Parquet and Arrow files.

    INPUT: files, plain or compressed; several are parts of one series; `-` or none is stdin.
    Give exactly one of --alpha, --span, --halflife, --com, --decay, --wilder, --tau; it may be repeated.
    """
    from ema_cli.formats.registry import check_output_name
    from ema_cli.process import set_process_defaults

    set_process_defaults()
    job = make_job(options)
    check_output_name(job)
    _mind_terminals(job)
    if options["output_dir"] is None:
        _start_helpers(job)
    from ema_cli.observing import make_drawing, observing

    drawing = make_drawing(options)
    if options["output_dir"] is not None:
        raise click.exceptions.Exit(_run_folder(job, options, drawing))
    from ema_cli.run.pipeline import run

    with observing(job, drawing, options["progress"], partial(say, NAME)) as observer:
        summary = run(job, observer)
    _tell(job, summary, verbose=options["verbose"])


def _mind_terminals(job: Job) -> None:
    """Say that a terminal is read; raise OptionError where Parquet would be written to one."""
    if "-" in job.inputs and sys.stdin is not None and sys.stdin.isatty():
        say(NAME, "reading the terminal; Ctrl-D ends the input")
    if job.target is None or not FORMATS[job.target].binary or job.output not in (None, "-"):
        return
    if sys.stdout is not None and sys.stdout.isatty():
        from ema_cli.errors import OptionError

        raise OptionError(f"{job.target} is nothing to read in a terminal", f"-o FILE.{job.target}")


def _start_helpers(job: Job) -> None:
    """Start the processes that will share the work, if they will, before this one loads what it needs."""
    from ema_cli.formats.registry import FORMATS, format_of_name, split_suffix
    from ema_cli.io.atomic import total_size
    from ema_cli.process import helpers_for

    helpers = helpers_for(total_size(job.inputs) or 0, job.processes)
    target = job.target or format_of_name(job.output) or "csv"
    packed = split_suffix(job.output or "")[2]
    if helpers and not (FORMATS[target].binary or packed):
        from ema_cli.run.helper import start_early

        start_early(helpers)


def _tell(job: Job, summary: Summary, *, verbose: bool, file: str = "") -> None:
    """What a run has to say for itself, on stderr. file: which of several it was."""
    for note in summary.notes:
        say(NAME, note)
    if summary.alphas is not None:
        for column, alpha in zip(summary.names, summary.alphas, strict=True):
            say(NAME, f"{file}column {column}: --alpha {alpha!r}")
    if verbose:
        from ema_cli.run.describe import describe

        say(NAME, describe(job, summary))


def _run_folder(job: Job, options: dict[str, Any], drawing: Drawing | None) -> int:
    """The exit code of a batch; tells what became of each input that has something to tell, and of all."""
    from ema_cli.observing import comparing, counting
    from ema_cli.run.batch import run_folder

    def report(outcome: Outcome) -> None:
        if outcome.problem is not None:
            say(NAME, outcome.problem, outcome.hint)
            return
        part = replace(job, inputs=(outcome.source,), output=outcome.target)
        _tell(part, outcome.summary, verbose=options["verbose"], file=f"{outcome.source}, ")

    folder, chain, address = options["output_dir"], options["chain"], options["dask"]
    jobs: int | None = options["jobs"]
    with (
        counting(job, options["progress"], report) as counted,
        comparing(job, drawing, chain=chain, report=counted, say=partial(say, NAME)) as (kept, make_observer),
    ):
        if address is None:
            tally = run_folder(job, folder, 1 if jobs is None else jobs, chain, kept, make_observer)
        else:
            tally = _cluster()(job, folder, address, chain=chain, report=counted)
    say(NAME, f"{options['output_dir']}: {tally}")
    return tally.exit_code


def _cluster() -> Callable[..., Tally]:
    """What runs a batch on Dask. Raises OptionError where that is not installed."""
    from ema_cli.errors import OptionError
    from ema_cli.extras import install_hint

    try:
        from ema_cli.cluster.client import run_on_cluster
    except ModuleNotFoundError as error:
        hint = install_hint("dask")
        raise OptionError(f"--dask needs a package that is not there: {error.name}", hint) from None
    return run_on_cluster


def make_job(options: dict[str, Any]) -> Job:
    """The job that the options ask for. Raises OptionError where they don't fit together."""
    from ema_cli.average import make_average
    from ema_cli.io.names import expanded
    from ema_cli.job import Job

    _check_folder_options(options)
    given = {name: value for name, value in options.items() if value != ()}
    average = make_average(given, timed=bool(options["time"]), weighted=options["weights"] is not None)
    _check_whole(options, average)
    job = Job(
        average=average,
        inputs=expanded(options["input"] or ("-",), [options["output"], options["state"], options["plot"]]),
        output=options["output"],
        source=options["source"],
        target=options["target"],
        **_text_options(options),
        columns=options["column"],
        by=options["by"],
        **_clock_options(options),
        **{name: options[name] for name in ("only", "invalid", "digits", "state", "x", "weights")},
        **{name: options[name] for name in ("newest_first", "by_file")},
        processes=options["jobs"] or 0,
    )
    _ = job.notation  # raises where its options contradict each other
    _check_files(job)
    return job


def _check_files(job: Job) -> None:
    """Raise OptionError where inputs that are told apart by name have the same one."""
    from ema_cli.errors import OptionError

    twice = next((name for k, name in enumerate(job.inputs) if name in job.inputs[:k]), None)
    if job.by_file and twice is not None:
        problem = f"{twice} is given twice, and --by-file tells the inputs apart by their names"
        raise OptionError(problem, "each input once")


def _check_folder_options(options: dict[str, Any]) -> None:
    """Raise OptionError where options of one output and of several are mixed."""
    from ema_cli.errors import OptionError

    if options["output_dir"] is None and options["chain"]:
        raise OptionError("--chain needs --output-dir", "--output-dir DIR")
    if options["dask"] is not None and (options["output_dir"] is None or options["jobs"] is not None):
        problem = (
            "--dask needs --output-dir" if options["output_dir"] is None else "--dask has jobs of its own"
        )
        raise OptionError(problem, "--output-dir DIR --dask local:4, for four processes")
    if options["output_dir"] is not None and options["by_file"]:
        raise OptionError("--by-file is of one output, --output-dir makes several", "one of the two")
    if options["output_dir"] is not None and options["output"] is not None:
        raise OptionError("--output and --output-dir exclude each other", "only one of them")
    if options["dask"] is not None and options["plot"] is not None:
        problem = "--plot does not go with --dask: it draws rows as they pass, and there they pass elsewhere"
        raise OptionError(problem, "--output-dir without --dask")


def _check_whole(options: dict[str, Any], average: Average) -> None:
    """Raise OptionError where parts of a series can't be had one by one."""
    from ema_cli.errors import OptionError

    reasons = {
        "--state": (options["state"], "a later run would change what this one has written"),
        "--chain": (options["chain"], "a later part would change what an earlier one has written"),
        "--dask": (options["dask"], "a part would need those after it too"),
        "--late restart": (options["late"] == "restart", "where a series begins is known from one side only"),
    }
    for option, (given, reason) in reasons.items():
        if average.centered and given:
            raise OptionError(f"--centered does not go with {option}: {reason}", "leave out one of the two")


def _text_options(options: dict[str, Any]) -> dict[str, Any]:
    """How a text is written, as `Job` has it. Raises OptionError."""
    from ema_cli.job import read_comments, read_delimiter

    return {
        "delimiter": read_delimiter(options["delimiter"]),
        "header": not options["no_header"],
        "decimal_comma": options["decimal"] == ",",
        "comments": read_comments(options["comment"]),
        **{name: options[name] for name in ("thousands", "strip", "na", "skip_lines", "ragged")},
    }


def _clock_options(options: dict[str, Any]) -> dict[str, Any]:
    """The fields of a job that say when its rows were. Raises OptionError where they don't fit together."""
    from ema_cli.errors import OptionError

    times, unit, order = options["time"], options["time_unit"], options["order"]
    given = {name: options[name] for name in ("time_format", "time_zone")}
    form = next((name for name in ("time_unit", *given) if options[name] is not None), None)
    if form is not None and not times and (order is None or unit is not None):
        raise OptionError(f"--{form.replace('_', '-')} without --time says nothing", "--time COLUMN")
    if len(times) > 2:
        raise OptionError(
            "--time three times: a time stands in one column, or in two", "the date, then the time"
        )
    if len(times) == 2 and unit is not None:
        raise OptionError("--time-unit: a time in two columns is no number", "--time-format '%Y-%m-%d %H:%M'")
    if times and order not in (None, times[0]):
        raise OptionError("--order: with --time, rows are ordered by that", "one of the two")
    if options["late"] != "error" and not times and order is None:
        raise OptionError(
            f"--late {options['late']}: late by which column?", "--order COLUMN, or --time COLUMN"
        )
    if options["late"] == "restart" and "auto" in options["alpha"]:
        raise OptionError("--alpha auto does not go with --late restart", "--late skip, or a weight")
    if form is not None:
        from ema_cli.times import TimeForm, check_form

        check_form(TimeForm(unit, *given.values()))
    date, clock = (*times, None, None)[:2]
    return {
        "time": date,
        "time_of_day": clock,
        "time_unit": unit,
        "order": order,
        "late": options["late"],
    } | given


def main() -> NoReturn:
    """The entry point."""
    run_command(command, NAME)
