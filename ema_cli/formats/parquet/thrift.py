"""Thrift's compact protocol, as far as Parquet uses it.

Structs are kept as they are written, by field number, so that fields nobody here knows of stay too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

# Types of values.
_TRUE, _FALSE, _BYTE, I16, I32, I64, _DOUBLE, BINARY, LIST, STRUCT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 12

# A struct: by field number, the type and the value.
Struct = dict[int, tuple[int, Any]]


def items(struct: Struct, field: int) -> list[Any]:
    """The items of a list, none where there is no such field."""
    found: list[Any] = struct[field][1][1] if field in struct else []
    return found


def a_list(structs: Sequence[Struct | bytes]) -> tuple[int, Any]:
    """The value of a field that is a list of structs, or of bytes that `encode` gave for them."""
    return LIST, (STRUCT, list(structs))


class Decoder:
    """Reads a struct, or goes to one field of it without reading what comes before."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def struct(self) -> Struct:
        return {number: (kind, self._value(kind)) for number, kind in self._heads()}

    def enter(self, field: int) -> bool:
        """Go to the value of this field of a struct; of a list, to its first item. False if there is none."""
        for number, kind in self._heads():
            if number == field:
                return kind != LIST or self._list_head()[1] > 0
            self._value(kind)
        return False

    def _heads(self) -> Iterator[tuple[int, int]]:
        """The numbers and types of a struct's fields; their values are read in between."""
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self.integer()
            yield number, head & 15

    def _list_head(self) -> tuple[int, int]:
        head = self._byte()
        return head & 15, head >> 4 if head >> 4 != 15 else self._varint()

    def _value(self, kind: int, in_list: bool = False) -> Any:
        if kind in (_TRUE, _FALSE):
            return self._byte() if in_list else None
        if kind in (I16, I32, I64):
            return self.integer()
        if kind == STRUCT:
            return self.struct()
        if kind == LIST:
            item_kind, count = self._list_head()
            return item_kind, [self._value(item_kind, in_list=True) for _ in range(count)]
        if kind not in (_BYTE, _DOUBLE, BINARY):
            raise ValueError(f"a footer with Thrift type {kind}")  # pyarrow writes neither sets nor maps
        length = {_BYTE: 1, _DOUBLE: 8}.get(kind) or self._varint()
        self.at += length
        return self.data[self.at - length : self.at]

    def _byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    def integer(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)


def encode(fields: Struct) -> bytes:
    """A struct in Thrift's compact protocol. In lists of structs, bytes are structs encoded before."""
    out = bytearray()
    last = 0
    for number, (kind, value) in sorted(fields.items()):
        delta = number - last
        out += bytes([delta << 4 | kind]) if delta < 16 else bytes([kind]) + _integer(number)
        _encode_value(out, kind, value)
        last = number
    out.append(0)
    return bytes(out)


def _encode_value(out: bytearray, kind: int, value: Any) -> None:
    if kind in (I16, I32, I64):
        out += _integer(value)
    elif kind == STRUCT:
        out += value if isinstance(value, bytes) else encode(value)
    elif kind == LIST:
        item_kind, items = value
        count = len(items)
        out += (
            bytes([count << 4 | item_kind]) if count < 15 else bytes([15 << 4 | item_kind]) + _varint(count)
        )
        for item in items:
            if item_kind in (_TRUE, _FALSE):
                out.append(item)
            else:
                _encode_value(out, item_kind, item)
    elif kind == BINARY:
        out += _varint(len(value)) + value
    elif value is not None:
        out += value


def _integer(value: int) -> bytes:
    return _varint(value << 1 if value >= 0 else (-value << 1) - 1)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
