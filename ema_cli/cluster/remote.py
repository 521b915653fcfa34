"""Inputs and outputs that are addresses, such as `s3://bucket/part-1.csv`, by fsspec.

A part is fetched into a temporary folder, smoothed there and put back, so all parts are smoothed as local
files. An output appears under its name when it is complete.
"""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ema_cli.errors import EmaError, FileTrouble, OptionError
from ema_cli.extras import install_hint
from ema_cli.io.names import CHECK, expanded, is_address, natural_key
from ema_cli.job import Job


def expand(names: Sequence[str]) -> tuple[str, ...]:
    """The inputs, with patterns such as `readings/*.csv` replaced by the files, in natural order.

    Raises FileTrouble where nothing matches. A file whose name is the pattern is that file.
    """
    out: list[str] = []
    for name in names:
        if not (is_address(name) and glob.has_magic(name)):
            out += expanded([name])
            continue
        found = sorted(_matches(name), key=natural_key)
        if not found:
            raise FileTrouble(name, "no file matches", CHECK)
        out += found
    return tuple(out)


def anywhere(part: Job) -> Job:
    """The job with absolute names, for processes in another folder."""
    return replace(part, inputs=(_absolute(part.inputs[0]),), output=_absolute(str(part.output)))


def _absolute(name: str) -> str:
    return name if is_address(name) else os.path.abspath(name)  # noqa: PTH100 - links stay links


def _matches(pattern: str) -> list[str]:
    files, path = _open(pattern)
    scheme = pattern.split("://", 1)[0]
    with _wording(pattern):
        return [
            f"{scheme}://{str(found).lstrip('/') if scheme != 'file' else found}"
            for found in files.glob(path)
        ]


def make_folder(folder: str) -> None:
    """Make the folder of the outputs; in an object store it is only the beginning of their names."""
    files, path = _open(folder)
    with _wording(folder):
        files.makedirs(path, exist_ok=True)


@contextmanager
def staged(part: Job, *, write: bool = False) -> Iterator[Job]:
    """The job with local files in place of addresses; with `write` its output is put back at the end.

    Errors name the addresses.
    """
    source, target = part.inputs[0], part.output
    if not (is_address(source) or (target is not None and is_address(target))):
        yield part
        return
    with tempfile.TemporaryDirectory(prefix="ema-smooth-") as folder:
        here = part
        if is_address(source):
            here = replace(here, inputs=(_beside(folder, "in", source),))
            _fetch(source, here.inputs[0])
        if write and target is not None and is_address(target):
            here = replace(here, output=_beside(folder, "out", target))
        try:
            yield here
        except EmaError as error:
            error.args = (error.problem.replace(here.inputs[0], source),)
            error.problem = error.args[0]
            raise
        if here.output != target and here.output is not None and target is not None:
            _put(here.output, target)


def _beside(folder: str, part: str, name: str) -> str:
    place = Path(folder, part)
    place.mkdir(exist_ok=True)
    return str(place / name.rsplit("/", 1)[-1])


def _fetch(address: str, path: str) -> None:
    files, there = _open(address)
    with _wording(address):
        files.get_file(there, path)


def _put(path: str, address: str) -> None:
    """Put a file, first under another name where readers could see it incomplete."""
    files, there = _open(address)
    with _wording(address):
        if "s3" in _protocols(files) or "gs" in _protocols(files):  # appears when it is complete
            files.put_file(path, there)
            return
        before = f"{there}.{os.urandom(4).hex()}.part"
        files.put_file(path, before)
        files.mv(before, there)


def _protocols(files: Any) -> tuple[str, ...]:
    return (files.protocol,) if isinstance(files.protocol, str) else tuple(files.protocol)


def _open(address: str) -> tuple[Any, str]:
    """The file system of an address and the path in it."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise OptionError(f"{address}: addresses need fsspec", install_hint("dask", "fsspec")) from None
    try:
        files, path = url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise FileTrouble(address, str(error), "install what fsspec needs for such addresses") from None
    return files, path


@contextmanager
def _wording(address: str) -> Iterator[None]:
    """Turns a file system's exceptions into FileTrouble; each has its own kinds."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileTrouble(address, "no such file") from error
    except EmaError:
        raise
    except Exception as error:  # botocore's, aiohttp's, or others'
        raise FileTrouble(address, str(error) or type(error).__name__) from error
