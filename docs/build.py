"""Makes what is made in docs/: reference, man pages, completion from the commands; pictures from the gallery.

    python docs/build.py            all of it
    python docs/build.py --check    say what is not as it would be made; the pictures are only drawn

Needs the extra `plot` for the pictures. The screenshot of the interactive page is made where selenium and
chromium are there too, else it is left as it is.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
GALLERY = DOCS / "gallery.md"
PICTURES = DOCS / "pictures"
COMMAND = re.compile(r"^```sh\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
DRAWN = re.compile(r"(^```sh\n[^`]*--plot -[^`]*^```\n+```text\n)(.*?)(^```)", re.MULTILINE | re.DOTALL)
# Chromium without a word to anybody.
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
QUIET += ("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage")


# -- the gallery


def gallery_commands() -> list[str]:
    """Every command that the gallery shows, in its order."""
    return [line for block in COMMAND.findall(GALLERY.read_text()) for line in _lines(block)]


def _lines(block: str) -> Iterator[str]:
    yield from filter(None, block.replace("\\\n", " ").splitlines())


def prepare(folder: Path) -> dict[str, str]:
    """Put the sample data and the command into a folder; the environment to run the gallery's commands in."""
    (folder / "sample_data").symlink_to(ROOT / "sample_data")
    script = folder / "bin" / "ema-smooth"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m ema_cli "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    path = f"{script.parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "80", "LINES": "24"}


def run(command: str, folder: Path, environment: dict[str, str]) -> str:
    """Run a command of the gallery; what it says on stderr."""
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"$ {command}\n{done.stderr}exit code {done.returncode}")
    return done.stderr


def draw_gallery() -> str:
    """Make the pictures anew; the gallery's text with what the terminal's commands draw in it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = prepare(folder)
        said = {command: run(command, folder, environment) for command in gallery_commands()}
        PICTURES.mkdir(exist_ok=True)
        for picture in sorted([*folder.glob("*.png"), *folder.glob("*.svg")]):
            (PICTURES / picture.name).write_bytes(picture.read_bytes())
        for page in folder.glob("*.html"):
            photograph(page, PICTURES / f"{page.stem}_page.png")

    def drawn(match: re.Match[str]) -> str:
        (command,) = _lines(match[1].split("```")[1].removeprefix("sh\n"))
        return match[1] + said[command] + match[3]

    return DRAWN.sub(drawn, GALLERY.read_text())


# What is done with a page before its picture is taken, by its name: the slider is moved as by hand.
POSES = {"co2": 700, "runs": 480}


def photograph(page: Path, picture: Path) -> None:
    """A picture of a page in a browser, if there is one."""
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.options import Options
        from selenium.webdriver.chrome.service import Service
    except ImportError:
        return
    driver = shutil.which("chromedriver")
    if driver is None:
        return
    options = Options()
    with tempfile.TemporaryDirectory() as profile:
        for argument in (*QUIET, "--hide-scrollbars", f"--user-data-dir={profile}", "--window-size=1000,990"):
            options.add_argument(argument)
        browser = webdriver.Chrome(
            options=options, service=Service(driver)
        )  # named, or it would be downloaded
        try:
            browser.get(page.as_uri())
            browser.execute_async_script("window.emaSmooth.ready.then(arguments[0])")
            place = POSES.get(page.stem, 500)
            browser.execute_script(
                f"const slider = document.getElementById('slider'); slider.value = {place};"
                "slider.dispatchEvent(new Event('input'))"
            )
            time.sleep(3)  # until the best weight is found
            browser.save_screenshot(str(picture))
            shrink(picture)
        finally:
            browser.quit()


def shrink(picture: Path) -> None:
    """Store a screenshot with 128 colours, a third of its size."""
    from PIL import Image

    with Image.open(picture) as image:
        image.convert("RGB").quantize(128).save(picture, optimize=True)


# -- the reference


def reference(commands: list[click.Command]) -> str:
    """All options of the commands, as their help has them."""
    parts = ["# Reference\n\nWhat `--help` says, word for word; `make docs` writes this page.\n"]
    for command in commands:
        settings = command.context_settings | {"terminal_width": 98}
        with click.Context(command, info_name=command.name, **settings) as context:
            parts.append(f"\n## {command.name}\n\n```text\n{context.get_help()}\n```\n")
    return "".join(parts)


# -- all of it


def texts() -> dict[Path, str]:
    """What is made from the commands alone."""
    from ema_cli.cli import command
    from ema_cli.completion import completion_script
    from ema_cli.manual import man_page
    from ema_cli.weights_cli import command as weights

    made = {DOCS / "reference.md": reference([command, weights])}
    for one in (command, weights):
        made[DOCS / "man" / f"{one.name}.1"] = man_page(one)
        for shell in ("bash", "zsh", "fish"):
            made[DOCS / "completion" / f"{one.name}.{shell}"] = completion_script(one, shell)
    return made


def main() -> None:
    check = "--check" in sys.argv[1:]
    made = texts()
    if not check:
        made[GALLERY] = draw_gallery()
    stale = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        print(("stale: " if check else "made: ") + str(path.relative_to(ROOT)))
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(made[path])
    sys.exit(check and bool(stale))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
