"""Which format an input or output has: by what was asked for, else its suffix, else its first bytes.

A new format is a module with `open_source` and `open_sink`, and a line in `FORMATS`. Nothing heavy is loaded
before an input or output of the format is there.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from ema_cli.errors import OptionError
from ema_cli.io.names import COMPRESSED

if TYPE_CHECKING:
    from ema_cli.formats.base import Projection, Sink, Source
    from ema_cli.formats.opened import Opened
    from ema_cli.job import Job


@dataclass(frozen=True)
class Format:
    """A format by its name for `--from` and `--to`.

    module: the module of this package with its `open_source` and `open_sink`. magic: first bytes that only
    this format has. binary: not to be printed to a terminal, and not compressed as a whole.
    """

    name: str
    module: str
    suffixes: tuple[str, ...]
    magic: tuple[bytes, ...] = ()
    binary: bool = False


# An IPC file, an IPC stream, and Feather V1, which is recognised but not read.
ARROW = (b"ARROW1", b"\xff\xff\xff\xff", b"FEA1")
FORMATS = {
    each.name: each
    for each in (
        Format("csv", "text", (".csv",)),
        Format("tsv", "text", (".tsv", ".tab")),
        Format("jsonl", "jsonl", (".jsonl", ".ndjson", ".json")),
        Format("arrow", "arrow", (".arrow", ".arrows", ".feather", ".ipc"), ARROW, binary=True),
        Format("parquet", "parquet", (".parquet", ".pq"), (b"PAR1",), binary=True),
    )
}


# Suffixes that text of any format may have.
PLAIN = {"", ".txt", ".text", ".dat", ".data", ".out", ".log", ".tmp", ".part", ".new", ".old", ".bak"}


class Opener(Protocol):
    """The functions that the module of a format has."""

    def open_source(self, job: Job, name: str, opened: Opened) -> Source:
        """The rows of an input.

        Parameters
        ----------
        job
            The run, with options such as the delimiter.
        name
            The input as it was typed.
        opened
            The open input, as a stream (`text`) or a file (`seekable`). The source closes it when it is
            closed itself, or earlier.

        Raises
        ------
        FileTrouble
            Where it can't be read; DataError where it is no table.
        """

    def open_sink(
        self, job: Job, out: BinaryIO, source: Source, wanted: Projection, names: list[str]
    ) -> Sink:
        """Where the rows of `source`, with new columns of these names, are written to `out`.

        wanted: the columns of the input that are written.
        """


def module_of(name: str) -> Opener:
    return cast(Opener, importlib.import_module(f"ema_cli.formats.{FORMATS[name].module}"))


def format_of_name(name: str | None) -> str | None:
    """The format that a file's suffix names, None where it names none."""
    stem, suffix, _ = split_suffix(os.path.basename(name or ""))  # noqa: PTH119 - a name: `-` and URLs too
    return next((each.name for each in FORMATS.values() if stem and suffix.lower() in each.suffixes), None)


def check_output_name(job: Job) -> None:
    """Raise OptionError if the suffix of `-o` is that of an unknown format.

    Allowed are no suffix, that of an input, a number, and those of plain text.
    """
    name = job.output
    if job.target is not None or name is None or format_of_name(name) is not None:
        return
    stem, suffix, _ = split_suffix(os.path.basename(name))  # noqa: PTH119
    suffix = suffix.lower()
    inputs = {split_suffix(os.path.basename(given))[1].lower() for given in job.inputs}  # noqa: PTH119
    if not stem or suffix[1:].isdigit() or suffix in inputs | PLAIN:
        return
    known = ", ".join(suffix for each in FORMATS.values() for suffix in each.suffixes)
    raise OptionError(
        f"-o {name}: no format goes by {suffix} (known: {known})",
        "one of these suffixes, or --to csv to write CSV under this name",
    )


def split_suffix(base: str) -> tuple[str, str, str]:
    """A file's base name as stem, suffix, and suffixes of compression."""
    bare = base
    for packed in COMPRESSED:
        if bare.lower().endswith(packed):
            bare = bare[: -len(packed)]
    stem, suffix = os.path.splitext(bare)  # noqa: PTH122
    return stem, suffix, base[len(bare) :]


def open_source(job: Job, name: str) -> Source:
    """The rows of one input. Raises FileTrouble where it can't be read, DataError where it is no table."""
    from ema_cli.formats.opened import Opened
    from ema_cli.formats.path_keys import KeyedSource, path_keys

    opened = Opened(name)
    try:
        found = job.source or format_of_name(name)
        if found is None:
            magics = {magic: each.name for each in FORMATS.values() for magic in each.magic}
            found = magics.get(opened.magic(magics) or b"", "csv")
        source = module_of(found).open_source(job, name, opened)
    except BaseException:
        opened.close()
        raise
    keys = path_keys(name)
    return KeyedSource(source, keys) if keys else source


def open_sink(job: Job, out: BinaryIO, source: Source, wanted: Projection, names: list[str]) -> Sink:
    """Where the rows of `source` go, with new columns of these names."""
    return module_of(target_of(job, source)).open_sink(job, out, source, wanted, names)


def target_of(job: Job, source: Source) -> str:
    """The format that the rows of `source` are written in."""
    return job.target or format_of_name(job.output) or source.text_format
