"""Writing a file so that it is the old one or the complete new one, whatever happens in between."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ema_cli.errors import FileTrouble

_open_temporaries: set[str] = set()


def system_words(error: OSError) -> str:
    """The system's own words for what went wrong, without the number and the path."""
    return (error.strerror or str(error) or type(error).__name__).lower()


def is_special(path: Path) -> bool:
    """True for a device, fifo or socket: it is written through, never replaced."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextlib.contextmanager
def atomic_write(name: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file to write to; at the end of the block it becomes `name`, or nothing changes.

    The temporary file lies in the same folder and is synced to the disk before it is renamed. A replaced
    file keeps its mode bits, a new one gets 666 less the umask; of a symlink the target is replaced.
    Devices and fifos are written through. Raises FileTrouble where the folder or file can't be written;
    an exception inside the block leaves everything as it was and removes the temporary file.
    """
    path = Path(os.path.realpath(name))
    try:
        if is_special(path):
            with path.open("wb", buffering=0) as through:
                yield through
            return
        if path.is_dir():
            raise FileTrouble(os.fspath(name), "is a folder", "name a file in it, or use --output-dir")
        mode = _mode_for(path)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:80]}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise FileTrouble(os.fspath(name), system_words(error), _folder_hint(name)) from error
    _open_temporaries.add(temporary)
    try:
        with os.fdopen(handle, "wb", buffering=0) as out:
            os.fchmod(out.fileno(), mode)
            yield out
            os.fsync(out.fileno())
        Path(temporary).replace(path)
        _sync_folder(path.parent)
    finally:
        # After the rename there is nothing left to remove.
        Path(temporary).unlink(missing_ok=True)
        _open_temporaries.discard(temporary)


def remove_temporaries() -> None:
    """Remove what an interrupted run would leave lying about (called on SIGTERM)."""
    for temporary in list(_open_temporaries):
        with contextlib.suppress(OSError):
            Path(temporary).unlink()


def _mode_for(path: Path) -> int:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        umask = os.umask(0)
        os.umask(umask)
        return 0o666 & ~umask


def _folder_hint(name: str | os.PathLike[str]) -> str:
    folder = Path(name).parent
    return "" if folder.is_dir() else f"make the folder first: mkdir -p {folder}"


def _sync_folder(folder: Path) -> None:
    """Make the rename itself last through a power cut; some file systems refuse, which is no loss here."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
