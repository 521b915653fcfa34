"""A part that is only digested leaves the state, bit for bit, as if its rows had been folded."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ema_cli.engine.digest import Digest, Standing, count, digest, merge
from ema_cli.engine.engine import BackwardsTimeError, Engine, KeyedRows
from ema_cli.engine.rows import Tile
from ema_cli.trends import Trends
from tests.engine.engine_cases import Case, cases, examples
from tests.laws.test_laws_engine import MODES, big_case, same_bits


def keyed(part: Case, slots: dict[int, int]) -> tuple[KeyedRows | None, np.ndarray]:
    """The part's own numbering of its keys, and their slots for good."""
    if part.keys is None:
        return None, np.zeros(1, np.int64)
    names, first, codes = np.unique(part.keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    own = np.argsort(order)
    for name in names[order].tolist():
        slots.setdefault(name, len(slots))
    there = np.array([slots[name] for name in names[order].tolist()], np.int64)
    return KeyedRows(own[codes].astype(np.uint16), np.arange(len(names))), there


def remembered(engine: Engine) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in engine.state.trimmed().items()}


def assert_same(case: Case, cuts: list[int]) -> list[Digest]:
    """Fold the parts one after another, and merge their digests; compare the states after each."""
    columns = case.values.shape[1]
    folded, merged = Trends(case.average, columns), Trends(case.average, columns)
    progress = [Standing(engine.average, engine.state) for engine in merged.engines]
    slots = dict[int, int]()
    ends = [*sorted(cuts), len(case.values)]
    digests = []
    for begin, end in zip([0, *ends[:-1]], ends, strict=True):
        part = case.part(begin, end)
        if begin == end:
            continue
        keys, there = keyed(part, slots)
        engine_keys = None if keys is None else KeyedRows(keys.codes, there)
        folded.update(part.table, part.times, engine_keys)
        tiles = merged.engine_tiles(part.table, part.times, keys)
        for (engine, tile), known in zip(tiles, progress, strict=True):
            before = known.advance(count(engine.average, tile), there)
            own = pickle.loads(pickle.dumps(digest(engine.average, tile, before)))
            merge(engine, own, there)
            digests.append(own)
        got = merged.state()
        for name, array in folded.state().items():
            assert same_bits(array, got[name]), f"{name} after row {end}: {got[name]}, not {array}"
    return digests


@examples(300)
@given(cases(more=True, stages=False), st.data())
def test_a_part_does_what_the_rows_do(case: Case, data: st.DataObject) -> None:
    assert_same(case, data.draw(st.lists(st.integers(0, len(case.values)), max_size=6)))


@pytest.mark.parametrize("keys", [0, 1, 7, 3000])
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_whole_trees(mode: dict[str, Any], keys: int) -> None:
    """Parts of every size, across the ends of blocks of every level."""
    case = big_case(mode, 40_000, keys)
    assert_same(case, [1, 2, 18, 34, 50, 290, 4_000, 4_098, 8_195, 8_196, 21_000, 39_990])


@pytest.mark.parametrize("keys", [0, 3])
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_part_is_small(mode: dict[str, Any], keys: int) -> None:
    """Up to 16 elements a level and series on either side, and one for every 4,096 observations."""
    part = assert_same(big_case(mode, 60_000, keys), [13])[-1]
    series = max(keys, 1)
    if "reset_gap" in mode:  # only what follows the last silence
        assert len(part.head) + len(part.tail) < 60_000
        return
    lead = 700 if "span" in mode else 1
    assert {level for level, _ in part.middle.runs} == {1, 2, 3}
    ties = 20 if "halflife" in mode else 1  # rows of equal time travel as they are
    assert len(part.head) + len(part.tail) <= series * (lead + ties * 34)
    elements = sum(len(blocks[0]) for _, blocks in part.middle.runs)
    assert elements <= series * 16 * 4 + 60_000 // 4_096


def test_a_part_from_before_changes_nothing() -> None:
    case = Case({"halflife": "1s"}, np.array([[1.0], [2.0], [3.0]]), np.array([50, 60, 70]))
    engine = Engine(case.average, 1)
    engine.update(Tile(case.values, case.times))
    before = remembered(engine)
    early = Tile(case.values, np.array([69, 80, 90]), None)
    progress = Standing(case.average, engine.state).advance(count(case.average, early), np.zeros(1, np.int64))
    with pytest.raises(BackwardsTimeError) as error:
        merge(engine, digest(case.average, early, progress), np.zeros(1, np.int64))
    assert error.value.row == 0
    assert all(same_bits(array, before[name]) for name, array in remembered(engine).items())
