"""The fold of checkpoints into their averages, tensor by tensor and slice by slice."""

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
from ema_cli.io.atomic import atomic_write
from ema_cli.parameters.checkpoints import (
    METADATA_KEY,
    Checkpoint,
    CheckpointWriter,
    format_of,
    open_checkpoint,
    open_state,
    state_writer_for,
)
from ema_cli.parameters.checkpoints.naming import expanded, out_of_order
from ema_cli.parameters.checkpoints.outputs import Target, check_target, make_target, open_target
from ema_cli.parameters.lengths import Length
from ema_cli.parameters.plan import (
    SIGNATURE_DEFAULTS,
    AveragePlan,
    Folded,
    FoldOptions,
    Plan,
    SavedFold,
    matched,
    planned_average,
    profile_of,
)
from ema_cli.parameters.power import snapshot_said
from ema_cli.parameters.saved import described
from ema_cli.parameters.slices import exact, folded
from ema_cli.parameters.tensors import is_averaged
from ema_cli.state_options import differences

VERSION = 1
_KIND = "ema-weights average"
_STATE_KIND = "ema-weights state"
_STATE_HINT = "a new name for --resume, which is made where there is none"
# An output tells this many of its files by name; a comment of a zip has room for so many.
_MOST_FILES = 300


@dataclass(frozen=True)
class Places:
    """What is written. Each name may hold `{}`, where the length as it was typed takes its place.

    output: `.safetensors`, `.npz`, `.pt` or another of torch's, `*.safetensors.index.json` or a folder.
    resume: the state to carry on from, and to save to once the output is complete; made where there is none.
    """

    output: str
    resume: str | None = None
    force: bool = False
    shard_size: str | None = None


def fold(given: Sequence[str], options: FoldOptions, places: Places) -> Plan:
    """Fold the checkpoints into `places.output`, and say what was done.

    Outputs and states are each the old file or the complete new one. Raises EmaError and leaves all alone.
    """
    with planned(given, options, places.resume) as plan:
        write_fold(plan, options, places)
    return plan


@contextlib.contextmanager
def planned(given: Sequence[str], options: FoldOptions, resume: str | None = None) -> Iterator[Plan]:
    """What `fold` would do; no tensor's values are read. Raises EmaError."""
    found = expanded(given)
    if not found.names:
        raise OptionError(
            "no checkpoint given", "ema-weights step_*.safetensors --decay 0.9 -o ema.safetensors"
        )
    with contextlib.ExitStack() as open_files:
        saved = [_saved_fold(open_files, resume, length, options) for length in options.lengths]
        checkpoints = [open_files.enter_context(open_checkpoint(name, options.key)) for name in found.names]
        _refuse_states(checkpoints)
        if options.lengths[0].post_hoc:
            if resume is not None:
                raise OptionError(
                    f"--resume carries a fold on; --{options.lengths[0].family} takes all snapshots at once",
                    "leave out --resume",
                )
            checkpoints.sort(key=_by_profile)
        averages = [
            planned_average(length, checkpoints, options, before)
            for length, before in zip(options.lengths, saved, strict=True)
        ]
        tensors = matched(checkpoints, [before for before in saved if before is not None], options)
        plan = Plan(checkpoints, averages, tensors.tensors, tensors.sources, tensors.left_out, tensors.tied)
        plan.notes = [*found.notes, *_notes(plan, options)]
        yield plan


def _by_profile(checkpoint: Checkpoint) -> tuple[int, float]:
    """Sorts by step, the narrower profile of two first."""
    profile = profile_of(checkpoint)
    return profile.step, -(profile.gamma or 0.0)


def write_fold(plan: Plan, options: FoldOptions, places: Places) -> None:
    """Carry out what `planned` worked out; see `fold`."""
    newest = plan.checkpoints[-1].name
    targets = [
        make_target(_named(places.output, average.length), places.shard_size, newest)
        for average in plan.averages
    ]
    states = [None if places.resume is None else _named(places.resume, a.length) for a in plan.averages]
    _check_places(targets, [state for state in states if state is not None], plan)
    for target in targets:
        check_target(target, force=places.force)
    with contextlib.ExitStack() as files:
        # Entered first, so renamed last: no state is saved before the outputs are complete.
        saving = [
            None if state is None else files.enter_context(_state_writer(state, plan, average, options))
            for state, average in zip(states, plan.averages, strict=True)
        ]
        writers = [
            files.enter_context(
                open_target(target, plan.tensors, _metadata(plan, average, options), Path(newest).parent)
            )
            for target, average in zip(targets, plan.averages, strict=True)
        ]
        for info, slices in folded(plan, writers[0].order):
            for values, writer, state in zip(slices, writers, saving, strict=True):
                if state is not None:
                    state.write(exact(info), values.exact)
                writer.write(info, values.rounded)


def _named(pattern: str, length: Length) -> str:
    """The name for one length; a fraction's slash makes no folder."""
    return pattern.replace("{}", length.text.replace("/", "_"))


def _notes(plan: Plan, options: FoldOptions) -> list[str]:
    """What the user should know of the plan though it is no error."""
    said: list[str] = []
    first = plan.averages[0]
    names = [checkpoint.name for checkpoint in plan.checkpoints]
    if not options.lengths[0].post_hoc:
        if swapped := out_of_order(names):
            said.append(f"the order given is kept, in which {swapped[0]} comes before {swapped[1]}")
        said += _snapshot_note(plan.checkpoints)
    said += _dicts_note(plan.checkpoints[-1])
    if first.saved is not None:
        before = {file.name for file in first.saved.files}
        said += [f"{name} is in the saved fold already and counts again" for name in names if name in before]
    for average in plan.averages:
        weights = average.weights()
        if average.length.decay and len(weights) > 2 and weights[0] > 0.5 and weights[0] > 1.5 * weights[-1]:
            said.append(
                f"{average.files[0].name}, the oldest, has {weights[0]:.0%} of the weight; without "
                "--init first or with a lower decay it has less"
            )
        total = sum(weights)
        if average.length.family == "weights" and abs(total - 1.0) > 1e-9:
            said.append(f"the weights add up to {total:.10g}, not to 1; they are used as they are given")
    if plan.left_out:
        said.append(
            f"{len(plan.left_out)} tensors left out, not alike in all: {', '.join(plan.left_out[:8])}"
        )
    if plan.tied:
        said += [f"{name} is the same tensor as {to} and is stored once" for name, to in plan.tied.items()]
    return said


def _snapshot_note(checkpoints: Sequence[Checkpoint]) -> list[str]:
    snapshots = [c for c in checkpoints if snapshot_said(c.metadata, c.name) is not None]
    if not snapshots:
        return []
    return [
        f"{snapshots[0].name} is a snapshot of an average, and this an average of averages; "
        "--sigma-rel makes one of any length from snapshots"
    ]


def _dicts_note(newest: Checkpoint) -> list[str]:
    """Names of tensors begin with those of the dicts they lie in, which is seldom wanted."""
    if not newest.keys or format_of(newest.name) != "torch":
        return []
    known = " or ".join(f"--key {key}" for key in newest.keys)
    return [f"names begin with the dicts that {newest.name} holds; {known} takes one without that"]


def _check_places(targets: Sequence[Target], states: Sequence[str], plan: Plan) -> None:
    """Raise OptionError where two of the files that are read and written are the same one."""
    names = [os.path.realpath(target.name) for target in targets]
    if len(set(names)) < len(names):
        raise OptionError(
            f"-o {targets[0].name}: several lengths need an output each", "-o 'ema-{}.safetensors'"
        )
    if len({os.path.realpath(state) for state in states}) < len(states):
        raise OptionError(
            f"--resume {states[0]}: several lengths need a state each", "--resume 'fold-{}.npz'"
        )
    for state in states:
        others = [(target.name, "the output") for target in targets]
        others += [(checkpoint.name, "a checkpoint") for checkpoint in plan.checkpoints]
        for name, what in others:
            if os.path.realpath(name) == os.path.realpath(state):
                raise OptionError(f"--resume {state} is {what}, too", _STATE_HINT)


def _refuse_states(checkpoints: Sequence[Checkpoint]) -> None:
    for checkpoint in checkpoints:
        with contextlib.suppress(StateError):
            described(checkpoint.metadata, _STATE_KIND, checkpoint.name, "")
            raise DataError(
                f"{checkpoint.name}: is the state of a fold, no checkpoint",
                hint=f"--resume {checkpoint.name} carries it on",
            )


def _saved_fold(
    open_files: contextlib.ExitStack, resume: str | None, length: Length, options: FoldOptions
) -> SavedFold | None:
    """The saved fold, its options compared with these; StateError says which differ. None: there is none."""
    if resume is None or not Path(name := _named(resume, length)).exists():
        return None
    try:
        checkpoint = open_files.enter_context(open_state(name))
    except FileTrouble as error:
        raise FileTrouble(name, error.problem.removeprefix(f"{name}: "), _STATE_HINT) from error
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
    for option, was, value in differences(saved_options, options.signature(length), SIGNATURE_DEFAULTS):
        raise StateError(
            f"{name}: was made with {_option(option, was)}, not {_option(option, value)}",
            f"the option as before, or {_STATE_HINT}",
        )
    return SavedFold(checkpoint, files, weight)


def _option(name: str, value: Any) -> str:
    """An option and its value as they are typed."""
    if name == "alpha":
        return "--weights" if value is None else f"--decay {1.0 - value:.10g} (--alpha {value:.10g})"
    if isinstance(value, bool) or value == []:
        return f"--{name}" if value is True else f"no --{name}"
    return " ".join(f"--{name} {part}" for part in (value if isinstance(value, list) else [value]))


def _provenance(average: AveragePlan, options: FoldOptions) -> dict[str, Any]:
    said = options.signature(average.length)
    if average.length.decay is not None:
        said["decay"] = average.length.decay.rest
    return {"version": VERSION, "options": said}


def _metadata(plan: Plan, average: AveragePlan, options: FoldOptions) -> dict[str, str]:
    """The newest checkpoint's own metadata (loaders want its `format`), and where the average comes from."""
    files = [
        {"name": file.name, "weight": weight, **({} if file.step is None else {"step": file.step})}
        for file, weight in zip(average.files, average.weights(), strict=True)
    ]
    said = {"kind": _KIND, **_provenance(average, options), "files": files[-_MOST_FILES:]}
    if len(files) > _MOST_FILES:
        said["files_before"] = len(files) - _MOST_FILES
    if average.length.decay is None:
        said["options"] = {average.length.family: average.length.text}
    if average.fit is not None:
        said["fit"] = {
            "sigma_rel": average.fit.sigma_rel,
            "gamma": average.fit.gamma,
            "step": average.fit.step,
            "residual": average.fit.residual,
            "worst": average.fit.worst,
            "moved": average.fit.moved,
        }
    own = {key: value for key, value in plan.checkpoints[-1].metadata.items() if key != METADATA_KEY}
    return {**own, **plan.tied, METADATA_KEY: json.dumps(said, sort_keys=True)}


@contextlib.contextmanager
def _state_writer(
    name: str, plan: Plan, average: AveragePlan, options: FoldOptions
) -> Iterator[CheckpointWriter]:
    said = {
        "kind": _STATE_KIND,
        **_provenance(average, options),
        "files": [{"name": file.name, "gain": file.gain, "step": file.step} for file in average.files],
        "weight": average.weight,
    }
    metadata = {METADATA_KEY: json.dumps(said, sort_keys=True)}
    infos = [exact(info) for info in plan.tensors]
    with atomic_write(name) as out, state_writer_for(name)(out, name, infos, metadata) as writer:
        yield writer


def summary(plan: Plan, options: FoldOptions) -> Mapping[str, Any]:
    """What -v and --dry-run print: counts, and of decays alpha and half-life as they were understood."""
    averaged = sum(is_averaged(info.dtype) for info in plan.tensors)
    return {
        "unit": "steps" if options.per_step else "checkpoints",
        "corrected": options.corrected,
        "averaged": averaged,
        "copied": len(plan.tensors) - averaged,
    }
