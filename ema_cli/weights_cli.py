"""`ema-weights`: click options -> `FoldOptions`; what went wrong -> one message and an exit code.

NumPy and all the rest are imported inside the function, so that `--help` is quick.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from ema_cli.errors import EmaError, OptionError

if TYPE_CHECKING:
    from ema_cli.weights_plan import FoldOptions, Plan

_DTYPES = {
    "float16": "float16",
    "bfloat16": "bfloat16",
    "float32": "float32",
    "float64": "float64",
    "fp16": "float16",
    "bf16": "bfloat16",
    "fp32": "float32",
}


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("checkpoints", nargs=-1, metavar="CHECKPOINT...")
@click.option("-o", "--output", metavar="FILE", help="The average: .safetensors or .npz.")
@click.option("--decay", metavar="D", help="Weight of the old average, 0 to 1.")
@click.option("--alpha", metavar="A", help="Weight of the newest checkpoint: 1 - decay.")
@click.option("--halflife", metavar="H", help="Checkpoints after which a weight has halved.")
@click.option("--per-step", is_flag=True, help="The weight is per step; steps are read from the names.")
@click.option(
    "--init",
    type=click.Choice(["corrected", "first"]),
    default="corrected",
    show_default=True,
    help="Bias-corrected weights, or start from the first checkpoint.",
)
@click.option(
    "--keys",
    type=click.Choice(["same", "intersection"]),
    default="same",
    show_default=True,
    help="All must hold the same tensors, or fold those they share.",
)
@click.option("--include", multiple=True, metavar="GLOB", help="Only tensors so named. Repeatable.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="No tensors so named. Repeatable.")
@click.option(
    "--strip-prefix", multiple=True, metavar="P", help="Take P off the names (module.). Repeatable."
)
@click.option("--key", metavar="KEY", help="The dict in a torch file: model, ema, state_dict.")
@click.option(
    "--dtype",
    type=click.Choice(list(_DTYPES)),
    help="Of the averaged tensors; default: the newest checkpoint's.",
)
@click.option("--resume", metavar="STATE", help="Carry a fold on from STATE, and save it there.")
@click.option("--dry-run", is_flag=True, help="Print each checkpoint's weight; read no values.")
@click.option("--force", is_flag=True, help="Write over an existing output.")
@click.option("-v", "--verbose", is_flag=True, help="Say on stderr what was done.")
def command(**given: Any) -> None:
    """Fold checkpoints, in the order given, into their exponential moving average.

    CHECKPOINT is .safetensors, *.safetensors.index.json, .npz, or where torch is installed .pt, .pth, .ckpt
    or .bin. A folder or a quoted pattern stands for its checkpoints by number: step_9 before step_10.

    \b
    ema-weights step_*.safetensors --decay 0.9 -o ema.safetensors
    ema-weights runs/ --halflife 5 --dry-run
    """
    # No linear algebra is done here; idle BLAS threads would only cost start-up time.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from ema_cli.weights import notes, planned, write_fold  # noqa: PLC0415 (--help without NumPy)

    options = _options(given)
    names, resume, output = given["checkpoints"], given["resume"], given["output"]
    if output is None and not given["dry_run"]:
        raise OptionError("no output given", "-o ema.safetensors (or .npz), or --dry-run")
    with planned(names, options, resume) as (plan, saved):
        _say(notes(plan, saved))
        if given["dry_run"]:
            click.echo(_table(plan), nl=False)
            _say([_summary(plan, options)])
            return
        write_fold(plan, saved, output, options, resume=resume, force=given["force"])
        if given["verbose"]:
            click.echo(_table(plan), nl=False, err=True)
            _say([_summary(plan, options)])


def _options(given: dict[str, Any]) -> FoldOptions:
    from ema_cli.weights_plan import FoldOptions, fold_decay  # noqa: PLC0415 (--help without NumPy)

    return FoldOptions(
        decay=fold_decay(given),
        corrected=given["init"] == "corrected",
        per_step=given["per_step"],
        intersection=given["keys"] == "intersection",
        include=given["include"],
        exclude=given["exclude"],
        strip_prefix=given["strip_prefix"],
        key=given["key"],
        dtype=None if given["dtype"] is None else _DTYPES[given["dtype"]],
    )


def _table(plan: Plan) -> str:
    """Weight, step where names have one, and name of every checkpoint, one a line."""
    rows = [
        (f"{weight:.6f}", "" if file.step is None else str(file.step), file.name)
        for weight, file in zip(plan.weights(), plan.files, strict=True)
    ]
    stepped = any(step for _, step, _ in rows)
    wide = max(len(step) for _, step, _ in [*rows, ("", "step", "")])
    lines = [("weight".rjust(8), "step".rjust(wide), "checkpoint")]
    lines += [(weight, step.rjust(wide), name) for weight, step, name in rows]
    return "".join("  ".join(line if stepped else (line[0], line[2])) + "\n" for line in lines)


def _summary(plan: Plan, options: FoldOptions) -> str:
    from ema_cli.weights import summary  # noqa: PLC0415 (--help without NumPy)

    said = summary(plan, options)
    return (
        f"decay {said['decay']:.10g}, alpha {said['alpha']:.10g}, half-life {said['halflife']:.4g} "
        f"{said['unit']}, "
        f"{'bias-corrected' if said['corrected'] else 'from the first'}; "
        f"tensors: {said['averaged']} averaged, {said['copied']} copied"
    )


def _say(lines: list[str]) -> None:
    for line in lines:
        click.echo(f"ema-weights: {line}", err=True)


def main() -> NoReturn:
    """Run the command; end with its exit code, and never with a traceback for anything a user can do."""
    sys.exit(_run())


def _run() -> int:  # noqa: PLR0911 (one return for each way to end; to be replaced by the shared helper)
    try:
        # Not command.main: it would answer a closed pipe with 1, and Ctrl-C with an empty line.
        with command.make_context("ema-weights", sys.argv[1:]) as context:
            command.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as end:
        return end.exit_code
    except EmaError as error:
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, click.exceptions.Abort):
        return 130
    except click.ClickException as error:
        return _fail(f"{error.format_message()}\n  try: ema-weights --help", 2)
    except BrokenPipeError:
        # The reader has gone, as `| head` does; Python's own flush at exit must not complain of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError:
        return _fail("out of memory", 1)
    except OSError as error:
        return _fail(": ".join(filter(None, [error.filename, error.strerror or str(error)])), 1)
    return 0


def _fail(message: str, code: int) -> int:
    click.echo(f"ema-weights: {message}", err=True)
    return code


if __name__ == "__main__":
    main()
