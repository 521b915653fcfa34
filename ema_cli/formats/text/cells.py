"""Fields of text to float64: what is a number, what is missing, what is neither."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ema_cli.formats import arrow_compute as pc
from ema_cli.formats.base import LARGEST, Floats
from ema_cli.formats.text.dialect import Dialect
from ema_cli.formats.text.records import QUOTE, Records

Bools = NDArray[np.bool_]

# The empty cell and the spellings that pandas reads as missing by default.
MISSING = frozenset(
    b",#N/A,#N/A N/A,#NA,-1.#IND,-1.#QNAN,-NaN,-nan,1.#IND,1.#QNAN"
    b",<NA>,N/A,NA,NULL,NaN,None,n/a,nan,null".split(b",")
)
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
# With a decimal comma a point makes a cell no number: it turns into a byte that no number has.
_COMMA_TO_POINT = bytes.maketrans(b",.", b".\0")
_SPACES = (32, 9)


class BadCellError(ValueError):
    """A cell that is no finite number. row and column count from 0."""

    def __init__(self, row: int, column: int, text: bytes) -> None:
        super().__init__(f"not a number: {text!r}")
        self.row, self.column, self.text = row, column, text


class NumberReader:
    """Reads chosen columns of records; remembers whether cells have so far needed trimming."""

    def __init__(self, columns: Sequence[int], dialect: Dialect, invalid: str) -> None:
        self.columns, self.dialect, self.invalid = list(columns), dialect, invalid
        self.untidy = False

    def read(self, records: Records) -> tuple[Floats, int]:
        """(records, columns) float64 with NaN where missing, and how many cells were no number.

        Raises BadCellError for the first of those, unless `invalid` is 'missing'.
        """
        count, width = len(records), len(self.columns)
        if not count or not width:
            return np.empty((count, width)), 0
        bounds = np.empty((count, 2 * width), np.int32)
        for k, column in enumerate(self.columns):
            bounds[:, 2 * k], bounds[:, 2 * k + 1] = records.bounds(column)
        data = records.data.translate(_COMMA_TO_POINT) if self.dialect.decimal_comma else records.data
        if not self.untidy:
            filled = bounds[:, 1::2] > bounds[:, 0::2]
            values = _cast(data, bounds, filled)
            if values is not None and _are_finite(values, filled):
                return values, 0
            self.untidy = True
        return self._read_untidy(records, data, bounds)

    def _read_untidy(self, records: Records, data: bytes, bounds: NDArray[np.int32]) -> tuple[Floats, int]:
        """Cells with spaces, quotes, NA spellings or text among them."""
        _trim(np.frombuffer(data, np.uint8), bounds)
        starts, ends = bounds[:, 0::2], bounds[:, 1::2]
        filled = ends > starts
        values = _cast(data, bounds, filled)
        if values is None or not _are_finite(values, filled):
            texts = _slots(data, bounds, filled)
            is_number = pc.matches(texts, NUMBER)
            number = np.append(is_number.to_numpy(zero_copy_only=False), False).reshape(len(bounds), -1)[
                :, ::2
            ]
            values = _cast(data, bounds, number)
            assert values is not None  # the pattern admits only what the cast reads
            odd = filled & ~(number & (np.abs(values) < LARGEST))
            return values, self._judge(records, starts, ends, odd, values)
        return values, 0

    def _judge(
        self, records: Records, starts: NDArray[np.int32], ends: NDArray[np.int32], odd: Bools, values: Floats
    ) -> int:
        """Cells that are no finite number: missing, invalid or an error. Returns how many were invalid."""
        invalid = 0
        for row, k in zip(*(axis.tolist() for axis in np.nonzero(odd)), strict=True):
            values[row, k] = np.nan
            if records.data[starts[row, k] : ends[row, k]] in MISSING:
                continue
            if self.invalid == "error":
                column = self.columns[k]
                raise BadCellError(row, column, records.field(row, column))
            invalid += 1
        return invalid


def first_value(records: Records, column: int) -> bytes | None:
    """The column's first cell that is not missing."""
    start, end = records.bounds(column)
    for begin, stop in zip(start.tolist(), end.tolist(), strict=True):
        cell = records.data[begin:stop]
        if tidy(cell) not in MISSING:
            return cell
    return None


def is_number(cell: bytes, dialect: Dialect) -> bool:
    """True if the cell is a finite number (missing cells are not)."""
    end = np.array([len(cell)])
    records = Records(cell, np.array([0]), end, end[:, np.newaxis], len(cell))
    try:
        values, _ = NumberReader([0], dialect, "error").read(records)
    except BadCellError:
        return False
    return not bool(np.isnan(values[0, 0]))


def tidy(cell: bytes) -> bytes:
    """The cell without spaces round it and, if it is quoted, without its quotes."""
    cell = cell.strip(b" \t")
    if len(cell) >= 2 and cell[:1] == cell[-1:] == b'"':
        cell = cell[1:-1].replace(b'""', b'"').strip(b" \t")
    return cell


def _are_finite(values: Floats, filled: Bools) -> bool:
    """Whether all the filled cells are finite numbers; the others are NaN."""
    return bool(np.count_nonzero(np.abs(values) < LARGEST) == np.count_nonzero(filled))


def _slots(data: bytes, bounds: NDArray[np.int32], wanted: Bools) -> pa.Array:
    """The cells as an Arrow array over `data` itself: cell, gap, cell, gap, … with all but `wanted` null."""
    count, width = wanted.shape
    valid = np.zeros((count, 2 * width), bool)
    valid[:, ::2] = wanted
    bitmap = np.packbits(valid, bitorder="little")
    buffers = [pa.py_buffer(bitmap), pa.py_buffer(bounds), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.string(), 2 * count * width - 1, buffers)


def _cast(data: bytes, bounds: NDArray[np.int32], wanted: Bools) -> Floats | None:
    """The wanted cells as numbers, NaN elsewhere; None where Arrow finds one that is none."""
    count, width = wanted.shape
    try:
        numbers = pc.cast(_slots(data, bounds, wanted), pa.float64())
    except pa.ArrowInvalid:
        return None
    flat = np.frombuffer(numbers.buffers()[1], np.float64, 2 * count * width - 1)
    values = np.empty((width, count)).T  # column after column, as the engine folds them
    for k in range(width):
        values[:, k] = flat[2 * k :: 2 * width]
    if not wanted.all():
        values[~wanted] = np.nan
    return values


def _trim(bytes_: NDArray[np.uint8], bounds: NDArray[np.int32]) -> None:
    """Move the bounds of cells inwards past spaces, one pair of quotes, and spaces again, in place."""
    starts, ends = bounds[:, 0::2], bounds[:, 1::2]
    _trim_spaces(bytes_, starts, ends)
    last = len(bytes_) - 1
    first, final = bytes_[np.minimum(starts, last)], bytes_[np.maximum(ends - 1, 0)]
    quoted = (first == QUOTE) & (final == QUOTE) & (ends - starts >= 2)
    if quoted.any():
        starts += quoted
        ends -= quoted
        _trim_spaces(bytes_, starts, ends)


def _trim_spaces(bytes_: NDArray[np.uint8], starts: NDArray[np.int32], ends: NDArray[np.int32]) -> None:
    last = len(bytes_) - 1
    while (space := (starts < ends) & np.isin(bytes_[np.minimum(starts, last)], _SPACES)).any():
        starts += space
    while (space := (starts < ends) & np.isin(bytes_[np.maximum(ends - 1, 0)], _SPACES)).any():
        ends -= space
