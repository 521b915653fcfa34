"""What a saved state must have in common with the run that carries it on: its version and its options.

Options are compared as a mapping from name to value. One that a state does not mention has its default,
so an option that is added later makes no old state a stranger.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
from typing import Any, NamedTuple

from ema_cli.errors import StateError


def options_of(record: Any, leave_out: Collection[str] = ()) -> dict[str, Any]:
    """The fields of a dataclass instance by their names as options: `min_periods` is "min-periods"."""
    return {
        field.name.replace("_", "-"): getattr(record, field.name)
        for field in fields(record)
        if field.name not in leave_out
    }


def defaults_of(kind: type, leave_out: Collection[str] = ()) -> dict[str, Any]:
    """The defaults of a dataclass's fields, by the same names; fields without a default are left out."""
    return {
        field.name.replace("_", "-"): field.default
        for field in fields(kind)
        if field.name not in leave_out and field.default is not MISSING
    }


class Difference(NamedTuple):
    """An option that differs: its value in the state, and in this run."""

    name: str
    was: Any
    value: Any

    def __str__(self) -> str:
        return f"{self.name} was {_text(self.was)}, is {_text(self.value)}"


def differences(
    then: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any]
) -> list[Difference]:
    """The options in which a state and this run differ, those of the state first.

    An option that is absent in either has its default there; None is "not given". Values are compared as
    JSON has them, so that a tuple is a list.
    """
    before, after, default = _as_json(then), _as_json(now), _as_json(defaults)
    every = [
        Difference(name, before.get(name, default.get(name)), after.get(name, default.get(name)))
        for name in {**before, **after}
    ]
    return [each for each in every if each.was != each.value]


def check_version(found: Any, own: int, name: str, afresh: str) -> None:
    """Raise StateError where a state is of another version than `own`, the one that is read here.

    name: the file or thing, for the message. afresh: what to do to begin anew.
    """
    if not isinstance(found, int) or isinstance(found, bool):
        raise StateError(f"{name}: damaged: its version is {found!r}", afresh)
    if found > own:
        hint = "install the version that wrote it, or a newer one"
        raise StateError(f"{name}: written by a newer ema-smooth (state version {found}, not {own})", hint)
    if found < own:
        problem = f"{name}: written by an older ema-smooth (state version {found}, not {own})"
        raise StateError(f"{problem}, whose numbers can't be carried on bit for bit", afresh)


def _as_json(options: Mapping[str, Any]) -> dict[str, Any]:
    return dict(json.loads(json.dumps(dict(options))))


def _text(value: Any) -> str:
    if value is None or value == []:
        return "not given"
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return f"{value:.15g}" if isinstance(value, float) else str(value)
