"""Whole commands against whole commands, in turn, in one run: `make bench`.

    python benchmarks/run.py [--rounds N] [--case NAME] [--long]

Every case is run by ema-smooth and by each peer that is installed, as their users would write it (`peers/`).
What they write is compared before a ratio counts. The table gives medians of wall and CPU time, and the
median of the ratios ema-smooth / peer taken round by round, so that a machine whose speed drifts does not
matter; each round begins with another contender. Peak memory is of all processes of a command together, from
a run of its own that is watched, which takes time. --long adds what takes minutes: ever larger inputs.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

HERE = Path(__file__).parent
FOLDER = HERE / "data"
PYTHON = sys.executable
# An installed package has its bytecode beside it, as ours has once it ran where Python may write it.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
EMA = [str(Path(PYTHON).parent / "ema-smooth")]


@dataclass
class Case:
    """One task. commands: by contender, with OUT for the file to write; new: columns that must agree."""

    name: str
    source: str
    commands: dict[str, list[str]]
    new: list[str] = field(default_factory=list)
    suffix: str = ".csv"  # of the output; "/" for a folder
    differ: tuple[str, ...] = ()  # contenders whose numbers are other ones by definition
    long: bool = False


def peer(script: str, source: str, *arguments: str) -> list[str]:
    return [PYTHON, str(HERE / "peers" / script), source, "OUT", *arguments]


def cases() -> list[Case]:
    plain = str(FOLDER / "narrow-5M.csv")
    wide, keys, times = (str(FOLDER / name) for name in ("wide-1M.csv", "keys-2M.csv", "times-1M.csv"))
    many, lines = str(FOLDER / "many-500"), str(FOLDER / "lines-1M.jsonl")
    parquet, small = str(FOLDER / "narrow-5M.parquet"), str(FOLDER / "narrow-100.csv")
    chosen = ["-c", "b", "-c", "c", "--alpha", "0.1", "-o", "OUT"]
    miller = ["sh", "-c", f"mlr --csv step -a ewma -d 0.1 -f b,c {plain} > OUT"]
    mawk = ["sh", "-c", f"mawk -f {HERE / 'peers' / 'ewma.awk'} {plain} > OUT"]
    b_c = ["b_ema", "c_ema"]
    return [
        Case("5M rows × 4 columns, 2 smoothed", plain, {
            "ema-smooth": [*EMA, plain, *chosen], "polars": peer("polars_plain.py", plain, "b", "c"),
            "pandas": peer("pandas_plain.py", plain, "b", "c"), "mawk": mawk, "Miller": miller}, b_c),
        Case("1M rows × 21 columns, 2 smoothed", wide, {
            "ema-smooth": [*EMA, wide, "-c", "c3", "-c", "c7", "--alpha", "0.1", "-o", "OUT"],
            "polars": peer("polars_plain.py", wide, "c3", "c7")}, ["c3_ema", "c7_ema"]),
        Case("5M rows, Parquet to Parquet, zstd", parquet, {
            "ema-smooth": [*EMA, parquet, *chosen], "polars": peer("polars_parquet.py", parquet, "b", "c"),
            "pandas": peer("pandas_parquet.py", parquet, "b", "c")}, b_c, ".parquet"),
        Case("1M rows × 4 columns, as a recursive query", str(FOLDER / "narrow-1M.csv"), {
            "ema-smooth": [*EMA, str(FOLDER / "narrow-1M.csv"), *chosen],
            "DuckDB": peer("duckdb_plain.py", str(FOLDER / "narrow-1M.csv"), "b", "c")}, b_c),
        Case("2M rows, 1,000 keys", keys, {
            "ema-smooth": [*EMA, keys, "-c", "value", "--by", "key", "--alpha", "0.1", "-o", "OUT"],
            "polars": peer("polars_keys.py", keys, "key", "value"),
            "pandas": peer("pandas_keys.py", keys, "key", "value")}, ["value_ema"]),
        Case("1M rows, irregular times", times, {
            "ema-smooth": [*EMA, times, "-c", "value", "--time", "time", "--halflife", "1h", "-o", "OUT"],
            "polars": peer("polars_times.py", times, "time", "value"),
            "pandas": peer("pandas_times.py", times, "time", "value")}, ["value_ema"], differ=("pandas",)),
        Case("1M JSON lines", lines, {
            "ema-smooth": [*EMA, lines, "-c", "loss", "-c", "grad_norm", "--alpha", "0.1", "-o", "OUT"],
            "polars": peer("polars_jsonl.py", lines, "loss", "grad_norm"),
            "a loop": peer("json_loop.py", lines, "loss", "grad_norm")},
            ["loss_ema", "grad_norm_ema"], ".jsonl"),
        Case("100 rows", small, {
            "ema-smooth": [*EMA, small, *chosen], "polars": peer("polars_plain.py", small, "b", "c"),
            "import numpy": [PYTHON, "-c", "import numpy"]}, b_c, differ=("import numpy",)),
        Case("--help", small, {
            "ema-smooth": [*EMA, "--help"], "import numpy": [PYTHON, "-c", "import numpy"]},
            differ=("import numpy",)),
        Case("500 files of 200 rows", many, {
            "ema-smooth": ["sh", "-c", f"{EMA[0]} {many}/*.csv -c b -c c --alpha 0.1 --output-dir OUT 2>&1"],
            "Miller": ["sh", "-c", f"for f in {many}/*.csv; do mlr --csv step -a ewma -d 0.1 -f b,c $f"
                       " > OUT/${f##*/}; done"]}, b_c, "/"),
        *(Case(f"{size} rows × 4 columns, for the memory", str(FOLDER / f"narrow-{size}.csv"), {
            "ema-smooth": [*EMA, str(FOLDER / f"narrow-{size}.csv"), *chosen]}, long=True)
          for size in ("1M", "5M", "20M", "50M")),
    ]  # fmt: skip


@dataclass
class Run:
    """What one run of a command took: seconds, seconds of CPU, MB at the most."""

    wall: float
    cpu: float
    memory: float


def measure(command: list[str], out: Path, watch: Callable[[int], None] | None = None) -> Run:
    """Run a command as a process of its own, as the system counts it. watch: given its number meanwhile."""
    arguments = [word.replace("OUT", str(out)) for word in command]
    begin = time.perf_counter()
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
    if watch is not None:
        watch(process.pid)
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"failed: {' '.join(arguments)}")
    return Run(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def peak_of_all(command: list[str], out: Path) -> float:
    """The most memory (MB) that a command's processes have at one time; pages they share count once."""
    found = [0]

    def sample(pid: int) -> None:
        while processes := tree(pid):
            found.append(sum(map(memory_of, processes)))
            time.sleep(0.002)

    def watch(pid: int) -> None:
        threading.Thread(target=sample, args=[pid]).start()

    return max(measure(command, out, watch).memory, max(found) / 1024)


def tree(pid: int) -> list[int]:
    """A process and all that it has started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in tree(int(child)))]


def memory_of(pid: int) -> int:
    """A process's share (kB) of the pages it has."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def fresh(out: Path) -> None:
    """Clear the place of an output; a folder is made for outputs that go into one."""
    shutil.rmtree(out, ignore_errors=True) if out.is_dir() else out.unlink(missing_ok=True)
    if not out.suffix:
        out.mkdir()


def helper(script: str, *arguments: str) -> None:
    """Run a script of this folder in a process of its own, or its memory would count as its siblings'."""
    if subprocess.run([PYTHON, str(HERE / script), *arguments], check=False).returncode:
        raise SystemExit(f"failed: {script} {' '.join(arguments)}")


def check(case: Case, outputs: dict[str, Path]) -> None:
    """Stop where a peer's numbers are not ours."""
    for name, path in outputs.items():
        if case.new and name != "ema-smooth" and name not in case.differ:
            # Miller prints 6 decimals unless told otherwise, as its users leave it.
            tolerance = "1e-5" if name == "Miller" else "1e-9"
            helper("agree.py", str(outputs["ema-smooth"]), str(path), tolerance, *case.new)


def installed(name: str) -> bool:
    """Whether a contender is there that is not among the constraints."""
    if name == "DuckDB":
        return importlib.util.find_spec("duckdb") is not None
    return shutil.which({"Miller": "mlr", "mawk": "mawk"}.get(name, "sh")) is not None


def compare(case: Case, rounds: int) -> dict[str, list[Run]]:
    """All contenders in turn, so many rounds after one that is not counted."""
    helper("data.py", Path(case.source).name)
    contenders = {name: command for name, command in case.commands.items() if installed(name)}
    outputs = {name: FOLDER / f"out-{name.replace(' ', '-')}{case.suffix.rstrip('/')}" for name in contenders}
    runs: dict[str, list[Run]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        order = [*contenders][turn % len(contenders) :] + [*contenders][: turn % len(contenders)]
        for name in order:
            fresh(outputs[name])
            run = measure(contenders[name], outputs[name])
            if turn:
                runs[name].append(run)
        if not turn:
            check(case, outputs)
    for name, command in contenders.items():
        fresh(outputs[name])
        peak = peak_of_all(command, outputs[name])
        runs[name] = [replace(run, memory=peak) for run in runs[name]]
    for path in outputs.values():
        fresh(path)
        if path.is_dir():
            path.rmdir()
    return runs


FIGURES = ("wall", "cpu", "memory")


def rows(case: Case, runs: dict[str, list[Run]]) -> list[str]:
    """The table's rows for one case."""
    out = []
    for name, theirs in runs.items():
        wall, cpu, memory = (statistics.median(getattr(run, key) for run in theirs) for key in FIGURES)
        row = [case.name if not out else "", name, f"{wall:.2f}", f"{cpu:.2f}", f"{memory:.0f}"]
        pairs = list(zip(runs["ema-smooth"], theirs, strict=True))
        for key in FIGURES:
            ratio = statistics.median(getattr(a, key) / getattr(b, key) for a, b in pairs)
            row.append(f"{ratio:.2f}" if out else "")
        out.append(f"| {' | '.join(row)} |")
    return out


def parser_of_cases(about: str | None) -> argparse.ArgumentParser:
    """What a benchmark of these cases is asked with."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--case", default="", help="only cases whose name holds this")
    return parser


def main() -> None:
    parser = parser_of_cases(__doc__)
    parser.add_argument("--long", action="store_true", help="the long cases too")
    given = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| case | command | wall s | CPU s | peak MB | wall ratio | CPU ratio | memory ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for case in cases():
        if given.case in case.name and (given.long or not case.long):
            print("\n".join(rows(case, compare(case, given.rounds))), flush=True)


if __name__ == "__main__":
    main()
