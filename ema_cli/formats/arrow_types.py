"""What Arrow's types say about the columns of a Parquet file."""

from __future__ import annotations

from typing import Any

import pyarrow as pa


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
