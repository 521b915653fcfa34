"""A column of text in a table that is no text, read as cells of CSV are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from ema_cli.formats.arrow_types import offsets_and_bytes
from ema_cli.formats.base import Floats, Oddity
from ema_cli.notation import Notation


class NotANumberError(ValueError):
    """A cell that is no finite number; row counts from 0."""

    def __init__(self, row: int, text: str) -> None:
        super().__init__(f"not a number: {text!r}")
        self.row, self.text = row, text


def holds_text(kind: Any) -> bool:
    """Whether a column of this Arrow type is text, or categories of it."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return str(kind) in ("string", "large_string", "string_view")


def read_numbers(column: Any, notation: Notation, invalid: str) -> tuple[Floats, list[Oddity]]:
    """(n,) float64 with NaN where missing, and the cells that were no number (of column 0, if any).

    Raises NotANumberError for the first of those unless `invalid` is 'missing'.
    """
    # Which most tables that are no text never need.
    from ema_cli.formats.text.cells import BadCellError, NumberReader
    from ema_cli.formats.text.records import Records

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    bounds, bytes_ = offsets_and_bytes(column.cast(pa.binary()))
    starts, ends = bounds[:-1].astype(np.int64), bounds[1:].astype(np.int64)
    ends = np.where(valid, ends, starts)
    if not ends.any():
        return np.full(len(column), np.nan), []
    records = Records(bytes_.tobytes(), starts, ends, ends[:, np.newaxis], len(bytes_))
    try:
        values, oddities = NumberReader((0,), notation, invalid).read(records)
    except BadCellError as error:
        raise NotANumberError(error.row, error.text.decode("utf-8", "replace")) from None
    return values[:, 0], oddities
