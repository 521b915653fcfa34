"""The fold of checkpoints into their exponential moving average, tensor by tensor and slice by slice."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ema_cli.errors import DataError, FileTrouble, OptionError, StateError
from ema_cli.io.atomic import atomic_write, is_special
from ema_cli.parameters.checkpoints import (
    METADATA_KEY,
    Checkpoint,
    CheckpointWriter,
    open_checkpoint,
    writer_for,
)
from ema_cli.parameters.checkpoints.naming import expanded, out_of_order
from ema_cli.parameters.plan import (
    SIGNATURE_DEFAULTS,
    Folded,
    FoldOptions,
    Plan,
    left_out_by,
    matched,
    planned_gains,
)
from ema_cli.parameters.saved import described
from ema_cli.parameters.tensors import Array, TensorInfo, fold_in, is_averaged, rounded
from ema_cli.state_options import differences

VERSION = 1
_KIND = "ema-weights average"
_STATE_KIND = "ema-weights state"
_STATE_HINT = "a new name for --resume, which is made where there is none"
# Elements folded at once: 2 MiB in float64, small enough to stay in the processor's cache from step to step.
_SLICE = 1 << 18


@dataclass(frozen=True)
class SavedFold:
    """A fold as it was left: the open file of its float64 averages, the files so far, the normaliser."""

    checkpoint: Checkpoint
    files: list[Folded]
    weight: float


def fold(
    given: Sequence[str],
    output: str,
    options: FoldOptions,
    *,
    resume: str | None = None,
    force: bool = False,
) -> Plan:
    """Fold the checkpoints into `output` (.safetensors or .npz), and say what was done.

    resume: the state to carry on from, and to save to once the output is complete; made where there is none.
    Output and state are each the old file or the complete new one. Raises EmaError and leaves both alone.
    """
    with planned(given, options, resume) as (plan, saved):
        write_fold(plan, saved, output, options, resume=resume, force=force)
    return plan


def write_fold(
    plan: Plan,
    saved: SavedFold | None,
    output: str,
    options: FoldOptions,
    *,
    resume: str | None = None,
    force: bool = False,
) -> None:
    """Carry out what `planned` worked out; see `fold`."""
    make_writer = writer_for(output)
    _check_places(output, resume, plan)
    if not force and os.path.lexists(output) and not is_special(Path(output)):
        raise FileTrouble(output, "exists", "--force writes over it")
    with contextlib.ExitStack() as files:
        # Entered first, so renamed last: no state is saved before the output is complete.
        state = None if resume is None else files.enter_context(_state_writer(resume, plan, options))
        out = files.enter_context(atomic_write(output))
        writer = files.enter_context(make_writer(out, output, plan.tensors, _metadata(plan, options)))
        for info in writer.order:
            for start in range(0, max(info.size, 1), _SLICE):
                average = _folded_slice(plan, saved, info, (start, min(start + _SLICE, info.size)))
                writer.write(info, _fitting(average, info))
                if state is not None:
                    state.write(_state_info(info), average)


@contextlib.contextmanager
def planned(
    given: Sequence[str], options: FoldOptions, resume: str | None = None
) -> Iterator[tuple[Plan, SavedFold | None]]:
    """What `fold` would do, and the state it would carry on; no tensor's values are read. Raises EmaError."""
    names = expanded(given)
    if not names:
        raise OptionError(
            "no checkpoint given", "ema-weights step_*.safetensors --decay 0.9 -o ema.safetensors"
        )
    with contextlib.ExitStack() as open_files:
        saved = None
        if resume is not None:
            writer_for(resume)
            if Path(resume).exists():
                saved = _open_saved(open_files, resume, options)
        files, weight = planned_gains(
            names, options, saved.files if saved else (), saved.weight if saved else 0.0
        )
        checkpoints = [open_files.enter_context(open_checkpoint(name, options.key)) for name in names]
        _refuse_states(checkpoints)
        found = matched(checkpoints, saved.checkpoint.tensors if saved else None, options)
        yield (
            Plan(checkpoints, files, weight, found.tensors, found.sources, found.left_out, found.tied),
            saved,
        )


def notes(plan: Plan, saved: SavedFold | None) -> list[str]:
    """What the user should know of the plan though it is no error."""
    said: list[str] = []
    names = [file.name for file in plan.files]
    new = names[len(names) - len(plan.checkpoints) :]
    if swapped := out_of_order(new):
        said.append(f"the order given is kept, in which {swapped[0]} comes before {swapped[1]}")
    if saved is not None:
        said += [
            f"{name} is in the saved fold already and counts again"
            for name in new
            if name in names[: -len(new)]
        ]
    weights = plan.weights()
    if len(weights) > 2 and weights[0] > 0.5 and weights[0] > 1.5 * weights[-1]:
        said.append(
            f"{names[0]}, the oldest, has {weights[0]:.0%} of the weight; without --init first or "
            "with a lower decay it has less"
        )
    if plan.left_out:
        said.append(
            f"{len(plan.left_out)} tensors left out, not alike in all: {', '.join(plan.left_out[:8])}"
        )
    return said


def _check_places(output: str, resume: str | None, plan: Plan) -> None:
    if resume is None:
        return
    state = os.path.realpath(resume)
    for name, what in [
        (output, "the output"),
        *((checkpoint.name, "a checkpoint") for checkpoint in plan.checkpoints),
    ]:
        if os.path.realpath(name) == state:
            raise OptionError(f"--resume {resume} is {what}, too", _STATE_HINT)


def _refuse_states(checkpoints: Sequence[Checkpoint]) -> None:
    for checkpoint in checkpoints:
        with contextlib.suppress(StateError):
            described(checkpoint.metadata, _STATE_KIND, checkpoint.name, "")
            raise DataError(
                f"{checkpoint.name}: is the state of a fold, no checkpoint",
                hint=f"--resume {checkpoint.name} carries it on",
            )


def _open_saved(open_files: contextlib.ExitStack, name: str, options: FoldOptions) -> SavedFold:
    """The saved fold, its options compared with these; StateError says which differ."""
    checkpoint = open_files.enter_context(open_checkpoint(name))
    said = described(checkpoint.metadata, _STATE_KIND, name, _STATE_HINT)
    if said.get("version") != VERSION:
        raise StateError(f"{name}: is of version {said.get('version')!r}, not {VERSION}", _STATE_HINT)
    try:
        files = [Folded(str(f["name"]), float(f["gain"]), f["step"]) for f in said["files"]]
        weight, saved_options = float(said["weight"]), dict(said["options"])
        sound = bool(files) and np.isfinite(weight) and all(0.0 <= f.gain <= 1.0 for f in files)
        sound = sound and all(f.step is None or isinstance(f.step, int) for f in files)
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise StateError(f"{name}: is damaged", _STATE_HINT)
    for info in checkpoint.tensors.values():
        if is_averaged(info.dtype) and info.dtype != np.float64:
            raise StateError(
                f"{name}: {info.name!r} is {info.dtype.name}; rounded, it would not go on as the same fold"
            )
    saved_options.pop("decay", None)  # alpha once more, for readers
    for option, was, value in differences(saved_options, options.signature(), SIGNATURE_DEFAULTS):
        raise StateError(
            f"{name}: was made with {_option(option, was)}, not {_option(option, value)}",
            f"the option as before, or {_STATE_HINT}",
        )
    return SavedFold(checkpoint, files, weight)


def _option(name: str, value: Any) -> str:
    """An option and its value as they are typed."""
    if name == "alpha" and isinstance(value, float):
        return f"--decay {1.0 - value:.10g} (--alpha {value:.10g})"
    if isinstance(value, bool) or value == []:
        return f"--{name}" if value is True else f"no --{name}"
    return " ".join(f"--{name} {part}" for part in (value if isinstance(value, list) else [value]))


def _provenance(options: FoldOptions) -> dict[str, Any]:
    return {"version": VERSION, "options": {**options.signature(), "decay": options.decay.rest}}


def _metadata(plan: Plan, options: FoldOptions) -> dict[str, str]:
    """The newest checkpoint's own metadata (loaders want its `format`), and where the average comes from."""
    said = {
        "kind": _KIND,
        **_provenance(options),
        "files": [
            {"name": file.name, "weight": weight, **({} if file.step is None else {"step": file.step})}
            for file, weight in zip(plan.files, plan.weights(), strict=True)
        ],
    }
    return {**plan.checkpoints[-1].metadata, METADATA_KEY: json.dumps(said, sort_keys=True)}


@contextlib.contextmanager
def _state_writer(name: str, plan: Plan, options: FoldOptions) -> Iterator[CheckpointWriter]:
    said = {
        "kind": _STATE_KIND,
        **_provenance(options),
        "files": [{"name": file.name, "gain": file.gain, "step": file.step} for file in plan.files],
        "weight": plan.weight,
    }
    metadata = {METADATA_KEY: json.dumps(said, sort_keys=True)}
    infos = [_state_info(info) for info in plan.tensors]
    with atomic_write(name) as out, writer_for(name)(out, name, infos, metadata) as writer:
        yield writer


def _state_info(info: TensorInfo) -> TensorInfo:
    dtype = np.dtype(np.float64) if is_averaged(info.dtype) else info.dtype
    return TensorInfo(info.name, dtype, info.shape)


def _folded_slice(plan: Plan, saved: SavedFold | None, info: TensorInfo, part: tuple[int, int]) -> Array:
    """The slice's average in float64, or the newest checkpoint's own integers."""
    if not is_averaged(info.dtype):
        return plan.checkpoints[-1].read(plan.sources[-1][info.name], *part)
    average: Array | None = None
    if saved is not None:
        average = np.array(saved.checkpoint.read(saved.checkpoint.tensors[info.name], *part), np.float64)
    for checkpoint, source, gain in zip(plan.checkpoints, plan.sources, plan.gains, strict=True):
        values = np.array(checkpoint.read(source[info.name], *part), np.float64)
        if not np.isfinite(values).all():
            raise DataError(
                f"{checkpoint.name}: tensor {source[info.name].name!r} holds NaN or infinity, which "
                "would stay in the average",
                hint=f"another checkpoint in its place; or the tensor: {left_out_by(info.name)}",
            )
        if average is None:
            average = values
        else:
            fold_in(average, values, gain)
    assert average is not None  # there is at least one checkpoint: planned
    return average


def _fitting(average: Array, info: TensorInfo) -> Array:
    if average.dtype == info.dtype:
        return average
    fitting = rounded(average, info.dtype)
    if is_averaged(info.dtype) and not np.isfinite(fitting).all():
        raise DataError(
            f"tensor {info.name!r} has values that {info.dtype.name} can't hold", hint="--dtype float32"
        )
    return fitting


def summary(plan: Plan, options: FoldOptions) -> Mapping[str, Any]:
    """What -v and --dry-run print: counts, and decay, alpha and half-life as they were understood."""
    averaged = sum(is_averaged(info.dtype) for info in plan.tensors)
    alpha = options.decay.alpha
    return {
        "decay": options.decay.rest,
        "alpha": alpha,
        "halflife": float("inf") if alpha == 0 else 0.0 if alpha == 1 else -np.log(2.0) / np.log1p(-alpha),
        "unit": "steps" if options.per_step else "checkpoints",
        "corrected": options.corrected,
        "averaged": averaged,
        "copied": len(plan.tensors) - averaged,
    }
