"""Averages of a model's parameters: what an update and a block cost, and how exact they are.

    python benchmarks/parameters.py [--seconds 60] [--device cuda]

99 million parameters in 147 tensors, shaped as a transformer's. All are timed in turn in one process, again
and again, and the best counts: a machine that is busy is slow for all. Needs torch; timm, diffusers,
ema-pytorch and torch_ema are compared where they are installed.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ema_cli import ParameterEMA

DECAY = 0.999
WIDTH, LAYERS = 768, 12


def transformer(dtype: Any, device: str) -> Any:
    """The tensors of a small GPT, nothing else: 99 million in 147."""
    layer = [(3 * WIDTH, WIDTH), (3 * WIDTH,), (WIDTH, WIDTH), (WIDTH,), (4 * WIDTH, WIDTH), (4 * WIDTH,)]
    layer += [(WIDTH, 4 * WIDTH), (WIDTH,), *[(WIDTH,)] * 4]
    shapes = [(17152, WIDTH), (1024, WIDTH), *layer * LAYERS, (WIDTH,)]
    torch.manual_seed(0)
    tensors = [torch.nn.Parameter(torch.randn(shape, device=device).to(dtype)) for shape in shapes]
    model = torch.nn.Module()
    model.tensors = torch.nn.ParameterList(tensors)
    return model


def show_best(cases: dict[str, Callable[[], Any]], seconds: float, device: str) -> None:
    """Milliseconds and the processor's, the best of as many rounds as fit, and times the first case's."""
    walls, cpus = (dict.fromkeys(cases, float("inf")) for _ in range(2))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name, run in cases.items():
            begin, used = time.perf_counter(), time.process_time()
            run()
            if device != "cpu":
                torch.cuda.synchronize()
            walls[name] = min(walls[name], 1e3 * (time.perf_counter() - begin))
            cpus[name] = min(cpus[name], 1e3 * (time.process_time() - used))
    first = next(iter(cases))
    for name in cases:
        wall, cpu = walls[name] / walls[first], cpus[name] / cpus[first]
        print(f"  {name:26} {walls[name]:8.1f}  {wall:5.2f}   CPU {cpus[name]:8.1f}  {cpu:5.2f}")


def updates(dtype: Any, precisions: list[str], seconds: float, device: str) -> None:
    model = transformer(dtype, device)
    numbers = sum(p.numel() for p in model.parameters())
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    theirs.update_parameters(model)
    cases = {"AveragedModel": lambda: theirs.update_parameters(model)}
    for precision in precisions:
        ema = ParameterEMA(model, decay=DECAY, dtype=precision)
        cases[f"ParameterEMA {precision}"] = ema.update
    print(f"\nUpdate of {numbers / 1e6:.0f} million {_name(dtype)}, ms, and times AveragedModel's")
    show_best(cases, seconds, device)


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def block(dtype: Any, seconds: float, device: str) -> None:
    model = transformer(dtype, device)
    ema = ParameterEMA(model, decay=DECAY)
    source = [p.detach().clone() for p in model.parameters()]

    def copy_twice() -> None:
        with torch.no_grad():
            for _ in range(2):
                for parameter, value in zip(model.parameters(), source, strict=True):
                    parameter.copy_(value)

    def in_and_out() -> None:
        with ema.average_parameters():
            pass

    cases = {"copying the model twice": copy_twice, "in and out of the block": in_and_out}
    print(f"\nThe block, {_name(dtype)}, ms, and times copying the model twice")
    show_best(cases, seconds, device)


def memory() -> None:
    """What an update needs beside the averages: how far the process's peak rises."""
    model = transformer(torch.float32, "cpu")
    print("\nExtra memory of an update, MB")
    for precision in ("float64", "float32"):
        ema = ParameterEMA(model, decay=DECAY, dtype=precision)
        # The peak so far includes what making the object took: fill up to it, so that more is seen.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        now = _resident()
        filler = torch.ones(int(max(0.0, peak - now) * (1 << 18)))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        for _ in range(2):
            ema.update()
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"  {precision:26} {after - before:8.1f}")
        del filler, ema


def _resident() -> float:
    with Path("/proc/self/status").open() as status:
        return next(float(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))


def accuracy(steps: int = 3000, decay: float = 0.9999) -> None:
    """bfloat16 parameters that drift; the error of each average in roundings of bfloat16."""
    torch.manual_seed(0)
    model = torch.nn.Linear(64, 64, bias=False).bfloat16()
    drift = model.weight.detach().float()
    exact = model.weight.detach().double()
    ours = {p: ParameterEMA(model, decay=decay, dtype=p) for p in ("float64", "float32")}
    peers = _peers(model, decay)
    for _ in range(steps):
        drift += torch.randn_like(drift) * 0.01 + 0.001
        with torch.no_grad():
            model.weight.copy_(drift)
        exact += (1 - decay) * (model.weight.detach().double() - exact)
        for ema in ours.values():
            ema.update()
        for update, _ in peers.values():
            update()
    spacing = torch.finfo(torch.bfloat16).eps * 2.0 ** torch.floor(torch.log2(exact.abs()))
    print(
        f"\nbfloat16, decay {decay}, {steps} drifting steps: largest error, in roundings (half a unit each)"
    )
    results = {f"ParameterEMA {p}": ema.ema["weight"] for p, ema in ours.items()}
    results.update({name: read() for name, (_, read) in peers.items()})
    for name, weight in results.items():
        error = ((weight.detach().double() - exact).abs() / (spacing / 2)).max()
        print(f"  {name:26} {error.item():10.2f}")


def _peers(model: Any, decay: float) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """What updates each peer's average, and what gives it; peers that are not installed are left out."""
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
    averaged.update_parameters(model)
    found: dict[str, Any] = {}
    found["torch AveragedModel"] = (lambda: averaged.update_parameters(model), lambda: averaged.module.weight)
    try:
        from torch_ema import ExponentialMovingAverage

        torch_ema = ExponentialMovingAverage(model.parameters(), decay=decay, use_num_updates=False)
        found["torch_ema"] = (torch_ema.update, lambda: torch_ema.shadow_params[0])
    except ImportError:
        pass
    try:
        from diffusers.training_utils import EMAModel

        diffusers = EMAModel(model.parameters(), decay=decay, min_decay=decay)
        step = lambda: diffusers.step(model.parameters())  # noqa: E731
        found["diffusers EMAModel"] = (step, lambda: diffusers.shadow_params[0])
    except ImportError:
        pass
    try:
        from ema_pytorch import EMA

        lucid = EMA(model, beta=decay, min_value=decay, update_after_step=0, update_every=1)
        found["ema-pytorch"] = (lucid.update, lucid.ema_model.weight.detach)
    except ImportError:
        pass
    try:
        from timm.utils import ModelEmaV3

        timm = ModelEmaV3(model, decay=decay)
        found["timm ModelEmaV3"] = (lambda: timm.update(model), timm.module.weight.detach)
    except ImportError:
        pass
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="for all timings together [60]")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    name = torch.cuda.get_device_name() if options.device != "cpu" else f"{torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {options.device}, {name}")
    share = options.seconds / 3
    # On the CPU float32x2 is float64.
    wide = ["float64"] if options.device == "cpu" else ["float64", "float32x2"]
    updates(torch.float32, ["float32", *wide], share, options.device)
    updates(torch.bfloat16, wide, share, options.device)
    block(torch.float32, share / 2, options.device)
    block(torch.bfloat16, share / 2, options.device)
    if options.device == "cpu":
        memory()
    accuracy()


if __name__ == "__main__":
    main()
