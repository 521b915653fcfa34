"""Which columns are smoothed, which are keys, which is the time: names and numbers to positions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import wraps
from typing import Any

from ema_cli.errors import DataError, OptionError, Place, readable
from ema_cli.formats.base import Projection, Source
from ema_cli.job import Job

SHOWN = 20  # columns listed in a message
SAMPLE = 1000  # rows within which a column's first value must lie for it to be chosen by default


@dataclass(frozen=True)
class Selection:
    """The columns of one run: what to read, what they are called, and the new ones' names.

    x: the axis of a picture, which is the one extra column that is read.
    """

    wanted: Projection
    smoothed: list[str]
    keys: list[str]
    time: str | None
    new: list[str]
    x: str | None = None


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
    likely = [match for match in dict.fromkeys(folded + close) if match.isprintable() and match]
    hint = " or ".join(f"{option} {_shell(match)}" for match in likely)
    listed = ", ".join(columns[:SHOWN]) + (
        f" and {len(columns) - SHOWN} more" if len(columns) > SHOWN else ""
    )
    raise NoColumnError(
        f"{file}: no column {name!r}; there are: {listed}", hint or f"{option} {len(columns)}"
    )


def advised(select: Select) -> Select:
    """`select`, saying how else the input may be meant where it has not the columns asked for."""

    @wraps(select)
    def selected(source: Source, job: Job, *rest: Any) -> Selection | None:
        try:
            return select(source, job, *rest)
        except NoColumnError as error:
            times = [] if job.time is None else [job.time]
            advice = source.advice([*job.columns, *job.by, *times])
            if advice is not None and set(advice.options) - {"--decimal", ","}:
                error.hint = str(advice)
            raise

    return selected


def _shell(name: str) -> str:
    """A name as it can be typed in a shell."""
    plain = all(c.isalnum() or c in "_-.+%@/:" for c in name)
    return name if plain else "'" + name.replace("'", "'\\''") + "'"


@advised
def select(source: Source, job: Job, before: Sequence[int] | None) -> Selection | None:
    """The columns this job smooths; None where the input has no rows to tell by and none are named.

    before: where the columns are that a state goes on with, unless others are named.
    Raises OptionError for names that are not there or clash, DataError where no column is numeric.
    """
    columns = source.columns
    if not columns:
        return None
    keys = tuple(find_column(name, columns, "--by", source.name) for name in job.by)
    time = None if job.time is None else find_column(job.time, columns, "--time", source.name)
    x = None if job.x is None else find_column(job.x, columns, "--x", source.name)
    if job.columns:
        values = sorted({find_column(name, columns, "-c", source.name) for name in job.columns})
    elif before is not None:
        values = sorted(before)
    else:
        apart = {*keys, time, x}
        values = source.sample([k for k in range(len(columns)) if k not in apart], SAMPLE).numeric
    if not values:
        return None
    keep = None if not job.only else tuple(sorted({*keys, *([] if time is None else [time])}))
    extra = () if x is None else (x,)
    wanted = Projection(tuple(values), keys, time, job.time_unit, job.invalid, keep, extra, job.notation)
    smoothed = [columns[k] for k in values]
    new = [name for column in smoothed for name in job.average.names(column)]
    _check_new(new, columns if keep is None else [columns[k] for k in keep], source.name)
    by = [columns[k] for k in keys]
    axis = None if x is None else columns[x]
    return Selection(wanted, smoothed, by, None if time is None else columns[time], new, axis)


def _check_new(new: Sequence[str], columns: Sequence[str], file: str) -> None:
    there, counts = set(columns), Counter(new)
    taken = [name for name in new if name in there or counts[name] > 1]
    if taken:
        raise OptionError(
            f"{file}: there is a column {taken[0]!r} already, which is what the new one would be called",
            "choose other columns with -c, or write the new columns alone with --only",
        )


def nothing_to_smooth(source: Source) -> DataError:
    """For a table with rows and no numeric column."""
    problem = "no column holds numbers (the first value of each within 1,000 rows decides)"
    return DataError(problem, Place(source.name), str(source.advice() or "name one: -c COLUMN"))
