"""ParameterEMA against one plain scalar loop, and what must not change when something goes wrong."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ema_cli.errors import DataError, EmaError, FileTrouble, OptionError, StateError
from ema_cli.parameters.ema import ParameterEMA
from ema_cli.parameters.schedule import exp_ramp, power_ramp, tf_ramp
from ema_cli.parameters.tensors import rounded

ml_dtypes = pytest.importorskip("ml_dtypes", reason="bfloat16 is of the extra [weights]")
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def plain_loop(values: list[float], ramp: Callable[[int], float], **options: Any) -> float:
    """The average of one number, as one would write it by hand. `values[0]` is what training started from."""
    every, after = options.get("update_every", 1), options.get("update_after_step", 0)
    corrected = options.get("bias_correction", False)
    zeros = options.get("init") == "zeros"
    average = 0.0 if zeros and not corrected else values[0]
    weight, updates = 0.0, 0
    for step, x in enumerate(values[1:], 1):
        if step % every:
            continue
        if step <= after:
            if not (zeros and not corrected):
                average = x
            continue
        decay = ramp(updates)
        gain = 1.0 - decay
        if corrected:
            weight = decay * weight + (1.0 - decay)
            gain = (1.0 - decay) / weight if weight else 0.0
        average = x if gain == 1.0 else average + gain * (x - average)
        updates += 1
    return average


floats = st.floats(-1e300, 1e300, allow_nan=False)
options = st.fixed_dictionaries(
    {},
    optional={
        "update_every": st.integers(1, 3),
        "update_after_step": st.integers(0, 4),
        "start": st.sampled_from(
            [{"init": "params"}, {"init": "zeros"}, {"init": "zeros", "bias_correction": True}]
        ),
        "warmup": st.sampled_from(["tf", "power", "exp"]),
    },
)


def settled(chosen: dict[str, Any]) -> dict[str, Any]:
    chosen = dict(chosen)
    return {**chosen.pop("start", {}), **chosen}


def ramp_of(chosen: dict[str, Any], decay: float) -> Callable[[int], float]:
    ramps = {None: lambda _: decay, "tf": tf_ramp(decay), "power": power_ramp(decay), "exp": exp_ramp(decay)}
    return ramps[chosen.get("warmup")]


@given(st.lists(floats, min_size=1, max_size=12), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), options)
def test_equals_the_plain_loop_bit_for_bit(values: list[float], decay: float, chosen: dict[str, Any]) -> None:
    chosen = settled(chosen)
    ema = ParameterEMA({"w": values[0]}, decay=decay, **chosen)
    for x in values[1:]:
        ema.update({"w": x})
    assert ema.ema["w"].item() == plain_loop(values, ramp_of(chosen, decay), **chosen)


@given(st.lists(floats, min_size=2, max_size=12), st.floats(0, 1), options, st.integers(0, 11))
def test_resuming_is_the_same_run_bit_for_bit(
    values: list[float], decay: float, chosen: dict[str, Any], cut: int
) -> None:
    chosen = settled(chosen)
    whole = ParameterEMA({"w": values[0]}, decay=decay, **chosen)
    first = ParameterEMA({"w": values[0]}, decay=decay, **chosen)
    for x in values[1:]:
        whole.update({"w": x})
    for x in values[1:][:cut]:
        first.update({"w": x})
    second = ParameterEMA({"w": 0.0}, decay=decay, **chosen)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for x in values[1:][cut:]:
        second.update({"w": x})
    assert pickle.dumps(second.state_dict()) == pickle.dumps(whole.state_dict())


@given(st.lists(st.integers(-64, 64), min_size=1, max_size=8), st.integers(1, 7))
def test_bias_correction_is_the_weighted_mean(values: list[int], eighths: int) -> None:
    decay = Fraction(eighths, 8)
    ema = ParameterEMA({"w": 99.0}, decay=float(decay), init="zeros", bias_correction=True)
    for x in values:
        ema.update({"w": float(x)})
    weights = [decay ** (len(values) - 1 - i) for i in range(len(values))]
    mean = sum(w * x for w, x in zip(weights, values, strict=True)) / sum(weights)
    assert ema.ema["w"].item() == pytest.approx(float(mean), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("warmup", [None, "tf", "power", "exp", "own"])
@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.parametrize("start", [{"init": "params"}, {"init": "zeros", "bias_correction": True}])
def test_save_load_update_equals_update(
    tmp_path: Path, warmup: Any, suffix: str, start: dict[str, Any]
) -> None:
    def own(n: int) -> float:
        return n / (n + 3)

    rng = np.random.default_rng(7)
    steps = [messy_parameters(rng) for _ in range(13)]
    made = {"decay": 0.9, "update_every": 3, "update_after_step": 2, **start}
    made["warmup"] = own if warmup == "own" else warmup
    whole, part = ParameterEMA(steps[0], **made), ParameterEMA(steps[0], **made)
    for params in steps:
        whole.update(params)
    for params in steps[:7]:  # in the middle of an update_every
        part.update(params)
    part.save(tmp_path / f"ema{suffix}")
    again = ParameterEMA.load(tmp_path / f"ema{suffix}", **({"warmup": own} if warmup == "own" else {}))
    same(again.ema, part.ema)
    for params in steps[7:]:
        again.update(params)
    same(again.ema, whole.ema)
    again.save(tmp_path / f"again{suffix}")
    whole.save(tmp_path / f"whole{suffix}")
    assert (tmp_path / f"again{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()


def messy_parameters(rng: np.random.Generator) -> dict[str, Any]:
    """Every dtype and layout that a model may hold."""
    return {
        "half": rng.normal(size=(3, 4)).astype(np.float16),
        "brain": rng.normal(size=(2, 3)).astype(BFLOAT16),
        "turned": rng.normal(size=(5, 3)).astype(np.float32).T,
        "every other": rng.normal(size=10)[::2],
        "nothing": np.zeros((0, 3), np.float32),
        "file": np.float64(rng.normal()),
        "allow_pickle": np.array(rng.integers(9)),
        "layer": {"mask": rng.normal(size=4) > 0, "deep": {"counts": rng.integers(0, 9, 3).astype(np.uint8)}},
        "big-endian": rng.normal(size=3).astype(">f4"),
    }


def same(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert sorted(left) == sorted(right)
    for name, array in left.items():
        assert array.dtype.newbyteorder("=") == right[name].dtype.newbyteorder("="), name
        assert array.shape == right[name].shape, name
        assert array.tobytes() == right[name].astype(array.dtype).tobytes(), name


def test_the_worked_example() -> None:
    parameters = np.array([1.0, 2.0, 3.0])
    ema = ParameterEMA({"p": np.zeros(3)}, alpha=0.9, init="zeros")
    plain = [0.0, 0.0, 0.0]
    for _ in range(10):
        parameters = parameters - np.array([0.1, 0.2, 0.3])
        ema.update({"p": parameters})
        plain = [y + 0.9 * (x - y) for x, y in zip(parameters.tolist(), plain, strict=True)]
        assert ema.ema["p"].tolist() == plain
    product = ema.ema["p"] @ np.array([4.0, 5.0, 6.0])
    assert f"{product:.11f}" == "0.35555555232"
    # What is beyond the eleventh digit is the float64 parameters' own: ten times 0.1 off 1 leaves no zero.
    assert product == pytest.approx(0.35555555232, abs=1e-14)


@pytest.mark.parametrize("dtype", [np.dtype(np.float16), BFLOAT16], ids=["float16", "bfloat16"])
def test_half_precision_follows_float64_to_one_rounding(dtype: np.dtype[Any]) -> None:
    rng = np.random.default_rng(3)
    start = rng.normal(size=50).astype(dtype)
    ema = ParameterEMA({"w": start}, decay=0.9999)
    reference = [Fraction(x) for x in start.astype(float).tolist()]
    for _ in range(300):
        now = (start.astype(float) + 1 + rng.normal(size=50) / 10).astype(dtype)
        ema.update({"w": now})
        # exact rationals would grow without end; 200 bits are as good as exact here
        reference = [
            Fraction(math.floor((y + (Fraction(x) - y) / 10000) * 2**200), 2**200)
            for x, y in zip(now.astype(float).tolist(), reference, strict=True)
        ]
    moved = ema.ema["w"].astype(float)
    assert (moved != start.astype(float)).any(), "the average has not stalled"
    assert moved.tolist() == [nearest(y, dtype) for y in reference]


def nearest(exact: Fraction, dtype: np.dtype[Any]) -> float:
    guess = np.array(float(exact)).astype(dtype)
    around = [np.nextafter(guess, dtype.type(-9)), guess, np.nextafter(guess, dtype.type(9))]
    return min((float(candidate) for candidate in around), key=lambda c: abs(Fraction(c) - exact))


@given(st.floats(width=64))
def test_rounding_to_bfloat16_happens_once(x: float) -> None:
    got = rounded(np.array(x), BFLOAT16)
    assert got.shape == ()
    if math.isnan(x):
        assert np.isnan(got)
    elif abs(x) < 3.3e38:
        assert abs(Fraction(float(got)) - Fraction(x)) == abs(
            Fraction(nearest(Fraction(x), BFLOAT16)) - Fraction(x)
        )


def test_rounding_twice_would_be_wrong_here() -> None:
    x = np.array([1 + 2**-8 + 2.0**-40])  # just above the middle between 1 and 1 + 2^-7
    assert x.astype(BFLOAT16).astype(float) == 1.0  # what the library makes of it, by way of float32
    assert rounded(x, BFLOAT16).astype(float) == 1 + 2**-7


def test_frozen_parameters_have_a_frozen_average() -> None:
    frozen = np.random.default_rng(0).normal(size=100)
    for start in ({}, {"init": "zeros", "bias_correction": True}):
        ema = ParameterEMA({"w": frozen}, decay=0.997, **start)
        for _ in range(50):
            ema.update({"w": frozen})
        assert (ema.ema["w"] == frozen).all()


def test_ramps_are_those_of_their_sources() -> None:
    assert [tf_ramp(0.999)(n) for n in (0, 1, 10**6)] == [0.1, 2 / 11, 0.999]
    assert [power_ramp(0.9999)(n) for n in (0, 7)] == [0.0, pytest.approx(0.75)]
    assert power_ramp(0.9999, gamma=2, power=0.75)(30) == pytest.approx(0.875)
    assert exp_ramp(0.9999)(1999) == pytest.approx(0.9999 * (1 - math.exp(-1)))


def test_decay_in_force() -> None:
    ema = ParameterEMA({"w": 1.0}, decay=0.999, warmup="tf")
    assert (ema.decay, ema.num_updates) == (0.1, 0)
    ema.update({"w": 1.0})
    ema.update({"w": 1.0})
    assert (ema.decay, ema.num_updates) == (2 / 11, 2)


def test_a_warmup_of_ones_own_is_capped_by_decay_if_one_is_given() -> None:
    free = ParameterEMA({"w": 0.0}, warmup=lambda _: 0.75)
    capped = ParameterEMA({"w": 0.0}, decay=0.5, warmup=lambda _: 0.75)
    free.update({"w": 8.0})
    capped.update({"w": 8.0})
    assert (free.ema["w"], capped.ema["w"]) == (2.0, 4.0)


# Nothing changes when something is wrong


BAD_UPDATES = {
    "NaN": {"a": np.array([1.0, np.nan]), "b": np.array(1)},
    "infinity": {"a": np.array([np.inf, 1.0]), "b": np.array(1)},
    "missing": {"a": np.ones(2)},
    "extra": {"a": np.ones(2), "b": np.array(1), "c": np.ones(1)},
    "shape": {"a": np.ones(3), "b": np.array(1)},
    "broadcastable": {"a": np.ones(1), "b": np.array(1)},
    "float for int": {"a": np.ones(2), "b": np.array(1.5)},
    "text": {"a": np.ones(2), "b": "one"},
    "ragged": {"a": [[1], [1, 2]], "b": np.array(1)},
    "complex": {"a": np.ones(2) * 1j, "b": np.array(1)},
    "generator": iter([("a", 1)]),
}


@pytest.mark.parametrize("kind", list(BAD_UPDATES))
def test_a_bad_update_leaves_every_bit_as_it_was(kind: str) -> None:
    good = {"a": np.array([1.0, 2.0]), "b": np.array(1)}
    ema = ParameterEMA(good, decay=0.9, warmup="tf", init="zeros", bias_correction=True)
    ema.update(good)
    before = pickle.dumps(ema.state_dict())
    with pytest.raises(ValueError, match=r"\S") as caught:
        ema.update(BAD_UPDATES[kind])
    assert isinstance(caught.value, EmaError)
    assert pickle.dumps(ema.state_dict()) == before


def test_a_ramp_that_gives_no_decay_changes_nothing() -> None:
    ema = ParameterEMA({"w": 1.0}, warmup=lambda n: 2.0 if n else 0.5)
    ema.update({"w": 3.0})
    before = pickle.dumps(ema.state_dict())
    with pytest.raises(OptionError, match=r"warmup\(1\) is 2.0"):
        ema.update({"w": 3.0})
    assert pickle.dumps(ema.state_dict()) == before


def test_nonfinite_skip_and_propagate() -> None:
    skip = ParameterEMA({"w": 1.0}, decay=0.5, on_nonfinite="skip")
    skip.update({"w": math.nan})
    assert (skip.ema["w"], skip.num_updates, skip.num_steps) == (1.0, 0, 1)
    through = ParameterEMA({"w": 1.0}, decay=0.5, on_nonfinite="propagate")
    through.update({"w": math.inf})
    assert np.isinf(through.ema["w"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "no weight given"),
        ({"decay": 0.9, "alpha": 0.1}, "two ways"),
        ({"decay": 1.1}, "between 0 and 1"),
        ({"decay": math.nan}, "not a number"),
        ({"decay": "0.9"}, "not a number"),
        ({"decay": 0.9, "init": "ones"}, "not one of params, zeros"),
        ({"decay": 0.9, "bias_correction": True}, "starts from the parameters"),
        ({"decay": 0.9, "warmup": "linear"}, "not one of tf, power, exp"),
        ({"decay": 0.9, "update_every": 0}, "1 or more"),
        ({"decay": 0.9, "update_after_step": -1}, "0 or more"),
        ({"decay": 0.9, "on_nonfinite": "ignore"}, "not one of error"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        ParameterEMA({"w": 1.0}, **options)


def test_names_that_collide_once_joined() -> None:
    with pytest.raises(DataError, match=r"both called 'a\.b'"):
        ParameterEMA({"a": {"b": 1.0}, "a.b": 2.0}, decay=0.9)


# Predicting with the averages


def test_parameters_are_back_after_the_block_even_if_it_raises() -> None:
    base = np.arange(12, dtype=np.float32).reshape(3, 4)
    shared = np.ones(2, np.float32)
    params: dict[str, Any] = {"view": base.T[::2], "one": shared, "two": shared, "list": [1.0, 2.0], "n": 3.5}
    originals = copy.deepcopy(params)
    ema = ParameterEMA(params, decay=0.5)
    base += 2
    shared += 2
    ema.update(params)
    held = params["view"]
    with pytest.raises(KeyError, match="inside"), ema.average_parameters(params):  # noqa: PT012 (the block is what is tested)
        assert params["view"] is held
        assert (held == originals["view"] + 1).all()
        assert shared.tolist() == [2.0, 2.0]
        raise KeyError("inside")
    assert (base == np.arange(12).reshape(3, 4) + 2).all()
    assert shared.tolist() == [3.0, 3.0]
    assert (params["list"], params["n"]) == ([1.0, 2.0], 3.5)


def test_what_cannot_be_written_is_refused_before_anything_changes() -> None:
    locked = np.ones(2)
    locked.flags.writeable = False
    params = {"a": np.zeros(2), "b": locked}
    ema = ParameterEMA({"a": np.ones(2), "b": np.ones(2)}, decay=0.5)
    with pytest.raises(DataError, match="read-only array"), ema.average_parameters(params):
        pass
    with pytest.raises(DataError, match="mapping is read-only"):
        ema.copy_to(MappingProxyType({"a": [0.0, 0.0], "b": np.ones(2)}))
    assert params["a"].tolist() == [0.0, 0.0]


def test_copy_to_rounds_to_the_targets_dtype() -> None:
    ema = ParameterEMA({"w": np.array([1 / 3])}, decay=0.5)
    half = {"w": np.zeros(1, np.float16)}
    ema.copy_to(half)
    assert half["w"] == np.float16(1 / 3)


def test_what_it_gives_out_are_copies() -> None:
    params = {"w": np.zeros(2), "n": np.array(1)}
    ema = ParameterEMA(params, decay=0.5)
    state = ema.state_dict()
    for array in (params["w"], ema.ema["w"], state["averages"]["w"], ema.ema["n"], state["averages"]["n"]):
        array[...] = 9
    assert ema.ema["w"].tolist() == [0.0, 0.0]
    ema.load_state_dict(state)
    state["averages"]["w"][...] = 7
    assert ema.ema["w"].tolist() == [9.0, 9.0]


# State


def spoiled(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    state = ParameterEMA({"w": np.zeros(2), "n": 1}, decay=0.9).state_dict()
    change(state)
    return state


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.clear(), "no state of version 1"),
        (lambda s: s.update(version=3), "no state of version 1 or 2 but 3"),
        (lambda s: s.pop("num_steps"), "num_steps is None"),
        (lambda s: s.update(weight=math.nan), "weight is nan"),
        (lambda s: s.update(num_updates=-1), "num_updates is -1"),
        (lambda s: s.update(decay=7.0), "decay is 7.0"),
        (lambda s: s["options"].update(alpha=0.2), "alpha=0.2, this object has 0.1"),
        (lambda s: s["options"].update(extra=1), "options are not those"),
        (lambda s: s["dtypes"].pop("w"), "one dtype for each"),
        (lambda s: s["dtypes"].update(w="float999"), "float999 is not known"),
        (lambda s: s["averages"].update(w=np.zeros(2, np.float16)), "float16, not float64"),
        (lambda s: s["averages"].update(w=np.zeros(3)), r"shape \(3,\)"),
        (lambda s: (s["averages"].pop("w"), s["dtypes"].pop("w")), "another model.*missing 'w'"),
    ],
)
def test_a_spoiled_state_is_refused_whole(change: Callable[[dict[str, Any]], Any], said: str) -> None:
    ema = ParameterEMA({"w": np.ones(2), "n": 1}, decay=0.9)
    before = pickle.dumps(ema.state_dict())
    with pytest.raises(StateError, match=said):
        ema.load_state_dict(spoiled(change))
    assert pickle.dumps(ema.state_dict()) == before


def test_files_that_hold_no_state(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", w=np.ones(2))
    with pytest.raises(StateError, match="is no ParameterEMA state"):
        ParameterEMA.load(tmp_path / "other.npz")
    with pytest.raises(FileTrouble, match="no such file"):
        ParameterEMA.load(tmp_path / "none.npz")
    ema = ParameterEMA({"w": 1.0}, warmup=lambda _: 0.5)
    with pytest.raises(OptionError, match=r"written as \.safetensors, \.npz or \.pt"):
        ema.save(tmp_path / "ema.txt")
    ema.save(tmp_path / "ema.npz")
    with pytest.raises(StateError, match="warmed up by a function"):
        ParameterEMA.load(tmp_path / "ema.npz")


def test_a_save_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "ema.npz"
    ParameterEMA({"w": 1.0}, decay=0.9).save(path)
    before = path.read_bytes()
    with pytest.raises(FileTrouble, match="__ema_smooth__"):
        ParameterEMA({"__ema_smooth__": 1.0}, decay=0.9).save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["ema.npz"]


# torch


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_torch_tensors_are_averaged_in_place_and_come_back(dtype: str) -> None:
    import torch

    weight = torch.nn.Parameter(torch.arange(6, dtype=getattr(torch, dtype)).reshape(2, 3).T)
    count = torch.tensor(3)
    params = {"w": weight, "n": count}
    ema = ParameterEMA(params, decay=0.5)
    with torch.no_grad():
        weight += 2
    ema.update(params)
    assert ema.ema["w"].dtype == weight.dtype
    with ema.average_parameters(params):
        assert params["w"] is weight
        assert torch.equal(weight.detach(), torch.arange(6).reshape(2, 3).T.to(weight.dtype) + 1)
    assert torch.equal(weight.detach(), torch.arange(6).reshape(2, 3).T.to(weight.dtype) + 2)
    with pytest.raises(DataError, match="NaN"):
        ema.update({"w": weight * math.nan, "n": count})


@pytest.mark.torch
def test_lazy_modules_elsewhere_in_the_process_do_no_harm() -> None:
    import torch

    lazy, model = torch.nn.LazyLinear(3), torch.nn.Linear(2, 2)
    state = model.state_dict()
    ema = ParameterEMA(state, decay=0.9)
    ema.update(state)
    with ema.average_parameters(state):
        assert torch.equal(model.bias, ema.ema["bias"])
    assert torch.nn.parameter.is_lazy(lazy.weight)


@pytest.mark.torch
def test_a_torch_checkpoint_carries_the_state_without_pickled_code(tmp_path: Path) -> None:
    import torch

    model = torch.nn.BatchNorm1d(3)
    ema = ParameterEMA(model.state_dict(), decay=0.9)
    ema.update(model.state_dict())
    torch.save({"model": model.state_dict(), "ema": ema.state_dict()}, tmp_path / "c.pt")
    loaded = torch.load(tmp_path / "c.pt", weights_only=True)
    again = ParameterEMA(model.state_dict(), decay=0.9)
    again.load_state_dict(loaded["ema"])
    assert again.num_updates == 1
    model.load_state_dict(again.ema)
    ema.save(tmp_path / "ema.safetensors")
    model.load_state_dict(ParameterEMA.load(tmp_path / "ema.safetensors").ema)


@pytest.mark.torch
def test_agrees_with_torchs_averaged_model() -> None:
    import torch
    from torch.optim import swa_utils

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    theirs = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9))
    theirs.update_parameters(model)  # the first call copies
    ours = ParameterEMA(model.state_dict(), decay=0.9)
    for _ in range(100):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p) * 0.1)
        theirs.update_parameters(model)
        ours.update(model.state_dict())
    for name, tensor in theirs.module.state_dict().items():
        torch.testing.assert_close(ours.ema[name], tensor, atol=1e-6, rtol=0)
