"""Small things about Arrow's types and arrays that several formats need."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ema_cli.errors import DataError, Place

TO_UTF8 = "iconv -f WINDOWS-1252 -t UTF-8 FILE | ema-smooth ..."


def leaves(schema: Any) -> list[range]:
    """For each column the numbers of its Parquet leaf columns: one, but for nested types."""
    found, first = [], 0
    for field in schema:
        last = first + leaf_count(field.type)
        found.append(range(first, last))
        first = last
    return found


def leaf_count(kind: Any) -> int:
    if isinstance(kind, pa.BaseExtensionType):
        return leaf_count(kind.storage_type)
    if not pa.types.is_nested(kind):
        return 1
    return sum(leaf_count(kind.field(k).type) for k in range(kind.num_fields))


def nests_dictionary(kind: Any) -> bool:
    """True for a nested type with a dictionary in it, which pyarrow does not read across row groups."""
    if isinstance(kind, pa.BaseExtensionType):
        return nests_dictionary(kind.storage_type)
    if not pa.types.is_nested(kind):
        return False
    inner = [kind.field(k).type for k in range(kind.num_fields)]
    return any(pa.types.is_dictionary(child) or nests_dictionary(child) for child in inner)


def is_number(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def binary_array(offsets: NDArray[np.int32], data: Any) -> pa.Array:
    """The pieces of `data` between one offset and the next, as an Arrow binary array."""
    return pa.Array.from_buffers(
        pa.binary(), len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    )


def offsets_and_bytes(array: pa.Array) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """What `binary_array` makes the same array of."""
    if not len(array):
        return np.zeros(1, np.int32), np.empty(0, np.uint8)
    _, offsets, data = array.buffers()
    bounds = np.frombuffer(offsets, np.int32)[array.offset :][: len(array) + 1]
    return bounds - bounds[0], np.frombuffer(data, np.uint8)[bounds[0] : bounds[-1]]


def utf8_name(name: str) -> str:
    """The name itself. Raises DataError where it holds bytes that are no UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        problem = "a name that is not UTF-8 can go into no other format"
        raise DataError(problem, Place(column=name), TO_UTF8) from None
    return name
