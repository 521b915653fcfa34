"""A model in several safetensors files, held together by `*.safetensors.index.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ema_cli.errors import FileTrouble
from ema_cli.io.atomic import system_words
from ema_cli.parameters.checkpoints.safetensors import SafetensorsFile
from ema_cli.parameters.checkpoints.stream import NothingToClose
from ema_cli.parameters.tensors import Array, TensorInfo


class ShardedSafetensors(NothingToClose):
    """The tensors of all shards as one checkpoint; the metadata is the first shard's."""

    def __init__(self, name: str) -> None:
        """Raises FileTrouble where the index or a shard is missing or damaged, or they disagree."""
        self.name = name
        self.others: Sequence[str] = ()
        self.keys: Sequence[str] = ()
        places = weight_map(name)
        folder = Path(name).parent
        shards = {shard: SafetensorsFile(str(folder / shard)) for shard in sorted(set(places.values()))}
        lost = [tensor for tensor, shard in places.items() if tensor not in shards[shard].tensors]
        if lost:
            raise FileTrouble(
                str(folder / places[lost[0]]), f"lacks tensor {lost[0]!r}, which {name} says it holds"
            )
        self._shards = {tensor: shards[shard] for tensor, shard in places.items()}
        self.tensors: dict[str, TensorInfo] = {
            tensor: shard.tensors[tensor] for tensor, shard in self._shards.items()
        }
        self.metadata: dict[str, str] = next(iter(shards.values())).metadata if shards else {}

    def read(self, info: TensorInfo, start: int, stop: int) -> Array:
        """Elements start to stop of the tensor in C order, one-dimensional. Raises FileTrouble."""
        return self._shards[info.name].read(info, start, stop)


def weight_map(name: str) -> dict[str, str]:
    """Tensor name to shard file name. Raises FileTrouble for an index that is damaged or points elsewhere."""
    try:
        text = Path(name).read_bytes()
    except OSError as error:
        raise FileTrouble(name, system_words(error)) from error
    try:
        index: Any = json.loads(text)
        places = index["weight_map"]
        sound = all(isinstance(shard, str) for shard in places.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise FileTrouble(name, "is no index of shards: it has no weight_map") from None
    if not sound:
        raise FileTrouble(name, "is damaged: its weight_map names no files")
    for shard in places.values():
        # A downloaded index must not reach files outside its own folder.
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise FileTrouble(name, f"points to {shard!r}, which is no .safetensors file beside it")
    return dict(places)
