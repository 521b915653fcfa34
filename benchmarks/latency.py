"""How long a line takes from a live pipe's one end to the other: `python benchmarks/latency.py`.

Writes one line, waits for its answer, writes the next; prints percentiles over 2,000 lines beside those of
`cat`, which is what the pipe itself costs.
"""

from __future__ import annotations

import subprocess
import sys
import time

LINES = 2000


def waits(command: list[str], header: bytes, answered: int) -> list[float]:
    """Milliseconds from line in to line out, sorted. answered: lines that the header and first row give."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        if process.stdin is None or process.stdout is None:
            raise SystemExit("no pipes")
        process.stdin.write(header + b"0,0\n")
        got = b""
        while got.count(b"\n") < answered:
            got += process.stdout.read(1000) or b""
        out = []
        for k in range(LINES):
            begin = time.perf_counter()
            process.stdin.write(b"%d,%d\n" % (k, k % 7))
            while not (process.stdout.read(1000) or b"\n").endswith(b"\n"):
                pass
            out.append((time.perf_counter() - begin) * 1000)
            time.sleep(0.0005)
    return sorted(out)


def main() -> None:
    ours = [sys.executable, "-m", "ema_cli", "-c", "v", "--alpha", "0.1"]
    print("| command | median ms | p99 ms | worst ms |\n|---|---|---|---|")
    for name, command in (("ema-smooth", ours), ("cat", ["cat"])):
        found = waits(command, b"k,v\n", 2)
        print(f"| {name} | {found[LINES // 2]:.2f} | {found[LINES * 99 // 100]:.2f} | {found[-1]:.2f} |")


if __name__ == "__main__":
    main()
