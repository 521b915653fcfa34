"""Do two outputs, or folders of them, agree? `agree.py OURS THEIRS TOLERANCE COLUMN...`; else exit code 1."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq


def new_columns(path: Path, names: list[str]) -> list[np.ndarray]:
    """The new columns of an output, by name or, for Miller's names, by place."""
    readers = {".parquet": pq.read_table, ".jsonl": pa.json.read_json}
    table = readers.get(path.suffix, pa.csv.read_csv)(path)
    present = [name for name in names if name in table.column_names] or table.column_names[-len(names) :]
    return [table[name].cast(pa.float64()).to_numpy() for name in present]


def main() -> None:
    ours, theirs, tolerance, *names = sys.argv[1:]
    for one in sorted(Path(ours).iterdir()) if Path(ours).is_dir() else [Path(ours)]:
        other = Path(theirs, one.name) if Path(theirs).is_dir() else Path(theirs)
        pairs = zip(new_columns(one, names), new_columns(other, names), strict=True)
        for name, (a, b) in zip(names, pairs, strict=True):
            message = f"{one.name}, {name}"
            np.testing.assert_allclose(a, b, rtol=float(tolerance), atol=float(tolerance), err_msg=message)


if __name__ == "__main__":
    main()
