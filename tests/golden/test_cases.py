"""Golden cases: every file in `cases/` is a command, the files it finds and what it must print.

To add one, write a file like those there; `-- parquet NAME --` has a table's columns as JSON.
`EMA_CASES=write python -m pytest tests/golden` fills in what is printed now; read the difference before you
commit it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import Workshop

CASES = sorted((Path(__file__).parent / "cases").glob("*.txt"))
SECTION = re.compile(r"^-- (.+) --\n", re.MULTILINE)


def sections(text: str) -> dict[str, str]:
    """The parts of a case by name; what comes before the first is its description."""
    parts = SECTION.split(text)
    return {"": parts[0]} | dict(zip(parts[1::2], parts[2::2], strict=True))


def unescape(text: str) -> bytes:
    """A file's text: `\\r`, `\\t`, `\\xNN` stand for those bytes, `\\c` at the end for a missing newline."""
    raw = text.encode().replace(b"\\c\n", b"")
    return re.sub(
        rb"\\(r|t|x..)",
        lambda m: {b"r": b"\r", b"t": b"\t"}.get(m[1]) or bytes.fromhex(m[1][1:].decode()),
        raw,
    )


def escape(data: bytes) -> str:
    text = re.sub(
        rb"[\r\t\x80-\xff]", lambda m: {b"\r": b"\\r", b"\t": b"\\t"}.get(m[0], b"\\x%02x" % m[0][0]), data
    )
    return text.decode() + ("" if text.endswith(b"\n") or not text else "\\c\n")


@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
def test_case(path: Path, shop: Workshop) -> None:
    case = sections(path.read_text())
    for name, text in case.items():
        if name.startswith("file "):
            shop.write(name.removeprefix("file "), unescape(text))
        if name.startswith("parquet "):  # columns as JSON
            pq.write_table(pa.table(json.loads(text)), shop.folder / name.removeprefix("parquet "))
    program, *arguments = shlex.split(case["command"])
    assert program == "ema-smooth"
    result = shop.run(*arguments, stdin=unescape(case.get("stdin", "")), code=None)
    found = {"stdout": escape(result.out), "stderr": result.err, "exit": f"{result.code}\n"}
    if os.environ.get("EMA_CASES") == "write":
        inputs = {name: text for name, text in case.items() if name and name not in found}
        parts = [case[""]] + [f"-- {name} --\n{text}" for name, text in (inputs | found).items()]
        path.write_text("".join(parts))
    else:
        assert found == {name: case[name] for name in found} | {"stderr": shop.spelled(case["stderr"])}
