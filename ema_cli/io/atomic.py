"""Writing a file so that it is always the old one or the complete new one."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from ema_cli.errors import FileTrouble
from ema_cli.io.temporary import removed_afterwards, temporary_path

# Folders to be synced later; None: each at once.
_unsynced: set[Path] | None = None


def system_words(error: OSError) -> str:
    """The system's own words for what went wrong, without the number and the path."""
    return (error.strerror or str(error) or type(error).__name__).lower()


def total_size(inputs: Sequence[str]) -> int | None:
    """The bytes of all inputs; None where one is a pipe or does not exist (the run will report that)."""
    total = 0
    for name in inputs:
        try:
            status = os.fstat(0) if name == "-" else os.stat(name)  # noqa: PTH116 - stdin beside it
        except OSError:
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        total += status.st_size
    return total


def is_special(path: Path) -> bool:
    """True for a device, fifo or socket: it is written through, never replaced."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextlib.contextmanager
def atomic_write(name: str | os.PathLike[str], mode: int = 0o666) -> Iterator[BinaryIO]:
    """A binary file to write to; at the end of the block it becomes `name`, or nothing changes.

    The temporary file lies in the same folder and is synced to the disk before it is renamed. A replaced
    file keeps its mode bits and owner, a new one gets `mode` less the umask. A symlink's target is replaced.
    Devices and fifos are written through. Raises FileTrouble where the folder or file can't be written;
    an exception inside the block leaves everything as it was and removes the temporary file.
    """
    path = Path(os.path.realpath(name))
    hint = _folder_hint(name)
    if is_special(path):
        with wording(name):
            through = path.open("wb", buffering=0)
        with through:
            yield through
        return
    with wording(name, hint):
        if path.is_dir():
            raise FileTrouble(os.fspath(name), "is a folder", "name a file in it, or use --output-dir")
        old = path.stat() if path.exists() else None
    temporary = temporary_path(path)
    with removed_afterwards(temporary):
        with wording(name, hint):
            # Others must not read it before it has the mode of the file that it will replace.
            out = io.FileIO(temporary, "xb", opener=_opener(mode if old is None else 0o600))
        with out:
            if old is not None:
                _be_like(out.fileno(), old)
            yield out
            with wording(name):
                os.fsync(out.fileno())
        with wording(name):
            temporary.replace(path)
        sync_folder(path.parent)


def shared_mode(inputs: Iterable[str]) -> int:
    """The mode of a new file made of these inputs: who may not read all of them may not read it."""
    mode = 0o666
    for name in inputs:
        with contextlib.suppress(OSError):
            status = os.fstat(0) if name == "-" else os.stat(name)  # noqa: PTH116 - stdin beside it
            if stat.S_ISREG(status.st_mode):
                unreadable = 0o044 & ~status.st_mode
                mode &= ~(unreadable | unreadable >> 1)  # nor write to it
    return mode


def _opener(mode: int) -> Callable[[str, int], int]:
    return lambda path, flags: os.open(path, flags, mode)


def _be_like(file: int, old: os.stat_result) -> None:
    """Give a file the owner, where the system lets us, and the mode of the one that it is to replace."""
    if hasattr(os, "fchown"):
        with contextlib.suppress(OSError):
            os.fchown(file, old.st_uid, old.st_gid)
    if hasattr(os, "fchmod"):
        os.fchmod(file, stat.S_IMODE(old.st_mode))


@contextlib.contextmanager
def wording(name: str | os.PathLike[str], hint: str = "") -> Iterator[None]:
    """Turns what the system says about a file into FileTrouble."""
    try:
        yield
    except OSError as error:
        raise FileTrouble(os.fspath(name), system_words(error), hint) from error


def same_file(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """True if both names are one file's, by whatever links; or would be, if nothing is there yet."""
    with contextlib.suppress(OSError):
        return os.path.samefile(one, other)  # noqa: PTH121 - Path has none that takes two names
    return os.path.realpath(one) == os.path.realpath(other)


def _folder_hint(name: str | os.PathLike[str]) -> str:
    folder = Path(name).parent
    return "" if folder.is_dir() else f"make the folder first: mkdir -p {folder}"


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, synced to the disk. Raises OSError."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        sync_folder(each.parent)


def sync_folder(folder: Path) -> None:
    """Sync the renames in a folder to the disk; that some file systems refuse is no harm."""
    if _unsynced is not None:
        _unsynced.add(folder)
        return
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def syncing_once(folder: str) -> Iterator[None]:
    """Sync `folder` and others written to at the end of the block, not after every file.

    Each file is still synced before it gets its name, so it is the old or the complete new one.
    """
    global _unsynced  # noqa: PLW0603 - there is one disk for the whole process
    _unsynced = {Path(folder)}
    try:
        yield
    finally:
        folders, _unsynced = _unsynced, None
        for each in folders:
            sync_folder(each)
