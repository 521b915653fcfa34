"""The state of a `ParameterEMA` as a plain dict, checked, and as one safetensors or npz file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any

from ema_cli.errors import DataError, StateError
from ema_cli.io.atomic import atomic_write
from ema_cli.parameters.checkpoints import METADATA_KEY, open_checkpoint, writer_for
from ema_cli.parameters.tensors import TensorInfo, as_array, dtype_named, is_averaged, named_leaves
from ema_cli.state_options import differences

VERSION = 1
# What each option is in a state that was written before there was such an option.
DEFAULTS: dict[str, Any] = {
    "alpha": None,
    "init": "params",
    "bias_correction": False,
    "warmup": None,
    "update_every": 1,
    "update_after_step": 0,
    "on_nonfinite": "error",
}
_KIND = "ParameterEMA state"
_HINT = "ParameterEMA.load reads what ParameterEMA.save wrote"


def checked_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """`state` if it is what `ParameterEMA.state_dict` gives, else StateError."""
    if not isinstance(state, Mapping):
        raise StateError(f"a state is a dict, not {type(state).__name__}", _HINT)
    version = state.get("version")
    if version != VERSION:
        raise StateError(f"this is no state of version {VERSION} but {version!r}", _HINT)
    numbers = {"num_steps": int, "num_updates": int, "weight": (int, float)}
    kinds = {**numbers, "options": Mapping, "dtypes": Mapping, "averages": Mapping, "tensors": list}
    for name, kind in kinds.items():
        if not isinstance(state.get(name), kind):  # type: ignore[arg-type]
            raise StateError(f"the state is damaged: its {name} is {state.get(name)!r}", _HINT)
    for name in numbers:
        if not (math.isfinite(state[name]) and state[name] >= 0):
            raise StateError(f"the state is damaged: its {name} is {state[name]!r}", _HINT)
    decay = state.get("decay")
    if decay is not None and not (isinstance(decay, float) and 0.0 <= decay <= 1.0):
        raise StateError(f"the state is damaged: its decay is {decay!r}", _HINT)
    if not set(state["options"]) <= set(DEFAULTS):
        raise StateError("the state is damaged: its options are not those of ParameterEMA", _HINT)
    if not all(isinstance(name, str) for name in state["tensors"]):
        raise StateError("the state is damaged: its tensors are no names", _HINT)
    if sorted(state["dtypes"]) != sorted(state["averages"]):
        raise StateError("the state is damaged: it has not one dtype for each average", _HINT)
    _check_averages(state)
    return dict(state)


def check_options(state: Mapping[str, Any], signature: Mapping[str, Any]) -> None:
    """Raise StateError, saying which, where the state's options are not those of `signature`."""
    for option, was, value in differences(state["options"], signature, DEFAULTS):
        raise StateError(
            f"the state was made with {option}={was!r}, this object has {value!r}",
            "the same options as before",
        )


def _check_averages(state: Mapping[str, Any]) -> None:
    for name, leaf in named_leaves(state["averages"]).items():
        try:
            dtype = dtype_named(str(state["dtypes"].get(name)))
        except DataError as error:
            raise StateError(f"the state is damaged: {name!r}: {error.problem}", error.hint) from error
        expected = "float64" if is_averaged(dtype) else dtype.name
        if leaf.info.dtype.name != expected:
            raise StateError(
                f"the average of {name!r} is {leaf.info.dtype.name}, not {expected}: rounded, it would "
                "not go on as the same run",
                "save the state as state_dict() gives it",
            )


def write_state(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write `state` (of `ParameterEMA.state_dict`) to `path`, atomically, the averages under their names.

    Raises FileTrouble, or OptionError where the suffix is neither .safetensors nor .npz.
    """
    make_writer = writer_for(path)
    arrays = {name: as_array(value) for name, value in state["averages"].items()}
    infos = [TensorInfo(name, array.dtype, array.shape) for name, array in arrays.items()]
    said = {name: value for name, value in state.items() if name != "averages"}
    metadata = {METADATA_KEY: json.dumps({"kind": _KIND, **said}, sort_keys=True)}
    with atomic_write(path) as out, make_writer(out, os.fspath(path), infos, metadata) as writer:
        for info in writer.order:
            writer.write(info, arrays[info.name])


def read_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The state in the file, and each parameter's description as `infos`. Raises FileTrouble, StateError."""
    name = os.fspath(path)
    with open_checkpoint(name) as checkpoint:
        state = described(checkpoint.metadata, _KIND, name, _HINT)
        state["averages"] = {
            info.name: checkpoint.read(info, 0, info.size).reshape(info.shape)
            for info in checkpoint.tensors.values()
        }
    state = checked_state(state)
    state["infos"] = {
        key: TensorInfo(key, dtype_named(state["dtypes"][key]), array.shape)
        for key, array in state["averages"].items()
    }
    return state


def described(metadata: Mapping[str, str], kind: str, name: str, hint: str) -> dict[str, Any]:
    """What a file of ours says of itself, less its kind; StateError where it is another kind of file."""
    try:
        said = json.loads(metadata.get(METADATA_KEY, "null"))
    except ValueError:
        said = None
    if not isinstance(said, dict) or said.get("kind") != kind:
        found = said.get("kind") if isinstance(said, dict) else None
        raise StateError(f"{name}: is no {kind}" + (f" but {found}" if found else ""), hint)
    del said["kind"]
    return said
