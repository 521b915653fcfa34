"""The state of a `ParameterEMA` as a plain dict, checked, and as one safetensors or npz file.

The dict, version 2: `options`, `num_steps`, `num_updates`, `weight` and `decay` (a list where several
averages are kept), `dtypes` (the parameters' own, by name), `copied` (names of what is not averaged),
`tensors` (names of torch tensors), `ties` (further names of tied tensors), and the values: `averages` by
name, and `remainders`, the second halves of averages that are pairs of float32. Of several averages the
names begin with the average's own: `0.999/layer.w`. Version 1 had one average, in float64, and is read as
well.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np

from ema_cli.errors import DataError, StateError
from ema_cli.io.atomic import atomic_write
from ema_cli.parameters.checkpoints import METADATA_KEY, open_checkpoint, writer_for
from ema_cli.parameters.leaves import AVERAGED, COPIED, Leaf, plain_name
from ema_cli.parameters.tensors import TensorInfo, as_array, dtype_named, is_tensor, some_of

VERSION = 2
# The options that shape the numbers, and what they are in a state that does not know them.
_DEFAULTS: dict[str, Any] = {
    "alpha": None,
    "power": None,
    "init": "params",
    "bias_correction": False,
    "warmup": None,
    "update_every": 1,
    "update_after_step": 0,
    "on_nonfinite": "error",
}
_KIND = "ParameterEMA state"
_HINT = "ParameterEMA.load reads what ParameterEMA.save wrote"
_REMAINDER = "::remainder"


def key_of(label: Any, several: bool, name: str) -> str:
    """An average's name in a state: the parameter's, after the average's own where several are kept."""
    return f"{label}/{name}" if several else name


def checked_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """What `ParameterEMA.state_dict` gave, in any version, as a state of today's; else StateError."""
    if not isinstance(state, Mapping):
        raise StateError(f"a state is a dict, not {type(state).__name__}", _HINT)
    if state.get("version") not in (1, VERSION):
        raise StateError(f"this is no state of version 1 or {VERSION} but {state.get('version')!r}", _HINT)
    kinds = {"options": Mapping, "dtypes": Mapping, "averages": Mapping, "tensors": Sequence}
    for name, kind in kinds.items():
        if not isinstance(state.get(name), kind):
            raise StateError(f"the state is damaged: its {name} is {state.get(name)!r}", _HINT)
    _check_counts(state)
    if not {"alpha"} <= set(state["options"]) <= set(_DEFAULTS):
        raise StateError("the state is damaged: its options are not those of ParameterEMA", _HINT)
    if not all(isinstance(name, str) for name in state["tensors"]):
        raise StateError("the state is damaged: its tensors are no names", _HINT)
    new = {**state, "options": {**_DEFAULTS, **state["options"]}}
    if state["version"] == 1:
        new = _upgraded(new)
    _check_values(new)
    return new


def _upgraded(state: dict[str, Any]) -> dict[str, Any]:
    """A state of version 1 as one of version 2: names lose their wrappers, what was no float was copied."""
    wrapped = bool(state["dtypes"]) and all(name.startswith("module.") for name in state["dtypes"])

    def named(name: str) -> str:
        return plain_name(name.removeprefix("module.") if wrapped else name)

    dtypes = {named(name): dtype for name, dtype in state["dtypes"].items()}
    return {
        **state,
        "version": VERSION,
        "dtypes": dtypes,
        "averages": {named(name): value for name, value in _flat(state["averages"]).items()},
        "tensors": [named(name) for name in state["tensors"]],
        "copied": [name for name, dtype in dtypes.items() if "float" not in str(dtype)],
        "remainders": {},
        "ties": {},
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found.update(_flat(value, f"{prefix}{name}."))
        else:
            found[f"{prefix}{name}"] = value
    return found


def _check_counts(state: Mapping[str, Any]) -> None:
    for name in ("num_steps", "num_updates", "weight", "decay"):
        given = state.get(name)
        values = given if isinstance(given, list) and name in ("weight", "decay") else [given]
        whole = name.startswith("num")
        highest = 1.0 if name == "decay" else math.inf
        for value in values:
            if value is None and name == "decay":
                continue
            number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
            if not number or not (math.isfinite(value) and 0 <= value <= highest):  # type: ignore[arg-type, operator]
                raise StateError(f"the state is damaged: its {name} is {given!r}", _HINT)


def labels_of(state: Mapping[str, Any]) -> list[Any]:
    """What the averages in a state are called; `[None]` where there is one."""
    several = state["options"]["power"] or state["options"]["alpha"]
    if not isinstance(several, list) or len(several) < 2:
        return [None]
    labels = state.get("labels")
    if not isinstance(labels, list) or len(labels) != len(several):
        raise StateError(f"the state is damaged: its labels are {labels!r}", _HINT)
    return labels


def parts_of(state: Mapping[str, Any], name: str) -> list[tuple[Any, ...]]:
    """For each average of a parameter the one or two arrays that it is kept in."""
    labels = labels_of(state)
    copied = name in state["copied"]
    keys = [
        key_of(label, len(labels) > 1 and not copied, name) for label in (labels[:1] if copied else labels)
    ]
    rests = state["remainders"]
    return [
        (state["averages"][key], rests[key]) if key in rests else (state["averages"][key],) for key in keys
    ]


def check_options(state: Mapping[str, Any], signature: Mapping[str, Any]) -> None:
    """Raise StateError, saying which, where the state's options are not those of `signature`."""
    for option, value in signature.items():
        saved = state["options"].get(option)
        if saved != value:
            raise StateError(
                f"the state was made with {option}={saved!r}, this object has {value!r}",
                "the same options as before, or load_state_dict(state, override=True) for this object's",
            )


def matching_parts(
    state: Mapping[str, Any], wanted: Mapping[str, Leaf], ties: Container[str], count: int
) -> dict[str, list[tuple[Any, ...]]]:
    """The state's parts by name; StateError unless it is of the leaves `wanted`, `count` averages of each."""
    missing = [name for name in wanted if name not in state["dtypes"]]
    extra = [name for name in state["dtypes"] if name not in wanted and name not in ties]
    if missing or extra:
        said = [f"missing {some_of(missing)}"] * bool(missing) + [f"not known {some_of(extra)}"] * bool(extra)
        raise StateError(f"the state is of another model: {'; '.join(said)}")
    found = {name: parts_of(state, name) for name in wanted}
    for name, leaf in wanted.items():
        kind = COPIED if name in state["copied"] else AVERAGED
        shape = tuple(getattr(found[name][0][0], "shape", ()))
        if kind != leaf.kind:
            raise StateError(f"the state is of another model: {name!r} is {kind} there, {leaf.kind} here")
        if shape != leaf.shape:
            raise StateError(f"the state is of another model: {name!r} has shape {shape}, here {leaf.shape}")
        if kind == AVERAGED and len(found[name]) != count:
            raise StateError(f"the state holds {len(found[name])} averages, this object keeps {count}")
    return found


def check_precision(leaf: Leaf, parts: Sequence[Any], wanted: str) -> None:
    """Raise StateError where an average is saved in another precision than this object's."""
    if leaf.dtype == "float64":
        return  # averaged in float64 whatever was asked for
    saved = "float32x2" if len(parts) == 2 else str(parts[0].dtype).removeprefix("torch.")
    # A pair is float64 on the CPU, and goes on as it is wherever it is loaded.
    if saved != wanted and (wanted, saved) != ("float32x2", "float64"):
        raise StateError(
            f"the state's average of {leaf.name!r} is {saved}, this object's are {wanted}", f"dtype={saved!r}"
        )


def _check_values(state: Mapping[str, Any]) -> None:
    labels = labels_of(state)
    for name in ("copied", "remainders", "ties"):
        if not isinstance(state.get(name), (list, tuple, Mapping)):
            raise StateError(f"the state is damaged: its {name} is {state.get(name)!r}", _HINT)
    several = len(labels) > 1
    expected = {
        key_of(label, several and name not in state["copied"], name)
        for name in state["dtypes"]
        for label in labels
    }
    if expected != set(state["averages"]) or not set(state["remainders"]) <= expected:
        raise StateError("the state is damaged: it has not one dtype for each average", _HINT)
    for name, dtype in state["dtypes"].items():
        _check_dtype(name, str(dtype))
        for parts in parts_of(state, name):
            _check_parts(name, [_dtype_name(part) for part in parts], name in state["copied"], str(dtype))


def _check_dtype(name: str, dtype: str) -> None:
    if dtype == "bfloat16" or dtype.startswith("float8_"):
        return  # torch has them without ml_dtypes
    try:
        dtype_named(dtype)
    except DataError as error:
        raise StateError(f"the state is damaged: {name!r}: {error.problem}", error.hint) from error


def _check_parts(name: str, found: list[str], is_copied: bool, dtype: str) -> None:
    allowed = [[dtype]] if is_copied else [["float64"], ["float32", "float32"], ["float32"]]
    # NumPy without ml_dtypes, and buffers of floats, may hold a copy in another width.
    if found in allowed or (is_copied and "float" in dtype and "float" in found[0]):
        return
    raise StateError(
        f"the average of {name!r} is {found[0]}, not {' or '.join(dict.fromkeys(one[0] for one in allowed))}"
        ": rounded, it would not go on as the same run",
        "save the state as state_dict() gives it",
    )


def _dtype_name(value: Any) -> str:
    return str(value.dtype).removeprefix("torch.") if is_tensor(value) else np.asarray(value).dtype.name


def write_state(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write `state` (of `ParameterEMA.state_dict`) to `path`, atomically, the averages under their names.

    Raises FileTrouble, or OptionError where the suffix is no checkpoint's.
    """
    said = {name: value for name, value in state.items() if name not in ("averages", "remainders")}
    values = dict(state["averages"])
    values.update({f"{key}{_REMAINDER}": value for key, value in state["remainders"].items()})
    write_values(path, values, {METADATA_KEY: json.dumps({"kind": _KIND, **said}, sort_keys=True)})


def write_values(path: str | os.PathLike[str], values: Mapping[str, Any], metadata: dict[str, str]) -> None:
    """Write arrays and tensors to a .safetensors, .npz or .pt file, atomically. Raises EmaError."""
    make_writer = writer_for(path)
    arrays = {name: saved_array(value) for name, value in values.items()}
    infos = [TensorInfo(name, array.dtype, array.shape) for name, array in arrays.items()]
    with atomic_write(path) as out, make_writer(out, os.fspath(path), infos, metadata) as writer:
        for info in writer.order:
            writer.write(info, arrays[info.name])


def saved_array(value: Any) -> Any:
    """A part as an array, in its own dtype, on the host; whole where it is sharded."""
    if is_tensor(value) and hasattr(value, "full_tensor"):
        value = value.full_tensor()
    if not is_tensor(value):
        return np.asarray(value)
    name = str(value.dtype).removeprefix("torch.")
    narrow = value.is_floating_point() and name not in ("float16", "float32", "float64")
    return as_array(value).astype(dtype_named(name)) if narrow else value.detach().cpu().numpy()


def read_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The state in the file, checked. Raises FileTrouble, StateError."""
    name = os.fspath(path)
    with open_checkpoint(name) as checkpoint:
        state = described(checkpoint.metadata, _KIND, name, _HINT)
        values = {
            info.name: checkpoint.read(info, 0, info.size).reshape(info.shape)
            for info in checkpoint.tensors.values()
        }
    rests = {key for key in values if key.endswith(_REMAINDER)}
    state["averages"] = {key: value for key, value in values.items() if key not in rests}
    if state.get("version") != 1:
        state["remainders"] = {key.removesuffix(_REMAINDER): values[key] for key in rests}
    return checked_state(state)


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
