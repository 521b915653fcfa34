"""The documentation as a site: it builds without a dead link, and a browser finds things in it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.conftest import ROOT, wait_for

pytestmark = pytest.mark.slow
pytest.importorskip("mkdocs", reason="builds the site")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "site.py", folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr  # mkdocs names the page and the link
    assert "WARNING" not in done.stderr
    return folder


def test_every_page_is_there(site: Path) -> None:
    names = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert names | {"index", "changelog", "contributing"} <= {path.stem for path in site.glob("*.html")}


def test_links_within_the_site_and_out_of_it(site: Path) -> None:
    front = (site / "index.html").read_text()
    assert 'href="semantics.html"' in front
    assert 'href="https://github.com/ema-smooth/ema-smooth/blob/main/examples/Makefile"' in front
    assert 'src="pictures/co2_page.png"' in front
    assert (site / "pictures" / "co2_page.png").exists()


def test_a_dead_link_stops_it(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for name in ("docs", "benchmarks", "sample_data"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("data", "__pycache__"))
    for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "mkdocs.yml"):
        shutil.copyfile(ROOT / name, copy / name)
    with (copy / "docs" / "shell.md").open("a") as page:
        page.write("\n[nowhere](semantics.md#no-such-heading)\n")
    done = subprocess.run(
        [sys.executable, copy / "docs" / "site.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode
    assert "no-such-heading" in done.stdout + done.stderr


def test_a_browser_finds_an_option(site: Path) -> None:
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.by import By

    driver = shutil.which("chromedriver")
    if driver is None:
        pytest.skip("no chromedriver here")
    handler = partial(SimpleHTTPRequestHandler, directory=str(site))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = Options()
    for argument in (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        "--window-size=1400,1000",  # on a narrow screen the search field is behind a button
    ):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=Service(driver))
    try:
        browser.get(f"http://127.0.0.1:{server.server_address[1]}/index.html")
        assert "ema-smooth" in browser.title
        field = browser.find_element(By.CSS_SELECTOR, "input.md-search__input")
        wait_for(field.is_displayed)
        field.send_keys("reset-gap")
        # In one step, for the page may be at work on its list.
        links = "return [...document.querySelectorAll('a.md-search-result__link')].map((link) => link.href)"
        assert any(".html" in link for link in wait_for(lambda: browser.execute_script(links)))
        errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
        assert not [entry for entry in errors if "github" not in entry["message"]]
    finally:
        browser.quit()
        server.shutdown()
        server.server_close()
