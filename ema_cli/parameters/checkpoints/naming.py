"""Which files are meant and which step each is of, by their names: never by their modification times."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ema_cli.errors import FileTrouble
from ema_cli.io.names import is_pattern, matches, natural_key
from ema_cli.parameters.checkpoints import METADATA_KEY, format_of, open_checkpoint
from ema_cli.parameters.checkpoints.shards import read_index
from ema_cli.parameters.power import snapshot_said
from ema_cli.parameters.tensors import some_of

_STEP = re.compile(r"(?:step|iter|iteration)s?[-_=. ]?(\d+)", re.IGNORECASE)
# Folders of a training run: checkpoint-500, global_step1000, epoch=3-step=120, 500.
_NUMBERED = re.compile(
    r"(.*[-_.=])?(checkpoint|ckpt|step|iter|iteration|epoch|snapshot|snap)s?[-_=. ]?\d+|\d+",
    re.IGNORECASE,
)
# How a model's weights are called in a folder of its own, the first that is there counts.
MODEL_FILES = (
    *(
        "model.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
    ),
    *("adapter_model.safetensors", "adapter_model.bin"),
    *("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors.index.json"),
)
# torch.distributed.checkpoint's folder within a checkpoint of accelerate and transformers.
_FSDP = "pytorch_model_fsdp_0"
# What trainers write beside the weights: none of it is a model.
_NO_WEIGHTS = re.compile(
    r"(optimizer|optim|scheduler|lr_scheduler|scaler|grad_scaler|rng_state|random_states|training_args|sampler)"
    r"([-_.].*)?|.*_optim_states.*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Expanded:
    """The checkpoints that are meant, in order, and what the user should know of that."""

    names: list[str]
    notes: list[str]


def expanded(given: Sequence[str]) -> Expanded:
    """The checkpoints that are meant, in the order given; folders and quoted patterns in natural order.

    A folder is a checkpoint where a model lies in it, else it stands for the checkpoints in it: files, or
    folders as a training run leaves them. Raises FileTrouble for a folder or a pattern that holds none.
    """
    found = Expanded([], [])
    for name in given:
        if Path(name).is_dir():
            _add_folder(name, found)
        elif is_pattern(name):
            there = matches(name)
            if not there:
                raise FileTrouble(name, "matches no file and no folder")
            found.names.extend(_one_checkpoint(match) for match in there)
        else:
            found.names.append(name)
    return found


def _one_checkpoint(name: str) -> str:
    """A file as it is; of a folder the model in it. Raises FileTrouble where there is not one."""
    if not Path(name).is_dir():
        return name
    model = model_in(name)
    if model is None:
        raise FileTrouble(name, "is a folder without a model's weights", f"name the file: {name}/FILE")
    return model


def model_in(folder: str) -> str | None:
    """The weights in a folder that is one checkpoint: a file, an index, or a folder of torch's; else None."""
    if (known := _known_model(folder)) is not None:
        return known
    files = _weights_in(folder)
    return files[0] if len(files) == 1 else None


def _known_model(folder: str) -> str | None:
    for name in MODEL_FILES:
        if (path := Path(folder) / name).is_file():
            return str(path)
    # A folder of torch.distributed.checkpoint is the checkpoint itself.
    places = [folder, str(Path(folder) / _FSDP)]
    return next((place for place in places if (Path(place) / ".metadata").is_file()), None)


def _add_folder(folder: str, found: Expanded) -> None:
    subfolders = sorted((str(path) for path in Path(folder).iterdir() if path.is_dir()), key=natural_key)
    numbered = [path for path in subfolders if _NUMBERED.fullmatch(Path(path).name)]
    inside = {path: model_in(path) for path in numbered}
    models = [model for model in inside.values() if model and not _made_here(model)]
    own = _known_model(folder)
    if own == folder or (own and not models):
        found.names.append(own)
    elif models:
        found.names.extend(models)
        # A checkpoint that was not written to its end, or one of two models.
        if without := [path for path, model in inside.items() if model is None]:
            found.notes.append(f"left out, as there is not one model in it: {some_of(without)}")
        others = [own, *(_known_model(path) for path in subfolders if path not in numbered)]
        found.notes.extend(
            f"{other} is left out: the folders with a number are the checkpoints; name it to fold it, too"
            for other in others
            if other and not _made_here(other)
        )
    else:
        found.names.extend(_files_in(folder))


def _weights_in(folder: str) -> list[str]:
    """The checkpoint files in a folder, shards, averages and what is no model left out."""
    names = sorted((str(path) for path in Path(folder).iterdir() if path.is_file()), key=natural_key)
    names = [name for name in names if format_of(name) and not _NO_WEIGHTS.fullmatch(Path(name).name)]
    indexes = [name for name in names if format_of(name) == "index"]
    shards = {str(Path(index).parent / shard) for index in indexes for shard in read_index(index)[0].values()}
    return [name for name in names if name not in shards and not _made_here(name)]


def _files_in(folder: str) -> list[str]:
    kept = _weights_in(folder)
    kinds = sorted({str(format_of(name)).replace("index", "safetensors") for name in kept})
    if not kept:
        raise FileTrouble(
            folder, "is a folder without checkpoints", "name the files, or the folder they are in"
        )
    if len(kinds) > 1:
        raise FileTrouble(
            folder, f"holds checkpoints of several formats: {', '.join(kinds)}", "name the files"
        )
    return kept


def _made_here(name: str) -> bool:
    """True for an average or a state of ours, which must be named to be folded; snapshots need not be."""
    if Path(name).is_dir():
        return False
    if format_of(name) == "torch":
        from ema_cli.parameters.checkpoints.pytorch import metadata_in

        metadata = metadata_in(name)
    else:
        with open_checkpoint(name) as checkpoint:
            metadata = checkpoint.metadata
    return METADATA_KEY in metadata and snapshot_said(metadata, name) is None


def step_of(name: str) -> int:
    """The step in a checkpoint's name: the number after `step` or `iter`, else the last number.

    The file's own name comes first, then its folder's (`checkpoint-500/model.safetensors`). Raises
    FileTrouble where neither has a number.
    """
    path = Path(name)
    stem = path.name.split(".safetensors")[0] if format_of(name) == "index" else path.stem
    for text in (stem, path.parent.name):
        if text != _FSDP and (found := _STEP.findall(text) or re.findall(r"\d+", text)):
            return int(found[-1])
    raise FileTrouble(
        name, "has no step in its name, which is needed here", "names such as step_1000.safetensors"
    )


def out_of_order(names: Sequence[str]) -> tuple[str, str] | None:
    """The first two neighbours that numbers in their names would put the other way round."""
    for before, after in itertools.pairwise(names):
        if natural_key(before) > natural_key(after):
            return before, after
    return None
