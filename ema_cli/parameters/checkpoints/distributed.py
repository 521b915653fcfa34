"""Folders of torch.distributed.checkpoint, read where torch is installed; no pickled code is run.

`.metadata` is a pickle that says which part of a tensor lies where in the `.distcp` files. torch itself loads
it with a plain `pickle.load`, which would run whatever stands there; here each class that it names becomes a
record without behaviour, and any other name is refused. A part is a tensor as `torch.save` writes it: its
values lie in one piece in the file, and are read from there.
"""

from __future__ import annotations

import io
import math
import pickle
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ema_cli.errors import DataError, FileTrouble, OptionError
from ema_cli.io.atomic import system_words
from ema_cli.io.damage import damage_as
from ema_cli.parameters.checkpoints.pytorch import numpy_from
from ema_cli.parameters.checkpoints.stream import Checkpoint
from ema_cli.parameters.tensors import Array, TensorInfo, dtype_named

_PACKAGE = "torch.distributed.checkpoint"


class _Record:
    """What an object of torch's was when it was pickled: its attributes, nothing that can be called."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {"state": state})


class _Unpickler(pickle.Unpickler):
    """Makes records, tuples and texts; refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch", "Size"):
            return tuple
        if module == "torch" and name.isidentifier():
            return name  # a dtype
        if module == _PACKAGE or module.startswith((f"{_PACKAGE}.", "pathlib", "torch.serialization")):
            return type(name, (_Record,), {})
        raise pickle.UnpicklingError(f"{module}.{name} is none of torch's descriptions of tensors")


@dataclass(frozen=True)
class _Part:
    """A rectangle of a tensor, and where in which file it was saved."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: Path
    begin: int
    length: int


class DistributedCheckpoint(Checkpoint):
    """The tensors of a folder of torch.distributed.checkpoint, put together from the parts of all ranks.

    Tensors that are cut along their first axis, as FSDP cuts them, are read by slices; one that is cut
    otherwise is put together whole.
    """

    def __init__(self, name: str, key: str | None = None) -> None:
        """key: dotted name of the dict to take; OptionError where there is none. Raises FileTrouble."""
        super().__init__(name)
        self._parts: dict[str, list[_Part]] = {}
        self._whole: tuple[str, Array] | None = None
        self._source: dict[str, _Values] = {}
        prefix = "" if key is None else f"{key}."
        described, stored = _metadata(name)
        chosen = {full: what for full, what in described.items() if full.startswith(prefix)}
        if not chosen:
            known = sorted({full.split(".")[0] for full in described})
            raise OptionError(f"{name}: there is nothing under --key {key}, but {', '.join(known)[:500]}")
        for full, what in chosen.items():
            self._add(full.removeprefix(prefix), full, what, stored)
        if key is None:
            self.keys = _tops(described, set(self.tensors))

    def _add(self, tensor: str, full: str, what: Any, stored: dict[Any, _Part]) -> None:
        if not hasattr(what, "properties"):
            self.others.append(tensor)
            return
        try:
            dtype = dtype_named(str(what.properties.state[0]))
        except DataError as error:
            self.refused[tensor] = f"has values that are not known here: {error.problem}"
            return
        shape = tuple(what.size)
        parts = [
            _placed(stored, self.name, full, tuple(chunk.offsets), tuple(chunk.sizes))
            for chunk in what.chunks
        ]
        if sum(math.prod(part.sizes) for part in parts) != math.prod(shape):
            raise FileTrouble(self.name, f"is damaged: the parts of {tensor!r} are not the whole of it")
        self.tensors[tensor] = TensorInfo(tensor, dtype, shape)
        self._parts[tensor] = sorted(parts, key=lambda part: part.offsets)

    def read(self, info: TensorInfo, start: int, stop: int) -> Array:
        """Elements start to stop of the tensor in C order, one-dimensional. Raises FileTrouble."""
        parts = self._parts[info.name]
        if any(part.sizes[1:] != info.shape[1:] for part in parts):
            if self._whole is None or self._whole[0] != info.name:
                self._whole = (info.name, self._put_together(info, parts))
            return self._whole[1][start:stop]
        values = np.empty(stop - start, info.dtype)
        row = math.prod(info.shape[1:])
        for number, part in enumerate(parts):
            first = part.offsets[0] * row if part.offsets else 0
            low, high = max(start, first), min(stop, first + math.prod(part.sizes))
            if low < high:
                opened = self._opened(info, number, part)
                values[low - start : high - start] = opened.read(low - first, high - first)
        return values

    def _opened(self, info: TensorInfo, number: int, part: _Part) -> _Values:
        """The part's values; of all parts only the one that was read last is held."""
        key = f"{number} {info.name}"
        if key not in self._source:
            self._source = {key: _Values(part, info)}
        return self._source[key]

    def _put_together(self, info: TensorInfo, parts: Sequence[_Part]) -> Array:
        whole = np.empty(info.shape, info.dtype)
        for part in parts:
            place = tuple(slice(o, o + s) for o, s in zip(part.offsets, part.sizes, strict=True))
            whole[place] = _Values(part, info).read(0, math.prod(part.sizes)).reshape(part.sizes)
        return whole.reshape(-1)

    def close(self) -> None:
        self._source, self._whole = {}, None


class _Values:
    """The values of one part, read from their place in the file; laid out anew where they lie otherwise."""

    def __init__(self, part: _Part, info: TensorInfo) -> None:
        import torch

        self._part, self._dtype = part, info.dtype
        self._tensor: Any = None
        name = str(part.file)
        with damage_as(lambda error: _damaged(name, info.name, error), OSError, pickle.UnpicklingError):
            with warnings.catch_warnings(), _Window(part) as file:
                warnings.simplefilter("ignore")
                # On the device "meta" a tensor has no values: this reads what describes them.
                tensor = torch.load(file, map_location="meta", weights_only=True)
                if tuple(tensor.shape) != part.sizes or str(tensor.dtype) != f"torch.{info.dtype.name}":
                    raise ValueError("it is another tensor than its metadata says")
                if tensor.layout != torch.strided or not tensor.is_contiguous():
                    file.seek(0)
                    loaded = torch.load(file, map_location="cpu", weights_only=True)
                    self._tensor = loaded.detach().contiguous().reshape(-1)
                    return
            with _Window(part) as file, zipfile.ZipFile(file) as archive:
                entry = next(e for e in archive.infolist() if e.filename.endswith("/data/0"))
                begin = entry.header_offset + tensor.storage_offset() * info.dtype.itemsize
                file.seek(entry.header_offset + 26)
                names = file.read(4)
                begin += 30 + int.from_bytes(names[:2], "little") + int.from_bytes(names[2:], "little")
                if begin + tensor.numel() * info.dtype.itemsize > part.length or entry.compress_type:
                    raise ValueError("it is cut short")
                self._begin = part.begin + begin

    def read(self, start: int, stop: int) -> Array:
        if self._tensor is not None:
            return numpy_from(self._tensor[start:stop], self._dtype)
        values = np.empty(stop - start, self._dtype.newbyteorder("<"))
        room = memoryview(values.view(np.uint8).data)
        try:
            with self._part.file.open("rb", buffering=0) as file:
                file.seek(self._begin + start * self._dtype.itemsize)
                while room:
                    got = file.readinto(room)
                    if not got:
                        raise FileTrouble(str(self._part.file), "has become shorter while it was read")
                    room = room[got:]
        except OSError as error:
            raise FileTrouble(str(self._part.file), system_words(error)) from error
        return values


class _Window(io.BufferedIOBase):
    """The bytes of a part as a file of their own."""

    def __init__(self, part: _Part) -> None:
        self._file: BinaryIO = part.file.open("rb")
        self._begin, self._length, self._at = part.begin, part.length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._at = max((0, self._at, self._length)[whence] + offset, 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(self._length - self._at, 0)
        self._file.seek(self._begin + self._at)
        data = self._file.read(left if size is None or size < 0 else min(size, left))
        self._at += len(data)
        return data

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def _damaged(name: str, tensor: str, error: Exception) -> FileTrouble:
    return FileTrouble(
        name, f"is damaged at {tensor!r}: {(str(error) or type(error).__name__).splitlines()[0]}"
    )


def _metadata(name: str) -> tuple[dict[str, Any], dict[Any, _Part]]:
    """What is described, by name; and where each part lies, by name and offsets."""
    try:
        import torch  # noqa: F401 - the parts can't be read without it
    except ImportError:
        hint = "pip install torch, or save it as .safetensors"
        raise FileTrouble(name, "needs torch to be read", hint) from None
    path, folder = Path(name) / ".metadata", Path(name).resolve()
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise FileTrouble(str(path), system_words(error)) from error

    def trouble(error: Exception) -> FileTrouble:
        return FileTrouble(
            str(path), f"is damaged, or was not written by torch.distributed.checkpoint: {error}"
        )

    with damage_as(trouble, pickle.UnpicklingError):
        said = _Unpickler(io.BytesIO(raw)).load()
        stored: dict[Any, _Part] = {}
        for index, place in said.storage_data.items():
            if getattr(place, "transform_descriptors", None):
                raise ValueError(f"{index.fqn} is stored compressed")
            file = Path(name) / str(place.relative_path)
            if folder not in file.resolve().parents or not all(
                type(n) is int for n in (place.offset, place.length)
            ):
                raise ValueError(f"{place.relative_path} lies outside the folder")
            offsets = tuple(getattr(index, "offset", None) or ())
            stored[index.fqn, offsets] = _Part(offsets, (), file, place.offset, place.length)
        return dict(said.state_dict_metadata), stored


def _placed(
    stored: dict[Any, _Part], name: str, full: str, offsets: tuple[int, ...], sizes: tuple[int, ...]
) -> _Part:
    place = stored.get((full, offsets))
    if place is None:
        raise FileTrouble(name, f"is damaged: a part of {full!r} is stored nowhere")
    return _Part(offsets, sizes, place.file, place.begin, place.length)


def _tops(described: dict[str, Any], tensors: set[str]) -> list[str]:
    """The first parts of names under which there are tensors only."""
    tops: dict[str, bool] = {}
    for full in described:
        top, dot, _ = full.partition(".")
        tops[top] = tops.get(top, True) and bool(dot) and full in tensors
    return [top for top, only in tops.items() if only]
