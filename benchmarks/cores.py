"""The same commands held to one core, to two, and to as many as there are: `python benchmarks/cores.py`.

    python benchmarks/cores.py [--rounds N] [--case NAME] [--old CHECKOUT]

Each case of `run.py` that reads one large text, by ema-smooth and by polars in turn, held to cores by
`taskset`; a ratio is the median of ema-smooth ÷ polars round by round. --old: the package of another checkout
too, beside the new one.

Then what more cores can give. Everything that depends on order is done by one process, so the most is 1 over
its share of all CPU time, `serial`; it works beside its helpers, so until then n processes do n times more.
`serial` is measured: the CPU time of that process from when its helpers are there, with nothing left to it
but what it alone can do. `Amdahl` is the bound for a serial part that nothing goes on beside.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

from run import FOLDER, PYTHON, Case, cases, fresh, helper, measure, parser_of_cases

ROOT = Path(__file__).parent.parent
# ema-smooth with helpers that are waited for, in which the process that folds takes no block for itself and
# has a core to itself, as where there are many; says how much CPU time it took from then on.
ALONE = """
import os, sys, time
from ema_cli.process import set_process_defaults
set_process_defaults()
from ema_cli.run import crew

first, *others = sorted(os.sched_getaffinity(0))
helpers, grow, leave, at = int(sys.argv.pop(1)), crew.Crew._grow, crew.Crew.__exit__, []

def grow_and_wait(self, size):
    grow(self, size)
    while not all(helper.ready for helper in self.helpers):
        self._listen(patient=True)
    for helper in self.helpers:
        os.sched_setaffinity(helper.process.pid, others or [first])
    os.sched_setaffinity(0, [first])
    at.append(time.process_time())

def say(self, *how):
    self._drain()
    print(time.process_time() - at[0], file=sys.stderr)
    leave(self, *how)

crew.helpers_for = lambda size, processes: helpers
crew.Crew._grow, crew.Crew.__exit__ = grow_and_wait, say
crew.Crew._take_one = lambda self, source: False
from ema_cli.cli import main
main()
"""
# And as one process, without its start.
WHOLE = """
import sys, time
from ema_cli.process import set_process_defaults
set_process_defaults()
from ema_cli.run import crew, pipeline
leave, begun = crew.Crew.__exit__, time.process_time()

def say(self, *how):
    leave(self, *how)
    print(time.process_time() - begun, file=sys.stderr)

crew.Crew.__exit__ = say
from ema_cli.cli import main
main()
"""
# More than there are cores, so that the one that folds never waits for room, and takes no block itself.
HELPERS = 4


def held(command: list[str], cores: int) -> list[str]:
    """A command that may use so many of the cores that this process may use."""
    mine = sorted(os.sched_getaffinity(0))[:cores]
    return ["taskset", "-c", ",".join(map(str, mine)), *command]


def seconds(script: str, case: Case, *before: str, after: tuple[str, ...] = ()) -> float:
    """What a script says of a case, as the least of three runs."""
    out = FOLDER / f"out-cores{case.suffix}"
    words = [word.replace("OUT", str(out)) for word in case.commands["ema-smooth"][1:]]
    found = []
    for _ in range(3):
        command = [PYTHON, "-c", script, *before, *words, *after]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        found.append(float(done.stderr.split()[-1]))
    fresh(out)
    return min(found)


def serial_share(case: Case) -> float:
    """The part of the CPU time that one process has to spend alone."""
    return seconds(ALONE, case, str(HELPERS)) / seconds(WHOLE, case, after=("-j", "1"))


def ratios(case: Case, cores: int, rounds: int, old: Path | None) -> dict[str, tuple[float, float, float]]:
    """By contender: median seconds, of the wall and of CPU, and the median ratio to polars' wall time."""
    commands = {"polars": case.commands["polars"], "ema-smooth": case.commands["ema-smooth"]}
    if old is not None:
        commands["before"] = [PYTHON, "-m", "ema_cli", *commands["ema-smooth"][1:]]
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for turn in range(rounds + 1):
        names = [*commands][turn % len(commands) :] + [*commands][: turn % len(commands)]
        for name in names:
            out = FOLDER / f"out-{name}{case.suffix}"
            fresh(out)
            here = Path.cwd()
            os.chdir(old if name == "before" and old is not None else here)
            run = measure(held(commands[name], cores), out)
            os.chdir(here)
            fresh(out)
            if turn:
                runs[name].append((run.wall, run.cpu))
    found = {}
    for name, taken in runs.items():
        wall, cpu = (statistics.median(column) for column in zip(*taken, strict=True))
        both = zip(taken, runs["polars"], strict=True)
        found[name] = wall, cpu, statistics.median(mine[0] / theirs[0] for mine, theirs in both)
    return found


def main() -> None:
    parser = parser_of_cases(__doc__)
    parser.add_argument("--old", type=Path, help="a checkout of another commit")
    given = parser.parse_args()
    all_cores = len(os.sched_getaffinity(0))
    chosen = [
        case
        for case in cases()
        if "polars" in case.commands
        and Path(case.source).suffix in (".csv", ".jsonl")
        and case.name != "100 rows"
        and given.case in case.name
    ]
    print(f"{all_cores} cores, Python {sys.version.split()[0]}\n")
    print("| case | cores | command | wall s | CPU s | wall ÷ polars' |")
    print("|---|---|---|---|---|---|")
    for case in chosen:
        helper("data.py", Path(case.source).name)
        for cores in sorted({1, min(2, all_cores), all_cores}):
            for name, (wall, cpu, ratio) in ratios(case, cores, given.rounds, given.old).items():
                print(
                    f"| {case.name} | {cores} | {name} | {wall:.2f} | {cpu:.2f} | {ratio:.2f} |", flush=True
                )
    print("\n| case | serial | 8 cores, at most | 16 | Amdahl, 8 | 16 |")
    print("|---|---|---|---|---|---|")
    for case in chosen:
        share = serial_share(case)
        most = [min(n, 1 / share) for n in (8, 16)] + [1 / (share + (1 - share) / n) for n in (8, 16)]
        print(f"| {case.name} | {share:.0%} | {' | '.join(f'{times:.1f}' for times in most)} |", flush=True)


if __name__ == "__main__":
    main()
