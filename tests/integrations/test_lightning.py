"""The Lightning callback, with the real library: evaluate, save, resume bit for bit."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from ema_cli.errors import OptionError, StateError
from ema_cli.parameters.ema import ParameterEMA

torch = pytest.importorskip("torch", reason="torch is optional, and 200 MB")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the library's own
    lightning = pytest.importorskip("lightning.pytorch", reason="Lightning is of the extra [lightning]")

from ema_cli.integrations.lightning import EMACallback  # noqa: E402 (after the check)

pytestmark = pytest.mark.filterwarnings("ignore")


class Model(lightning.LightningModule):  # type: ignore[misc, name-defined]
    """Follows its parameters by hand, as one would write it, in `plain`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1))
        self.seen: list[Any] = []
        self.trained: list[Any] = []

    def training_step(self, batch: Any, _: int) -> Any:
        self.trained.append(self.net[0].weight.detach().clone())
        return self.net(batch).square().mean()

    def validation_step(self, batch: Any, _: int) -> None:
        self.seen.append(self.net[0].weight.detach().clone())
        self.log("loss", self.net(batch).square().mean())

    test_step = validation_step

    def predict_step(self, batch: Any, _: int) -> Any:
        self.seen.append(self.net[0].weight.detach().clone())
        return self.net(batch)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def data() -> Any:
    torch.manual_seed(1)
    return torch.utils.data.DataLoader(torch.randn(24, 4), batch_size=4)


def trainer(folder: Path, callback: Any, **options: Any) -> Any:
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
    }
    saving = lightning.callbacks.ModelCheckpoint(folder, save_top_k=-1, every_n_epochs=1)
    options = {"max_epochs": 2, "callbacks": [callback, saving], **quiet, **options}
    return lightning.Trainer(default_root_dir=folder, **options)


def test_updates_after_each_step_and_validates_with_the_averages(tmp_path: Path) -> None:
    model, callback = Model(), EMACallback(decay=0.9)
    trainer(tmp_path, callback).fit(model, data(), data())
    assert callback.ema is not None
    assert callback.ema.num_updates == 12
    plain = model.trained[0].double()
    for weight in [*model.trained[1:], model.net[0].weight.detach()]:
        plain = plain + 0.1 * (weight.double() - plain)
    torch.testing.assert_close(callback.ema.ema["net.0.weight"].double(), plain, rtol=1e-6, atol=1e-7)
    assert torch.equal(model.seen[-1], callback.ema.ema["net.0.weight"])
    assert not torch.equal(model.net[0].weight, model.seen[-1])
    assert torch.equal(callback.ema.module().net[0].weight, model.seen[-1])


def test_steps_that_gather_gradients_are_no_updates(tmp_path: Path) -> None:
    callback = EMACallback(decay=0.9, evaluate=False)
    model = Model()
    trainer(tmp_path, callback, accumulate_grad_batches=3).fit(model, data(), data())
    assert callback.ema is not None
    assert callback.ema.num_updates == 4
    assert torch.equal(model.seen[-1], model.net[0].weight)


def test_resumed_it_is_the_same_run_bit_for_bit(tmp_path: Path) -> None:
    whole = EMACallback(decay=0.9, warmup="tf")
    trainer(tmp_path / "whole", whole).fit(Model(), data(), data())
    trainer(tmp_path / "part", EMACallback(decay=0.9, warmup="tf"), max_epochs=1).fit(Model(), data(), data())
    (saved,) = (tmp_path / "part").glob("*.ckpt")
    again = EMACallback(decay=0.9, warmup="tf")
    model = Model()
    trainer(tmp_path / "again", again).fit(model, data(), data(), ckpt_path=str(saved), weights_only=True)
    assert whole.ema is not None
    assert again.ema is not None
    assert again.ema.num_updates == whole.ema.num_updates == 12
    for name, value in whole.ema.state_dict()["averages"].items():
        assert torch.equal(value, again.ema.state_dict()["averages"][name]), name
    with pytest.raises(StateError, match="alpha"):
        trainer(tmp_path, EMACallback(decay=0.5)).fit(Model(), data(), ckpt_path=str(saved))


def test_a_checkpoint_holds_parameters_and_averages(tmp_path: Path) -> None:
    model, callback = Model(), EMACallback(decay=0.9)
    run = trainer(tmp_path, callback)
    run.fit(model, data(), data())
    saved = torch.load(sorted(tmp_path.glob("*.ckpt"))[-1], weights_only=True)
    assert callback.ema is not None
    assert torch.equal(saved["state_dict"]["net.0.weight"], model.net[0].weight)
    other = Model()
    other.load_state_dict(saved["averaged_state_dict"])
    assert torch.equal(other.net[0].weight, callback.ema.ema["net.0.weight"])
    # From the checkpoint alone, in another process as it were: test and predict with the averages.
    fresh, loaded = Model(), EMACallback(decay=0.9)
    tester = trainer(tmp_path, loaded)
    tester.test(fresh, data(), ckpt_path=str(sorted(tmp_path.glob("*.ckpt"))[-1]), verbose=False)
    assert torch.equal(fresh.seen[-1], other.net[0].weight)
    tester.predict(fresh, data())
    assert torch.equal(fresh.seen[-1], other.net[0].weight)
    assert torch.equal(fresh.net[0].weight, model.net[0].weight)


def test_after_a_validation_that_fails_the_parameters_are_back(tmp_path: Path) -> None:
    class Failing(Model):
        def validation_step(self, batch: Any, number: int) -> None:
            super().validation_step(batch, number)
            if self.trainer.current_epoch == 1 and not self.trainer.sanity_checking:
                raise RuntimeError("on purpose")

    model, callback = Failing(), EMACallback(decay=0.9)
    with pytest.raises(RuntimeError, match="on purpose"):
        trainer(tmp_path, callback).fit(model, data(), data())
    assert not torch.equal(model.net[0].weight, model.seen[-1])
    assert isinstance(callback.ema, ParameterEMA)
    assert torch.equal(callback.ema.ema["net.0.weight"], model.seen[-1])


def test_options_are_checked_before_the_run() -> None:
    with pytest.raises(OptionError, match="no option 'deacy'"):
        EMACallback(deacy=0.9)
    with pytest.raises(OptionError, match="not one of copy, average"):
        EMACallback(decay=0.9, buffers="keep")
    EMACallback(decay=0.9, buffers="average", params="trainable", device="cpu")
