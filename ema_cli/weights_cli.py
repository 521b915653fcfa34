"""`ema-weights`: options to `FoldOptions`, and what is to be said of the fold on stderr."""

from __future__ import annotations

import gc
import math
from typing import TYPE_CHECKING, Any, NoReturn

import click

from ema_cli.completion import complete_files
from ema_cli.console import run_command, say
from ema_cli.errors import OptionError
from ema_cli.help_groups import SETTINGS, GroupedCommand, under
from ema_cli.manual import about_itself
from ema_cli.safe_text import safe_text

if TYPE_CHECKING:
    from ema_cli.parameters.plan import FoldOptions, Plan

NAME = "ema-weights"
EPILOG = """\
Examples:
  ema-weights step_*.safetensors --decay 0.9 --dry-run    what does each weigh?
  ema-weights step_*.safetensors --decay 0.9 -o ema.safetensors
  ema-weights run/ --decay 0.9 -o ema/      checkpoint-500/, checkpoint-1000/, …
  ema-weights new.npz --decay 0.9 --resume fold.npz -o ema.npz --force
  ema-weights snapshots/ --sigma-rel 0.05 --sigma-rel 0.1 -o 'ema-{}.npz'

A folder or a quoted pattern stands for its checkpoints by number, step_9
before step_10. Exit codes: 0 done, 1 data or files, 2 usage, 130 Ctrl-C.
More: docs/checkpoints.md
"""
_SHORT = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32", "fp64": "float64"}
# A cumulative weight that is further off than this is said without being asked.
_ROUGH = 0.01
files, average, tensors = under("Input and output"), under("The average"), under("Tensors")
running = under("Running")


@click.command(NAME, cls=GroupedCommand, epilog=EPILOG, context_settings=SETTINGS)
@click.argument("checkpoints", nargs=-1, metavar="CHECKPOINT...", shell_complete=complete_files)
@files(
    "-o",
    "--output",
    metavar="FILE",
    shell_complete=complete_files,
    help="Write FILE, .safetensors, .npz or .pt, or a folder FILE/, complete or not.",
)
@files("--shard-size", metavar="SIZE", help="Bytes of a shard in a folder: 5GB, 500MB, 2GiB [5GB].")
@files("--force", is_flag=True, help="Write over FILE if it exists.")
@files(
    "--resume",
    metavar="STATE",
    shell_complete=complete_files,
    help="Carry a fold on from STATE if it is there, and leave it there.",
)
@files("--key", metavar="KEY", help="The dict in a torch file: model, ema, state_dict, …")
@average("--decay", metavar="D", multiple=True, help="Weight of the old average, 0 to 1.")
@average("--alpha", metavar="A", multiple=True, help="Weight of the newest checkpoint: 1 − decay.")
@average("--halflife", metavar="H", multiple=True, help="Checkpoints after which a weight has halved.")
@average("--uniform", is_flag=True, help="The plain mean of all checkpoints.")
@average("--weights", metavar="W,W,…", multiple=True, help="A weight for each checkpoint, as given.")
@average(
    "--sigma-rel",
    metavar="S",
    multiple=True,
    help="From snapshots: an average of this relative width (0.05).",
)
@average(
    "--half-life-at-end", metavar="N", multiple=True, help="The same, by its half-life in steps at the end."
)
@average("--per-step", is_flag=True, help="All that for a training step; names tell the steps.")
@average(
    "--init",
    type=click.Choice(["corrected", "first"]),
    default="corrected",
    help="Bias-corrected weights, or the first checkpoint as the average so far [corrected].",
)
@tensors(
    "--keys",
    type=click.Choice(["same", "intersection"]),
    default="same",
    help="All hold the same tensors, or only what they share is folded [same].",
)
@tensors("--include", multiple=True, metavar="GLOB", help="Only tensors so named; may be repeated.")
@tensors("--exclude", multiple=True, metavar="GLOB", help="No tensors so named; may be repeated.")
@tensors("--strip-prefix", multiple=True, metavar="P", help="Take P, such as module., off their names.")
@tensors(
    "--dtype",
    type=click.Choice([*_SHORT.values(), *_SHORT]),
    metavar="DTYPE",
    help="float16, bfloat16, float32 or float64 [each as in the newest checkpoint].",
)
@running("--dry-run", is_flag=True, help="Print each checkpoint's weight; read no values.")
@running(
    "--plot",
    metavar="FILE",
    shell_complete=complete_files,
    help="Draw the weights, and the profile they come to: png, svg or pdf.",
)
@running("-v", "--verbose", is_flag=True, help="Say on stderr what was done.")
@about_itself
@click.version_option(None, "-V", "--version", package_name="ema-smooth", prog_name=NAME)
def command(**options: Any) -> None:
    """Fold checkpoints, in the order given, into their average: exponential, plain, weighted or post-hoc.

    CHECKPOINT: .safetensors, .safetensors.index.json or .npz, and where torch is installed .pt, .pth, .ckpt
    or .bin (FILE, too); a folder of such files, or of a training run.
    Give one of --decay, --alpha, --halflife, --uniform, --weights, --sigma-rel, --half-life-at-end; repeated,
    it makes several averages in one pass, with {} in FILE for each.
    """
    from ema_cli.process import set_process_defaults

    set_process_defaults()
    # A header may name a million tensors: the collector would look through all of them many times, for cycles
    # that there are none of. Without it they are read in a third less time.
    gc.disable()
    from ema_cli.parameters.fold import Places, planned, write_fold
    from ema_cli.parameters.weights_plot import drawn

    how = make_options(options)
    if options["output"] is None and not options["dry_run"]:
        raise OptionError(
            "no output given", "-o ema.safetensors (or .npz, .pt, or a folder ema/), or --dry-run"
        )
    with planned(options["checkpoints"], how, options["resume"]) as plan:
        for note in plan.notes:
            say(NAME, note)
        with drawn(plan, options["plot"]):
            if options["dry_run"]:
                click.echo(table(plan), nl=False)
            else:
                places = Places(options["output"], options["resume"], options["force"], options["shard_size"])
                write_fold(plan, how, places)
        for line in closeness(plan) if options["dry_run"] or options["verbose"] else _poor(plan):
            say(NAME, line)
        if options["dry_run"] or options["verbose"]:
            say(NAME, _summary(plan, how))


def make_options(options: dict[str, Any]) -> FoldOptions:
    """What the options ask for. Raises OptionError where they make no sense."""
    from ema_cli.parameters.lengths import FAMILIES, make_lengths
    from ema_cli.parameters.plan import FoldOptions

    dtype = options["dtype"]
    return FoldOptions(
        lengths=make_lengths({family: options[family.replace("-", "_")] for family in FAMILIES}),
        corrected=options["init"] == "corrected",
        per_step=options["per_step"],
        intersection=options["keys"] == "intersection",
        include=options["include"],
        exclude=options["exclude"],
        strip_prefix=options["strip_prefix"],
        key=options["key"],
        dtype=_SHORT.get(dtype, dtype),
    )


def table(plan: Plan) -> str:
    """Weights, step where names have one, and name of every checkpoint, one a line."""
    files = plan.averages[0].files
    columns = [[f"{weight:.6f}" for weight in average.weights()] for average in plan.averages]
    texts = [average.length.text for average in plan.averages]
    heads = ["weight"] if len(columns) == 1 else texts
    if any(file.step is not None for file in files):
        columns.append(["" if file.step is None else str(file.step) for file in files])
        heads.append("step")
    widths = [max(map(len, [head, *cells])) for head, cells in zip(heads, columns, strict=True)]
    rows = [[*heads], *map(list, zip(*columns, strict=True))]
    names = ["checkpoint", *(safe_text(file.name) for file in files)]
    return "".join(
        "  ".join([*(cell.rjust(width) for cell, width in zip(row, widths, strict=True)), name]) + "\n"
        for row, name in zip(rows, names, strict=True)
    )


def closeness(plan: Plan) -> list[str]:
    """How close the weights of a post-hoc average come to the profile that is wanted."""
    said = []
    for average in plan.averages:
        if (fit := average.fit) is not None:
            least = "" if fit.residual is None else f"profile met but for {fit.residual:.2%} of its norm, "
            said.append(
                f"{average.length.option}: sigma-rel {fit.sigma_rel:.6g}, gamma {fit.gamma:.6g}, half-life "
                f"{fit.half_life_at_end:.6g} steps at step {fit.step}; {least}weight lies "
                f"{fit.moved:.3g} steps from its place on average"
            )
    return said


def _poor(plan: Plan) -> list[str]:
    """What has to be said unasked: a profile that is only roughly met."""
    return [
        line
        for line, average in zip(closeness(plan), plan.averages, strict=False)
        if average.fit is not None and (average.fit.residual is None or average.fit.worst > _ROUGH)
    ]


def _summary(plan: Plan, how: FoldOptions) -> str:
    from ema_cli.parameters.fold import summary

    said = summary(plan, how)
    counts = f"tensors: {said['averaged']} averaged, {said['copied']} copied"
    start = "bias-corrected" if said["corrected"] else "from the first"
    lengths = []
    for length in how.lengths:
        if length.decay is not None and length.family != "uniform":
            alpha = length.decay.alpha
            halflife = math.inf if alpha == 0 else 0.0 if alpha == 1 else -math.log(2.0) / math.log1p(-alpha)
            numbers = f"decay {length.decay.rest:.10g}, alpha {alpha:.10g}"
            lengths.append(f"{numbers}, half-life {halflife:.4g} {said['unit']}, {start}")
        elif not length.post_hoc:
            lengths.append("plain mean" if length.family == "uniform" else "weights as given")
    return "; ".join([*lengths, counts])


def main() -> NoReturn:
    """Run the command and leave with its exit code."""
    run_command(command, NAME)


if __name__ == "__main__":
    main()
