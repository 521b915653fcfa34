"""diffusers' tests of `EMAModel` (huggingface/diffusers), on a network that is made, not fetched."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from ema_cli.parameters.ema import ParameterEMA
from tests.parameters.peers import module, their_tests

torch = pytest.importorskip("torch", reason="torch is optional, and 200 MB")
diffusers = pytest.importorskip("diffusers", reason="the peer whose tests these are, 50 MB")


class UNet(diffusers.UNet2DConditionModel):  # type: ignore[misc, name-defined]
    """Their class; the network that the tests fetch is made here, as small."""

    @classmethod
    def from_pretrained(cls, place: Any, **options: Any) -> Any:
        if str(place) != "hf-internal-testing/tiny-stable-diffusion-pipe":
            options.pop("model_cls", None)
            return super().from_pretrained(place, **options)
        torch.manual_seed(0)
        return cls(
            block_out_channels=(32, 64),
            layers_per_block=1,
            sample_size=64,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=32,
        )


class EMAModel:
    """diffusers' class by `ParameterEMA` on a mapping of numbers to parameters."""

    def __init__(
        self,
        parameters: Iterable[Any],
        decay: float = 0.9999,
        model_cls: Any = None,
        model_config: Any = None,
        foreach: bool = False,  # noqa: ARG002 - it is always so here
    ) -> None:
        self.decay, self._model = decay, (model_cls, model_config)
        # Their first step is a copy.
        self._ema = ParameterEMA(self._named(parameters), decay=decay, warmup="tf", update_after_step=1)

    @staticmethod
    def _named(parameters: Iterable[Any]) -> dict[str, Any]:
        return {str(k): parameter for k, parameter in enumerate(parameters)}

    @property
    def optimization_step(self) -> int:
        return self._ema.num_steps

    @property
    def shadow_params(self) -> list[Any]:
        averages = self._ema.ema
        return [averages[name] for name in sorted(averages, key=int)]  # a file has them by name

    def step(self, parameters: Iterable[Any]) -> None:
        self._ema.update(self._named(parameters))

    def save_pretrained(self, path: Any) -> None:
        model_cls, config = self._model
        model = model_cls.from_config(config)
        model.register_to_config(decay=self.decay)
        self._ema.copy_to(self._named(model.parameters()))
        model.save_pretrained(path)
        self._ema.save(f"{path}/ema.safetensors")

    @classmethod
    def from_pretrained(cls, path: Any, model_cls: Any, foreach: bool = False) -> EMAModel:
        model = model_cls.from_pretrained(path)
        made = cls(model.parameters(), model.config["decay"], model_cls, model.config, foreach)
        made._ema = ParameterEMA.load(f"{path}/ema.safetensors")
        return made

    def to(self, device: Any) -> None:
        """Averages live where their parameters do."""


CANNOT = {
    "test_zero_decay": "compares a list with itself; what was read before an update stays here as it was"
}
FOUND = their_tests(
    "diffusers/tests/others/test_ema.py",
    {
        "diffusers": module("diffusers", UNet2DConditionModel=UNet),
        "diffusers.training_utils": module("diffusers.training_utils", EMAModel=EMAModel),
        "theirs.testing_utils": module(
            "theirs.testing_utils",
            enable_full_determinism=lambda: None,
            skip_mps=lambda test: test,
            torch_device="cpu",
        ),
        "theirs.others": module("theirs.others"),
        "theirs": module("theirs", __path__=[]),
    },
    CANNOT,
    name="theirs.others.test_ema",
)
globals().update({name: value for name, value in FOUND.items() if name.startswith("Test")})
