"""What a fold of checkpoints will do, worked out and checked before a single value is read."""

from __future__ import annotations

import fnmatch
import glob
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ema_cli.errors import DataError, OptionError
from ema_cli.parameters.checkpoints import Checkpoint
from ema_cli.parameters.checkpoints.naming import step_of
from ema_cli.parameters.lengths import DECAYS, Length
from ema_cli.parameters.post_hoc import Fit, Profile, fit, gamma_at_end
from ema_cli.parameters.power import gamma_of, snapshot_said
from ema_cli.parameters.tensors import TensorInfo, dtype_named, is_averaged, refusal, some_of

_LISTED = 8


@dataclass(frozen=True)
class FoldOptions:
    """The options of a fold.

    lengths: the averages that are wanted, all of one family.
    corrected: weights decay^age, normalised; else the first checkpoint is the average so far.
    per_step: the decay is per step, and the names say how many steps lie between two checkpoints.
    intersection: tensors that not all checkpoints have alike are left out, not an error.
    include, exclude: patterns of names, after `strip_prefix` was taken off. key: the dict in a torch file.
    dtype: of the averaged tensors in the output; None for the newest checkpoint's.
    """

    lengths: tuple[Length, ...]
    corrected: bool = True
    per_step: bool = False
    intersection: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    strip_prefix: tuple[str, ...] = ()
    key: str | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        length = self.lengths[0]
        if length.family not in DECAYS and not self.corrected:
            raise OptionError(f"--init first is for a decay, not for --{length.family}", "leave out --init")
        if length.family not in DECAYS and self.per_step:
            raise OptionError(f"--per-step is for a decay, not for --{length.family}", "leave out --per-step")

    def signature(self, length: Length) -> dict[str, Any]:
        """What must be the same for a saved state to be carried on."""
        return {
            **length.signature(),
            "init": "corrected" if self.corrected else "first",
            "per-step": self.per_step,
            "keys": "intersection" if self.intersection else "same",
            "include": list(self.include),
            "exclude": list(self.exclude),
        }


# What each of these options is in a state that was written before there was such an option.
SIGNATURE_DEFAULTS: dict[str, Any] = {
    "init": "corrected",
    "per-step": False,
    "keys": "same",
    "include": [],
    "exclude": [],
}


@dataclass(frozen=True)
class Folded:
    """A checkpoint's part in the fold: its share in the average at the moment when it was folded in."""

    name: str
    gain: float
    step: int | None


@dataclass(frozen=True)
class SavedFold:
    """A fold as it was left: the open file of its float64 averages, the files so far, the normaliser."""

    checkpoint: Checkpoint
    files: list[Folded]
    weight: float


@dataclass
class AveragePlan:
    """One of the averages that a fold makes.

    Attributes
    ----------
    length : what was asked for.
    files : all checkpoints ever folded in, those of this run last.
    weight : the normaliser after them.
    coefficients : the weight of each checkpoint of this run, where they are not made of gains; they may be
        negative, and there is no carrying on from them.
    fit : how a post-hoc average was fitted.
    saved : what is carried on.
    """

    length: Length
    files: list[Folded]
    weight: float
    coefficients: list[float] | None = None
    fit: Fit | None = None
    saved: SavedFold | None = None

    @property
    def gains(self) -> list[float]:
        """The gains of the checkpoints to be folded now."""
        return [file.gain for file in self.files[len(self.saved.files) if self.saved else 0 :]]

    @property
    def scale(self) -> float:
        """What the average of the gains is multiplied by: 1, or what given weights add up to."""
        given = self.length.family == "weights" and self.coefficients is None
        return self.weight if given and not math.isclose(self.weight, 1.0, rel_tol=1e-9) else 1.0

    def weights(self) -> list[float]:
        """Each file's weight: its gain, faded by every gain after it."""
        if self.coefficients is not None:
            return self.coefficients
        weights: list[float] = []
        left = self.scale
        for file in reversed(self.files):
            weights.append(file.gain * left)
            left *= 1.0 - file.gain
        return weights[::-1]


@dataclass
class Plan:
    """What a fold will do.

    checkpoints: to be folded now. averages: what they are folded into.
    tensors: what comes out, each with the name it has in every checkpoint. left_out: what does not.
    """

    checkpoints: Sequence[Checkpoint]
    averages: list[AveragePlan]
    tensors: list[TensorInfo] = field(default_factory=list)
    sources: list[dict[str, TensorInfo]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    tied: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def planned_average(
    length: Length, checkpoints: Sequence[Checkpoint], options: FoldOptions, saved: SavedFold | None
) -> AveragePlan:
    """The average of these checkpoints, after those of `saved`. Raises DataError or OptionError."""
    names = [checkpoint.name for checkpoint in checkpoints]
    if length.post_hoc:
        profiles = [profile_of(checkpoint) for checkpoint in checkpoints]
        end = max(profile.step for profile in profiles)
        sigma_rel = length.family == "sigma-rel"
        found = fit(profiles, gamma_of(length.number) if sigma_rel else gamma_at_end(length.number, end))
        files = [Folded(name, 0.0, profile.step) for name, profile in zip(names, profiles, strict=True)]
        return AveragePlan(length, files, 1.0, found.coefficients, found)
    if length.family == "weights":
        return _weighted(length, names, saved)
    files, weight = planned_gains(names, options, length, saved)
    return AveragePlan(length, files, weight, saved=saved)


def profile_of(checkpoint: Checkpoint) -> Profile:
    """What a post-hoc fit is to know of a checkpoint: from its metadata, or the step in its name."""
    said = snapshot_said(checkpoint.metadata, checkpoint.name)
    return Profile(step_of(checkpoint.name)) if said is None else Profile(said.step, said.gamma)


def _weighted(length: Length, names: Sequence[str], saved: SavedFold | None) -> AveragePlan:
    """Weights as they were given. Those that may be negative have no running mean to carry on from."""
    if len(length.weights) != len(names):
        raise OptionError(
            f"--weights {length.text}: {len(length.weights)} weights for {len(names)} checkpoints",
            "as many weights as checkpoints, in their order",
        )
    if min(length.weights) < 0.0:
        if saved is not None:
            raise OptionError("--resume can't carry on with negative weights", "all checkpoints at once")
        return AveragePlan(length, [Folded(name, 0.0, None) for name in names], 1.0, list(length.weights))
    files, weight = list(saved.files if saved else ()), saved.weight if saved else 0.0
    for name, given in zip(names, length.weights, strict=True):
        weight += given
        files.append(Folded(name, given / weight if files and weight else 1.0, None))
    if weight == 0.0:
        raise OptionError(f"--weights {length.text}: they add up to nothing", "--weights 0.5,0.3,0.2")
    return AveragePlan(length, files, weight, saved=saved)


def planned_gains(
    names: Sequence[str], options: FoldOptions, length: Length, saved: SavedFold | None = None
) -> tuple[list[Folded], float]:
    """The saved files and then `names`, each with its gain; and the normaliser after the last.

    d = decay, or decay^(steps since the last checkpoint). Corrected: W ← d·W + 1, gain 1/W, which makes the
    weights d^age / Σ d^age, as pandas' `adjust=True`; else gain 1 − d, and 1 for the very first.
    Raises DataError where steps do not grow.
    """
    assert length.decay is not None  # the other families go elsewhere: planned_average
    files, weight = list(saved.files if saved else ()), saved.weight if saved else 0.0
    for name in names:
        step = step_of(name) if options.per_step else None
        decay, alpha = length.decay.rest, length.decay.alpha
        if step is not None and files:
            gap = step - (files[-1].step or 0)
            if gap <= 0:
                raise DataError(
                    f"{name}: step {step} comes after step {files[-1].step} of {files[-1].name}",
                    hint="give the checkpoints in the order of their steps",
                )
            if gap > 1 and 0.0 < alpha < 1.0:
                decay, alpha = over(gap, alpha)
        weight = decay * weight + 1.0 if options.corrected else 1.0
        gain = 1.0 / weight if options.corrected else alpha
        files.append(Folded(name, gain if files else 1.0, step))
    return files, weight


def over(gap: int, alpha: float) -> tuple[float, float]:
    """decay^gap and 1 − decay^gap, the latter with the digits that a subtraction would lose."""
    log = gap * math.log1p(-alpha)
    return math.exp(log), -math.expm1(log)


@dataclass(frozen=True)
class Matched:
    """What comes out, and where its values are.

    tensors: as they are to be written. sources: each checkpoint's own tensors by those names.
    left_out: names that not all checkpoints have alike. tied: names that the newest checkpoint has for a
    tensor of another name; they are not written.
    """

    tensors: list[TensorInfo]
    sources: list[dict[str, TensorInfo]]
    left_out: list[str]
    tied: dict[str, str]


def matched(checkpoints: Sequence[Checkpoint], saved: Sequence[SavedFold], options: FoldOptions) -> Matched:
    """Which tensors are folded. Raises DataError, listing them, where names, shapes or kinds differ."""
    chosen = [_selected(checkpoint, options) for checkpoint in checkpoints]
    newest, newest_name = chosen[-1], checkpoints[-1].name
    tied = _tied(newest)
    others = [(source, checkpoint.name) for source, checkpoint in zip(chosen, checkpoints, strict=True)]
    others += [(dict(fold.checkpoint.tensors), "the saved state") for fold in saved]
    differences: list[str] = []
    left_out: set[str] = set()
    for source, name in others:
        # A name that is tied to one that both have is the same tensor, whether the other file has it or not.
        known = {**newest, **{alias: newest[to] for alias, to in _tied(source).items() if to in newest}}
        for tensor in [*newest, *(other for other in source if other not in known)]:
            if tensor not in tied and (said := _difference(newest.get(tensor), source.get(tensor))):
                differences.append(f"{tensor!r} {said.format(newest=newest_name, other=name)}")
                left_out.add(tensor)
    if differences and not options.intersection:
        raise DataError(_listed(differences), hint=_to_match(newest, chosen))
    own = snapshot_said(checkpoints[-1].metadata, newest_name)
    kept = [
        _typed(tensor, info, options.dtype or (own.dtypes.get(info.name) if own else None))
        for tensor, info in newest.items()
        if tensor not in left_out and tensor not in tied
    ]
    if not kept:
        raise DataError("the checkpoints share no tensor", hint=_to_match(newest, chosen))
    return Matched(kept, chosen, sorted(left_out), tied)


def _tied(source: Mapping[str, TensorInfo]) -> dict[str, str]:
    """The names of tensors that came up under another name before: that name."""
    first: dict[str, str] = {}
    return {name: to for name, info in source.items() if (to := first.setdefault(info.name, name)) != name}


def _to_match(newest: Mapping[str, TensorInfo], chosen: Sequence[Mapping[str, TensorInfo]]) -> str:
    """What makes checkpoints alike: the prefix that one of them has more than the newest, or less."""
    for other in chosen:
        for longer, shorter in ((other, newest), (newest, other)):
            one = next(iter(shorter))
            for prefix in (name.removesuffix(one) for name in longer if name.endswith(f".{one}")):
                if all(f"{prefix}{name}" in longer for name in shorter):
                    return f"--strip-prefix {shlex.quote(prefix)} takes it off their names"
    share = any(newest.keys() & other.keys() for other in chosen[:-1])
    return "--keys intersection folds what they share" if share else "--strip-prefix takes a prefix off"


def _selected(checkpoint: Checkpoint, options: FoldOptions) -> dict[str, TensorInfo]:
    """The checkpoint's tensors by the names they get in the output; tied names last."""
    chosen: dict[str, TensorInfo] = {}
    refused: dict[str, str] = {}
    own = {name: (name, info) for name, info in checkpoint.tensors.items()}
    for given, info in [*own.values(), *((alias, own[to][1]) for alias, to in checkpoint.tied.items())]:
        name = _output_name(given, options)
        if name is None:
            continue
        if name in chosen:
            raise DataError(
                f"{checkpoint.name}: {given!r} and {chosen[name].name!r} are both {name!r} without prefix"
            )
        if why := refusal(info.dtype):
            refused[name] = f"tensor {given!r} {why}"
        chosen[name] = info
    for given, why in checkpoint.refused.items():
        if (name := _output_name(given, options)) is not None:
            refused[name] = f"tensor {given!r} {why}"
    _check_all_known(checkpoint, refused, options)
    if not chosen:
        has = some_of(list(checkpoint.tensors)) if checkpoint.tensors else "none at all"
        raise DataError(f"{checkpoint.name}: no tensor is chosen of those it has: {has}")
    return chosen


def _check_all_known(checkpoint: Checkpoint, refused: Mapping[str, str], options: FoldOptions) -> None:
    """Raise DataError, listing them, where there are tensors that are refused, or what is no tensor."""
    if len(refused) == 1:
        ((name, why),) = refused.items()
        raise DataError(f"{checkpoint.name}: {why}", hint=left_out_by(name))
    if refused:
        said = f"{checkpoint.name}: {len(refused)} tensors can be neither averaged nor copied:"
        raise DataError(said + _lines(list(refused.values())), hint=left_out_by(*refused))
    names = [_output_name(other, options) for other in checkpoint.others]
    if strange := [name for name in names if name is not None]:
        dicts = " or ".join(f"--key {key}" for key in checkpoint.keys)
        raise DataError(
            f"{checkpoint.name}: holds more than tensors: {some_of(strange)}",
            hint=dicts or left_out_by(*strange),
        )


def left_out_by(*names: str) -> str:
    """The options that leave tensors out, as they are to be typed; the first few where there are many."""
    options = " ".join(f"--exclude {shlex.quote(glob.escape(name))}" for name in names[:_LISTED])
    return f"{options} leaves {'it' if len(names) == 1 else 'them'} out"


def _output_name(name: str, options: FoldOptions) -> str | None:
    """The name without prefixes; None for what is not chosen."""
    for prefix in options.strip_prefix:
        name = name.removeprefix(prefix)
    included = not options.include or any(fnmatch.fnmatchcase(name, p) for p in options.include)
    excluded = any(fnmatch.fnmatchcase(name, p) for p in options.exclude)
    return name if included and not excluded else None


def _difference(newest: TensorInfo | None, other: TensorInfo | None) -> str:
    if other is None:
        return "is missing in {other}"
    if newest is None:
        return "is missing in {newest}"
    if newest.shape != other.shape:
        return f"is {list(other.shape)} in {{other}}, {list(newest.shape)} in {{newest}}"
    if is_averaged(newest.dtype) != is_averaged(other.dtype):
        return f"is {other.dtype.name} in {{other}}, {newest.dtype.name} in {{newest}}"
    return ""


def _typed(name: str, info: TensorInfo, dtype: str | None) -> TensorInfo:
    """What comes out: the newest tensor under its output name, in the dtype that is asked for."""
    wanted = dtype_named(dtype) if dtype is not None and is_averaged(info.dtype) else info.dtype
    return TensorInfo(name, wanted, info.shape)


def _listed(differences: list[str]) -> str:
    return "the checkpoints do not hold the same tensors:" + _lines(differences)


def _lines(texts: list[str]) -> str:
    more = len(texts) - _LISTED
    shown = "".join(f"\n  {line}" for line in texts[:_LISTED])
    return shown + (f"\n  and {more} more" if more > 0 else "")
