"""The laws of the specification, from file to file: every mode, through CSV, Parquet, blocks of any size.

That the numbers are right is held by `test_engine.py` against the plain loop; here the whole road has to
give those very bits, and to leave everything else as it was.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ema_cli.formats.text import source as text
from ema_cli.io import streams
from ema_cli.job import Job
from ema_cli.run.pipeline import run
from ema_cli.trends import Trends
from tests.engine.engine_cases import Case, cases, examples, feed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("laws")


def expected(case: Case) -> NDArray[np.float64]:
    """The new fields, straight from the engine."""
    return feed(Trends(case.average, case.values.shape[1]), case, {})


def job_of(case: Case, source: Path, target: Path) -> Job:
    columns = tuple(f"v{k}" for k in range(case.values.shape[1]))
    timed = None if case.times is None else "t"
    by = () if case.keys is None else ("k",)
    options: dict[str, Any] = {"columns": columns, "by": by, "time": timed, "time_unit": timed and "ns"}
    options["weights"] = None if case.weights is None else "w"
    return Job(case.average, (str(source),), str(target), **options)


def records(case: Case, ending: str) -> list[str]:
    """The case as a CSV table whose other column holds what CSV allows."""
    names = [f"v{k}" for k in range(case.values.shape[1])]
    lines = [",".join(['"odd ""name"""', *names, "t", "k", "w"])]
    rng = np.random.default_rng(case.seed)
    others = ["", "plain", '"a, b"', '"two\nlines"', '"say ""so"""', ' "x', "007", "ü"]
    for row in range(len(case.values)):
        cells = ["" if np.isnan(x) else repr(float(x)) for x in case.values[row]]
        cells = [f'"{cell}"' if cell and rng.random() < 0.05 else cell for cell in cells]
        time = "" if case.times is None else str(case.times[row])
        key = "" if case.keys is None else f"key {case.keys[row]}"
        weight = 1.0 if case.weights is None else float(case.weights[row])
        lines.append(",".join([str(rng.choice(others)), *cells, time, key, repr(weight)]))
    return [line + ending for line in lines]


def check(out: str, lines: list[str], case: Case, ending: str) -> None:
    """Law 1: every record as it was, then its new fields; and those are the engine's very bits."""
    names = case.average.all_names([f"v{k}" for k in range(case.values.shape[1])])
    found, at = [], 0
    for line in lines:
        own = line.removesuffix(ending)
        assert out.startswith(own + ",", at)
        end = out.index(ending, at + len(own))
        found.append(out[at + len(own) + 1 : end].split(","))
        at = end + len(ending)
    assert at == len(out)
    assert found[0] == names
    values = np.array([[float(cell or "nan") for cell in row] for row in found[1:]]).reshape(-1, len(names))
    assert np.array_equal(values, expected(case), equal_nan=True)


@given(cases(max_rows=130, more=True), st.sampled_from(["\n", "\r\n"]), st.sampled_from([64, 1000, 1 << 21]))
@examples(60)
def test_csv(folder: Path, case: Case, ending: str, block: int) -> None:
    source, target = folder / "in.csv", folder / "out.csv"
    lines = records(case, ending)
    source.write_bytes("".join(lines).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "BLOCK_BYTES", block)
        patch.setattr(text, "BLOCK_BYTES", block)
        run(job_of(case, source, target))
    check(target.read_bytes().decode(), lines, case, ending)


@given(cases(max_rows=300, more=True), st.integers(1, 300))
@examples(40)
def test_parquet(folder: Path, case: Case, group: int) -> None:
    source, target = folder / "in.parquet", folder / "out.parquet"
    columns = {f"v{k}": pa.array(column, from_pandas=True) for k, column in enumerate(case.values.T)}
    if case.times is not None:
        columns["t"] = pa.array(case.times, pa.timestamp("ns", "UTC"))
    if case.keys is not None:
        columns["k"] = pa.array(case.keys)
    if case.weights is not None:
        columns["w"] = pa.array(case.weights, from_pandas=True)
    table = pa.table(columns)
    pq.write_table(table, source, row_group_size=group)
    run(replace(job_of(case, source, target), time_unit=None))
    out = pq.read_table(target)
    assert out.select(range(table.num_columns)).equals(table)
    fields = expected(case)
    for k, column in enumerate(out.columns[table.num_columns :]):
        assert np.array_equal(column.to_numpy(), fields[:, k], equal_nan=True)
        assert column.null_count == int(np.isnan(fields[:, k]).sum())


@given(cases(max_rows=130, keyed=False, more=True), st.lists(st.integers(0, 130), max_size=4))
@examples(40)
def test_parts_are_one_series(folder: Path, case: Case, cuts: list[int]) -> None:
    lines = records(case, "\n")
    bounds = [0, *sorted(min(cut, len(case.values)) for cut in cuts), len(case.values)]
    names = []
    for k, (begin, end) in enumerate(pairwise(bounds)):
        names.append(folder / f"part{k}.csv")
        names[-1].write_text(lines[0] + "".join(lines[begin + 1 : end + 1]).removesuffix("\n" * (k == 0)))
    job = job_of(case, names[0], folder / "out.csv")
    run(replace(job, inputs=tuple(map(str, names))))
    out = (folder / "out.csv").read_text()
    check(out.removesuffix("\n") + "\n", lines, case, "\n")
