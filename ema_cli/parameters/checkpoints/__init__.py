"""Checkpoints as streams of tensors: opened by suffix, read and written a slice at a time.

A reader is a `Checkpoint`, a writer a `CheckpointWriter`; one file format, one file.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from ema_cli.errors import FileTrouble, OptionError
from ema_cli.io.atomic import system_words
from ema_cli.parameters.checkpoints.content import content_of
from ema_cli.parameters.checkpoints.stream import METADATA_KEY, Checkpoint, CheckpointWriter
from ema_cli.parameters.tensors import TensorInfo

__all__ = [
    "METADATA_KEY",
    "WRITTEN",
    "Checkpoint",
    "CheckpointWriter",
    "format_of",
    "open_checkpoint",
    "open_state",
    "state_writer_for",
    "writer_for",
]

WriterMaker = Callable[[BinaryIO, str, Sequence[TensorInfo], Mapping[str, str]], CheckpointWriter]

_INDEXES = (".safetensors.index.json", ".bin.index.json")
_TORCH = (".pt", ".pth", ".ckpt", ".bin")
# The formats of one file that are written.
WRITTEN = ("safetensors", "npz", "torch")


def format_of(name: str | os.PathLike[str]) -> str | None:
    """`safetensors`, `index`, `npz` or `torch` by the suffix, `distributed` for a folder; else None."""
    if (Path(name) / ".metadata").is_file():
        return "distributed"
    lower = os.fspath(name).lower()
    if lower.endswith(_INDEXES):
        return "index"
    suffix = Path(lower).suffix
    return {".safetensors": "safetensors", ".npz": "npz", **dict.fromkeys(_TORCH, "torch")}.get(suffix)


def open_checkpoint(name: str, key: str | None = None) -> Checkpoint:
    """The checkpoint in the file, its tensors' names, dtypes and shapes read, their values not.

    key: dotted path of the dict to take from a torch file that holds several.
    Raises FileTrouble where the file is missing, damaged or of another format.
    """
    try:
        return _opened(name, key)
    except FileTrouble as error:
        # Of a model in several files it is a shard that can't be read.
        content = content_of(error.name)
        if content is None or content.format == format_of(error.name):
            raise
        raise FileTrouble(error.name, content.said, content.hint) from error


def _opened(name: str, key: str | None) -> Checkpoint:
    kind = format_of(name)
    if key is not None and kind not in ("torch", "distributed"):
        raise OptionError(f"--key picks a dict from a torch file; {name} is none", "leave out --key")
    if kind == "safetensors":
        from ema_cli.parameters.checkpoints.safetensors import SafetensorsFile

        return SafetensorsFile(name)
    if kind == "index":
        from ema_cli.parameters.checkpoints.shards import ShardedCheckpoint

        return ShardedCheckpoint(name)
    if kind == "npz":
        from ema_cli.parameters.checkpoints.npz import NpzFile

        return NpzFile(name)
    if kind == "torch":
        from ema_cli.parameters.checkpoints.pytorch import TorchFile

        return TorchFile(name, key)
    if kind == "distributed":
        from ema_cli.parameters.checkpoints.distributed import DistributedCheckpoint

        return DistributedCheckpoint(name, key)
    if not Path(name).exists():
        raise FileTrouble(name, system_words(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))))
    raise FileTrouble(
        name, "is no checkpoint by its suffix", f".safetensors, *{_INDEXES[0]}, .npz, {', '.join(_TORCH)}"
    )


def open_state(name: str) -> Checkpoint:
    """The state in the file, whatever it is called: an archive or safetensors, as its first bytes say."""
    try:
        with Path(name).open("rb") as file:
            archive = file.read(4) == b"PK\x03\x04"
    except OSError as error:
        raise FileTrouble(name, system_words(error)) from error
    if archive:
        from ema_cli.parameters.checkpoints.npz import NpzFile

        return NpzFile(name)
    from ema_cli.parameters.checkpoints.safetensors import SafetensorsFile

    return SafetensorsFile(name)


def writer_for(name: str | os.PathLike[str]) -> WriterMaker:
    """What makes the writer for the suffix of `name`; OptionError for any other than one file's."""
    if format_of(name) not in WRITTEN:
        raise OptionError(
            f"{os.fspath(name)}: checkpoints are written as .safetensors, .npz or .pt",
            f"{Path(name).stem}.safetensors",
        )
    if format_of(name) == "torch":
        from ema_cli.parameters.checkpoints.pytorch import TorchWriter

        return TorchWriter
    return state_writer_for(name)


def state_writer_for(name: str | os.PathLike[str]) -> WriterMaker:
    """What makes the writer of a state: an archive where it is called .npz, else safetensors."""
    if format_of(name) == "npz":
        from ema_cli.parameters.checkpoints.npz import NpzWriter

        return NpzWriter
    from ema_cli.parameters.checkpoints.safetensors import SafetensorsWriter

    return SafetensorsWriter
