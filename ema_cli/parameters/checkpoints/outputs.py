"""Where an average goes: one file, or a folder of shards with their index, complete or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ema_cli.errors import FileTrouble, OptionError
from ema_cli.io.atomic import atomic_write, is_special, sync_folder, wording
from ema_cli.io.output import write_all
from ema_cli.io.temporary import at_interrupt, temporary_path
from ema_cli.parameters.checkpoints import WRITTEN, format_of, writer_for
from ema_cli.parameters.checkpoints.safetensors import SafetensorsWriter, written_order
from ema_cli.parameters.checkpoints.shards import read_index
from ema_cli.parameters.checkpoints.stream import CheckpointWriter
from ema_cli.parameters.tensors import Array, TensorInfo

# What transformers' save_pretrained writes beside the weights, and wants to find beside them.
BESIDE = (
    *(
        "adapter_config.json",
        "config.json",
        "generation_config.json",
        "preprocessor_config.json",
        "processor_config.json",
    ),
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja"),
)
# Files of weights that their loaders (peft, diffusers) want to find under these names, not under `model`.
_STEMS = ("adapter_model", "diffusion_pytorch_model")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_INDEX = ".safetensors.index.json"
_SHARDED = 5 * 10**9


@dataclass(frozen=True)
class Target:
    """One output. folder: of a sharded model, whose files begin with `stem`; None for a single file.

    index: always write one, as it was asked for by name; else a model that fits one shard has none.
    """

    name: str
    folder: Path | None = None
    stem: str = "model"
    index: bool = False
    shard_bytes: int = _SHARDED

    @property
    def single(self) -> Path:
        """The file of a model in one piece."""
        return Path(self.name) if self.folder is None else self.folder / f"{self.stem}.safetensors"

    @property
    def index_file(self) -> Path:
        assert self.folder is not None  # of a single file there is none
        return self.folder / f"{self.stem}{_INDEX}"


def make_target(output: str, shard_size: str | None = None, like: str = "") -> Target:
    """The target that `-o` names; in a folder, files are called as those of `like`, a checkpoint.

    Raises OptionError where it is no checkpoint's name.
    """
    shard_bytes = _SHARDED if shard_size is None else parse_size(shard_size)
    if output.lower().endswith(_INDEX):
        path = Path(output)
        return Target(output, path.parent, path.name[: -len(_INDEX)], True, shard_bytes)
    if output.endswith(("/", os.sep)) or Path(output).is_dir():
        stem = next((stem for stem in _STEMS if Path(like).name.startswith(f"{stem}.")), "model")
        return Target(output, Path(output), stem, shard_bytes=shard_bytes)
    if format_of(output) not in WRITTEN:
        raise OptionError(
            f"{output}: checkpoints are written as .safetensors, .npz or .pt, or into a folder",
            f"{Path(output).stem}.safetensors, or {Path(output).stem}/",
        )
    if shard_size is not None:
        raise OptionError(
            f"--shard-size: {output} is one file", f"-o {Path(output).stem}/ for a folder of shards"
        )
    return Target(output)


def parse_size(text: str) -> int:
    """Bytes in `5GB` (10^9), `500MB`, `2GiB` (2^30) or a plain number. Raises OptionError."""
    found = _SIZE.fullmatch(text.strip())
    size = 0
    if found is not None:
        size = int(float(found[1]) * (1024 if found[3] else 1000) ** " kmgt".index(found[2].lower() or " "))
    if size < 1:
        raise OptionError(f"--shard-size {text}: no size in bytes", "--shard-size 5GB")
    return size


def check_target(target: Target, *, force: bool) -> None:
    """Raise FileTrouble where the output is there already and may not be replaced."""
    if target.folder is None:
        there = [target.single] if os.path.lexists(target.single) and not is_special(target.single) else []
    else:
        there = [path for path in (target.single, target.index_file) if os.path.lexists(path)]
        if os.path.lexists(target.folder) and not target.folder.is_dir():
            raise FileTrouble(str(target.folder), "is no folder", "another name for -o")
        needed = target.folder if target.index else target.folder.parent
        if not needed.is_dir():
            raise FileTrouble(target.name, "no such folder", f"make it first: mkdir -p {needed}")
    if there and not force:
        raise FileTrouble(str(there[0]), "exists", "--force writes over it")


@contextlib.contextmanager
def open_target(
    target: Target, infos: Sequence[TensorInfo], metadata: Mapping[str, str], beside: Path | None = None
) -> Iterator[CheckpointWriter]:
    """The writer of an output, which is in its place, complete, at the end of the block.

    beside: a folder whose configuration and tokenizer go with the model. Raises FileTrouble.
    """
    if target.folder is None:
        make_writer = writer_for(target.name)
        with atomic_write(target.name) as out, make_writer(out, target.name, infos, metadata) as writer:
            yield writer
        return
    # Loaders of shards ask what wrote them.
    metadata = {"format": "pt", **metadata}
    new = not target.folder.exists()
    temporary = temporary_path(target.folder) if new else temporary_path(target.folder / target.stem)
    with _removed_afterwards(temporary), wording(target.name):
        temporary.mkdir()
        with ShardWriter(temporary, target, infos, metadata) as shards:
            yield shards
        if beside is not None:
            _copy_beside(beside, temporary, target.folder)
        if new:
            temporary.replace(target.folder)
            sync_folder(target.folder.parent)
        else:
            _move_in(temporary, target, shards)


@contextlib.contextmanager
def _removed_afterwards(folder: Path) -> Iterator[None]:
    def remove() -> None:
        shutil.rmtree(folder, ignore_errors=True)

    with at_interrupt(remove):
        try:
            yield
        finally:
            remove()


def _copy_beside(source: Path, into: Path, target: Path) -> None:
    for name in BESIDE:
        if (source / name).is_file() and not (target / name).exists():
            with (source / name).open("rb") as there, atomic_write(into / name) as out:
                write_all(out, there.read())


def _move_in(temporary: Path, target: Target, shards: ShardWriter) -> None:
    """Put the files into a folder that is there; the last step to count is one rename, or one removal.

    Loaders take a model in one piece first, then the index. New shards have names that no file there has,
    so that the old index and its shards are whole until the new one takes its place.
    """
    assert target.folder is not None
    old = set(read_index(str(target.index_file))[0].values()) if target.index_file.is_file() else set()
    last = target.single if shards.in_one_piece else target.index_file
    *before, decisive = sorted(temporary.iterdir(), key=lambda path: path.name == last.name)
    for path in before:
        path.replace(target.folder / path.name)
    # On the disk, too, all is there before the index leads to it, and that before anything goes.
    sync_folder(target.folder)
    decisive.replace(target.folder / decisive.name)
    sync_folder(target.folder)
    if not shards.in_one_piece:
        target.single.unlink(missing_ok=True)
    else:
        target.index_file.unlink(missing_ok=True)
    for name in old - set(shards.names):
        (target.folder / name).unlink(missing_ok=True)


class ShardWriter(CheckpointWriter):
    """Writes a model as shards of safetensors, one after the other, and their index last.

    Tensors go in the model's order, each whole into one shard; one that is larger has a shard of its own.
    """

    def __init__(
        self, into: Path, target: Target, infos: Sequence[TensorInfo], metadata: Mapping[str, str]
    ) -> None:
        self._into, self._target, self._metadata = into, target, metadata
        parts = [written_order(part) for part in _parts(infos, target.shard_bytes)]
        self.in_one_piece = len(parts) == 1 and not target.index
        self.names = [target.single.name] if self.in_one_piece else _names(target, len(parts))
        self.order = [info for part in parts for info in part]
        self._parts = dict(zip(self.names, parts, strict=True))
        self._places = {info.name: name for name, part in self._parts.items() for info in part}
        self._open: tuple[str, SafetensorsWriter] | None = None
        self._files = ExitStack()

    def write(self, info: TensorInfo, values: Array) -> None:
        """The next values of the tensor; tensors come in the order of `order`. Raises FileTrouble."""
        shard = self._places[info.name]
        if self._open is None or self._open[0] != shard:
            self._files.close()
            name = str(self._into / shard)
            out = self._files.enter_context(atomic_write(name))
            self._open = (
                shard,
                SafetensorsWriter(out, self._target.name, self._parts[shard], self._metadata),
            )
        self._open[1].write(info, values)

    def close(self, *, complete: bool) -> None:
        """Finish the last shard and write the index."""
        if not complete:
            with contextlib.suppress(Exception):  # the whole folder is thrown away
                self._files.close()
            return
        self._files.close()
        if self.in_one_piece:
            return
        sizes = [info.size * info.dtype.itemsize for info in self.order]
        metadata = {"total_parameters": sum(info.size for info in self.order), "total_size": sum(sizes)}
        index = {"metadata": metadata, "weight_map": dict(sorted(self._places.items()))}
        with atomic_write(self._into / self._target.index_file.name) as out:
            write_all(out, (json.dumps(index, indent=2) + "\n").encode())


def _parts(infos: Sequence[TensorInfo], most: int) -> list[list[TensorInfo]]:
    parts: list[list[TensorInfo]] = [[]]
    room = most
    for info in infos:
        size = info.size * info.dtype.itemsize
        if parts[-1] and size > room:
            parts.append([])
            room = most
        parts[-1].append(info)
        room -= size
    return parts


def _names(target: Target, count: int) -> list[str]:
    """`model-00001-of-00003.safetensors` and so on; with a number before that where such files are there."""
    assert target.folder is not None
    for turn in range(1, 1 << 30):
        stem = target.stem if turn == 1 else f"{target.stem}-{turn}"
        names = [f"{stem}-{k:05}-of-{count:05}.safetensors" for k in range(1, count + 1)]
        if not any((target.folder / name).exists() for name in names):
            return names
    raise AssertionError("a folder has no room for so many names")
