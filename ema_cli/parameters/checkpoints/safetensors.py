"""safetensors, read and written by slices: eight bytes of length, a JSON header, little-endian values.

The format is https://huggingface.co/docs/safetensors (section "Format"). The library of that name wants the
whole model in memory to write it, and maps the file to read it, so that its pages count as memory.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ema_cli.errors import DataError, FileTrouble
from ema_cli.io.archive import little_endian
from ema_cli.io.atomic import system_words
from ema_cli.io.output import Output
from ema_cli.parameters.checkpoints.stream import Checkpoint, CheckpointWriter
from ema_cli.parameters.tensors import Array, TensorInfo, dtype_named

MOST_DIMENSIONS = 64  # NumPy's
# Code to (bits, NumPy's or ml_dtypes' name); without a name it can be neither averaged nor copied here.
_DTYPES: dict[str, tuple[int, str | None]] = {
    "BOOL": (8, "bool"),
    "F4": (4, None),
    "F6_E2M3": (6, None),
    "F6_E3M2": (6, None),
    "U8": (8, "uint8"),
    "I8": (8, "int8"),
    "F8_E5M2": (8, "float8_e5m2"),
    "F8_E4M3": (8, "float8_e4m3fn"),
    "F8_E5M2FNUZ": (8, "float8_e5m2fnuz"),
    "F8_E4M3FNUZ": (8, "float8_e4m3fnuz"),
    "F8_E8M0": (8, None),  # powers of two, the scales of other tensors
    "I16": (16, "int16"),
    "U16": (16, "uint16"),
    "F16": (16, "float16"),
    "BF16": (16, "bfloat16"),
    "I32": (32, "int32"),
    "U32": (32, "uint32"),
    "F32": (32, "float32"),
    "C64": (64, None),
    "F64": (64, "float64"),
    "I64": (64, "int64"),
    "U64": (64, "uint64"),
}
_CODES = {name: code for code, (_, name) in _DTYPES.items() if name is not None}
_JSON = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
# The library's own limit; a longer one is a damaged or hostile length.
_LONGEST_HEADER = 100_000_000
# Sizes are 64-bit numbers to the library, in bits where an element is no whole byte.
_LARGEST = (1 << 64) - 1
# What is looked at one by one where it occurs: what may be half of a surrogate pair, or a minus sign.
_ESCAPE, _MINUS = "\\u", re.compile(r"[:\[,]\s*-")


class _Entry(NamedTuple):
    """A tensor as the header has it, checked for itself. Much smaller than the JSON objects that say it."""

    code: str
    shape: tuple[int, ...]
    begin: int
    end: int


class SafetensorsFile(Checkpoint):
    """One safetensors file. Nothing stays open between reads, so any number can be read side by side."""

    def __init__(self, name: str) -> None:
        """Raises FileTrouble where the file can't be read or is no sound safetensors file."""
        super().__init__(name)
        self._path = Path(name)
        header, begin, size = _read_header(name)
        self.metadata = _metadata(header, name)
        self._offsets: dict[str, int] = {}
        for tensor, entry in header.items():
            if not isinstance(entry, _Entry):
                raise FileTrouble(name, f"is damaged: tensor {tensor!r} lacks dtype, shape or data_offsets")
            self._add(tensor, entry, begin)
        _check_layout(header, name, size - begin)

    def _add(self, tensor: str, entry: _Entry, begin: int) -> None:
        if len(entry.shape) > MOST_DIMENSIONS:
            raise FileTrouble(
                self.name,
                f"is damaged: tensor {tensor!r} has an impossible shape: {len(entry.shape)} dimensions",
            )
        try:
            dtype = _dtype(entry.code)
        except DataError as error:
            raise FileTrouble(self.name, f"tensor {tensor!r}: {error.problem}", error.hint) from error
        if dtype is None:
            self.refused[tensor] = f"holds {entry.code}, which can be neither averaged nor copied"
            return
        self.tensors[tensor] = TensorInfo(tensor, dtype, entry.shape)
        self._offsets[tensor] = begin + entry.begin

    def read(self, info: TensorInfo, start: int, stop: int) -> Array:
        """Elements start to stop of the tensor in C order, one-dimensional. Raises FileTrouble."""
        return self.read_into(np.empty((stop - start) * info.dtype.itemsize, np.uint8), info, start, stop)

    def read_into(self, room: Array, info: TensorInfo, start: int, stop: int) -> Array:
        """The same into `room`, bytes enough for the values."""
        values = room[: (stop - start) * info.dtype.itemsize].view(info.dtype.newbyteorder("<"))
        left = memoryview(values.view(np.uint8).data)
        if not left:
            return values  # a file may have a million empty tensors
        try:
            with self._path.open("rb", buffering=0) as file:
                file.seek(self._offsets[info.name] + start * info.dtype.itemsize)
                while left:
                    got = file.readinto(left)
                    if not got:
                        raise FileTrouble(self.name, "has become shorter while it was read")
                    left = left[got:]
        except OSError as error:
            raise FileTrouble(self.name, system_words(error)) from error
        return values


@cache
def _dtype(code: str) -> np.dtype[Any] | None:
    """The dtype of a code; DataError where it needs ml_dtypes."""
    name = _DTYPES[code][1]
    return None if name is None else dtype_named(name)


@cache
def _code(dtype: np.dtype[Any]) -> str | None:
    return _CODES.get(dtype.name)


def _read_header(name: str) -> tuple[dict[str, Any], int, int]:
    """(header, where the values begin, size of the file)."""
    try:
        with Path(name).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _LONGEST_HEADER):
                raise FileTrouble(name, _no_safetensors(size))
            raw = file.read(length)
    except OSError as error:
        raise FileTrouble(name, system_words(error)) from error
    try:
        # Not json.loads(raw), which would take UTF-16, a byte order mark and lone surrogates.
        text = raw.decode("utf-8")
        if not text.startswith("{"):
            raise ValueError("it does not begin with {")
        header = json.loads(
            text,
            object_pairs_hook=_whole_texts if _ESCAPE in text else _checked,
            parse_constant=_no_number,
            parse_int=_counted if _MINUS.search(text) else None,
        )
    except (ValueError, RecursionError) as error:
        raise FileTrouble(name, f"is no safetensors file, or its header is damaged: {error}") from error
    if not isinstance(header, dict):
        raise FileTrouble(name, "is damaged: its header is one tensor's")
    return header, 8 + length, size


def _no_safetensors(size: int) -> str:
    return "is empty" if size == 0 else "is no safetensors file, or is cut short within its header"


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


def _counted(text: str) -> int:
    """Sizes and places are counted from 0; −0, which Python takes for 0, is no count."""
    if text.startswith("-"):
        raise ValueError(f"{text} is an impossible shape or place")
    return int(text)


def _whole_texts(pairs: list[tuple[str, Any]]) -> Any:
    """As `_checked`, of a header with escapes in it; UnicodeEncodeError for half of a surrogate pair."""
    for pair in pairs:
        for text in pair:
            if isinstance(text, str):
                text.encode()
    return _checked(pairs)


def _checked(pairs: list[tuple[str, Any]]) -> Any:
    """A JSON object; a tensor's as an `_Entry`. ValueError where it can't be meant.

    A name twice is refused: readers would not agree on which is meant.
    """
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a name stands there twice")
    code = made.get("dtype")
    if not isinstance(code, str) or not {"shape", "data_offsets"} <= made.keys():
        return made
    shape, offsets = made["shape"], made["data_offsets"]
    if not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2:
        raise ValueError("a tensor's shape or data_offsets is no list")
    if code not in _DTYPES:
        raise ValueError(f"the dtype {code!r} is not known")
    for number in (*shape, *offsets):
        if type(number) is not int or not 0 <= number <= _LARGEST:
            raise ValueError(f"a tensor has an impossible shape or place: {shape}, {offsets}")
    return _Entry(code, tuple(shape), *offsets)


def _metadata(header: dict[str, Any], name: str) -> dict[str, str]:
    metadata = header.pop("__metadata__", None)
    if metadata is None:
        return {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FileTrouble(name, "is damaged: its __metadata__ is no mapping of text to text")
    return metadata


def _check_layout(header: dict[str, _Entry], name: str, available: int) -> None:
    """Raise FileTrouble unless the tensors cover all bytes after the header, each byte once."""
    at = 0
    for tensor, entry in sorted(header.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin < at:
            raise FileTrouble(name, f"is damaged: tensor {tensor!r} overlaps another")
        if entry.begin > at:
            raise FileTrouble(name, f"is damaged: {entry.begin - at} bytes before {tensor!r} belong to none")
        length = entry.end - entry.begin
        if not _fits(entry, length):
            said = f"is damaged: tensor {tensor!r} has {length} bytes for its shape {entry.shape}"
            raise FileTrouble(name, said)
        if entry.end > available:
            missing = entry.end - available
            raise FileTrouble(name, f"is cut short: {missing} bytes of tensor {tensor!r} are missing")
        at = entry.end
    if at != available:
        raise FileTrouble(name, f"is damaged: {available - at} bytes after its last tensor belong to none")


def _fits(entry: _Entry, length: int) -> bool:
    """True if the values take so many bytes; never where the library's own count would overflow."""
    bits = _DTYPES[entry.code][0]
    for axis in entry.shape:
        bits *= axis
        if bits > _LARGEST:
            return False
    return bits == 8 * length


def written_order(infos: Sequence[TensorInfo]) -> list[TensorInfo]:
    """The widest dtypes first and names in order within them, as the library writes them."""
    return sorted(infos, key=lambda info: (-info.dtype.itemsize, info.name))


class SafetensorsWriter(CheckpointWriter):
    """Writes a safetensors file: the header first, as all shapes are known, then slice after slice.

    Tensors written in `order` need no seeking; in any other order they go to their places all the same.

    The widest dtypes come first and names in order within them, as the library writes them, so that every
    tensor is aligned: the same tensors give the same bytes whatever order they came in.
    """

    def __init__(
        self, out: BinaryIO, name: str, infos: Sequence[TensorInfo], metadata: Mapping[str, str]
    ) -> None:
        """Raises FileTrouble for a dtype or a name that the format lacks."""
        self.order = written_order(infos)
        self._out = Output(out, name)
        entries = [f'"__metadata__":{_JSON.encode(dict(sorted(metadata.items())))}'] if metadata else []
        offset = 0
        self._next: dict[str, int] = {}
        for info in self.order:
            code = _code(info.dtype)
            if code is None or info.name == "__metadata__":
                what = f"dtype {info.dtype.name}" if code is None else "tensor of that name"
                raise FileTrouble(name, f"{info.name!r}: safetensors has no {what}", "write .npz")
            end = offset + info.size * info.dtype.itemsize
            self._next[info.name] = offset
            # As text at once: a model may have a million tensors.
            shape = ",".join(map(str, info.shape))
            said = f'{{"dtype":"{code}","shape":[{shape}],"data_offsets":[{offset},{end}]}}'
            entries.append(f"{_JSON.encode(info.name)}:{said}")
            offset = end
        text = f"{{{','.join(entries)}}}".encode()
        text += b" " * (-len(text) % 8)
        self._begin = 8 + len(text)
        self._at = 0
        self._out.write(len(text).to_bytes(8, "little") + text)

    def write(self, info: TensorInfo, values: Array) -> None:
        """The next values of the tensor, in C order whatever their strides. Raises FileTrouble."""
        if not values.size:
            return
        flat = little_endian(values)
        place = self._next[info.name]
        if place != self._at:
            self._out.seek(self._begin + place)
        self._out.write(flat.data)
        self._at = self._next[info.name] = place + flat.nbytes
