"""torch's .pt and .pth, read where torch is installed: tensors only, no pickled code is run."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ema_cli.errors import DataError, FileTrouble, OptionError
from ema_cli.io.atomic import system_words
from ema_cli.parameters.checkpoints.stream import Checkpoint
from ema_cli.parameters.tensors import Array, TensorInfo, dtype_named, is_tensor


class TorchFile(Checkpoint):
    """The tensors of a torch checkpoint, nested dicts flattened with dots; values are mapped, not loaded."""

    def __init__(self, name: str, key: str | None = None) -> None:
        """key: dotted path of the dict to take; OptionError where there is none. Raises FileTrouble."""
        super().__init__(name)
        content = _picked(_load(name), key, name)
        self._values: dict[str, Any] = {}
        self._flat: tuple[str, Any] | None = None
        _collect(content, "", self._values, self.others)
        self.keys = _dicts_of_tensors(content) if key is None else []
        first: dict[tuple[Any, ...], str] = {}
        for tensor, value in self._values.items():
            self._add(tensor, value, first)

    def _add(self, tensor: str, value: Any, first: dict[tuple[Any, ...], str]) -> None:
        if value.layout != _strided() or value.is_quantized or value.is_meta:
            self.refused[tensor] = "is sparse, quantized or without values; only plain tensors are averaged"
            return
        try:
            dtype = dtype_named(str(value.dtype).removeprefix("torch."))
        except DataError as error:
            self.refused[tensor] = f"has values that are not known here: {error.problem}"
            return
        # Two names of one tensor, as those of an embedding and of the head that shares it.
        place = (value.data_ptr(), dtype.name, tuple(value.shape), value.stride())
        if value.numel() and (tied := first.setdefault(place, tensor)) != tensor:
            self.tied[tensor] = tied
            return
        self.tensors[tensor] = TensorInfo(tensor, dtype, tuple(value.shape))

    def close(self) -> None:
        self._values.clear()
        self._flat = None

    def read(self, info: TensorInfo, start: int, stop: int) -> Array:
        """Elements start to stop of the tensor in C order, one-dimensional."""
        if self._flat is None or self._flat[0] != info.name:
            # Laid out once: a tensor that lies otherwise in memory would be copied for each slice.
            self._flat = (info.name, self._values[info.name].detach().reshape(-1))
        return numpy_from(self._flat[1][start:stop], info.dtype)


def numpy_from(part: Any, dtype: np.dtype[Any]) -> Array:
    """A torch tensor's values as NumPy's, bfloat16 and 8-bit floats by their bytes."""
    if dtype.kind != "V":
        return np.asarray(part.numpy())
    import torch

    # NumPy takes no bfloat16 from torch; its bytes mean the same to both.
    whole = {1: torch.uint8, 2: torch.int16}[dtype.itemsize]
    return np.asarray(part.contiguous().view(whole).numpy()).view(dtype)


def _strided() -> Any:
    import torch

    return torch.strided


def _load(name: str) -> Any:
    try:
        import torch
    except ImportError:
        raise FileTrouble(
            name, "needs torch to be read", "pip install torch, or save it as .safetensors"
        ) from None
    try:
        with Path(name).open("rb") as file:
            # torch maps only its zip format; older files are loaded whole.
            mapped = file.read(4) == b"PK\x03\x04"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(name, map_location="cpu", weights_only=True, mmap=mapped)
    except OSError as error:
        raise FileTrouble(name, system_words(error)) from error
    except pickle.UnpicklingError as error:
        raise FileTrouble(
            name,
            "is no checkpoint of tensors only; other pickled objects are not loaded as they can run code",
            "torch.save(model.state_dict(), path)",
        ) from error
    except Exception as error:  # a foreign parser over bytes that may be anything
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise FileTrouble(name, f"is damaged or no torch file: {said}") from error


def _picked(content: Any, key: str | None, name: str) -> Mapping[Any, Any]:
    for part in [] if key is None else key.split("."):
        if not isinstance(content, Mapping) or part not in content:
            known = ", ".join(map(str, content)) if isinstance(content, Mapping) else "no dict"
            raise OptionError(f"{name}: there is no {part!r} for --key {key}, but {known[:500]}")
        content = content[part]
    if not isinstance(content, Mapping):
        raise FileTrouble(name, f"holds {type(content).__name__}, not a dict of tensors")
    return content


def _collect(content: Mapping[Any, Any], prefix: str, values: dict[str, Any], others: list[str]) -> None:
    for key, value in content.items():
        if isinstance(value, Mapping):
            _collect(value, f"{prefix}{key}.", values, others)
        elif is_tensor(value):
            values[f"{prefix}{key}"] = value
        else:
            others.append(f"{prefix}{key}")


def _dicts_of_tensors(content: Mapping[Any, Any]) -> list[str]:
    return [
        str(key)
        for key, value in content.items()
        if isinstance(value, Mapping) and value and all(map(is_tensor, value.values()))
    ]
