"""Averages of sharded parameters on two processes over gloo; saved, and loaded on another number."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from ema_cli.errors import DataError
from ema_cli.parameters import numpy_store
from ema_cli.parameters.ema import ParameterEMA

torch = pytest.importorskip("torch", "2.6", reason="torch is optional; fully_shard is public since 2.6")
if not torch.distributed.is_available():
    pytest.skip("this torch has no torch.distributed", allow_module_level=True)

import torch.distributed as dist  # noqa: E402 (after the check)
import torch.distributed.checkpoint as dcp  # noqa: E402
from torch.distributed.device_mesh import init_device_mesh  # noqa: E402
from torch.distributed.fsdp import fully_shard  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's own, in the processes too

STEPS = 4
PRECISIONS = ["float64", "float32x2"]


def model() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3, bias=False))


def trained(net: Any, steps: int, seed: int) -> Any:
    """A step of training after the other; yields after each."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    torch.manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        net(torch.randn(8, 5)).square().mean().backward()
        optimizer.step()
        yield


def whole(values: dict[str, Any]) -> dict[str, Any]:
    return {n: v.full_tensor() if hasattr(v, "full_tensor") else v for n, v in values.items()}


def expected(steps: int) -> dict[str, Any]:
    """The averages that one process without shards has."""
    net = model()
    ema = ParameterEMA(net, decay=0.9)
    for _ in trained(net, steps, seed=1):
        ema.update()
    return dict(ema.ema)


def same(found: dict[str, Any], other: dict[str, Any]) -> None:
    assert found.keys() == other.keys()
    for name, value in found.items():
        # Two processes add their gradients in another order than one does.
        torch.testing.assert_close(value, other[name], rtol=1e-5, atol=1e-6, msg=name)


def shard(net: Any, size: int) -> Any:
    mesh = init_device_mesh("cpu", (size,))
    for layer in (net[0], net[2]):
        fully_shard(layer, mesh=mesh)
    return fully_shard(net, mesh=mesh)


def averages_of(net: Any, precision: str) -> ParameterEMA:
    # As on an accelerator, where this is no float64.
    with mock.patch.object(numpy_store, "PAIR_ON_CPU", "float32x2"):
        return ParameterEMA(net, decay=0.9, dtype=precision)


def train_and_save(rank: int, size: int, folder: Path, precision: str) -> None:
    net = shard(model(), size)
    ema = averages_of(net, precision)
    local = sum(part.to_local().numel() for part in ema.state_dict()["averages"].values())
    assert local < sum(p.numel() for p in net.parameters())  # each process has its share alone
    for _ in trained(net, STEPS, seed=1):
        ema.update()
    same(whole(ema.ema), expected(STEPS))
    originals = whole({name: value.clone() for name, value in net.state_dict().items()})
    with ema.average_parameters():
        net(torch.randn(2, 5))
        same(whole(net.state_dict()), whole(ema.ema))
        averaged = net(torch.ones(1, 5)).detach()
    plain = model()
    plain.load_state_dict(whole(ema.ema))
    torch.testing.assert_close(averaged, plain(torch.ones(1, 5)).detach(), rtol=1e-5, atol=1e-6)
    same(whole(net.state_dict()), originals)
    check_bad_values(net, ema, rank)
    dcp.save({"model": net.state_dict(), "ema": ema.state_dict()}, checkpoint_id=str(folder))


def check_bad_values(net: Any, ema: ParameterEMA, rank: int) -> None:
    """A NaN in one process's shard stops all of them; none goes on alone."""
    updates = ema.num_updates
    local = net[0].weight.detach().to_local()
    kept = local.clone()
    if rank == 1:
        local[0, 0] = float("nan")
    said = "0.weight" if rank == 1 else "another process"
    with pytest.raises(DataError, match=said):
        ema.update()
    local.copy_(kept)
    assert ema.num_updates == updates


def load_and_go_on(size: int, folder: Path, precision: str) -> None:
    net = shard(model(), size) if size > 1 else model()
    ema = averages_of(net, precision)
    state = {"model": net.state_dict(), "ema": ema.state_dict()}
    dcp.load(state, checkpoint_id=str(folder))
    net.load_state_dict(state["model"])
    ema.load_state_dict(state["ema"])
    assert ema.num_updates == STEPS
    same(whole(ema.ema), expected(STEPS))
    before = whole({n: v.double() for n, v in ema.ema.items()})
    for _ in trained(net, 1, seed=2):
        ema.update()
    now = whole({n: v.detach().double() for n, v in net.state_dict().items()})
    for name, value in whole(dict(ema.ema)).items():
        step = before[name] + 0.1 * (now[name] - before[name])
        torch.testing.assert_close(value.double(), step, rtol=1e-6, atol=1e-7)


def tensor_parallel(size: int) -> None:
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3, bias=False))
    start = {name: value.clone() for name, value in net.state_dict().items()}
    parallelize_module(
        net, init_device_mesh("cpu", (size,)), {"0": ColwiseParallel(), "2": RowwiseParallel()}
    )
    ema = ParameterEMA(net, decay=0.9)
    for _ in trained(net, STEPS, seed=1):
        pass
    ema.update()
    now = whole({name: value.detach() for name, value in net.state_dict().items()})
    for name, value in whole(dict(ema.ema)).items():
        step = start[name] + 0.1 * (now[name] - start[name])
        torch.testing.assert_close(value, step, rtol=1e-5, atol=1e-6)


def data_parallel() -> None:
    net = torch.nn.parallel.DistributedDataParallel(model())
    ema = ParameterEMA(net, decay=0.9)
    for _ in trained(net, STEPS, seed=1):
        ema.update()
    same(dict(ema.ema), expected(STEPS))
    with ema.average_parameters():
        same(dict(net.module.state_dict()), expected(STEPS))
    assert type(ema.module()) is torch.nn.Sequential


def first_run(rank: int, size: int, folder: Path) -> None:
    for precision in PRECISIONS:
        train_and_save(rank, size, folder / precision, precision)
    tensor_parallel(size)
    data_parallel()


def second_run(_: int, size: int, folder: Path) -> None:
    for precision in PRECISIONS:
        load_and_go_on(size, folder / precision, precision)
    load_and_go_on(size, folder / "alone", "float64")


def _process(rank: int, size: int, port: int, job: str, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=size)
    try:
        {"first_run": first_run, "second_run": second_run}[job](rank, size, Path(folder))
    finally:
        dist.destroy_process_group()


def on_two_processes(job: Any, folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_process, (2, port, job.__name__, str(folder)), nprocs=2)


def test_shards_are_averaged_saved_and_loaded_on_another_number_of_processes(tmp_path: Path) -> None:
    """Two runs of two processes each, as starting them is what takes the time."""
    on_two_processes(first_run, tmp_path)
    for precision in PRECISIONS:
        load_and_go_on(1, tmp_path / precision, precision)
    net = model()
    ema = ParameterEMA(net, decay=0.9)
    for _ in trained(net, STEPS, seed=1):
        ema.update()
    state = {"model": net.state_dict(), "ema": ema.state_dict()}
    dcp.save(state, checkpoint_id=str(tmp_path / "alone"))
    on_two_processes(second_run, tmp_path)
