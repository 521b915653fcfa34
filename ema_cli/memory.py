"""The state file: what a run leaves for the next one, so that both together are one.

A zip archive that ordinary tools can read: `state.json` says what is in it (`unzip -p FILE state.json`),
every remembered quantity is a NumPy array of its own (`numpy.load(FILE)`), and the archive's checksums
tell a damaged file from a sound one. Never a pickle.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from ema_cli.errors import FileTrouble, OptionError, StateError
from ema_cli.files import atomic_write, system_words
from ema_cli.formats.streams import Output
from ema_cli.job import Job
from ema_cli.keys import KeyTable
from ema_cli.selection import Selection
from ema_cli.trends import Trends

FORMAT, VERSION = "ema-smooth state", 1
AFRESH = "name another file, or move this one away to start afresh"
NO_CLOCK = (1980, 1, 1, 0, 0, 0)  # the same state gives the same bytes


class Memory:
    """What earlier runs left in a state file, if there is one and it exists."""

    def __init__(self, job: Job, found: tuple[dict[str, Any], dict[str, Any]] | None) -> None:
        self.job = job
        self.about: dict[str, Any] | None = None
        self.arrays: dict[str, Any] = {}
        if found is not None:
            self.about, self.arrays = found

    @property
    def columns(self) -> list[str] | None:
        """The columns that were smoothed, None where there is nothing to carry on."""
        return None if self.about is None else list(self.about["columns"])

    @property
    def alphas(self) -> list[float] | None:
        """The weights that `--alpha auto` found in the first run, which are kept."""
        return None if self.about is None else self.about["alphas"]

    def carry_on(self, chosen: Selection, trends: Trends) -> KeyTable:
        """Put `trends` where the earlier runs ended; the keys they knew.

        Raises StateError where options or columns are not those of the state.
        """
        keys = KeyTable()
        if self.about is None:
            return keys
        name = str(self.job.state)
        now, then = _signature(self.job, chosen), self.about["options"]
        differ = [key for key in now if then.get(key) != now[key]]
        if differ:
            said = "; ".join(f"{key} was {_say(then.get(key))}, is {_say(now[key])}" for key in differ)
            raise StateError(
                f"{name}: made with other options: {said}", f"the same options again; or {AFRESH}"
            )
        try:
            keys.restore({n.removeprefix("key."): a for n, a in self.arrays.items() if n.startswith("key.")})
            trends.restore(self.arrays, self.about["keys"])
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise StateError(f"{name}: damaged: {error}", AFRESH) from error
        return keys

    def save(self, chosen: Selection, trends: Trends, keys: KeyTable) -> None:
        """Leave everything for the next run; the file is the old one or the complete new one."""
        if self.job.state is None:
            return
        alphas = (
            [engine.average.decays[0].alpha for engine in trends.engines] if self.job.average.auto else None
        )
        about = {
            "format": FORMAT,
            "version": VERSION,
            "columns": chosen.smoothed,
            "options": _signature(self.job, chosen),
            "alphas": alphas,
            "keys": trends.engines[0].state.keys,
        }
        arrays = trends.state() | {f"key.{name}": array for name, array in keys.arrays().items()}
        with atomic_write(self.job.state) as raw:
            Output(raw, self.job.state).write(_pack(about, arrays))


def _signature(job: Job, chosen: Selection) -> dict[str, Any]:
    """All that must be the same for a state to be carried on, as JSON has it."""
    signature = job.average.signature() | {
        "columns": chosen.smoothed,
        "by": chosen.keys,
        "time": job.time,
        "time-unit": job.time_unit,
    }
    return dict(json.loads(json.dumps(signature)))


def _say(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _pack(about: Mapping[str, Any], arrays: Mapping[str, Any]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(zipfile.ZipInfo("state.json", NO_CLOCK), json.dumps(about, indent=2) + "\n")
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", NO_CLOCK), member.getbuffer())
    return out.getvalue()


def _unpack(name: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """What is in a state file, None if there is none. Raises StateError for anything else."""
    try:
        with zipfile.ZipFile(name) as archive:
            about = json.loads(archive.read("state.json"))
            if about["format"] != FORMAT:
                raise StateError(f"{name}: not a state file of ema-smooth", AFRESH)
            if about["version"] > VERSION:
                raise StateError(
                    f"{name}: written by a newer ema-smooth", "install that version or a newer one"
                )
            arrays = {
                member.removesuffix(".npy"): _array(archive, member)
                for member in archive.namelist()
                if member.endswith(".npy")
            }
        _check_shape(about)
    except FileNotFoundError:
        return None
    except StateError:
        raise
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        KeyError,
        ValueError,
        TypeError,
        NotImplementedError,
    ) as error:
        raise StateError(f"{name}: damaged, or not a state file of ema-smooth", AFRESH) from error
    except OSError as error:
        raise FileTrouble(name, system_words(error)) from error
    return about, arrays


def _array(archive: zipfile.ZipFile, member: str) -> Any:
    return np.lib.format.read_array(io.BytesIO(archive.read(member)), allow_pickle=False)


def _check_shape(about: Mapping[str, Any]) -> None:
    """Raise ValueError or TypeError where `state.json` does not say what it has to."""
    if not (isinstance(about["columns"], list) and isinstance(about["options"], dict)):
        raise TypeError("columns and options")
    if about["alphas"] is not None:
        [float(alpha) for alpha in about["alphas"]]
    int(about["keys"])


@contextmanager
def open_memory(job: Job) -> Iterator[Memory]:
    """The state of a job, locked while the block runs. Raises StateError where it can't be used."""
    if job.state is None:
        yield Memory(job, None)
        return
    for other in (*job.inputs, job.output or "-"):
        if other != "-" and os.path.realpath(other) == os.path.realpath(job.state):
            raise OptionError(f"--state {job.state} is also an input or output", "--state ema.state")
    with _locked(job.state):
        yield Memory(job, _unpack(job.state))


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """Hold `NAME.lock`, so that no two runs carry on from one state. A lock dies with its process."""
    lock = Path(os.path.realpath(name) + ".lock")
    try:
        handle = _take(lock, name)
    except OSError as error:
        raise FileTrouble(name, system_words(error)) from error
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        handle.close()


def _take(lock: Path, name: str) -> IO[bytes]:
    while True:
        handle = lock.open("ab")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.close()
            raise StateError(
                f"{name}: in use by another run", "wait for it, or give each run a state of its own"
            ) from None
        # The run before may have removed the file between our opening and locking it.
        try:
            if os.fstat(handle.fileno()).st_ino == lock.stat().st_ino:
                return handle
        except FileNotFoundError:
            pass
        handle.close()
