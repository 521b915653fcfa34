"""Train a small network on the weather of three airports, and predict with the averages of its parameters.

    python examples/train_with_ema.py [--seeds 5] [--log train_log.csv] [--checkpoint ema.npz]

The network (8-24-1, tanh) learns the humidity from temperature, wind, pressure, hour, day and airport in
sample_data/weather.csv. Steps on minibatches of 8 at a constant rate never come to rest: the parameters keep
dancing about the minimum, and their average lies closer to it than almost any one of them.

Only NumPy is needed. The first seed's run is written to the log, half of it after a restart from the saved
average, and a last line says how to smooth the log.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ema_cli import ParameterEMA

WEATHER = Path(__file__).resolve().parent.parent / "sample_data" / "weather.csv"
STEPS = 3000
BATCH = 8
HIDDEN = 24
RATE = 0.1
DECAY = 0.99
VALIDATE_EVERY = 20

Parameters = dict[str, np.ndarray[Any, np.dtype[np.float64]]]


def load_weather() -> tuple[Any, Any]:
    """(rows, 8) features and (rows,) humidity, both of mean 0 and standard deviation 1."""
    with WEATHER.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if all(row.values())]
    airports = sorted({row["location"] for row in rows})
    times = np.array([row["time"].rstrip("Z") for row in rows], "datetime64[h]")
    hour = times.astype(int) % 24 / 24 * 2 * np.pi
    day = (times - times[0]).astype(float)
    features = [[float(row[name]) for row in rows] for name in ("temp", "wind_speed", "pressure")]
    features += [np.sin(hour), np.cos(hour), day]
    features += [[row["location"] == airport for row in rows] for airport in airports[1:]]
    table = np.array([*features, [float(row["humid"]) for row in rows]], float).T
    table = (table - table.mean(axis=0)) / table.std(axis=0)
    return table[:, :-1], table[:, -1]


def predict(params: Parameters, x: Any) -> tuple[Any, Any]:
    hidden = np.tanh(x @ params["w1"] + params["b1"])
    return hidden, hidden @ params["w2"] + params["b2"]


def loss(params: Parameters, x: Any, y: Any) -> float:
    return float(np.mean((predict(params, x)[1] - y) ** 2))


def step(params: Parameters, x: Any, y: Any) -> None:
    """One step of gradient descent on the mean squared error, in place."""
    hidden, guess = predict(params, x)
    slope = 2 * (guess - y) / len(y)
    inner = np.outer(slope, params["w2"]) * (1 - hidden**2)
    gradients = {"w1": x.T @ inner, "b1": inner.sum(axis=0), "w2": hidden.T @ slope, "b2": slope.sum()}
    for name, gradient in gradients.items():
        params[name] -= RATE * gradient


def train(seed: int, checkpoint: Path) -> Iterator[tuple[int, float, float]]:
    """Yield (step, validation loss of the parameters, of their averages)."""
    rng = np.random.default_rng(seed)
    x, y = load_weather()
    order = rng.permutation(len(x))
    held_out, rest = order[: len(x) // 5], order[len(x) // 5 :]
    params: Parameters = {
        "w1": rng.standard_normal((x.shape[1], HIDDEN)) / np.sqrt(x.shape[1]),
        "b1": np.zeros(HIDDEN),
        "w2": rng.standard_normal(HIDDEN) / np.sqrt(HIDDEN),
        "b2": np.zeros(()),
    }
    ema = ParameterEMA(params, decay=DECAY, warmup="tf")
    for now in range(1, STEPS + 1):
        batch = rng.choice(rest, BATCH, replace=False)
        step(params, x[batch], y[batch])
        ema.update(params)
        if now == STEPS // 2:  # as if the machine had gone down: what is loaded goes on bit for bit
            ema.save(checkpoint)
            ema = ParameterEMA.load(checkpoint)
        if now % VALIDATE_EVERY == 0:
            raw = loss(params, x[held_out], y[held_out])
            with ema.average_parameters(params):
                averaged = loss(params, x[held_out], y[held_out])
            yield now, raw, averaged
    ema.save(checkpoint)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--log", type=Path, default=Path("train_log.csv"))
    parser.add_argument("--checkpoint", type=Path, default=Path("ema.npz"))
    options = parser.parse_args()
    print("seed  raw     averaged  (validation loss at the last step)")
    finals = []
    for seed in range(options.seeds):
        rows = list(train(seed, options.checkpoint))
        finals.append(rows[-1][1:])
        print(f"{seed:4}  {rows[-1][1]:.4f}  {rows[-1][2]:.4f}")
        if seed == 0:
            lines = [f"{at},{raw:.6g},{averaged:.6g}\n" for at, raw, averaged in rows]
            options.log.write_text("step,val_loss,val_loss_averaged\n" + "".join(lines))
    raw, averaged = np.mean(finals, axis=0)
    better = sum(b < a for a, b in finals)
    print(f"mean  {raw:.4f}  {averaged:.4f}  averaged is better in {better} of {options.seeds}")
    print(f"\nThe first run's curve, smoothed:\n  ema-smooth {options.log} -c val_loss --span 20 --digits 4")


if __name__ == "__main__":
    main()
