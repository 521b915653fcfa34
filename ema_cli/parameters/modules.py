"""Torch modules: their tensors by name, whatever wraps them, and the module that a state dict came from.

The only file, besides the torch store, that knows torch; it is imported once somebody hands in a tensor or
a module.
"""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ema_cli.errors import DataError
from ema_cli.parameters.leaves import AVERAGED, CARRIED, COPIED, Leaf, plain_name
from ema_cli.parameters.tensors import some_of


def unwrapped(model: Any) -> Any:
    """The model inside DistributedDataParallel, DataParallel and `torch.compile`."""
    parallel = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    while True:
        if isinstance(model, parallel):
            model = model.module
        elif hasattr(model, "_orig_mod"):
            model = model._orig_mod
        else:
            return model


def kind_of(tensor: Any) -> str:
    """Averaged, copied, or carried: complex numbers, and numbers that stand for others (quantized)."""
    if tensor.is_complex() or tensor.is_quantized or _is_opaque(tensor):
        return CARRIED
    return AVERAGED if tensor.is_floating_point() else COPIED


def _is_opaque(tensor: Any) -> bool:
    """A buffer that holds no plain array of numbers, such as the sparse matrix of a graph."""
    return not isinstance(tensor, torch.nn.Parameter) and tensor.layout != torch.strided


def check_there(name: str, tensor: Any) -> None:
    """Raise DataError where a tensor has no values that could be averaged, saying what to do."""
    if isinstance(tensor, torch.nn.parameter.UninitializedTensorMixin):
        raise DataError(
            f"parameter {name!r} is lazy: it has no shape yet", hint="run a batch through the model first"
        )
    if tensor.is_meta:
        raise DataError(
            f"parameter {name!r} is on the meta device: it has no values",
            hint="load the weights, or model.to_empty(device=…) and initialise them, before averaging",
        )
    if hasattr(tensor, "ds_id") and tensor.numel() == 0:
        raise DataError(
            f"parameter {name!r} is empty here: ZeRO stage 3 keeps it on all processes in parts",
            hint="with deepspeed.zero.GatheredParameters(model.parameters()): around the update, or FSDP2",
        )
    if tensor.layout != torch.strided or getattr(tensor, "is_nested", False):
        kind = "nested" if getattr(tensor, "is_nested", False) else str(tensor.layout).removeprefix("torch.")
        raise DataError(
            f"parameter {name!r} is {kind}: only plain (strided) tensors are averaged",
            hint=f"leave it out: params=lambda name, tensor: name != {name!r}",
        )
    if any(placement.is_partial() for placement in getattr(tensor, "placements", ())):
        raise DataError(
            f"parameter {name!r} is a partial sum, not a parameter", hint="redistribute() it first"
        )


def module_leaves(model: Any) -> dict[str, Leaf]:
    """Parameters and persistent buffers of a module by name, tied ones under each of their names."""
    model = unwrapped(model)
    _gather_no_longer(model)
    found: dict[str, Leaf] = {}
    for name, tensor, is_buffer in _named_tensors(model):
        plain = plain_name(name)
        if plain in found:
            raise DataError(f"two parameters are both called {plain!r} without their wrappers' names")
        kind = kind_of(tensor)
        if kind != CARRIED:
            check_there(plain, tensor)
        dtype = str(tensor.dtype).removeprefix("torch.")
        found[plain] = Leaf(plain, tensor, kind, dtype, tuple(tensor.shape), is_buffer=is_buffer)
    return found


def _named_tensors(model: Any) -> Iterator[tuple[str, Any, bool]]:
    for prefix, module in model.named_modules(remove_duplicate=False):
        for key, tensor in module._parameters.items():
            if tensor is not None:
                yield f"{prefix}.{key}".removeprefix("."), tensor, False
        for key, tensor in module._buffers.items():
            if tensor is not None and key not in module._non_persistent_buffers_set:
                yield f"{prefix}.{key}".removeprefix("."), tensor, True


def _gather_no_longer(model: Any) -> None:
    """FSDP2 may have left whole parameters from the last forward pass: back to the true shards."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    kind = getattr(fsdp, "FSDPModule", None)
    if kind is not None:
        for module in model.modules():
            if isinstance(module, kind):
                module.reshard()


def warn_of_complex(leaves: Mapping[str, Leaf]) -> None:
    """Say it where trained parameters are complex: they are carried along, and an average they are not."""
    names = [
        name
        for name, leaf in leaves.items()
        if not leaf.is_buffer and getattr(leaf.value, "requires_grad", False) and leaf.kind == CARRIED
    ]
    if names:
        warnings.warn(
            f"{some_of(names)} can't be averaged and stays as it is in the model; "
            "keep complex parameters as pairs of real ones (torch.view_as_real) to have them averaged",
            stacklevel=4,
        )


class Slot:
    """A module's attribute that holds a tensor, whichever tensor that is at the moment."""

    def __init__(self, module: Any, key: str) -> None:
        self._module = module
        self._key = key

    @property
    def tensor(self) -> Any:
        return self._module._parameters.get(self._key, self._module._buffers.get(self._key))


def slots_of(leaves: Mapping[str, Leaf]) -> dict[str, list[Slot]]:
    """Where the tensors of a state dict live: the attributes of living modules that share their memory.

    `model.state_dict()` gives aliases without a way back. Once the model is converted (`.half()`,
    `.to(device)`) they are not the model's any more, and only its modules say which tensors are.
    """
    wanted: dict[Any, list[str]] = {}
    for name, leaf in leaves.items():
        if isinstance(leaf.value, torch.Tensor) and not isinstance(leaf.value, torch.nn.Parameter):
            wanted.setdefault(_place(leaf.value), []).append(name)
    found: dict[str, list[Slot]] = {}
    if not wanted:
        return found
    for module in (thing for thing in gc.get_objects() if issubclass(type(thing), torch.nn.Module)):
        tensors = {**module.__dict__.get("_parameters", {}), **module.__dict__.get("_buffers", {})}
        for key, tensor in tensors.items():
            for name in wanted.get(_place(tensor), ()) if isinstance(tensor, torch.Tensor) else ():
                found.setdefault(name, []).append(Slot(module, key))
    return found


def _place(tensor: Any) -> Any:
    """Where a tensor's values lie; for one that has none, or lies nowhere, itself."""
    local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    try:
        place = local.data_ptr()
    except (RuntimeError, ValueError):  # no storage, or a lazy parameter, which has none yet
        return id(tensor)
    return (str(local.device), place, tuple(local.shape)) if place else id(tensor)


def check_reached(leaves: Mapping[str, Leaf], slots: Mapping[str, Any], tree: Any) -> None:
    """Raise DataError where a module's state dict holds copies: what is written there does not reach it."""
    if not hasattr(tree, "_metadata"):  # which torch.nn.Module.state_dict puts there
        return
    lost = [
        name
        for name, leaf in leaves.items()
        if leaf.kind == AVERAGED
        and name not in slots
        and isinstance(leaf.value, torch.Tensor)
        and not isinstance(leaf.value, torch.nn.Parameter)
        and leaf.value.numel()
    ]
    if lost:
        raise DataError(
            f"this state dict holds copies of {some_of(lost)}: the averages would not reach the model",
            hint="ParameterEMA(model, …) and ema.average_parameters(), or ema.copy_to(model)",
        )
