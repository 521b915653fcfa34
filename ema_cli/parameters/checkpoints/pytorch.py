"""torch's .pt and .pth, read and written where torch is installed: tensors only, no pickled code is run.

Such a file is an archive of a pickle, which says how each tensor is made of its storage, and the storages,
written slice after slice. torch itself wants the whole model in memory to write it.
"""

from __future__ import annotations

import io
import json
import math
import pickle
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ema_cli.errors import DataError, EmaError, FileTrouble, OptionError
from ema_cli.io.archive import ArchiveReader, ArchiveWriter
from ema_cli.io.atomic import system_words
from ema_cli.parameters.checkpoints.stream import Checkpoint, CheckpointWriter
from ema_cli.parameters.tensors import Array, TensorInfo, dtype_named, is_tensor

# The member that holds a file's metadata, which torch has no place for and passes over.
_METADATA = "ema_smooth.json"
_LONGEST_METADATA = 1 << 26
# torch's old names for the storages of most dtypes; the others' have no type, only bytes.
_STORAGES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}
_UNTYPED = (
    "uint16",
    "uint32",
    "uint64",
    *(f"float8_{kind}" for kind in ("e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz")),
)
# Where torch puts the first byte of a storage.
_ALIGNMENT = 64


class TorchFile(Checkpoint):
    """The tensors of a torch checkpoint, nested dicts flattened with dots; values are mapped, not loaded."""

    def __init__(self, name: str, key: str | None = None) -> None:
        """key: dotted path of the dict to take; OptionError where there is none. Raises FileTrouble."""
        super().__init__(name)
        content = _picked(_load(name), key, name)
        self.metadata = metadata_in(name)
        self._values: dict[str, Any] = {}
        self._flat: tuple[str, Any] | None = None
        _collect(content, "", self._values, self.others)
        self.keys = _dicts_of_tensors(content) if key is None else []
        first: dict[tuple[Any, ...], str] = {}
        for tensor, value in self._values.items():
            self._add(tensor, value, first)

    def _add(self, tensor: str, value: Any, first: dict[tuple[Any, ...], str]) -> None:
        if value.layout != _strided() or value.is_quantized or value.is_meta:
            self.refused[tensor] = "is sparse, quantized or without values; only plain tensors are averaged"
            return
        try:
            dtype = dtype_named(str(value.dtype).removeprefix("torch."))
        except DataError as error:
            self.refused[tensor] = f"has values that are not known here: {error.problem}"
            return
        # Two names of one tensor, as those of an embedding and of the head that shares it.
        place = (value.data_ptr(), dtype.name, tuple(value.shape), value.stride())
        if value.numel() and (tied := first.setdefault(place, tensor)) != tensor:
            self.tied[tensor] = tied
            return
        self.tensors[tensor] = TensorInfo(tensor, dtype, tuple(value.shape))

    def close(self) -> None:
        self._values.clear()
        self._flat = None

    def read(self, info: TensorInfo, start: int, stop: int) -> Array:
        """Elements start to stop of the tensor in C order, one-dimensional."""
        if self._flat is None or self._flat[0] != info.name:
            # Laid out once: a tensor that lies otherwise in memory would be copied for each slice.
            self._flat = (info.name, self._values[info.name].detach().reshape(-1))
        return numpy_from(self._flat[1][start:stop], info.dtype)


def numpy_from(part: Any, dtype: np.dtype[Any]) -> Array:
    """A torch tensor's values as NumPy's, bfloat16 and 8-bit floats by their bytes."""
    if dtype.kind != "V":
        return np.asarray(part.numpy())
    import torch

    # NumPy takes no bfloat16 from torch; its bytes mean the same to both.
    whole = {1: torch.uint8, 2: torch.int16}[dtype.itemsize]
    return np.asarray(part.contiguous().view(whole).numpy()).view(dtype)


def _strided() -> Any:
    import torch

    return torch.strided


def _load(name: str) -> Any:
    try:
        import torch
    except ImportError:
        raise FileTrouble(
            name, "needs torch to be read", "pip install torch, or save it as .safetensors"
        ) from None
    try:
        with Path(name).open("rb") as file:
            # torch maps only its zip format; older files are loaded whole.
            mapped = file.read(4) == b"PK\x03\x04"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(name, map_location="cpu", weights_only=True, mmap=mapped)
    except OSError as error:
        raise FileTrouble(name, system_words(error)) from error
    except pickle.UnpicklingError as error:
        raise FileTrouble(
            name,
            "is no checkpoint of tensors only; other pickled objects are not loaded as they can run code",
            "torch.save(model.state_dict(), path)",
        ) from error
    except Exception as error:  # a foreign parser over bytes that may be anything
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise FileTrouble(name, f"is damaged or no torch file: {said}") from error


def _picked(content: Any, key: str | None, name: str) -> Mapping[Any, Any]:
    for part in [] if key is None else key.split("."):
        if not isinstance(content, Mapping) or part not in content:
            known = ", ".join(map(str, content)) if isinstance(content, Mapping) else "no dict"
            raise OptionError(f"{name}: there is no {part!r} for --key {key}, but {known[:500]}")
        content = content[part]
    if not isinstance(content, Mapping):
        raise FileTrouble(name, f"holds {type(content).__name__}, not a dict of tensors")
    return content


def _collect(content: Mapping[Any, Any], prefix: str, values: dict[str, Any], others: list[str]) -> None:
    for key, value in content.items():
        if isinstance(value, Mapping):
            _collect(value, f"{prefix}{key}.", values, others)
        elif is_tensor(value):
            values[f"{prefix}{key}"] = value
        else:
            others.append(f"{prefix}{key}")


def _dicts_of_tensors(content: Mapping[Any, Any]) -> list[str]:
    return [
        str(key)
        for key, value in content.items()
        if isinstance(value, Mapping) and value and all(map(is_tensor, value.values()))
    ]


def metadata_in(name: str) -> dict[str, str]:
    """What `TorchWriter` has said in the file beside its tensors; nothing in any other."""
    try:
        # Nothing that unfolds: so the member is no larger than the file.
        with ArchiveReader(name, compressed=False) as archive:
            place = next((member for member in archive.members if member.endswith(f"/{_METADATA}")), None)
            if place is None or archive.members[place].file_size > _LONGEST_METADATA:
                return {}
            said = json.loads(archive.read(place))
    except (EmaError, ValueError, RecursionError):
        return {}  # an older file of torch's, or one that torch will say more about
    texts = said.items() if isinstance(said, dict) else ()
    return {key: value for key, value in texts if isinstance(value, str)}


class TorchWriter(CheckpointWriter):
    """Writes a dict of tensors as `torch.load(weights_only=True)` reads it, mapped too, without a clock."""

    def __init__(
        self, out: BinaryIO, name: str, infos: Sequence[TensorInfo], metadata: Mapping[str, str]
    ) -> None:
        """Raises FileTrouble where torch is not installed, or lacks a dtype."""
        self.order = list(infos)
        tensors = {info.name: _Tensor(_Storage(info, str(k), name)) for k, info in enumerate(self.order)}
        # Names that safetensors keeps apart because their tensor stands there under another.
        tied = {key: value for key, value in metadata.items() if key != "format" and key not in tensors}
        tensors |= {key: tensors[value] for key, value in tied.items() if value in tensors}
        pickled = io.BytesIO()
        _Pickler(pickled, protocol=2).dump(tensors)
        self._archive = ArchiveWriter(out, name)
        self._places = {info.name: f"archive/data/{k}" for k, info in enumerate(self.order)}
        self._tensor: str | None = None
        members = {"data.pkl": pickled.getvalue(), "byteorder": b"little", "version": b"3\n"}
        if metadata:
            members[_METADATA] = json.dumps(dict(metadata), sort_keys=True).encode()
        try:
            for member, content in members.items():
                self._archive.begin(f"archive/{member}")
                self._archive.write(content)
        except BaseException:
            self._archive.close(complete=False)
            raise

    def write(self, info: TensorInfo, values: Array) -> None:
        """The next values of the tensor, in C order whatever their strides. Raises FileTrouble."""
        if info.name != self._tensor:
            self._tensor = info.name
            self._archive.begin(self._places[info.name], align=_ALIGNMENT)
        self._archive.write(values)

    def close(self, *, complete: bool) -> None:
        """Write the directory. Raises FileTrouble."""
        self._archive.close(complete=complete)


class _Storage:
    """Stands for a tensor's storage while the tensors are pickled: torch finds it by `identity`."""

    def __init__(self, info: TensorInfo, key: str, file: str) -> None:
        try:
            import torch
        except ImportError:
            raise FileTrouble(
                file, "needs torch to be written", "pip install torch, or write .safetensors"
            ) from None
        self.info, self.kind = info, _STORAGES.get(info.dtype.name)
        self.dtype = (
            getattr(torch, info.dtype.name, None) if self.kind or info.dtype.name in _UNTYPED else None
        )
        if self.dtype is None:
            raise FileTrouble(
                file, f"{info.name!r}: torch has no dtype {info.dtype.name}", "write .safetensors"
            )
        count = info.size * (1 if self.kind else info.dtype.itemsize)
        storage = getattr(torch, self.kind) if self.kind else torch.UntypedStorage
        self.identity = ("storage", storage, key, "cpu", count)


@dataclass(frozen=True)
class _Tensor:
    """Pickled, what makes a tensor of its storage."""

    storage: _Storage

    def __reduce__(self) -> tuple[Any, ...]:
        from torch import _utils

        shape = self.storage.info.shape
        stride = tuple(math.prod(max(1, size) for size in shape[axis + 1 :]) for axis in range(len(shape)))
        made: tuple[Any, ...] = (self.storage, 0, shape, stride, False, OrderedDict())
        if self.storage.kind:
            return _utils._rebuild_tensor_v2, made
        return _utils._rebuild_tensor_v3, (*made, self.storage.dtype)


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return obj.identity if isinstance(obj, _Storage) else None
