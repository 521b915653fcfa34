"""torch_ema's tests (fadel/pytorch_ema)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ema_cli.parameters.ema import ParameterEMA
from tests.parameters.peers import module, their_tests

torch = pytest.importorskip("torch", reason="torch is optional, and 200 MB")


class ExponentialMovingAverage:
    """torch_ema's class by `ParameterEMA` on a mapping of numbers to parameters."""

    def __init__(self, parameters: Iterable[Any], decay: float, use_num_updates: bool = True) -> None:
        self._given = list(parameters)
        self._warmup = "tf" if use_num_updates else None
        self._begin(decay)
        self.collected_params: list[Any] = []

    def _begin(self, decay: float) -> None:
        self.decay = decay
        self._ema = ParameterEMA(self._named(None), decay=decay, warmup=self._warmup)

    def _named(self, parameters: Iterable[Any] | None) -> dict[str, Any]:
        chosen = self._given if parameters is None else list(parameters)
        return {str(k): parameter for k, parameter in enumerate(chosen)}

    @property
    def shadow_params(self) -> list[Any]:
        return list(self._ema.ema.values())

    def update(self, parameters: Iterable[Any] | None = None) -> None:
        self._ema.update(self._named(parameters))

    def copy_to(self, parameters: Iterable[Any] | None = None) -> None:
        self._ema.copy_to(self._named(parameters))

    def store(self, parameters: Iterable[Any] | None = None) -> None:
        self.collected_params = [value.detach().clone() for value in self._named(parameters).values()]

    def restore(self, parameters: Iterable[Any] | None = None) -> None:
        with torch.no_grad():
            for parameter, kept in zip(self._named(parameters).values(), self.collected_params, strict=True):
                parameter.copy_(kept)

    @contextmanager
    def average_parameters(self, parameters: Iterable[Any] | None = None) -> Iterator[None]:
        with self._ema.average_parameters(self._named(parameters)):
            yield

    def state_dict(self) -> dict[str, Any]:
        state = self._ema.state_dict()
        kept = list(state.pop("averages").values())
        return {**state, "shadow_params": kept, "decay_limit": self.decay, "ramp": self._warmup}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        averages = {str(k): value for k, value in enumerate(state["shadow_params"])}
        self._warmup = state["ramp"]
        self._begin(state["decay_limit"])
        self._ema.load_state_dict({**state, "averages": averages}, override=True)


CANNOT = {
    "test_to": "averages are never kept in float16, nor converted",
    "test_bad_state_dict1": "a state of other shapes is refused at loading, not at copying",
}
STANDS_IN = {"torch_ema": module("torch_ema", ExponentialMovingAverage=ExponentialMovingAverage)}

globals().update(their_tests("pytorch_ema/tests/test_ema.py", STANDS_IN, CANNOT))
globals().update(their_tests("pytorch_ema/tests/test_state_dict.py", STANDS_IN, CANNOT))
