"""safetensors, read and written by slices: eight bytes of length, a JSON header, little-endian values.

The format is https://huggingface.co/docs/safetensors (section "Format"). The library of that name wants the
whole model in memory to write it, and maps the file to read it, so that its pages count as memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ema_cli.errors import DataError, FileTrouble
from ema_cli.io.atomic import system_words
from ema_cli.parameters.checkpoints.stream import NothingToClose, WholeWrites
from ema_cli.parameters.tensors import Array, TensorInfo, dtype_named

MOST_DIMENSIONS = 64  # NumPy's
_DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "BF16": "bfloat16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "F64": "float64",
    "I64": "int64",
    "U64": "uint64",
}
_CODES = {name: code for code, name in _DTYPES.items()}
# The library's own limit; a longer one is a damaged or hostile length.
_LONGEST_HEADER = 100_000_000


class SafetensorsFile(NothingToClose):
    """One safetensors file. Nothing stays open between reads, so any number can be read side by side."""

    def __init__(self, name: str) -> None:
        """Raises FileTrouble where the file can't be read or is no sound safetensors file."""
        self.name = name
        self.others: Sequence[str] = ()
        self.keys: Sequence[str] = ()
        header, begin, size = _read_header(name)
        self.metadata: dict[str, str] = _metadata(header, name)
        self.tensors: dict[str, TensorInfo] = {}
        self._offsets: dict[str, int] = {}
        for tensor, entry in header.items():
            info, offset = _entry(name, tensor, entry, size - begin)
            self.tensors[tensor] = info
            self._offsets[tensor] = begin + offset

    def read(self, info: TensorInfo, start: int, stop: int) -> Array:
        """Elements start to stop of the tensor in C order, one-dimensional. Raises FileTrouble."""
        values = np.empty(stop - start, info.dtype.newbyteorder("<"))
        room = memoryview(values.view(np.uint8).data)
        try:
            with Path(self.name).open("rb", buffering=0) as file:
                file.seek(self._offsets[info.name] + start * info.dtype.itemsize)
                while room:
                    got = file.readinto(room)
                    if not got:
                        raise FileTrouble(self.name, "has become shorter while it was read")
                    room = room[got:]
        except OSError as error:
            raise FileTrouble(self.name, system_words(error)) from error
        return values


def _read_header(name: str) -> tuple[dict[str, Any], int, int]:
    """(header, where the values begin, size of the file)."""
    try:
        with Path(name).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _LONGEST_HEADER):
                raise FileTrouble(name, _no_safetensors(size))
            text = file.read(length)
    except OSError as error:
        raise FileTrouble(name, system_words(error)) from error
    try:
        header = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise FileTrouble(name, f"is no safetensors file: its header is no JSON ({error})") from error
    if not isinstance(header, dict):
        raise FileTrouble(name, "is no safetensors file: its header is no JSON object")
    return header, 8 + length, size


def _no_safetensors(size: int) -> str:
    return "is empty" if size == 0 else "is no safetensors file, or is cut short within its header"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, refused where it has a name twice: readers would not agree on which is meant."""
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a name stands there twice")
    return made


def _metadata(header: dict[str, Any], name: str) -> dict[str, str]:
    metadata = header.pop("__metadata__", None)
    if metadata is None:
        return {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FileTrouble(name, "is damaged: its __metadata__ is no mapping of text to text")
    return metadata


def _entry(name: str, tensor: str, entry: Any, available: int) -> tuple[TensorInfo, int]:
    """The tensor and where its values begin, counted from the end of the header."""
    try:
        code, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise FileTrouble(name, f"is damaged: tensor {tensor!r} lacks dtype, shape or data_offsets") from None
    sound = all(type(number) is int and number >= 0 for number in (*shape, begin, end))
    if not sound or len(shape) > MOST_DIMENSIONS:
        raise FileTrouble(name, f"is damaged: tensor {tensor!r} has an impossible shape or place")
    if not isinstance(code, str) or code not in _DTYPES:
        raise FileTrouble(name, f"tensor {tensor!r} has the dtype {code!r}, which is not known here")
    try:
        info = TensorInfo(tensor, dtype_named(_DTYPES[code]), shape)
    except DataError as error:
        raise FileTrouble(name, f"tensor {tensor!r}: {error.problem}", error.hint) from error
    if info.size * info.dtype.itemsize != end - begin:
        raise FileTrouble(
            name, f"is damaged: tensor {tensor!r} has {end - begin} bytes for its shape {shape}"
        )
    if end > available:
        raise FileTrouble(name, f"is cut short: {end - available} bytes of tensor {tensor!r} are missing")
    return info, begin


class SafetensorsWriter(NothingToClose):
    """Writes a safetensors file: the header first, as all shapes are known, then slice after slice.

    Tensors written in `order` need no seeking; in any other order they go to their places all the same.

    The widest dtypes come first and names in order within them, as the library writes them, so that every
    tensor is aligned: the same tensors give the same bytes whatever order they came in.
    """

    def __init__(
        self, out: BinaryIO, name: str, infos: Sequence[TensorInfo], metadata: Mapping[str, str]
    ) -> None:
        """Raises FileTrouble for a dtype or a name that the format lacks."""
        self.order = sorted(infos, key=lambda info: (-info.dtype.itemsize, info.name))
        self._out = WholeWrites(out, name)
        header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
        offset = 0
        self._next: dict[str, int] = {}
        for info in self.order:
            code = _CODES.get(info.dtype.name)
            if code is None or info.name == "__metadata__":
                what = f"dtype {info.dtype.name}" if code is None else "tensor of that name"
                raise FileTrouble(name, f"{info.name!r}: safetensors has no {what}", "write .npz")
            end = offset + info.size * info.dtype.itemsize
            self._next[info.name] = offset
            header[info.name] = {"dtype": code, "shape": list(info.shape), "data_offsets": [offset, end]}
            offset = end
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        self._begin = 8 + len(text)
        self._at = 0
        self._out.write(len(text).to_bytes(8, "little") + text)

    def write(self, info: TensorInfo, values: Array) -> None:
        """The next values of the tensor, in C order whatever their strides. Raises FileTrouble."""
        flat = np.ascontiguousarray(values, info.dtype.newbyteorder("<")).reshape(-1)
        place = self._next[info.name]
        if place != self._at:
            self._out.seek(self._begin + place)
        self._out.write(flat.view(np.uint8).data)
        self._at = self._next[info.name] = place + flat.nbytes
