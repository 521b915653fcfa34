"""The interactive page in a real browser, without a network: it renders, and a click in the legend hides."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SAMPLES, Workshop, wait_for

pytest.importorskip("bokeh", reason="the extra [plot] is not here")
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not here")

CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    "--window-size=1100,900",
)

# The figures of the page and of each its visible lines and bands, by what Bokeh calls them.
FIGURES = """
return Array.from(Bokeh.documents[0]._all_models.values()).filter(m => m.type == 'Figure').length
"""
HIDDEN = """
const models = Array.from(Bokeh.documents[0]._all_models.values());
return models.filter(m => m.type == 'GlyphRenderer' && !m.visible).length
"""
# How many pixels of a figure's canvas have the colour of the first trend, #0059a8.
BLUE = """
let count = 0;
const walk = root => {
  for (const canvas of root.querySelectorAll('canvas')) {
    if (canvas.width < 100 || canvas.height < 200) continue;
    const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    for (let k = 0; k < data.length; k += 4)
      if (data[k + 3] == 255 && data[k] < 20 && Math.abs(data[k + 1] - 89) < 12 && data[k + 2] > 140) count++;
  }
  for (const child of root.querySelectorAll('*')) if (child.shadowRoot) walk(child.shadowRoot);
};
walk(document);
return count
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("chromium or chromedriver is not here")
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for argument in (*QUIET, f"--user-data-dir={profile}"):
            options.add_argument(argument)
        driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        yield driver
        driver.quit()


def show(browser: Any, page: Path) -> None:
    browser.get_log("browser")  # what an earlier page said
    browser.get(page.as_uri())
    script = "return window.Bokeh && Bokeh.documents.length == 1 && Bokeh.documents[0].is_idle"
    assert wait_for(lambda: browser.execute_script(script))
    severe = [entry["message"] for entry in browser.get_log("browser") if entry["level"] != "INFO"]
    assert severe == []


def click(browser: Any, x: int, y: int) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    body = browser.find_element(By.TAG_NAME, "body")
    size = body.rect
    offset = (x - int(size["x"] + size["width"] / 2), y - int(size["y"] + size["height"] / 2))
    ActionChains(browser).move_to_element_with_offset(body, *offset).click().perform()


def test_it_renders_and_a_click_in_the_legend_hides_a_trend(browser: Any, shop: Workshop) -> None:
    shop.run(SAMPLES / "co2.csv", "--time", "week", "--halflife", "180d", "--plot", "x.html")
    show(browser, shop.folder / "x.html")
    assert browser.title == "co2.csv, halflife 180d"
    assert browser.execute_script(FIGURES) == 2  # the legend and the panel
    drawn = wait_for(lambda: browser.execute_script(BLUE))
    assert drawn > 300
    assert browser.execute_script(HIDDEN) == 0
    top = browser.execute_script("return document.querySelector('h1').getBoundingClientRect().bottom")
    place = (110, int(top) + 30)  # the second name in the legend
    click(browser, *place)
    assert wait_for(lambda: browser.execute_script(HIDDEN) == 2)  # the legend's own and the panel's
    assert wait_for(lambda: browser.execute_script(BLUE) < drawn / 10)
    click(browser, *place)
    assert wait_for(lambda: browser.execute_script(HIDDEN) == 0)
    assert wait_for(lambda: browser.execute_script(BLUE) > drawn / 2)


def test_small_multiples_render_and_one_click_hides_in_all(browser: Any, shop: Workshop) -> None:
    options = ("--by", "location", "--time", "time", "--halflife", "12h", "-c", "temp", "--bands", "2")
    shop.run(SAMPLES / "weather.csv", *options, "--residual", "--plot", "x.html")
    show(browser, shop.folder / "x.html")
    assert browser.execute_script(FIGURES) == 7  # the legend, and two panels for each of three stations
    click(browser, 110, 80)
    assert wait_for(lambda: browser.execute_script(HIDDEN) == 4)


def test_names_are_text_and_never_markup(browser: Any, shop: Workshop) -> None:
    name = "</script><img src=x onerror='window.broken=1'>"
    shop.write("odd.csv", f'"{name}","$$a$$"\n1,2\n2,1\n3,3\n')
    shop.run("odd.csv", "--alpha", "0.5", "--plot", "x.html")
    show(browser, shop.folder / "x.html")
    click(browser, 500, 300)
    time.sleep(0.5)  # for the tooltip
    assert browser.execute_script("return window.broken") is None


def test_it_asks_for_nothing_from_a_network(shop: Workshop) -> None:
    shop.run(SAMPLES / "co2.csv", "--alpha", "0.1", "--plot", "x.html")
    page = shop.read("x.html").decode()
    tags = re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*", page.split("<body>")[0])
    assert not [tag for tag in tags if re.search(r"(?:src|href)\s*=", tag)]
    assert len(page) < 2_000_000
