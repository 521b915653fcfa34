"""`ema_cli.dask.smooth`: what `ema_cli.smooth` makes of the whole table, lazily, partition by partition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import ema_cli

dd = pytest.importorskip("dask.dataframe", reason="Dask is an extra: make test EXTRAS=[dask]")
distributed = pytest.importorskip("distributed", reason="Dask is an extra: make test EXTRAS=[dask]")
ema_dask = pytest.importorskip("ema_cli.dask", reason="as above")


@pytest.fixture(scope="module")
def frame() -> Any:
    rng = np.random.default_rng(3)
    rows = 30_000
    x = rng.standard_normal((rows, 2))
    x[::7, 0] = np.nan
    frame = pd.DataFrame(x, columns=["x", "y"], index=pd.RangeIndex(10, rows + 10))
    frame["w"] = rng.integers(0, 4, rows)
    frame["k"] = rng.choice(list("abc"), rows)
    frame["t"] = pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 3, rows).cumsum(), "s")
    return frame


@pytest.mark.parametrize(
    ("columns", "options"),
    [
        ("xy", {"alpha": 0.1}),
        ("xyk", {"alpha": [0.1, 0.01], "by": "k", "std": True, "missing": "decay"}),
        ("xt", {"halflife": "5s", "times": "t", "adjust": True, "fill": True}),
        ("xytk", {"halflife": "5s", "times": "t", "by": ["k"], "bands": 2.0}),
        ("xy", {"alpha": 0.1, "corr": True, "sum": True, "double": True}),
        ("xwk", {"alpha": 0.2, "by": "k", "weights": "w", "sum": True, "triple": True}),
    ],
    ids=str,
)
def test_as_the_whole_table_at_once(columns: str, options: dict[str, Any], frame: Any) -> None:
    whole = frame[list(columns)]
    parts = dd.from_pandas(whole, npartitions=9)
    lazy = ema_dask.smooth(parts, **options)
    want = ema_cli.smooth(whole, **options)
    assert lazy.divisions == parts.divisions
    assert lazy.dtypes.equals(want.dtypes)
    pd.testing.assert_frame_equal(lazy.compute(scheduler="threads"), want, check_exact=True)


def test_a_series_on_the_cluster(frame: Any) -> None:
    lazy = ema_dask.smooth(dd.from_pandas(frame.x, npartitions=5), alpha=0.1)
    want = ema_cli.smooth(frame.x, alpha=0.1)
    with (
        distributed.LocalCluster(n_workers=2, dashboard_address=":0") as cluster,
        distributed.Client(cluster),
    ):
        pd.testing.assert_series_equal(lazy.compute(), want, check_exact=True)
        part = lazy.partitions[3].compute()
    pd.testing.assert_series_equal(part, want[18_000:24_000], check_exact=True)


def test_what_is_wrong_is_said(frame: Any) -> None:
    parts = dd.from_pandas(frame, npartitions=3)
    with pytest.raises(TypeError, match="Dask DataFrame or Series, not DataFrame"):
        ema_dask.smooth(frame, alpha=0.1)
    with pytest.raises(ValueError, match="alpha='auto' reads the whole series"):
        ema_dask.smooth(parts.x, alpha="auto")
    with pytest.raises(ValueError, match="times=Series: not a name"):
        ema_dask.smooth(parts.x, halflife="5s", times=parts.t)
    with pytest.raises(ValueError, match="no column or index level"):
        ema_dask.smooth(parts[["x"]], alpha=0.1, by="z")
    bad = frame[["x"]].copy()
    bad.iloc[25_000] = np.inf
    lazy = ema_dask.smooth(dd.from_pandas(bad, npartitions=3), alpha=0.1)
    with pytest.raises(ValueError, match="partition 2: row 5000"):
        lazy.compute(scheduler="sync")
