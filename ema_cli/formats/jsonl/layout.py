"""JSON lines out: objects as they came, with new members spliced in before the closing brace."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from ema_cli.errors import Place
from ema_cli.formats import arrow_compute as pc
from ema_cli.formats import arrow_text
from ema_cli.formats.arrow_types import binary_array, is_number, utf8_name
from ema_cli.formats.base import Batch, Floats, Layout, Sink, Splicer

# Rows to splice at once, as in text.
AT_ONCE = 16_384
END = b"}\n"


@dataclass(frozen=True)
class JsonLayout(Layout):
    """Rows of another format as objects, one a line."""

    def heading(self, names: Sequence[str]) -> tuple[bytes, bytes]:  # noqa: ARG002 - lines have no header
        return b"", b""

    def append_names(self, text: bytes, names: Iterable[str], *, alone: bool) -> bytes:  # noqa: ARG002
        return text

    def append_fields(self, own: Any, values: Mapping[str, str | None], *, alone: bool) -> Any:
        texts = [orjson.dumps(name) + b":" + orjson.dumps(value) for name, value in values.items()]
        return pc.join_same(own, b"," * (not alone) + b",".join(texts))

    def rows(self, batch: Any, places: Sequence[Place], count: int) -> tuple[Any, memoryview]:
        if not count:
            return pa.array([], pa.binary()), memoryview(b"")
        parts: list[Any] = [pa.array([b"{"] + [END + b"{"] * (count - 1), pa.binary())]
        for k, (field, column, place) in enumerate(zip(batch.schema, batch.columns, places, strict=True)):
            name = b"," * (k > 0) + orjson.dumps(field.name) + b":"
            parts += [pa.scalar(name, pa.binary()), _json(column, place)]
        return (pc.join(*parts) if len(parts) > 1 else parts[0]), memoryview(END)


def _json(column: Any, place: Place) -> Any:
    """Each value of a column as JSON; infinities, which JSON lacks, are text."""
    kind = column.type
    if pa.types.is_dictionary(kind) and not isinstance(kind, pa.BaseExtensionType):
        return _json(column.dictionary, place).take(column.indices).fill_null(b"null")
    cells = arrow_text.texts(column, place)
    if pa.types.is_floating(kind):
        cells = pc.if_else(pc.is_nan(column), pa.scalar(None, pa.binary()), cells)
        infinite = pc.is_inf(column)
        if pc.any(infinite).as_py():
            cells = pc.if_else(infinite, pc.join(b'"', cells, b'"'), cells)
    elif not (is_number(kind) or pa.types.is_boolean(kind) or pa.types.is_nested(kind)):
        coded = cells.dictionary_encode()
        said = [
            None if text is None else orjson.dumps(text.decode()) for text in coded.dictionary.to_pylist()
        ]
        cells = pa.array(said, pa.binary()).take(coded.indices)
    return cells.fill_null(b"null")


class JsonSink(Sink, Splicer):
    """Appends objects and their new members."""

    def __init__(self, out: BinaryIO, names: Sequence[str], digits: int | None = None) -> None:
        self.out, self.layout, self.splicer, self.digits = out, JsonLayout(), self, digits
        self._names = [b"," + orjson.dumps(utf8_name(name)) + b":" for name in names]

    def write(self, batch: Batch, fields: Floats) -> None:
        self.append(*batch.body.texts(self.layout), fields)

    def append(self, own: Any, tail: memoryview, fields: Floats) -> None:
        for begin in range(0, len(own), AT_ONCE):
            objects = own[begin : begin + AT_ONCE]
            new = self._members(fields[begin : begin + AT_ONCE])
            joined = pc.join(objects, *self._separated(objects, new))
            offsets = np.frombuffer(joined.buffers()[1], np.int32, len(joined) + 1)
            self.out.write(memoryview(joined.buffers()[2])[int(offsets[0]) : int(offsets[-1])])
        self.out.write(tail)

    def _members(self, fields: Floats) -> list[Any]:
        """The parts to be joined for the new members, with the comma before each."""
        parts: list[Any] = []
        for name, column in zip(self._names, fields.T, strict=True):
            parts += [pa.scalar(name, pa.binary()), _number_texts(column, self.digits)]
        return parts

    def _separated(self, objects: Any, new: list[Any]) -> list[Any]:
        """The same, without the first comma for objects that have no members."""
        if not new:
            return new
        bare = _without_members(objects)
        if not bare.any():
            return new
        first = new[0].as_py()
        names = pa.array([first[1:], first], pa.binary())
        return [pc.take(names, (~bare).astype(np.int64)), *new[1:]]

    def finish(self) -> None:
        """Lines need no end."""


def _without_members(objects: Any) -> NDArray[np.bool_]:
    """Which objects have no members: before the closing brace is the opening one, or spaces after it."""
    offsets = np.frombuffer(objects.buffers()[1], np.int32)[objects.offset :][: len(objects) + 1]
    last = np.frombuffer(objects.buffers()[2], np.uint8)[np.maximum(offsets[1:] - 1, 0)]
    bare = last == ord("{")
    for row in np.flatnonzero((last == ord(" ")) | (last == ord("\t"))).tolist():
        bare[row] = objects[row].as_py().rstrip().endswith(b"{")
    return np.asarray(bare)


def _number_texts(column: Floats, digits: int | None) -> Any:
    """Each number as text, the shortest exact one or with `digits` decimals; null if not finite."""
    if digits is None:
        text = orjson.dumps(np.ascontiguousarray(column), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
    else:
        template = ",".join([f"%.{digits}f"] * len(column))
        text = (template % tuple(column.tolist())).encode()
        text = re.sub(b"nan|-?inf", b"null", text)
    commas = np.flatnonzero(np.frombuffer(text, np.uint8) == ord(","))
    joined = text.translate(None, b",")
    offsets = np.concatenate(([0], commas - np.arange(len(commas)), [len(joined)])).astype(np.int32)
    return binary_array(offsets[: len(column) + 1], joined)
