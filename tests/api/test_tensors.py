"""torch's tensors in, tensors out: the same device, dtype and shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ema_cli import Smoother, smooth

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_floating_tensors_keep_their_dtype(dtype: str) -> None:
    x = torch.tensor([1.0, 5.0, float("nan"), 3.0], dtype=getattr(torch, dtype), requires_grad=True)
    y = smooth(x, alpha=0.5)
    assert y.dtype == x.dtype
    assert not y.requires_grad
    np.testing.assert_array_equal(y.double().numpy(), [1.0, 3.0, np.nan, 3.0])


def test_whole_numbers_become_the_default_dtype() -> None:
    y = smooth(torch.tensor([1, 4]), alpha=0.5)
    assert y.dtype == torch.get_default_dtype()
    assert y.tolist() == [1.0, 2.5]


def test_shapes() -> None:
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    assert torch.equal(smooth(x, alpha=0.5, axis=1), torch.from_numpy(smooth(x.numpy(), alpha=0.5, axis=1)))
    assert smooth(x[0], alpha=[0.5, 1]).shape == (4, 10)
    y = smooth(torch.tensor(4.0), alpha=0.5, init="zero")
    assert y.shape == ()
    assert y.item() == 2.0


def test_in_pieces_with_times_and_keys_that_are_tensors() -> None:
    x, t, keys = torch.tensor([1.0, 9.0, 3.0]), torch.tensor([0, 0, 10]), torch.tensor([1, 2, 1])
    assert smooth(x, halflife="10s", times=t, by=keys, time_unit="s").tolist() == [1.0, 9.0, 2.0]
    smoother = Smoother(halflife="10s", time_unit="s")
    pieces = [smoother.update(x[k : k + 1], t[k : k + 1], keys[k : k + 1]) for k in range(3)]
    assert torch.cat(pieces).tolist() == [1.0, 9.0, 2.0]
    assert smooth([1.0, 5.0], alpha=torch.tensor(0.5)).tolist() == [1.0, 3.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.tensor([True]), "of dtype torch.bool: no numbers"),
        (lambda: torch.tensor([1j]), "of dtype torch.complex64: no numbers"),
        (lambda: torch.empty(3, device="meta"), "a meta tensor"),
        (lambda: torch.eye(2).to_sparse(), "a sparse tensor"),
        (
            lambda: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)], layout=torch.jagged),
            "a nested tensor",
        ),
        (lambda: torch.zeros(1, 1, 1), r"3 dimensions(.|\n)*axis=0"),
    ],
)
def test_tensors_that_are_no_numbers(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        smooth(make(), alpha=0.5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator")
def test_on_an_accelerator() -> None:
    y = smooth(torch.tensor([1.0, 5.0], device="cuda"), alpha=0.5)
    assert y.device.type == "cuda"
    assert y.tolist() == [1.0, 3.0]
