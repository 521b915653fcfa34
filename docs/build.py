"""Makes what is made in docs/: reference, man pages, completion from the commands; pictures from the gallery.

    python docs/build.py            all of it
    python docs/build.py --check    say what is not as it would be made; the pictures are only drawn

Needs the extra `plot` for the pictures. The screenshot of the interactive page is made where selenium and
chromium are there too, else it is left as it is.
"""

from __future__ import annotations

import inspect
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
from click.shell_completion import get_completion_class

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
GALLERY = DOCS / "gallery.md"
PICTURES = DOCS / "pictures"
COMMAND = re.compile(r"^```sh\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
DRAWN = re.compile(r"(^```sh\n[^`]*--plot -[^`]*^```\n+```text\n)(.*?)(^```)", re.MULTILINE | re.DOTALL)
# Chromium without a word to anybody.
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
QUIET += ("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage")


# -- man pages


def man_page(command: click.Command) -> str:
    """A command's help in roff, for man(1)."""
    context = click.Context(command, info_name=command.name)
    name = str(command.name)
    summary, _, rest = inspect.cleandoc(command.help or "").partition("\n")
    words = " ".join(command.collect_usage_pieces(context))
    lines = [f'.TH "{name.upper()}" 1', ".SH NAME", f"{_roff(name)} \\- {_roff(summary.rstrip('.'))}"]
    lines += [".SH SYNOPSIS", f".B {_roff(name)}", _roff(words), ".SH DESCRIPTION"]
    lines += [_roff(line) if line.strip() else ".PP" for line in (summary + "\n" + rest).strip().splitlines()]
    lines.append(".SH OPTIONS")
    for group, records in _options(command, context).items():
        lines.append(f".SS {_roff(group)}")
        for flags, text in records:
            lines += [".TP", f".B {_roff(flags)}", _roff(text)]
    lines += [".SH NOTES", ".nf", *map(_roff, (command.epilog or "").strip().splitlines()), ".fi"]
    return "\n".join(lines) + "\n"


def _options(command: click.Command, context: click.Context) -> dict[str, list[tuple[str, str]]]:
    """What the help says of each option, by the heading that it stands under."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for param in command.get_params(context):
        record = param.get_help_record(context)
        if record is not None:
            groups.setdefault(getattr(param, "group", "Other"), []).append(record)
    groups["Other"] = groups.pop("Other", [])
    return groups


def _roff(text: str) -> str:
    """Text as roff has to have it: hyphens as typed, no line taken for a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text[:1] in (".", "'") else text


# -- completion


def completion(command: click.Command, shell: str) -> str:
    """click's script for a shell."""
    kind = get_completion_class(shell)
    if kind is None:
        raise SystemExit(f"click has no completion for {shell}")
    name = str(command.name)
    variable = f"_{name.replace('-', '_').upper()}_COMPLETE"
    complete = kind(command, {}, name, variable)
    return complete.source_template % complete.source_vars()


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


def photograph(page: Path, picture: Path) -> None:
    """A picture of a page in a browser, if there is one."""
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.options import Options
        from selenium.webdriver.chrome.service import Service
        from selenium.webdriver.common.action_chains import ActionChains
    except ImportError:
        return
    driver = shutil.which("chromedriver")
    if driver is None:
        return
    options = Options()
    with tempfile.TemporaryDirectory() as profile:
        for argument in (*QUIET, f"--user-data-dir={profile}", "--window-size=1000,760"):
            options.add_argument(argument)
        browser = webdriver.Chrome(
            options=options, service=Service(driver)
        )  # named, or it would be downloaded
        try:
            browser.get(page.as_uri())
            browser.implicitly_wait(10)
            ActionChains(browser).move_by_offset(480, 320).pause(1).perform()
            browser.save_screenshot(str(picture))
        finally:
            browser.quit()


# -- the reference


def reference(commands: list[click.Command]) -> str:
    """All options of the commands, as their help has them."""
    parts = ["# Reference\n\nWhat `--help` says, word for word; `make docs` writes this page.\n"]
    for command in commands:
        with click.Context(command, info_name=command.name, **command.context_settings) as context:
            parts.append(f"\n## {command.name}\n\n```text\n{context.get_help()}\n```\n")
    return "".join(parts)


# -- all of it


def texts() -> dict[Path, str]:
    """What is made from the commands alone."""
    from ema_cli.cli import command
    from ema_cli.weights_cli import command as weights

    made = {DOCS / "reference.md": reference([command, weights])}
    for one in (command, weights):
        made[DOCS / "man" / f"{one.name}.1"] = man_page(one)
        for shell in ("bash", "zsh", "fish"):
            made[DOCS / "completion" / f"{one.name}.{shell}"] = completion(one, shell)
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
