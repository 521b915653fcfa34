"""Fields as text: cut out of records, said without their quotes, and new ones written."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from ema_cli.errors import readable
from ema_cli.formats import arrow_compute as pc
from ema_cli.formats.arrow_types import binary_array
from ema_cli.formats.base import Floats
from ema_cli.formats.text.dialect import Dialect
from ema_cli.formats.text.records import Records

# Where spaces separate, a blank field has to be said.
BLANK = b"NaN"


def spans(data: bytes, starts: NDArray[Any], ends: NDArray[Any]) -> pa.Array:
    """The pieces of `data` between each start and end as an Arrow binary array."""
    count = len(starts)
    if not count:
        return pa.array([], pa.binary())
    # Arrow wants offsets without gaps, so the gaps are values too, and left out at the end.
    bounds = np.stack((starts, ends), axis=1).astype(np.int32)
    every = binary_array(bounds.reshape(-1), data)
    return pc.take(every, np.arange(0, 2 * count - 1, 2))


def raw_fields(records: Records, column: int) -> pa.Array:
    """One column's fields with their quotes, as an Arrow binary array."""
    return spans(records.data, *records.bounds(column))


def contents(records: Records, column: int) -> pa.Array:
    """One column's fields without quotes, as an Arrow binary array."""
    raw = raw_fields(records, column)
    if b'"' not in records.data:
        return raw
    coded = raw.dictionary_encode()
    return pa.array([unquote(cell) for cell in coded.dictionary.to_pylist()], pa.binary()).take(coded.indices)


def unquote(cell: bytes) -> bytes:
    """The text of a field: a quoted one without its quotes, with doubled quotes single."""
    if cell[:1] != b'"':
        return cell
    closing = _closing_quote(cell)
    return cell[1:closing].replace(b'""', b'"') + cell[closing + 1 :]


def _closing_quote(cell: bytes) -> int:
    at = 1
    while (at := cell.find(b'"', at)) != -1:
        if cell[at + 1 : at + 2] != b'"':
            return at
        at += 2
    return len(cell)


def quoted(text: bytes, dialect: Dialect) -> bytes:
    """A field with this text, in quotes only if needed."""
    return dialect.quoted(text)


def quoted_for(field: bytes, own: Dialect, other: Dialect) -> bytes:
    """A field of one dialect as it is written in another."""
    return field if own.separates_like(other) else quoted(unquote(field), other)


def shown(cell: bytes) -> str:
    """A cell for a message: quoted, on one line, not too long."""
    text = readable(cell.decode("utf-8", "surrogateescape"))
    return repr(text if len(text) <= 60 else text[:57] + "...")


def texts_of(fields: Floats, dialect: Dialect, digits: int | None, alone: bool) -> pa.Array:
    """Each row's new fields as one text, every field with the delimiter before it; blank where NaN,
    `inf` where beyond float64.

    fields: (rows, new columns) float64. The shortest text that reads back as the same number, or `digits`
    decimals. alone: nothing comes before the fields, so the first delimiter is left out.
    """
    rows, width = fields.shape
    blank = BLANK if dialect.spaces else b""
    if digits is None:
        # orjson opens with a bracket and puts a comma before every field but the first; so that the first one
        # has a comma too, a blank goes before it.
        flat = np.empty(fields.size + 1)
        flat[0] = np.nan
        flat[1:].reshape(rows, width)[...] = fields
        text = orjson.dumps(flat, option=orjson.OPT_SERIALIZE_NUMPY)
        if not np.isfinite(fields).all():
            text = _with_infinities(text, flat).replace(b"null", blank)
        end = len(text) - 1  # without the closing bracket
    else:
        template = f",%.{digits}f" * (rows * width)
        text = (template % tuple(fields.reshape(-1).tolist())).encode().replace(b"nan", blank)
        end = len(text)
    commas = np.flatnonzero(np.frombuffer(text, np.uint8) == ord(","))
    offsets = np.append(commas[::width], end).astype(np.int32)
    delimiter, decimal = dialect.delimiter, b"," if dialect.decimal_comma else b"."
    if decimal == delimiter:
        text, offsets = _all_quoted(text[:end], rows, width)
    elif decimal + delimiter != b".,":
        text = text.translate(bytes.maketrans(b",.", delimiter + decimal))
    if alone:
        return spans(text, offsets[:-1] + 1, offsets[1:])
    return binary_array(offsets, text)


def _with_infinities(text: bytes, flat: Floats) -> bytes:
    """orjson's text with infinities, which it writes as null: a sum may lie beyond float64."""
    beyond = np.flatnonzero(np.isinf(flat))
    if not beyond.size:
        return text
    cells = text.split(b",")
    for k in beyond.tolist():
        cells[k] = (b"inf" if flat[k] > 0 else b"-inf") + (b"]" if k == len(cells) - 1 else b"")
    return b",".join(cells)


def _all_quoted(text: bytes, rows: int, width: int) -> tuple[bytes, NDArray[np.int32]]:
    """The fields with decimal commas, in quotes since the delimiter is a comma too."""
    cells = [b',"' + cell.replace(b".", b",") + b'"' if cell else b"," for cell in text.split(b",")[1:]]
    lines = [b"".join(cells[row * width : (row + 1) * width]) for row in range(rows)]
    return b"".join(lines), np.cumsum([0, *map(len, lines)]).astype(np.int32)
