"""torch's own tests of `AveragedModel` (pytorch/pytorch)."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ema_cli.parameters.ema import ParameterEMA
from tests.parameters.peers import module, their_tests

torch = pytest.importorskip("torch", reason="torch is optional, and 200 MB")
swa_utils = pytest.importorskip("torch.optim.swa_utils", reason="torch is optional, and 200 MB")
# torch's own test cases want it.
pytest.importorskip("expecttest", reason="torch.testing's test cases are made of it")


def plain_mean(updates: int) -> float:
    """The decay that makes the average the mean of all parameters so far."""
    return updates / (updates + 1)


class AveragedModel(torch.nn.Module):  # type: ignore[misc, name-defined]
    """torch's class by a `ParameterEMA`; the functions that say how to average are options here."""

    def __init__(
        self,
        model: Any,
        device: Any = None,
        avg_fn: Any = None,
        multi_avg_fn: dict[str, Any] | None = None,
        use_buffers: bool = False,
    ) -> None:
        super().__init__()
        assert avg_fn is None, "ParameterEMA takes a decay, or a function that gives one"
        self.module = copy.deepcopy(model).to(device)
        options = multi_avg_fn or {"warmup": plain_mean}
        # Their first update is a copy, ours of the mean as well.
        first = {} if "warmup" in options else {"update_after_step": 1}
        self._ema = ParameterEMA(
            model, **options, **first, device=device, buffers="average" if use_buffers else "copy"
        )

    @property
    def n_averaged(self) -> Any:
        return torch.tensor(self._ema.num_steps)

    def update_parameters(self, model: Any) -> None:
        self._ema.update(model)
        self._ema.copy_to(self.module)

    def state_dict(self) -> Any:
        return self._ema.state_dict()

    def load_state_dict(self, state: Any) -> None:
        self._ema.load_state_dict(state)
        self._ema.copy_to(self.module)


STANDS_IN = {
    "torch.optim.swa_utils": module(
        "torch.optim.swa_utils",
        AveragedModel=AveragedModel,
        get_ema_multi_avg_fn=lambda decay: {"decay": decay},
        get_swa_multi_avg_fn=lambda: {"warmup": plain_mean},
        update_bn=swa_utils.update_bn,
    )
}
FUNCTION = "an average by a function of one's own: ParameterEMA takes a decay, or a function that gives one"
CANNOT = {
    f"test_averaged_model_exponential_use_multi_avg_fn_False_use_buffers_{buffers}": FUNCTION
    for buffers in (True, False)
}
FOUND = their_tests("pytorch/test/optim/test_swa_utils.py", STANDS_IN, CANNOT)
# The rest of the file is about `update_bn`, which is torch's here as there.
for name in [name for name in vars(FOUND["TestSWAUtils"]) if "bn" in name and name.startswith("test_")]:
    delattr(FOUND["TestSWAUtils"], name)
globals().update({name: value for name, value in FOUND.items() if name == "TestSWAUtils"})
