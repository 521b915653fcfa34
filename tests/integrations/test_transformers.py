"""The transformers callback, with the real library: evaluate, save, resume bit for bit."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from ema_cli.errors import OptionError, StateError

torch = pytest.importorskip("torch", reason="torch is optional, and 200 MB")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the library's own
    transformers = pytest.importorskip("transformers", reason="transformers is of the extra [transformers]")
    pytest.importorskip("accelerate", reason="accelerate is of the extra [transformers]")

from ema_cli.integrations.transformers import EMACallback  # noqa: E402 (after the check)

pytestmark = pytest.mark.filterwarnings("ignore")


def model() -> Any:
    config = transformers.BertConfig(
        vocab_size=32, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    torch.manual_seed(0)
    return transformers.BertForSequenceClassification(config)


def data() -> list[dict[str, Any]]:
    torch.manual_seed(1)
    return [{"input_ids": torch.randint(32, (6,)), "labels": torch.tensor(k % 2)} for k in range(32)]


class Watching(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
    """What an evaluation sees in the model, and what is in it after each step."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.trained: list[Any] = []

    def on_prediction_step(self, *_: Any, model: Any, **__: Any) -> None:
        self.seen.append(model.classifier.weight.detach().clone())

    def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
        self.trained.append(model.classifier.weight.detach().clone())


def trainer(folder: Path, callbacks: list[Any], **options: Any) -> Any:
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        **{
            "max_steps": 8,
            "per_device_train_batch_size": 4,
            "eval_strategy": "steps",
            "eval_steps": 4,
            "save_strategy": "steps",
            "save_steps": 4,
            "learning_rate": 0.01,
            "report_to": [],
            "use_cpu": True,
            "disable_tqdm": True,
            **options,
        },
    )
    return transformers.Trainer(
        model(), arguments, train_dataset=data(), eval_dataset=data(), callbacks=callbacks
    )


def test_updates_after_each_step_and_evaluates_with_the_averages(tmp_path: Path) -> None:
    callback, watching = EMACallback(decay=0.9), Watching()
    run = trainer(tmp_path, [callback, watching])
    run.train()
    assert callback.ema is not None
    assert callback.ema.num_updates == 8
    plain = watching.trained[0].double()
    for weight in [*watching.trained[1:], run.model.classifier.weight.detach()]:
        plain = plain + 0.1 * (weight.double() - plain)
    averaged = callback.ema.ema["classifier.weight"]
    torch.testing.assert_close(averaged.double(), plain, rtol=1e-6, atol=1e-7)
    assert torch.equal(watching.seen[-1], averaged)
    assert not torch.equal(run.model.classifier.weight, averaged)
    # The checkpoint has both.
    there = tmp_path / "checkpoint-8"
    kind = transformers.BertForSequenceClassification
    assert torch.equal(kind.from_pretrained(there / "averaged").classifier.weight, averaged)
    assert torch.equal(kind.from_pretrained(there).classifier.weight, run.model.classifier.weight)


def test_resumed_it_is_the_same_run_bit_for_bit(tmp_path: Path) -> None:
    whole = EMACallback(decay=0.9, warmup="tf")
    trainer(tmp_path / "whole", [whole]).train()
    again = EMACallback(decay=0.9, warmup="tf")
    trainer(tmp_path / "whole", [again]).train(
        resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4")
    )
    elsewhere = EMACallback(decay=0.9, warmup="tf", resume=tmp_path / "whole" / "checkpoint-4")
    trainer(tmp_path / "other", [elsewhere]).train(
        resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4")
    )
    for callback in (again, elsewhere):
        assert callback.ema is not None
        assert whole.ema is not None
        assert callback.ema.num_updates == 8
        for name, value in whole.ema.state_dict()["averages"].items():
            assert torch.equal(value, callback.ema.state_dict()["averages"][name]), name
    with pytest.raises(StateError, match=r"no ema\.safetensors"):
        trainer(tmp_path / "third", [EMACallback(decay=0.9)]).train(
            resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4")
        )
    with pytest.raises(StateError, match="warmup"):
        trainer(tmp_path / "whole", [EMACallback(decay=0.9)]).train(
            resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4")
        )


def test_the_best_model_brings_its_averages(tmp_path: Path) -> None:
    callback, watching = EMACallback(decay=0.9), Watching()
    options = {
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "gradient_accumulation_steps": 2,
    }
    run = trainer(tmp_path, [callback, watching], **options)
    run.train()
    best = Path(run.state.best_model_checkpoint)
    assert callback.ema is not None
    assert callback.ema.num_updates == int(best.name.partition("-")[2])
    kind = transformers.BertForSequenceClassification
    averaged = kind.from_pretrained(best / "averaged").classifier.weight
    assert torch.equal(averaged, callback.ema.ema["classifier.weight"])


def test_a_run_after_one_whose_evaluation_failed_begins_with_the_parameters(tmp_path: Path) -> None:
    class Failing(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
        def on_prediction_step(self, *_: Any, **__: Any) -> None:
            raise RuntimeError("on purpose")

    callback, watching = EMACallback(decay=0.9), Watching()
    run = trainer(tmp_path, [callback, watching, Failing()])
    with pytest.raises(RuntimeError, match="on purpose"):
        run.train()
    run.remove_callback(Failing)
    run.train()
    assert len(watching.trained) == 4 + 8
    assert not torch.equal(watching.trained[4], watching.seen[0])


def test_options_are_checked_before_the_run() -> None:
    with pytest.raises(OptionError, match="no option 'deacy'"):
        EMACallback(deacy=0.9)
