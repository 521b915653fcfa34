"""What the shells complete, asked as they ask: by click's scripts, in bash and fish where these are there."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, SAMPLES, Workshop


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


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not here")
def test_in_fish(shells: dict[str, str]) -> None:
    script = """
_EMA_SMOOTH_COMPLETE=fish_source ema-smooth | source
complete -C 'ema-smooth weather.csv --by l'
"""
    done = subprocess.run(
        ["fish", "-c", script], check=False, env=shells, capture_output=True, text=True, cwd=SAMPLES
    )
    assert done.stdout.split() == ["location"]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not here")
def test_zsh_takes_the_script(shells: dict[str, str]) -> None:
    script = 'autoload -U compinit; compinit -u; eval "$(_EMA_SMOOTH_COMPLETE=zsh_source ema-smooth)"'
    done = subprocess.run(["zsh", "-fc", script], env=shells, capture_output=True, text=True, check=True)
    assert done.stderr == ""


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
