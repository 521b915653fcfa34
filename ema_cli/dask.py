"""`ema_cli.dask.smooth`: `ema_cli.smooth` for Dask DataFrames and Series. Needs the extra [dask]."""

from __future__ import annotations

from ema_cli.cluster.frames import smooth

__all__ = ["smooth"]
