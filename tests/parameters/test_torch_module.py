"""ParameterEMA on torch modules: every store there is, live tensors, and what once went wrong in silence."""

from __future__ import annotations

import copy
import math
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ema_cli.errors import DataError, OptionError, StateError
from ema_cli.parameters import numpy_store
from ema_cli.parameters.ema import ParameterEMA
from ema_cli.parameters.schedule import power_ramp
from tests.conftest import ROOT

torch = pytest.importorskip("torch", reason="torch is optional, and 200 MB")
nn = torch.nn

CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"))
DEVICES = ["cpu", CUDA]
PRECISIONS = ["float64", "float32x2", "float32"]
# How far an average may be from a float64 loop, relative to the largest parameter.
CLOSE = {"float64": 1e-15, "float32x2": 1e-13, "float32": 3e-7}


class Net(nn.Module):
    """Large and small, tied, transposed, strided, with statistics and a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(300, 130)  # more than one piece of 32,768
        self.norm = nn.BatchNorm1d(130)
        self.conv = nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last)
        self.head = nn.Linear(130, 300, bias=False)
        self.head.weight = self.embed.weight
        self.turned = nn.Parameter(torch.randn(40, 7).T)
        self.empty = nn.Parameter(torch.zeros(0, 3))
        self.scale = nn.Parameter(torch.tensor(1.0))


@pytest.fixture
def net() -> Any:
    torch.manual_seed(0)
    return Net()


@pytest.fixture(autouse=True)
def _pairs_on_the_cpu_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The arithmetic of accelerators is tested here: `float32x2` stays a pair."""
    monkeypatch.setattr(numpy_store, "PAIR_ON_CPU", "float32x2")


def moved(model: Any) -> None:
    """A step of training."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            buffer.add_(1 if "num" in name else torch.rand_like(buffer))


def loop(average: Any, values: Any, gain: float) -> Any:
    return average + gain * (values.double() - average)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kept_on", [None, "cpu"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_every_store_follows_the_plain_loop(
    net: Any, device: str, kept_on: str | None, precision: str, dtype: Any
) -> None:
    net.to(device, dtype)
    ema = ParameterEMA(net, decay=0.9, dtype=precision, device=kept_on)
    plain = {name: parameter.detach().double().clone() for name, parameter in net.named_parameters()}
    for _ in range(20):
        moved(net)
        ema.update()
        plain = {name: loop(plain[name], p.detach(), 0.1) for name, p in net.named_parameters()}
    found = ema.ema
    for name, average in found.items():
        if name in plain:
            assert average.dtype == dtype
            assert average.device.type == (kept_on or device)
            # The rounding to the parameters' dtype comes on top.
            assert_close(average, plain[name], CLOSE[precision], dtype)
    assert found["embed.weight"] is found["head.weight"]


def assert_close(average: Any, exact: Any, relative: float, dtype: Any) -> None:
    allowed = relative * 8 + torch.finfo(dtype).eps / 2
    error = (average.double().to(exact.device) - exact).abs()
    assert not error.numel() or float(error.max()) <= allowed * max(1.0, float(exact.abs().max()))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_groups_of_small_tensors_and_staged_copies_give_the_same_bytes(net: Any, precision: str) -> None:
    """What runs on accelerators alone is the same arithmetic: on the CPU it gives the same bytes."""
    from ema_cli.parameters import torch_store

    ema, other = (ParameterEMA(net, decay=0.9, dtype=precision) for _ in range(2))
    store = other._stores["torch"]
    for _ in range(3):
        moved(net)
        ema.update()
        found = other._lookup(net)
        leaves = [leaf for leaf in found.values() if leaf.kind == "averaged"]
        pairs = [(store._averages[leaf.name], torch_store._local(leaf.value)) for leaf in leaves]
        cpu = torch.device("cpu")
        with torch.no_grad():
            # As an accelerator folds them: all together, by torch._foreach_*.
            group = torch_store._GROUP
            torch_store._fold_groups(torch_store._groups(pairs[:2], group), [0.1], cpu, group)
            # In slices that are smaller than tensors.
            torch_store._fold_groups(torch_store._groups(pairs[2:4], 1000), [0.1], cpu, 1000)
            # As the host folds what is copied to it.
            for staged in torch_store._staged(pairs[4:], cpu):
                torch_store._fold_on_threads(staged, [0.1])
    for name, leaf in ema._leaves.items():
        if leaf.kind == "averaged":
            for ours, theirs in zip(ema._store(name).parts(name, 0), store.parts(name, 0), strict=True):
                assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_test_for_finite_values_that_accelerators_use(net: Any, bad: float) -> None:
    from ema_cli.parameters.torch_store import _norms

    tensors = [p.detach() for p in net.parameters() if p.numel()]
    assert torch.stack(_norms(tensors)).isfinite().all()
    tensors[0][3, 3] = bad
    assert not torch.stack(_norms(tensors)).isfinite().all()


@pytest.mark.parametrize("precision", ["float64", "float32x2"])
def test_half_precision_drifts_with_float64_to_one_rounding(precision: str) -> None:
    torch.manual_seed(1)
    model = nn.Linear(64, 64, bias=False).bfloat16()
    ema = ParameterEMA(model, decay=0.9999, dtype=precision)
    plain = model.weight.detach().double()
    drift = model.weight.detach().float()
    for _ in range(3000):
        drift += torch.randn_like(drift) * 0.01 + 0.001
        with torch.no_grad():
            model.weight.copy_(drift)
        ema.update()
        plain = loop(plain, model.weight.detach(), 1 - 0.9999)
    found = ema.ema["weight"].double()
    spacing = torch.finfo(torch.bfloat16).eps * 2.0 ** torch.floor(torch.log2(plain.abs()))
    assert ((found - plain).abs() <= spacing / 2 * 1.0001).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_happens_once(dtype: Any) -> None:
    from ema_cli.parameters.tensors import rounded
    from ema_cli.parameters.torch_rounding import round_stretch, rounded_to, split

    def rounded_by_stretches(parts: Any) -> Any:
        """As the CPU does it, where NumPy finds what needs care."""
        target, room = torch.empty(len(parts[0]), dtype=dtype), torch.empty(len(parts[0]))
        round_stretch(parts, target, room)
        return target.double().numpy()

    ml_dtypes = pytest.importorskip("ml_dtypes", reason="bfloat16 is of the extra [weights]")
    rng = np.random.default_rng(0)
    # Values at and about the middle between two of the dtype, where rounding twice goes wrong.
    near = rng.normal(size=5000).astype(np.float32).astype(np.float64)
    step = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}[dtype]
    middle = np.ldexp(np.round(np.frexp(near)[0] / (2 * step)) * 2 * step + step, np.frexp(near)[1])
    values = np.concatenate(
        [
            near,
            middle,
            middle * (1 + 2.0**-40),
            middle * (1 - 2.0**-40),
            [0.0, -0.0, 3.3e38, -4e38, 1e-45, 1e-60],
        ]
    )
    wide = torch.from_numpy(values)
    named = np.dtype(np.float16 if dtype == torch.float16 else ml_dtypes.bfloat16)
    expected = rounded(values, named).astype(np.float64)
    assert np.array_equal(rounded_to((wide,), dtype).double().numpy(), expected)
    assert np.array_equal(rounded_by_stretches((wide,)), expected)
    fits = torch.from_numpy(np.abs(values) < 1e38) & torch.from_numpy(
        (np.abs(values) > 1e-20) | (values == 0)
    )
    pair = tuple(part[fits] for part in split(wide, "float32x2"))
    again = rounded(pair[0].double().numpy() + pair[1].double().numpy(), named).astype(np.float64)
    assert np.array_equal(rounded_to(pair, dtype).double().numpy(), again)
    assert np.array_equal(rounded_by_stretches(pair), again)


def test_the_worked_example_in_a_module() -> None:
    model = nn.Linear(3, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0, 3.0]]))
    ema = ParameterEMA(model, alpha=0.9, init="zeros")
    for _ in range(10):
        with torch.no_grad():
            model.weight -= torch.tensor([[0.1, 0.2, 0.3]], dtype=torch.float64)
        ema.update()
    with ema.average_parameters():
        assert f"{model(torch.tensor([4.0, 5.0, 6.0], dtype=torch.float64)).item():.11f}" == "0.35555555232"


# Live tensors


CONVERSIONS = {
    "half": lambda m: m.half(),
    "double": lambda m: m.double(),
    "to": lambda m: m.to(torch.bfloat16),
    "load": lambda m: m.load_state_dict({k: torch.zeros_like(v) for k, v in m.state_dict().items()}),
    "assign": lambda m: m.load_state_dict({k: v.clone() for k, v in m.state_dict().items()}, assign=True),
    "raises": lambda m: m.no_such_method(),
    "new": lambda m: setattr(m, "weight", nn.Parameter(torch.zeros(2, 3))),
}


@pytest.mark.parametrize("conversion", list(CONVERSIONS))
@pytest.mark.parametrize("idiom", ["module", "state_dict", "named_parameters"])
def test_whatever_is_done_in_the_block_the_originals_are_back(conversion: str, idiom: str) -> None:
    if (idiom, conversion) in {("named_parameters", "assign"), ("named_parameters", "new")}:
        pytest.skip("the mapping holds parameters that are no longer the model's, and names no model")
    model = nn.Linear(3, 2)
    give = {
        "module": lambda: model,
        "state_dict": model.state_dict,
        "named_parameters": lambda: dict(model.named_parameters()),
    }[idiom]
    ema = ParameterEMA(give(), decay=0.5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    ema.update(None if idiom == "module" else give())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    averages = ema.ema
    try:
        with ema.average_parameters(None if idiom == "module" else give()):
            assert torch.equal(model.weight, averages["weight"])
            CONVERSIONS[conversion](model)
    except AttributeError:
        pass
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name].to(value.dtype)), name
    model.float()
    ema.update(None if idiom == "module" else give())


def test_a_state_dict_of_copies_is_refused_in_the_block() -> None:
    class Copies(nn.Linear):
        def state_dict(self, *args: Any, **named: Any) -> Any:
            found = super().state_dict(*args, **named)
            for name in found:
                found[name] = found[name].clone()
            return found

    model = Copies(2, 2)
    ema = ParameterEMA(model.state_dict(), decay=0.5)
    said = "copies of 'weight', 'bias': the averages would not reach the model"
    with pytest.raises(DataError, match=said), ema.average_parameters(model.state_dict()):
        pass
    with ParameterEMA(model, decay=0.5).average_parameters():
        pass  # a module's own tensors are reached


def test_an_update_inside_the_block_is_refused() -> None:
    model = nn.Linear(2, 2)
    ema = ParameterEMA(model, decay=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ema.follow(optimizer)
    with pytest.raises(StateError, match="after the block"), ema.average_parameters():
        ema.update()
    with pytest.raises(StateError, match="after the block"), ema.average_parameters():
        optimizer.step()
    optimizer.step()
    assert ema.num_updates == 1


def test_following_an_optimizer_is_updating_after_each_step() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    by_hand, following = ParameterEMA(model, decay=0.9), ParameterEMA(model, decay=0.9)
    handle = following.follow(optimizer)
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.randn(4, 3)).square().mean().backward()
        optimizer.step()
        by_hand.update()
    same_bytes(by_hand, following)
    handle.remove()
    optimizer.step()
    assert following.num_updates == 5
    with pytest.raises(OptionError, match="no torch optimizer"):
        following.follow(object())


def same_bytes(left: ParameterEMA, right: ParameterEMA) -> None:
    one, two = left.state_dict(), right.state_dict()
    assert {k: v for k, v in one.items() if k not in ("averages", "remainders")} == {
        k: v for k, v in two.items() if k not in ("averages", "remainders")
    }
    for values in ("averages", "remainders"):
        assert one[values].keys() == two[values].keys()
        for name, tensor in one[values].items():
            assert tensor.dtype == two[values][name].dtype
            assert torch.equal(tensor, two[values][name]), name


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "way", ["state_dict", "checkpoint", "safetensors", "npz", "pickle", "deepcopy", "moved"]
)
def test_save_and_load_in_the_middle_changes_no_byte(
    net: Any, tmp_path: Path, precision: str, way: str
) -> None:
    options = {
        "decay": [0.9, 0.99],
        "dtype": precision,
        "warmup": "power",
        "init": "zeros",
        "bias_correction": True,
    }
    whole, part = ParameterEMA(net, **options), ParameterEMA(net, **options)
    for _ in range(3):
        moved(net)
        whole.update()
        part.update()
    if way in ("safetensors", "npz"):
        part.save(tmp_path / f"ema.{way}")
        part = ParameterEMA.load(tmp_path / f"ema.{way}", model=net)
    elif way == "pickle":
        part = pickle.loads(pickle.dumps(part))
    elif way == "deepcopy":
        part = copy.deepcopy(part)
    elif way == "moved":
        for device in ("cuda", "cpu") if torch.cuda.is_available() else ("cpu",):
            state = part.state_dict()
            part = ParameterEMA(net, device=device, **options)
            part.load_state_dict(state)
    else:
        state = part.state_dict()
        if way == "checkpoint":
            torch.save(state, tmp_path / "ema.pt")
            state = torch.load(tmp_path / "ema.pt", weights_only=True)
        part = ParameterEMA(net, **options)
        part.load_state_dict(state)
    for _ in range(4):
        moved(net)
        whole.update()
        part.update(net)
    same_bytes(whole, part)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch.compile imports what it warns of
def test_names_are_those_of_the_model_without_its_wrappers() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    names = list(model.state_dict())
    wrapped = [nn.DataParallel(model), torch.compile(model), nn.DataParallel(torch.compile(model))]
    inner = nn.Sequential(torch.compile(model[0]), model[1])
    for one in [model, *wrapped, inner, nn.DataParallel(inner).state_dict()]:
        assert list(ParameterEMA(one, decay=0.9).ema) == names
    ema = ParameterEMA(model, decay=0.9)
    ema.update(wrapped[0])
    ema.update(wrapped[0].state_dict())
    assert ema.num_updates == 2


# Which tensors


def test_params_and_buffers(net: Any) -> None:
    net.embed.weight.requires_grad_(False)
    trainable = ParameterEMA(net, decay=0.5, params="trainable")
    assert "embed.weight" not in trainable.ema
    assert "norm.weight" in trainable.ema
    chosen = ParameterEMA(net, decay=0.5, params=lambda name, _: name.startswith("norm"), buffers="average")
    assert sorted(n for n in chosen.ema if "norm" in n) == sorted(chosen.ema)
    net.embed.weight.requires_grad_(True)  # what was left out stays so
    start = net.norm.running_mean.clone()
    moved(net)
    trainable.update()
    chosen.update()
    assert torch.equal(trainable.ema["norm.running_mean"], net.norm.running_mean)
    assert torch.equal(chosen.ema["norm.running_mean"], (start + net.norm.running_mean) / 2)
    assert chosen.ema["norm.num_batches_tracked"] == net.norm.num_batches_tracked
    with pytest.raises(OptionError, match="no buffers"):
        ParameterEMA(net.state_dict(), decay=0.5, buffers="copy")
    with pytest.raises(OptionError, match="not one of all, trainable"):
        ParameterEMA(net, decay=0.5, params="frozen")
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(DataError, match="nothing to average"):
        ParameterEMA(net, decay=0.5, params="trainable")


def test_tied_parameters_are_averaged_once(net: Any) -> None:
    ema = ParameterEMA(net, decay=0.5)
    assert "head.weight" not in ema.state_dict()["averages"]
    net.load_state_dict(ema.ema)
    model = ema.module()
    assert model.head.weight is model.embed.weight
    net.head.weight = nn.Parameter(net.embed.weight.detach().clone())
    with pytest.raises(DataError, match="were one tensor at the start and are two now"):
        ema.update()


def test_module_is_a_model_of_the_averages(net: Any) -> None:
    ema = ParameterEMA(net, decay=[0.5, 0.75])
    moved(net)
    ema.update()
    model = copy.deepcopy(ema.module(of=0.75))
    for name, value in model.state_dict().items():
        assert torch.equal(value, ema.ema[0.75][name]), name
    assert all(p.requires_grad for p in model.parameters())
    with pytest.raises(OptionError, match=r"which one\? 0\.5, 0\.75"):
        ema.module()
    with pytest.raises(OptionError, match=r"no average 0\.6"), ema.average_parameters(of=0.6):
        pass


class WithEverything(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.register_buffer("freqs_cis", torch.ones(2, dtype=torch.complex64))
        self.register_buffer("mask", torch.tensor([0.0, -math.inf]))
        self.register_buffer("graph", torch.eye(3).to_sparse())
        self.register_buffer("none", None)
        self.register_buffer("scratch", torch.ones(3), persistent=False)

    def get_extra_state(self) -> Any:
        return {"version": 3}

    def set_extra_state(self, state: Any) -> None:
        assert state == {"version": 3}


@pytest.mark.parametrize("idiom", ["module", "state_dict"])
def test_what_cannot_be_averaged_is_carried_along(idiom: str, tmp_path: Path) -> None:
    model = WithEverything()
    source = model if idiom == "module" else model.state_dict()
    ema = ParameterEMA(source, decay=0.5)
    with torch.no_grad():
        model.freqs_cis += 1
    ema.update(source)
    assert torch.equal(ema.ema["freqs_cis"], model.freqs_cis)
    model.load_state_dict(ema.ema, strict=idiom == "state_dict")
    with ema.average_parameters(source):
        model(torch.zeros(1, 2)) if hasattr(model, "forward_") else None
    ema.save(tmp_path / "ema.npz")
    assert "freqs_cis" not in ParameterEMA.load(tmp_path / "ema.npz").ema
    assert torch.equal(ema.ema["mask"], torch.tensor([0.0, -math.inf]))


def test_trained_complex_parameters_are_spoken_of() -> None:
    model = nn.Linear(2, 2)
    model.spectrum = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    with pytest.warns(UserWarning, match="'spectrum' can't be averaged"):
        ParameterEMA(model, decay=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ParameterEMA(model, decay=0.5, params=lambda name, _: name != "spectrum")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_constant_infinity_stays_and_a_new_one_is_refused(precision: str) -> None:
    def mask(*values: float) -> dict[str, Any]:
        return {"mask": torch.tensor(values), "w": torch.tensor([1.0, 2.0])}

    for options in ({}, {"init": "zeros"}, {"on_nonfinite": "propagate"}):
        ema = ParameterEMA(mask(0.0, -math.inf), decay=0.5, dtype=precision, **options)
        for _ in range(3):
            ema.update(mask(2.0, -math.inf))
        assert ema.ema["mask"].tolist() == [1.75, -math.inf]
    ema = ParameterEMA(mask(0.0, -math.inf), decay=0.5, dtype=precision)
    for bad in (
        mask(math.inf, -math.inf),
        mask(0.0, math.inf),
        mask(math.nan, -math.inf),
        mask(0.0, math.nan),
    ):
        with pytest.raises(DataError, match="NaN or infinity in 'mask'"):
            ema.update(bad)
    ema.update(mask(0.0, 4.0))  # a mask that is lifted begins anew
    assert ema.ema["mask"].tolist() == [0.0, 4.0]
    skip = ParameterEMA(mask(0.0, -math.inf), decay=0.5, dtype=precision, on_nonfinite="skip")
    skip.update(mask(math.inf, -math.inf))
    assert (skip.num_updates, skip.num_steps) == (0, 1)
    through = ParameterEMA(mask(0.0, 1.0), decay=0.5, dtype=precision, on_nonfinite="propagate")
    for _ in range(2):
        through.update(mask(0.0, math.inf))
    assert through.ema["mask"].tolist() == [0.0, math.inf]


def test_a_sum_that_overflows_is_no_infinity() -> None:
    huge = {"w": torch.full((8,), 3e38), "h": torch.full((70000,), 60000.0).half()}
    ema = ParameterEMA(huge, decay=0.5)
    ema.update(huge)
    assert torch.equal(ema.ema["w"], huge["w"])


ABSENT = {
    "meta": (lambda: nn.Linear(2, 2, device="meta"), "is on the meta device"),
    "lazy": (lambda: nn.LazyLinear(2), "is lazy"),
    "sparse": (lambda: {"w": nn.Parameter(torch.eye(2).to_sparse())}, "is sparse_coo"),
    "nested": (
        lambda: {
            "w": nn.Parameter(torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged))
        },
        "is nested",
    ),
    "zero3": (lambda: zero3(nn.Linear(2, 2)), "ZeRO stage 3"),
    "NaN": (lambda: {"w": torch.tensor(math.nan)}, "hold NaN, in 'w'"),
    "generator": (lambda: nn.Linear(2, 2).parameters(), "not generator"),
    "array": (lambda: torch.ones(3), "not Tensor"),
    "nothing": (nn.Identity, "no parameters"),
    "none": (lambda: None, "not NoneType"),
}


def zero3(model: Any) -> Any:
    for number, parameter in enumerate(model.parameters()):
        parameter.data = torch.empty(0)
        parameter.ds_id = number
    return model


@pytest.mark.parametrize("kind", list(ABSENT))
@pytest.mark.filterwarnings("ignore:.*nested tensors.*prototype:UserWarning")
def test_parameters_that_are_not_there(kind: str) -> None:
    make, said = ABSENT[kind]
    with pytest.raises(DataError, match=said):
        ParameterEMA(make(), decay=0.5)


def test_parameters_that_vanish_later_leave_the_state_alone() -> None:
    model = nn.Linear(2, 2)
    ema = ParameterEMA(model, decay=0.5)
    before = copy.deepcopy(ema)
    with pytest.raises(DataError, match="meta device"):
        ema.update(copy.deepcopy(model).to("meta"))
    with pytest.raises(DataError, match="ZeRO stage 3"):
        ema.update(zero3(copy.deepcopy(model)))
    same_bytes(ema, before)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_float8_and_expanded_tensors_are_averaged(dtype: str) -> None:
    narrow = getattr(torch, dtype)
    params = {"w": torch.tensor([1.0, 2.0]).to(narrow), "same": torch.ones(1, 3).expand(4, 3)}
    ema = ParameterEMA(params, decay=0.5)
    later = {"w": torch.tensor([2.0, 4.0]).to(narrow), "same": torch.full((1, 3), 3.0).expand(4, 3)}
    ema.update(later)
    assert ema.ema["w"].dtype == narrow
    with ema.average_parameters(later):
        assert later["w"].float().tolist() == [1.5, 3.0]
        assert later["same"].tolist() == [[2.0] * 3] * 4
    assert later["w"].float().tolist() == [2.0, 4.0]
    assert later["same"].tolist() == [[3.0] * 3] * 4


def test_inference_mode_and_default_devices_do_no_harm() -> None:
    model = nn.Linear(2, 2)
    with torch.inference_mode():
        ema = ParameterEMA(model, decay=0.5)
    ema.update()
    with torch.device("meta"):
        ema.update()
        with ema.average_parameters():
            pass
    with torch.inference_mode():
        ema.update()
        with ema.average_parameters():
            model(torch.zeros(1, 2))
    ema.ema["weight"].add_(1)


# Several averages, changes on the way


def test_several_decays_are_each_their_own(net: Any) -> None:
    both = ParameterEMA(net, decay=[0.99, 0.999])
    alone = [ParameterEMA(net, decay=decay) for decay in (0.99, 0.999)]
    for _ in range(5):
        moved(net)
        for ema in (both, *alone):
            ema.update()
    for decay, ema in zip((0.99, 0.999), alone, strict=True):
        for name, value in ema.ema.items():
            assert torch.equal(both.ema[decay][name], value)
    assert both.decay == [0.99, 0.999]
    with pytest.raises(OptionError, match="several averages have several lengths"):
        ParameterEMA(net, decay=[0.9, 0.9])


def test_the_decay_may_be_set_on_the_way_and_on_loading() -> None:
    params = {"w": torch.zeros(1)}
    ema = ParameterEMA(params, decay=0.5)
    params["w"] += 8
    ema.update(params)
    ema.decay = 0.75
    assert ema.decay == 0.75
    ema.update(params)
    assert ema.ema["w"].item() == 5.0
    other = ParameterEMA(params, decay=0.25)
    with pytest.raises(StateError, match=r"override=True"):
        other.load_state_dict(ema.state_dict())
    other.load_state_dict(ema.state_dict(), override=True)
    assert (other.decay, other.num_updates) == (0.25, 2)
    other.update(params)
    assert other.ema["w"].item() == 7.25
    for bad in (1.5, [0.5, 0.6], "0.5"):
        with pytest.raises(OptionError):
            ema.decay = bad
    several = ParameterEMA(params, halflife=[10, 20])
    several.decay = [0.5, 0.6]
    assert list(several.ema) == [0.5, 0.6]


def test_halflife_and_span() -> None:
    for options, alpha in (({"halflife": 1}, 0.5), ({"span": 3}, 0.5), ({"span": 1}, 1.0)):
        ema = ParameterEMA({"w": 0.0}, **options)
        ema.update({"w": 2.0})
        assert ema.ema["w"] == 2 * alpha
    for options, said in (
        ({"halflife": 0}, "above 0"),
        ({"span": 0.5}, "1 or more"),
        ({"span": 3, "decay": 0.5}, "two ways"),
    ):
        with pytest.raises(OptionError, match=said):
            ParameterEMA({"w": 0.0}, **options)


def test_a_decay_by_position_and_a_misspelt_option_get_a_message() -> None:
    model = nn.Linear(1, 1)
    with pytest.raises(OptionError, match=r"by name\n  try: ParameterEMA\(model, decay=0\.999\)"):
        ParameterEMA(model, 0.999)
    with pytest.raises(OptionError, match=r"no option 'deacy'\n  try: decay="):
        ParameterEMA(model, deacy=0.9)
    with pytest.raises(OptionError, match="no option 'use_buffers'"):
        ParameterEMA(model, decay=0.9, use_buffers=True)


def test_power_averages_and_their_snapshots(net: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from ema_cli.parameters.checkpoints import open_checkpoint
    from ema_cli.parameters.power import gamma_of, snapshot_said

    net.half()
    ema = ParameterEMA(net, power=[0.05, 0.10])
    with pytest.raises(StateError, match="before the first update"):
        ema.snapshot(tmp_path / "s.safetensors")
    seen = []
    for _ in range(6):
        moved(net)
        ema.update()
        seen.append(net.scale.item())
    assert ema.snapshot(tmp_path / "s.safetensors") == [
        str(tmp_path / "s-0.05.safetensors"),
        str(tmp_path / "s-0.1.safetensors"),
    ]
    assert ema.snapshot(tmp_path / "{}.npz") == [str(tmp_path / "0.05.npz"), str(tmp_path / "0.1.npz")]
    t = np.arange(1, 7)
    for width in (0.05, 0.1):
        gamma = gamma_of(width)
        weights = (t / 6) ** (gamma + 1) - ((t - 1) / 6) ** (gamma + 1)
        values = load_file(tmp_path / f"s-{width:g}.safetensors")
        assert values["scale"].dtype == torch.float32
        assert values["scale"].item() == pytest.approx(float(weights @ np.array(seen)), rel=1e-6)
        assert "head.weight" not in values
        with open_checkpoint(str(tmp_path / f"{width:g}.npz")) as opened:
            said = snapshot_said(opened.metadata, "it")
        assert (said.step, said.sigma_rel, said.gamma) == (6, width, gamma)
        assert (said.dtypes["scale"], said.ties) == ("float16", {"head.weight": "embed.weight"})
    alone = ParameterEMA(net, power=0.05)
    alone.update()
    assert alone.snapshot(str(tmp_path / "one.npz")) == [str(tmp_path / "one.npz")]
    with pytest.raises(OptionError, match="snapshots are of power-function averages"):
        ParameterEMA(net, decay=0.9).snapshot(tmp_path / "s.npz")
    with pytest.raises(OptionError, match="a ramp of its own"):
        ParameterEMA(net, power=0.05, warmup="tf")


def test_parameters_come_and_go(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    ema = ParameterEMA(model, decay=0.5)
    model.append(nn.Linear(2, 1))
    with pytest.raises(DataError, match=r"not known '2\.weight', '2\.bias'\n  try: ema\.drop"):
        ema.update()
    ema.add("2")
    ema.update()
    assert torch.equal(ema.ema["2.weight"], model[2].weight)
    ema.drop(["1", "0.bias"])
    ema.update()
    assert list(ema.ema) == ["0.weight", "2.weight", "2.bias"]
    with pytest.raises(DataError, match=r"averaged already: '0\.weight'"):
        ema.add("0.weight")
    with pytest.raises(DataError, match="no parameter 'head'"):
        ema.drop("head")
    ema.save(tmp_path / "ema.npz")
    again = ParameterEMA.load(tmp_path / "ema.npz", model=model)
    again.update()
    with again.average_parameters():
        pass


def test_ramps_can_be_pickled() -> None:
    for warmup in ("tf", "power", "exp", power_ramp(0.9999, power=0.75)):
        ema = ParameterEMA({"w": torch.zeros(2)}, decay=0.999, warmup=warmup)
        ema.update({"w": torch.ones(2)})
        again = pickle.loads(pickle.dumps(ema))
        for one in (ema, again):
            one.update({"w": torch.ones(2)})
        same_bytes(ema, again)


def test_a_state_of_version_1_goes_on() -> None:
    """As it was written before there were modules: nested names, one average, in float64, no word on ties."""
    state = {
        "version": 1,
        "options": {
            "alpha": 0.5,
            "init": "params",
            "bias_correction": False,
            "warmup": None,
            "update_every": 1,
            "update_after_step": 0,
            "on_nonfinite": "error",
        },
        "num_steps": 4,
        "num_updates": 4,
        "weight": 1.0,
        "decay": 0.5,
        "dtypes": {"weight": "float32", "num": "int64"},
        "tensors": ["num", "weight"],
        "averages": {"weight": torch.full((2,), 2.0, dtype=torch.float64), "num": torch.tensor(3)},
    }
    params = {"weight": torch.zeros(2), "num": torch.tensor(4)}
    for precision in (None, "float64"):
        ema = ParameterEMA(params, decay=0.5, dtype=precision)
        ema.load_state_dict(state)
        ema.update(params)
        assert (ema.ema["weight"].tolist(), ema.num_updates) == ([1.0, 1.0], 5)
    with pytest.raises(StateError, match=r"is float64, this object's are float32\n  try: dtype='float64'"):
        ParameterEMA(params, decay=0.5, dtype="float32").load_state_dict(state)


def test_precision_is_taken_on_from_the_state() -> None:
    params = {"w": torch.zeros(3)}
    pair = ParameterEMA(params, decay=0.5, dtype="float32x2")
    pair.update({"w": torch.ones(3)})
    other = ParameterEMA(params, decay=0.5)
    other.load_state_dict(pair.state_dict())
    pair.update(params)
    other.update(params)
    same_bytes(pair, other)
    assert set(other.state_dict()["remainders"]) == {"w"}


@pytest.mark.parametrize("values", [torch.ones(2), np.ones(2, np.float32)], ids=["torch", "numpy"])
def test_a_pair_that_begins_on_the_cpu_is_float64(values: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    params = {"w": values}
    pair = ParameterEMA(params, decay=0.5, dtype="float32x2").state_dict()
    monkeypatch.undo()
    ema, other = (ParameterEMA(params, decay=0.5, dtype="float32x2") for _ in range(2))
    assert not ema.state_dict()["remainders"]
    assert str(ema.state_dict()["averages"]["w"].dtype).removeprefix("torch.") == "float64"
    other.load_state_dict(ema.state_dict())
    assert other.ema["w"].tolist() == [1.0, 1.0]
    other.load_state_dict(pair)  # from an accelerator: goes on as what it was
    other.update(params)
    assert set(other.state_dict()["remainders"]) == set(pair["remainders"]) == {"w"}


@pytest.mark.parametrize("device", ["nowhere", "cuda:99"])
def test_a_device_that_there_is_not(device: str) -> None:
    with pytest.raises(OptionError, match=f"device='{device}'"):
        ParameterEMA({"w": torch.zeros(1)}, decay=0.5, device=device)


MEMORY = """
import re
from pathlib import Path
import torch
from ema_cli import ParameterEMA

def said(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

params = {str(k): torch.randn(2000, 2500) for k in range(4)}
params["turned"] = torch.randn(2500, 2000).T
ema = ParameterEMA(params, decay=0.9, dtype="%s")
ema.update({k: v[:] for k, v in params.items()})
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = said("VmRSS")
ema.update(params)
print(said("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is told by Linux's /proc")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_update_needs_at_most_64_mb_beside_the_averages(precision: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY % precision],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) <= 64
