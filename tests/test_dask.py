"""`--dask`: the outputs of one process, bit for bit, from a real cluster of processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ema_cli.average import make_average
from ema_cli.errors import EmaError
from ema_cli.folder import Tally, run_folder
from ema_cli.job import Job
from tests.conftest import Workshop

distributed = pytest.importorskip("distributed", reason="Dask is an extra: pip install 'ema-smooth[dask]'")

PARTS = 7
MODES: list[dict[str, Any]] = [
    {"alpha": ("0.1", "1e-4")},
    {"alpha": ("0.1",), "adjust": True, "std": True, "residual": True},
    {"alpha": ("0.3",), "missing": "decay", "bands": 2.0, "fill": True, "by": ("k",)},
    {"alpha": ("0.01",), "missing": "decay", "adjust": True, "min_periods": 900, "by": ("k", "x")},
    {"span": "700", "init": "sma", "std": True},
    {"halflife": "2s", "time": "t", "std": True},
    {"halflife": "2s", "time": "t", "adjust": True, "by": ("k",), "fill": True},
    {"halflife": "300ms", "time": "t", "reset_gap": "5s", "by": ("k",)},
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two worker processes, for all tests of this file."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
    ) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Parts of one table, of different lengths, one of them without rows."""
    folder = tmp_path_factory.mktemp("in")
    rng = np.random.default_rng(11)
    names, clock = [], 0
    for part in range(PARTS):
        rows = [0, 1, 40, 5_000, 9_000, 300, 12_000][(part + 3) % PARTS]
        lines = ["t,k,x,y"]
        for _ in range(rows):
            clock += int(rng.choice([0, 1, 50, 2_000, 20_000], p=[0.3, 0.3, 0.3, 0.09, 0.01]))
            y = "" if rng.random() < 0.1 else f"{rng.standard_normal():.3f}"
            lines.append(f"{clock},{'abc'[rng.integers(3)]},{rng.integers(100)},{y}")
        path = folder / f"part-{part}.csv"
        path.write_text("\n".join(lines) + "\n")
        names.append(str(path))
    return tuple(names)


def make_job(inputs: tuple[str, ...], options: dict[str, Any], **more: Any) -> Job:
    here = {name: options[name] for name in ("by", "time") if name in options}
    average = make_average({n: v for n, v in options.items() if n not in here}, timed="time" in here)
    unit = "ms" if "time" in here else None
    return Job(average=average, inputs=inputs, columns=("y",), time_unit=unit, **here, **more)


def on_cluster(cluster: Any, job: Job, folder: Path, **options: Any) -> Tally:
    from ema_cli.extras.dask import run_on_cluster

    return run_on_cluster(job, str(folder), cluster.scheduler_address, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_chain_is_what_it_is_in_one_process(
    mode: dict[str, Any], cluster: Any, inputs: tuple[str, ...], tmp_path: Path
) -> None:
    """Two runs joined by a state, in each of the two ways: outputs and states are the same files."""
    one, many = tmp_path / "one", tmp_path / "many"
    for some in (inputs[:3], inputs[3:]):
        job = make_job(some, mode)
        assert (
            run_folder(replace(job, state=str(tmp_path / "one.state")), str(one), chain=True).exit_code == 0
        )
        tally = on_cluster(cluster, replace(job, state=str(tmp_path / "many.state")), many, chain=True)
        assert tally.exit_code == 0
        assert tally.written == len(some)
    assert contents(one) == contents(many)
    assert (tmp_path / "one.state").read_bytes() == (tmp_path / "many.state").read_bytes()


def test_parquet_and_series_of_their_own(cluster: Any, inputs: tuple[str, ...], tmp_path: Path) -> None:
    for chain in (True, False):
        job = make_job(inputs, MODES[0], target="parquet")
        one, many = tmp_path / f"one{chain}", tmp_path / f"many{chain}"
        run_folder(job, str(one), chain=chain)
        assert on_cluster(cluster, job, many, chain=chain).exit_code == 0
        assert contents(one) == contents(many)
        again = replace(job, inputs=tuple(map(str, sorted(one.iterdir()))), only=True, target=None)
        run_folder(again, str(one) + "2", chain=chain)
        on_cluster(cluster, again, Path(str(many) + "2"), chain=chain)
        assert contents(Path(str(one) + "2")) == contents(Path(str(many) + "2"))
