"""pandas' own tests of its exponential windows, run on `smooth`: docs/peers-tests.md says what passes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import ROOT

PAGE = ROOT / "docs" / "peers-tests.md"
TESTS = Path(pd.__file__).parent / "tests"
PINNED = re.search(r"^pandas==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
# Those that speak of `ewm`.
FILES = [
    "window/test_ewm.py",
    "window/moments/test_moments_consistency_ewm.py",
    "window/test_pairwise.py",
    "window/test_groupby.py",
    "window/test_dtypes.py",
    "window/test_rolling.py",
    "window/test_online.py",
    "window/test_numba.py",
]


def outcomes(folder: Path) -> dict[str, str]:
    """How each of pandas' tests that makes an exponential window ends, by its name."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    where = TESTS.parent
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-c", str(folder / "pytest.ini")]
    command += [
        f"--rootdir={where.parent}",
        f"--confcutdir={where}",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
    ]
    command += ["-p", "tests.api.pandas_ewm", *(str(TESTS / name) for name in FILES)]
    found = folder / "outcomes.json"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "EMA_PANDAS_TESTS": str(found)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert found.exists(), done.stdout[-3000:] + done.stderr[-3000:]
    return dict(json.loads(found.read_text()))


def listed() -> dict[str, str]:
    """The tests that the page says do not pass, each with its reason."""
    return dict(re.findall(r"^- `([^`]+)`: (.+)$", PAGE.read_text(), re.MULTILINE))


def counted() -> dict[str, tuple[int, ...]]:
    """The page's table: of each file how many tests pass, do not pass, and are skipped by pandas."""
    rows = re.findall(
        r"^\| `([\w/]+\.py)` \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|", PAGE.read_text(), re.MULTILINE
    )
    return {name: tuple(int(number.replace(",", "")) for number in numbers) for name, *numbers in rows}


@pytest.mark.skipif(
    PINNED is None or pd.__version__ != PINNED[1],
    reason="other versions of pandas have other tests, and insides",
)
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_page_says_what_passes(tmp_path: Path) -> None:
    found = outcomes(tmp_path)
    failed = {name for name, outcome in found.items() if outcome == "failed"}
    assert failed == listed().keys()
    each = Counter((name.partition("::")[0], outcome) for name, outcome in found.items())
    ends = ("passed", "failed", "skipped")
    assert counted() == {name: tuple(each[name, end] for end in ends) for name in FILES}


def test_every_reason_is_one() -> None:
    assert all(len(reason.split()) > 5 for reason in listed().values())
