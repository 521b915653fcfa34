"""Named tensors: their dtypes, float64 and back by one rounding, and writing where they lie.

NumPy arrays, anything `np.asarray` takes, and torch tensors (known by what they can do: torch itself is
never imported before somebody hands in a tensor).
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ema_cli.errors import DataError
from ema_cli.extras import install_hint

Array = npt.NDArray[Any]
Float64s = npt.NDArray[np.float64]

# How many names a message lists.
_LISTED = 6


@dataclass(frozen=True)
class TensorInfo:
    """What is known of a tensor before its values are read."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many elements; whole numbers of any length, as a hostile header may claim anything."""
        size = 1
        for length in self.shape:
            size *= length
        return size


@dataclass(frozen=True)
class Leaf:
    """One parameter and where it hangs: `holder[key]` is `value`."""

    info: TensorInfo
    value: Any
    holder: Mapping[Any, Any]
    key: Any


def dtype_named(name: str) -> np.dtype[Any]:
    """The dtype called `float32`, `bfloat16`, `float8_e5m2`…; the last two need ml_dtypes.

    Raises DataError where there is no such dtype, or ml_dtypes is missing.
    """
    try:
        return np.dtype(name)
    except TypeError:
        pass
    try:
        import ml_dtypes
    except ImportError:
        raise DataError(f"dtype {name} needs ml_dtypes", hint=install_hint("weights")) from None
    found = getattr(ml_dtypes, name, None)
    if not isinstance(found, type):
        raise DataError(f"dtype {name} is not known")
    return np.dtype(found)


def is_averaged(dtype: np.dtype[Any]) -> bool:
    """True for floating-point dtypes, ml_dtypes' included (which `np.issubdtype` does not know)."""
    return dtype.kind == "f" or (dtype.kind == "V" and dtype.name.startswith(("bfloat", "float")))


def is_copied(dtype: np.dtype[Any]) -> bool:
    """True for integers and bools: of them the newest is kept."""
    return dtype.kind in "biu" or (dtype.kind == "V" and dtype.name.startswith(("int", "uint")))


def check_dtype(info: TensorInfo, where: str = "") -> None:
    """Raise DataError for what can neither be averaged nor copied: complex numbers, text, objects."""
    if not (is_averaged(info.dtype) or is_copied(info.dtype)):
        prefix = f"{where}: " if where else ""
        raise DataError(
            f"{prefix}tensor {info.name!r} holds {info.dtype.name}; "
            "floats are averaged, integers and bools copied, nothing else"
        )


def is_tensor(value: Any) -> bool:
    """True for a torch tensor."""
    return hasattr(value, "detach") and hasattr(value, "cpu")


def named_leaves(params: Any) -> dict[str, Leaf]:
    """The parameters by name, nested mappings flattened with dots, in the mapping's order.

    Raises DataError where this is no mapping, two names come out the same, or a leaf is no array of numbers.
    """
    if not isinstance(params, Mapping):
        raise DataError(
            f"parameters are a mapping of names to arrays, not {type(params).__name__}",
            hint="dict(model.named_parameters()) or model.state_dict()",
        )
    leaves: dict[str, Leaf] = {}
    _collect(params, "", leaves)
    return leaves


def _collect(params: Mapping[Any, Any], prefix: str, leaves: dict[str, Leaf]) -> None:
    for key, value in params.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            _collect(value, f"{name}.", leaves)
            continue
        if name in leaves:
            raise DataError(f"two parameters are both called {name!r} once nested names are joined by dots")
        info = _describe(name, value)
        check_dtype(info)
        leaves[name] = Leaf(info, value, params, key)


def _describe(name: str, value: Any) -> TensorInfo:
    if is_tensor(value):
        return TensorInfo(name, dtype_named(str(value.dtype).removeprefix("torch.")), tuple(value.shape))
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DataError(f"parameter {name!r} is no array of numbers: {error}") from error
    return TensorInfo(name, array.dtype, array.shape)


def check_same(leaves: Mapping[str, Leaf], infos: Mapping[str, TensorInfo]) -> None:
    """Raise DataError unless names, shapes and kinds (averaged or copied) are those of `infos`."""
    missing = [name for name in infos if name not in leaves]
    extra = [name for name in leaves if name not in infos]
    if missing or extra:
        said = [f"missing {some_of(missing)}"] * bool(missing) + [f"not known {some_of(extra)}"] * bool(extra)
        raise DataError(f"parameters differ from those at the start: {'; '.join(said)}")
    for name, info in infos.items():
        now = leaves[name].info
        if now.shape != info.shape:
            raise DataError(f"parameter {name!r} has shape {now.shape}, at the start {info.shape}")
        # Floats may change their width; an integer written into another kind would be cut off.
        if now.dtype != info.dtype and not (is_averaged(now.dtype) and is_averaged(info.dtype)):
            raise DataError(f"parameter {name!r} is {now.dtype.name}, at the start {info.dtype.name}")


def some_of(names: Sequence[str]) -> str:
    """The names, or the first few and how many more."""
    shown = ", ".join(repr(name) for name in names[:_LISTED])
    return shown + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def as_array(value: Any) -> Array:
    """The values in their own dtype (bfloat16 tensors: float64); may share memory with `value`."""
    if not is_tensor(value):
        return np.asarray(value)
    tensor = value.detach().cpu()
    # NumPy takes no bfloat16 from torch, and float64 holds every one exactly.
    array: Array = tensor.double().numpy() if tensor.is_floating_point() else tensor.numpy()
    return array


def rounded(values: Array, dtype: np.dtype[Any]) -> Array:
    """A new array of `dtype`, each value of `values` (float64) rounded once, half to even.

    ml_dtypes goes from float64 by way of float32 and rounds twice; here the first step is rounded to odd
    (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", 2008), which makes the second
    step right. Values beyond the dtype's range become infinite, as in NumPy.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if dtype.kind != "V" or values.dtype != np.float64:
            return values.astype(dtype)
        near = np.atleast_1d(values.astype(np.float32))
        back = near.astype(np.float64)
        beyond = np.abs(back) > np.abs(values)
        near[beyond] = np.nextafter(near[beyond], np.float32(0))
        inexact = back != np.atleast_1d(values)
        inexact &= np.isfinite(np.atleast_1d(values))
        near.view(np.uint32)[inexact] |= 1
        return near.reshape(values.shape).astype(dtype)


def fold_in(average: Float64s, values: Float64s, gain: float) -> None:
    """average += gain·(values − average), in place.

    In this form a parameter that does not move has an average that does not move. A gain of 1 is a copy and
    a gain of 0 nothing: computed, they would lose digits or turn infinities into NaN.
    """
    if gain == 1.0:
        average[...] = values
    elif gain != 0.0:
        with np.errstate(invalid="ignore", over="ignore"):
            step = values - average
            step *= gain
            average += step


def to_tensor(values: Array, dtype_name: str) -> Any:
    """A torch tensor of the dtype that NumPy calls `dtype_name`, from values that it holds exactly."""
    import torch

    exact = values.astype(np.float64) if values.dtype.kind == "V" else values
    return torch.from_numpy(np.array(exact)).to(getattr(torch, dtype_name))


def check_writable(leaf: Leaf) -> None:
    """Raise DataError where `write_into` could not write."""
    if isinstance(leaf.value, np.ndarray):
        if not leaf.value.flags.writeable:
            raise DataError(f"parameter {leaf.info.name!r} is a read-only array")
    elif not is_tensor(leaf.value) and not isinstance(leaf.holder, MutableMapping):
        raise DataError(f"parameter {leaf.info.name!r} can't be replaced: its mapping is read-only")


def write_into(leaf: Leaf, values: Array) -> None:
    """Put `values`, rounded once, where the parameter lies: arrays and tensors in place, others replaced."""
    fitting = rounded(values, leaf.info.dtype)
    if is_tensor(leaf.value):
        leaf.value.detach().copy_(to_tensor(fitting, leaf.info.dtype.name))
    elif isinstance(leaf.value, np.ndarray):
        leaf.value[...] = fitting
    else:
        leaf.holder[leaf.key] = fitting[()]  # type: ignore[index]


def backed_up(leaf: Leaf) -> Any:
    """A copy of the parameter that `put_back` restores to the bit."""
    if is_tensor(leaf.value):
        return leaf.value.detach().clone()
    return leaf.value.copy() if isinstance(leaf.value, np.ndarray) else leaf.value


def put_back(leaf: Leaf, backup: Any) -> None:
    """Undo `write_into`."""
    if is_tensor(leaf.value):
        leaf.value.detach().copy_(backup)
    elif isinstance(leaf.value, np.ndarray):
        leaf.value[...] = backup
    else:
        leaf.holder[leaf.key] = backup  # type: ignore[index]
