"""File names: natural order, and the files that a folder or a pattern stands for."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ema_cli.errors import FileTrouble

_ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
_DIGITS = re.compile(r"([0-9]+)")
# Suffixes of compressed files, and what they begin with.
COMPRESSED = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}
MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
CHECK = "check the spelling and the folder you are in"


def is_address(name: str) -> bool:
    """True for an address such as `s3://bucket/part.csv` rather than a path."""
    return _ADDRESS.match(name) is not None


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """A key to sort by: `part-9` comes before `part-10`."""
    pieces = _DIGITS.split(name)
    return [(0, int(piece), piece) if k % 2 else (1, 0, piece) for k, piece in enumerate(pieces)]


def is_pattern(name: str) -> bool:
    """Whether a name is a pattern such as `readings/*.csv`, and not an existing file's name."""
    return glob.has_magic(name) and not os.path.lexists(name)


def matches(pattern: str) -> list[str]:
    """What a pattern stands for, in natural order; `**` is folders at any depth. No hidden names."""
    # Not Path.glob: names stay as they were typed, and a pattern may begin at the root.
    return sorted(glob.glob(pattern, recursive=True), key=natural_key)  # noqa: PTH207


def files_below(folder: str) -> Iterator[str]:
    """The files in a folder and the folders in it, in natural order; not those that begin with `.` or `_`."""
    for path in sorted(Path(folder).iterdir(), key=lambda path: natural_key(path.name)):
        if path.name.startswith((".", "_")):
            continue
        if path.is_dir():
            yield from files_below(str(path))
        else:
            yield str(path)


def expanded(names: Sequence[str], exclude: Sequence[str | None] = ()) -> tuple[str, ...]:
    """The names, with folders and patterns replaced by the files in them, in natural order.

    exclude: files that are no inputs, such as the output of the last run. Addresses stay as they are. Raises
    FileTrouble for a pattern or folder without files.
    """
    own = {os.path.realpath(name) for name in exclude if name not in (None, "-")}
    out: list[str] = []
    for name in names:
        pattern = is_pattern(name)
        if name == "-" or is_address(name) or not (pattern or Path(name).is_dir()):
            out.append(name)
            continue
        found = [file for match in (matches(name) if pattern else [name]) for file in _files(match, name)]
        found = [file for file in found if os.path.realpath(file) not in own]
        if not found:
            what = "no file matches" if pattern else "a folder without files"
            raise FileTrouble(name, what, CHECK if pattern else "names that begin with . or _ are left out")
        out += found
    return tuple(out)


def _files(match: str, asked: str) -> Iterator[str]:
    """The files of a match; hidden ones only where they were asked for."""
    if Path(match).is_dir():
        yield from files_below(match)
    elif not Path(match).name.startswith((".", "_")) or Path(asked).name.startswith((".", "_")):
        yield match
