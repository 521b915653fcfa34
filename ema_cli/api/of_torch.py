"""torch's tensors: results are tensors on the same device, of the same floating dtype."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ema_cli.api.of_numpy import NumpyArray
from ema_cli.api.tables import Form, New, Table, no_numbers
from ema_cli.errors import DataError
from ema_cli.formats.base import Floats


@dataclass(frozen=True)
class Tensor(Form):
    """A tensor; the average is computed in float64 on the CPU, without gradients."""

    x: Any
    axis: int | None = None

    @property
    def single(self) -> bool:
        return not self.x.is_nested and self.x.ndim == 0

    def table(self, _exclude: Collection[Hashable], _before: Collection[str]) -> Table:
        if self.x.dtype == torch.bool or self.x.dtype.is_complex:
            raise no_numbers(self.x.dtype, None)
        table = NumpyArray(to_numpy(self.x), self.axis).table()

        def wrap(fields: Floats, new: New | None) -> Any:
            result = torch.from_numpy(np.array(table.wrap(fields, new)))
            dtype = self.x.dtype if self.x.dtype.is_floating_point else torch.get_default_dtype()
            return result.to(dtype).to(self.x.device)

        return replace(table, wrap=wrap)


def to_numpy(tensor: Any) -> Any:
    """A tensor's numbers. Raises DataError for sparse, quantized, nested and meta tensors."""
    kinds = {
        "nested": tensor.is_nested,
        "meta": tensor.is_meta,
        "sparse": tensor.layout != torch.strided,
        "quantized": tensor.is_quantized,
    }
    for kind, is_such in kinds.items():
        if is_such:
            raise DataError(f"a {kind} tensor", hint="a dense one: .to_dense(), .dequantize()")
    plain = tensor.detach().cpu()
    return (plain.to(torch.float64) if plain.dtype.is_floating_point else plain).numpy()


def form_of(x: Any, axis: int | None) -> Tensor | None:
    """The form of a tensor; None for other torch objects."""
    return Tensor(x, axis) if isinstance(x, torch.Tensor) else None
