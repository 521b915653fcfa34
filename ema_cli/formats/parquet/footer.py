"""Makes a Parquet file of column chunks that were encoded elsewhere.

Column chunks are written one after the other as they are, and only the footer, which says where each begins,
is new. Its fields are those of parquet-format's `parquet.thrift`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from ema_cli.formats.parquet.thrift import I16, I32, I64, STRUCT, Decoder, Struct, a_list, encode, items

MAGIC = b"PAR1"
CODECS = {0: "none", 1: "snappy", 2: "gzip", 4: "brotli", 5: "lz4", 6: "zstd", 7: "lz4"}
_LARGEST_ORDINAL = (1 << 15) - 1


class FileMeta(IntEnum):
    """Field numbers of FileMetaData."""

    SCHEMA, ROWS, GROUPS, NOTES, CREATED_BY, COLUMN_ORDERS = 2, 3, 4, 5, 6, 7
    ENCRYPTION, SIGNING_KEY = 8, 9


class RowGroup(IntEnum):
    """Field numbers of RowGroup."""

    CHUNKS, BYTES, ROWS, OFFSET, PACKED_BYTES, ORDINAL = 1, 2, 3, 5, 6, 7


class ColumnChunk(IntEnum):
    """Field numbers of ColumnChunk. The four index fields say where the page indexes are."""

    FILE_PATH, OFFSET, META, OFFSETS_AT, OFFSETS_SIZE, INDEX_AT, INDEX_SIZE = 1, 2, 3, 4, 5, 6, 7
    CRYPTO, ENCRYPTED_META = 8, 9


class ColumnMeta(IntEnum):
    """Field numbers of ColumnMetaData."""

    CODEC, VALUES, BYTES, PACKED_BYTES, DATA_AT, INDEX_AT, DICTIONARY_AT = 4, 5, 6, 7, 9, 10, 11
    STATISTICS, ENCODINGS, BLOOM_AT, BLOOM_SIZE, SIZES = 12, 13, 14, 15, 16


class Statistics(IntEnum):
    """Field numbers of Statistics; the greatest and least value have an old and a new one each."""

    OLD_MAX, OLD_MIN, NULLS, MAX, MIN = 1, 2, 3, 5, 6


CHILDREN = 5  # the field of SchemaElement that only groups have


def split(file: memoryview) -> tuple[memoryview, Struct]:
    """The column chunks of a Parquet file without page indexes, and its footer."""
    length = int.from_bytes(file[-8:-4], "little")
    end = len(file) - 8 - length
    return file[len(MAGIC) : end], Decoder(bytes(file[end:-8])).struct()


def first_codec(footer: bytes) -> str | None:
    """The codec of the first column chunk, None where there is none or it has no name.

    pyarrow's own `ColumnChunkMetaData.compression` aborts the process where a damaged file names a codec
    that it does not know.
    """
    decoder = Decoder(footer)
    path = (FileMeta.GROUPS, RowGroup.CHUNKS, ColumnChunk.META, ColumnMeta.CODEC)
    return CODECS.get(decoder.integer()) if all(map(decoder.enter, path)) else None


class Footer:
    """The footer of the whole file: the fields of one without rows, to which row groups are added."""

    def __init__(self, fields: Struct) -> None:
        self._fields = fields
        self._groups: list[bytes] = []
        self._rows = 0

    def add(self, group: Struct, chunks: Sequence[Struct]) -> None:
        """Add a row group of these chunks, whose places are already those in the new file."""
        sizes = [meta_of(chunk) for chunk in chunks]
        fields = {
            **group,
            RowGroup.CHUNKS: a_list(chunks),
            RowGroup.BYTES: (I64, sum(meta[ColumnMeta.BYTES][1] for meta in sizes)),
            RowGroup.PACKED_BYTES: (I64, sum(meta[ColumnMeta.PACKED_BYTES][1] for meta in sizes)),
        }
        fields.pop(RowGroup.OFFSET, None)
        fields.pop(RowGroup.ORDINAL, None)
        if chunks:
            fields[RowGroup.OFFSET] = (I64, place_of(chunks[0])[0])
        if len(self._groups) <= _LARGEST_ORDINAL:
            fields[RowGroup.ORDINAL] = (I16, len(self._groups))
        self._groups.append(encode(fields))
        self._rows += rows_of(group)

    def text(self) -> bytes:
        """The end of the file, after the last column chunk."""
        groups = a_list(self._groups)
        body = encode({**self._fields, FileMeta.ROWS: (I64, self._rows), FileMeta.GROUPS: groups})
        return body + len(body).to_bytes(4, "little") + MAGIC


def rows_of(group: Struct) -> int:
    rows: int = group[RowGroup.ROWS][1]
    return rows


def meta_of(chunk: Struct) -> Struct:
    meta: Struct = chunk[ColumnChunk.META][1]
    return meta


def place_of(chunk: Struct) -> tuple[int, int]:
    """Where a chunk's bytes begin, and how many they are."""
    meta = meta_of(chunk)
    begin, dictionary = meta[ColumnMeta.DATA_AT][1], meta.get(ColumnMeta.DICTIONARY_AT, (I64, 0))[1]
    return min(begin, dictionary) if dictionary > 0 else begin, meta[ColumnMeta.PACKED_BYTES][1]


def moved(chunk: Struct, shift: int) -> Struct:
    """A chunk moved by so many bytes, without its indexes, which are not copied."""
    gone = {ColumnMeta.BLOOM_AT, ColumnMeta.BLOOM_SIZE}
    meta = {field: value for field, value in meta_of(chunk).items() if field not in gone}
    for field in (ColumnMeta.DATA_AT, ColumnMeta.INDEX_AT, ColumnMeta.DICTIONARY_AT):
        if field in meta and meta[field][1] > 0:
            meta[field] = (I64, meta[field][1] + shift)
    # The offset of the metadata, which is 0 where it is not set, as the format asks for and Arrow does.
    return {ColumnChunk.OFFSET: (I64, 0), ColumnChunk.META: (STRUCT, meta)}


def joined(chunks: Sequence[Struct], position: int) -> Struct:
    """Chunks of float64 without dictionaries as one whose pages stand from `position` on."""
    metas = [meta_of(chunk) for chunk in chunks]
    meta = dict(metas[0])
    for field in (ColumnMeta.ENCODINGS, ColumnMeta.SIZES):  # of one piece each, and nobody needs them
        meta.pop(field, None)
    for field in (ColumnMeta.VALUES, ColumnMeta.BYTES, ColumnMeta.PACKED_BYTES):
        meta[field] = (I64, sum(part[field][1] for part in metas))
    meta[ColumnMeta.DATA_AT] = (I64, position)
    meta[ColumnMeta.STATISTICS] = (
        STRUCT,
        _joined_statistics([part[ColumnMeta.STATISTICS][1] for part in metas]),
    )
    return {ColumnChunk.OFFSET: (I64, 0), ColumnChunk.META: (STRUCT, meta)}


def _joined_statistics(parts: Sequence[Struct]) -> Struct:
    """Null counts added up, and the least and greatest value of those that have any."""
    out: Struct = {Statistics.NULLS: (I64, sum(part[Statistics.NULLS][1] for part in parts))}
    for fields, best in (
        ((Statistics.OLD_MAX, Statistics.MAX), max),
        ((Statistics.OLD_MIN, Statistics.MIN), min),
    ):
        for field in fields:
            if found := [part[field] for part in parts if field in part]:
                out[field] = best(found, key=lambda item: struct.unpack("<d", item[1]))
    return out


@dataclass(frozen=True)
class Schema:
    """The schema elements: the root, and for each column those that describe it, itself first."""

    root: Struct
    columns: list[list[Struct]]

    def field(self) -> tuple[int, object]:
        """The footer's field for it."""
        root = {**self.root, CHILDREN: (I32, len(self.columns))}
        return a_list([root, *(element for elements in self.columns for element in elements)])


def schema_of(footer: Struct) -> Schema:
    """The schema in a footer. Raises IndexError where it has fewer elements than it says."""
    root, *rest = items(footer, FileMeta.SCHEMA)
    columns, at = [], 0
    for _ in range(_children(root)):
        begin, open_ = at, 1
        while open_:
            open_ += _children(rest[at]) - 1
            at += 1
        columns.append(rest[begin:at])
    return Schema(root, columns)


def _children(element: Struct) -> int:
    count: int = element.get(CHILDREN, (I32, 0))[1]
    return count
