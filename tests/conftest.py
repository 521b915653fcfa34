"""A folder to work in and the real command run there, as a user would."""

from __future__ import annotations

import atexit
import functools
import io
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, TypeVar

import pytest
from hypothesis import settings

from ema_cli.safe_text import SPELLED
from tests.forkserver import ForkServer

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "sample_data"
SITE = ROOT / "tests" / "systems" / "site"

# A machine that is busy is no error, and what failed here once fails again.
settings.register_profile("here", deadline=None, max_examples=100)
settings.register_profile("long", deadline=None, max_examples=10_000)
settings.load_profile(os.environ.get("EMA_HYPOTHESIS", "here"))

# Started in the background, or by nohup, commands would ignore what tests send them.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is marked `torch`, and all of a module that imports it, is run only where torch is."""
    missing = pytest.mark.skipif(find_spec("torch") is None, reason="torch is optional, and 200 MB")
    for item in items:
        if isinstance(item, pytest.Function) and hasattr(item.module, "torch"):
            item.add_marker("torch")
        if item.get_closest_marker("torch"):
            item.add_marker(missing)


T = TypeVar("T")


def wait_for(true: Callable[[], T], seconds: float = 20) -> T:
    """What `true` gives as soon as that is something; fails where it stays nothing."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)
    return found


def children(process: int) -> list[int]:
    """The processes that a process has started, by number."""
    text = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(child) for child in text.split()]


def is_gone(process: int) -> bool:
    """Whether a process has ended, even if nobody has asked how: a container's first process never does."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


class Pieces:
    """A reader that gives what it has in pieces of any size, as pipes do.

    All sizes are drawn at once: after an error the thread that reads ahead may ask for more pieces or fewer.
    """

    def __init__(self, data: bytes, chance: random.Random | None) -> None:
        sizes = [1 << 30] if chance is None else [chance.choice([1, 1, 2, 3, 7, 20, 100]) for _ in range(30)]
        self.file, self.sizes = io.BytesIO(data), itertools.cycle(sizes)

    def read(self, n: int = -1, /) -> bytes:
        size = next(self.sizes)
        return self.file.read(size if n < 0 else min(n, size))

    def close(self) -> None:
        """Nothing to let go of."""


@dataclass(frozen=True)
class Result:
    """What a command left: exit code, stdout and stderr."""

    code: int
    out: bytes
    err: str


class Workshop:
    """A temporary folder with files in it and commands to run."""

    def __init__(self, folder: Path, system: str | None = None) -> None:
        self.folder = folder
        self.system = os.environ.get("EMA_SYSTEM", "") if system is None else system

    @property
    def environment(self) -> dict[str, str]:
        # The checkout under test comes first, whatever is installed.
        # EMA_SYSTEM is in force there: `windows` and `darwin` run the commands as on another system.
        path = os.pathsep.join([str(SITE), str(ROOT)] if self.system else [str(ROOT)])
        return {
            **os.environ,
            "PYTHONPATH": path,
            "PYTHONWARNINGS": "error",
            "COLUMNS": "100",
            "EMA_SYSTEM": self.system,
        }

    def write(self, name: str, data: bytes | str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def names(self) -> list[str]:
        """All that lies in the folder, by name."""
        return sorted(path.name for path in self.folder.iterdir())

    def command(self, *arguments: str | os.PathLike[str]) -> list[str]:
        return [sys.executable, "-m", "ema_cli", *map(str, arguments)]

    def run(self, *arguments: str | os.PathLike[str], stdin: bytes = b"", code: int | None = 0) -> Result:
        """Run ema-smooth; the exit code must be `code` unless that is None."""
        if self.system or FORKS is None:
            result = self._run_anew(*arguments, stdin=stdin)
        else:
            words = [os.fspath(word) for word in arguments]
            status, out, err = FORKS().run(words, self.folder, self.environment, stdin, timeout=120)
            result = Result(status, out, err.decode())
        assert "Traceback" not in result.err, result.err
        assert code is None or result.code == code, result.err
        return result

    def _run_anew(self, *arguments: str | os.PathLike[str], stdin: bytes) -> Result:
        done = subprocess.run(
            self.command(*arguments),
            input=stdin,
            capture_output=True,
            cwd=self.folder,
            env=self.environment,
            timeout=120,
            check=False,
        )
        return Result(done.returncode, done.stdout, self.text(done.stderr))

    def text(self, data: bytes) -> str:
        """What a command has said; a simulated Windows has its own code page and line endings."""
        return data.decode("cp1252").replace("\r\n", "\n") if self.system == "windows" else data.decode()

    def spelled(self, text: str) -> str:
        """A message as that system shows it."""
        return text.encode("cp1252", SPELLED).decode("cp1252") if self.system == "windows" else text

    def start(self, *arguments: str | os.PathLike[str]) -> subprocess.Popen[bytes]:
        """Start ema-smooth with pipes to talk to it; `communicate` loses what `readline` left in a buffer."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            self.command(*arguments),
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            cwd=self.folder,
            env=self.environment,
        )


@functools.cache
def fork_server() -> ForkServer:
    """The one of this test process."""
    server = ForkServer(Workshop(ROOT, "").environment)
    atexit.register(server.close)
    return server


# Commands are forks of it where that is safe; EMA_FORKS=0 starts a new Python for each, as users do.
FORKS = fork_server if sys.platform == "linux" and os.environ.get("EMA_FORKS") != "0" else None


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `ema-weights` in an empty folder, in this process."""
    from ema_cli import weights_cli
    from ema_cli.console import _invoke

    monkeypatch.chdir(tmp_path)
    # It settles the whole process, which here is that of all tests.
    monkeypatch.setattr("ema_cli.process.set_process_defaults", lambda: None)

    def run(*arguments: str) -> Ran:
        # As run_command does, which would then end this process.
        code = _invoke(weights_cli.command, weights_cli.NAME, list(arguments))
        said = capsys.readouterr()
        assert "internal error" not in said.err
        return Ran(code, said.out, said.err)

    return run
