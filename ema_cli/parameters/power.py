"""Power-function averages and the snapshots of them that a later fit is made from.

Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models" (CVPR 2024), section 3:
the average at update t weighs the parameters of update τ by p(τ; t) ∝ τ^γ, so its memory grows with the
run and the start leaves no trace. It is kept by `average += (1 − β)·(parameters − average)` with
β = (1 − 1/t)^(γ + 1); the first update is a copy. Its length is told by the relative width of the profile,
σ_rel = √(γ + 1) / ((γ + 2)·√(γ + 3)): 0.05 and 0.10 are the paper's.

Snapshots
---------
`ParameterEMA(model, power=[0.05, 0.10]).snapshot("snap-1000.safetensors")` writes one checkpoint a width,
`snap-1000-0.05.safetensors` and `snap-1000-0.1.safetensors`; where the path holds `{}` the width stands
there, and with one width it is the path as given. A checkpoint is .safetensors, .npz or .pt as
`ema_cli.parameters.checkpoints` writes them:

- tensors under the model's own names, tied ones once. Averages are float32, or float64 where the
  parameters are; integers and bools as they were at the last update;
- metadata under `METADATA_KEY` ("ema_smooth"), JSON: `kind` is "ParameterEMA snapshot", `version` 1, `step`
  the number of updates t that the profile ends at (the first update is 1), `sigma_rel` and `gamma` of the
  profile, `dtypes` the parameters' own dtypes by name, `ties` a mapping of further names of tied tensors to
  the one written.

`snapshot_said` reads that metadata back, and is what says whether a checkpoint is a snapshot.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ema_cli.errors import OptionError, StateError
from ema_cli.parameters.checkpoints.stream import METADATA_KEY

KIND = "ParameterEMA snapshot"
VERSION = 1
# The width of γ = 0, the plain mean of all updates: no profile that grows is wider.
WIDEST = 1 / (2 * math.sqrt(3))


def gamma_of(sigma_rel: float) -> float:
    """The exponent γ of the profile whose relative width is `sigma_rel`.

    Parameters
    ----------
    sigma_rel : float
        Standard deviation of the profile as a share of the run, above 0 and at most 1/√12 = 0.2887.

    Returns
    -------
    float
        γ ≥ 0, to the last bits of float64.

    Raises
    ------
    OptionError
        Where no profile has that width.
    """
    if not 0.0 < sigma_rel <= WIDEST:
        raise OptionError(
            f"a relative width of {sigma_rel!r}: must be above 0 and at most {WIDEST:.4f}, the plain mean's",
            "0.05 or 0.10",
        )
    # γ falls as the width grows, from about 1/σ: halve the interval until it is two neighbours.
    low, high = 0.0, 2.0 / sigma_rel
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if sigma_rel_of(middle) > sigma_rel else (low, middle)
    return low if sigma_rel_of(low) - sigma_rel < sigma_rel - sigma_rel_of(high) else high


def sigma_rel_of(gamma: float) -> float:
    """The relative width of the profile τ^γ: √(γ + 1) / ((γ + 2)·√(γ + 3))."""
    return math.sqrt(gamma + 1.0) / ((gamma + 2.0) * math.sqrt(gamma + 3.0))


def power_weights(gamma: float, update: int) -> tuple[float, float]:
    """(decay, alpha) of update number `update`, counted from 1: β = (1 − 1/t)^(γ + 1) and 1 − β.

    Both keep their digits: 1 − β would lose them late in a run.
    """
    if update <= 1:
        return 0.0, 1.0
    exponent = (gamma + 1.0) * math.log1p(-1.0 / update)
    return math.exp(exponent), -math.expm1(exponent)


@dataclass(frozen=True)
class Snapshot:
    """What a snapshot says of itself; the module's docstring has the words."""

    step: int
    sigma_rel: float
    gamma: float
    dtypes: Mapping[str, str]
    ties: Mapping[str, str]

    def metadata(self) -> dict[str, str]:
        """For a checkpoint's writer."""
        said = {
            "kind": KIND,
            "version": VERSION,
            "step": self.step,
            "sigma_rel": self.sigma_rel,
            "gamma": self.gamma,
            "dtypes": dict(self.dtypes),
            "ties": dict(self.ties),
        }
        return {METADATA_KEY: json.dumps(said, sort_keys=True)}


def snapshot_said(metadata: Mapping[str, str], name: str) -> Snapshot | None:
    """What the checkpoint called `name` says of itself, or None where it is no snapshot.

    Raises StateError where it says that it is one, and what it says makes no sense.
    """
    try:
        said: Any = json.loads(metadata.get(METADATA_KEY, "null"))
    except ValueError:
        return None
    if not isinstance(said, dict) or said.get("kind") != KIND:
        return None
    if said.get("version") != VERSION:
        raise StateError(f"{name}: a snapshot of version {said.get('version')!r}, not {VERSION}")
    kinds = {"step": int, "sigma_rel": float, "gamma": (int, float), "dtypes": dict, "ties": dict}
    for key, kind in kinds.items():
        if not isinstance(said.get(key), kind) or isinstance(said[key], bool):  # type: ignore[arg-type]
            raise StateError(f"{name}: the snapshot is damaged: its {key} is {said.get(key)!r}")
    if said["step"] < 1 or not (math.isfinite(said["gamma"]) and said["gamma"] >= 0.0):
        raise StateError(f"{name}: the snapshot is damaged: step {said['step']}, gamma {said['gamma']}")
    return Snapshot(said["step"], said["sigma_rel"], float(said["gamma"]), said["dtypes"], said["ties"])
