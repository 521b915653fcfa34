"""Fields of text to float64, a column at a time: what is a number, what is missing, what is neither."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ema_cli.formats import arrow_compute as pc
from ema_cli.formats.base import Floats, Oddity
from ema_cli.formats.text.records import QUOTE, Records
from ema_cli.notation import COMMA_TO_POINT, NUMBER, Notation

Bools = NDArray[np.bool_]
Bounds = NDArray[np.int32]
_SPACES = (b" ", b"\t")


class BadCellError(ValueError):
    """A cell that is no finite number. row and column count from 0."""

    def __init__(self, row: int, column: int, text: bytes) -> None:
        super().__init__(f"not a number: {text!r}")
        self.row, self.column, self.text = row, column, text


class AgainError(ValueError):
    """Records that repeat the header, and so are no data; rows count from 0."""

    def __init__(self, rows: list[int]) -> None:
        super().__init__(f"the header again: {rows}")
        self.rows = rows


class NumberReader:
    """Reads chosen columns of records; remembers whether cells have needed more than a cast so far.

    header: the text of a record that repeats the header, or None.
    """

    def __init__(
        self, columns: Sequence[int], notation: Notation, invalid: str, header: bytes | None = None
    ) -> None:
        # Arrow gets the cells as slices of the text in ascending order, so each column once, in order.
        self.columns, self.notation, self.invalid = sorted({*columns}), notation, invalid
        places = {column: k for k, column in enumerate(self.columns)}
        self.order = [places[column] for column in columns]
        self.header = header
        self.untidy = False

    def read(self, records: Records) -> tuple[Floats, list[Oddity]]:
        """(records, columns) float64 with NaN where missing, and the cells that were no number.

        Raises BadCellError for the first of these, unless `invalid` is 'missing'; AgainError for records that
        repeat the header.
        """
        values, oddities = self._read(records)
        if self.order != list(range(len(self.columns))):
            values = values[:, self.order]
        return values, oddities

    def _read(self, records: Records) -> tuple[Floats, list[Oddity]]:
        """The same, each column once and in the order of the table."""
        count, width = len(records), len(self.columns)
        if not count or not width:
            return np.empty((count, width)), []
        bounds = np.empty((count, 2 * width), np.int32)
        for k, column in enumerate(self.columns):
            bounds[:, 2 * k], bounds[:, 2 * k + 1] = records.bounds(column)
        if not self.untidy:
            filled = bounds[:, 1::2] > bounds[:, 0::2]
            values = _cast(self._pointed(records.data), bounds, filled)
            if values is not None and _are_finite(values, filled):
                return self._without_na(values), []
            self.untidy = True
        return self._read_untidy(records, bounds)

    def _pointed(self, data: bytes) -> bytes:
        return data.translate(COMMA_TO_POINT) if self.notation.decimal_comma else data

    def _without_na(self, values: Floats) -> Floats:
        """The values, blank where a number stands for missing."""
        for number in self.notation.na_numbers:
            values[values == number] = np.nan
        return values

    def _read_untidy(self, records: Records, bounds: Bounds) -> tuple[Floats, list[Oddity]]:
        """Cells with spaces, quotes, units, groups, NA spellings or text among them."""
        bytes_ = np.frombuffer(records.data, np.uint8)
        _trim(bytes_, bounds)
        bare, data = bounds, records.data
        if self.notation.stripped:
            bare = bounds.copy()
            _strip(bytes_, bare, self.notation.stripped)
        wrong: Bools | None = None
        if self.notation.marks:
            written = bare[:, 1::2] > bare[:, 0::2]  # a cell of nothing but a mark too
            data, bare, wrong = ungrouped(data, bare, self.notation.marks)
        data = self._pointed(data)
        filled = bare[:, 1::2] > bare[:, 0::2]
        likely = filled if wrong is None else filled & ~wrong
        values = _cast(data, bare, likely)
        if values is None:
            values, odd = self._matched(data, bare, likely)
        else:
            odd = likely & ~np.isfinite(values)
        if wrong is not None:
            odd |= written & wrong
        values = self._without_na(values)
        return values, self._judge(records, bounds, odd, values) if odd.any() else []

    def _matched(self, data: bytes, bounds: Bounds, likely: Bools) -> tuple[Floats, Bools]:
        """The values of the likely cells that are numbers, and which are none."""
        is_number = pc.matches(_slots(data, bounds, likely), NUMBER)
        flat = np.append(is_number.to_numpy(zero_copy_only=False), False)
        number = flat.reshape(len(bounds), -1)[:, ::2]
        values = _cast(data, bounds, number)
        assert values is not None  # the pattern admits only what the cast reads
        return values, likely & ~(number & np.isfinite(values))

    def _judge(self, records: Records, bounds: Bounds, odd: Bools, values: Floats) -> list[Oddity]:
        """Judge the cells that the cast can't read: missing, invalid or an error; gives the invalid ones."""
        invalid: dict[int, list[int]] = {}
        again: dict[int, bool] = {}
        for row, k in zip(*(axis.tolist() for axis in np.nonzero(odd)), strict=True):
            number = self.notation.read(records.data[bounds[row, 2 * k] : bounds[row, 2 * k + 1]])
            values[row, k] = np.nan if number is None else number
            if number is not None or again.get(row):
                continue
            if row not in again and self.header is not None:
                again[row] = records.text(row) == self.header
                if again[row]:
                    continue
            if self.invalid == "error":
                if any(again.values()):
                    break
                column = self.columns[k]
                raise BadCellError(row, column, records.field(row, column))
            invalid.setdefault(k, []).append(row)
        if any(again.values()):
            raise AgainError([row for row, it_is in again.items() if it_is])
        return [self._oddity(records, k, rows) for k, rows in sorted(invalid.items())]

    def _oddity(self, records: Records, k: int, rows: list[int]) -> Oddity:
        text = records.field(rows[0], self.columns[k])
        return Oddity(self.columns[k], len(rows), rows[0], text.decode("utf-8", "replace"))


def first_value(records: Records, column: int, notation: Notation) -> bytes | None:
    """The column's first cell that is not missing."""
    for cell in cells_of(records, column):
        if not notation.is_missing(cell):
            return cell
    return None


def cells_of(records: Records, column: int) -> Iterator[bytes]:
    """The cells of a column with their quotes and spaces."""
    start, end = records.bounds(column)
    for begin, stop in zip(start.tolist(), end.tolist(), strict=True):
        yield records.data[begin:stop]


def is_number(cell: bytes, notation: Notation) -> bool:
    """True if the cell is a finite number (missing cells are not)."""
    number = notation.read(cell)
    return number is not None and not math.isnan(number)


def _are_finite(values: Floats, filled: Bools) -> bool:
    """Whether all the filled cells are finite numbers; the others are NaN."""
    return bool(np.count_nonzero(np.isfinite(values)) == np.count_nonzero(filled))


def _slots(data: bytes, bounds: Bounds, wanted: Bools) -> pa.Array:
    """The cells as an Arrow array over `data` itself: cell, gap, cell, gap, … with all but `wanted` null."""
    count, width = wanted.shape
    valid = np.zeros((count, 2 * width), bool)
    valid[:, ::2] = wanted
    bitmap = np.packbits(valid, bitorder="little")
    buffers = [pa.py_buffer(bitmap), pa.py_buffer(bounds), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.string(), 2 * count * width - 1, buffers)


def _cast(data: bytes, bounds: Bounds, wanted: Bools) -> Floats | None:
    """The wanted cells as numbers, NaN elsewhere; None if Arrow can't read one of them."""
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


def _trim(bytes_: NDArray[np.uint8], bounds: Bounds) -> None:
    """Move the bounds of cells inwards past spaces, one pair of quotes, and spaces again, in place."""
    starts, ends = bounds[:, 0::2], bounds[:, 1::2]
    _strip(bytes_, bounds, _SPACES)
    last = len(bytes_) - 1
    first, final = bytes_[np.minimum(starts, last)], bytes_[np.maximum(ends - 1, 0)]
    quoted = (first == QUOTE) & (final == QUOTE) & (ends - starts >= 2)
    if quoted.any():
        starts += quoted
        ends -= quoted
        _strip(bytes_, bounds, _SPACES)


def _strip(bytes_: NDArray[np.uint8], bounds: Bounds, texts: Sequence[bytes]) -> None:
    """Move the bounds of cells inwards past these texts, repeatedly, in place."""
    starts, ends = bounds[:, 0::2], bounds[:, 1::2]
    moved = True
    while moved:
        moved = False
        for text in texts:
            length = np.int32(len(text))
            if (there := _stands_at(bytes_, starts, text) & (ends - starts >= length)).any():
                starts += there * length
                moved = True
            if (there := _stands_at(bytes_, ends - length, text) & (ends - starts >= length)).any():
                ends -= there * length
                moved = True


def _stands_at(bytes_: NDArray[np.uint8], places: Bounds, text: bytes) -> Bools:
    last = len(bytes_) - 1
    there: Bools = bytes_[np.clip(places, 0, last)] == text[0]
    if len(text) > 1 and there.any():
        for k, byte in enumerate(text[1:], 1):
            there &= bytes_[np.clip(places + k, 0, last)] == byte
    return there


def ungrouped(data: bytes, bounds: Bounds, marks: Sequence[bytes]) -> tuple[bytes, Bounds, Bools | None]:
    """The text without the marks that group digits in these cells; their bounds in it; cells grouped wrongly.

    A grouped number has one to three digits, the first no zero, and then marks with three digits after each.
    """
    single = [mark[0] for mark in marks if len(mark) == 1]
    for mark in marks:
        if len(mark) > 1 and mark in data:
            data, bounds = _shortened(data, bounds, mark, single[0])
    bytes_ = np.frombuffer(data, np.uint8)
    is_mark = bytes_ == single[0]
    for other in single[1:]:
        is_mark |= bytes_ == other
    flat = bounds.reshape(-1)
    places = np.flatnonzero(is_mark)
    slots = np.searchsorted(flat, places, "right") - 1
    inside = (slots >= 0) & (slots % 2 == 0)
    places, slots = places[inside], slots[inside]
    if not len(places):
        return data, bounds, None
    wrong = _grouped_wrongly(bytes_, flat, places, slots)
    cells = np.zeros(len(flat) // 2, bool)
    cells[slots[wrong] // 2] = True
    kept = np.ones(len(bytes_), bool)
    kept[places] = False
    moved = flat - np.searchsorted(places, flat).astype(np.int32)
    return bytes_[kept].tobytes(), moved.reshape(bounds.shape), cells.reshape(len(bounds), -1)


def _grouped_wrongly(
    bytes_: NDArray[np.uint8], flat: Bounds, places: NDArray[np.int64], slots: NDArray[np.int64]
) -> Bools:
    """Which of the marks are not between groups of three digits."""
    ends, starts = flat[slots + 1], flat[slots].copy()
    digit = (bytes_ - np.uint8(48)) < 10
    last = len(bytes_) - 1
    sound = ends - places > 3
    for k in (1, 2, 3):
        sound &= digit[np.minimum(places + k, last)]
    sound &= ~(digit[np.minimum(places + 4, last)] & (places + 4 < ends))
    leads = np.append(True, slots[1:] != slots[:-1])
    starts += np.isin(bytes_[starts], (43, 45)).astype(np.int32)  # a sign
    before = places - starts
    good = (before >= 1) & (before <= 3) & (bytes_[np.minimum(starts, last)] != 48)
    for k in (1, 2, 3):
        good &= digit[np.maximum(places - k, 0)] | (k > before)
    follows = np.append(False, places[1:] - places[:-1] == 4)
    return np.asarray(~(sound & np.where(leads, good, follows)))


def _shortened(data: bytes, bounds: Bounds, mark: bytes, byte: int) -> tuple[bytes, Bounds]:
    """The text with `byte` in place of each of these longer marks, and the bounds in it."""
    bytes_ = np.frombuffer(data, np.uint8)
    there = bytes_[: len(bytes_) - len(mark) + 1] == mark[0]
    for k in range(1, len(mark)):
        there &= bytes_[k : len(bytes_) - len(mark) + 1 + k] == mark[k]
    places = np.flatnonzero(there)
    out = bytes_.copy()
    out[places] = byte
    gone = (places[:, np.newaxis] + np.arange(1, len(mark))).reshape(-1)
    kept = np.ones(len(bytes_), bool)
    kept[gone] = False
    moved = bounds - np.searchsorted(gone, bounds.reshape(-1)).astype(np.int32).reshape(bounds.shape)
    return out[kept].tobytes(), moved
