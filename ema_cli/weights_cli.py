"""`ema-weights`: options to `FoldOptions`, and what is to be said of the fold on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import click

from ema_cli.console import run_command, say
from ema_cli.errors import OptionError
from ema_cli.help_groups import GroupedCommand, under
from ema_cli.safe_text import safe_text

if TYPE_CHECKING:
    from ema_cli.parameters.plan import FoldOptions, Plan

NAME = "ema-weights"
EPILOG = """\
Examples:
  ema-weights step_*.safetensors --decay 0.9 --dry-run               what would each one weigh?
  ema-weights step_*.safetensors --decay 0.9 -o ema.safetensors
  ema-weights new.safetensors --decay 0.9 --resume fold.npz -o ema.safetensors --force

A folder or a quoted pattern stands for its checkpoints by number, step_9 before step_10. Exit codes:
0 done, 1 data or files, 2 usage, 130 Ctrl-C. More: docs/parameters.md
"""
_SHORT = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32", "fp64": "float64"}
files, average, tensors = under("Input and output"), under("The average"), under("Tensors")
running = under("Running")


@click.command(NAME, cls=GroupedCommand, epilog=EPILOG, context_settings={"terminal_width": 100})
@click.argument("checkpoints", nargs=-1, metavar="CHECKPOINT...")
@files("-o", "--output", metavar="FILE", help="Write FILE, .safetensors or .npz, complete or not at all.")
@files("--force", is_flag=True, help="Write over FILE if it exists.")
@files("--resume", metavar="STATE", help="Carry a fold on from STATE if it is there, and leave it there.")
@files("--key", metavar="KEY", help="The dict in a torch file: model, ema, state_dict, …")
@average("--decay", metavar="D", help="Weight of the old average, 0 to 1.")
@average("--alpha", metavar="A", help="Weight of the newest checkpoint: 1 − decay.")
@average("--halflife", metavar="H", help="Checkpoints after which a weight has halved.")
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
@running("-v", "--verbose", is_flag=True, help="Say on stderr what was done.")
@click.version_option(None, "-V", "--version", package_name="ema-smooth", prog_name=NAME)
def command(**options: Any) -> None:
    """Fold checkpoints, in the order given, into their exponential moving average.

    CHECKPOINT: .safetensors, .safetensors.index.json or .npz, and where torch is installed .pt, .pth, .ckpt
    or .bin.
    Give exactly one of --decay, --alpha, --halflife.
    """
    from ema_cli.process import set_process_defaults

    set_process_defaults()
    from ema_cli.parameters.fold import notes, planned, write_fold

    how = make_options(options)
    output, resume = options["output"], options["resume"]
    if output is None and not options["dry_run"]:
        raise OptionError("no output given", "-o ema.safetensors (or .npz), or --dry-run")
    with planned(options["checkpoints"], how, resume) as (plan, saved):
        for note in notes(plan, saved):
            say(NAME, note)
        if options["dry_run"]:
            click.echo(table(plan), nl=False)
        else:
            write_fold(plan, saved, output, how, resume=resume, force=options["force"])
        if options["dry_run"] or options["verbose"]:
            say(NAME, _summary(plan, how))


def make_options(options: dict[str, Any]) -> FoldOptions:
    """What the options ask for. Raises OptionError where they make no sense."""
    from ema_cli.parameters.plan import FoldOptions, fold_decay

    dtype = options["dtype"]
    return FoldOptions(
        decay=fold_decay(options),
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
    """Weight, step where names have one, and name of every checkpoint, one a line."""
    rows = [
        (f"{weight:.6f}", "" if file.step is None else str(file.step), safe_text(file.name))
        for weight, file in zip(plan.weights(), plan.files, strict=True)
    ]
    stepped = any(step for _, step, _ in rows)
    wide = max(len(step) for _, step, _ in [*rows, ("", "step", "")])
    lines = [("weight".rjust(8), "step".rjust(wide), "checkpoint")]
    lines += [(weight, step.rjust(wide), name) for weight, step, name in rows]
    return "".join("  ".join(line if stepped else (line[0], line[2])) + "\n" for line in lines)


def _summary(plan: Plan, how: FoldOptions) -> str:
    from ema_cli.parameters.fold import summary

    said = summary(plan, how)
    return (
        f"decay {said['decay']:.10g}, alpha {said['alpha']:.10g}, half-life {said['halflife']:.4g} "
        f"{said['unit']}, {'bias-corrected' if said['corrected'] else 'from the first'}; "
        f"tensors: {said['averaged']} averaged, {said['copied']} copied"
    )


def main() -> NoReturn:
    """Run the command and leave with its exit code."""
    run_command(command, NAME)


if __name__ == "__main__":
    main()
