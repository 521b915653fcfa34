"""Batches are bounded by bytes as well as rows, and however they were cut the groups are the same."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from ema_cli.formats.base import Projection
from ema_cli.formats.columnar import BATCH_BYTES
from ema_cli.formats.parquet.source import ParquetSource
from ema_cli.formats.regroup import Regrouper, row_bytes

CELLS = st.one_of(st.none(), st.text(max_size=30))


@settings(deadline=None)
@given(
    st.lists(st.tuples(CELLS, CELLS, st.lists(st.integers(0, 9), max_size=3)), max_size=40),
    st.lists(st.integers(0, 40), max_size=5),
    st.integers(1, 12),
    st.integers(1, 300),
)
def test_groups_do_not_depend_on_the_cut(
    rows: list[tuple[str | None, str | None, list[int]]], at: list[int], most: int, bytes_: int
) -> None:
    batch = pa.RecordBatch.from_arrays(
        [
            pa.array([row[0] for row in rows], pa.string()),
            pa.array([row[1] for row in rows], pa.large_string()).dictionary_encode(),
            pa.array([row[2] for row in rows], pa.list_(pa.int64())),
            pa.array(range(len(rows)), pa.int64()),
        ],
        names=["s", "d", "l", "n"],
    )
    found = []
    for cuts in ([], sorted(min(k, len(rows)) for k in at)):
        groups = Regrouper(most, bytes_)
        out = []
        for begin, end in pairwise([0, *cuts, len(rows)]):
            out += list(groups.add(batch.slice(begin, end - begin)))
        out += [rest] if (rest := groups.rest()) else []
        found.append([[n for part in group for n in part["n"].to_pylist()] for group in out])
    assert found[0] == found[1]
    assert [n for group in found[0] for n in group] == list(range(len(rows)))
    sizes = row_bytes(batch)
    for group in found[0]:
        assert 0 < len(group) <= most
        assert len(group) == 1 or sizes[group].sum() <= bytes_


def test_long_texts_in_a_small_file_are_read_a_few_at_a_time(tmp_path: Path) -> None:
    """4,000 texts of 40 kB, which a dictionary makes a small file of; after many short ones."""
    texts = pa.array(["short"] * 20_000 + ["a" * 40_000, "b" * 40_000] * 2_000)
    pq.write_table(pa.table({"s": texts, "x": np.arange(24_000.0)}), tmp_path / "long.parquet")
    assert (tmp_path / "long.parquet").stat().st_size < 1 << 20
    source = ParquetSource(tmp_path / "long.parquet", "long")
    rows, most = 0, 0
    for batch in source.batches(Projection((1,))):
        assert batch.values[:, 0].tolist() == list(range(rows, rows + batch.rows))
        rows += batch.rows
        most = max(most, batch.body.arrow().nbytes)
    source.close()
    assert rows == 24_000
    assert most <= BATCH_BYTES + 40_000
