"""A Parquet file joined from row groups that were encoded apart, each as a small file of its own.

pyarrow encodes the columns of a file one after the other, on one core. Files of one row group can be encoded
side by side; their column chunks are then put behind each other as they are, and only the footer, which says
where each chunk begins, is written anew. The footer is a struct in Thrift's compact protocol; field
numbers are those of parquet-format's `parquet.thrift`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MAGIC = b"PAR1"
# Thrift compact types.
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _STRUCT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 12
# Fields of FileMetaData, RowGroup, ColumnChunk and ColumnMetaData.
_NUM_ROWS, _ROW_GROUPS = 3, 4
_COLUMNS, _GROUP_OFFSET, _ORDINAL = 1, 5, 7
_CHUNK_OFFSET, _CHUNK_METADATA = 2, 3
_CODEC, _PAGE_OFFSETS = 4, (9, 10, 11)
CODECS = {0: "none", 1: "snappy", 2: "gzip", 4: "brotli", 5: "lz4", 6: "zstd", 7: "lz4"}
_LARGEST_ORDINAL = (1 << 15) - 1

# A struct: by field number, the Thrift type and the value.
Struct = dict[int, tuple[int, Any]]


def split(file: memoryview) -> tuple[memoryview, Struct]:
    """The column chunks of a Parquet file without page indexes, and its footer."""
    length = int.from_bytes(file[-8:-4], "little")
    end = len(file) - 8 - length
    return file[len(MAGIC) : end], _Decoder(bytes(file[end:-8])).struct()


def first_codec(footer: bytes) -> str | None:
    """The codec of the first column chunk, None where there is none or it has no name.

    pyarrow's own `ColumnChunkMetaData.compression` aborts the process where a damaged file names a codec
    that it does not know.
    """
    decoder = _Decoder(footer)
    path = (_ROW_GROUPS, _COLUMNS, _CHUNK_METADATA, _CODEC)
    return CODECS.get(decoder.integer()) if all(map(decoder.enter, path)) else None


class Footer:
    """The footer of the whole file: that of a file without rows, to which row groups are added."""

    def __init__(self, empty: memoryview) -> None:
        self._fields = split(empty)[1]
        self._groups: list[bytes] = []
        self._rows = 0

    def add(self, part: Struct, position: int) -> None:
        """Add the row groups of a file whose column chunks begin at `position` of the whole file."""
        shift = position - len(MAGIC)
        for group in part[_ROW_GROUPS][1][1]:
            for chunk in group[_COLUMNS][1][1]:
                # Of 0 where it is not set, as the format asks for and Arrow does.
                if chunk[_CHUNK_OFFSET][1]:
                    _move(chunk, _CHUNK_OFFSET, shift)
                for field in _PAGE_OFFSETS:
                    _move(chunk[_CHUNK_METADATA][1], field, shift)
            _move(group, _GROUP_OFFSET, shift)
            group.pop(_ORDINAL, None)
            if len(self._groups) <= _LARGEST_ORDINAL:
                group[_ORDINAL] = (_I16, len(self._groups))
            self._groups.append(encode(group))
        self._rows += part[_NUM_ROWS][1]

    def text(self) -> bytes:
        """All that follows the last column chunk."""
        fields = {
            **self._fields,
            _NUM_ROWS: (_I64, self._rows),
            _ROW_GROUPS: (_LIST, (_STRUCT, self._groups)),
        }
        body = encode(fields)
        return body + len(body).to_bytes(4, "little") + MAGIC


def _move(struct: Struct, field: int, shift: int) -> None:
    if field in struct:
        kind, offset = struct[field]
        struct[field] = (kind, offset + shift)


class _Decoder:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def struct(self) -> Struct:
        return {number: (kind, self._value(kind)) for number, kind in self._heads()}

    def enter(self, field: int) -> bool:
        """Go to the value of this field of a struct; of a list, to its first item. False if there is none."""
        for number, kind in self._heads():
            if number == field:
                return kind != _LIST or self._list_head()[1] > 0
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
        if kind in (_I16, _I32, _I64):
            return self.integer()
        if kind == _STRUCT:
            return self.struct()
        if kind == _LIST:
            item_kind, count = self._list_head()
            return item_kind, [self._value(item_kind, in_list=True) for _ in range(count)]
        if kind not in (_BYTE, _DOUBLE, _BINARY):
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
    if kind in (_I16, _I32, _I64):
        out += _integer(value)
    elif kind == _STRUCT:
        out += value if isinstance(value, bytes) else encode(value)
    elif kind == _LIST:
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
    elif kind == _BINARY:
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
