"""`--dask`: the outputs of one process, bit for bit, from a real cluster of processes."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from asyncio import CancelledError
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ema_cli.average import make_average
from ema_cli.errors import EmaError
from ema_cli.job import Job
from ema_cli.run.batch import Tally, run_folder
from tests.conftest import Workshop

distributed = pytest.importorskip("distributed", reason="Dask is an extra: make test EXTRAS=[dask]")

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
        n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50
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
    from ema_cli.cluster.client import run_on_cluster

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


def test_a_worker_that_dies_is_made_up_for(cluster: Any, inputs: tuple[str, ...], tmp_path: Path) -> None:
    job = make_job(inputs, MODES[2])
    one, many = tmp_path / "one", tmp_path / "many"
    run_folder(job, str(one), chain=True)
    killed: list[int] = []

    def kill_one() -> None:
        for _ in range(2_000):
            if many.exists() and len(contents_seen(many)) >= 2:
                killed.append(next(iter(cluster.workers.values())).pid)
                os.kill(killed[0], signal.SIGKILL)
                return
            time.sleep(0.005)

    killer = threading.Thread(target=kill_one)
    killer.start()
    tally = on_cluster(cluster, replace(job, state=str(tmp_path / "state")), many, chain=True)
    killer.join()
    assert killed
    assert tally.written == PARTS
    assert contents(one) == contents(many)


def contents_seen(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if not name.startswith(".")]  # noqa: PTH208 - one call


@pytest.mark.parametrize(
    ("fault", "words"),
    [("1,a,2,text\n", "line 2, column 'y'"), ("0,a,2,3\n", "line 2, column 't': the time goes backwards")],
    ids=["text", "time"],
)
def test_a_bad_part_is_named_and_nothing_is_written_at_or_after_it(
    fault: str, words: str, cluster: Any, inputs: tuple[str, ...], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("t,k,x,y\n" + fault)
    state = tmp_path / "state"
    job = make_job((*inputs[:4], str(bad), *inputs[4:]), MODES[6], state=str(state))
    outcomes = []
    tally = on_cluster(cluster, job, tmp_path / "many", chain=True, report=outcomes.append)
    assert (tally.written, tally.failed, tally.skipped, tally.exit_code) == (4, 1, 3, 1)
    assert outcomes[-1].problem is not None
    assert outcomes[-1].problem.startswith(f"{bad}, {words}")
    assert sorted(contents(tmp_path / "many")) == [Path(name).name for name in inputs[:4]]
    assert not state.exists()


def test_another_header_and_no_columns(cluster: Any, inputs: tuple[str, ...], tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("t,k,x,z\n1,a,2,3\n")
    for names, written in (((*inputs[:2], str(other)), 2), ((str(other), *inputs[:2]), 0)):
        one, many = [], []
        run_folder(make_job(names, MODES[0]), str(tmp_path / "one"), chain=True, report=one.append)
        on_cluster(
            cluster, make_job(names, MODES[0]), tmp_path / f"{written}", chain=True, report=many.append
        )
        assert [outcome.problem for outcome in one] == [outcome.problem for outcome in many]
        assert len(contents(tmp_path / f"{written}")) == written


def test_a_part_that_kills_its_workers() -> None:
    from ema_cli.cluster.dask_chain import unexpected

    error = distributed.KilledWorker("finish", None, 3)
    outcome = unexpected(make_job(("a.csv",), MODES[0], output="out/a.csv"), error)
    assert outcome.problem == "a.csv: 4 workers died of it; is there too little memory?"
    assert outcome.exit_code == 1


@pytest.mark.parametrize(
    ("status", "result", "problem"),
    [
        ("finished", "a result", None),
        ("lost", "a result", None),  # its worker died after the result had come
        ("pending", "a result", None),
        ("cancelled", CancelledError(), "the cluster has dropped it"),
        ("error", (ValueError, ValueError("bad"), None), "bad"),
    ],
)
def test_what_has_arrived_is_no_error(status: str, result: Any, problem: str | None) -> None:
    from ema_cli.cluster.dask_chain import _error_of

    future = SimpleNamespace(status=status, exception=lambda: result[1])
    error = _error_of(future, result)
    assert (None if error is None else str(error)) == problem


def test_options_that_do_not_go_with_it(
    cluster: Any, inputs: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ema_cli.cluster import client as on_dask

    with pytest.raises(EmaError, match="--alpha auto reads the whole series"):
        on_cluster(cluster, make_job(inputs, {"alpha": "auto"}), tmp_path / "out", chain=True)
    with pytest.raises(EmaError, match="--state with --output-dir"):
        on_cluster(cluster, make_job(inputs, MODES[0], state="x"), tmp_path / "out")
    with pytest.raises(EmaError, match="no file matches"):
        on_cluster(cluster, make_job((str(tmp_path / "*.csv"),), MODES[0]), tmp_path / "out")
    monkeypatch.setattr(on_dask, "PATIENCE", 0.2)
    with pytest.raises(EmaError, match="no Dask scheduler answers"):
        on_dask.run_on_cluster(make_job(inputs, MODES[0]), str(tmp_path / "out"), "tcp://127.0.0.1:9")
    for address in ("local:none", "local:0"):
        with pytest.raises(EmaError, match="not a number of processes"):
            on_dask.run_on_cluster(make_job(inputs, MODES[0]), str(tmp_path / "out"), address)


def test_the_command(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pattern in quotes, in natural order; nothing on stdout."""
    monkeypatch.setattr(Workshop, "environment", lenient(shop))
    for number in (2, 10, 9):
        shop.write(f"in/p{number}.csv", f"x\n{number}\n{number + 1}\n")
    several = ["in/p2.csv", "in/p9.csv", "in/p10.csv"]
    shop.run(*several, "--alpha", "0.1", "--output-dir", "one", "--chain")
    done = shop.run("in/p*.csv", "--alpha", "0.1", "--output-dir", "many", "--chain", "--dask", "local:1")
    assert done.out == b""
    assert done.err == "ema-smooth: many: 3 of 3 files written, 6 rows\n"
    assert contents(shop.folder / "one") == contents(shop.folder / "many")


def lenient(shop: Workshop) -> dict[str, str]:
    """The environment without warnings as errors: what Dask's own processes warn of is not ours."""
    return {name: value for name, value in shop.environment.items() if name != "PYTHONWARNINGS"}


@pytest.mark.parametrize("own", [True, False], ids=["a cluster of its own", "another's cluster"])
def test_ctrl_c_leaves_nothing_behind(own: bool, cluster: Any, shop: Workshop) -> None:
    rows = "".join(f"{k % 97}\n" for k in range(200_000))
    names = [f"p{part}.csv" for part in range(40)]
    for name in names:
        shop.write(name, "x\n" + rows)
    address = "local:2" if own else cluster.scheduler_address
    command = shop.command(*names, "--alpha", "0.1", "--output-dir", "out", "--chain", "--dask", address)
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, cwd=shop.folder, env=lenient(shop), stderr=pipe, start_new_session=True
    )
    out = shop.folder / "out"
    while process.poll() is None and not (out.exists() and contents_seen(out)):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == b""
    if not own:  # what a worker had begun it ends
        time.sleep(1)
    assert 1 <= len(contents(out)) < len(names)
    assert all(name.startswith("p") for name in contents(out))
    for _ in range(100):  # the workers go when they find that nobody is there
        if not alive(process.pid):
            return
        time.sleep(0.1)
    raise AssertionError("processes are left")


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


# Seen once in many runs: a file that a thread of Dask's lets go of without closing it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_addresses(inputs: tuple[str, ...], tmp_path: Path) -> None:
    """Inputs and outputs that fsspec knows; messages have their names."""
    import fsspec

    from ema_cli.cluster.client import run_on_cluster

    files = fsspec.filesystem("memory")
    for number, name in enumerate(inputs):
        files.pipe_file(f"/in/p{number * 5}.csv", Path(name).read_bytes())
    files.pipe_file("/bad/p0.csv", b"t,k,x,y\n1,a,2,3\n")
    files.pipe_file("/bad/p1.csv", b"t,k,x,y\n1,a,2,text\n")
    run_folder(make_job(inputs, MODES[0]), str(tmp_path / "one"), chain=True)
    # A cluster of threads, for that file system is this process's own.
    threads = {"processes": False, "n_workers": 1, "dashboard_address": ":0", "silence_logs": 50}
    with distributed.LocalCluster(**threads) as cluster:
        address = cluster.scheduler_address
        job = make_job(("memory://in/*.csv",), MODES[0])
        assert run_on_cluster(job, "memory://out", address, chain=True).written == PARTS
        outcomes: list[Any] = []
        job = make_job(("memory://bad/p*.csv",), MODES[0])
        tally = run_on_cluster(job, str(tmp_path / "bad"), address, chain=True, report=outcomes.append)
    assert (tally.written, tally.failed) == (1, 1)
    assert outcomes[-1].problem.startswith("memory://bad/p1.csv, line 2, column 'y'")
    one = [data for _, data in contents(tmp_path / "one").items()]
    assert [files.cat_file(f"/out/p{number * 5}.csv") for number in range(PARTS)] == one
    assert len(files.ls("/out", detail=False)) == PARTS


def test_addresses_that_lead_nowhere(cluster: Any, tmp_path: Path) -> None:
    for address, words in (
        (f"file://{tmp_path}/no.csv", "no such file"),
        ("nothing://bucket/no.csv", "nothing"),
        (f"file://{tmp_path}/no*.csv", "no file matches"),
    ):
        outcomes: list[Any] = []
        try:
            on_cluster(cluster, make_job((address,), MODES[0]), tmp_path / "out", report=outcomes.append)
            problem = outcomes[0].problem
        except EmaError as error:
            problem = error.problem
        assert address in problem
        assert words in problem
