"""Named tensors: their dtypes, and float64 and back by one rounding.

NumPy arrays, anything `np.asarray` takes, and torch tensors (known by what they can do: torch itself is
never imported before somebody hands in a tensor).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What is known of a tensor before its values are read."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many elements; whole numbers of any length, as a hostile header may claim anything."""
        return math.prod(self.shape)


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
    if why := refusal(info.dtype):
        prefix = f"{where}: " if where else ""
        raise DataError(f"{prefix}tensor {info.name!r} {why}")


def refusal(dtype: np.dtype[Any]) -> str:
    """Why such values can neither be averaged nor copied; empty where they can."""
    if is_averaged(dtype) or is_copied(dtype):
        return ""
    what = "text" if dtype.kind in "SU" else dtype.name
    return f"holds {what}; floats are averaged, integers and bools copied, nothing else"


def is_tensor(value: Any) -> bool:
    """True for a torch tensor."""
    return hasattr(value, "detach") and hasattr(value, "cpu")


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
