"""Signals where they can't be blocked, as on Windows: put off, not lost."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.conftest import ROOT

CODE = """
import os, signal, sys
{without}
from ema_cli.io.signals import handle_interrupts, uninterrupted
from ema_cli.io.temporary import removed_afterwards
from pathlib import Path
handle_interrupts()
with uninterrupted():
    with uninterrupted():
        Path("left").write_text("x")
        os.kill(os.getpid(), signal.{number})
    noted = removed_afterwards(Path("left"))
    noted.__enter__()
    print("still here", flush=True)
print("never", flush=True)
"""
WITHOUT = "del signal.pthread_sigmask, signal.SIGHUP"


@pytest.mark.parametrize("without", ["", WITHOUT], ids=["blocked", "put off"])
@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", -signal.SIGTERM)])
def test_a_signal_waits_for_the_end_of_the_block(tmp_path, without: str, number: str, code: int) -> None:  # type: ignore[no-untyped-def]
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(without=without, number=number)],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("still here\n", code), done.stderr
    assert not list(tmp_path.iterdir())
