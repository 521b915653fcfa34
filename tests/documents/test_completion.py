"""What the shells complete, asked as they ask: by click's scripts, in bash and fish where these are there."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import click
import pytest

from ema_cli.completion import complete_columns
from tests.conftest import ROOT, SAMPLES, Workshop, wait_for


@pytest.fixture
def shells(shop: Workshop) -> dict[str, str]:
    """An environment in whose path `ema-smooth` is this checkout's."""
    script = shop.folder / "bin" / "ema-smooth"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ema_cli "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    home = shop.folder / "home"
    home.mkdir()
    return {**shop.environment, "PATH": f"{script.parent}:{os.environ['PATH']}", "HOME": str(home)}


def complete(environment: dict[str, str], words: list[str], shell: str = "zsh", code: int = 0) -> list[str]:
    """The values offered for the last of these words."""
    line = "ema-smooth " + " ".join(words)
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words)), "_EMA_SMOOTH_COMPLETE": f"{shell}_complete"}
    done = subprocess.run(
        ["ema-smooth"], env=environment | asked, capture_output=True, text=True, check=False, cwd=SAMPLES
    )
    assert (done.returncode, done.stderr) == (code, "")
    return done.stdout.splitlines()[1::3]


@pytest.mark.parametrize("option", ["-c", "--column", "--by", "--time"])
def test_columns_are_completed(shells: dict[str, str], option: str) -> None:
    assert complete(shells, ["weather.csv", option, "t"]) == ["time", "temp"]


@pytest.mark.parametrize("name", ["co2.csv", "co2.csv.gz", "co2.parquet"])
def test_of_every_kind_of_file(shells: dict[str, str], name: str) -> None:
    assert complete(shells, [name, "--alpha", "0.1", "-c", ""]) == ["week", "co2"]


def test_of_a_file_that_stands_after_the_cursor(shells: dict[str, str]) -> None:
    asked = {
        "COMP_WORDS": "ema-smooth -c  co2.csv",
        "COMP_CWORD": "2",
        "_EMA_SMOOTH_COMPLETE": "zsh_complete",
    }
    done = subprocess.run(
        ["ema-smooth"], env=shells | asked, capture_output=True, text=True, check=True, cwd=SAMPLES
    )
    assert done.stdout.split("\n")[1::3] == ["week", "co2"]


def test_with_the_dialect_on_the_line(shells: dict[str, str], shop: Workshop) -> None:
    path = shop.write("euro.csv", "name;value, EUR\na;1,5\n")
    assert complete(shells, [str(path), "-d", "';'", "-c", ""]) == ["name", "value, EUR"]
    assert complete(shells, [str(path), "-d", "';'", "--no-header", "-c", ""]) == ["1", "2"]


@pytest.mark.parametrize("words", [["none.csv", "-c", ""], ["-c", ""], ["README.md", "-d", "xx", "-c", ""]])
def test_what_can_not_be_read_is_silent(shells: dict[str, str], words: list[str]) -> None:
    assert complete(shells, words) == []


def test_binary_rubbish_is_silent(shells: dict[str, str], shop: Workshop) -> None:
    path = shop.write("rubbish.parquet", b"PAR1" + bytes(range(256)))
    assert complete(shells, [str(path), "-c", ""]) == []


def test_files_are_left_to_the_shell(shells: dict[str, str]) -> None:
    for words in (["co2"], ["co2.csv", "--plot", "x"], ["co2.csv", "-o", ""]):
        asked = {
            "COMP_WORDS": "ema-smooth " + " ".join(words),
            "COMP_CWORD": str(len(words)),
            "_EMA_SMOOTH_COMPLETE": "bash_complete",
        }
        done = subprocess.run(["ema-smooth"], env=shells | asked, capture_output=True, text=True, check=True)
        assert done.stdout.startswith("file,")


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not here")
def test_in_bash_names_with_spaces_stay_one_word(shells: dict[str, str]) -> None:
    script = """
eval "$(_EMA_SMOOTH_COMPLETE=bash_source ema-smooth)"
COMP_WORDS=(ema-smooth messy.csv -c level) COMP_CWORD=3
_ema_smooth_completion ema-smooth
printf '%s\\n' "${COMPREPLY[@]}"
"""
    done = subprocess.run(
        ["bash", "-c", script], check=False, env=shells, capture_output=True, text=True, cwd=SAMPLES
    )
    assert done.stdout == "level,\\ dB\n"


# A line is typed with Tab and Enter; what the shell then runs writes its arguments down.
STARTS = {
    "bash": ["bash", "--norc", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}
PREPARE = {
    "bash": 'eval "$(ema-smooth --completion bash)"',
    "zsh": 'autoload -U compinit; compinit -u; eval "$(ema-smooth --completion zsh)"',
    "fish": "ema-smooth --completion fish | source",
}
TYPED = {
    "weather.csv --by loca": ["weather.csv", "--by", "location"],
    "weather.csv --column=te": ["weather.csv", "--column=temp"],
    "weather.csv --time=ti": ["weather.csv", "--time=time"],
    "co2.csv --output-dir sub": ["co2.csv", "--output-dir", "subfolder"],
    "co2.csv --output-dir=sub": ["co2.csv", "--output-dir=subfolder"],
    "co2.csv --init ze": ["co2.csv", "--init", "zero"],
    "co2.csv --init=ze": ["co2.csv", "--init=zero"],
    "co2.csv --dask lo": ["co2.csv", "--dask", "local"],
    "co2.csv --missing=de": ["co2.csv", "--missing=decay"],
    "co2.csv --plot=only_": ["co2.csv", "--plot=only_one.png"],
    "co2.csv --resid": ["co2.csv", "--residual"],
    "wea": ["weather.csv"],
    "odd.csv -c lev": ["odd.csv", "-c", "level, dB"],
}
SCRIPT = """#!/bin/sh
case "$1$_EMA_SMOOTH_COMPLETE" in
--completion*|*_complete) exec "{python}" -m ema_cli "$@";;
esac
{{ printf '%s\\n' "$@"; echo --end--; }} >> "{log}"
"""


def arguments_of(shell: str, lines: list[str], environment: dict[str, str], folder: Path) -> list[list[str]]:
    """What the command is given when these lines are typed in a real shell, each with Tab and Enter."""
    import pty

    log = folder / "log"
    log.write_text("")
    (folder / "bin" / "ema-smooth").write_text(SCRIPT.format(python=sys.executable, log=log))
    process, terminal = pty.fork()
    if not process:
        os.chdir(folder)
        os.execvpe(STARTS[shell][0], STARTS[shell], environment | {"TERM": "xterm", "INPUTRC": "/dev/null"})
    threading.Thread(target=lambda: drained(terminal), daemon=True).start()
    for number, line in enumerate([PREPARE[shell], *(f"ema-smooth {line}\t" for line in lines)]):
        os.write(terminal, f"{line}\r".encode())
        if number:
            wait_for(lambda number=number: log.read_text().count("--end--") == number)  # type: ignore[misc]
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return [part.strip("\n").split("\n") for part in log.read_text().split("--end--\n")[:-1]]


def drained(terminal: int) -> None:
    """Read what a shell draws, and answer as a terminal does when it is asked what it is."""
    with contextlib.suppress(OSError):
        while data := os.read(terminal, 4096):
            if b"\x1b[c" in data or b"\x1b[0c" in data:
                os.write(terminal, b"\x1b[?1;2c")


@pytest.mark.parametrize("shell", STARTS)
def test_typed_in_a_real_shell(shell: str, shells: dict[str, str], shop: Workshop) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not here")
    for name in ("weather.csv", "co2.csv"):
        shop.write(name, (SAMPLES / name).read_bytes())
    shop.write("odd.csv", '"level, dB",x\n1,2\n')
    shop.write("only_one.png", b"")
    (shop.folder / "subfolder").mkdir()
    found = arguments_of(shell, list(TYPED), shells, shop.folder)
    # zsh takes the slash after a folder away again where the line ends.
    bare = [[word.rstrip("/") for word in words] for words in found]
    assert dict(zip(TYPED, bare, strict=True)) == TYPED


# Options whose value nobody can offer.
OPEN = [
    "--bands",
    "--digits",
    "--jobs",
    "--span",
    "--halflife",
    "--com",
    "--decay",
    "--min-periods",
    "--reset-gap",
    "--skip-lines",
    "--wilder",
    "--tau",
    "--delimiter",
    "--thousands",
    "--comment",
    "--strip",
    "--na",
    "--time-format",
    "--time-zone",
    "--name",
    "--title",
    "--size",
]


def test_every_option_that_takes_a_value_offers_some() -> None:
    from ema_cli.cli import command

    for param in command.params:
        if isinstance(param, click.Option) and not param.is_flag and not param.count:
            offered = param.shell_complete(click.Context(command), "")
            assert offered or param._custom_shell_complete is complete_columns or param.opts[-1] in OPEN, (
                param
            )


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("name", ["ema-smooth", "ema-weights"])
def test_the_scripts_that_a_wheel_prints(shell: str, name: str, shop: Workshop) -> None:
    module = {"ema-smooth": "ema_cli", "ema-weights": "ema_cli.weights_cli"}[name]
    base = [sys.executable, "-m", module]
    run = partial(subprocess.run, env=shop.environment, capture_output=True, text=True, check=True)
    assert (
        run([*base, "--completion", shell]).stdout == (ROOT / f"docs/completion/{name}.{shell}").read_text()
    )
    assert run([*base, "--man"]).stdout == (ROOT / f"docs/man/{name}.1").read_text()


def test_the_documents_commands_install_what_works(shells: dict[str, str]) -> None:
    text = (ROOT / "docs" / "shell.md").read_text()
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        subprocess.run(["bash", "-ec", block], env=shells, cwd=ROOT, check=True)
    home = Path(shells["HOME"])
    assert (home / ".local/share/man/man1/ema-smooth.1").read_text().startswith(".TH")
    installed = (home / ".config/fish/completions/ema-smooth.fish").read_text()
    assert installed.strip() == (ROOT / "docs/completion/ema-smooth.fish").read_text().strip()
    script = (
        ". ~/.bashrc; COMP_WORDS=(ema-smooth co2.csv -c w) COMP_CWORD=3; _ema_smooth_completion ema-smooth"
    )
    script += '; echo "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "-c", script], env=shells, cwd=SAMPLES, capture_output=True, text=True, check=True
    )
    assert done.stdout == "week\n"
