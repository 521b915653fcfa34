"""Members of JSON objects as columns: numbers, keys and times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from ema_cli.formats.arrow_text import number_key
from ema_cli.formats.base import Floats, Oddity
from ema_cli.formats.jsonl.lines import ABSENT, Record, member
from ema_cli.notation import Notation

_NUMBERS = {float, int, type(None)}


class BadMemberError(ValueError):
    """A member that is no finite number; `row` counts from 0."""

    def __init__(self, row: int, column: int, text: str) -> None:
        super().__init__(f"not a number: {text}")
        self.row, self.column, self.text = row, column, text


def column_of(records: Sequence[Record], name: str) -> list[Any]:
    """A member of each object, None where it is null or absent."""
    try:
        return list(map(itemgetter(name), records))  # in two thirds of the time
    except KeyError:
        cells = [record.get(name) for record in records]
    if "." in name and None in cells:
        found = (member(record, name) for record in records)
        cells = [None if cell is ABSENT else cell for cell in found]
    return cells


def numbers(
    cells: Sequence[Any], column: int, notation: Notation, invalid: str
) -> tuple[Floats, list[Oddity]]:
    """(n,) float64 with NaN where missing, and the cells that were no finite number.

    A number in quotes is a number. Raises BadMemberError for the first cell that is none, unless `invalid`
    is 'missing'.
    """
    if set(map(type, cells)) <= _NUMBERS:
        values = _floats(cells)
    else:
        values = np.array([_number(cell, notation) for cell in cells], np.float64)
    for number in notation.na_numbers:
        values[values == number] = np.nan
    odd = np.isinf(values)
    if not odd.any():
        return values, []
    rows = np.flatnonzero(odd).tolist()
    text = shown(cells[rows[0]])
    if invalid == "error":
        raise BadMemberError(rows[0], column, text)
    values[odd] = np.nan
    return values, [Oddity(column, len(rows), rows[0], text)]


def _floats(cells: Sequence[Any]) -> Floats:
    try:
        return np.array(cells, np.float64)
    except OverflowError:  # an integer of hundreds of digits
        return np.array([_number(cell, Notation()) for cell in cells], np.float64)


def _number(cell: Any, notation: Notation) -> float:
    """One cell: NaN where it is missing, infinite where it is no number."""
    if cell is None:
        return float("nan")
    if isinstance(cell, str):
        found = notation.read(cell.encode("utf-8", "surrogatepass"))
        return float("inf") if found is None else found
    if isinstance(cell, bool) or not isinstance(cell, float | int):
        return float("inf")
    try:
        return float(cell)
    except OverflowError:
        return float("inf")


def is_number(cell: Any, notation: Notation) -> bool:
    """Whether a cell that is not missing is a finite number."""
    return math.isfinite(_number(cell, notation))


def is_missing(cell: Any, notation: Notation) -> bool:
    return cell is None or np.isnan(_number(cell, notation))


def keys(cells: Sequence[Any]) -> Any:
    """Each cell as text, in an Arrow binary array; equal numbers have the same text, missing is null."""
    if set(map(type, cells)) <= {str, type(None)}:
        return _binary(cells)
    return _binary([_key(cell) for cell in cells])


def _key(cell: Any) -> str | None:
    if cell is None or isinstance(cell, str):
        return cell
    if isinstance(cell, float):
        return number_key(repr(cell).encode()).decode()
    return orjson.dumps(cell, option=orjson.OPT_SORT_KEYS).decode() if not _is_huge(cell) else str(cell)


def _is_huge(cell: Any) -> bool:
    """Whether an integer is beyond what orjson writes."""
    return isinstance(cell, int) and not -(2**63) <= cell < 2**64


def times(cells: Sequence[Any]) -> Any:
    """Each cell as text for the reader of times; a number is its shortest decimal."""
    return _binary([cell if cell is None or isinstance(cell, str) else _as_text(cell) for cell in cells])


def _as_text(cell: Any) -> str:
    return repr(cell) if isinstance(cell, float | int) and not isinstance(cell, bool) else shown(cell)


def _binary(texts: Sequence[str | None]) -> Any:
    try:
        return pa.array(texts, pa.string()).cast(pa.binary())
    except UnicodeEncodeError:  # half of a surrogate pair, or bytes that were no UTF-8
        data = [None if text is None else text.encode("utf-8", "surrogatepass") for text in texts]
        return pa.array(data, pa.binary())


def shown(cell: Any) -> str:
    """A cell for a message."""
    try:
        text = orjson.dumps(cell).decode()
    except (TypeError, ValueError):
        text = repr(cell)
    if isinstance(cell, float) and not np.isfinite(cell):
        text = repr(cell)
    return text if len(text) <= 60 else text[:57] + "..."
