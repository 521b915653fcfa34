"""Groups record batches into groups of a fixed number of rows, or of bytes where rows are long."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from ema_cli.formats import arrow_compute as pc
from ema_cli.formats.base import Ints

# The assumed bytes of a value in a list, and of any value of fixed length.
IN_A_LIST, OTHER = 32, 16


class Regrouper:
    """Makes groups of `rows` rows; of fewer, where these would take more than `bytes_` bytes.

    Which group a row is in depends only on the rows before it, not on how they were cut into batches.
    """

    def __init__(self, rows: int, bytes_: int) -> None:
        self._most_rows, self._most_bytes = rows, bytes_
        self._parts: list[Any] = []
        self._rows = self._bytes = 0

    def add(self, batch: Any) -> Iterator[list[Any]]:
        """The groups that this batch fills, each as a list of record batches."""
        ends = np.append(0, np.cumsum(row_bytes(batch)))
        begin, rows = 0, batch.num_rows
        while begin < rows:
            # As many rows as there are bytes left for, but at least one in a group.
            fit = int(ends.searchsorted(ends[begin] + self._most_bytes - self._bytes, "right")) - 1 - begin
            count = min(self._most_rows - self._rows, rows - begin, max(fit, int(not self._rows), 0))
            if count:
                self._parts.append(batch.slice(begin, count))
            self._bytes += int(ends[begin + count] - ends[begin])
            begin += count
            self._rows += count
            if self._rows == self._most_rows or begin < rows:
                yield self.rest()

    def rest(self) -> list[Any]:
        """The last group, which is not full; it may be empty."""
        parts, self._parts = self._parts, []
        self._rows = self._bytes = 0
        return parts


def row_bytes(batch: Any) -> Ints:
    """The bytes that each row of a record batch takes, written out."""
    sizes = np.zeros(batch.num_rows, np.int64)
    for column in batch.columns:
        sizes += _value_bytes(column)
    return sizes


def _value_bytes(column: Any) -> Any:
    """The bytes of each value: an array, or one number for all."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return _value_bytes(column.storage)
    if pa.types.is_dictionary(kind):
        sizes = _value_bytes(column.dictionary)
        codes = column.indices.fill_null(0).to_numpy(zero_copy_only=False)
        return sizes[codes] if isinstance(sizes, np.ndarray) and len(sizes) else OTHER
    if pa.types.is_struct(kind):
        return sum(map(_value_bytes, column.flatten()), 0)
    if not has_long_values([kind]):
        return OTHER
    is_list = pa.types.is_nested(kind)
    try:
        lengths = pc.list_value_length(column) if is_list else pc.binary_length(column)
    except pa.ArrowException:  # a map, a union, a view of a text
        return IN_A_LIST
    sizes = lengths.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return sizes * IN_A_LIST if is_list else sizes


def has_long_values(kinds: Iterable[Any]) -> bool:
    """Whether values of any of these types may be of any length."""
    return not all(pa.types.is_primitive(kind) or pa.types.is_null(kind) for kind in kinds)
