"""A model's tensors by name: in a tree of mappings, lists and tuples, or in a torch module.

Leaves are looked up anew for each use, so that `.half()`, `.to(device)` and `load_state_dict` in between do
no harm.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ema_cli.errors import DataError
from ema_cli.parameters.leaves import AVERAGED, CARRIED, COPIED, Leaf, plain_name
from ema_cli.parameters.tensors import is_averaged, is_copied, is_tensor


def is_module(given: Any) -> bool:
    """True for a torch module."""
    return hasattr(given, "named_parameters") and hasattr(given, "named_modules")


def named_leaves(model: Any) -> dict[str, Leaf]:
    """The tensors of a module, or of a tree, by name, in their order; nested names are joined by dots.

    Raises DataError where this is neither, two names come out the same, or a tensor's values are not there.
    """
    if is_module(model):
        from ema_cli.parameters.modules import module_leaves

        return module_leaves(model)
    if not isinstance(model, (Mapping, list, tuple)) or _is_array(model):
        raise DataError(
            f"parameters are a module or a tree of named arrays, not {type(model).__name__}",
            hint="ParameterEMA(model, decay=0.999), or a mapping such as {'w': array}",
        )
    found: dict[str, Leaf] = {}
    _collect(model, (), found)
    return _renamed(found)


def _collect(node: Any, path: tuple[str, ...], found: dict[str, Leaf]) -> None:
    for key, label, value in _children(node):
        name = (*path, label)
        if _is_node(value, label):
            _collect(value, name, found)
            continue
        joined = ".".join(name)
        if joined in found:
            raise DataError(f"two parameters are both called {joined!r} once nested names are joined by dots")
        found[joined] = replace(described(joined, value), holder=node, key=key)


def _is_node(value: Any, label: str) -> bool:
    """True for what leaves hang below. A module's extra state is carried along whole."""
    return isinstance(value, (Mapping, list, tuple)) and not _is_array(value) and label != "_extra_state"


def _children(node: Any) -> list[tuple[Any, str, Any]]:
    """(key, name, value) of all that hangs below a node."""
    if isinstance(node, Mapping):
        return [(key, str(key), value) for key, value in node.items()]
    labels = getattr(node, "_fields", range(len(node)))  # a named tuple's own names
    return [(key, str(label), value) for key, (label, value) in enumerate(zip(labels, node, strict=True))]


def _is_array(value: Any) -> bool:
    """True for a list or tuple of plain numbers, nested or not: one array as `np.asarray` takes it.

    Of arrays it is a tree, also where they have one shape.
    """
    if not isinstance(value, (list, tuple)) or not value:
        return False
    return all(
        (isinstance(item, numbers.Number) and not isinstance(item, np.generic)) or _is_array(item)
        for item in value
    )


def described(name: str, value: Any) -> Leaf:
    """The leaf that a value is. Raises DataError for what should be an array and is none."""
    if value is None or isinstance(value, (str, bytes)) or name.rpartition(".")[2] == "_extra_state":
        return Leaf(name, value, CARRIED, "", ())
    if is_tensor(value):
        from ema_cli.parameters.modules import check_there, kind_of

        kind = kind_of(value)
        if kind != CARRIED:
            check_there(name, value)
        return Leaf(name, value, kind, str(value.dtype).removeprefix("torch."), tuple(value.shape))
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DataError(f"parameter {name!r} is no array of numbers: {error}") from error
    kind = AVERAGED if is_averaged(array.dtype) else COPIED if is_copied(array.dtype) else CARRIED
    return Leaf(name, value, kind, array.dtype.name, array.shape)


def _renamed(found: Mapping[str, Leaf]) -> dict[str, Leaf]:
    """The leaves under the names that the model would have without its wrappers."""
    wrapped = bool(found) and all(name.startswith("module.") for name in found)
    renamed: dict[str, Leaf] = {}
    for name, leaf in found.items():
        plain = plain_name(name.removeprefix("module.") if wrapped else name)
        if plain in renamed:
            raise DataError(f"two parameters are both called {plain!r} without their wrappers' names")
        renamed[plain] = replace(leaf, name=plain)
    return renamed


class Averages(dict[str, Any]):
    """Averages by flat name; a name that stands above others gives what lies below it, as a nested dict.

    `averages["layer.w"]` and `averages["layer"]["w"]` are one array, and `averages.tree()` has the model's
    own nesting: mappings, lists, tuples and None as they were handed in.
    """

    def __init__(self, values: Mapping[str, Any], skeleton: Any) -> None:
        super().__init__(values)
        self._skeleton = skeleton

    def __missing__(self, key: Any) -> Any:
        nested: Any = self.tree()
        try:
            return nested[int(key) if isinstance(nested, (list, tuple)) else key]
        except (KeyError, IndexError, ValueError, TypeError):
            # A module's names, and those that were loaded from a file, are flat.
            below = {n.removeprefix(f"{key}."): v for n, v in self.items() if n.startswith(f"{key}.")}
            if below:
                return Averages(below, {name: name for name in below})
            raise KeyError(key) from None

    def tree(self) -> Any:
        """The averages in the structure of the parameters."""
        return filled(self._skeleton, self)


def skeleton(node: Any) -> Any:
    """A tree's structure: its containers, with each leaf's name in place of the leaf.

    A module's is flat: its names are those of its state dict.
    """
    if is_module(node):
        return {name: name for name in named_leaves(node)}
    wrapped = all(name.startswith("module.") for name in _raw_names(node))
    return _skeleton(node, (), wrapped)


def _raw_names(node: Any) -> list[str]:
    found: dict[str, Leaf] = {}
    _collect(node, (), found)
    return list(found)


def _skeleton(node: Any, path: tuple[str, ...], wrapped: bool) -> Any:
    if not _is_node(node, path[-1] if path else ""):
        name = ".".join(path)
        return plain_name(name.removeprefix("module.") if wrapped else name)
    below = [(key, _skeleton(value, (*path, label), wrapped)) for key, label, value in _children(node)]
    if isinstance(node, Mapping):
        return dict(below)
    parts = [value for _, value in below]
    if isinstance(node, tuple):
        return type(node)(*parts) if hasattr(node, "_fields") else tuple(parts)
    return parts


def filled(node: Any, values: Mapping[str, Any]) -> Any:
    """A skeleton with each name replaced by its value; names that have none are left out."""
    if isinstance(node, str):
        return values.get(node)
    if isinstance(node, Mapping):
        return {key: filled(value, values) for key, value in node.items()}
    parts = [filled(value, values) for value in node]
    if isinstance(node, tuple):
        return type(node)(*parts) if hasattr(node, "_fields") else tuple(parts)
    return parts
