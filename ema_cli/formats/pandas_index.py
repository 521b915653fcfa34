"""pandas' own notes in a Parquet schema: which columns are the index, kept true as columns come and go.

pandas itself is not needed: the notes are JSON under the key `pandas`, in the form that Arrow documents.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from ema_cli.formats.arrow_types import utf8_name

KEY = b"pandas"
# What pandas writes for names that are plain text.
_TEXT_NAMES = {
    "name": None,
    "field_name": None,
    "pandas_type": "unicode",
    "numpy_type": "object",
    "metadata": {"encoding": "UTF-8"},
}


def index_columns(schema: Any) -> set[str]:
    """The names of columns that are pandas' index."""
    notes = _notes(schema)
    return {name for name in notes["index_columns"] if isinstance(name, str)} if notes else set()


def keeping(schema: Any) -> Any:
    """The schema with no notes on columns that it does not have."""
    notes = _notes(schema)
    if not notes:
        return schema
    kept = set(schema.names)
    notes["index_columns"] = [
        name for name in notes["index_columns"] if not isinstance(name, str) or name in kept
    ]
    notes["columns"] = [column for column in notes["columns"] if _field_name(column) in kept]
    return _with_notes(schema, notes)


def adding(schema: Any, names: Sequence[str]) -> Any:
    """The schema with nullable float64 fields added, and notes on them where there are notes."""
    notes = _notes(schema)
    fields = [pa.field(utf8_name(name), pa.float64()) for name in names]
    schema = pa.schema([*schema, *fields], metadata=schema.metadata)
    if not notes:
        return schema
    notes["columns"] += [
        {
            "name": name,
            "field_name": name,
            "pandas_type": "float64",
            "numpy_type": "float64",
            "metadata": None,
        }
        for name in names
    ]
    # Names that were numbers, dates or tuples would be turned back into those, and ours can't be.
    notes["column_indexes"] = [_text_names(level) for level in notes.get("column_indexes", [])[:1]]
    return _with_notes(schema, notes)


def _text_names(level: Any) -> Any:
    if not isinstance(level, dict) or level.get("pandas_type") in ("unicode", "string", "empty", "mixed"):
        return level
    return _TEXT_NAMES


def _notes(schema: Any) -> dict[str, Any] | None:
    """The notes, None where there are none or they are not in the form that is known."""
    try:
        notes = json.loads((schema.metadata or {})[KEY])
    except (KeyError, ValueError):
        return None
    lists = isinstance(notes, dict) and all(
        isinstance(notes.get(key), list) for key in ("index_columns", "columns")
    )
    return notes if lists else None


def _field_name(column: Any) -> Any:
    return column.get("field_name", column.get("name")) if isinstance(column, dict) else None


def _with_notes(schema: Any, notes: dict[str, Any]) -> Any:
    return schema.with_metadata({**schema.metadata, KEY: json.dumps(notes).encode()})
