"""A model in several files, held together by `*.safetensors.index.json` or `*.bin.index.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ema_cli.errors import FileTrouble
from ema_cli.io.atomic import system_words
from ema_cli.parameters.checkpoints.stream import Checkpoint
from ema_cli.parameters.tensors import Array, TensorInfo

INDEX = ".index.json"


class ShardedCheckpoint(Checkpoint):
    """The tensors of all shards as one checkpoint; the metadata is the index's and the first shard's."""

    def __init__(self, name: str) -> None:
        """Raises FileTrouble where the index or a shard is missing or damaged, or they disagree."""
        super().__init__(name)
        places, said = read_index(name)
        folder = Path(name).parent
        self._opened = {shard: _open(str(folder / shard)) for shard in sorted(set(places.values()))}
        self._shards: dict[str, Checkpoint] = {}
        for tensor, shard in places.items():
            self._add(tensor, self._opened[shard])
        self.others = sorted(other for shard in self._opened.values() for other in shard.others)
        first = next(iter(self._opened.values()), None)
        own = {key: value for key, value in said.items() if isinstance(value, str)}
        self.metadata = {**(first.metadata if first else {}), **own}

    def _add(self, tensor: str, shard: Checkpoint) -> None:
        if tensor in shard.tensors:
            self.tensors[tensor] = shard.tensors[tensor]
            self._shards[tensor] = shard
        elif tensor in shard.tied:
            self.tied[tensor] = shard.tied[tensor]
        elif tensor in shard.refused:
            self.refused[tensor] = shard.refused[tensor]
        else:
            raise FileTrouble(shard.name, f"lacks tensor {tensor!r}, which {self.name} says it holds")

    def read(self, info: TensorInfo, start: int, stop: int) -> Array:
        """Elements start to stop of the tensor in C order, one-dimensional. Raises FileTrouble."""
        return self._shards[info.name].read(info, start, stop)

    def read_into(self, room: Array, info: TensorInfo, start: int, stop: int) -> Array:
        return self._shards[info.name].read_into(room, info, start, stop)

    def close(self) -> None:
        for shard in self._opened.values():
            shard.close()


def _open(name: str) -> Checkpoint:
    if name.lower().endswith(".safetensors"):
        from ema_cli.parameters.checkpoints.safetensors import SafetensorsFile

        return SafetensorsFile(name)
    from ema_cli.parameters.checkpoints.pytorch import TorchFile

    return TorchFile(name)


def read_index(name: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Tensor name to shard file name, and the index's metadata.

    Raises FileTrouble for an index that is damaged or points elsewhere.
    """
    try:
        text = Path(name).read_bytes()
    except OSError as error:
        raise FileTrouble(name, system_words(error)) from error
    try:
        index: Any = json.loads(text)
        places = index["weight_map"]
        sound = all(isinstance(shard, str) for shard in places.values())
        metadata = dict(index.get("metadata") or {})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise FileTrouble(name, "is no index of shards: it has no weight_map") from None
    if not sound:
        raise FileTrouble(name, "is damaged: its weight_map names no files")
    suffix = Path(name.lower().removesuffix(INDEX)).suffix
    for shard in places.values():
        # A downloaded index must not reach files outside its own folder.
        if Path(shard).name != shard or not shard.lower().endswith(suffix):
            raise FileTrouble(name, f"points to {shard!r}, which is no {suffix} file beside it")
    return dict(places), metadata
