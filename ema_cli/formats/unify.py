"""Parts whose types differ: the common type of each column, and lossless casts to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ema_cli.errors import DataError, Place
from ema_cli.formats import arrow_compute as pc

_UNITS = ("s", "ms", "us", "ns")
_UTC = ("UTC", "Etc/UTC", "+00:00", "Z", "GMT", "Etc/GMT")
_FLOATS = (pa.float16(), pa.float32(), pa.float64())
_SIGNED = (pa.int8(), pa.int16(), pa.int32(), pa.int64())
_UNSIGNED = (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())
_MOST_DIGITS = {pa.decimal128: 38, pa.decimal256: 76}


def unified_schema(schemas: Sequence[tuple[str, Any]]) -> Any:
    """The schema that fits the rows of all parts. Raises DataError if there is none.

    schemas: each part's name and schema; the columns' names are the same.
    """
    _, first = schemas[0]
    fields = list(first)
    for k, field in enumerate(fields):
        kind, nullable = field.type, field.nullable
        for number, (_, schema) in enumerate(schemas):
            both = common_type(kind, schema.field(k).type)
            if both is None:
                raise _differ(schemas, k, number)
            kind, nullable = both, nullable or schema.field(k).nullable
        fields[k] = field.with_type(kind).with_nullable(nullable)
    return pa.schema(fields, first.metadata)


def _differ(schemas: Sequence[tuple[str, Any]], k: int, number: int) -> DataError:
    """The error for part `number`, whose column k has a type that does not fit that of an earlier part."""
    name, schema = schemas[number]
    own = schema.field(k)
    # Name an earlier part that does not fit; if each one does, it is all of them together that don't.
    before = [(part, each.field(k).type) for part, each in schemas[:number]]
    clashing = [(part, kind) for part, kind in before if common_type(kind, own.type) is None]
    other, its = (clashing or before[-1:])[0]
    hint = "write the column in one type in all parts; for a series each: --output-dir without --chain"
    return DataError(f"{own.type}, but {its} in {other}", Place(name, column=own.name), hint)


def common_type(a: Any, b: Any) -> Any | None:
    """The type that holds the values of both without loss; None if there is none.

    An integer and a float give float64; `exactly` then checks each value.
    """
    if a.equals(b):
        return a
    if pa.types.is_null(a) or pa.types.is_null(b):
        return b if pa.types.is_null(a) else a
    for rule in (_dictionaries, _numbers, _texts, _instants, _nested):
        if (both := rule(a, b)) is not None:
            return both
    return None


def _dictionaries(a: Any, b: Any) -> Any | None:
    """Two dictionary types give one with the wider index; one and its value type give the value type."""
    coded = [pa.types.is_dictionary(kind) for kind in (a, b)]
    if not any(coded):
        return None
    values = common_type(*(kind.value_type if is_ else kind for kind, is_ in zip((a, b), coded, strict=True)))
    if values is None or not all(coded):
        return values
    index = common_type(a.index_type, b.index_type)
    return None if index is None else pa.dictionary(index, values, a.ordered and b.ordered)


def _numbers(a: Any, b: Any) -> Any | None:
    whole = [pa.types.is_integer(kind) for kind in (a, b)]
    for kinds in (_FLOATS, _SIGNED, _UNSIGNED):
        if a in kinds and b in kinds:
            return max(a, b, key=kinds.index)
    if all(whole):
        signed, unsigned = (a, b) if a in _SIGNED else (b, a)
        wide = max(_SIGNED.index(signed), _UNSIGNED.index(unsigned) + 1)
        return _SIGNED[wide] if wide < len(_SIGNED) else None
    if any(whole) and (a in _FLOATS or b in _FLOATS):
        return pa.float64()
    return _decimals(a, b) if pa.types.is_decimal(a) and pa.types.is_decimal(b) else None


def _decimals(a: Any, b: Any) -> Any | None:
    scale = max(a.scale, b.scale)
    precision = scale + max(a.precision - a.scale, b.precision - b.scale)
    return next((make(precision, scale) for make, most in _MOST_DIGITS.items() if precision <= most), None)


def _texts(a: Any, b: Any) -> Any | None:
    for kinds in (("string", "large_string", "string_view"), ("binary", "large_binary", "binary_view")):
        if str(a) in kinds and str(b) in kinds:
            return pa.large_string() if "string" in kinds else pa.large_binary()
    return None


def _instants(a: Any, b: Any) -> Any | None:
    """Times take the finer unit; times with and without a zone, or dates and times, don't fit."""
    if pa.types.is_date(a) and pa.types.is_date(b):
        return pa.date64()
    if pa.types.is_time(a) and pa.types.is_time(b):
        return pa.time64(_finer(a, b)) if _finer(a, b) in ("us", "ns") else pa.time32(_finer(a, b))
    if pa.types.is_duration(a) and pa.types.is_duration(b):
        return pa.duration(_finer(a, b))
    if pa.types.is_timestamp(a) and pa.types.is_timestamp(b):
        alike = a.tz == b.tz or (a.tz in _UTC and b.tz in _UTC)
        return pa.timestamp(_finer(a, b), a.tz) if alike else None
    return None


def _finer(a: Any, b: Any) -> str:
    return str(max(a.unit, b.unit, key=_UNITS.index))


def _nested(a: Any, b: Any) -> Any | None:
    """Lists, and records of the same members, by these rules; without integers to floats, which `exactly`
    checks in whole columns only."""
    if pa.types.is_struct(a) and pa.types.is_struct(b):
        if [field.name for field in a] != [field.name for field in b]:
            return None
        inner = [_inner(mine, its) for mine, its in zip(a, b, strict=True)]
        return None if any(field is None for field in inner) else pa.struct(inner)
    for is_list, make in ((pa.types.is_list, pa.list_), (pa.types.is_large_list, pa.large_list)):
        if is_list(a) and is_list(b):
            value = _inner(a.value_field, b.value_field)
            return None if value is None else make(value)
    return None


def _inner(a: Any, b: Any) -> Any | None:
    kind = common_type(a.type, b.type)
    inexact = kind == pa.float64() and (pa.types.is_integer(a.type) or pa.types.is_integer(b.type))
    return None if kind is None or inexact else a.with_type(kind).with_nullable(a.nullable or b.nullable)


class InexactError(ValueError):
    """A value that does not fit a type; `row` counts from 0."""

    def __init__(self, row: int, text: str) -> None:
        super().__init__(text)
        self.row, self.text = row, text


def exactly(column: Any, kind: Any) -> Any:
    """An Arrow column cast to another type. Raises InexactError for the first value that does not fit."""
    if pa.types.is_dictionary(column.type) and not pa.types.is_dictionary(kind):
        return exactly(column.dictionary_decode(), kind)
    try:
        if pa.types.is_integer(column.type) and pa.types.is_floating(kind):
            out = pc.cast(column, kind, safe=False)
            _check_whole(column, out)
            return out
        return pc.cast(column, kind)
    except pa.ArrowInvalid as error:
        for row in range(len(column)):
            try:
                pc.cast(column.slice(row, 1), kind)
            except pa.ArrowInvalid:
                raise InexactError(row, str(column[row])) from error
        raise


def _check_whole(column: Any, out: Any) -> None:
    """Raise InexactError for the first integer that is not equal to its float."""
    whole = column.fill_null(0).to_numpy(zero_copy_only=False)
    floats = out.fill_null(0).to_numpy(zero_copy_only=False)
    top = float(np.iinfo(whole.dtype).max) + 1
    with np.errstate(invalid="ignore"):
        same = (floats < top) & (np.where(floats < top, floats, 0).astype(whole.dtype) == whole)
    if not same.all():
        row = int(np.argmin(same))
        raise InexactError(row, str(column[row]))
