"""Arrow columns as the text of a table: every value exact, quotes only where the delimiter asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from ema_cli.errors import DataError, Place
from ema_cli.formats import arrow_compute as pc

NO_TEXT_HINT = "write Parquet (-o FILE.parquet), or leave the column out with --only"


def rows(
    columns: Sequence[Any], places: Sequence[Place], count: int, delimiter: bytes, decimal_comma: bool
) -> tuple[Any, memoryview]:
    """Each row as delimited text, and the line ending after the last, as `Body.texts` says.

    columns: Arrow arrays of `count` rows; `places` is what they are called in messages. A null is
    an empty cell, an empty text "".
    Raises DataError for a column that has no text.
    """
    if not count:
        return pa.array([], pa.binary()), memoryview(b"")
    fields = [
        _fields(column, place, delimiter, decimal_comma)
        for column, place in zip(columns, places, strict=True)
    ]
    if not fields:
        fields = [pa.array([b""] * count, pa.binary())]
    blank = {"null_handling": "replace", "null_replacement": b""}
    fields[-1] = pc.binary_join_element_wise(fields[-1], b"\n", b"", **blank)
    lines = pc.binary_join_element_wise(*fields, delimiter, **blank)
    # A row's own line ending goes before the next row: the same bytes, cut one byte earlier.
    offsets = np.frombuffer(lines.buffers()[1], np.int32, count + 1).copy()
    offsets[1:] -= 1
    shifted = pa.Array.from_buffers(pa.binary(), count, [None, pa.py_buffer(offsets), lines.buffers()[2]])
    return shifted, memoryview(b"\n")


def header(names: Sequence[str], delimiter: bytes) -> bytes:
    """The names as a header, without its line ending."""
    cells = pa.array([name.encode("utf-8", "surrogateescape") for name in names], pa.binary())
    return delimiter.join(_quoted(cells, delimiter).to_pylist())


def texts(column: Any, place: Place) -> Any:
    """The exact text of each value, as an Arrow binary array; null stays null.

    Floats are the shortest text that reads back as the same number, times ISO 8601 in UTC to their own unit.
    Lists and records are JSON. Raises DataError for bytes that are no UTF-8 and times that no calendar has.
    """
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return _uuids(column) if str(kind) == "extension<arrow.uuid>" else texts(column.storage, place)
    if pa.types.is_dictionary(kind):
        return texts(column.dictionary, place).take(column.indices)
    if pa.types.is_timestamp(kind):
        return _timestamps(column, place)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _floats(column) if pa.types.is_floating(kind) else _decimals(column)
    if pa.types.is_nested(kind):
        return _json(column, place)
    try:
        # By way of text, which refuses bytes that are no UTF-8; text itself is taken as it is.
        return column.cast(pa.binary() if _is_text(kind) else pa.string()).cast(pa.binary())
    except pa.ArrowInvalid:
        raise DataError("bytes that are no UTF-8 text", place, NO_TEXT_HINT) from None


def key_texts(column: Any, place: Place) -> Any:
    """As `texts`, but one text for one number, of whatever type: 1 for 1, 1.0 and 1.00, 0 for -0.0."""
    cells, kind = texts(column, place), column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not (pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        return cells
    coded = cells.dictionary_encode()
    plain = [None if text is None else number_key(text) for text in coded.dictionary.to_pylist()]
    return pa.array(plain, pa.binary()).take(coded.indices)


def number_key(text: bytes) -> bytes:
    number = Decimal(text.decode())
    if not number.is_finite():
        return text
    return b"0" if not number else f"{number.normalize():f}".encode()


def _is_text(kind: Any) -> bool:
    return str(kind) in ("string", "large_string", "string_view")


def _fields(column: Any, place: Place, delimiter: bytes, decimal_comma: bool) -> Any:
    """Texts as they stand in a table: quoted where needed, with a decimal comma where asked for."""
    kind = column.type
    if pa.types.is_dictionary(kind) and not isinstance(kind, pa.BaseExtensionType):
        return _fields(column.dictionary, place, delimiter, decimal_comma).take(column.indices)
    cells = texts(column, place)
    if decimal_comma and (pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        cells = pc.replace_substring(cells, b".", b",")
    return _quoted(cells, delimiter)


def _quoted(cells: Any, delimiter: bytes) -> Any:
    """Quotes round the cells that hold the delimiter, a quote or a line ending, and round empty texts."""
    special = (delimiter, b'"', b"\n", b"\r")
    offsets = np.frombuffer(cells.buffers()[1], np.int32)[cells.offset :][: len(cells) + 1]
    data = cells.buffers()[2]
    text = b"" if data is None else data.slice(int(offsets[0]), int(offsets[-1] - offsets[0])).to_pybytes()
    empty = pc.equal(pc.binary_length(cells), 0)
    if not any(byte in text for byte in special) and not pc.any(empty).as_py():
        return cells
    pattern = "[" + "".join(f"\\x{byte[0]:02x}" for byte in special) + "]"
    needy = pc.or_(pc.match_substring_regex(cells, pattern), empty)
    doubled = pc.replace_substring(cells, b'"', b'""')
    quote = pa.scalar(b'"', pa.binary())
    return pc.if_else(needy, pc.binary_join_element_wise(quote, doubled, quote, b""), cells)


def _floats(column: Any) -> Any:
    """As new fields are written: by orjson, which writes all but finite numbers as null."""
    values = column.to_numpy(zero_copy_only=False)
    text = orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
    commas = np.flatnonzero(np.frombuffer(text, np.uint8) == ord(","))
    joined = text.translate(None, b",")
    offsets = np.concatenate(([0], commas - np.arange(len(commas)), [len(joined)])).astype(np.int32)
    buffers = [None, pa.py_buffer(offsets[: len(values) + 1]), pa.py_buffer(joined)]
    cells = pa.Array.from_buffers(pa.binary(), len(values), buffers)
    valid = column.is_valid()
    odd = pc.and_(valid, pa.array(~np.isfinite(values)))
    if pc.any(odd).as_py():
        names = np.where(np.isnan(values), "NaN", np.where(values > 0, "inf", "-inf"))
        cells = pc.if_else(odd, pa.array(names).cast(pa.binary()), cells)
    return pc.if_else(valid, cells, pa.scalar(None, pa.binary())) if column.null_count else cells


def _decimals(column: Any) -> Any:
    cells = column.cast(pa.string())
    if pc.any(pc.match_substring(cells, "E")).as_py():  # Arrow writes tiny ones as 1E-9
        plain = [None if value is None else f"{value:f}" for value in column.to_pylist()]
        cells = pa.array(plain, pa.string())
    return cells.cast(pa.binary())


def _timestamps(column: Any, place: Place) -> Any:
    """2013-01-01T06:00:00.5Z, without the fraction where that is zero; no Z where the column has no zone."""
    kind = column.type
    if kind.tz is not None:
        column = column.cast(pa.timestamp(kind.unit, "UTC"))
    seconds, fractions = _whole_seconds(column)
    cells = seconds if fractions is None else pc.if_else(fractions, column.cast(pa.string()), seconds)
    if pc.any(pc.starts_with(cells, "<")).as_py():
        raise DataError("a time outside the calendar", place, NO_TEXT_HINT)
    return pc.replace_substring(cells, " ", "T", max_replacements=1).cast(pa.binary())


def _whole_seconds(column: Any) -> tuple[Any, Any]:
    """The times cut to seconds as text, and which of them lost a fraction by it (None if none did)."""
    cut = column.cast(pa.timestamp("s", column.type.tz), safe=False)
    changed = pc.not_equal(cut.cast(column.type, safe=False), column)
    return cut.cast(pa.string()), changed if pc.any(changed).as_py() else None


def _json(column: Any, place: Place) -> Any:
    """Lists and records as JSON."""
    try:
        cells = [None if value is None else orjson.dumps(value) for value in column.to_pylist()]
    except (TypeError, ValueError):  # bytes, decimals and what else JSON does not know
        raise DataError(f"values of type {column.type} have no text", place, NO_TEXT_HINT) from None
    return pa.array(cells, pa.binary())


def _uuids(column: Any) -> Any:
    return pa.array(
        [None if value is None else str(value).encode() for value in column.to_pylist()], pa.binary()
    )
