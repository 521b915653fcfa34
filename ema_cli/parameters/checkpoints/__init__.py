"""Checkpoints as streams of tensors: opened by suffix, read and written a slice at a time.

A reader is a `Checkpoint`, a writer a `CheckpointWriter`; one file format, one file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from ema_cli.errors import FileTrouble, OptionError
from ema_cli.parameters.checkpoints.stream import METADATA_KEY, Checkpoint, CheckpointWriter
from ema_cli.parameters.tensors import TensorInfo

__all__ = ["METADATA_KEY", "Checkpoint", "CheckpointWriter", "format_of", "open_checkpoint", "writer_for"]

WriterMaker = Callable[[BinaryIO, str, Sequence[TensorInfo], dict[str, str]], CheckpointWriter]

_INDEXES = (".safetensors.index.json", ".bin.index.json")
_TORCH = (".pt", ".pth", ".ckpt", ".bin")


def format_of(name: str | os.PathLike[str]) -> str | None:
    """`safetensors`, `index`, `npz` or `torch` by the suffix; None for any other."""
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
    kind = format_of(name)
    if key is not None and kind != "torch":
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
    raise FileTrouble(
        name, "is no checkpoint by its suffix", f".safetensors, *{_INDEXES[0]}, .npz, {', '.join(_TORCH)}"
    )


def writer_for(name: str | os.PathLike[str]) -> WriterMaker:
    """What makes the writer for the suffix of `name`; OptionError for any but .safetensors and .npz."""
    kind = format_of(name)
    if kind == "safetensors":
        from ema_cli.parameters.checkpoints.safetensors import SafetensorsWriter

        return SafetensorsWriter
    if kind == "npz":
        from ema_cli.parameters.checkpoints.npz import NpzWriter

        return NpzWriter
    raise OptionError(
        f"{os.fspath(name)}: checkpoints are written as .safetensors or .npz",
        f"{Path(name).stem}.safetensors",
    )
