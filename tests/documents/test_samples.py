"""The real sample data: pandas, polars and Miller agree, and so does every way in."""

from __future__ import annotations

import io
import shutil
import subprocess

import numpy as np
import pandas as pd
import polars as pl
import pytest

from tests.conftest import SAMPLES, Workshop

NUMBERS = {
    "co2.csv": ["co2"],
    "fx_rates.csv": ["usd", "jpy", "isk"],
    "weather.csv": ["temp", "humid", "wind_speed", "pressure"],
    "earthquakes.csv": ["magnitude", "depth", "lat", "lon"],
    "training_loss.csv": ["train_loss", "val_loss"],
}


def trends(shop: Workshop, name: str) -> pd.DataFrame:
    columns = [part for column in NUMBERS[name] for part in ("-c", column)]
    return pd.read_csv(io.BytesIO(shop.run(SAMPLES / name, *columns, "--alpha", "0.1").out))


@pytest.mark.parametrize("name", NUMBERS)
def test_pandas(shop: Workshop, name: str) -> None:
    ours = trends(shop, name)
    for column in NUMBERS[name]:
        theirs = ours[column].ewm(alpha=0.1, adjust=False, ignore_na=True).mean().where(ours[column].notna())
        np.testing.assert_allclose(ours[f"{column}_ema"], theirs, rtol=1e-12)


@pytest.mark.parametrize("name", NUMBERS)
def test_polars(shop: Workshop, name: str) -> None:
    ours = trends(shop, name)
    table = pl.read_csv(SAMPLES / name, infer_schema_length=None)
    for column in NUMBERS[name]:
        values = pl.col(column).cast(pl.Float64)
        theirs = table.select(values.ewm_mean(alpha=0.1, adjust=False, ignore_nulls=True))[column].to_numpy()
        np.testing.assert_allclose(ours[f"{column}_ema"], theirs, rtol=1e-12)


@pytest.mark.skipif(
    shutil.which("mlr") is None, reason="Miller is not installed; CI installs it from Debian's packages"
)
@pytest.mark.parametrize("name", NUMBERS)
def test_miller(shop: Workshop, name: str) -> None:
    ours = trends(shop, name)
    for column in NUMBERS[name]:
        # Miller's average is lost at the first gap, so it is asked for the rows that have a value.
        clean = ours[[column]].dropna()
        text = clean.to_csv(index=False)
        run = ["mlr", "--csv", "--ofmt", "%.17g", "step", "-a", "ewma", "-d", "0.1", "-f", column]
        out = subprocess.run(run, input=text, capture_output=True, text=True, check=True).stdout
        theirs = pd.read_csv(io.StringIO(out))[f"{column}_ewma_0.1"]
        np.testing.assert_allclose(ours.loc[clean.index, f"{column}_ema"], theirs, rtol=1e-12)


def test_every_way_in_gives_the_same(shop: Workshop) -> None:
    text = shop.run(SAMPLES / "co2.csv", "--alpha", "0.1").out
    assert shop.run(SAMPLES / "co2.csv.gz", "--alpha", "0.1").out == text
    assert shop.run("--alpha", "0.1", stdin=(SAMPLES / "co2.csv").read_bytes()).out == text
    shop.run(SAMPLES / "co2.csv", "--alpha", "0.1", "-o", "out.csv")
    assert shop.read("out.csv") == text


def test_messy_passes_untouched(shop: Workshop) -> None:
    data = (SAMPLES / "messy.csv").read_bytes()
    result = shop.run(SAMPLES / "messy.csv", "-c", "value", "--alpha", "1")
    kept = [cut.rsplit(b",", 1)[0] for cut in result.out.split(b"\r\n")]
    assert len(kept) == data.count(b"\r\n") + 1
    # Records that span lines have their new field on the last one only.
    assert result.out.startswith(
        data[: data.index(b"\r\n")] + b",value_ema\r\n1,2024-01-01,0.10,10,plain,0.1\r\n"
    )
    assert result.out.endswith(b"13,2024-01-13,-0.0,22,no newline after this,-0.0")
