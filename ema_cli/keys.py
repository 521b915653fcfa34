"""Exact key texts to permanent numbers: `007` is not `7`, a null is not an empty text.

A key's slot is its rank by first appearance, so it does not depend on how the rows were cut into tiles.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ema_cli.engine.engine import KeyedRows
from ema_cli.engine.lanes import Ints
from ema_cli.errors import DataError

# A pair of slots as one integer: the left one in the upper half.
_HALF = 32
_LOWER = (1 << _HALF) - 1


class _Numbering:
    """Things to ranks of first appearance. A dict keeps insertion order, so its keys are the way back."""

    def __init__(self, things: Iterable[Hashable] = ()) -> None:
        self.ranks: dict[Hashable, int] = {thing: rank for rank, thing in enumerate(things)}

    def rank(self, things: Sequence[Hashable]) -> Ints:
        """The rank of each, new ones numbered as they come. `things` must not repeat."""
        ranks = self.ranks
        found = list(map(ranks.get, things))
        if None in found:
            for at, thing in enumerate(things):
                if found[at] is None:
                    found[at] = ranks[thing] = len(ranks)
        return np.array(found, np.int64)


class KeyTable:
    """Numbers the keys of rows; a key is one text, or one text from each of several columns.

    Several columns are numbered one by one and then as pairs of numbers, from left to right: no text is
    joined, so ("a", "b,c") and ("a,b", "c") stay apart, and a million keys cost about 130 bytes each
    and column.
    """

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self._texts = [_Numbering() for _ in range(columns)]
        # Pairs of (rank of the columns to the left, rank of this column's text).
        self._pairs = [_Numbering() for _ in range(columns - 1)]

    def __len__(self) -> int:
        """How many keys there are."""
        return len((self._pairs or self._texts)[-1].ranks)

    def encode(self, columns: Sequence[Any]) -> KeyedRows:
        """The rows' keys. columns: one Arrow array a key column, all of one length, at most 65,536 rows.

        Text and binary are taken as they are, other types as Arrow writes them; nulls are a key.
        Raises DataError for a type that has no text, such as a list.
        """
        codes, slots = _uniques(key_texts(columns[0]), self._texts[0])
        for column, numbering, pairs in zip(columns[1:], self._texts[1:], self._pairs, strict=True):
            right, right_slots = _uniques(key_texts(column), numbering)
            joined = (slots[codes] << _HALF) | right_slots[right]
            codes, slots = _uniques(pa.array(joined), pairs)
        return KeyedRows(codes=codes.astype(np.uint16), slots=slots)

    def texts(self) -> list[Any]:
        """Each key column's texts, key after key in the order of their slots: Arrow binary arrays."""
        ranks: Ints | None = None
        out: list[Any] = []
        for numbering, pairs in zip(self._texts[:0:-1], self._pairs[::-1], strict=True):
            both = np.fromiter(pairs.ranks, np.int64, len(pairs.ranks))
            both = both if ranks is None else both[ranks]
            out.append(_column(numbering, both & _LOWER))
            ranks = both >> _HALF
        out.append(_column(self._texts[0], ranks))
        return out[::-1]

    @classmethod
    def restore(cls, texts: Sequence[Any]) -> KeyTable:
        """The table that `texts` came from, slots and all.

        Raises ValueError where two keys are the same or columns differ in length.
        """
        table = cls(len(texts))
        if len({len(column) for column in texts}) > 1:
            raise ValueError("the key columns differ in length")
        for begin in range(0, len(texts[0]), _TILE):
            slots = table.encode([column[begin : begin + _TILE] for column in texts]).slots
            if (
                slots[0] != begin
                or len(slots) != min(_TILE, len(texts[0]) - begin)
                or slots[-1] != len(table) - 1
            ):
                raise ValueError("a key is there twice")
        return table


_TILE = 65_536


def _uniques(column: Any, numbering: _Numbering) -> tuple[NDArray[np.integer[Any]], Ints]:
    """Each row's code among the column's distinct things, and the rank of each of those."""
    encoded = column.dictionary_encode(null_encoding="encode")
    return encoded.indices.to_numpy(zero_copy_only=False), numbering.rank(encoded.dictionary.to_pylist())


def _column(numbering: _Numbering, ranks: Ints | None) -> Any:
    texts = pa.array(numbering.ranks, pa.large_binary())
    return texts if ranks is None else texts.take(pa.array(ranks))


def key_texts(column: Any) -> Any:
    """An Arrow column's cells as binary texts, nulls kept. Raises DataError for a type that has no text."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    try:
        if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            column = column.cast(pa.large_string()).cast(pa.large_binary())
    except pa.ArrowException:
        raise DataError(f"values of type {kind} can't be keys", hint="a column of text or numbers") from None
    return column
