"""Which columns are smoothed, which are keys, which is the time: names and numbers to positions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import wraps
from typing import Any

from ema_cli.errors import Advice, DataError, OptionError, Place, readable, typeable
from ema_cli.formats.base import Projection, Sample, Source
from ema_cli.job import Job
from ema_cli.times.form import TimeForm

SHOWN = 20  # columns listed in a message
FILE = "file"  # what the input's name is called as a key
SAMPLE = 1000  # rows within which a column's first value must lie for it to be chosen by default


@dataclass(frozen=True)
class Selection:
    """The columns of one run: what to read, their names, and the names of the new ones.

    x: the axis of a picture, the one extra column that is read. time_of_day, order: as in `Job`. left_out:
    columns that look like numbers, but can't be read as such. further: names of columns that
    `Source.further` found, and whether they are keys, in the order of their indexes. columns: all columns of
    the table. weights: the column of weights, which is read as the last of the values.
    """

    wanted: Projection
    smoothed: list[str]
    keys: list[str]
    new: list[str]
    time: str | None = None
    x: str | None = None
    time_of_day: str | None = None
    order: str | None = None
    further: tuple[tuple[str, bool], ...] = ()
    left_out: tuple[tuple[str, Advice], ...] = ()
    columns: Sequence[str] = ()
    weights: str | None = None

    @property
    def places(self) -> list[int]:
        """The indexes of the smoothed columns."""
        return list(self.wanted.values[: len(self.smoothed)])


Select = Callable[..., "Selection | None"]


class NoColumnError(OptionError):
    """There is no column of that name."""


def find_column(name: str, columns: Sequence[str], option: str, file: str) -> int:
    """The position of a column given by name or, where none has that name, by its 1-based number.

    Raises OptionError with close matches and the columns there are.
    """
    places = [k for k, column in enumerate(columns) if name in (column, readable(column))]
    if len(places) == 1:
        return places[0]
    if places:
        numbers = " or ".join(f"{option} {k + 1}" for k in places)
        raise OptionError(f"{file}: {len(places)} columns are called {name!r}", f"by number: {numbers}")
    if name.isascii() and name.isdigit() and 1 <= int(name) <= len(columns):
        return int(name) - 1
    columns = [readable(column) for column in columns]
    close = get_close_matches(name, columns, n=3, cutoff=0.5)
    folded = [column for column in columns if column.strip().lower() == name.strip().lower()]
    likely = [match for match in dict.fromkeys(folded + close) if match and "\0" not in match]
    hint = " or ".join(f"{option} {typeable(match)}" for match in likely)
    listed = ", ".join(columns[:SHOWN]) + (
        f" and {len(columns) - SHOWN} more" if len(columns) > SHOWN else ""
    )
    # A hint with a number would be a guess that people follow.
    number = f"{option} and one of these, by name or by number (1 to {len(columns)})"
    raise NoColumnError(f"{file}: no column {name!r}; there are: {listed}", hint or number)


def advised(select: Select) -> Select:
    """`select`, with a hint how else the input may be read if it lacks the columns asked for."""

    @wraps(select)
    def selected(source: Source, job: Job, *rest: Any) -> Selection | None:
        try:
            return select(source, job, *rest)
        except NoColumnError as error:
            times = [] if job.time is None else [job.time]
            advice = source.advice([*job.columns, *job.by, *times])
            if advice is not None and advice.is_of_lines:
                error.hint = str(advice)
            raise

    return selected


@advised
def select(
    source: Source, job: Job, before: Sequence[int] | None, order_is_time: bool | None = None
) -> Selection | None:
    """The columns this job smooths; None if none are named and the input has no rows to choose them by.

    before: indexes of the columns of a state that is carried on. order_is_time: whether its order is one of
    times; None if the rows have to show it. Raises OptionError for unknown or equal names, DataError if no
    column is numeric.
    """
    columns = source.columns
    if not columns:
        return None
    roles = _role_columns(job, source)
    values: Sequence[int] | None = before
    if job.columns:
        values = sorted({_place(source, name, "-c") for name in job.columns})
    if job.time_format is not None or job.time_zone is not None:
        order_is_time = True
    sample, order_is_time = _sampled(source, roles, values, order_is_time)
    values = sorted(values or [k for k in sample.numeric if k != roles.order])
    if not values:
        return None
    wanted = _projection(job, roles, values, order_is_time)
    smoothed = [source.label(k) for k in values]
    _check_names(values, smoothed, source.name)
    new = job.average.all_names(smoothed)
    others = columns if wanted.keep is None else [source.label(k) for k in wanted.keep]
    _check_new([*([FILE] * (wanted.file is not None)), *new], others, source.name)
    used = sorted({*wanted.values, *roles.keys, *wanted.clocks, *wanted.extra})
    labels = {
        name: None if (place := getattr(roles, name)) is None else source.label(place)
        for name in ("time", "time_of_day", "order", "x", "weights")
    }
    return Selection(
        wanted,
        smoothed,
        keys=[*([FILE] * job.by_file), *(source.label(k) for k in roles.keys)],
        new=new,
        further=tuple((source.label(k), k in roles.keys) for k in used if k >= len(columns)),
        left_out=tuple((readable(source.label(k)), advice) for k, advice in sample.lookalikes.items()),
        columns=columns,
        **labels,
    )


@dataclass(frozen=True)
class RoleColumns:
    """The indexes of the columns that are not smoothed; None for those not given."""

    keys: tuple[int, ...]
    time: int | None
    time_of_day: int | None
    order: int | None
    x: int | None
    weights: int | None


def _role_columns(job: Job, source: Source) -> RoleColumns:
    others = [
        None if name is None else _place(source, name, option)
        for option, names in _roles(job).items()
        for name in names
    ]
    return RoleColumns(tuple(_place(source, name, "--by") for name in job.by), *others)


def _roles(job: Job) -> dict[str, tuple[str | None, ...]]:
    """The options that name a column which is neither value nor key, and the names."""
    # The time is an order by itself.
    order = None if job.order == job.time else job.order
    return {
        "--time": (job.time, job.time_of_day),
        "--order": (order,),
        "--x": (job.x,),
        "--weights": (job.weights,),
    }


def _projection(
    job: Job, roles: RoleColumns, values: Sequence[int], order_is_time: bool | None
) -> Projection:
    """What to read: the values, with the weights of rows as the last of them, and so on."""
    form = TimeForm(job.time_unit, job.time_format, job.time_zone)
    times = [k for k in (roles.time, roles.time_of_day) if k is not None]
    return Projection(
        values=(*values, *([] if roles.weights is None else [roles.weights])),
        keys=roles.keys,
        time=roles.time,
        time_form=form,
        invalid=job.invalid,
        keep=tuple(sorted({*roles.keys, *times})) if job.only else None,
        extra=() if roles.x is None else (roles.x,),
        notation=job.notation,
        time_of_day=roles.time_of_day,
        order=roles.order,
        order_form=form if order_is_time else None,
        file=FILE if job.only and job.by_file else None,
        weights=roles.weights,
    )


def _sampled(
    source: Source, roles: RoleColumns, values: Sequence[int] | None, is_time: bool | None
) -> tuple[Sample, bool | None]:
    """What only the first rows show: which columns are numeric, if `values` is None, and whether the order is
    one of times, if `is_time` is None."""
    column = roles.order
    others = {*roles.keys, roles.time, roles.time_of_day, roles.x, roles.weights, column}
    candidates = set() if values is not None else {*range(len(source.columns))} - others
    if column is not None and is_time is None:
        candidates.add(column)
    # In one call, since a source looks at its first rows once.
    sample = source.sample(sorted(candidates), SAMPLE) if candidates else Sample([], [])
    if column in candidates:
        is_time = column not in (*sample.numeric, *sample.undecided)
    return sample, is_time


def _place(source: Source, name: str, option: str) -> int:
    """The index of a column, which may be one that `Source.further` finds. Raises OptionError."""
    try:
        return find_column(name, source.columns, option, source.name)
    except OptionError:
        found = source.further(name, key=option == "--by") if name not in source.columns else None
        if found is None:
            raise
        return found


def check_seen(source: Source, job: Job) -> None:
    """Raise OptionError if a column that was asked for was in no row of an open-ended input."""
    if missing := sorted(source.unseen()):
        options = {name: option for option, names in _roles(job).items() for name in names}
        find_column(missing[0], source.columns, options.get(missing[0], "-c"), source.name)


def _check_names(places: Sequence[int], names: Sequence[str], file: str) -> None:
    """Raise OptionError where columns of one name are smoothed, for so would be the new ones."""
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        numbers = " or ".join(f"-c {k + 1}" for k, each in zip(places, names, strict=True) if each == name)
        raise OptionError(
            f"{file}: {count} columns are called {name!r}", f"one of them, by number: {numbers}"
        )


def _check_new(new: Sequence[str], columns: Sequence[str], file: str) -> None:
    there, counts = set(columns), Counter(new)
    taken = [name for name in new if name in there or counts[name] > 1]
    if taken and taken[0] not in there:
        raise OptionError(
            f"{file}: {counts[taken[0]]} new columns would be called {taken[0]!r}",
            "choose fewer columns with -c, or names that differ: --name '{col}_{what}'",
        )
    if taken:
        raise OptionError(
            f"{file}: there is a column {taken[0]!r} already, which is what the new one would be called",
            "choose other columns with -c, other names with --name, or write the new columns alone: --only",
        )


def nothing_to_smooth(job: Job, source: Source) -> DataError:
    """The error of a table with rows but no numeric column other than those with another role."""
    named = {option: names for option, names in _roles(job).items() if any(names)}
    others = f" besides {' and '.join(named)}" if named else ""
    problem = f"no column{others} holds numbers (the first value of each within 1,000 rows decides)"
    return DataError(problem, Place(source.name), str(source.advice() or "name one: -c COLUMN"))
