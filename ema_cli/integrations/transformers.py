"""Averages of the parameters in a transformers run: `Trainer(callbacks=[EMACallback(decay=0.999)])`.

Needs transformers and accelerate: the extra [transformers].
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from ema_cli.errors import StateError
from ema_cli.parameters.ema import ParameterEMA

_FILE = "ema.safetensors"
_MODEL = "averaged"


class EMACallback(TrainerCallback):  # type: ignore[misc]
    """Average after each optimiser step; evaluate with the averages, and save them in each checkpoint.

    A checkpoint folder gets `ema.safetensors`, from which `resume_from_checkpoint=` carries the run on bit
    for bit, and `averaged/`, a model of the averages for `from_pretrained`; its `model.safetensors` holds
    the parameters as they are. Put it after callbacks of your own that ask for an evaluation.

    Parameters
    ----------
    evaluate : bool
        The evaluations of a training run see the averages. For others: `with
        callback.ema.average_parameters():`.
    save : bool
        Write `averaged/` into checkpoints.
    resume : str or path, optional
        The checkpoint folder that a run is resumed from, where it does not lie in the run's own output
        folder.
    **options
        Those of `ParameterEMA`: decay, warmup, params, …

    Attributes
    ----------
    ema : ParameterEMA or None
        The averages, once a run has begun; `ema.module()` is a model of them. With `load_best_model_at_end`
        those of the best checkpoint, in the end.

    Raises
    ------
    OptionError
        For options that make no sense; StateError on resuming from a run with other ones, or without
        averages.
    """

    def __init__(
        self,
        *,
        evaluate: bool = True,
        save: bool = True,
        resume: str | Path | None = None,
        **options: Any,
    ) -> None:
        ParameterEMA.check(**options)
        self.ema: ParameterEMA | None = None
        self._options = options
        self._evaluate = evaluate
        self._save = save
        self._resume = resume
        self._block = contextlib.ExitStack()

    def on_train_begin(self, args: Any, state: Any, control: Any, *, model: Any, **_: Any) -> None:
        """Begin, or carry on where the run is resumed."""
        self._block.close()  # of a run whose evaluation failed
        self.ema = ParameterEMA(model, **self._options)
        if state.global_step:
            folder = Path(self._resume or _folder(args, state))
            if not (folder / _FILE).exists():
                raise StateError(
                    f"there is no {_FILE} in {folder}, from which the average could go on",
                    "EMACallback(resume='…/checkpoint-500', …), the folder that the run is resumed from",
                )
            self._load(folder)

    def _load(self, folder: Path) -> None:
        from ema_cli.parameters.saved import read_state

        assert self.ema is not None  # made before
        self.ema.load_state_dict(read_state(folder / _FILE))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Average after each step."""
        assert self.ema is not None  # on_train_begin made it
        self.ema.update()
        self._enter(control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """An evaluation may follow."""
        self._enter(control)

    def _enter(self, control: Any) -> None:
        # Nothing says that an evaluation begins; that one will is decided at the end of a step or epoch.
        if self._evaluate and control.should_evaluate and self.ema is not None:
            self._block.enter_context(self.ema.average_parameters())

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The evaluation is over: training goes on with the parameters."""
        self._block.close()

    def on_save(self, args: Any, state: Any, control: Any, *, model: Any, **_: Any) -> None:
        """Put the averages into the checkpoint's folder."""
        assert self.ema is not None  # on_train_begin made it
        folder = _folder(args, state)
        if not args.should_save:
            return
        self.ema.save(folder / _FILE)
        if self._save and not self.ema.several and hasattr(model, "save_pretrained"):
            with self.ema.average_parameters():
                model.save_pretrained(folder / _MODEL)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Where the best model has been loaded, take its averages too."""
        self._block.close()
        best = state.best_model_checkpoint
        if args.load_best_model_at_end and best is not None and (Path(best) / _FILE).exists():
            self._load(Path(best))


def _folder(args: Any, state: Any) -> Path:
    """The folder of the checkpoint of this step."""
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"
