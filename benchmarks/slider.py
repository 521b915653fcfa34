"""How long the page's trend takes to follow its slider: `python benchmarks/slider.py`.

A page of so many points in headless Chromium: from the slider's event to the frame that shows the new trend;
the part of that which is arithmetic; and a plain loop (`y += alpha * (x - y)`) over the same points in the
same page. In turn, 21 times; medians. Needs chromium, chromedriver and selenium.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from selenium import webdriver

SIZES = (10_000, 200_000)
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1100,1000")
# Until the curve of errors is there, the page is busy with other weights. Clocks of browsers are coarse, so
# arithmetic is done several times.
MEASURE = """
const done = arguments[0], slider = document.getElementById('slider'), trace = emaSmooth.charts[0].traces[0];
const n = trace.values.length, kept = new Float64Array(n), out = {frame: [], ours: [], plain: []};
const middle = times => times.sort((a, b) => a - b)[times.length >> 1];
const timed = (times, work) => {
  const begin = performance.now();
  for (let k = 0; k < times; k++) work();
  return (performance.now() - begin) / times;
};
const real = window.follow;
let again = null;
window.follow = (...given) => { again = () => real(...given); return again(); };
const plain = () => {
  const {values} = trace, {alpha} = emaSmooth.chosen.weight;
  let mean = values[0];
  for (let i = 0; i < n; i++) kept[i] = mean += alpha * (values[i] - mean);
};
const once = k => {
  if (k === 24) return done([middle(out.frame), middle(out.ours), middle(out.plain)]);
  const begin = performance.now();
  slider.value = 200 + 25 * k;
  slider.dispatchEvent(new Event('input'));
  requestAnimationFrame(() => {
    const frame = performance.now() - begin, times = Math.ceil(1e6 / n);
    const ours = timed(times, again), loop = timed(times, plain);
    if (k >= 3) out.frame.push(frame), out.ours.push(ours), out.plain.push(loop);
    setTimeout(() => once(k + 1), 30);
  });
};
const wait = () => (document.getElementById('best').hidden ? setTimeout(wait, 50) : once(0));
emaSmooth.ready.then(wait);
"""
HEAD = ("points", "frame, ms", "arithmetic, ms", "a plain loop, ms", "arithmetic ÷ loop")


def main() -> None:
    browser = started()
    print(f"| {' | '.join(HEAD)} |\n{'|---' * len(HEAD)}|")
    with tempfile.TemporaryDirectory() as folder:
        for count in SIZES:
            browser.get(page(Path(folder), count).as_uri())
            frame, ours, plain = browser.execute_async_script(MEASURE)
            print(f"| {count:,} | {frame:.1f} | {ours:.3f} | {plain:.3f} | {ours / plain:.1f} |")
    browser.quit()


def started() -> Any:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("chromium-browser") or ""
    for argument in QUIET:
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_script_timeout(120)
    return driver


def page(folder: Path, count: int) -> Path:
    data, target = folder / f"{count}.csv", folder / f"{count}.html"
    values = np.random.default_rng(1).normal(size=count).cumsum()
    data.write_text("x\n" + "\n".join(map("{:.3f}".format, values)) + "\n")
    command = [sys.executable, "-m", "ema_cli", str(data), "--alpha", "0.01", "--plot", str(target)]
    subprocess.run([*command, "-o", str(folder / "out.csv")], check=True)
    return target


if __name__ == "__main__":
    main()
