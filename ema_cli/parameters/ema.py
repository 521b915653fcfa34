"""`ParameterEMA`: the exponential moving average of a model's parameters, kept while it trains."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ema_cli.errors import DataError, OptionError, StateError
from ema_cli.parameters.leaves import (
    AVERAGED,
    CARRIED,
    COPIED,
    Choice,
    Leaf,
    check_same,
    names_below,
    ties,
)
from ema_cli.parameters.numpy_store import NumpyStore
from ema_cli.parameters.power import Snapshot
from ema_cli.parameters.saved import (
    VERSION,
    check_options,
    check_precision,
    checked_state,
    key_of,
    matching_parts,
    parts_of,
    read_state,
    write_state,
    write_values,
)
from ema_cli.parameters.schedule import FAMILIES, Warmup, choice, make_schedule, refuse_unknown
from ema_cli.parameters.swap import Swap
from ema_cli.parameters.tensors import is_tensor, some_of
from ema_cli.parameters.tree import Averages, is_module, named_leaves, skeleton

_PRECISIONS = ("float64", "float32x2", "float32")
_OPTIONS = (
    *FAMILIES,
    "params",
    "buffers",
    "dtype",
    "device",
    "init",
    "bias_correction",
    "warmup",
    "update_every",
    "update_after_step",
    "on_nonfinite",
)


class ParameterEMA:
    """The exponential moving average of a model's parameters: `average += alpha · (new − average)`.

    Parameters
    ----------
    model : torch.nn.Module or tree of named arrays
        A module is followed: `update()` and `average_parameters()` look its tensors up by name each time. A
        tree is nested mappings, lists and tuples of NumPy arrays, whatever `np.asarray` takes, or torch
        tensors; it is handed in at each call, and its names are joined by dots. Floats are averaged,
        integers and bools copied, everything else is carried along.
    decay, alpha, halflife, span : float or list of float
        How fast the average forgets, one of them: the weight of the old average; that of the new values, 1
        − decay; the updates after which a weight is halved; 2/alpha − 1. A list keeps several averages.
    power : float or list of float
        Instead: power-function averages of these relative widths (`ema_cli.parameters.power`), for
        `snapshot`.
    params : "all", "trainable" or function
        Which parameters are averaged; a function takes (name, tensor). Everything else is left alone.
    buffers : "copy" or "average"
        A module's buffers, such as running statistics: as they were at the last update (default), or
        averaged.
    dtype : "float64", "float32x2" or "float32"
        Of the averages: float64 is the default on the CPU, float32x2 (a pair of float32, about 48 bits) on
        accelerators; begun on the CPU, that is float64, which takes as many bytes. An average is never
        narrower than its parameter.
    device : str
        Where torch averages are kept; default: where their parameters are. "cpu" spares an accelerator's
        memory.
    init : "params" or "zeros"
        What the average starts from.
    bias_correction : bool
        With "zeros", divide by the weight given out so far (Kingma and Ba, "Adam", 2015, section 3), so
        that the zeros leave no trace; with a ramp that is 1 − Π decays, not 1 − decay^n.
    warmup : "tf", "power", "exp", function or None
        A ramp of the decay (`ema_cli.parameters.schedule` has formulas and sources), or a function from the
        number of updates made so far to the decay of the next; a decay given besides is its upper limit.
    update_every, update_after_step : int
        Only every so many calls of `update` count; up to and with a call the average is a copy of the
        parameters (from zeros without correction: stays zero).
    on_nonfinite : "error", "skip" or "propagate"
        What a NaN or infinity does; "skip" leaves that update out. An infinity that is there from the
        start, as in an attention mask, is a constant and stays one.

    Raises
    ------
    OptionError
        For options out of range, at odds, by position or of no such name.
    DataError
        For parameters that can't be averaged. Both are ValueErrors.
    """

    def __init__(  # noqa: PLR0913 (the public keywords, all of the spec)
        self,
        model: Any = None,
        *positional: Any,
        decay: float | Sequence[float] | None = None,
        alpha: float | Sequence[float] | None = None,
        halflife: float | Sequence[float] | None = None,
        span: float | Sequence[float] | None = None,
        power: float | Sequence[float] | None = None,
        params: str | Callable[[str, Any], bool] | Any = "all",
        buffers: str | None = None,
        dtype: str | None = None,
        device: str | None = None,
        init: str = "params",
        bias_correction: bool = False,
        warmup: Warmup = None,
        update_every: int = 1,
        update_after_step: int = 0,
        on_nonfinite: str = "error",
        **unknown: Any,
    ) -> None:
        refuse_unknown(positional, unknown, _OPTIONS)
        if model is None and not isinstance(params, str):
            model, params = params, "all"  # `params` was once the name of the first argument
        self._schedule = make_schedule(
            {"decay": decay, "alpha": alpha, "halflife": halflife, "span": span, "power": power},
            init=init,
            bias_correction=bias_correction,
            warmup=warmup,
            update_every=update_every,
            update_after_step=update_after_step,
            on_nonfinite=on_nonfinite,
        )
        self._choice = _choice_of(model, params, buffers)
        self._reset(dtype, device)
        self._start(model)

    @classmethod
    def check(cls, **options: Any) -> None:
        """Raise OptionError for options that make no sense, before there is a model."""
        of_modules = {"params": options.pop("params", "all"), "buffers": options.pop("buffers", None)}
        if not callable(of_modules["params"]):
            choice("params", of_modules["params"], ("all", "trainable"))
        if of_modules["buffers"] is not None:
            choice("buffers", of_modules["buffers"], ("copy", "average"))
        cls({"w": 0.0}, **options)

    def _reset(self, dtype: Any, device: Any) -> None:
        """As it is before there are any parameters."""
        self._dtype = _precision(dtype)
        self._device = None if device is None else str(device)
        self._model: Any = None
        self._steps = 0
        self._updates = 0
        count = len(self._schedule.labels)
        # The sum of the weights given to real parameters: below 1 while zeros still have some.
        self._weights = [1.0 if self._schedule.init == "params" else 0.0] * count
        self._decays: list[float] | None = None
        self._leaves: dict[str, Leaf] = {}
        self._ties: dict[str, str] = {}
        self._left_out: set[str] = set()
        self._carried: dict[str, Any] = {}
        self._stores: dict[str, Any] = {}
        self._homes: dict[str, str] = {}
        self._skeleton: Any = {}
        self._inside = 0

    def _start(self, model: Any) -> None:
        found = named_leaves(model)
        self._ties = ties(found)
        for name, leaf in found.items():
            if name in self._ties:
                continue
            if self._choice.wants(leaf):
                self._leaves[name] = self._choice.kinded(leaf)
            else:
                self._left_out.add(name)
        if not any(leaf.kind == AVERAGED for leaf in self._leaves.values()):
            raise DataError(_nothing(found), hint="dict(model.named_parameters()), or params='all'")
        if is_module(model):
            from ema_cli.parameters.modules import unwrapped, warn_of_complex

            self._model = unwrapped(model)
            warn_of_complex(self._leaves)
        self._skeleton = skeleton(model)
        self._begin(self._leaves, zeros=self._from_zeros)

    def _begin(self, leaves: Mapping[str, Leaf], *, zeros: bool) -> None:
        """Begin averages with the leaves as they are. Raises DataError before anything changes."""
        spreading = self._schedule.on_nonfinite == "propagate"
        bad = [] if spreading else [name for name, leaf in leaves.items() if _holds_nan(leaf)]
        if bad:
            raise DataError(
                f"the first parameters hold NaN, in {some_of(bad)}: there is nothing to start from"
            )
        for name, leaf in leaves.items():
            if leaf.kind == CARRIED:
                self._carried[name] = leaf.value
                continue
            self._homes[name] = "torch" if is_tensor(leaf.value) else "numpy"
            self._store(name).begin(leaf, zeros)
        self._forget_values()

    def _forget_values(self) -> None:
        """Keep of the leaves what they are called and shaped like, not the parameters themselves."""
        self._leaves = {n: replace(leaf, value=None, holder=None) for n, leaf in self._leaves.items()}

    def _store(self, name: str) -> Any:
        home = self._homes[name]
        if home not in self._stores:
            count, spreading = len(self._schedule.labels), self._schedule.on_nonfinite == "propagate"
            if home == "numpy":
                self._stores[home] = NumpyStore(self._dtype or "float64", count, spreading)
            else:
                from ema_cli.parameters.torch_store import TorchStore

                self._stores[home] = TorchStore(self._dtype, self._device, count, spreading)
        return self._stores[home]

    def _by_store(self, leaves: Mapping[str, Leaf], kinds: Sequence[str]) -> list[tuple[Any, list[Leaf]]]:
        """Each store with those of its leaves that are of these kinds."""
        found: dict[str, list[Leaf]] = {}
        for name, leaf in leaves.items():
            if leaf.kind in kinds:
                found.setdefault(self._homes[name], []).append(leaf)
        return [(self._stores[home], some) for home, some in found.items()]

    @property
    def _from_zeros(self) -> bool:
        """True if the zeros show. Corrected, the average before its first update is the parameters."""
        return self._schedule.init == "zeros" and not self._schedule.bias_correction

    @property
    def several(self) -> bool:
        """True where more than one average is kept."""
        return len(self._schedule.labels) > 1

    @property
    def num_updates(self) -> int:
        """How many updates have been averaged in."""
        return self._updates

    @property
    def num_steps(self) -> int:
        """How many times `update` has been called, whether the call counted or not."""
        return self._steps

    @property
    def decay(self) -> Any:
        """The decay that the latest update used; before the first, the one that it will use.

        A list where several averages are kept. Set it to go on with another decay from the next update on.
        """
        decays = self._decays or [decay for decay, _ in self._schedule.weights(self._updates)]
        return decays[0] if len(decays) == 1 else list(decays)

    @decay.setter
    def decay(self, decay: float | Sequence[float]) -> None:
        self._schedule = self._schedule.with_decays(decay)
        self._decays = None

    # Averaging

    def update(self, params: Any = None) -> None:
        """Average in the parameters as they are after an optimiser step.

        Parameters
        ----------
        params : tree or module, optional
            Where the parameters are; none for the module that is followed.

        Raises
        ------
        DataError
            Where names or shapes are not those of the start, or there is a NaN or infinity (`on_nonfinite`).
            Everything is checked before anything changes: after an error the state is what it was.
        StateError
            Inside `average_parameters`, where the parameters are the averages.
        """
        if self._inside:
            raise StateError(
                "the averages are in the model: averaged in, they would count as parameters",
                "update after the block of average_parameters()",
            )
        leaves = self._lookup(self._given(params))
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
            self._fold(leaves, [0.0 if self._from_zeros else 1.0] * len(weights))
            return
        self._fold(leaves, self._gains(weights))
        self._updates += 1
        self._decays = [decay for decay, _ in weights]

    def _given(self, params: Any) -> Any:
        if params is not None:
            return params
        if self._model is None:
            raise OptionError(
                "there is no module to look the parameters up in: hand them in",
                "update(params), or ParameterEMA(model, …) with a torch module",
            )
        return self._model

    def _lookup(self, model: Any) -> dict[str, Leaf]:
        """The leaves that are averaged, as they are now, checked against those of the start."""
        found = named_leaves(model)
        tied = ties(found)
        picked: dict[str, Leaf] = {}
        for name, leaf in found.items():
            if name in self._leaves:
                picked[name] = self._as_before(leaf)
            elif name in self._ties:
                self._check_tie(name, tied)
            elif name not in self._left_out and self._choice.wants(leaf):
                picked[name] = leaf
            else:
                self._left_out.add(name)
        # One that has become tied to another is still averaged by its own name, with equal values.
        check_same(picked, self._leaves)
        return {name: picked[name] for name in self._leaves}

    def _as_before(self, leaf: Leaf) -> Leaf:
        """The leaf in the kind that it had: a state dict does not say which of its floats are buffers."""
        before = self._leaves[leaf.name]
        if before.kind == COPIED and leaf.kind == AVERAGED and "float" in before.dtype:
            return replace(leaf, kind=COPIED)
        return self._choice.kinded(leaf)

    def _check_tie(self, name: str, tied: Mapping[str, str]) -> None:
        first = self._ties[name]
        if tied.get(name, name) != tied.get(first, first):
            raise DataError(
                f"parameters {name!r} and {first!r} were one tensor at the start and are two now",
                hint="model.tie_weights() or its like; ParameterEMA(copy.deepcopy(…)) begins with two",
            )

    def _gains(self, weights: Sequence[tuple[float, float]]) -> list[float]:
        """The new values' share in each average, which with bias correction is alpha / (weight so far)."""
        if not self._schedule.bias_correction:
            return [alpha for _, alpha in weights]
        for k, (decay, alpha) in enumerate(weights):
            self._weights[k] = decay * self._weights[k] + alpha
        pairs = zip(weights, self._weights, strict=True)
        return [alpha / weight if weight > 0.0 else 0.0 for (_, alpha), weight in pairs]

    def _fold(self, leaves: Mapping[str, Leaf], gains: Sequence[float]) -> None:
        for store, some in self._by_store(leaves, [AVERAGED]):
            store.fold(some, gains)
        for store, some in self._by_store(leaves, [COPIED]):
            store.copy(some)
        self._carried.update({name: leaf.value for name, leaf in leaves.items() if leaf.kind == CARRIED})

    def _refuse_nonfinite(self, leaves: Mapping[str, Leaf]) -> bool:
        """True if a value is newly not finite; raises DataError where that is an error."""
        if self._schedule.on_nonfinite == "propagate":
            return False
        bad = [name for store, some in self._by_store(leaves, [AVERAGED]) for name in store.unsound(some)]
        if bad and self._schedule.on_nonfinite == "error":
            raise DataError(
                f"NaN or infinity in {some_of(bad)}; it would stay in the average for ever",
                hint="on_nonfinite='skip' leaves such an update out",
            )
        return bool(bad)

    def follow(self, optimizer: Any) -> Any:
        """Update after each step of a torch optimizer from now on; `remove()` of what it gives ends that.

        Needs a module to look the parameters up in. A step that a gradient scaler leaves out makes no update.
        """
        self._given(None)
        inner = getattr(optimizer, "optimizer", optimizer)  # accelerate and Lightning wrap it
        if not hasattr(inner, "register_step_post_hook"):
            raise OptionError(
                f"{type(optimizer).__name__} is no torch optimizer", "ema.update() after each of its steps"
            )
        return inner.register_step_post_hook(lambda *_: self.update())

    def add(self, names: str | Sequence[str], params: Any = None) -> None:
        """Average further parameters, from their values now on: names, or what stands above them ("head").

        Raises DataError for names that the model lacks, or that are averaged already.
        """
        model = self._given(params)
        found = named_leaves(model)
        wanted = _chosen(names, list(found))
        known = [name for name in wanted if name in self._leaves or name in self._ties]
        if known:
            raise DataError(f"averaged already: {some_of(known)}")
        tied = {name: first for name, first in ties(found).items() if name in wanted}
        new = {name: self._choice.kinded(found[name]) for name in wanted if name not in tied}
        self._begin(new, zeros=False)
        self._leaves.update(new)
        self._forget_values()
        self._ties.update(tied)
        self._left_out.difference_update(wanted)
        self._skeleton = skeleton(model)

    def drop(self, names: str | Sequence[str]) -> None:
        """Average parameters no longer: names, or what stands above them. Raises DataError."""
        wanted = _chosen(names, [*self._leaves, *self._ties])
        for name in wanted:
            if name in self._leaves:
                del self._leaves[name]
                self._carried.pop(name, None)
                if name in self._homes:
                    self._store(name).drop(name)
                    del self._homes[name]
        self._ties = {
            n: first for n, first in self._ties.items() if n not in wanted and first in self._leaves
        }
        self._left_out.update(wanted)

    # Predicting with the averages

    @property
    def ema(self) -> Any:
        """The averages by name: new arrays in the parameters' dtypes, each value rounded once.

        Tensors for parameters that are tensors, where those are, so that `load_state_dict` takes them.
        Nested names also give what lies below them (`ema.ema["layer"]["w"]`), and `ema.ema.tree()` the
        parameters' own structure. Where several averages are kept: a mapping of their decays (as they were
        asked for) to such averages.
        """
        labels = self._schedule.labels
        if len(labels) == 1:
            return self._averages(0)
        return {label: self._averages(which) for which, label in enumerate(labels)}

    def _averages(self, which: int) -> Averages:
        values = {
            name: self._carried.get(name) if leaf.kind == CARRIED else self._store(name).rounded(leaf, which)
            for name, leaf in self._leaves.items()
        }
        tied = {name: values[first] for name, first in self._ties.items() if first in values}
        return Averages({**values, **tied}, self._skeleton)

    def _which(self, of: float | None) -> int:
        labels = self._schedule.labels
        if of is None and len(labels) == 1:
            return 0
        if of not in labels:
            shown = ", ".join(str(label) for label in labels)
            raise OptionError(
                f"several averages are kept: which one? {shown}"
                if of is None
                else f"there is no average {of!r}",
                f"of={labels[-1]!r}",
            )
        return labels.index(of)

    def copy_to(self, params: Any = None, *, of: float | None = None) -> None:
        """Overwrite parameters with the averages: arrays and tensors in place, other leaves where they hang.

        Parameters
        ----------
        params : tree or module, optional
            What to overwrite; none for the module that is followed.
        of : float, optional
            Which average, where several are kept.

        Raises
        ------
        DataError
            Before anything changes, where names or shapes differ or a leaf can't be written.
        """
        which = self._which(of)
        swap = Swap(self._given(params))
        self._write(swap.writable(self._targets(swap)), which)

    def _targets(self, swap: Swap) -> dict[str, Leaf]:
        leaves = self._lookup(swap.model)
        return {name: leaf for name, leaf in leaves.items() if leaf.kind != CARRIED}

    def _write(self, leaves: Mapping[str, Leaf], which: int) -> None:
        for store, some in self._by_store(leaves, [AVERAGED, COPIED]):
            store.write(some, which)

    @contextlib.contextmanager
    def average_parameters(self, params: Any = None, *, of: float | None = None) -> Iterator[None]:
        """Within the block the model holds the averages; after it the originals are back, whatever happened.

        They are put back into the model as it then is, also after `.half()` or `.to(device)` within the
        block. Parameters and errors are those of `copy_to`; DataError also where what is written would not
        reach the model, as in a state dict that holds copies.
        """
        which = self._which(of)
        swap = Swap(self._given(params))
        leaves = swap.writable(self._targets(swap), must_reach=True)
        swap.back_up(leaves)
        self._inside += 1
        try:
            self._write(leaves, which)
            yield
        finally:
            self._inside -= 1
            swap.put_back()

    def module(self, *, of: float | None = None) -> Any:
        """A copy of the module that is followed, with the averages for parameters. Raises EmaError."""
        model = self._given(None)
        try:
            copied = copy.deepcopy(model)
        except Exception as error:  # whatever a module's own __deepcopy__ raises
            raise DataError(
                f"{type(model).__name__} can't be copied: {error}",
                hint="ema.copy_to(another_model), or with ema.average_parameters():",
            ) from error
        self.copy_to(copied, of=of)
        return copied

    # Saving

    def state_dict(self) -> dict[str, Any]:
        """All that resuming needs, as copies: averages in full precision, counters, weights, the options.

        Plain numbers, text and arrays; tensors where the parameters are tensors, so that
        `torch.load(weights_only=True)` reads them back, and DTensors where they are sharded, so that
        `torch.distributed.checkpoint` loads them on any number of processes.
        """
        return {**self._particulars(), **self._values(copy.deepcopy)}

    def _values(self, taken: Callable[[Any], Any]) -> dict[str, Any]:
        """`averages` and `remainders` of a state, each part as `taken` gives it."""
        averages, rests = {}, {}
        labels = self._schedule.labels
        for name, leaf in self._leaves.items():
            if leaf.kind == CARRIED:
                continue
            several = len(labels) > 1 and leaf.kind == AVERAGED
            for which, label in enumerate(labels if several else labels[:1]):
                first, *rest = self._store(name).parts(name, which)
                key = key_of(label, several, name)
                averages[key] = taken(first)
                if rest:
                    rests[key] = taken(rest[0])
        return {"averages": averages, "remainders": rests}

    def _particulars(self) -> dict[str, Any]:
        """The state without its values."""
        kept = {name: leaf for name, leaf in self._leaves.items() if leaf.kind != CARRIED}
        several = len(self._schedule.labels) > 1
        return {
            "version": VERSION,
            "options": self._schedule.signature(),
            "labels": list(self._schedule.labels),
            "num_steps": self._steps,
            "num_updates": self._updates,
            "weight": list(self._weights) if several else self._weights[0],
            "decay": self._decays if several or self._decays is None else self._decays[0],
            "dtypes": {name: leaf.dtype for name, leaf in kept.items()},
            "copied": sorted(name for name, leaf in kept.items() if leaf.kind == COPIED),
            "tensors": sorted(name for name in kept if self._homes[name] == "torch"),
            "ties": dict(self._ties),
        }

    def load_state_dict(self, state: Mapping[str, Any], *, override: bool = False) -> None:
        """Carry on from `state_dict()`: copies it, so that what follows is bit for bit what would have.

        Parameters
        ----------
        state : dict
            What `state_dict()` gave, of this version or an older one.
        override : bool
            Go on with this object's options, another decay for instance, instead of refusing a state made
            with others.

        Raises
        ------
        StateError
            Before anything changes, where options, names, shapes, dtypes or precision differ from this
            object's.
        """
        new = checked_state(state)
        if not override:
            check_options(new, self._schedule.signature())
        kept = {name: leaf for name, leaf in self._leaves.items() if leaf.kind != CARRIED}
        parts = matching_parts(new, kept, self._ties, len(self._schedule.labels))
        for name, leaf in kept.items():
            if leaf.kind == AVERAGED and self._dtype is not None:  # else as the state has it
                check_precision(leaf, parts[name][0], self._dtype)
        for name, leaf in kept.items():
            self._store(name).load(leaf, parts[name])
        self._steps, self._updates = new["num_steps"], new["num_updates"]
        weight, decay = new["weight"], new["decay"]
        self._weights = list(weight) if isinstance(weight, list) else [weight]
        self._decays = decay if isinstance(decay, list) or decay is None else [decay]
        if override:
            self._decays = None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state to one .safetensors, .npz or .pt file, atomically. Raises FileTrouble."""
        # Not state_dict(): it would copy every average only to have it written.
        write_state(path, {**self._particulars(), **self._values(lambda part: part)})

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, warmup: Warmup = None, model: Any = None, device: Any = None
    ) -> ParameterEMA:
        """The object that `save` wrote.

        Parameters
        ----------
        path : str or path
            A .safetensors, .npz or .pt file.
        warmup : function, optional
            The ramp again, where it was a function of your own (it is not in the file).
        model : torch.nn.Module, optional
            The module to follow from now on, so that `update()` and the others need no parameters.
        device : str, optional
            Where averages are kept, as for a new object.

        Raises
        ------
        FileTrouble, StateError
            Where the file can't be read, is no such state, or is of another model.
        """
        state = read_state(path)
        new = cls.__new__(cls)  # without parameters to start from: the state is all there is
        new._schedule = _schedule_of(state, warmup)
        new._choice = Choice()
        new._reset(None, device)
        new._restore(state)
        if model is not None:
            new._attach(model)
        return new

    def _restore(self, state: dict[str, Any]) -> None:
        has_torch = find_spec("torch") is not None
        for name, dtype in state["dtypes"].items():
            kind = COPIED if name in state["copied"] else AVERAGED
            shape = tuple(parts_of(state, name)[0][0].shape)
            self._leaves[name] = Leaf(name, None, kind, dtype, shape)
            self._homes[name] = "torch" if has_torch and name in state["tensors"] else "numpy"
        self._ties = dict(state["ties"])
        self._skeleton = {name: name for name in (*self._leaves, *self._ties)}
        self.load_state_dict(state)

    def _attach(self, model: Any) -> None:
        from ema_cli.parameters.modules import unwrapped

        found = named_leaves(model)
        floats = [name for name, leaf in found.items() if leaf.is_buffer and leaf.kind == AVERAGED]
        copied = any(name in self._leaves and self._leaves[name].kind == COPIED for name in floats)
        self._choice = Choice(lambda name, _: name in self._leaves, "copy" if copied else "average")
        self._left_out.update(name for name in found if name not in self._leaves and name not in self._ties)
        self._lookup(model)
        self._model = unwrapped(model)

    def snapshot(self, path: str | os.PathLike[str]) -> list[str]:
        """Write the power-function averages, each to a checkpoint of its own, and say to which.

        Parameters
        ----------
        path : str or path
            .safetensors, .npz or .pt; with several widths `-0.05` and so on go before the suffix, or
            where `{}` stands.

        Returns
        -------
        list of str
            The files' names. `ema_cli.parameters.power` says what is in them; `ema-weights --sigma-rel`
            reads them.

        Raises
        ------
        OptionError
            Without `power=`, or for another suffix.
        StateError
            Before the first update.
        FileTrouble
            Where a file can't be written; each is the old one or the complete new one.
        """
        widths = [width for width in self._schedule.labels if width is not None and self._schedule.gammas]
        if not widths:
            raise OptionError(
                "snapshots are of power-function averages", "ParameterEMA(model, power=[0.05, 0.10])"
            )
        if not self._updates:
            raise StateError("there is nothing to take a snapshot of before the first update")
        names = [_snapshot_name(os.fspath(path), width, len(widths) > 1) for width in widths]
        for which, name in enumerate(names):
            self._write_snapshot(name, which)
        return names

    def _write_snapshot(self, path: str, which: int) -> None:
        sigma_rel, gamma = self._schedule.labels[which], self._schedule.gammas[which]
        assert sigma_rel is not None  # of power-function averages each has one
        kept = {name: leaf for name, leaf in self._leaves.items() if leaf.kind != CARRIED}
        dtypes = {name: leaf.dtype for name, leaf in kept.items()}
        said = Snapshot(self._updates, sigma_rel, gamma, dtypes, self._ties)
        write_values(path, {name: self._widely(leaf, which) for name, leaf in kept.items()}, said.metadata())

    def _widely(self, leaf: Leaf, which: int) -> Any:
        """An average in float32, or float64 where the parameter is."""
        wide = leaf.kind == AVERAGED and leaf.dtype != "float64"
        return self._store(leaf.name).rounded(replace(leaf, dtype="float32") if wide else leaf, which)


def _choice_of(model: Any, params: Any, buffers: str | None) -> Choice:
    if not callable(params):
        choice("params", params, ("all", "trainable"))
    if buffers is not None:
        choice("buffers", buffers, ("copy", "average"))
        if not is_module(model):
            raise OptionError("a tree of arrays has no buffers: only a module says which of its tensors are")
    return Choice(params, buffers or "copy")


def _precision(dtype: Any) -> str | None:
    if dtype is None:
        return None
    name = getattr(dtype, "__name__", str(dtype)).removeprefix("torch.")
    choice("dtype", name, _PRECISIONS)
    return name


def _nothing(found: Mapping[str, Leaf]) -> str:
    return f"there is nothing to average among {some_of(list(found))}" if found else "there are no parameters"


def _holds_nan(leaf: Leaf) -> bool:
    if leaf.kind != AVERAGED:
        return False
    if is_tensor(leaf.value):
        from ema_cli.parameters.torch_store import holds_nan

        return holds_nan(leaf)
    import numpy as np

    return bool(np.isnan(np.asarray(leaf.value)).any())


def _chosen(names: str | Sequence[str], known: Sequence[str]) -> list[str]:
    """The known names that are meant. Raises DataError for one that means none."""
    found: list[str] = []
    for wanted in [names] if isinstance(names, str) else names:
        below = names_below(known, wanted)
        if not below:
            raise DataError(f"there is no parameter {wanted!r}", hint=f"one of {some_of(list(known))}")
        found += [name for name in below if name not in found]
    return found


def _schedule_of(state: Mapping[str, Any], warmup: Warmup) -> Any:
    options = dict(state["options"])
    if options["warmup"] == "callable":
        if not callable(warmup):
            raise StateError("this average was warmed up by a function", "load(path, warmup=the_function)")
        options["warmup"] = warmup
    families = {name: options.pop(name) for name in ("alpha", "power")}
    schedule = make_schedule(families, **options)
    labels = state.get("labels")
    if isinstance(labels, list) and len(labels) == len(schedule.labels):
        schedule = replace(schedule, labels=tuple(labels))
    return schedule


def _snapshot_name(path: str, sigma_rel: float, several: bool) -> str:
    if "{}" in path:
        return path.replace("{}", f"{sigma_rel:g}")
    given = Path(path)
    return str(given.with_name(f"{given.stem}-{sigma_rel:g}{given.suffix}")) if several else path
