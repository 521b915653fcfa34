"""The example Makefile, as it is."""

from __future__ import annotations

import shutil
import subprocess
import sys

from tests.conftest import ROOT, SAMPLES, Workshop


def test_makefile_under_j(shop: Workshop) -> None:
    shutil.copy(ROOT / "examples" / "Makefile", shop.folder)
    for k in range(5):
        shop.write(f"raw/part{k}.csv", (SAMPLES / "co2.csv").read_bytes())
    make = ["make", "-j4", f"EMA_SMOOTH={sys.executable} -m ema_cli"]
    subprocess.run(make, cwd=shop.folder, env=shop.environment, check=True, capture_output=True)
    expected = shop.run("raw/part0.csv", "--span", "20", "--residual").out
    assert sorted(path.name for path in (shop.folder / "trend").iterdir()) == [
        f"part{k}.csv" for k in range(5)
    ]
    assert all(shop.read(f"trend/part{k}.csv") == expected for k in range(5))
    # Only what changed is made again; what can't be made leaves nothing behind.
    shop.write("raw/part3.csv", "a,b\n1,2\n3\n")
    again = subprocess.run(
        make, cwd=shop.folder, env=shop.environment, check=False, capture_output=True, text=True
    )
    assert again.returncode == 2
    assert "raw/part3.csv, line 3" in again.stderr
    assert shop.read("trend/part3.csv") == expected
