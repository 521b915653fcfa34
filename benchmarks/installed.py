"""What an installation holds, and what its imports cost: python benchmarks/installed.py [EXTRA]...

The core and each extra (weights, plot and dask, unless others are named) are installed from this checkout
into an environment of their own, at the versions of constraints.txt. Sizes are those of the files that lie
in it without pip, bytecode included: what a disk or an image pays. Times are of CPU, the least of nine new
processes, less what Python takes to start and end; so a busy machine does little harm. Not for Windows.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from importlib.metadata import Distribution, distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 9
# What each installation is for, as its users begin with it.
BEGINNINGS = {
    "": [
        "import ema_cli",
        "from ema_cli import smooth",
        "from ema_cli import Smoother",
        "from ema_cli import ParameterEMA",
        "from ema_cli.cli import command",
        "import pandas",
    ],
    "weights": ["import ml_dtypes"],
    "plot": ["import ema_cli.plotting.picture"],
    "dask": ["import ema_cli.cluster.client"],
    "lightning": ["import ema_cli.integrations.lightning"],
    "transformers": ["import ema_cli.integrations.transformers"],
}


def install(extra: str, folder: Path) -> Path:
    """An environment with the package and one extra; its Python."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    wanted = f"{ROOT}[{extra}]" if extra else str(ROOT)
    subprocess.run([*pip, "--constraint", ROOT / "constraints.txt", wanted], check=True)
    return python


def sizes(python: Path) -> Counter[str]:
    """MB of each distribution in an environment, pip's own excepted."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    found = {one.name: size(one) for one in distributions(path=[site])}
    return Counter({name: mb for name, mb in found.items() if name not in ("pip", "setuptools")})


def size(one: Distribution) -> float:
    paths = [Path(str(one.locate_file(file))) for file in one.files or []]
    return sum(path.stat().st_size for path in paths if path.exists()) / 1e6


def milliseconds(python: Path, code: str) -> float:
    """Of CPU, user's and system's, that a new process takes for this code; the least of some."""

    def once() -> float:
        process = subprocess.Popen([python, "-c", code], cwd=tempfile.gettempdir())
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, code
        return 1000 * (usage.ru_utime + usage.ru_stime)

    return min(once() for _ in range(ROUNDS))


def main() -> None:
    core: Counter[str] = Counter()
    print("| installed | MB | of which |\n|---|---|---|", flush=True)
    times: list[str] = []
    for extra in ["", *(sys.argv[1:] or ["weights", "plot", "dask"])]:
        with tempfile.TemporaryDirectory(prefix="ema-installed-") as folder:
            python = install(extra, Path(folder))
            found = sizes(python)
            core = core or found
            more = Counter({name: mb for name, mb in found.items() if not extra or name not in core})
            parts = [f"{name} {mb:.1f}" for name, mb in more.most_common() if mb >= 0.05 * more.total()]
            name = f"`[{extra}]` adds" if extra else "the core"
            print(f"| {name} | {more.total():.0f} | {', '.join(parts)} |", flush=True)
            nothing = milliseconds(python, "pass")
            for code in BEGINNINGS[extra]:
                times.append(f"| `{code}` | {milliseconds(python, code) - nothing:.0f} |")
    print("\n| a new process | ms of CPU |\n|---|---|", *times, sep="\n")


if __name__ == "__main__":
    main()
