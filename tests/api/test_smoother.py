"""`Smoother`: however cut, the same bits; a state goes through files; errors change nothing."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ema_cli import Smoother, smooth
from ema_cli.errors import StateError

FAMILIES: list[dict[str, Any]] = [
    {"alpha": 0.3},
    {"alpha": [0.01, 1, 0]},
    {"span": 5, "init": "sma"},
    {"alpha": 0.2, "init": 3.5},
    {"com": 4, "missing": "decay"},
    {"halflife": 3, "adjust": True},
    {"decay": 0.9, "like": "tensorboard"},
    {"alpha": 0.4, "like": "polars"},
    {"halflife": ["10s", "2min"]},
    {"halflife": "10s", "adjust": True},
    {"halflife": "10s", "reset_gap": "40s"},
]
EXTRAS: list[dict[str, Any]] = [
    {},
    {"std": True, "fill": True},
    {"bands": 2.0, "residual": True, "min_periods": 3},
]


def rows(seed: int, count: int) -> tuple[Any, Any, Any]:
    """(values with gaps, times with ties and silences, keys)."""
    rng = np.random.default_rng(seed)
    x = np.round(rng.normal(size=(count, 2)), 2)
    x[rng.random(x.shape) < 0.2] = np.nan
    times = np.cumsum(rng.choice([0, 1, 5, 60], size=count)).astype("datetime64[s]")
    return x, times, rng.choice(["a", "b", "ccc", ""], size=count)


def pieces(cuts: list[int], count: int) -> Iterator[slice]:
    edges = sorted({0, count, *(cut % (count + 1) for cut in cuts)})
    yield from (slice(begin, end) for begin, end in pairwise(edges))


def is_timed(options: dict[str, Any]) -> bool:
    return "s" in str(options.get("halflife", "")) or "min" in str(options.get("halflife", ""))


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(FAMILIES),
    st.sampled_from(EXTRAS),
    st.integers(0, 1000),
    st.lists(st.integers(0, 80), max_size=5),
    st.booleans(),
    st.booleans(),
)
def test_however_cut_and_carried_on_the_same_bits(
    family: dict[str, Any], extra: dict[str, Any], seed: int, cuts: list[int], keyed: bool, moved: bool
) -> None:
    options = extra | family
    if "like" in options:
        options.pop("fill", None)
    x, times, keys = rows(seed, 80)
    now: dict[str, Any] = ({"times": times} if is_timed(options) else {}) | ({"by": keys} if keyed else {})
    whole = smooth(x, **now, **options)
    smoother, found = Smoother(**options), []
    for part in pieces(cuts, len(x)):
        found.append(smoother.update(x[part], **{name: array[part] for name, array in now.items()}))
        if moved:
            state = smoother.state_dict()
            smoother = Smoother(**options)
            smoother.load_state_dict(state)
    assert np.concatenate(found).tobytes() == whole.tobytes()
    once = Smoother(**options)
    once.update(x, **now)
    if "reset_gap" not in options:  # a series begun afresh may still hold what no longer counts
        assert_same_state(once.state_dict(), smoother.state_dict())
    later = now | ({"times": times + (times[-1] - times[0])} if "times" in now else {})
    assert once.update(x, **later).tobytes() == smoother.update(x, **later).tobytes()


def assert_same_state(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, np.ndarray):
            assert value.dtype == other[name].dtype, name
            assert value.tobytes() == other[name].tobytes(), name
        else:
            assert value == other[name], name


def test_longer_chunks_than_a_tile() -> None:
    x = np.random.default_rng(1).normal(size=150_000)
    whole = smooth(x, alpha=0.05, adjust=True)
    smoother = Smoother(alpha=0.05, adjust=True)
    parts = [smoother.update(x[part]) for part in (slice(0, 5), slice(5, 70_000), slice(70_000, None))]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_kinds_of_chunks() -> None:
    smoother = Smoother(alpha=0.5)
    assert smoother.update(1) == 1.0
    assert smoother.update([5]).tolist() == [3.0]
    assert smoother.update([]).tolist() == []
    y = smoother.update(pd.Series([3.0], index=[9], name="x"))
    pd.testing.assert_series_equal(y, pd.Series([3.0], index=[9], name="x"))
    assert smoother.update(pd.DataFrame({"x": [5.0]})).to_numpy().tolist() == [[4.0]]
    assert np.isnan(smoother.update(None))
    assert smoother.update(np.float32(4)) == 4.0


def test_single_rows_with_times_and_keys() -> None:
    smoother = Smoother(halflife="1h")
    smoother.update(1.0, times="2024-01-01T00:00", by="a")
    assert smoother.update(9.0, times="2024-01-01T00:00", by="b") == 9.0
    assert smoother.update(3.0, times=np.datetime64("2024-01-01T01:00"), by="a") == 2.0
    both = Smoother(alpha=0.5)
    both.update(1.0, by=("a", "b"))
    assert both.update(3.0, by=["a", "b"]) == 2.0


def test_frames_with_names() -> None:
    table = pd.DataFrame({"k": ["a", "b"] * 3, "x": np.arange(6.0), "y": np.arange(6.0) ** 2})
    smoother = Smoother(alpha=0.5)
    parts = [smoother.update(table[:3], by="k"), smoother.update(table[3:], by="k")]
    pd.testing.assert_frame_equal(pd.concat(parts), smooth(table, alpha=0.5, by="k"))


# -- state


def fed(**options: Any) -> Smoother:
    smoother = Smoother(**options)
    smoother.update(pd.DataFrame({"x": [1.0, np.nan, 3.0]}), by=["é", None, "007"])
    return smoother


def through_npz(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    np.savez(file, **state)
    file.seek(0)
    return dict(np.load(file, allow_pickle=False))


def through_json(state: dict[str, Any]) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        return value.tolist() if isinstance(value, np.ndarray) else value

    return dict(json.loads(json.dumps({name: plain(value) for name, value in state.items()})))


def through_pickle(state: dict[str, Any]) -> dict[str, Any]:
    return dict(pickle.loads(pickle.dumps(state)))


@pytest.mark.parametrize("road", [through_npz, through_json, through_pickle])
def test_the_state_survives(road: Any) -> None:
    old = fed(alpha=[0.5, 0.25], std=True, missing="decay")
    new = Smoother(alpha=[0.5, 0.25], std=True, missing="decay")
    new.load_state_dict(road(old.state_dict()))
    assert_same_state(new.state_dict(), old.state_dict())
    again: Any = (np.array([[5.0], [6.0], [7.0]]), None, ["007", None, "é"])
    assert new.update(*again).tobytes() == old.update(*again).tobytes()


def test_the_state_is_a_copy() -> None:
    smoother = Smoother(alpha=0.5)
    smoother.update([1.0, 2.0])
    state = smoother.state_dict()
    before = pickle.dumps(state)
    smoother.update([100.0] * 40)
    assert pickle.dumps(state) == before
    other = Smoother(alpha=0.5)
    other.load_state_dict(state)
    other.update([100.0] * 40)
    assert pickle.dumps(state) == before


def test_the_state_before_the_first_chunk() -> None:
    fresh = Smoother(alpha=0.5)
    used = Smoother(alpha=0.5)
    used.update([1.0])
    used.load_state_dict(fresh.state_dict())
    assert used.update([9.0, 1.0]).tolist() == [9.0, 5.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.2}, r"alpha was 0\.5, is 0\.2"),
        ({"alpha": [0.5, 0.2]}, r"alpha was 0\.5, is 0\.5, 0\.2"),
        ({"span": 3}, r"alpha was 0\.5, is not given; span was not given, is 3"),
        ({"alpha": 0.5, "adjust": True}, "adjust was False, is True"),
        ({"alpha": 0.5, "missing": "decay"}, "missing was skip, is decay"),
        ({"alpha": 0.5, "min_periods": 2}, "min_periods was 0, is 2"),
        ({"alpha": 0.5, "init": "zero"}, r"init was first, is 0"),
        ({"alpha": 0.5, "like": "pandas"}, "adjust was False, is True; missing was skip, is decay; fill"),
    ],
)
def test_other_options_are_named(options: dict[str, Any], message: str) -> None:
    smoother = Smoother(**options)
    with pytest.raises(StateError, match=message):
        smoother.load_state_dict(fed(alpha=0.5).state_dict())
    assert smoother.state_dict() == Smoother(**options).state_dict()


def test_the_same_options_in_other_words() -> None:
    Smoother(alpha="0.50", adjust=False, like="miller").load_state_dict(fed(alpha=0.5).state_dict())


def test_other_columns_are_named() -> None:
    state = fed(alpha=0.5).state_dict()
    other = Smoother(alpha=0.5)
    other.update(pd.DataFrame({"y": [1.0]}))
    with pytest.raises(StateError, match=r"of columns \['x'\], this Smoother of \['y'\]"):
        other.load_state_dict(state)
    wide = Smoother(alpha=0.5)
    wide.update([[1.0, 2.0]])
    with pytest.raises(StateError, match="has 1 columns, this Smoother 2"):
        wide.load_state_dict(state)


def test_a_damaged_state_changes_nothing() -> None:
    good = fed(alpha=0.5).state_dict()
    smoother = fed(alpha=0.5)
    before = smoother.state_dict()
    for name, value in good.items():
        with pytest.raises(StateError):
            smoother.load_state_dict({k: v for k, v in good.items() if k != name})
        if isinstance(value, np.ndarray) and value.size:
            with pytest.raises(StateError):
                smoother.load_state_dict(good | {name: value[..., :-1]})
    for foreign in (
        {},
        {"format": "other", "version": 1},
        good | {"version": 99},
        good | {"version": 1},
        good | {"options": "{"},
    ):
        with pytest.raises(StateError):
            smoother.load_state_dict(foreign)
    assert_same_state(smoother.state_dict(), before)


# -- errors


def test_auto_needs_the_whole_series() -> None:
    with pytest.raises(ValueError, match=r"needs the whole series(.|\n)*smooth\(x, alpha='auto'\)"):
        Smoother(alpha="auto")
    with pytest.raises(ValueError, match="needs the whole series"):
        Smoother(alpha=[0.1, "auto"])


def test_bad_options_at_once() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Smoother(alpha=2)
    with pytest.raises(TypeError, match="did you mean 'halflife'"):
        Smoother(half_life=2)  # type: ignore[call-arg]


def test_times_go_with_durations() -> None:
    with pytest.raises(ValueError, match="needs times"):
        Smoother(halflife="5min").update([1.0])
    with pytest.raises(ValueError, match="times need a half-life that is a duration"):
        Smoother(halflife=5).update([1.0], times=["2024"])


def test_errors_change_nothing() -> None:
    smoother = Smoother(halflife="10s", time_unit="s")
    x, keys = np.arange(70_000.0), np.arange(70_000) % 3
    times = np.arange(70_000)
    smoother.update(x[:100], times[:100], keys[:100])
    before = smoother.state_dict()
    late = times.copy()
    late[69_000] = 5
    bad: list[tuple[str, Any]] = [
        ("row 68900 .*backwards", (x[100:], late[100:], keys[100:])),
        ("row 0 .*backwards", (x[:1], times[:1], keys[:1])),
        ("row 1 .*no finite number", ([1.0, np.inf], times[100:102], keys[:2])),
        ("row 1 .*'x' of type str", ([1.0, "x", None], times[100:103], keys[:3])),
        ("by has 1 rows", (x[:2], times[100:102], keys[:1])),
        ("2 columns, where the chunks before had 1", ([[1.0, 2.0]], [100], [1])),
        ("without keys, where the chunks before were with", ([1.0], [100])),
        ("keys of 2 columns, not of 1", ([1.0], [100], [["a"], ["b"]])),
    ]
    for message, arguments in bad:
        with pytest.raises(ValueError, match=message):
            smoother.update(*arguments)
        assert_same_state(smoother.state_dict(), before)
    y = smoother.update(x[100:], times[100:], keys[100:])
    assert y.tobytes() == smooth(x, times=times, by=keys, halflife="10s", time_unit="s")[100:].tobytes()


def test_a_failed_first_chunk_settles_nothing() -> None:
    smoother = Smoother(halflife="10s", time_unit="s")
    with pytest.raises(ValueError, match="backwards"):
        smoother.update([1.0, 2.0], [1, 0], [["a", "a"], ["b", "b"]])
    assert smoother.update([1.0], [0]).tolist() == [1.0]


def test_columns_keep_their_names() -> None:
    smoother = Smoother(alpha=0.5)
    smoother.update(pd.DataFrame({"a": [1.0], "b": [2.0]}))
    with pytest.raises(ValueError, match=r"columns \['b', 'a'\], where the chunks before had \['a', 'b'\]"):
        smoother.update(pd.DataFrame({"b": [1.0], "a": [2.0]}))
    assert smoother.update(np.array([[3.0, 4.0]])).tolist() == [[2.0, 3.0]]
    with pytest.raises(ValueError, match="with keys, where the chunks before were without"):
        smoother.update([[1.0, 2.0]], by=["a"])


def test_the_weight_that_was_found_is_told() -> None:
    x = np.cumsum(np.random.default_rng(0).standard_normal(300))
    found = smooth(pd.DataFrame({"a": x, "b": -(x**2)}), alpha="auto").attrs["alpha"]
    assert list(found) == ["a", "b"]
    pd.testing.assert_series_equal(
        smooth(pd.Series(x, name="a"), alpha=found["a"]), smooth(pd.Series(x, name="a"), alpha="auto")
    )
    assert smooth(pd.Series(x), alpha=0.1).attrs == {}
