"""`pyarrow.compute`, which is imported when a function is asked for that is not here.

Its import writes a Python function for each of Arrow's three hundred, an eighth of the time that a command
takes to start. What most runs need is called by name instead.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pyarrow as pa

try:
    from pyarrow import _compute
except ImportError:  # should that inner module move: the public one has all of it
    from pyarrow import compute as _compute


def __getattr__(name: str) -> Any:
    return getattr(importlib.import_module("pyarrow.compute"), name)


def cast(array: Any, kind: Any, *, safe: bool = True) -> Any:
    """`pyarrow.compute.cast`."""
    options = _compute.CastOptions.safe(kind) if safe else _compute.CastOptions.unsafe(kind)
    return _compute.call_function("cast", [array], options)


def join(*texts: Any) -> Any:
    """Binary arrays row by row one behind the other: `binary_join_element_wise` with nothing in between."""
    nothing = pa.scalar(b"", pa.binary())
    return _compute.call_function("binary_join_element_wise", [*texts, nothing], _compute.JoinOptions())


def lengths(texts: Any) -> Any:
    """`pyarrow.compute.binary_length`."""
    return _compute.call_function("binary_length", [texts])


def ends(texts: Any) -> tuple[bytes, bytes]:
    """The least and the greatest of some texts or binary values, as bytes."""
    found = _compute.call_function("min_max", [cast(texts, pa.binary())])
    return found["min"].as_py(), found["max"].as_py()


def join_same(texts: Any, text: bytes) -> Any:
    """Each of the texts with the same one behind it."""
    return join(texts, pa.scalar(text, pa.binary()))


def take(array: Any, indices: Any) -> Any:
    """`pyarrow.compute.take`. indices: a NumPy array."""
    if type(indices) is np.ndarray and indices.dtype == np.int64 and indices.flags.c_contiguous:
        # `pa.array` would look whether it is masked, and so load `numpy.ma`: a tenth of a small run.
        places = pa.Array.from_buffers(pa.int64(), len(indices), [None, pa.py_buffer(indices)])
    else:
        places = pa.array(indices)
    return _compute.call_function("take", [array, places], _compute.TakeOptions())


def sorted_places(codes: Any) -> Any:
    """Where the least of the numbers in a NumPy array are, then the next, …; equal ones in their order."""
    kind, size = pa.from_numpy_dtype(codes.dtype), len(codes)
    numbers = pa.Array.from_buffers(kind, size, [None, pa.py_buffer(np.ascontiguousarray(codes))])
    found = _compute.call_function("array_sort_indices", [numbers], _compute.ArraySortOptions())
    return found.to_numpy().view(np.int64)


def dictionary_encode(array: Any) -> Any:
    """`pyarrow.Array.dictionary_encode`, with null a value like others."""
    return _compute.call_function("dictionary_encode", [array], _compute.DictionaryEncodeOptions("encode"))


def filled(array: Any, value: Any) -> Any:
    """An array with a scalar in place of null."""
    return _compute.call_function("coalesce", [array, value])


def trim(texts: Any, characters: str) -> Any:
    """`pyarrow.compute.ascii_trim`."""
    return _compute.call_function("ascii_trim", [texts], _compute.TrimOptions(characters))


def matches(texts: Any, pattern: str) -> Any:
    """`pyarrow.compute.match_substring_regex`, False where null."""
    found = _compute.call_function("match_substring_regex", [texts], _compute.MatchSubstringOptions(pattern))
    return filled(found, pa.scalar(False))
