"""Averages in NumPy arrays: of NumPy parameters, and of whatever `np.asarray` takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any

import numpy as np

from ema_cli.errors import DataError
from ema_cli.parameters.leaves import AVERAGED, Leaf
from ema_cli.parameters.tensors import Array, as_array, dtype_named, fold_in, is_tensor, rounded

# Elements folded at once: float64 twice over, small enough to stay in the processor's cache.
_PIECE = 1 << 15
# The parts that an average is made of, by precision.
PARTS = {"float64": ("float64",), "float32x2": ("float32", "float32"), "float32": ("float32",)}
# What "float32x2" is where an average begins on the CPU. A pair takes as many bytes as a float64, and nine
# operations where that takes two: it is for accelerators, whose float64 is slow, and for states from there.
PAIR_ON_CPU = "float64"


def precision_for(dtype: str, wanted: str, *, on_cpu: bool) -> str:
    """An average is never narrower than its parameter: float64 parameters are averaged in float64."""
    if dtype in ("float64", "longdouble", "float128"):
        return "float64"
    return PAIR_ON_CPU if on_cpu and wanted == "float32x2" else wanted


class NumpyStore:
    """The averages of some leaves, several of each where several decays are asked for.

    precision: "float64", "float32x2" (a pair of float32, together about 48 bits) or "float32".
    spreading: infinities go on as they come; else one that was there from the start is a constant.
    """

    def __init__(self, precision: str, count: int, spreading: bool) -> None:
        self.precision = precision
        self._count = count
        self._spreading = spreading
        self._averages: dict[str, list[tuple[Array, ...]]] = {}
        self._copies: dict[str, Array] = {}
        self._dtypes: dict[str, np.dtype[Any]] = {}
        self._infinite: set[str] = set()

    def begin(self, leaf: Leaf, zeros: bool) -> None:
        """Keep an average of the leaf from now on, beginning with its value or with zeros."""
        value = as_array(leaf.value)
        self._dtypes[leaf.name] = _dtype_of(leaf)
        if leaf.kind != AVERAGED:
            self._copies[leaf.name] = np.array(value)
            return
        start = np.array(value, np.float64)
        if zeros:
            start[np.isfinite(start)] = 0.0  # a constant infinity is one from the start
        self._keep(leaf.name, [_split(start, self._precision(leaf)) for _ in range(self._count)])

    def _precision(self, leaf: Leaf) -> str:
        return precision_for(leaf.dtype, self.precision, on_cpu=True)

    def _keep(self, name: str, averages: list[tuple[Array, ...]]) -> None:
        self._averages[name] = averages
        self._infinite.discard(name)
        if not np.isfinite(averages[0][0]).all():
            self._infinite.add(name)

    def drop(self, name: str) -> None:
        """Keep the average no longer."""
        for kept in (self._averages, self._copies, self._dtypes):
            kept.pop(name, None)
        self._infinite.discard(name)

    def unsound(self, leaves: Sequence[Leaf]) -> list[str]:
        """The names of leaves that hold a NaN or an infinity that was not there before."""
        return [leaf.name for leaf in leaves if not self._is_sound(leaf)]

    def _is_sound(self, leaf: Leaf) -> bool:
        for start, values in _pieces(as_array(leaf.value)):
            fine = np.isfinite(values)
            if not fine.all():
                before = self._averages[leaf.name][0][0].reshape(-1)[start : start + values.size]
                if leaf.name not in self._infinite or not (fine | (values == before)).all():
                    return False
        return True

    def fold(self, leaves: Sequence[Leaf], gains: Sequence[float]) -> None:
        """average += gain · (value − average), one gain for each average of a leaf."""
        for leaf in leaves:
            precision = self._precision(leaf)
            work = np.float32 if precision == "float32" else np.float64
            careful = self._spreading or leaf.name in self._infinite
            for start, piece in _pieces(as_array(leaf.value)):
                values = piece.astype(work)
                for parts, gain in zip(self._averages[leaf.name], gains, strict=True):
                    here = [part.reshape(-1)[start : start + values.size] for part in parts]
                    self._fold(here, values, gain, careful)

    def _fold(self, parts: list[Array], values: Array, gain: float, careful: bool) -> None:
        average = parts[0] if len(parts) == 1 else _widened(parts)
        if careful and gain != 1.0:
            _fold_infinities(average, values, gain, self._spreading)
        else:
            fold_in(average, values, gain)
        if len(parts) == 2:
            for part, new in zip(parts, _split(average, "float32x2"), strict=True):
                part[...] = new

    def copy(self, leaves: Sequence[Leaf]) -> None:
        """Keep the newest values of leaves that are not averaged."""
        for leaf in leaves:
            self._copies[leaf.name][...] = as_array(leaf.value)

    def rounded(self, leaf: Leaf, which: int) -> Any:
        """A new array of an average (or copy), each value rounded once to the leaf's dtype."""
        dtype = self._dtypes[leaf.name]  # with its byte order, unless another one is asked for
        return self._rounded(leaf.name, which, dtype if dtype.name == leaf.dtype else dtype_named(leaf.dtype))

    def _rounded(self, name: str, which: int, dtype: np.dtype[Any]) -> Array:
        if name in self._copies:
            return self._copies[name].astype(dtype)
        parts = self._averages[name][which]
        if len(parts) == 2 and dtype == np.float32:
            return parts[0].copy()
        return rounded(_widened(parts), dtype)

    def write(self, leaves: Sequence[Leaf], which: int) -> None:
        """Put averages where the leaves' values lie: arrays in place, other values replaced."""
        for leaf in leaves:
            _write(leaf, self._rounded(leaf.name, which, _dtype_of(leaf)))

    def parts(self, name: str, which: int) -> tuple[Array, ...]:
        """What an average is made of, for saving; the very arrays."""
        if name in self._copies:
            return (self._copies[name],)
        return self._averages[name][which]

    def load(self, leaf: Leaf, parts: Sequence[Sequence[Any]]) -> None:
        """Take on what `parts` gave, for each average of the leaf; copied."""
        arrays = [tuple(np.array(exact_array(part)) for part in one) for one in parts]
        self._dtypes.setdefault(leaf.name, _dtype_of(leaf))
        if leaf.kind == AVERAGED:
            self._keep(leaf.name, arrays)
        else:
            self._copies[leaf.name] = arrays[0][0]


def exact_array(value: Any) -> Array:
    """A saved part as an array in its own dtype, whatever library holds it."""
    if not is_tensor(value):
        return np.asarray(value)
    if hasattr(value, "full_tensor"):
        value = value.full_tensor()
    return as_array(value) if "bfloat16" in str(value.dtype) else np.asarray(value.detach().cpu())


def _dtype_of(leaf: Leaf) -> np.dtype[Any]:
    value = leaf.value
    return value.dtype if isinstance(value, (np.ndarray, np.generic)) else dtype_named(leaf.dtype)


def _pieces(array: Array) -> Iterator[tuple[int, Array]]:
    """(where it begins, values) of the array in C order, flat; of views only a piece at a time is copied."""
    if array.flags.c_contiguous or array.ndim == 0:
        flat = array.reshape(-1)
        for start in range(0, flat.size, _PIECE):
            yield start, flat[start : start + _PIECE]
        return
    row = array[0].size if len(array) else 0
    step = max(1, _PIECE // row) if row else 1
    for start in range(0, len(array), step):
        if row:
            yield start * row, array[start : start + step].reshape(-1)


def _widened(parts: Sequence[Array]) -> Array:
    """The value of an average in float64; the array itself where it is kept so."""
    if len(parts) == 1:
        return parts[0] if parts[0].dtype == np.float64 else parts[0].astype(np.float64)
    wide: Array = parts[0].astype(np.float64)
    wide += parts[1]
    return wide


def _split(wide: Array, precision: str) -> tuple[Array, ...]:
    """A float64 array in the parts that it is kept in."""
    if precision == "float64":
        return (wide.copy(),)
    high = wide.astype(np.float32)
    if precision == "float32":
        return (high,)
    with np.errstate(invalid="ignore"):
        low = np.where(np.isfinite(high), wide - high, 0.0).astype(np.float32)
    return high, low.reshape(high.shape)


def _fold_infinities(average: Array, values: Array, gain: float, spreading: bool) -> None:
    """As `fold_in`, but an infinity that stays is no change: inf − inf would be NaN.

    Where a constant infinity has become a number, the average begins anew with that.
    """
    if gain == 0.0:
        return
    with np.errstate(invalid="ignore", over="ignore"):
        step = values - average
        step[values == average] = 0.0
        anew = np.zeros(average.shape, bool) if spreading else np.isinf(average) & np.isfinite(values)
        average += step * gain
        average[anew] = values[anew]


def check_writable(leaf: Leaf) -> None:
    """Raise DataError where `NumpyStore.write` could not write, or what it wrote would not be seen."""
    name, value = leaf.name, leaf.value
    if isinstance(value, np.ndarray):
        if not value.flags.writeable:
            raise DataError(f"parameter {name!r} is a read-only array")
        return
    if _is_variable(value):
        return
    if not _is_value(value):
        raise DataError(
            f"parameter {name!r} is a {type(value).__module__}.{type(value).__qualname__}, which can't be "
            "written to: a new array in its place would not reach the model",
            hint="hand in arrays or tensors, or put ema.ema into the model with its own library",
        )
    if not isinstance(leaf.holder, (MutableMapping, MutableSequence)):
        kind = "mapping" if isinstance(leaf.holder, Mapping) else type(leaf.holder).__name__
        raise DataError(f"parameter {name!r} can't be replaced: its {kind} is read-only")


def _is_variable(value: Any) -> bool:
    """True for the variables of Keras and TensorFlow, which are written to by a method."""
    return hasattr(value, "assign") and hasattr(value, "dtype")


def _is_value(value: Any) -> bool:
    """True for what is replaced where it hangs, as all who use it do: numbers, JAX and MLX arrays."""
    library = type(value).__module__.partition(".")[0]
    return isinstance(value, (int, float, np.generic, list, tuple)) or library in ("jax", "jaxlib", "mlx")


def _write(leaf: Leaf, fitting: Array) -> None:
    if isinstance(leaf.value, np.ndarray):
        leaf.value[...] = fitting
    elif _is_variable(leaf.value):
        leaf.value.assign(fitting)
    else:
        leaf.holder[leaf.key] = fitting[()]


def backed_up(leaf: Leaf) -> Any:
    """A copy of the value that `put_back` restores to the bit."""
    if isinstance(leaf.value, np.ndarray):
        return leaf.value.copy()
    return np.array(leaf.value) if _is_variable(leaf.value) else leaf.value


def put_back(leaf: Leaf, backup: Any) -> None:
    """Undo `NumpyStore.write`."""
    if isinstance(leaf.value, np.ndarray):
        leaf.value[...] = backup
    elif _is_variable(leaf.value):
        leaf.value.assign(backup)
    else:
        leaf.holder[leaf.key] = backup
