"""`ParameterEMA`: the exponential moving average of a model's parameters, kept while it trains."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np

from ema_cli.errors import DataError, StateError
from ema_cli.parameters.saved import DEFAULTS, VERSION, check_options, checked_state, read_state, write_state
from ema_cli.parameters.schedule import Warmup, make_schedule
from ema_cli.parameters.tensors import (
    Array,
    Leaf,
    all_finite,
    as_array,
    as_float64,
    backed_up,
    check_same,
    check_writable,
    fold_in,
    is_averaged,
    is_tensor,
    named_leaves,
    put_back,
    rounded,
    some_of,
    to_tensor,
    write_into,
)


class ParameterEMA:
    """The exponential moving average of named parameters.

    params: mapping of names to NumPy arrays, anything `np.asarray` takes, or torch tensors; nested mappings
    are flattened, their names joined by dots. Any shapes; floats of any width (bfloat16 too) are averaged
    in float64, integers and bools are copied from the newest update. `params` itself is not kept.

    decay: weight of the old average, 0 to 1; or alpha: weight of the new values, 1 − decay.
    init: "params", the average starts as the parameters are now, or "zeros".
    bias_correction: with "zeros", divide by the weight given out so far (Kingma and Ba, "Adam", 2015,
    section 3), so that the zeros leave no trace; with a ramp that is 1 − Π decays, not 1 − decay^n.
    warmup: None, "tf", "power", "exp" (`ema_cli.parameters.schedule` has the formulas and sources), or a
    function from the number of updates made so far to the decay of the next; a decay given besides is its
    upper limit.
    update_every: only every so manyeth call of `update` counts.
    update_after_step: up to and with this call the average is a copy of the parameters (from zeros without
    correction: stays zero), then averaging begins.
    on_nonfinite: what a NaN or infinity does: "error", "skip" (that update is left out) or "propagate".

    One step is `average += alpha · (parameters − average)`.

    Raises OptionError for options out of range or at odds, DataError for parameters that are no numbers;
    both are ValueErrors.
    """

    def __init__(  # noqa: PLR0913 (the public keywords, all of the spec)
        self,
        params: Mapping[str, Any],
        *,
        decay: float | None = None,
        alpha: float | None = None,
        init: str = "params",
        bias_correction: bool = False,
        warmup: Warmup = None,
        update_every: int = 1,
        update_after_step: int = 0,
        on_nonfinite: str = "error",
    ) -> None:
        self._schedule = make_schedule(
            decay=decay,
            alpha=alpha,
            init=init,
            bias_correction=bias_correction,
            warmup=warmup,
            update_every=update_every,
            update_after_step=update_after_step,
            on_nonfinite=on_nonfinite,
        )
        self._steps = 0
        self._updates = 0
        # The sum of the weights given to real parameters: below 1 while zeros still have some.
        self._weight = 1.0 if init == "params" else 0.0
        self._decay: float | None = None
        leaves = named_leaves(params)
        self._infos = {name: leaf.info for name, leaf in leaves.items()}
        self._tensors = {name for name, leaf in leaves.items() if is_tensor(leaf.value)}
        self._averages: dict[str, Array] = {}
        if self._refuse_nonfinite(leaves) and on_nonfinite == "skip":
            raise DataError("the first parameters hold NaN or infinity: there is nothing to start from")
        for name, leaf in leaves.items():
            self._averages[name] = self._first(leaf)

    def _first(self, leaf: Leaf) -> Array:
        if not is_averaged(leaf.info.dtype):
            return np.array(as_array(leaf.value))
        if self._from_zeros:
            return np.zeros(leaf.info.shape)
        return np.array(as_float64(leaf.value))

    @property
    def _from_zeros(self) -> bool:
        """True if the zeros show. Corrected, the average before its first update is the parameters."""
        return self._schedule.init == "zeros" and not self._schedule.bias_correction

    @property
    def num_updates(self) -> int:
        """How many updates have been averaged in."""
        return self._updates

    @property
    def num_steps(self) -> int:
        """How many times `update` has been called, whether the call counted or not."""
        return self._steps

    @property
    def decay(self) -> float:
        """The decay that the latest update used; before the first, the one that it will use."""
        return self._schedule.weights(0)[0] if self._decay is None else self._decay

    @property
    def ema(self) -> dict[str, Any]:
        """The averages by (flattened) name: new arrays in the parameters' dtypes, each value rounded once.

        Tensors on the CPU for parameters that are torch tensors, so that `load_state_dict` takes them.
        """
        return {name: self._present(name) for name in self._averages}

    def _present(self, name: str) -> Any:
        dtype = self._infos[name].dtype
        values = rounded(self._averages[name], dtype)
        return to_tensor(values, dtype.name) if name in self._tensors else values

    def update(self, params: Mapping[str, Any]) -> None:
        """Average in the parameters as they are after an optimiser step.

        Same names and shapes as at the start, or DataError; a NaN or infinity as `on_nonfinite` says.
        Everything is checked before anything changes: after an error the state is what it was.
        """
        leaves = named_leaves(params)
        check_same(leaves, self._infos)
        step = self._steps + 1
        if step % self._schedule.update_every:
            self._steps = step
            return
        weights = self._schedule.weights(self._updates)
        left_out = self._refuse_nonfinite(leaves) and self._schedule.on_nonfinite == "skip"
        self._steps = step
        if left_out:
            return
        if step <= self._schedule.update_after_step:
            self._fold(leaves, 0.0 if self._from_zeros else 1.0)
            return
        self._fold(leaves, self._gain(*weights))
        self._updates += 1
        self._decay = weights[0]

    def _gain(self, decay: float, alpha: float) -> float:
        """The new values' share in the average, which with bias correction is alpha / (weight so far)."""
        if not self._schedule.bias_correction:
            return alpha
        self._weight = decay * self._weight + alpha
        return alpha / self._weight if self._weight > 0.0 else 0.0

    def _fold(self, leaves: Mapping[str, Leaf], gain: float) -> None:
        for name, average in self._averages.items():
            value = leaves[name].value
            if is_averaged(self._infos[name].dtype):
                fold_in(average, as_float64(value), gain)
            else:
                average[...] = as_array(value)
        self._tensors = {name for name, leaf in leaves.items() if is_tensor(leaf.value)}

    def _refuse_nonfinite(self, leaves: Mapping[str, Leaf]) -> bool:
        """True if a value is not finite; raises DataError where that is an error."""
        if self._schedule.on_nonfinite == "propagate":
            return False
        bad = [name for name, leaf in leaves.items() if not all_finite(leaf.value)]
        if bad and self._schedule.on_nonfinite == "error":
            raise DataError(
                f"NaN or infinity in {some_of(bad)}; it would stay in the average for ever",
                hint="on_nonfinite='skip' leaves such an update out",
            )
        return bool(bad)

    def copy_to(self, params: Mapping[str, Any]) -> None:
        """Overwrite `params` with the averages: arrays and tensors in place, other leaves in their mapping.

        Raises DataError, before anything changes, where names or shapes differ or a leaf can't be written.
        """
        for name, leaf in self._targets(params).items():
            write_into(leaf, self._averages[name])

    def _targets(self, params: Mapping[str, Any]) -> dict[str, Leaf]:
        leaves = named_leaves(params)
        check_same(leaves, self._infos)
        for leaf in leaves.values():
            check_writable(leaf)
        return leaves

    @contextlib.contextmanager
    def average_parameters(self, params: Mapping[str, Any]) -> Iterator[None]:
        """Within the block `params` holds the averages; after it the originals are back, whatever happened.

        Written where `copy_to` writes; raises what it raises.
        """
        leaves = self._targets(params)
        backups = {name: backed_up(leaf) for name, leaf in leaves.items()}
        try:
            for name, leaf in leaves.items():
                write_into(leaf, self._averages[name])
            yield
        finally:
            for name, leaf in leaves.items():
                put_back(leaf, backups[name])

    def state_dict(self) -> dict[str, Any]:
        """All that resuming needs, as copies: averages in float64, counters, the weight, the options.

        Plain numbers, text and arrays (tensors where the parameters are tensors, so that
        `torch.load(weights_only=True)` reads them back).
        """
        averages = {
            name: to_tensor(array, array.dtype.name) if name in self._tensors else array.copy()
            for name, array in self._averages.items()
        }
        return {**self._particulars(), "averages": averages}

    def _particulars(self) -> dict[str, Any]:
        """The state without the averages."""
        return {
            "version": VERSION,
            "options": self._schedule.signature(),
            "num_steps": self._steps,
            "num_updates": self._updates,
            "weight": self._weight,
            "decay": self._decay,
            "dtypes": {name: info.dtype.name for name, info in self._infos.items()},
            "tensors": sorted(self._tensors),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Carry on from `state_dict()`: copies it, so that what follows is bit for bit what would have.

        Raises StateError, before anything changes, where options, names, shapes or dtypes differ from this
        object's, or the averages are no longer float64.
        """
        new = checked_state(state)
        check_options(new, self._schedule.signature())
        leaves = named_leaves(new["averages"])
        try:
            check_same(leaves, self._infos)
        except DataError as error:
            raise StateError(f"the state is of another model: {error.problem}") from error
        self._averages = {name: np.array(as_array(leaves[name].value)) for name in self._infos}
        self._steps, self._updates = new["num_steps"], new["num_updates"]
        self._weight, self._decay = new["weight"], new["decay"]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state to one .safetensors or .npz file, atomically. Raises FileTrouble."""
        # Not state_dict(): it would copy every average only to have it written.
        write_state(path, {**self._particulars(), "averages": self._averages})

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, warmup: Warmup = None) -> ParameterEMA:
        """The object that `save` wrote. warmup: the function again, where it was one (it is not in the file).

        Raises FileTrouble or StateError where the file can't be read or is no such state.
        """
        state = read_state(path)
        options = DEFAULTS | dict(state["options"])
        if options["warmup"] == "callable":
            if not callable(warmup):
                raise StateError(
                    "this average was warmed up by a function", "load(path, warmup=the_function)"
                )
            options["warmup"] = warmup
        new = cls.__new__(cls)  # without parameters to start from: the state is all there is
        new._schedule = make_schedule(decay=None, **options)
        new._infos = state["infos"]
        new._tensors = set(state["tensors"]) if find_spec("torch") else set()
        new.load_state_dict(state)
        return new
