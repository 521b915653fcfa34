"""Other libraries' own tests of their averages, run against `ParameterEMA` through a thin adapter each.

Nothing of theirs is copied here. EMA_PEERS names a folder in which their repositories are checked out under
their own names (`pytorch`, `diffusers`, `pytorch_ema`); of each the file that `test_*.py` names is enough.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest


def module(name: str, **members: Any) -> ModuleType:
    """A module that stands in for one that their file imports."""
    made = ModuleType(name)
    made.__dict__.update(members)
    return made


def their_tests(
    file: str, instead: Mapping[str, ModuleType], cannot: Mapping[str, str], name: str = "theirs"
) -> dict[str, Any]:
    """The tests in a file of a checkout, bound to what stands in `instead` for modules that it imports.

    cannot: by the name of a test, why `ParameterEMA` can't pass it; such a test has to fail.
    """
    place = Path(os.environ.get("EMA_PEERS", ""), file)
    if "EMA_PEERS" not in os.environ or not place.is_file():
        pytest.skip(f"EMA_PEERS names no folder with {file}", allow_module_level=True)
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec is not None
    assert spec.loader is not None
    theirs = importlib.util.module_from_spec(spec)
    with mock.patch.dict(sys.modules, {**instead, name: theirs}):
        spec.loader.exec_module(theirs)
    found = {key: value for key, value in vars(theirs).items() if key.lower().startswith("test")}
    found = {key: value for key, value in found.items() if getattr(value, "__module__", "") == name}
    for holder in (found, *(vars(value) for value in found.values() if inspect.isclass(value))):
        for key, reason in cannot.items():
            if key in holder:
                pytest.mark.xfail(strict=True, reason=reason)(holder[key])
    return found
