"""What an input is that is not of the format it is read as: by its first bytes, and what to do with it."""

from __future__ import annotations

import json
import re
import shlex

from ema_cli.errors import DataError, Place

NUL = b"\0"
# What a file of another kind begins with: what it is, and what to try.
FOREIGN = {
    b"PAR1": ("a Parquet file", "--from parquet"),
    b"\xd0\xcf\x11\xe0": ("an old Excel workbook (.xls)", "save the sheet as CSV"),
    b"\xff\xfe\0\0": ("UTF-32 text", "iconv -f UTF-32 -t UTF-8 FILE | ema-smooth ..."),
    b"\xff\xfe": ("UTF-16 text", "iconv -f UTF-16 -t UTF-8 FILE | ema-smooth ..."),
    b"\xfe\xff": ("UTF-16 text", "iconv -f UTF-16 -t UTF-8 FILE | ema-smooth ..."),
    b"ARROW1": ("an Arrow IPC file", "--from arrow"),
    b"SQLite format 3": ("an SQLite database", "sqlite3 -csv -header FILE 'select ...' | ema-smooth ..."),
    b"\x89HDF": ("an HDF5 file", "write its table as Parquet or CSV"),
    b"\x93NUMPY": ("a NumPy array", "write it as CSV: numpy.savetxt"),
    b"%PDF": ("a PDF document", "a CSV, TSV or Parquet file"),
    b"{\\rtf": ("a rich text document", "save it as plain text"),
}
_HTML = re.compile(rb"[ \t]*<(?:!doctype html|html|head|body|table|!--)", re.IGNORECASE)
_XML = re.compile(rb"[ \t]*<\?xml", re.IGNORECASE)
_OBJECT = re.compile(rb'[ \t]*\{\s*(?:"(?:[^"\\]|\\.)*"\s*:|\}|\Z)')
_ARRAY = re.compile(rb'[ \t]*\[\s*(?:[{\[\]"]|-?[0-9]+(?:\.[0-9]+)?\s*[,\]]|\Z)')
_ROWS_IN = re.compile(rb'"((?:[^"\\]|\\.)*)"\s*:\s*\[\s*\{')


def _error(what: str, place: Place, hint: str) -> DataError:
    """What an input is, and a hint with its name for FILE."""
    name = "" if place.file == "stdin" else f" {shlex.quote(place.file)}"
    return DataError(f"this is {what}", place, hint.replace(" FILE", name))


def refuse_foreign(head: bytes, name: str) -> None:
    """Raise DataError where the first bytes are not those of a text table."""
    for magic, (what, hint) in FOREIGN.items():
        if head.startswith(magic):
            raise _error(f"{what}, not CSV", Place(name), hint)
    if head.startswith(b"PK\x03\x04"):
        raise _archive(head, name)
    _refuse_wide(head, name)


def refuse_documents(line: bytes, opening: bytes, name: str) -> None:
    """Raise DataError where the first line that is not blank is one of HTML, XML or JSON.

    opening: what is there of the input, to be more precise about it.
    """
    if _HTML.match(line):
        hint = "fetch the file itself, not the page that shows it"
        raise _error("a page of HTML, not a table", Place(name), hint)
    if _XML.match(line):
        raise _error("an XML document, not a table", Place(name), "a CSV, TSV or Parquet file")
    if _ARRAY.match(line):
        raise document_error(opening, name)
    if not _OBJECT.match(line):
        return
    try:
        lines = isinstance(json.loads(line), dict)
    except ValueError:
        lines = False
    if lines:
        raise _error("JSON lines, not CSV", Place(name), "--from jsonl")
    raise document_error(opening, name)


def document_error(head: bytes, name: str) -> DataError:
    """For a JSON document that is not one object a line: what it is, and what makes lines of it."""
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        what, rows = "a JSON array", ".[]"
    else:
        found = _ROWS_IN.search(head)
        key = "ROWS" if found is None else found[1].decode("utf-8", "replace")
        plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key) is not None
        what, rows = "a JSON document over several lines", f".{key}[]" if plain else f".[{json.dumps(key)}][]"
    hint = f"jq -c '{rows}' FILE | ema-smooth --from jsonl ..."
    return _error(f"{what}, not an object a line", Place(name), hint)


def _archive(head: bytes, name: str) -> DataError:
    """For what begins as zip archives do: workbooks and others."""
    if b"opendocument.spreadsheet" in head[:200]:
        what, hint = "an OpenDocument spreadsheet (.ods)", "save the sheet as CSV"
    elif b"xl/" in head or b"[Content_Types].xml" in head:
        what, hint = "an Excel workbook (.xlsx)", "save the sheet as CSV"
    else:
        what, hint = "a zip archive", "unzip -p FILE | ema-smooth ..."
    return _error(f"{what}, not CSV", Place(name), hint)


def _refuse_wide(head: bytes, name: str) -> None:
    """Raise DataError for NULs in the first line, of which all is here whatever else has arrived."""
    line = head.partition(b"\n")[0]
    if nuls := line.count(NUL):
        # ASCII in a wide encoding is at least half NULs; the newline's own may be on either side of it.
        wide = "UTF-32" if 4 * nuls >= 3 * len(line) else "UTF-16" if 2 * nuls >= len(line) - 1 else None
        what = "binary data (a NUL byte)" if wide is None else f"{wide} text"
        code = f"{wide}{'BE' if line.startswith(NUL) else 'LE'}"
        hint = f"iconv -f {code} -t UTF-8 FILE | ema-smooth ..."
        hint = hint if wide else "a CSV, TSV or Parquet file"
        raise _error(f"{what}, not CSV", Place(name, 1), hint)
