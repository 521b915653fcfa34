"""What an input is that is not of the format it is read as: by its first bytes, and what to do with it."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from typing import Any

from ema_cli.errors import DataError, Place, typeable

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
    b"RDX": ("R's data", "write its table with write.csv"),
    b"%PDF": ("a PDF document", "a CSV, TSV or Parquet file"),
    b"7z\xbc\xaf": ("a 7-Zip archive", "7z x -so FILE | ema-smooth ..."),
    b"Rar!": ("a RAR archive", "unrar p -inul FILE | ema-smooth ..."),
    b"\x04\x22\x4d\x18": ("LZ4 data", "lz4 -dc FILE | ema-smooth ..."),
    b"\x1f\x9d": ("data compressed by `compress`", "gzip -dc FILE | ema-smooth ..."),
    b"\x1f\x8b": ("compressed twice", "gzip -dc FILE | ema-smooth ..."),
    b"BZh": ("compressed twice", "bzip2 -dc FILE | ema-smooth ..."),
    b"\xfd7zXZ": ("compressed twice", "xz -dc FILE | ema-smooth ..."),
    b"\x28\xb5\x2f\xfd": ("compressed twice", "zstd -dc FILE | ema-smooth ..."),
    b"Obj\x01": ("an Avro file", "write its table as Parquet or CSV"),
    b"ORC": ("an ORC file", "write its table as Parquet or CSV"),
    b"\x80\x04\x95": ("a Python pickle", "write its table as Parquet or CSV"),
    b"\x80\x05\x95": ("a Python pickle", "write its table as Parquet or CSV"),
    b"{\\rtf": ("a rich text document", "save it as plain text"),
}
_WIDE = ("UTF-32LE", "UTF-32BE", "UTF-16LE", "UTF-16BE")
_HTML = re.compile(rb"[ \t]*<(?:!doctype html|html|head|body|table|!--)", re.IGNORECASE)
_XML = re.compile(rb"[ \t]*<\?xml", re.IGNORECASE)
_OBJECT = re.compile(rb'[ \t]*\{\s*(?:"(?:[^"\\]|\\.)*"\s*:|\}|\Z)')
_ARRAY = re.compile(rb'[ \t]*\[\s*(?:[{\[\]"]|-?[0-9]+(?:\.[0-9]+)?\s*[,\]]|\Z)')
_LISTS, _SCALARS = re.compile(rb"\[\s*\["), re.compile(rb"\[\s*[^\s\[{]")
_ROWS_IN = re.compile(rb'"((?:[^"\\]|\\.)*)"\s*:\s*\[\s*\{')


def _error(what: str, place: Place, hint: str) -> DataError:
    """What an input is, and a hint with its name for FILE."""
    return DataError(f"this is {what}", place, named(hint, place.file))


def named(hint: str, name: str) -> str:
    """A hint with the input's name for FILE; without it for stdin."""
    if name == "stdin":
        return hint.replace(" < FILE", "").replace(" FILE", "")
    return hint.replace(" FILE", f" {shlex.quote(name)}")


def without_nuls(name: str) -> str:
    """What to try with NUL bytes in a text, as a power cut leaves them."""
    return named("tr -d '\\000' < FILE | ema-smooth ...", name)


def without_outer_quotes(name: str) -> str:
    """What to try where every line is in quotes as a whole."""
    return named("""sed 's/^"//; s/"\\r*$//; s/""/"/g' FILE | ema-smooth ...""", name)


def lacks_newline_byte(head: bytes) -> bool:
    """Whether more bytes are needed to judge the first ones: a newline in UTF-16 is two, one of them NUL."""
    at = head.find(b"\n")
    return at >= 0 and at + 1 == len(head) and NUL in head


def refuse_foreign(head: bytes, name: str, wanted: str = "CSV") -> None:
    """Raise DataError where the first bytes are not those of a text, such as `wanted`."""
    for magic, (what, hint) in FOREIGN.items():
        if head.startswith(magic):
            raise _error(f"{what}, not {wanted}", Place(name), hint)
    if head.startswith(b"PK\x03\x04"):
        raise _archive(head, name, wanted)
    if head[257:262] == b"ustar":
        raise _error(f"a tar archive, not {wanted}", Place(name), "tar -xOf FILE | ema-smooth ...")
    _refuse_wide(head, name, wanted)


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
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    what = "a JSON array" if text.startswith(b"[") else "a JSON document over several lines"
    hint = jq(_filter_of(text))
    if re.match(rb"\{.*\},[ \t\r]*\n", text):
        what = "JSON lines with commas after the objects"
        hint = "sed 's/,[[:space:]]*$//' FILE | ema-smooth --from jsonl ..."
    return _error(f"{what}, not an object a line", Place(name), hint)


def _filter_of(text: bytes) -> str:
    """The filter for `jq` that makes lines of a document, of which this may be the beginning."""
    with contextlib.suppress(ValueError):
        if (found := rows_filter(json.loads(text))) is not None:
            return found
    if text.startswith(b"["):
        if re.match(rb"\[[^\[\]]*\][ \t\r]*\n[ \t]*\[", text):  # an array a line
            return "@csv"
        return ".[] | @csv" if _LISTS.match(text) else ".[] | [.] | @csv" if _SCALARS.match(text) else ".[]"
    if (rows := _ROWS_IN.search(text)) is not None:
        return f".{_member(rows[1].decode('utf-8', 'replace'))}[]"
    return "."


def rows_filter(value: Any, path: str = "") -> str | None:
    """The filter for `jq` that makes an object of each row of a document; None where there are no rows."""
    if isinstance(value, list) and value:
        if all(isinstance(row, dict) for row in value):
            return f"{path or '.'}[]"
        if all(
            isinstance(row, list) and not any(isinstance(cell, list | dict) for cell in row) for row in value
        ):
            return f"{path or '.'}[] | @csv"
        return None
    if not isinstance(value, dict):
        return None
    columns = [len(each) for each in value.values() if isinstance(each, list)]
    flat = not any(
        isinstance(cell, list | dict) for each in value.values() if isinstance(each, list) for cell in each
    )
    if len(columns) == len(value) > 0 and len(set(columns)) == 1 and flat:
        return f"{path and path + ' | '}. as $d | range(first(.[]) | length) as $k | $d | map_values(.[$k])"
    found = (rows_filter(each, f"{path}.{_member(key)}") for key, each in value.items())
    return next(filter(None, found), None)


def jq(rows: str) -> str:
    """The command that makes a line of each row of the document FILE, and reads them."""
    how, lines = ("r", "--no-header") if rows.endswith("@csv") else ("c", "--from jsonl")
    return f"jq -{how} {typeable(rows)} FILE | ema-smooth {lines} ..."


def _member(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key) else f"[{json.dumps(key)}]"


def _archive(head: bytes, name: str, wanted: str) -> DataError:
    """For what begins as zip archives do: workbooks and others."""
    if b"opendocument.spreadsheet" in head[:200]:
        what, hint = "an OpenDocument spreadsheet (.ods)", "save the sheet as CSV"
    elif b"xl/" in head or b"[Content_Types].xml" in head:
        what, hint = "an Excel workbook (.xlsx)", "save the sheet as CSV"
    else:
        what, hint = "a zip archive", "unzip -p FILE | ema-smooth ..."
    return _error(f"{what}, not {wanted}", Place(name), hint)


def _refuse_wide(head: bytes, name: str, wanted: str) -> None:
    """Raise DataError for NULs in the first line, of which all is here whatever else has arrived."""
    line = head.partition(b"\n")[0]
    if NUL not in line:
        return
    # In a wide encoding the NULs of the newline are on one side of it, and one of them is here.
    is_wide = line.endswith(NUL) or head[len(line) + 1 : len(line) + 2] in (NUL, b"")
    wide = next((code for code in _WIDE if is_wide and _decodes(line, code)), None)
    if wide is None:
        raise _error(f"binary data (a NUL byte), not {wanted}", Place(name, 1), "a CSV, TSV or Parquet file")
    hint = f"iconv -f {wide} -t UTF-8 FILE | ema-smooth ..."
    raise _error(f"{wide[:6]} text, not {wanted}", Place(name, 1), hint)


def _decodes(line: bytes, code: str) -> bool:
    """Whether the first line, cut before the byte of its end, is text in a wide encoding."""
    width = 4 if "32" in code else 2
    try:
        text = line[: len(line) // width * width].decode(code)
    except UnicodeDecodeError:
        return False
    return text.replace("\t", "").replace("\r", "").isprintable() and any(map(str.isascii, text))
