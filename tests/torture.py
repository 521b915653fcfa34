"""An hour of ill treatment, on purpose: python tests/torture.py [--minutes 60] [--only kill,memory]

kill      SIGKILL at random moments, rerun: no torn output, no wrong state
disk      the disk full at every kind of moment: old files stay
fuzz      10,000 cases and more a property, where the suite takes 100
memory    a stream of more than 2 GB, and a file of that size, in bounded memory
keys      a million keys, through a state and back

Prints a table for docs/reliability.md, with the date; exits 1 if anything failed.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import os
import platform
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-m", "ema_cli"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def rows(count: int, start: int = 0) -> Iterator[bytes]:
    """Pieces of a table `t,key,v`, without its header, 100,000 rows each."""
    for begin in range(start, start + count, 100_000):
        end = min(begin + 100_000, start + count)
        yield b"".join(b"%d,k%d,%.3f\n" % (k, k % 97, (k * 7919 % 10007) / 10) for k in range(begin, end))


def run(*arguments: str | Path, **more: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*COMMAND, *map(str, arguments)], env=ENVIRONMENT, check=False, **more)  # type: ignore[call-overload,no-any-return]


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def kill(folder: Path, seconds: float) -> str:
    """Each round: a run of the second half, killed at some moment, then the same command again."""
    begin, chance, rounds, hits = time.monotonic(), random.Random(1), 0, 0
    for name, start in (("a.csv", 0), ("b.csv", 300_000)):
        (folder / name).write_bytes(b"t,key,v\n" + b"".join(rows(300_000, start)))
    options = ["--alpha", "0.01", "--std", "--by", "key", "-c", "v", "--state", folder / "s"]
    run(folder / "a.csv", *options, "-o", folder / "a.out")
    state = (folder / "s").read_bytes()
    began = time.monotonic()
    run(folder / "b.csv", *options, "-o", folder / "b.out")
    takes = time.monotonic() - began
    right, after = digest(folder / "b.out"), digest(folder / "s")
    while time.monotonic() - begin < seconds:
        (folder / "s").write_bytes(state)
        (folder / "b.out").write_bytes(b"old\n")
        process = subprocess.Popen(
            [*COMMAND, *map(str, [folder / "b.csv", *options, "-o", folder / "b.out"])], env=ENVIRONMENT
        )
        time.sleep(chance.uniform(0, takes * 1.1))
        process.send_signal(signal.SIGKILL)
        hits += process.wait() == -signal.SIGKILL
        torn = (folder / "b.out").read_bytes()[:4] != b"old\n" and digest(folder / "b.out") != right
        assert not torn, f"round {rounds}: the output is torn"
        assert digest(folder / "s") in (after, hashlib.sha256(state).hexdigest()), (
            f"round {rounds}: the state is torn"
        )
        if digest(folder / "s") != after:
            assert run(folder / "b.csv", *options, "-o", folder / "b.out").returncode == 0, (
                f"round {rounds}: rerun"
            )
        assert (digest(folder / "b.out"), digest(folder / "s")) == (right, after), (
            f"round {rounds}: wrong after a rerun"
        )
        rounds += 1
    return f"{rounds} rounds, {hits} killed in mid-run: none torn, every rerun right"


def disk(folder: Path, seconds: float) -> str:
    """No file may grow beyond some size: writing fails as it does on a full disk."""
    begin, chance, rounds, failed = time.monotonic(), random.Random(2), 0, 0
    (folder / "in.csv").write_bytes(b"t,key,v\n" + b"".join(rows(50_000)))
    while time.monotonic() - begin < seconds:
        (folder / "out.csv").write_bytes(b"old\n")
        (folder / "s").unlink(missing_ok=True)
        limit = int(2 ** chance.uniform(6, 22))

        def limited(limit: int = limit) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        options = ["--alpha", "0.1", "-c", "v", "--state", folder / "s", "-o", folder / "out.csv"]
        done = run(folder / "in.csv", *options, preexec_fn=limited, stderr=subprocess.PIPE)
        if done.returncode:
            failed += 1
            assert done.returncode == 1, done.stderr
            assert b"Traceback" not in done.stderr
            assert (folder / "out.csv").read_bytes() == b"old\n"
            assert not (folder / "s").exists()
        left = sorted(path.name for path in folder.iterdir())
        assert left in (["in.csv", "out.csv"], ["in.csv", "out.csv", "s"]), left
        rounds += 1
    assert failed, "nothing ever failed: the limit did not hold"
    return f"{rounds} runs, {failed} out of room: the old files stayed, nothing was left"


def fuzz(_: Path, seconds: float) -> str:
    """The suite's own properties with many more examples, as long as there is time."""
    environment = ENVIRONMENT | {"EMA_HYPOTHESIS": "long", "EMA_EXAMPLES": "20"}
    tests = ["tests/faults/test_fuzz.py", "tests/laws"]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--timeout", str(int(seconds) + 60), *tests]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return f"{seconds / 60:.0f} minutes of it, not to its end: nothing found"
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout.strip().splitlines()[-1]


def memory(folder: Path, seconds: float) -> str:
    """More than 2 GB through a pipe; the command's own peak is asked of the system."""
    size = int(2.2e9 if seconds >= 300 else 1e8)
    piece = b"".join(rows(1_000_000))
    out = folder / "null"
    out.symlink_to(os.devnull)
    process = subprocess.Popen(
        [*COMMAND, "--alpha", "0.01", "-c", "v", "-o", str(out)], stdin=subprocess.PIPE, env=ENVIRONMENT
    )
    assert process.stdin is not None
    process.stdin.write(b"t,key,v\n")
    sent = 0
    while sent < size:
        process.stdin.write(piece)
        sent += len(piece)
    process.stdin.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    peak = usage.ru_maxrss / 1024
    assert peak < 400, f"{peak:.0f} MB"
    return f"{sent / 1e9:.1f} GB of CSV through a pipe: peak {peak:.0f} MB"


def keys(folder: Path, seconds: float) -> str:
    """Every row a new key, then every key again through the state."""
    count = 1_000_000 if seconds >= 120 else 100_000
    (folder / "in.csv").write_bytes(b"k,v\n" + b"".join(b"key-%d,%d\n" % (k, k % 1000) for k in range(count)))
    options = [folder / "in.csv", "--by", "k", "-c", "v", "--alpha", "0.5", "--state", folder / "s"]
    begin = time.monotonic()
    for name in ("one.csv", "two.csv"):
        assert run(*options, "-o", folder / name).returncode == 0
    takes = time.monotonic() - begin
    assert digest(folder / "one.csv") == digest(folder / "two.csv")  # each key's value has not changed
    size = (folder / "s").stat().st_size / 1e6
    return f"{count:,} keys twice through a state of {size:.0f} MB in {takes:.0f} s"


PARTS = {
    "kill": (kill, 0.35),
    "disk": (disk, 0.1),
    "fuzz": (fuzz, 0.4),
    "memory": (memory, 0.1),
    "keys": (keys, 0.05),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, by commas")
    options = parser.parse_args()
    failed = False
    today = datetime.datetime.now(datetime.UTC).date()
    system = f"{platform.system()}, Python {platform.python_version()}, {os.cpu_count()} processors"
    print(f"{today}, {system}, {options.minutes:g} minutes\n")
    print("| part | result |\n|---|---|", flush=True)
    for name in options.only.split(","):
        part, share = PARTS[name]
        with tempfile.TemporaryDirectory(prefix="ema-torture-") as folder:
            try:
                said = part(Path(folder), options.minutes * 60 * share)
            except AssertionError as error:
                said, failed = f"**failed**: {error}", True
        print(f"| {name} | {said} |", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
