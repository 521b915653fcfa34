"""Do two outputs agree? `agree.py OURS THEIRS TOLERANCE COLUMN...` exits with 1 if not."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq


def new_columns(path: Path, names: list[str]) -> list[np.ndarray]:
    """The new columns of an output, by name or, for Miller's names, by place."""
    table = pq.read_table(path) if path.suffix == ".parquet" else pa.csv.read_csv(path)
    present = [name for name in names if name in table.column_names] or table.column_names[-len(names) :]
    return [table[name].cast(pa.float64()).to_numpy() for name in present]


def main() -> None:
    ours, theirs, tolerance, *names = sys.argv[1:]
    pairs = zip(new_columns(Path(ours), names), new_columns(Path(theirs), names), strict=True)
    for name, (a, b) in zip(names, pairs, strict=True):
        np.testing.assert_allclose(a, b, rtol=float(tolerance), atol=float(tolerance), err_msg=name)


if __name__ == "__main__":
    main()
