"""What is kept of a run to draw it: a bounded number of rows for each key and column."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ema_cli.average import Average
from ema_cli.formats.base import Batch, Floats, Ints
from ema_cli.job import Job
from ema_cli.keys import KeyTable
from ema_cli.plotting.reduce import ROWS_A_BUCKET, Along, Reduced, Reducer
from ema_cli.plotting.steps import Steps
from ema_cli.run.selection import Selection

# Values are clipped to this, since the difference of two larger ones may be infinite.
HIGHEST = 1e307


@dataclass(frozen=True)
class Limits:
    """How much a kind of picture shows.

    keys, columns: the most there are. cells: the most of one column and one key each. rows: the most rows of
    a column, all keys together, that are all kept. least: the fewest buckets of a key. numbers: the most
    numbers in all columns together if every row is kept.
    """

    keys: int
    columns: int
    cells: int
    rows: int
    least: int
    numbers: int = 8_000_000

    def buckets(self, rows: int, tracks: int, series: int) -> int:
        """The number of buckets of each of `tracks` tracks that have `rows` rows together."""
        most = max(min(self.rows, self.numbers // max(1, series)), ROWS_A_BUCKET * self.least)
        return max(self.least, most // ROWS_A_BUCKET // (max(1, tracks) if rows > most else 1))


# What can be seen at once, and what can be chosen from on a page.
PICTURE = Limits(keys=12, columns=12, cells=48, rows=16_384, least=1024)
PAGE = Limits(keys=500, columns=200, cells=20_000, rows=200_000, least=64)


@dataclass(frozen=True)
class RowPlaces:
    """Where rows stand, (rows,) each. times: nanoseconds. steps: on the axis `--x`, NaN where unknown.
    afresh: 1 where the series begins again. weights: of the rows."""

    times: Ints | None = None
    steps: Floats | None = None
    afresh: Floats | None = None
    weights: Floats | None = None

    def of(self, rows: Any) -> RowPlaces:
        """The places of some rows."""
        parts = (self.times, self.steps, self.afresh, self.weights)
        return RowPlaces(*(None if part is None else part[rows] for part in parts))


@dataclass
class Track:
    """The rows of one key, or one run, for each column. first: its first time. by_value: without times, only
    rows with a value are counted, since others hardly change the average."""

    name: str
    reducers: dict[str, Reducer]
    by_value: bool = False
    rows: int = 0
    first: int = 0
    _counted: dict[str, float] = field(default_factory=dict)
    _along: float = 0.0
    _last: float = field(default=float("nan"))

    def add(self, places: RowPlaces, series: Sequence[Floats]) -> None:
        """More rows. series: (rows, width) for each reducer, in their order."""
        times, steps, rows = places.times, places.steps, len(series[0])
        if times is not None and not self.rows:
            self.first = int(times[0])
        numbers = np.arange(self.rows + 1, self.rows + 1 + rows)
        x: Along = numbers if times is None else times
        carried: list[Any] = []
        if steps is not None:
            x, carried = self._unrolled(steps), [steps]
            if times is not None:
                carried.append((times - self.first).astype(float))
        carried += [part for part in (places.afresh, places.weights) if part is not None]
        self.rows += rows
        for (name, reducer), own in zip(self.reducers.items(), series, strict=True):
            number = [] if times is not None else [self._numbers(name, own[:, 0], places.weights)]
            reducer.add(x, np.column_stack([own, *carried, *number]))

    def _numbers(self, name: str, values: Floats, weights: Floats | None) -> Floats:
        """The number of rows of a column up to each one, (n,)."""
        counted = np.ones(len(values), bool)
        if self.by_value:
            counted = ~np.isnan(values) if weights is None else ~np.isnan(values) & (weights > 0)
        numbers: Floats = self._counted.get(name, 0.0) + np.cumsum(counted, dtype=float)
        self._counted[name] = float(numbers[-1])
        return numbers

    def _unrolled(self, steps: Floats) -> Floats:
        """A place that never falls, (n,): the sum of all advances of the steps, without the ways back."""
        filled = np.concatenate(([self._last], steps))
        there = np.maximum.accumulate(np.where(np.isnan(filled), 0, np.arange(len(filled))))
        filled = filled[there]
        ahead = np.nan_to_num(np.maximum(np.diff(filled), 0.0))
        along: Floats = np.cumsum(np.concatenate(([self._along], ahead)))
        self._last, self._along = float(filled[-1]), float(along[-1])
        return along[1:]


class Record:
    """The first keys' rows of a table's first chosen columns, and of pairs where those have new columns.

    The series of a column are its value, then its new fields in their order; those of a pair are its fields.
    Of a table without keys there is one track, called "". Rows stand at their time in nanoseconds or, without
    times, at their number within the key, from 1; with an axis of its own that is carried along, and the time
    since the first.
    """

    def __init__(self, job: Job, chosen: Selection, limits: Limits) -> None:
        self.average, self.limits, self.by_file = job.average, limits, job.by_file
        self.key_names, self.all_columns = chosen.keys, len(chosen.smoothed)
        self.time = chosen.time
        # The time is the axis anyway.
        self.x = None if chosen.wanted.extra == (chosen.wanted.time,) else chosen.x
        self.keys = KeyTable() if chosen.keys else None
        self.steps = None if self.x is None else Steps(self.x, job.decimal_comma)
        self.restarts = job.late == "restart"
        most = limits.columns
        if chosen.keys:
            most = min(most, max(1, limits.cells // limits.keys))
        names = list(_distinct(chosen.smoothed))
        self.columns = names[:most]
        self.fields, self.pair_fields = len(job.average.names("")), len(job.average.names_of_pair("", ""))
        pairs = list(islice(combinations(names, 2), most if job.average.paired else 0))
        called = list(_distinct([*self.columns, *(f"{one} and {other}" for one, other in pairs)]))
        self.pairs = dict(zip(called[len(self.columns) :], pairs, strict=True))
        self.tracks: list[Track] = []
        self.rows = 0

    @property
    def carried(self) -> list[str]:
        """The names of the further numbers of each row, in order."""
        timed = self.time is not None
        out = []
        if self.steps is not None or (timed and self.restarts):
            out += ["x"] + ["since"] * timed
        return (
            out + ["afresh"] * self.restarts + ["weight"] * self.average.weighted + ["number"] * (not timed)
        )

    def __getstate__(self) -> dict[str, Any]:
        """Without the table of keys, for another process: only the drawn keys' names."""
        names = self.names()
        for track, name in zip(self.tracks, names, strict=True):
            track.name = name
        return self.__dict__ | {"keys": None, "many": self.many_keys}

    @property
    def many_keys(self) -> int:
        """How many keys there are, drawn or not."""
        return len(self.keys) if self.keys is not None else self.__dict__.get("many", 0)

    def add(self, batch: Batch, fields: Floats) -> None:
        """The rows of a batch with their new fields, (rows, new columns)."""
        if not batch.rows:
            return
        places = self._places(batch)
        for slot, rows in self._rows_of_keys(batch):
            series = self._series(batch.values[rows], fields[rows])
            self.rows += len(series[0])
            track = self._track(slot)
            self._balance([track])
            track.add(places.of(rows), series)

    def balance(self) -> None:
        """Give every track its share of the buckets."""
        self._balance(self.tracks)

    def names(self) -> list[str]:
        """The names of the keys, for a picture."""
        if self.keys is None or not self.tracks:
            return [track.name for track in self.tracks]
        texts = [column[: self.limits.keys].to_pylist() for column in self.keys.texts()]
        keys = [list(map(_text, key)) for key in zip(*texts, strict=True)]
        if not self.by_file:
            return [", ".join(key) for key in keys]
        files = list(dict.fromkeys(key[0] for key in keys))
        called = dict(zip(files, run_names(files), strict=True))
        return [": ".join(filter(None, [called[key[0]], ", ".join(key[1:])])) for key in keys]

    def notes(self) -> list[str]:
        """What of the table is not drawn."""
        out = []
        if self.many_keys > self.limits.keys:
            what = "files" if self.by_file else "keys"
            out.append(f"the first {self.limits.keys} of {self.many_keys:,} {what}")
        if len(self.columns) < self.all_columns:
            out.append(f"the first {len(self.columns)} of {self.all_columns:,} columns")
        pairs = self.all_columns * (self.all_columns - 1) // 2
        if self.pairs and len(self.pairs) < pairs:
            out.append(f"the first {len(self.pairs)} of {pairs:,} pairs")
        if self.steps is not None and self.steps.unread:
            out.append(f"all rows but {self.steps.unread:,} that have no {self.x}")
        return out

    def _places(self, batch: Batch) -> RowPlaces:
        steps = None if self.steps is None else self.steps.read(batch)
        times = None if batch.times is None else batch.times.copy()  # for reducers keep them
        weights = batch.values[:, -1] if self.average.weighted else None
        if not self.restarts:
            return RowPlaces(times, steps, None, weights)
        if steps is None and times is not None:
            steps = times.astype(float)  # which may go back
        afresh = np.zeros(batch.rows) if batch.restarts is None else batch.restarts.astype(float)
        return RowPlaces(times, steps, afresh, weights)

    def _rows_of_keys(self, batch: Batch) -> Iterator[tuple[int, Any]]:
        """The keys that are drawn, and the rows of a batch that belong to each."""
        if self.keys is None:
            yield 0, slice(None)
            return
        keyed = self.keys.encode(batch.keys)
        slots = keyed.slots[keyed.codes]
        order = np.argsort(slots, kind="stable")
        places = slots[order]
        starts = np.concatenate(([0], np.flatnonzero(np.diff(places)) + 1, [len(places)]))
        for begin, end in pairwise(starts):
            if places[begin] < self.limits.keys:
                yield int(places[begin]), order[begin:end]

    def _series(self, values: Floats, fields: Floats) -> list[Floats]:
        """Value and new fields of each drawn column, (rows, width), then the fields of each drawn pair."""
        rows, columns = len(values), len(self.columns)
        out = np.empty((rows, columns, 1 + self.fields))
        out[:, :, 0] = values[:, :columns]
        out[:, :, 1:] = fields[:, : columns * self.fields].reshape(rows, columns, self.fields)
        np.clip(out, -HIGHEST, HIGHEST, out=out)
        begin = self.all_columns * self.fields
        shape = rows, len(self.pairs), self.pair_fields
        of_pairs = np.clip(fields[:, begin : begin + shape[1] * shape[2]].reshape(shape), -HIGHEST, HIGHEST)
        return [*out.swapaxes(0, 1), *of_pairs.swapaxes(0, 1)]

    def _track(self, slot: int) -> Track:
        carried = len(self.carried)
        while len(self.tracks) <= slot:
            reducers = {name: Reducer(1 + self.fields, 2, carried) for name in self.columns}
            reducers |= {name: Reducer(self.pair_fields, 2, carried) for name in self.pairs}
            # The plain recursion gives a value its full share after a gap too, so that gaps fade little.
            by_value = self.average.missing == "skip" or not self.average.adjust
            self.tracks.append(Track("", reducers, by_value))
        return self.tracks[slot]

    def _balance(self, tracks: Sequence[Track]) -> None:
        series = len(self.columns) * (1 + self.fields) + len(self.pairs) * self.pair_fields
        buckets = self.limits.buckets(self.rows, len(self.tracks), series)
        for track in tracks:
            for reducer in track.reducers.values():
                reducer.buckets = buckets


@dataclass
class Recorded:
    """What is drawn together: the tracks of one record, or those of several runs.

    columns: the names of all, in order; pairs: the names of pairs, and of what. runs: the tracks are runs.
    carried: what goes along with each row.
    """

    average: Average
    columns: list[str]
    pairs: dict[str, tuple[str, str]]
    tracks: list[Track]
    notes: list[str]
    carried: list[str]
    runs: bool = False
    time: str | None = None
    x: str | None = None
    dates: bool = False
    keyed: bool = False

    def reduced(self) -> list[dict[str, Reduced]]:
        """The rows of each track by column."""
        return [{name: reducer.result() for name, reducer in track.reducers.items()} for track in self.tracks]


def recorded(record: Record) -> Recorded:
    """One record to draw."""
    record.balance()
    for track, name in zip(record.tracks, record.names(), strict=True):
        track.name = name
    dates = record.steps is not None and record.steps.dates
    return Recorded(
        *(record.average, record.columns, record.pairs, record.tracks, record.notes(), record.carried),
        *(record.by_file, record.time, record.x, dates),
        keyed=bool(record.key_names) and not record.by_file,
    )


def recorded_runs(runs: Sequence[tuple[str, Record]], limits: Limits) -> Recorded:
    """Several records to draw over each other, in this order."""
    first = runs[0][1]
    columns = list(dict.fromkeys(name for _, record in runs for name in record.columns))[: limits.columns]
    pairs = {name: pair for _, record in runs for name, pair in record.pairs.items()}
    pairs = dict(islice(pairs.items(), limits.columns))
    tracks, notes = [], []
    for run, record in runs:
        for track, key in zip(record.tracks, record.names(), strict=True):
            track.name = f"{run}: {key}" if key else run
            tracks.append(track)
        notes += [f"of {run} {note}" for note in record.notes()]
    if len(tracks) > limits.keys:
        notes.append(f"the first {limits.keys} of {len(tracks):,} runs")
        tracks = tracks[: limits.keys]
    rows = sum(track.rows for track in tracks)
    series = len(columns) * (1 + first.fields) + len(pairs) * first.pair_fields
    for track in tracks:
        for reducer in track.reducers.values():
            reducer.buckets = limits.buckets(rows, len(tracks), series)
    dates = first.steps is not None and first.steps.dates
    return Recorded(
        *(first.average, columns, pairs, tracks, notes, first.carried, True, first.time, first.x, dates)
    )


def run_names(paths: Sequence[str]) -> list[str]:
    """The shortest names that tell files apart: without suffixes and the folders that all are in."""
    parts = [Path(path).parts for path in paths]
    while len(paths) > 1 and len({part[0] for part in parts}) == 1 and min(map(len, parts)) > 1:
        parts = [part[1:] for part in parts]
    if len(paths) == 1:
        parts = [part[-1:] for part in parts]
    # Files of one name in folders of their own are called by these.
    if len({part[-1] for part in parts}) == 1 and min(map(len, parts)) > 1:
        return ["/".join(part[:-1]) for part in parts]
    names = ["/".join(part) for part in parts]
    bare = [re.sub(r"(\.[A-Za-z]\w{0,6}){1,2}$", "", name) or name for name in names]
    return bare if len(set(bare)) == len(bare) else names


def _distinct(names: Sequence[str]) -> Iterator[str]:
    """The names, a later one of the same with its number."""
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name} ({seen[name]})"


def _text(cell: Any) -> str:
    """A key's cell for people; no text is said in words."""
    if cell is None:
        return "(none)"
    return bytes(cell).decode("utf-8", "replace").strip()
