"""Keys to permanent numbers, their slots: `007` is not `7`, and a null is not an empty text.

A key's slot is the number of keys that appeared before it, so it does not depend on how rows were cut.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ema_cli.engine.engine import TILE, KeyedRows
from ema_cli.errors import DataError
from ema_cli.formats import arrow_compute as pc
from ema_cli.formats.base import Ints

Arrays = dict[str, NDArray[Any]]
# A pair of ranks as one integer: the left one in the upper half.
_HALF = 32
_LOWER = (1 << _HALF) - 1
# With this many rows for each text of a dictionary it is quicker to look at the dictionary alone.
FEW = 4
# The widest range of integer keys for which there is a table.
WIDEST = 2 * TILE


class _Numbering:
    """Numbers things by first appearance. A dict keeps that order, so its keys are the way back."""

    def __init__(self, things: Iterable[Hashable] = ()) -> None:
        self.ranks: dict[Hashable, int] = {thing: rank for rank, thing in enumerate(things)}
        self.numbers = _NumberRanks()

    def rank(self, things: Sequence[Hashable]) -> Ints:
        """The rank of each, new ones numbered as they come. `things` must not repeat."""
        ranks = self.ranks
        found = list(map(ranks.get, things))
        if None in found:
            for at, thing in enumerate(things):
                if found[at] is None:
                    found[at] = ranks[thing] = len(ranks)
        return np.array(found, np.int64)


class _NumberRanks:
    """Ranks of integers that lie close together: a table is quicker than a hash."""

    def __init__(self) -> None:
        self.least, self.ranks = 0, np.empty(0, np.int32)  # −1: not known

    def find(self, numbers: NDArray[np.integer[Any]]) -> NDArray[np.int32] | None:
        """The rank of each, if all are known."""
        least, most = int(numbers.min()), int(numbers.max())
        if not self.least <= least <= most < self.least + len(self.ranks):
            return None
        ranks = self.ranks[least - self.least :].take(_above(numbers, least), mode="clip")  # quick, all fit
        return None if ranks.min() < 0 else ranks

    def learn(self, numbers: Sequence[int], ranks: Ints) -> None:
        least, most = min(numbers), max(numbers)
        if len(self.ranks):
            least, most = min(least, self.least), max(most, self.least + len(self.ranks) - 1)
        if most - least >= WIDEST:
            return
        if len(self.ranks) <= most - least:
            wider = np.full(most - least + 1, -1, np.int32)
            wider[self.least - least :][: len(self.ranks)] = self.ranks
            self.least, self.ranks = least, wider
        self.ranks[np.array(numbers) - self.least] = ranks


class _EncodedRows(KeyedRows):
    """Rows that Arrow sorts, which counts small numbers: half of the time that NumPy takes."""

    @cached_property
    def order(self) -> Ints:
        return np.asarray(pc.sorted_places(self.codes))


class KeyTable:
    """Numbers the keys of rows; a key is one text, or one text from each of several columns.

    Several columns are numbered one by one, then as pairs of numbers, from left to right: texts are not
    joined, so ("a", "b,c") and ("a,b", "c") stay different. A million keys take about 130 MB a column.
    """

    def __init__(self) -> None:
        self._texts: list[_Numbering] = []
        # For each column but the first: pairs (rank of the columns to its left, rank of its text).
        self._pairs: list[_Numbering] = []

    def __len__(self) -> int:
        """How many keys there are."""
        return len((self._pairs or self._texts)[-1].ranks) if self._texts else 0

    def copy(self) -> KeyTable:
        """An independent copy."""
        other = KeyTable()
        other._texts = [_Numbering(numbering.ranks) for numbering in self._texts]
        other._pairs = [_Numbering(numbering.ranks) for numbering in self._pairs]
        return other

    @property
    def columns(self) -> int:
        """How many columns a key has; 0 before the first rows."""
        return len(self._texts)

    def encode(self, columns: Sequence[Any]) -> KeyedRows:
        """The rows' keys. columns: one Arrow array a key column, all of one length, 1 row or more.

        Text and binary are taken as they are, other types as Arrow writes them; nulls are a key.
        Raises DataError for a type that has no text, such as a list; then nothing is numbered.
        """
        texts = [_plain(column) for column in columns]
        if not self._texts:
            self._texts = [_Numbering() for _ in columns]
            self._pairs = [_Numbering() for _ in columns[1:]]
        keyed = _uniques(texts[0], self._texts[0])
        for column, numbering, pairs in zip(texts[1:], self._texts[1:], self._pairs, strict=True):
            right = _uniques(column, numbering)
            joined = (keyed.slots[keyed.codes] << _HALF) | right.slots[right.codes]
            keyed = _uniques(pa.array(joined), pairs, pairs=True)
        least = np.uint16 if len(keyed.slots) <= 1 << 16 else np.uint32
        return _EncodedRows(keyed.codes.astype(least), keyed.slots, keyed.counts)

    def texts(self) -> list[Any]:
        """Each key column's texts, key after key in the order of their slots: Arrow large_binary arrays."""
        ranks: Ints | None = None
        out: list[Any] = []
        for numbering, pairs in zip(self._texts[:0:-1], self._pairs[::-1], strict=True):
            both = np.fromiter(pairs.ranks, np.int64, len(pairs.ranks))
            both = both if ranks is None else both[ranks]
            out.append(_column(numbering, both & _LOWER))
            ranks = both >> _HALF
        if self._texts:
            out.append(_column(self._texts[0], ranks))
        return out[::-1]

    def arrays(self) -> Arrays:
        """All keys as NumPy arrays by name, for a file: for column k its texts one after another as bytes
        (`k.bytes`, uint8), where each ends (`k.ends`, int64) and which are null (`k.null`, bool)."""
        out: Arrays = {}
        for k, texts in enumerate(self.texts()):
            ends = np.frombuffer(texts.buffers()[1], np.int64)[1 : len(texts) + 1]
            data = texts.buffers()[2]
            held = np.empty(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)
            out[f"{k}.bytes"] = held[: ends[-1] if len(ends) else 0].copy()
            out[f"{k}.ends"] = ends.copy()
            out[f"{k}.null"] = texts.is_null().to_numpy(zero_copy_only=False)
        return out

    def restore(self, arrays: Mapping[str, Any]) -> None:
        """Restore the keys and slots that `arrays` gave.

        Raises ValueError where the arrays don't fit together or a key is there twice, KeyError where one is
        missing. Then nothing is changed.
        """
        texts = [_from_arrays(arrays, k) for k in range(sum(name.endswith(".ends") for name in arrays))]
        if len({len(column) for column in texts}) > 1:
            raise ValueError("the key columns differ in length")
        other = KeyTable()
        for begin in range(0, len(texts[0]) if texts else 0, TILE):
            slots = other.encode([column[begin : begin + TILE] for column in texts]).slots
            if not np.array_equal(slots, np.arange(begin, min(begin + TILE, len(texts[0])))):
                raise ValueError("a key is there twice")
        self._texts, self._pairs = other._texts, other._pairs


def _plain(column: Any) -> Any:
    """An Arrow column as binary texts; integers stay, since only distinct ones need to become texts."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_dictionary(column.type):
        if _tells_apart(column):
            return column
        column = column.cast(column.type.value_type)
    return column if pa.types.is_integer(column.type) else _texts_of(column)


def _tells_apart(column: Any) -> bool:
    """Whether a column's dictionary has few texts, all different and none null."""
    texts, kind = column.dictionary, column.type.value_type
    if column.null_count or texts.null_count or not (pa.types.is_binary(kind) or pa.types.is_string(kind)):
        return False
    if FEW * len(texts) > len(column):
        return False
    return len(pc.dictionary_encode(texts).dictionary) == len(texts)


def _texts_of(column: Any) -> Any:
    """An Arrow column's cells as binary texts, nulls kept. Raises DataError for a type that has no text."""
    kind = column.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return column
    try:
        return pc.cast(pc.cast(column, pa.large_string()), pa.large_binary())
    except pa.ArrowException:
        raise DataError(f"values of type {kind} can't be keys", hint="a column of text or numbers") from None


def _uniques(column: Any, numbering: _Numbering, *, pairs: bool = False) -> KeyedRows:
    """The rows by the column's distinct things, with the rank of each of these for a slot.

    pairs: the things are numbers themselves, not texts.
    """
    whole = _whole_numbers(column)
    if whole is not None and (ranks := numbering.numbers.find(whole)) is not None:
        counts = np.bincount(ranks)
        slots = np.flatnonzero(counts)
        if len(slots) < len(counts):
            ranks = (np.cumsum(counts > 0) - 1)[ranks]
        return KeyedRows(ranks, slots, counts[slots])
    if not pa.types.is_dictionary(column.type):
        codes, things = _distinct(column)
    elif _counts_up(column):
        codes, things = column.indices.to_numpy(), column.dictionary
    else:  # not all need to be there, in any order
        codes, things = _distinct(column.indices)
        things = pc.take(column.dictionary, things)
    slots = numbering.rank((things if pairs else _texts_of(things)).to_pylist())
    if whole is not None:
        numbering.numbers.learn(things.to_pylist(), slots)
    return KeyedRows(codes, slots)


def _counts_up(column: Any) -> bool:
    """Whether a dictionary has what is there, in the order in which it comes, as a fresh one does."""
    if column.null_count or not len(column):
        return False
    newest = np.maximum.accumulate(column.indices.to_numpy())
    return bool(newest[0] == 0 and newest[-1] == len(column.dictionary) - 1 and (np.diff(newest) <= 1).all())


def _whole_numbers(column: Any) -> NDArray[np.integer[Any]] | None:
    """The column's numbers, if there are some and all are whole."""
    if not pa.types.is_integer(column.type) or column.null_count or not len(column):
        return None
    numbers: NDArray[np.integer[Any]] = column.to_numpy(zero_copy_only=False)
    return numbers


def _above(numbers: NDArray[np.integer[Any]], least: int) -> NDArray[np.integer[Any]]:
    """How far numbers that lie close together are above the least of them."""
    if numbers.dtype.kind == "u":
        return np.asarray(numbers - numbers.dtype.type(least))  # 2⁶⁴ − 1 is no int64
    return np.asarray(numbers.astype(np.int64, copy=False) - least)  # 127 − (−128) is no int8


def _distinct(column: Any) -> tuple[NDArray[np.integer[Any]], Any]:
    """Each row's code, and the distinct things that codes count, in the order in which they come."""
    numbers = _whole_numbers(column)
    if numbers is not None:
        least, most = int(numbers.min()), int(numbers.max())
        if most - least < 2 * len(numbers):  # a table of all numbers between them is quicker than a hash
            return _distinct_numbers(_above(numbers, least).astype(np.int64), least, column.type)
    encoded = pc.dictionary_encode(column)
    return encoded.indices.to_numpy(zero_copy_only=False), encoded.dictionary


def _distinct_numbers(above: Ints, least: int, kind: Any) -> tuple[Ints, Any]:
    """The same of numbers that are so far above the least."""
    rows = np.arange(len(above))
    first = np.full(int(above.max()) + 1, len(above))
    first[above[::-1]] = rows[::-1]  # of several the last one stays, which is the first row
    there = np.flatnonzero(first < len(above))
    there = there[np.argsort(first[there])]
    codes = np.empty(len(first), np.int64)
    codes[there] = rows[: len(there)]
    return codes[above], pa.array([int(number) + least for number in there.tolist()], kind)


def _column(numbering: _Numbering, ranks: Ints | None) -> Any:
    texts = pa.array(numbering.ranks, pa.large_binary(), size=len(numbering.ranks))
    return texts if ranks is None else pc.take(texts, ranks)


def _from_arrays(arrays: Mapping[str, Any], k: int) -> Any:
    data = np.ascontiguousarray(arrays[f"{k}.bytes"], np.uint8)
    ends = np.asarray(arrays[f"{k}.ends"], np.int64)
    null = np.asarray(arrays[f"{k}.null"], bool)
    offsets = np.concatenate((np.zeros(1, np.int64), ends))
    if null.shape != ends.shape or offsets[-1] != len(data) or (np.diff(offsets) < 0).any():
        raise ValueError(f"key column {k}: the ends do not fit the texts")
    valid = pa.py_buffer(np.packbits(~null, bitorder="little"))
    return pa.Array.from_buffers(
        pa.large_binary(), len(ends), [valid, pa.py_buffer(offsets), pa.py_buffer(data)]
    )
