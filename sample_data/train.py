"""Train a small network on the handwritten digits that scikit-learn ships, and log its loss.

    python train.py training_loss.csv
    python train.py runs/rate-0.02.csv 0.02    # with another learning rate than 0.1

Plain minibatch SGD on a 64-32-10 tanh network: a real log, with the noise that minibatches of 16 make.
`val_loss` is measured every 10 steps, as training scripts do, and is empty otherwise.

Only NumPy is needed to run it; scikit-learn is not imported, only its data file is read. `RandomState` rather
than `default_rng`, because NumPy promises that its streams never change.
"""

import gzip
import io
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np

STEPS = 2000
BATCH = 16
HIDDEN = 32
RATE = 0.1
VALIDATE_EVERY = 10
SEED = 20240229


def load_digits():
    spec = find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("train.py: scikit-learn is not installed; its digits data set is what this trains on")
    path = Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    table = np.loadtxt(io.StringIO(gzip.decompress(path.read_bytes()).decode()), delimiter=",")
    return table[:, :-1] / 16.0, table[:, -1].astype(np.int64)


def forward(params, x):
    w1, b1, w2, b2 = params
    hidden = np.tanh(x @ w1 + b1)
    logits = hidden @ w2 + b2
    logits -= logits.max(axis=1, keepdims=True)
    return hidden, logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def cross_entropy(log_p, y):
    return -log_p[np.arange(len(y)), y].mean()


def train(rate=RATE):
    """Yield (step, train_loss, val_loss or None)."""
    rng = np.random.RandomState(SEED)
    x, y = load_digits()
    order = rng.permutation(len(x))
    val, rest = order[: len(x) // 5], order[len(x) // 5 :]
    params = [
        rng.standard_normal((x.shape[1], HIDDEN)) / np.sqrt(x.shape[1]),
        np.zeros(HIDDEN),
        rng.standard_normal((HIDDEN, 10)) / np.sqrt(HIDDEN),
        np.zeros(10),
    ]
    queue = rng.permutation(rest)
    for step in range(1, STEPS + 1):
        if len(queue) < BATCH:  # a new epoch; what is left of the old one is dropped
            queue = rng.permutation(rest)
        batch, queue = queue[:BATCH], queue[BATCH:]
        xb, yb = x[batch], y[batch]
        hidden, log_p = forward(params, xb)
        loss = cross_entropy(log_p, yb)

        d_logits = np.exp(log_p)
        d_logits[np.arange(BATCH), yb] -= 1.0
        d_logits /= BATCH
        d_hidden = (d_logits @ params[2].T) * (1.0 - hidden**2)
        grads = [xb.T @ d_hidden, d_hidden.sum(axis=0), hidden.T @ d_logits, d_logits.sum(axis=0)]
        params = [p - rate * g for p, g in zip(params, grads, strict=True)]

        val_loss = None
        if step % VALIDATE_EVERY == 0:
            val_loss = cross_entropy(forward(params, x[val])[1], y[val])
        yield step, loss, val_loss


def log_text(rate=RATE):
    # Six digits: far more than the noise, far fewer than would show which BLAS did the sums.
    rows = [f"{s},{t:.6g},{'' if v is None else f'{v:.6g}'}\n" for s, t, v in train(rate)]
    return "step,train_loss,val_loss\n" + "".join(rows)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python train.py OUTPUT.csv [RATE]")
    text = log_text(float(sys.argv[2]) if sys.argv[2:] else RATE)
    Path(sys.argv[1]).write_text(text, encoding="utf-8", newline="\n")
