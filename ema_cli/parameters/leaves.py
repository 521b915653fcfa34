"""Leaves: what hangs at one name of a model, and how it is treated.

There are three kinds. Floats are averaged, integers and bools (and a module's buffers) are copied, everything
else (complex numbers, None, a module's extra state) is carried along untouched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ema_cli.errors import DataError
from ema_cli.parameters.tensors import is_tensor, some_of

AVERAGED, COPIED, CARRIED = "averaged", "copied", "carried"
# What wrappers put into names: DistributedDataParallel and DataParallel, torch.compile, FSDP, checkpointing.
_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


@dataclass(frozen=True)
class Leaf:
    """One tensor of a model. In a tree `holder[key]` is `value`; a module's are found again by name.

    shape: of the whole tensor, also where this process holds a shard of it.
    """

    name: str
    value: Any
    kind: str
    dtype: str
    shape: tuple[int, ...]
    holder: Any = None
    key: Any = None
    is_buffer: bool = False


@dataclass(frozen=True)
class Choice:
    """Which tensors are averaged: `params` "all", "trainable" or a function; `buffers` "copy", "average"."""

    params: str | Callable[[str, Any], bool] = "all"
    buffers: str = "average"

    def kinded(self, leaf: Leaf) -> Leaf:
        """The leaf as it is to be treated."""
        copied = leaf.is_buffer and self.buffers == "copy" and leaf.kind == AVERAGED
        return replace(leaf, kind=COPIED) if copied else leaf

    def wants(self, leaf: Leaf) -> bool:
        """False for what is left alone."""
        if leaf.is_buffer or self.params == "all":
            return True
        if self.params == "trainable":
            return bool(getattr(leaf.value, "requires_grad", False))
        assert callable(self.params)  # checked by ParameterEMA
        return bool(self.params(leaf.name, leaf.value))


def plain_name(name: str) -> str:
    """A name without what `torch.compile` and other wrappers put in between."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def ties(leaves: Mapping[str, Leaf]) -> dict[str, str]:
    """For tensors that lie in one place: each further name to the first one."""
    first: dict[Any, str] = {}
    tied: dict[str, str] = {}
    for name, leaf in leaves.items():
        place = _place(leaf)
        if place is None:
            continue
        if place in first:
            tied[name] = first[place]
        else:
            first[place] = name
    return tied


def _place(leaf: Leaf) -> Any:
    """Where a tensor lies; None where that is not known, or there is nothing to tell apart by."""
    value = leaf.value
    if leaf.kind == CARRIED:
        return None
    if isinstance(value, np.ndarray):
        return (value.ctypes.data, value.shape, value.strides, value.dtype) if value.size else None
    if not is_tensor(value):
        return None
    if hasattr(value, "to_local"):
        value = value.to_local()
    if value.numel() == 0:
        return None
    return (value.device, value.data_ptr(), tuple(value.shape), value.stride(), value.dtype)


def check_same(leaves: Mapping[str, Leaf], known: Mapping[str, Leaf]) -> None:
    """Raise DataError unless names, shapes and kinds are those of `known`."""
    missing = [name for name in known if name not in leaves]
    extra = [name for name in leaves if name not in known]
    if missing or extra:
        said = [f"missing {some_of(missing)}"] * bool(missing) + [f"not known {some_of(extra)}"] * bool(extra)
        raise DataError(
            f"parameters differ from those at the start: {'; '.join(said)}",
            hint="ema.drop(names) and ema.add(names), if that is meant",
        )
    for name, leaf in known.items():
        now = leaves[name]
        if now.shape != leaf.shape and leaf.kind != CARRIED:
            raise DataError(f"parameter {name!r} has shape {now.shape}, at the start {leaf.shape}")
        # Floats may change their width; an integer written into another kind would be cut off.
        floats = "float" in now.dtype and "float" in leaf.dtype
        same = now.dtype == leaf.dtype or floats or leaf.kind == CARRIED
        if now.kind != leaf.kind or not same:
            was = leaf.dtype or "no array"
            raise DataError(f"parameter {name!r} is {now.dtype or 'no array'}, at the start {was}")


def names_below(names: Sequence[str], wanted: str) -> list[str]:
    """Those of `names` that are `wanted`, or lie below it."""
    return [name for name in names if name == wanted or name.startswith(f"{wanted}.")]
