"""The page in a real browser, without a network: it computes as the command, and lets choose."""

from __future__ import annotations

import json
import math
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import SAMPLES, Workshop, wait_for

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not here")

CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    "--window-size=1100,1000",
)
# Everything is there, and has been drawn.
READY = """
const done = arguments[0];
emaSmooth.ready.then(() => requestAnimationFrame(() => done(true)), e => done(String(e)))
"""
# How many pixels of the first chart have about this colour.
PIXELS = """
const [r, g, b] = arguments, canvas = emaSmooth.charts[0].canvas;
const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
let count = 0;
for (let k = 0; k < data.length; k += 4)
  if (Math.abs(data[k] - r) + Math.abs(data[k + 1] - g) + Math.abs(data[k + 2] - b) < 60) count++;
return count
"""
BLUE = (0, 89, 168)  # the first trend, #0059a8


PHONE = {"width": 360, "height": 740, "pixelRatio": 2, "touch": True, "mobile": True}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started() as driver:
        yield driver


@pytest.fixture(scope="module")
def phone() -> Iterator[Any]:
    """A browser with a narrow screen that is touched."""
    with started(mobileEmulation={"deviceMetrics": PHONE}) as driver:
        yield driver


@contextmanager
def started(**options_of_chrome: Any) -> Iterator[Any]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("chromium or chromedriver is not here")
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for name, value in options_of_chrome.items():
        options.add_experimental_option(name, value)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for argument in (*QUIET, f"--user-data-dir={profile}"):
            options.add_argument(argument)
        driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        driver.set_script_timeout(60)
        yield driver
        driver.quit()


def show(browser: Any, page: Path) -> None:
    browser.get_log("browser")  # what an earlier page said
    browser.get(page.as_uri())
    assert browser.execute_async_script(READY) is True
    assert severe(browser) == []


def severe(browser: Any) -> list[str]:
    """What the browser complains of, such as a script that the page's policy has stopped."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] != "INFO"]


def by_id(browser: Any, name: str) -> Any:
    from selenium.webdriver.common.by import By

    return browser.find_element(By.ID, name)


def typed(browser: Any, name: str, text: str) -> None:
    """Type into a box as a person does, and end with Enter."""
    from selenium.webdriver.common.keys import Keys

    by_id(browser, name).send_keys(Keys.CONTROL, "a")
    by_id(browser, name).send_keys(text, Keys.ENTER)


def trend(browser: Any, column: int = 0, series: int = 0) -> list[float]:
    """What the slider has drawn; NaN where blank."""
    script = "return Array.from(emaSmooth.trend(...arguments), v => v === v ? v : null)"
    found = browser.execute_script(script, column, series)
    return [math.nan if value is None else value for value in found]


def options_shown(browser: Any) -> list[str]:
    return shlex.split(by_id(browser, "options").text)


def trends_of(shop: Workshop, *arguments: Any, column: str = "x") -> list[float]:
    """The command's own trend."""
    shop.run(*arguments, "--to", "csv", "-o", "trend.csv")
    lines = shop.read("trend.csv").decode().splitlines()
    place = lines[0].split(",").index(f"{column}_ema")
    return [float(cells[place] or "nan") for cells in (line.split(",") for line in lines[1:])]


def close(found: list[float], expected: list[float]) -> None:
    assert len(found) == len(expected)
    assert np.isnan(found).tolist() == np.isnan(expected).tolist()
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def rows(count: int = 400) -> str:
    """Irregular times, some of them twice; blanks alone and in runs, at either end too; and how much a row
    counts, which may be nothing."""
    random = np.random.default_rng(3)
    times = 1_600_000_000 + np.cumsum(random.choice([0, 1, 1, 1, 7, 600, 100_000], count))
    values = [format(value, ".6f") for value in 50 + random.normal(size=count).cumsum()]
    blank = random.random(count) < 0.2
    blank[[0, -1]] = True
    weights = random.choice(["", "0", "0.25", "1", "3", "1000"], count)
    lines = ["t,x,w"]
    for time, value, nothing, weight in zip(times, values, blank, weights, strict=True):
        lines.append(f"{time},{'' if nothing else value},{weight}")
    return "\n".join(lines) + "\n"


# -- the numbers

TIMES = ("--time", "t", "--time-unit", "s")
WEIGHTS = ("--weights", "w")
# Options, the family, and where it is not the usual ones the first weight and the one that is typed.
MODES: dict[str, tuple[Any, ...]] = {
    "plain": ((), "alpha"),
    "a fraction": ((), "alpha", "1/14", "3/100"),
    "com": ((), "com"),
    "adjusted": (("--adjust",), "alpha"),
    "decay": (("--missing", "decay"), "decay"),
    "decay, adjusted": (("--missing", "decay", "--adjust"), "span"),
    "filled": (("--fill", "--min-periods", "5"), "halflife"),
    "from zero": (("--init", "zero"), "alpha"),
    "from a number": (("--init", "-12.5", "--missing", "decay"), "decay"),
    "sma": (("--init", "sma"), "span"),
    "sma of so many": (("--init", "sma:20"), "alpha"),
    "sma of so many, decay": (("--init", "sma:20", "--missing", "decay", "--fill"), "halflife"),
    "wilder": ((), "wilder"),
    "wilder, decay": (("--missing", "decay"), "wilder"),
    "wilder from the first": (("--init", "first"), "wilder"),
    "wilder, adjusted": (("--adjust",), "wilder"),
    "weights": (WEIGHTS, "alpha"),
    "weights, adjusted": ((*WEIGHTS, "--adjust"), "span"),
    "weights, decay": ((*WEIGHTS, "--missing", "decay"), "alpha"),
    "weights, decay, adjusted": ((*WEIGHTS, "--missing", "decay", "--adjust"), "alpha"),
    "weights from a number": ((*WEIGHTS, "--init", "45"), "alpha"),
    "weights, sma": ((*WEIGHTS, "--init", "sma", "--missing", "decay"), "span"),
    "weights, wilder": (WEIGHTS, "wilder"),
    "centered": (("--centered",), "alpha"),
    "centered, decay": (("--centered", "--missing", "decay"), "halflife"),
    "centered, weights": (("--centered", *WEIGHTS), "span"),
    "centered, wilder": (("--centered",), "wilder"),
    "double": (("--double",), "span"),
    "triple": (("--triple", "--missing", "decay"), "alpha"),
    "sum and var": (("--sum", "--var", "--fill"), "alpha"),
    "by time": (TIMES, "halflife"),
    "by time, adjusted": ((*TIMES, "--adjust"), "halflife"),
    "by time, afresh": ((*TIMES, "--reset-gap", "1h"), "halflife"),
    "by time, afresh, adjusted": ((*TIMES, "--reset-gap", "1h", "--adjust", "--fill"), "halflife"),
    "tau": (TIMES, "tau"),
    "tau, adjusted": ((*TIMES, "--adjust"), "tau"),
    "by time from zero": ((*TIMES, "--init", "zero"), "halflife", "10s", "4s"),
    "by time from a number": ((*TIMES, "--init", "45", "--reset-gap", "1h"), "tau", "10s", "4s"),
    "by time, weights": ((*TIMES, *WEIGHTS), "halflife"),
    "by time, weights, adjusted": ((*TIMES, *WEIGHTS, "--adjust"), "tau"),
    "by time, weights, from a number": (
        (*TIMES, *WEIGHTS, "--init", "45", "--reset-gap", "1h"),
        "tau",
        "10s",
        "4s",
    ),
    "by time, centered": ((*TIMES, "--centered"), "halflife"),
    "by time, centered, afresh, weights": ((*TIMES, *WEIGHTS, "--centered", "--reset-gap", "1h"), "tau"),
    "by time, double": ((*TIMES, "--double"), "halflife"),
    "along another column": (("--x", "t"), "alpha"),
    "along another column, weights": (("--x", "t", *WEIGHTS), "alpha"),
    "from the newest on, centered": (("--newest-first", "--centered"), "alpha"),
}
# Of each family the weight that is given, and one that is typed into its box.
USUAL = {
    "alpha": ("0.1", "0.0312"),
    "decay": ("0.9", "0.99688"),
    "span": ("12", "7"),
    "halflife": ("9", "2.5"),
    "com": ("9.5", "31"),
    "wilder": ("14", "5"),
}


@pytest.mark.parametrize("mode", MODES)
def test_the_sliders_numbers_are_the_commands(browser: Any, shop: Workshop, mode: str) -> None:
    options, family, *given = MODES[mode]
    first, then = given or (("30min", "1h30m") if "--time" in options else USUAL[family])
    shop.write("x.csv", rows())
    chosen = ("x.csv", "-c", "x", *options)
    turn = -1 if "--newest-first" in options else 1  # a picture goes from the oldest on
    expected = trends_of(shop, *chosen, f"--{family}", first, "--plot", "x.html")
    show(browser, shop.folder / "x.html")
    close(trend(browser), expected[::turn])
    same_without_typing = trends_of(shop, "x.csv", "-c", "x", *options_shown(browser))
    close(trend(browser), same_without_typing[::turn])
    typed(browser, f"box-{family}", then)
    close(trend(browser), trends_of(shop, *chosen, f"--{family}", then)[::turn])
    # What is to be copied gives what is shown, with nothing of the first command but input and column.
    close(trend(browser), trends_of(shop, "x.csv", "-c", "x", *options_shown(browser))[::turn])
    # So it does where the slider has chosen the weight, which it says in the same family.
    script = "const s = arguments[0]; s.value = 420; s.dispatchEvent(new Event('input'))"
    browser.execute_script(script, by_id(browser, "slider"))
    assert options_shown(browser)[0] == f"--{family}"
    close(trend(browser), trends_of(shop, "x.csv", "-c", "x", *options_shown(browser))[::turn])


def test_the_difference_of_two_trends_leaves_the_slider_its_own(browser: Any, shop: Workshop) -> None:
    shop.write("x.csv", rows())
    shop.run("x.csv", "-c", "x", "--span", "12", "--span", "26", "--diff", "--plot", "x.html")
    show(browser, shop.folder / "x.html")
    assert browser.execute_script("return emaSmooth.charts[0].panels.map(panel => panel.kind)") == [
        "value",
        "diff",
    ]
    assert options_shown(browser) == ["--span", "12"]
    close(trend(browser), trends_of(shop, "x.csv", "-c", "x", "--span", "12"))
    press(browser, "diff 0")
    assert browser.execute_script("return emaSmooth.charts[0].panels.length") == 1


@pytest.mark.parametrize("runs", [False, True])
def test_pairs_have_charts_of_their_own_and_no_trend(browser: Any, shop: Workshop, runs: bool) -> None:
    random = np.random.default_rng(2)
    for name in ("one.csv", "two.csv"):
        lines = [f"{a:.3f},{a + b:.3f},{b:.3f}" for a, b in random.normal(size=(60, 2))]
        shop.write(name, "\n".join(["x,y,z", *lines]) + "\n")
    options = ("--alpha", "0.2", "--alpha", "0.5", "--corr", "--cov", "--plot", "x.html")
    shop.run("one.csv", "two.csv", *options, "--output-dir", "out") if runs else shop.run(
        "one.csv", *options, "-o", "out.csv"
    )
    show(browser, shop.folder / "x.html")
    assert titles(browser) == ["x", "y", "z", "x and y", "x and z", "y and z"]
    # The numbers of each line are the command's.
    for series, name in enumerate(["out/one.csv", "out/two.csv"] if runs else ["out.csv"]):
        table = [line.split(",") for line in shop.read(name).decode().splitlines()]
        script = (
            "return emaSmooth.charts[5].panels.map(p => p.lines.map(l => [l.name, l.trace.of, [...l.y]]))"
        )
        found = browser.execute_script(script.replace("[...l.y]", "[...l.y].map(v => v === v ? v : null)"))
        assert [len(panel) for panel in found] == [2 * (1 + runs)] * 2
        for column, of, values in (line for panel in found for line in panel):
            if of == series:
                place = table[0].index(column)
                assert [None if v is None else float(v) for v in values] == [
                    float(cells[place]) if cells[place] else None for cells in table[1:]
                ]
    typed(browser, "box-alpha", "0.3")
    assert browser.execute_script("return emaSmooth.charts[5].numbers.textContent") == ""
    by_id(browser, "residual").click()
    by_id(browser, "log").click()
    for part in ("cov 0", "cov 1", "corr 0", "corr 1"):
        press(browser, part)
    kinds = "return emaSmooth.charts.map(chart => chart.panels.map(panel => panel.kind))"
    assert wait_for(lambda: browser.execute_script(kinds) == [["value", "residual"]] * 3 + [["cov"]] * 3)
    assert "and" not in browser.execute_script("return emaSmooth.csv()").replace("trend", "")
    assert severe(browser) == []


def test_what_looks_both_ways_is_bias_corrected_and_forecasts_nothing(browser: Any, shop: Workshop) -> None:
    shop.write("x.csv", rows())
    shop.run("x.csv", "-c", "x", "--alpha", "0.1", "--centered", "--plot", "x.html")
    show(browser, shop.folder / "x.html")
    for name in ("bias", "errors", "best"):
        assert not by_id(browser, name).is_displayed()
    said = browser.execute_script("return emaSmooth.charts[0].numbers.textContent")
    assert "residual" in said
    assert "one-step" not in said


def test_after_a_state_it_begins_afresh_and_says_so(browser: Any, shop: Workshop) -> None:
    options = ("--alpha", "0.25", "--state", "s", "--plot", "x.html")
    shop.write("x.csv", "x\n8\n0\n")
    first = shop.run("x.csv", *options)
    assert "afresh" not in first.err
    shop.write("x.csv", "x\n4\n0\n")
    done = shop.run("x.csv", *options)
    assert done.out == b"x,x_ema\n4,5.5\n0,4.125\n"
    note = "goes on from a state; the slider's trend begins afresh with them"
    assert note in done.err
    show(browser, shop.folder / "x.html")
    assert note in by_id(browser, "notes").text
    assert trend(browser) == [4, 3]
    # Parts of a chain are such a run too.
    assert note in shop.run("x.csv", *options, "--output-dir", "out", "--chain").err
    assert note in shop.read("x.html").decode()


def test_options_to_copy_name_columns_safely(browser: Any, shop: Workshop) -> None:
    name = 'it\'s a "key"; $(touch broken)'
    quoted = name.replace('"', '""')
    shop.write("x.csv", f'"{quoted}",x\na,1\nb,5\na,3\nb,7\n')
    shop.run("x.csv", "--by", name, "--alpha", "0.5", "--plot", "x.html")
    show(browser, shop.folder / "x.html")
    assert options_shown(browser) == ["--alpha", "0.5", "--by", name]


@pytest.mark.parametrize("family", ["alpha", "span", "halflife", "decay"])
def test_every_box_sets_the_others_and_the_trend(browser: Any, shop: Workshop, family: str) -> None:
    shop.write("x.csv", rows())
    shop.run("x.csv", "-c", "x", "--alpha", "0.5", "--plot", "x.html")
    show(browser, shop.folder / "x.html")
    typed(browser, f"box-{family}", USUAL[family][1])
    assert options_shown(browser) == [f"--{family}", USUAL[family][1]]
    close(trend(browser), trends_of(shop, "x.csv", "-c", "x", f"--{family}", USUAL[family][1]))
    alpha = float(by_id(browser, "box-alpha").get_property("value"))
    assert float(by_id(browser, "box-span").get_property("value")) == pytest.approx(2 / alpha - 1, rel=2e-3)
    assert float(by_id(browser, "box-decay").get_property("value")) == pytest.approx(1 - alpha, rel=2e-3)


def test_a_text_that_is_no_weight_is_said_and_changes_nothing(browser: Any, shop: Workshop) -> None:
    shop.write("x.csv", rows())
    shop.run("x.csv", "-c", "x", "--alpha", "0.5", "--plot", "x.html")
    show(browser, shop.folder / "x.html")
    before = trend(browser)
    for name, text in (
        ("box-alpha", "1.5"),
        ("box-span", "0"),
        ("box-decay", "0x1"),
        ("box-halflife", "5min"),
    ):
        typed(browser, name, text)
        assert by_id(browser, name).get_attribute("aria-invalid") == "true"
        assert text in by_id(browser, "status").text
    assert options_shown(browser) == ["--alpha", "0.5"]
    close(trend(browser), before)


def test_the_slider_moves_by_keys_and_says_where_it_is(browser: Any, shop: Workshop) -> None:
    from selenium.webdriver.common.keys import Keys

    shop.write("x.csv", rows())
    shop.run("x.csv", "-c", "x", "--alpha", "0.5", "--plot", "x.html")
    show(browser, shop.folder / "x.html")
    slider = by_id(browser, "slider")
    place = float(slider.get_property("value"))
    slider.send_keys(Keys.ARROW_RIGHT * 200)
    assert float(slider.get_property("value")) == place + 200
    shown = options_shown(browser)
    assert shown[0] == "--alpha"
    assert 0 < float(shown[1]) < 0.5
    assert shown[1] in slider.get_attribute("aria-valuetext")
    assert "half-life" in slider.get_attribute("aria-valuetext")
    close(trend(browser), trends_of(shop, "x.csv", "-c", "x", *shown))


def test_equal_steps_of_the_slider_are_equal_factors_of_the_halflife(browser: Any, shop: Workshop) -> None:
    shop.write("x.csv", rows())
    shop.run("x.csv", "-c", "x", "--halflife", "10", "--plot", "x.html")
    show(browser, shop.folder / "x.html")
    script = """
    const slider = document.getElementById('slider'), out = [];
    for (const place of [300, 500, 700, 900]) {
      slider.value = place;
      slider.dispatchEvent(new Event('input'));
      out.push(Number(document.getElementById('box-halflife').value));
    }
    return out"""
    found = browser.execute_script(script)
    ratios = [b / a for a, b in pairwise(found)]
    assert ratios == pytest.approx([ratios[0]] * 3, rel=0.02)


def test_bias_corrected_is_adjust(browser: Any, shop: Workshop) -> None:
    shop.write("x.csv", rows())
    shop.run("x.csv", "-c", "x", "--alpha", "0.05", "--init", "zero", "--plot", "x.html")
    show(browser, shop.folder / "x.html")
    by_id(browser, "bias").click()
    assert options_shown(browser) == ["--alpha", "0.05", "--adjust"]
    close(trend(browser), trends_of(shop, "x.csv", "-c", "x", "--alpha", "0.05", "--adjust"))
    by_id(browser, "bias").click()
    assert options_shown(browser) == ["--alpha", "0.05", "--init", "0"]


def test_each_key_has_its_own_trend(browser: Any, shop: Workshop) -> None:
    options = (SAMPLES / "weather.csv", "-c", "temp", "--by", "location", "--time", "time")
    shop.run(*options, "--halflife", "6h", "--plot", "x.html")
    show(browser, shop.folder / "x.html")
    typed(browser, "box-halflife", "45min")
    shop.run(*options, "--halflife", "45min", "--only", "-o", "trend.csv")
    cells = [line.split(",") for line in shop.read("trend.csv").decode().splitlines()[1:]]
    names = browser.execute_script("return emaSmooth.page.names")
    assert names == ["EWR", "JFK", "LGA"]
    for series, name in enumerate(names):
        close(trend(browser, 0, series), [float(value or "nan") for key, _, value in cells if key == name])


UNSORTED = "t,x\n" + "".join(
    f"{t},{x}\n" for x, t in enumerate([1, 2, 3, 5, 8, 4, 9, 10, 2, 3, 4, 7, 11, 12, 5, 13], 3)
)


@pytest.mark.parametrize("late", ["skip", "restart"])
@pytest.mark.parametrize("clock", [(*TIMES, "--halflife", "3s"), ("--order", "t", "--alpha", "0.3")])
def test_rows_that_come_late_are_left_out_or_begin_afresh(
    browser: Any, shop: Workshop, late: str, clock: tuple[str, ...]
) -> None:
    shop.write("x.csv", UNSORTED)
    options = ("x.csv", "-c", "x", *clock, "--late", late)
    if "NotImplementedError" in shop.run(*options, code=None).err:
        pytest.skip("the engine does not restart yet")
    expected = trends_of(shop, *options, "--plot", "x.html")
    show(browser, shop.folder / "x.html")
    close(trend(browser), [value for value in expected if not math.isnan(value)])
    assert len(trend(browser)) == (16 if late == "restart" else 10)


def test_rows_from_the_newest_on_are_smoothed_from_the_oldest(browser: Any, shop: Workshop) -> None:
    shop.write("x.csv", "x\n" + "".join(f"{row * row}\n" for row in range(30)))
    expected = trends_of(shop, "x.csv", "--alpha", "0.3", "--newest-first", "--plot", "x.html")
    show(browser, shop.folder / "x.html")
    close(trend(browser), expected[::-1])


def test_files_are_runs_in_one_output_too(browser: Any, shop: Workshop) -> None:
    if b"--by-file" not in shop.run("--help").out:
        pytest.skip("--by-file is not here yet")
    runs(shop)
    files = ["lr-0.1.csv", "lr-0.3.csv", "base.csv"]
    options = ("-c", "loss", "--x", "step", "--by-file", "--decay", "0.9")
    expected = trends_of(shop, *files, *options, "--plot", "x.html", column="loss")
    show(browser, shop.folder / "x.html")
    assert browser.execute_script("return [emaSmooth.page.names, emaSmooth.page.runs]") == [
        ["lr-0.1", "lr-0.3", "base"],
        True,
    ]
    found = [value for series in range(3) for value in trend(browser, 0, series)]
    close(found, expected)


# -- the errors, and the best weight


def test_residual_and_error_are_those_of_the_weight_shown(browser: Any, shop: Workshop) -> None:
    shop.run(SAMPLES / "co2.csv", "--alpha", "0.1", "--plot", "x.html")
    show(browser, shop.folder / "x.html")
    found = browser.execute_script("return emaSmooth.found(0)")
    values = [
        float(line.split(",")[1] or "nan") for line in (SAMPLES / "co2.csv").read_text().splitlines()[1:]
    ]
    expected = trends_of(shop, SAMPLES / "co2.csv", "--alpha", "0.1", column="co2")
    pairs = [(x, y) for x, y in zip(values, expected, strict=True) if not math.isnan(x)]
    residuals = sum((x - y) ** 2 for x, y in pairs)
    errors = sum((x - y) ** 2 for (x, _), (_, y) in zip(pairs[1:], pairs, strict=False))
    assert found["residuals"] == pytest.approx(residuals, rel=1e-9)
    assert found["squares"] == pytest.approx(errors, rel=1e-9)
    assert (found["rows"], found["count"]) == (len(pairs), len(pairs) - 1)
    shown = browser.execute_script("return emaSmooth.charts[0].numbers.textContent")
    assert f"residual {math.sqrt(residuals / len(pairs)):.4f}" in shown
    assert f"one-step error {math.sqrt(errors / (len(pairs) - 1)):.4f}" in shown


def test_the_best_weight_is_the_one_that_the_command_finds(browser: Any, shop: Workshop) -> None:
    data = (SAMPLES / "training_loss.csv", "-c", "train_loss")
    done = shop.run(*data, "--alpha", "auto", "-o", "auto.csv")
    best = float(done.err.split("--alpha ")[1])
    shop.run(*data, "--alpha", "0.01", "--plot", "x.html")
    show(browser, shop.folder / "x.html")
    button = by_id(browser, "best")
    wait_for(button.is_displayed)
    button.click()
    assert float(options_shown(browser)[1]) == pytest.approx(best, rel=0.02)


# -- choosing what is shown


def press(browser: Any, part: str) -> None:
    browser.execute_script(f"document.querySelector('[data-part=\"{part}\"]').click()")


def test_a_button_of_the_legend_hides_a_trend_and_shows_it_again(browser: Any, shop: Workshop) -> None:
    shop.run(SAMPLES / "co2.csv", "--time", "week", "--halflife", "180d", "--plot", "x.html")
    show(browser, shop.folder / "x.html")
    assert browser.title == "co2.csv, halflife 180d"
    press(browser, "further")
    drawn = wait_for(lambda: browser.execute_script(PIXELS, *BLUE))
    assert drawn > 300
    press(browser, "ema 0")
    assert wait_for(lambda: browser.execute_script(PIXELS, *BLUE) < drawn / 10)
    pressed = "return document.querySelector('[data-part=\"ema 0\"]').getAttribute('aria-pressed')"
    assert browser.execute_script(pressed) == "false"
    press(browser, "ema 0")
    assert wait_for(lambda: browser.execute_script(PIXELS, *BLUE) > drawn / 2)


def test_forty_columns_and_two_hundred_keys_can_be_chosen_from(browser: Any, shop: Workshop) -> None:
    lines = [",".join(["key", *(f"c{k}" for k in range(40))])]
    lines += [
        f"shop {key}," + ",".join(str(row + key + k) for k in range(40))
        for row in range(3)
        for key in range(200)
    ]
    shop.write("x.csv", "\n".join(lines) + "\n")
    done = shop.run("x.csv", "--by", "key", "--alpha", "0.5", "--plot", "x.html")
    assert done.err == ""
    show(browser, shop.folder / "x.html")
    assert browser.execute_script("return emaSmooth.page.columns.map(c => c.traces.length)") == [200] * 40
    shop.run("x.csv", "--alpha", "0.5", "--plot", "wide.html")
    show(browser, shop.folder / "wide.html")
    assert browser.execute_script("return emaSmooth.page.columns.length") == 40
    assert browser.execute_script("return emaSmooth.charts.length") == 6
    filtered(browser, "Columns", "^c3[0-3]$")
    assert titles(browser) == ["c30", "c31", "c32", "c33"]
    shop.run("x.csv", "--by", "key", "-c", "c7", "--alpha", "0.5", "--plot", "keys.html")
    show(browser, shop.folder / "keys.html")
    assert browser.execute_script("return emaSmooth.page.names.length") == 200
    assert len(titles(browser)) == 12
    filtered(browser, "Keys", "shop 19")
    assert titles(browser)[:3] == ["shop 19: c7", "shop 190: c7", "shop 191: c7"]
    filtered(browser, "Keys", "")
    assert len(titles(browser)) == 12


def filtered(browser: Any, picker: str, pattern: str) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    field = browser.find_element(By.CSS_SELECTOR, f'.picker[aria-label="{picker}"] input')
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(pattern or Keys.DELETE)
    browser.execute_async_script("setTimeout(arguments[0], 300)")


def titles(browser: Any) -> list[str]:
    found: list[str] = browser.execute_script(
        "return emaSmooth.charts.map(chart => chart.caption.textContent)"
    )
    return found


def runs(shop: Workshop) -> None:
    random = np.random.default_rng(5)
    for name, rate in (("lr-0.1", 0.1), ("lr-0.3", 0.3), ("base", 0.05)):
        lines = [
            f"{step},{2 * math.exp(-step * rate / 500) + random.random() / 5:.5f}"
            for step in range(0, 3000, 10)
        ]
        shop.write(f"{name}.csv", "step,loss\n" + "\n".join(lines[: 150 if name == "base" else None]) + "\n")


@pytest.mark.parametrize("jobs", ["1", "3"])
def test_runs_are_drawn_over_each_other(browser: Any, shop: Workshop, jobs: str) -> None:
    runs(shop)
    names = ["lr-0.1", "lr-0.3", "base"]
    files = [f"{name}.csv" for name in names]
    options = ("--decay", "0.9", "--x", "step", "--output-dir", "out", "-j", jobs)
    plain = shop.run(*files, *options)
    kept = {name: shop.read(f"out/{name}") for name in files}
    drawn = shop.run(*files, *options, "--plot", "x.html")
    assert drawn.err == plain.err
    assert {name: shop.read(f"out/{name}") for name in files} == kept
    show(browser, shop.folder / "x.html")
    assert browser.execute_script("return emaSmooth.page.names") == names
    assert titles(browser) == ["loss"]
    assert browser.execute_script("return emaSmooth.charts[0].traces.length") == 3
    typed(browser, "box-decay", "0.97")
    for series, file in enumerate(files):
        close(
            trend(browser, 0, series), trends_of(shop, file, "-c", "loss", "--decay", "0.97", column="loss")
        )
    filtered(browser, "Runs", "lr")
    assert browser.execute_script("return emaSmooth.charts[0].traces.length") == 2
    by_id(browser, "apart").click()
    assert wait_for(lambda: len(titles(browser)) == 2)
    by_id(browser, "relative").click()
    by_id(browser, "log").click()
    assert severe(browser) == []


# -- the pointer, the keys, the wheel


def test_the_wheel_alone_scrolls_the_page_and_with_ctrl_zooms_along(browser: Any, shop: Workshop) -> None:
    shop.run(SAMPLES / "co2.csv", "--alpha", "0.1", "--plot", "x.html")
    show(browser, shop.folder / "x.html")
    script = """
    const canvas = emaSmooth.charts[0].canvas, box = canvas.getBoundingClientRect();
    const where = {clientX: box.left + box.width / 2, clientY: box.top + 50, deltaY: -300, cancelable: true};
    const taken = ctrlKey => {
      const event = new WheelEvent('wheel', {...where, ctrlKey});
      canvas.dispatchEvent(event);
      return event.defaultPrevented;
    };
    return [taken(false), emaSmooth.chosen.view, taken(true), emaSmooth.chosen.view]"""
    plain, before, ctrl, view = browser.execute_script(script)
    assert (plain, before, ctrl) == (False, None, True)
    assert 0 < view[0] < view[1] < 2284
    by_id(browser, "whole").click()
    assert browser.execute_script("return emaSmooth.chosen.view") is None


def test_dragging_looks_closer_and_the_values_refit(browser: Any, shop: Workshop) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    shop.run(SAMPLES / "co2.csv", "--alpha", "0.1", "--plot", "x.html")
    show(browser, shop.folder / "x.html")
    canvas = browser.execute_script("return emaSmooth.charts[0].canvas")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    ActionChains(browser).move_to_element_with_offset(canvas, 200, 0).click_and_hold().move_by_offset(
        100, 10
    ).release().perform()
    view = browser.execute_script("return emaSmooth.chosen.view")
    assert view[1] - view[0] < 400
    # The top of the panel is now about the greatest value in view, not of all.
    script = "const p = emaSmooth.charts[0].panels[0]; return [p.up(372), p.box.top, p.up(350)]"
    wait_for(lambda: browser.execute_script("return emaSmooth.charts[0].scale.span[1] < 2284"))
    high, top, _ = browser.execute_script(script)
    assert high < top
    ActionChains(browser).double_click(canvas).perform()
    assert browser.execute_script("return emaSmooth.chosen.view") is None


def test_arrow_keys_walk_from_row_to_row_and_are_spoken(browser: Any, shop: Workshop) -> None:
    from selenium.webdriver.common.keys import Keys

    shop.write("x.csv", "x\n1\n2\n4\n8\n")
    shop.run("x.csv", "--alpha", "0.5", "--plot", "x.html")
    show(browser, shop.folder / "x.html")
    canvas = browser.execute_script("return emaSmooth.charts[0].canvas")
    assert "4 rows along row" in canvas.get_attribute("aria-label")
    canvas.send_keys(Keys.HOME)
    assert by_id(browser, "spoken").get_property("textContent").startswith("1: x 1")
    canvas.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert "3: x 4, slider's trend 2.75, x_ema 2.75" in by_id(browser, "spoken").get_property("textContent")
    assert "2.75" in by_id(browser, "tip").text


def test_options_are_copied(browser: Any, shop: Workshop) -> None:
    shop.write("x.csv", rows())
    shop.run("x.csv", "-c", "x", "--alpha", "0.5", "--plot", "x.html")
    show(browser, shop.folder / "x.html")
    typed(browser, "box-alpha", "0.031")
    by_id(browser, "copy").click()
    assert wait_for(lambda: by_id(browser, "status").text == "copied --alpha 0.031")
    from selenium.webdriver.common.keys import Keys

    typed(browser, "box-alpha", "0.5")
    box = by_id(browser, "box-alpha")
    box.send_keys(Keys.CONTROL, "a")
    box.send_keys(Keys.CONTROL, "v")
    assert box.get_property("value") == "--alpha 0.031"


def test_the_numbers_can_be_taken_away(browser: Any, shop: Workshop) -> None:
    shop.write("x.csv", '"a,b"\n1\n\n3\n')
    shop.run("x.csv", "--alpha", "0.5", "--plot", "x.html")
    show(browser, shop.folder / "x.html")
    lines = browser.execute_script("return emaSmooth.csv()").splitlines()
    assert lines[0] == "series,column,row,value,trend --alpha 0.5"
    assert lines[1:] == [',"a,b",1,1,1', ',"a,b",2,,', ',"a,b",3,3,2']


# -- large, narrow, dark


def test_a_million_rows_say_that_they_are_thinned(browser: Any, shop: Workshop) -> None:
    values = np.random.default_rng(1).normal(size=1_000_000).cumsum()
    shop.write("x.csv", "x\n" + "\n".join(map("{:.3f}".format, values)) + "\n")
    shop.run("x.csv", "--alpha", "0.001", "--plot", "x.html", "-o", "out.csv")
    assert (shop.folder / "x.html").stat().st_size < 4_000_000
    show(browser, shop.folder / "x.html")
    said = browser.execute_script("return emaSmooth.charts[0].numbers.textContent")
    assert re.search(r"[0-9]{2,3},[0-9]{3} of 1,000,000 rows are here", said)
    assert "near the command's, not the same" in said
    kept = browser.execute_script("return emaSmooth.charts[0].traces[0].values.length")
    assert 50_000 < kept <= 300_000
    # Near: the forgetting between two rows is that of all the rows between them.
    found, x = trend(browser), browser.execute_script("return Array.from(emaSmooth.charts[0].traces[0].x)")
    lines = shop.read("out.csv").decode().splitlines()
    expected = np.array([float(lines[int(row)].split(",")[1]) for row in x])
    assert np.abs(np.array(found) - expected).max() < 0.05 * np.ptp(values)


GAPS_FADE = ("--missing", "decay")


@pytest.mark.parametrize(
    "options", [(), GAPS_FADE, (*GAPS_FADE, "--adjust"), ("--centered",), WEIGHTS, ("--x", "n")], ids=" ".join
)
def test_rows_without_a_value_fade_as_they_should_where_rows_are_thinned(
    browser: Any, shop: Workshop, options: tuple[str, ...]
) -> None:
    random = np.random.default_rng(1)
    values = random.normal(size=600_000).cumsum()
    cells = np.where(random.random(len(values)) < 0.7, "", values.round(3).astype(str))
    weights = random.choice(["1", "0", ""], len(values)) if options == WEIGHTS else ["1"] * len(values)
    numbers = map(str, range(1, len(values) + 1))
    table = zip(cells, weights, numbers, strict=True)
    shop.write("x.csv", "x,w,n\n" + "\n".join(map(",".join, table)) + "\n")
    shop.run("x.csv", "-c", "x", "--alpha", "0.00005", *options, "--plot", "x.html", "-o", "out.csv")
    show(browser, shop.folder / "x.html")
    found, x = trend(browser), browser.execute_script("return Array.from(emaSmooth.charts[0].traces[0].x)")
    assert len(x) < 300_000
    lines = shop.read("out.csv").decode().splitlines()
    expected = np.array([float(lines[int(row)].split(",")[3] or "nan") for row in x])
    assert np.isnan(found).tolist() == np.isnan(expected).tolist()
    assert np.nanmax(np.abs(np.array(found) - expected)) < 0.05 * np.ptp(values)


# Which weights are worked out when the slider moves twice, then half a second later.
WORKED_OUT = """
const done = arguments[0], slider = document.getElementById('slider'), real = window.follow, seen = [];
window.follow = (...given) => { seen.push(given[2].text); return real(...given); };
const shown = [];
for (const place of [300, 700]) {
  slider.value = place;
  slider.dispatchEvent(new Event('input'));
  shown.push(emaSmooth.chosen.weight.text);
}
setTimeout(() => { window.follow = real; done([seen, shown]); }, 500);
"""


def test_the_slider_works_out_the_weight_shown_and_no_other(browser: Any, shop: Workshop) -> None:
    """How long that takes is measured by `benchmarks/slider.py`."""
    values = np.random.default_rng(1).normal(size=200_000).cumsum()
    shop.write("x.csv", "x\n" + "\n".join(map("{:.3f}".format, values)) + "\n")
    shop.run("x.csv", "--alpha", "0.01", "--plot", "x.html", "-o", "out.csv")
    show(browser, shop.folder / "x.html")
    assert browser.execute_script("return emaSmooth.charts[0].traces[0].values.length") == 200_000
    wait_for(by_id(browser, "best").is_displayed)
    seen, shown = browser.execute_async_script(WORKED_OUT)
    assert seen == shown
    assert len(set(shown)) == 2


def test_on_a_phone_nothing_is_wider_than_the_screen(phone: Any, shop: Workshop) -> None:
    name = "a_very_long_name_without_any_place_to_break_it_" * 4
    shop.write("x.csv", f"{name},y\n1,2\n2,3\n3,5\n")
    shop.run("x.csv", "--alpha", "0.5", "--bands", "2", "--plot", "x.html")
    show(phone, shop.folder / "x.html")
    by_id(phone, "choose").find_element("tag name", "summary").click()
    widths = phone.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert widths == [360, 360]
    assert phone.execute_script("return emaSmooth.charts[0].canvas.clientWidth") > 320
    assert phone.execute_script("return document.getElementById('slider').clientWidth") > 300


# -- fingers


class Fingers:
    """Fingers on the first chart of a page. Places are CSS pixels from its upper left corner."""

    def __init__(self, browser: Any, page: Path) -> None:
        self.browser = browser
        show(browser, page)
        self.canvas = browser.execute_script("return emaSmooth.charts[0].canvas")
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", self.canvas)
        self.drawn()

    def move(self, *paths: list[tuple[int, int]]) -> None:
        """A finger for each path: down at its first place, along the others, and up."""
        from selenium.webdriver.common.actions.action_builder import ActionBuilder
        from selenium.webdriver.common.actions.pointer_input import PointerInput

        corner = "const box = arguments[0].getBoundingClientRect(); return [box.left, box.top]"
        left, top = self.browser.execute_script(corner, self.canvas)
        first = PointerInput("touch", "finger")
        actions = ActionBuilder(self.browser, mouse=first)
        others = [actions.add_pointer_input("touch", f"finger {number}") for number in range(1, len(paths))]
        for finger, path in zip([first, *others], paths, strict=True):
            for step, (x, y) in enumerate(path):
                finger.create_pointer_move(duration=60, x=round(left + x), y=round(top + y))
                if not step:
                    finger.create_pointer_down(button=0)
            finger.create_pointer_up(button=0)
        actions.perform()
        self.drawn()

    def drawn(self) -> None:
        self.browser.execute_async_script("setTimeout(arguments[0], 100)")

    @property
    def span(self) -> list[float]:
        """Where the axis along begins and ends."""
        found: list[float] = self.browser.execute_script("return emaSmooth.charts[0].scale.span")
        return found

    def under(self, x: int) -> float:
        """What stands on the axis at so many pixels."""
        script = """
        const {span, left, right} = emaSmooth.charts[0].scale;
        return span[0] + (span[1] - span[0]) * (arguments[0] - left) / (right - left)"""
        found: float = self.browser.execute_script(script, x)
        return found


@pytest.fixture
def fingers(phone: Any, shop: Workshop) -> Fingers:
    shop.run(SAMPLES / "co2.csv", "--alpha", "0.1", "--plot", "x.html")
    return Fingers(phone, shop.folder / "x.html")


def test_a_finger_reads_rows_and_what_it_read_stays(fingers: Fingers) -> None:
    tip = by_id(fingers.browser, "tip")
    fingers.move([(120, 90)])
    at = re.search(r"row ([0-9,]+)", tip.text)
    assert at is not None
    row = int(at[1].replace(",", ""))
    assert abs(row - fingers.under(120)) < 30
    fingers.move([(120, 90), (160, 92), (240, 95)])
    assert f"row {row:,}" not in tip.text
    assert tip.is_displayed()
    assert fingers.span == fingers.browser.execute_script("return emaSmooth.charts[0].scale.span")
    assert fingers.browser.execute_script("return emaSmooth.chosen.view") is None
    # The tip is not where the finger is.
    below = fingers.browser.execute_script("return arguments[0].getBoundingClientRect().bottom", tip)
    top = fingers.browser.execute_script("return arguments[0].getBoundingClientRect().top", fingers.canvas)
    assert below < top + 95
    by_id(fingers.browser, "title").click()
    assert not tip.is_displayed()


def test_two_fingers_zoom_and_what_is_under_them_stays_there(fingers: Fingers) -> None:
    whole = fingers.span
    a, b = fingers.under(150), fingers.under(200)
    fingers.move([(150, 100), (130, 100), (110, 100)], [(200, 100), (230, 100), (260, 100)])
    assert fingers.span[1] - fingers.span[0] < 0.5 * (whole[1] - whole[0])
    size = whole[1] - whole[0]
    assert fingers.under(110) == pytest.approx(a, abs=size / 100)
    assert fingers.under(260) == pytest.approx(b, abs=size / 100)
    # Both to one side: what is shown goes along with them.
    before = fingers.under(100)
    fingers.move([(100, 100), (140, 100)], [(200, 100), (240, 100)])
    assert fingers.under(140) == pytest.approx(before, abs=size / 100)
    # No finger is left behind: one alone reads, and does not zoom.
    view = fingers.span
    fingers.move([(100, 90), (200, 90)])
    assert fingers.span == view
    fingers.move([(110, 100), (180, 100)], [(260, 100), (200, 100)])
    fingers.move([(110, 100), (180, 100)], [(260, 100), (200, 100)])
    assert fingers.span == whole


def test_a_finger_that_goes_down_scrolls_the_page(fingers: Fingers) -> None:
    scrolled = "return window.scrollY"
    before = fingers.browser.execute_script(scrolled)
    fingers.move([(150, 60), (151, 120), (152, 200)])
    assert fingers.browser.execute_script(scrolled) < before
    assert not by_id(fingers.browser, "tip").is_displayed()
    assert fingers.browser.execute_script("return emaSmooth.chosen.view") is None


def test_a_finger_moves_the_slider(phone: Any, shop: Workshop) -> None:
    from selenium.webdriver.common.actions.action_builder import ActionBuilder
    from selenium.webdriver.common.actions.pointer_input import PointerInput

    shop.write("x.csv", rows())
    shop.run("x.csv", "-c", "x", "--alpha", "0.5", "--plot", "x.html")
    show(phone, shop.folder / "x.html")
    slider = by_id(phone, "slider")
    place = float(slider.get_property("value"))
    x, y, width, height = (slider.rect[name] for name in ("x", "y", "width", "height"))
    assert height >= 40  # a finger is that wide
    actions = ActionBuilder(phone, mouse=PointerInput("touch", "finger"))
    thumb = round(x + 8 + (width - 16) * place / 1000)
    finger = actions.pointer_action
    finger.move_to_location(thumb, round(y + height / 2)).pointer_down().move_to_location(
        thumb + 100, round(y + height / 2)
    ).pointer_up()
    actions.perform()
    assert float(slider.get_property("value")) > place + 150
    close(trend(phone), trends_of(shop, "x.csv", "-c", "x", *options_shown(phone)))


# -- without a pointer, and without eyes


def test_every_control_has_a_name_and_is_reached_by_tab(browser: Any, shop: Workshop) -> None:
    from selenium.webdriver.common.keys import Keys

    lines = [f"{key},{row},{row * row}" for row in range(9) for key in "ab"]
    shop.write("x.csv", "\n".join(["key,x,y", *lines]) + "\n")
    shop.run("x.csv", "--by", "key", "--alpha", "0.5", "--bands", "2", "--plot", "x.html")
    show(browser, shop.folder / "x.html")
    wait_for(by_id(browser, "best").is_displayed)
    kinds = "input, button, summary, canvas[tabindex], [tabindex='0']"
    controls = [one for one in browser.find_elements("css selector", kinds) if one.is_displayed()]
    named = [(one.aria_role, one.accessible_name.strip()) for one in controls]
    assert [each for each in named if not each[1]] == []
    assert len(set(named)) == len(named)
    # By Tab from the beginning on, each of them once, in the order in which they stand.
    reached = []
    for _ in controls:
        browser.switch_to.active_element.send_keys(Keys.TAB)
        reached.append(browser.switch_to.active_element)
    assert reached == controls
    charts = [name for role, name in named if role == "application"]
    expected = ["a: x", "b: x", "a: y", "b: y"]
    assert charts == [f"{name}: 9 rows along row of its key; arrow keys read them" for name in expected]
    assert ("slider", "How much to smooth") in named  # its value is said by aria-valuetext


def test_a_button_is_pressed_by_keys_and_says_whether_it_is(browser: Any, shop: Workshop) -> None:
    from selenium.webdriver.common.keys import Keys

    shop.write("x.csv", rows())
    shop.run("x.csv", "-c", "x", "--alpha", "0.5", "--plot", "x.html")
    show(browser, shop.folder / "x.html")
    button = browser.find_element("css selector", "[data-part='ema 0']")
    for key, pressed in ((Keys.SPACE, "false"), (Keys.ENTER, "true")):
        button.send_keys(key)
        assert button.get_attribute("aria-pressed") == pressed
        assert browser.switch_to.active_element == button
    by_id(browser, "copy").send_keys(Keys.ENTER)
    status = by_id(browser, "status")
    assert wait_for(lambda: status.text == "copied --alpha 0.5")
    assert status.aria_role == "status"


def test_it_is_dark_where_the_system_is(browser: Any, shop: Workshop) -> None:
    shop.write("x.csv", rows())
    shop.run("x.csv", "-c", "x", "--alpha", "0.5", "--plot", "x.html")
    colour = "return getComputedStyle(document.body).backgroundColor"
    corner = "return Array.from(emaSmooth.charts[0].canvas.getContext('2d').getImageData(1, 1, 1, 1).data)"
    found = []
    try:
        for scheme in ("light", "dark"):
            feature = {"name": "prefers-color-scheme", "value": scheme}
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
            show(browser, shop.folder / "x.html")
            wait_for(lambda: browser.execute_script(corner)[3] == 255)
            found.append((browser.execute_script(colour), sum(browser.execute_script(corner)[:3])))
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert found[0] == ("rgb(255, 255, 255)", 765)
    assert found[1][1] < 120
    assert found[1][0] != found[0][0]


# -- safety

HOSTILE = (
    "</script><img src=x onerror='window.broken=1'>",
    "<svg onload=window.broken=1>",
    "\"'><script>window.broken=1</script>",
    "javascript:window.broken=1",
    "$$\\href{javascript:window.broken=1}{a}$$",
    "line\nbreak\ttab",
    "\x1b[31mred\x07\x1b]0;title\x07",
    "\u202egnp.exe \u2066mixed\u2069",
    "@DATA@ @SCRIPT@ ${window.broken=1} {{constructor}}",
    "<!--",
    "\u2028window.broken=1",
)


def hostile_table(shop: Workshop) -> None:
    quoted = ['"' + name.replace('"', '""') + '"' for name in HOSTILE]
    lines = [",".join(quoted)]
    lines += [
        ",".join([quoted[row], *map(str, range(row, row + len(HOSTILE) - 1))]) for row in range(len(HOSTILE))
    ]
    shop.write("odd <b>name.csv", "\n".join(lines) + "\n")


@pytest.mark.parametrize("by", [False, True])
def test_names_are_text_and_nothing_of_them_runs(browser: Any, shop: Workshop, by: bool) -> None:
    hostile_table(shop)
    choice = ("--by", "1") if by else ()
    columns = [arg for k in range(2, 12) for arg in ("-c", str(k))]
    title = ("--title", "<script>window.broken=1</script>")
    shop.run("odd <b>name.csv", *choice, *columns, "--alpha", "0.5", *title, "--plot", "x.html")
    show(browser, shop.folder / "x.html")
    for button in browser.find_elements("css selector", "button"):
        if button.is_displayed() and "Save" not in button.text:
            button.click()
    canvas = browser.execute_script("return emaSmooth.charts[0]?.canvas")
    if canvas is not None:
        canvas.send_keys("+")
    assert browser.execute_script("return window.broken") is None
    assert browser.title == "<script>window.broken=1</script>"
    count = "return document.querySelectorAll('img, svg, iframe, a, object, b, math').length"
    assert browser.execute_script(count) == 0
    assert browser.execute_script("return document.scripts.length") == 2
    text = browser.execute_script("return document.body.innerText")
    assert HOSTILE[1] in text
    assert not re.search("[\x00-\x08\x1b\u202e\u2066\u2028]", text)
    assert "\\u202egnp.exe" in text
    assert severe(browser) == []


def test_its_policy_stops_what_is_not_its_own(browser: Any, shop: Workshop) -> None:
    shop.write("x.csv", "x\n1\n2\n")
    shop.run("x.csv", "--alpha", "0.5", "--plot", "x.html")
    page = shop.read("x.html").replace(
        b"<main", b"<script>window.broken=1</script><img src=x onerror=window.broken=2><main"
    )
    (shop.folder / "y.html").write_bytes(page)
    browser.get((shop.folder / "y.html").as_uri())
    assert browser.execute_async_script(READY) is True
    assert browser.execute_script("return window.broken") is None
    assert any("Content Security Policy" in message for message in severe(browser))


def test_it_asks_for_nothing_from_a_network(shop: Workshop) -> None:
    shop.run(SAMPLES / "co2.csv", "--alpha", "0.1", "--plot", "x.html")
    page = shop.read("x.html").decode()
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|(?:src|href)\s*=\s*[\"'a-z]", page.split('id="data"')[0])
    assert len(page) < 200_000
    data = page.split('id="data">')[1].split("</script>")[0]
    assert json.loads(data)["columns"][0]["name"] == "co2"
