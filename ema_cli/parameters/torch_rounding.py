"""Averages in torch tensors to the dtypes that they are kept and handed out in, each value rounded once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

# Elements in a piece on the CPU: torch runs an operation on so many on one thread.
PIECE = 1 << 15
# Half a unit of bfloat16 in the bits of a float32 that it leaves out, moved to the front: of all int32 the
# least. And elements that are looked at together for such values.
_MIDDLE = np.iinfo(np.int32).min
_ROW = 512


def split(wide: Any, precision: str) -> tuple[Any, ...]:
    """Values in float64, in the parts that they are kept in."""
    if precision == "float64":
        return (wide,)
    high = wide.float()
    if precision == "float32":
        return (high,)
    return high, torch.where(high.isfinite(), wide - high.double(), 0.0).float()


def widened(parts: Sequence[Any]) -> Any:
    """The value of an average in a new float64 tensor."""
    wide = parts[0].to(torch.float64, copy=True)
    return wide.add_(parts[1]) if len(parts) == 2 else wide


def rounded_to(parts: Sequence[Any], dtype: Any) -> Any:
    """A new flat tensor of an average's values in `dtype`, each rounded once."""
    new = torch.empty(parts[0].numel(), dtype=dtype, device=parts[0].device)
    _round_into(parts, new)
    return new


def _round_into(parts: Sequence[Any], target: Any) -> None:
    """Write an average's values, each rounded once, into a flat tensor.

    torch goes from float64 to the narrow dtypes by way of float32 and rounds twice; here the first step is
    rounded to odd, as `ema_cli.parameters.tensors.rounded` does it and says why.
    """
    if (source := _source(parts, target.dtype)) is not None:
        target.copy_(source)
    elif target.dtype.itemsize >= 4:
        target.copy_(widened(parts))
    else:
        target.copy_(_to_odd(parts[0].to(torch.float32, copy=True), parts))


def _source(parts: Sequence[Any], dtype: Any) -> Any:
    """The tensor that only has to be converted for the values to be rounded once; None if there is none."""
    narrow = parts[0].dtype == torch.float32
    if len(parts) == 2:  # the first is their sum, rounded
        return parts[0] if dtype == torch.float32 else None
    return parts[0] if narrow or dtype.itemsize >= 4 else None


def round_stretch(parts: Sequence[Any], target: Any, room: Any) -> None:
    """The same on the CPU for at most as many values as `room` (float32) has place for."""
    if (source := _source(parts, target.dtype)) is not None:
        _convert(source, target)
    elif target.dtype == torch.bfloat16:
        # Twice is wrong only where the first step ends in the middle between two: for one value in 65,536.
        high = room[: len(target)]
        _convert(parts[0], high)
        _convert(high, target)
        doubtful = torch.from_numpy(_in_the_middle(high.numpy()))
        if len(doubtful):
            some = [part[doubtful] for part in parts]
            target[doubtful] = _to_odd(some[0].to(torch.float32, copy=True), some).to(target.dtype)
    else:
        for *some, piece in zip(*(part.split(PIECE) for part in parts), target.split(PIECE), strict=True):
            _round_into(some, piece)


def _convert(source: Any, target: Any) -> None:
    """Copy values, rounded once, on this thread alone."""
    torch._foreach_copy_(target.split(PIECE), source.split(PIECE))


def _in_the_middle(high: Any) -> Any:
    """Where float32 values lie in the middle between two of bfloat16; the values are overwritten.

    In NumPy, whose operations leave the interpreter to the other threads for as long as they take.
    """
    bits = high.view(np.uint32)
    np.left_shift(bits, 16, out=bits)
    ends = bits.view(np.int32)
    whole = len(ends) - len(ends) % _ROW
    rows = ends[:whole].reshape(-1, _ROW)
    doubtful = np.flatnonzero(rows.min(axis=1) == _MIDDLE)
    row, column = np.nonzero(rows[doubtful] == _MIDDLE)
    rest = np.flatnonzero(ends[whole:] == _MIDDLE)
    return np.concatenate([doubtful[row] * _ROW + column, rest + whole])


def _to_odd(high: Any, parts: Sequence[Any]) -> Any:
    """Values rounded to float32, rounded to odd instead, in place."""
    rest = parts[1] if len(parts) == 2 else parts[0] - high
    inexact = rest.abs() > 0
    beyond = inexact & (rest.signbit() != high.signbit())
    high.view(torch.int32).sub_(beyond.int()).bitwise_or_(inexact.int())
    return high
