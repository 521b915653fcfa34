"""The state file: what a run leaves for the next one, so that both together give what one run gives.

A zip archive that ordinary tools can read: `state.json` describes it (`unzip -p FILE state.json`), every
quantity is a NumPy array (`numpy.load(FILE)`), and the archive's checksums show damage. Never a pickle.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ema_cli.average import Average
from ema_cli.errors import FileTrouble, OptionError, StateError
from ema_cli.formats.base import Source
from ema_cli.io.archive import ArchiveReader, ArchiveWriter, DamagedArchive
from ema_cli.io.atomic import atomic_write, is_special, same_file, shared_mode, wording
from ema_cli.io.damage import DAMAGE
from ema_cli.io.locks import locked
from ema_cli.job import MAY_DIFFER, Job
from ema_cli.keys import KeyTable
from ema_cli.run.order import RowOrder
from ema_cli.run.selection import Selection
from ema_cli.state_options import check_version, defaults_of, differences, options_of
from ema_cli.trends import Trends

FORMAT, VERSION = "ema-smooth state", 3
AFRESH = "name another state file, or move this one away to start afresh"
ABOUT = "state.json"
Save = Callable[[Selection, Trends, KeyTable], None]


def save_nothing(*_: object) -> None:
    """For all parts of a chain but the last: after a bad part, a rerun begins with the first one."""


class SavedState:
    """What goes from one run to the next by a state file, or from part to part within a process.

    columns, places: names and indexes of the smoothed columns; None before the first run. alphas: the weights
    that `--alpha auto` found in the first run. header: all columns of earlier parts, if any. live: the
    averages and keys themselves, once there are any.
    """

    def __init__(self, job: Job, found: tuple[dict[str, Any], dict[str, Any]] | None = None) -> None:
        self.job = job
        self.about: dict[str, Any] | None = None
        self.arrays: dict[str, Any] = {}
        if found is not None:
            self.about, self.arrays = found
        about = self.about or {"columns": None, "places": None, "alphas": None}
        self.columns: list[str] | None = about["columns"]
        self.places: list[int] | None = about["places"]
        self.alphas: list[float] | None = about["alphas"]
        self.header: list[str] | None = None
        self.live: tuple[Trends, KeyTable] | None = None
        self.order: RowOrder | None = None

    def find_columns(self, source: Source) -> list[int] | None:
        """The indexes in `source` of the columns smoothed before; None if there is nothing to carry on.

        Raises StateError where one is missing.
        """
        if self.columns is None or self.places is None or not source.columns:  # none: an empty file
            return None
        columns, found = source.columns, []
        for name, place in zip(self.columns, self.places, strict=True):
            if list(columns[place : place + 1]) == [name]:
                found.append(place)
            elif list(columns).count(name) == 1:
                found.append(list(columns).index(name))
            elif (further := source.further(name, key=False)) is not None:
                found.append(further)
            else:
                problem = f"{self.job.state}: carries on column {name!r}, which {source.name} does not have"
                raise StateError(problem, f"a file with the same columns; or {AFRESH}")
        return found

    def check(self, chosen: Selection) -> None:
        """Raise StateError where options or columns are not those of the state."""
        if self.about is None:
            return
        defaults = defaults_of(Average) | defaults_of(Job)
        differ = differences(self.about["options"], _signature(self.job, chosen), defaults)
        differ = [each for each in differ if each.name != "weighted"]  # the option `weights` says it
        if differ:
            problem = f"{self.job.state}: made with other options: {'; '.join(map(str, differ))}"
            raise StateError(problem, f"the same options again; or {AFRESH}")

    @property
    def order_is_time(self) -> bool | None:
        """Whether the order of earlier runs is one of times; None if they had none."""
        last = self.arrays.get("order.last") if self.order is None else self.order.known.last
        return None if last is None else last.dtype.kind == "i"

    def carry_on(self, chosen: Selection) -> tuple[Trends, KeyTable]:
        """The averages and keys after the earlier runs. Raises StateError where the file is damaged."""
        if self.live is not None:
            return self.live
        trends, keys = Trends(self.job.average, len(chosen.smoothed), self.alphas), KeyTable()
        self.order = order_of(self.job, chosen)
        if self.about is not None:
            try:
                keys.restore(self._named("key."))
                self.order.restore(self._named("order."))
                if keys.columns and len(keys) != self.about["keys"]:
                    raise ValueError(f"{len(keys)} keys, not {self.about['keys']}")
                trends.restore(self.arrays, self.about["keys"])
            except DAMAGE as error:
                raise StateError(f"{self.job.state}: damaged: {error}", AFRESH) from error
            self.arrays = {}
        self.columns, self.places = chosen.smoothed, chosen.places
        self.live = trends, keys
        return self.live

    def _named(self, prefix: str) -> dict[str, Any]:
        """The arrays whose names begin so, by the rest of their names."""
        found = self.arrays.items()
        return {name.removeprefix(prefix): array for name, array in found if name.startswith(prefix)}

    @contextmanager
    def saving(self) -> Iterator[Save]:
        """A function that writes the state, to be called once the output is complete.

        It writes a temporary file, which replaces the state file at the end of the block. If the output is
        renamed inside the block, what can fail, such as a full disk, fails before either file is replaced.
        """
        with ExitStack() as stack:

            def save(chosen: Selection, trends: Trends, keys: KeyTable) -> None:
                if self.job.state is None:
                    return
                raw = stack.enter_context(atomic_write(self.job.state, shared_mode(self.job.inputs)))
                _pack(raw, self.job.state, *self._contents(chosen, trends, keys))
                with wording(self.job.state):
                    os.fsync(raw.fileno())

            yield save

    def _contents(
        self, chosen: Selection, trends: Trends, keys: KeyTable
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """`state.json`, and the arrays by name."""
        about = {
            "format": FORMAT,
            "version": VERSION,
            "columns": chosen.smoothed,
            "places": chosen.places,
            "options": _signature(self.job, chosen),
            "alphas": trends.alphas if self.job.average.auto else None,
            "keys": trends.series,
        }
        arrays = trends.state() | {f"key.{name}": array for name, array in keys.arrays().items()}
        order = {} if self.order is None else self.order.state()
        return about, arrays | {f"order.{name}": array for name, array in order.items()}


def order_of(job: Job, chosen: Selection) -> RowOrder:
    """The memory of the order of a job's rows, before the first one."""
    of_times = chosen.wanted.order is None or chosen.wanted.order_form is not None
    return RowOrder(job.late, of_times=of_times, zoned=job.time_zone is not None)


def _signature(job: Job, chosen: Selection) -> dict[str, Any]:
    """What must be the same for a state to be carried on; columns by name, not as they were typed."""
    named = {
        "columns": chosen.smoothed,
        "by": chosen.keys,
        "time": chosen.time,
        "time-of-day": chosen.time_of_day,
        "order": chosen.order,
        "weights": chosen.weights,
    }
    return job.average.signature() | options_of(job, leave_out=MAY_DIFFER) | named


def _pack(out: BinaryIO, name: str, about: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    with ArchiveWriter(out, name) as archive:
        archive.begin(ABOUT)
        archive.write((json.dumps(about, indent=2) + "\n").encode())
        for array_name, array in arrays.items():
            archive.begin_array(f"{array_name}.npy", array.dtype, array.shape)
            archive.write(array)


def _unpack(name: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The contents of a state file, None if it does not exist. Raises StateError if it is none."""
    if not Path(name).exists():
        return None
    try:
        with ArchiveReader(name, compressed=False) as archive:
            about = json.loads(archive.read(ABOUT))
            if about["format"] != FORMAT:
                raise StateError(f"{name}: not a state file of ema-smooth", AFRESH)
            check_version(about["version"], VERSION, name, AFRESH)
            arrays = {
                member.removesuffix(".npy"): archive.array(member)
                for member in archive.members
                if member.endswith(".npy")
            }
        _check_shape(about)
    except StateError:
        raise
    except DamagedArchive as error:
        raise StateError(f"{name}: damaged, or not a state file of ema-smooth", AFRESH) from error
    except FileTrouble:
        raise
    except DAMAGE as error:
        raise StateError(f"{name}: damaged, or not a state file of ema-smooth", AFRESH) from error
    return about, arrays


def _check_shape(about: Mapping[str, Any]) -> None:
    """Raise ValueError or TypeError where `state.json` lacks something or contradicts itself."""
    columns, places, alphas = about["columns"], about["places"], about["alphas"]
    if not (isinstance(columns, list) and isinstance(about["options"], dict) and isinstance(places, list)):
        raise TypeError("columns, places and options")
    if len(places) != len(columns) or not all(
        isinstance(k, int) and k >= 0 for k in (*places, about["keys"])
    ):
        raise ValueError("places and keys")
    if alphas is not None and not (len(alphas) == len(columns) and all(0 <= alpha <= 1 for alpha in alphas)):
        raise ValueError("alphas")


@contextmanager
def open_saved_state(job: Job) -> Iterator[SavedState]:
    """The state of a job, locked while the block runs. Raises StateError where it can't be used."""
    if job.state is None:
        yield SavedState(job, None)
        return
    path = Path(os.path.realpath(job.state))
    lock = path.with_name(path.name + ".lock")
    for other in (*job.inputs, job.output or "-"):
        if other != "-" and any(same_file(other, own) for own in (path, lock)):
            raise OptionError(f"--state {job.state} is also an input or output", "--state ema.state")
    if is_special(path) or path.is_dir():
        raise StateError(f"{job.state}: not an ordinary file, so it can keep no state", AFRESH)
    if not path.parent.is_dir():
        raise FileTrouble(job.state, "no such folder", f"make it first: mkdir -p {Path(job.state).parent}")
    with locked(lock, job.state):
        yield SavedState(job, _unpack(job.state))
