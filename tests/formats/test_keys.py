"""Key texts to slots: exact, in order of first appearance, the same however cut, and back again."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ema_cli.errors import DataError
from ema_cli.keys import KeyTable

TEXT = st.sampled_from([None, b"", b"7", b"007", b"a", b"a,b", b"b", b"b,c", b"\xff\x00"])
ROWS = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=60)


def columns_of(rows: list[tuple[bytes | None, ...]]) -> list[pa.Array]:
    return [pa.array(column, pa.binary()) for column in zip(*rows, strict=True)]


def slots_of(table: KeyTable, columns: list[pa.Array]) -> list[int]:
    keyed = table.encode(columns)
    assert keyed.codes.dtype == np.uint16
    assert keyed.slots.dtype == np.int64
    assert sorted(set(keyed.codes.tolist())) == list(range(len(keyed.slots)))
    return keyed.slots[keyed.codes].tolist()


@settings(deadline=None)
@given(ROWS, st.integers(1, 60), st.booleans())
def test_slots_are_ranks_of_first_appearance_however_cut(
    rows: list[tuple[bytes | None, ...]], size: int, single: bool
) -> None:
    rows = [row[:1] for row in rows] if single else rows
    table, found = KeyTable(), []
    for begin in range(0, len(rows), size):
        found += slots_of(table, columns_of(rows[begin : begin + size]))
    order = list(dict.fromkeys(rows))
    assert found == [order.index(row) for row in rows]
    assert len(table) == len(order)
    assert list(zip(*[column.to_pylist() for column in table.texts()], strict=True)) == order


@settings(deadline=None)
@given(ROWS, ROWS)
def test_restored_table_goes_on_as_the_old_one(
    rows: list[tuple[bytes | None, ...]], more: list[tuple[bytes | None, ...]]
) -> None:
    old, new = KeyTable(), KeyTable()
    old.encode(columns_of(rows))
    new.restore(old.arrays())
    assert slots_of(new, columns_of(more)) == slots_of(old, columns_of(more))
    assert all(np.array_equal(new.arrays()[name], array) for name, array in old.arrays().items())


def test_codes_of_a_dictionary_are_ranked_as_their_texts_are() -> None:
    texts = pa.array([b"not there", b"b", b"a", b"c"], pa.binary())
    codes = pa.array([3, 1, 1, 2] * 10, pa.int32())
    column = pa.DictionaryArray.from_arrays(codes, texts)
    twice = pa.DictionaryArray.from_arrays(codes, pa.array([b"", b"b", b"a", b"b"], pa.binary()))
    fresh = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0, 2, 3, 1]), texts)
    fresh_twice = pa.DictionaryArray.from_arrays(fresh.indices, twice.dictionary)
    for each in (column, twice, column.take(pa.array([1, 3, 0] * 10)), fresh, fresh_twice, fresh[1:]):
        coded, plain = KeyTable(), KeyTable()
        found, expected = coded.encode([each]), plain.encode([each.cast(pa.binary())])
        assert found.slots[found.codes].tolist() == expected.slots[expected.codes].tolist()
        assert coded.texts() == plain.texts()


def test_three_columns_stay_apart() -> None:
    rows = list(product((b"a", None, b""), repeat=3))
    table = KeyTable()
    assert slots_of(table, columns_of(rows)) == list(range(27))
    assert list(zip(*[column.to_pylist() for column in table.texts()], strict=True)) == rows


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        (pa.array(["x", None]), [b"x", None]),
        (pa.array(["x", "y"], pa.large_string()), [b"x", b"y"]),
        (pa.array(["x", "y", "x"]).dictionary_encode(), [b"x", b"y"]),
        (pa.chunked_array([["x"], ["y"]]), [b"x", b"y"]),
        (pa.array([7, None, -1]), [b"7", None, b"-1"]),
        (pa.array([True, False]), [b"true", b"false"]),
        (pa.array([1.5, 2.0]), [b"1.5", b"2"]),
    ],
)
def test_types_that_have_a_text(column: pa.Array, texts: list[bytes | None]) -> None:
    table = KeyTable()
    table.encode([column])
    assert table.texts()[0].to_pylist() == texts


def test_a_type_without_text_is_refused_and_changes_nothing() -> None:
    table = KeyTable()
    table.encode(columns_of([(b"a", b"b")]))
    with pytest.raises(DataError, match=r"list<.*> can't be keys"):
        table.encode([pa.array(["new"]), pa.array([[1]])])
    assert [column.to_pylist() for column in table.texts()] == [[b"a"], [b"b"]]


def test_an_empty_table_survives() -> None:
    table = KeyTable()
    table.restore(KeyTable().arrays())
    assert (len(table), table.columns, table.texts()) == (0, 0, [])


def test_damaged_arrays_are_refused() -> None:
    table = KeyTable()
    table.encode(columns_of([(b"aa",), (b"b",)]))
    whole = table.arrays()
    with pytest.raises(ValueError, match="ends do not fit"):
        table.restore(whole | {"0.ends": np.array([2, 9])})
    with pytest.raises(ValueError, match="twice"):
        table.restore(whole | {"0.bytes": np.frombuffer(b"aa", np.uint8), "0.ends": np.array([1, 2])})
    with pytest.raises(KeyError):
        table.restore({name: array for name, array in whole.items() if name != "0.bytes"})
    assert table.texts()[0].to_pylist() == [b"aa", b"b"]


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.int32, np.int64, np.uint64])
@given(data=st.data())
def test_whole_numbers_are_keys_as_their_texts_are(kind: type[np.integer[Any]], data: st.DataObject) -> None:
    """Whatever their width, where they lie, and in which order they come up."""
    limits = np.iinfo(kind)
    width = min(data.draw(st.sampled_from([3, 300, 200_000])), int(limits.max) - int(limits.min))
    least = data.draw(st.integers(int(limits.min), int(limits.max) - width))
    runs = data.draw(st.lists(st.lists(st.integers(least, least + width), min_size=1, max_size=60)))
    numbers, texts = KeyTable(), KeyTable()
    for run in runs:
        some = np.repeat(np.array(run, kind), data.draw(st.integers(1, 9)))
        by_number, by_text = numbers.encode([pa.array(some)]), texts.encode([pa.array(some.astype(str))])
        assert (by_number.slots[by_number.codes] == by_text.slots[by_text.codes]).all()
        assert sorted(set(by_number.codes.tolist())) == list(range(len(by_number.slots)))
