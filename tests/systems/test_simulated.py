"""The commands on a simulated Windows and macOS: `site/sitecustomize.py` takes away what is not there.

Here are the things that systems do in different ways. `make test-systems` runs all golden cases there.
"""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT, SAMPLES, SITE, Workshop

SYSTEMS = ["windows", "darwin"]


@pytest.fixture(params=SYSTEMS)
def other(request: pytest.FixtureRequest, tmp_path: Path) -> Workshop:
    return Workshop(tmp_path, request.param)


@pytest.fixture
def here(tmp_path: Path) -> Workshop:
    """The same folder, as this system runs it."""
    return Workshop(tmp_path, "")


def python(shop: Workshop, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=shop.folder, env=shop.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_what_is_taken_away_is_gone(other: Workshop) -> None:
    """Else the other tests here would prove nothing."""
    names = {
        "windows": "os.fork signal.SIGHUP signal.pthread_sigmask os.fchmod fcntl",
        "darwin": "os.sched_getaffinity",
    }
    for name in names[other.system].split():
        module, _, attribute = name.rpartition(".")
        done = python(other, f"import {module or attribute}\n{name}")
        assert done.returncode == 1, name
        assert "Error" in done.stderr
    platform = {"windows": "simulated", "darwin": "darwin"}[other.system]
    assert python(other, "import sys; print(sys.platform)").stdout.strip() == platform


def test_an_open_file_is_not_removed_on_windows(tmp_path: Path) -> None:
    code = "import os; f = open('x', 'w')\ntry: os.unlink('x')\nexcept PermissionError: print('refused')\n"
    assert python(Workshop(tmp_path, "windows"), code).stdout.strip() == "refused"


def test_every_module_is_imported(other: Workshop) -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((ROOT / "ema_cli").rglob("*.py"))
        if path.name != "__main__.py"
        and not {"cluster", "integrations"} & {*path.parts}
        and not re.search(r"^import (torch|polars)", path.read_text(), re.MULTILINE)
        and path.name != "dask.py"
    ]  # Dask, polars and the training libraries ask about the system, and refuse a simulated one
    code = f"""import importlib
for name in {modules!r}:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name not in ("matplotlib", "ml_dtypes"):  # which the core does without
            raise
"""
    done = python(other, code)
    assert not done.returncode, done.stderr


def test_a_file_in_place_with_a_state_that_goes_on(other: Workshop, here: Workshop) -> None:
    rows = [f"{k},{k * 0.7 % 3}\n" for k in range(50_000)]
    other.write("whole.csv", "t,v\n" + "".join(rows))
    whole = here.run("whole.csv", "-c", "v", "--alpha", "0.1").out
    out = b""
    for part in (rows[:20_000], rows[20_000:]):
        other.write("in.csv", "t,v\n" + "".join(part))
        other.run("in.csv", "-c", "v", "--alpha", "0.1", "--state", "s", "-o", "in.csv")
        out += other.read("in.csv").partition(b"\n")[2]
    assert whole == b"t,v,v_ema\n" + out
    assert other.names() == ["in.csv", "s", "whole.csv"]


def test_one_state_two_runs(other: Workshop) -> None:
    with other.start("--alpha", "0.1", "--state", "s") as first:
        assert first.stdin is not None
        assert first.stdout is not None
        first.stdin.write(b"v\n1\n")
        first.stdin.flush()
        assert first.stdout.readline() == b"v,v_ema\n"
        assert "in use" in other.run("--alpha", "0.1", "--state", "s", stdin=b"v\n1\n", code=1).err
        first.stdin.close()
        assert first.wait(20) == 0
    assert other.names() == ["s"]


def test_a_large_file_and_a_pipe(other: Workshop, here: Workshop) -> None:
    """Large enough for whatever runs side by side."""
    data = ("t,v\n" + "".join(f"{k},{k * 0.7 % 3}\n" for k in range(900_000))).encode()
    assert len(data) > 16 << 20
    other.write("in.csv", data)
    options = ("-c", "v", "--span", "20", "--digits", "6")
    here.run("in.csv", *options, "-o", "here.csv")
    other.run("in.csv", *options, "-o", "other.csv")
    assert other.read("here.csv") == other.read("other.csv")
    assert other.run(*options, stdin=data).out == other.read("here.csv")
    with other.start("in.csv", *options) as process:  # nobody reads on
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == (1 if other.system == "windows" else -signal.SIGPIPE)


def test_a_folder_by_several_processes(other: Workshop, here: Workshop) -> None:
    for k in range(4):
        other.write(f"in/{k}.csv", "v\n" + "".join(f"{k + j % 7}\n" for j in range(200)))
    names = [f"in/{k}.csv" for k in range(4)]
    assert "4 of 4 files" in other.run(*names, "--alpha", "0.1", "--output-dir", "a", "-j", "2").err
    here.run(*names, "--alpha", "0.1", "--output-dir", "b")
    for k in range(4):
        assert other.read(f"a/{k}.csv") == other.read(f"b/{k}.csv")


def test_parquet_on_stdin_and_alpha_auto(other: Workshop, here: Workshop) -> None:
    data = (SAMPLES / "co2.parquet").read_bytes()
    options = ("--from", "parquet", "--alpha", "auto", "--to", "csv")
    assert other.run(*options, stdin=data).out == here.run(*options, stdin=data).out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing(other: Workshop, number: signal.Signals) -> None:
    with other.start("--alpha", "0.1", "--state", "s", "-o", "o.csv") as process:
        assert process.stdin is not None
        process.stdin.write(b"v\n1\n")
        process.stdin.flush()
        while not any(name.endswith(".part") for name in other.names()):
            assert process.poll() is None
        process.send_signal(number)
        assert process.wait(20) == (130 if number == signal.SIGINT else -number)
    assert other.names() == []


def test_checkpoints(other: Workshop, here: Workshop) -> None:
    for k in range(3):
        np.savez(other.folder / f"step_{k}.npz", w=np.arange(6.0) * k, n=np.array(k))
    weights = ["-m", "ema_cli.weights_cli", "step_0.npz", "step_1.npz", "step_2.npz", "--decay", "0.9", "-v"]
    for shop, name in ((other, "other.npz"), (here, "here.npz")):
        done = subprocess.run(
            [sys.executable, *weights, "-o", name],
            cwd=shop.folder, env=shop.environment, capture_output=True, check=False,
        )  # fmt: skip
        assert not done.returncode, done.stderr
    assert other.read("other.npz") == other.read("here.npz")


def test_help_and_a_drawing_on_a_stream_that_has_no_greek(other: Workshop) -> None:
    """Redirected, Windows' stdout has the code page of the system."""
    page = (
        other.text(other.run("--help").out) if other.system == "windows" else other.run("--help").out.decode()
    )
    assert "--halflife" in page
    assert ("alpha = 2/(N+1)" in page) == (other.system == "windows")
    shown = other.run(SAMPLES / "co2.csv", "--alpha", "0.1", "--plot", "-", "-o", "o.csv").err
    assert "co2_ema" in shown


def plain_ascii(shop: Workshop) -> dict[str, str]:
    """A C locale that nobody makes UTF-8 of."""
    return shop.environment | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(
    "arguments", [["--help"], ["grün.csv", "--alpha", "0.1", "-v"]], ids=["help", "names"]
)
def test_a_c_locale(here: Workshop, arguments: list[str]) -> None:
    here.write("grün.csv", "größe\n1\n3\n")
    done = subprocess.run(
        here.command(*arguments),
        cwd=here.folder, env=plain_ascii(here), capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.isascii()
    if arguments != ["--help"]:
        assert done.stdout.decode() == "größe,größe_ema\n1,1.0\n3,1.2\n"
        assert b"y[t] = (1-alpha)*y[t-1] + alpha*x[t]" in done.stderr
        assert rb"gr\xc3\xbcn.csv" in done.stderr or b"gr?n.csv" in done.stderr


def test_the_simulation_stays_out_of_this_process() -> None:
    assert hasattr(os, "fork") == hasattr(os, "getuid")
    assert str(SITE) not in sys.path
    assert isinstance(sys.stdout, io.TextIOBase)
