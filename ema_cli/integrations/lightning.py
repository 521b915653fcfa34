"""Averages of the parameters in a Lightning run: `Trainer(callbacks=[EMACallback(decay=0.999)])`.

Needs Lightning (`lightning`, or `pytorch_lightning` by itself): the extra [lightning].
"""

from __future__ import annotations

import contextlib
from typing import Any

from ema_cli.parameters.ema import ParameterEMA

try:
    from lightning.pytorch.callbacks import Callback
except ImportError:  # the older distribution of the same
    from pytorch_lightning.callbacks import Callback


class EMACallback(Callback):  # type: ignore[misc]
    """Average after each optimiser step; validate, test and predict with the averages.

    A checkpoint holds the parameters as they are, so that `ckpt_path=` carries the run on bit for bit,
    beside them the averages in full precision, as this callback's state, and the model of the averages,
    rounded, as `checkpoint["averaged_state_dict"]`.

    Parameters
    ----------
    evaluate : bool
        Validate, test and predict with the averages. Else with the parameters.
    save : bool
        Put the model of the averages into checkpoints.
    **options
        Those of `ParameterEMA`: decay, warmup, params, …

    Attributes
    ----------
    ema : ParameterEMA or None
        The averages, once a run has begun; `ema.module()` is a model of them.

    Raises
    ------
    OptionError
        For options that make no sense; StateError on resuming from a run with other ones.
    """

    def __init__(self, *, evaluate: bool = True, save: bool = True, **options: Any) -> None:
        super().__init__()
        ParameterEMA.check(**options)
        self.ema: ParameterEMA | None = None
        self._options = options
        self._evaluate = evaluate
        self._save = save
        self._resumed: dict[str, Any] | None = None
        self._steps = 0
        self._block = contextlib.ExitStack()

    def _begin(self, model: Any) -> ParameterEMA:
        """The averages of this run: those that were saved, or new ones."""
        if self.ema is None or self._resumed is not None:
            self.ema = ParameterEMA(model, **self._options)
            if self._resumed is not None:
                self.ema.load_state_dict(self._resumed)
                self._resumed = None
        return self.ema

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin, or carry on, where the model is on its device and its checkpoint is loaded."""
        self._begin(pl_module)
        self._steps = trainer.global_step

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Average where the batch ended with a step; while gradients are gathered it does not."""
        if trainer.global_step != self._steps and self.ema is not None:
            self._steps = trainer.global_step
            self.ema.update()

    def _enter(self, trainer: Any, model: Any) -> None:
        if self._evaluate and not (trainer.state.fn != "fit" and self.ema is None and self._resumed is None):
            self._block.enter_context(self._begin(model).average_parameters())

    def _leave(self, *_: Any) -> None:
        self._block.close()

    # The averages are in the model from the start of each evaluation to its end, also where it fails.
    on_validation_start = on_test_start = on_predict_start = _enter
    on_validation_end = on_test_end = on_predict_end = on_exception = _leave

    def state_dict(self) -> dict[str, Any]:
        """For Lightning's checkpoint."""
        return {} if self.ema is None else self.ema.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From Lightning's checkpoint; the model is not there yet."""
        self._resumed = state_dict or None

    def on_save_checkpoint(self, _: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Put the model of the averages beside the parameters."""
        if self._save and self.ema is not None:
            labels = self.ema.ema if self.ema.several else {None: self.ema.ema}
            models = {label: {**pl_module.state_dict(), **averages} for label, averages in labels.items()}
            checkpoint["averaged_state_dict"] = models if self.ema.several else models[None]
