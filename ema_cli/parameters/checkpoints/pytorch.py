"""torch's .pt and .pth, read where torch is installed: tensors only, no pickled code is run."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from ema_cli.errors import FileTrouble, OptionError
from ema_cli.io.atomic import system_words
from ema_cli.parameters.tensors import Array, TensorInfo, dtype_named, is_tensor


class TorchFile:
    """The tensors of a torch checkpoint, nested dicts flattened with dots; values are mapped, not loaded."""

    def __init__(self, name: str, key: str | None) -> None:
        """key: dotted path of the dict to take; OptionError where there is none. Raises FileTrouble."""
        self.name = name
        self.metadata: dict[str, str] = {}
        content = _picked(_load(name), key, name)
        self._values: dict[str, Any] = {}
        others: list[str] = []
        _collect(content, "", self._values, others)
        self.others: Sequence[str] = others
        self.keys: Sequence[str] = _dicts_of_tensors(content) if key is None else ()
        self.tensors: dict[str, TensorInfo] = {
            tensor: TensorInfo(tensor, _dtype(name, tensor, value), tuple(value.shape))
            for tensor, value in self._values.items()
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._values.clear()

    def read(self, info: TensorInfo, start: int, stop: int) -> Array:
        """Elements start to stop of the tensor in C order, one-dimensional."""
        part = self._values[info.name].detach().reshape(-1)[start:stop]
        if info.dtype.kind != "V":
            return np.asarray(part.numpy())
        import torch

        # NumPy takes no bfloat16 from torch; its bytes mean the same to both.
        whole = {1: torch.uint8, 2: torch.int16}[info.dtype.itemsize]
        return np.asarray(part.contiguous().view(whole).numpy()).view(info.dtype)


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


def _dtype(name: str, tensor: str, value: Any) -> np.dtype[Any]:
    if value.is_sparse or value.is_quantized:
        raise FileTrouble(name, f"tensor {tensor!r} is sparse or quantized; only plain ones are averaged")
    text = str(value.dtype).removeprefix("torch.")
    return dtype_named(text)
