"""The benchmarks' data: made once, the same on every machine, in `benchmarks/data/`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

FOLDER = Path(__file__).parent / "data"


def make(name: str) -> Path:
    """The file of this name, made if it is not there."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / name
    if not path.exists():
        MAKERS[name](path)
    return path


def narrow(path: Path, rows: int) -> None:
    """Four columns, 38 bytes a row: a row number, two measurements, a number of keys."""
    rng = np.random.default_rng(1)
    table = pa.table(
        {
            "a": np.arange(rows),
            "b": np.round(np.cumsum(rng.normal(size=rows)), 3),
            "c": np.round(rng.normal(100, 5, rows), 4),
            "d": rng.integers(0, 1000, rows),
        }
    )
    write(table, path)


def wide(path: Path) -> None:
    """21 columns of numbers."""
    rng = np.random.default_rng(2)
    write(pa.table({f"c{k}": np.round(rng.normal(size=1_000_000), 5) for k in range(21)}), path)


def keyed(path: Path) -> None:
    """Two million rows of a thousand interleaved keys."""
    rng = np.random.default_rng(3)
    keys = np.array([f"sensor-{k:04d}" for k in range(1000)])[rng.integers(0, 1000, 2_000_000)]
    write(pa.table({"key": keys, "value": np.round(rng.normal(20, 3, 2_000_000), 3)}), path)


def timed(path: Path) -> None:
    """A million rows at irregular times, whole seconds."""
    rng = np.random.default_rng(4)
    seconds = 1_600_000_000 + np.cumsum(rng.integers(1, 600, 1_000_000))
    times = np.datetime_as_string(seconds.astype("datetime64[s]"))
    write(pa.table({"time": times, "value": np.round(rng.normal(20, 3, 1_000_000), 3)}), path)


def lines(path: Path) -> None:
    """A million objects, one a line, as a trainer logs them."""
    rng = np.random.default_rng(6)
    loss = np.round(np.exp(-np.arange(1_000_000) / 3e5) + rng.normal(0, 0.05, 1_000_000), 6).tolist()
    grad = np.round(rng.gamma(2, 0.5, 1_000_000), 6).tolist()
    with path.open("w") as out:
        for step, (x, y) in enumerate(zip(loss, grad, strict=True)):
            out.write(f'{{"step": {step}, "loss": {x}, "grad_norm": {y}, "phase": "train"}}\n')


def write(table: pa.Table, path: Path) -> None:
    if path.suffix == ".parquet":
        pq.write_table(table, path, compression="zstd")
    else:
        pa.csv.write_csv(table, path, pa.csv.WriteOptions(quoting_style="none"))


def many(path: Path) -> None:
    """A folder of 500 files of 200 rows."""
    path.mkdir()
    for k in range(500):
        narrow(path / f"{k:03d}.csv", 200)


MAKERS = {
    "narrow-5M.csv": lambda path: narrow(path, 5_000_000),
    "narrow-5M.parquet": lambda path: narrow(path, 5_000_000),
    "narrow-1M.csv": lambda path: narrow(path, 1_000_000),
    "narrow-20M.csv": lambda path: narrow(path, 20_000_000),
    "narrow-50M.csv": lambda path: narrow(path, 50_000_000),
    "narrow-100.csv": lambda path: narrow(path, 100),
    "wide-1M.csv": wide,
    "many-500": many,
    "keys-2M.csv": keyed,
    "times-1M.csv": timed,
    "lines-1M.jsonl": lines,
}


if __name__ == "__main__":
    make(sys.argv[1])
