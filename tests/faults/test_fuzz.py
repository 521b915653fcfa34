"""Any bytes at all: never an exception but EmaError, nothing of the input changed, and the same however cut.

`EMA_HYPOTHESIS=long python -m pytest tests/faults/test_fuzz.py` tries 10,000 of each.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ema_cli.average import make_average
from ema_cli.errors import EmaError
from ema_cli.formats.base import Source
from ema_cli.formats.jsonl.source import JsonSource
from ema_cli.formats.text.dialect import input_dialect
from ema_cli.formats.text.source import TextSource
from ema_cli.job import SPACES, Job
from ema_cli.run import pipeline
from tests.conftest import Pieces

EXAMPLES = settings(max_examples=max(300, settings.default.max_examples if settings.default else 0))
NAMES = [
    *(b"a b x_ema t 1 2".split()),
    b"",
    b" a",
    b'"q"',
    b'"a,b"',
    b'"x""y"',
    b'"l\nm"',
    "µ".encode(),
    b"\xff",
    b"a;b",
]
NUMBERS = [
    b"1",
    b"-2.5",
    b"007",
    b"0.10",
    b"1e3",
    b"+3",
    b".5",
    b"5.",
    b"1e-300",
    b"1e300",
    b" 4 ",
    b'"6"',
    b'" 7"',
    b"\t8",
]
COMMAS = [b"1,5", b'"2,5"', b"0,10"]
MISSING = [b"", b"NA", b"NaN", b"null", b'""', b" ", b"n/a", b'"NA"']
TEXTS = [
    b"x",
    b'say "hi"',
    b'"a,b"',
    b'"a;b"',
    b'"l\nm"',
    b'"l\r\nm"',
    b'"q""q"',
    b'"open',
    b"inf",
    b"1_000",
    b"0x1F",
    b"\xe9",
    b"\r",
    b'"x"y',
    b'"a""b',
]
MARKS = [
    b"\n",
    b"\r",
    b"\r\n",
    b'"',
    b",",
    b";",
    b"\t",
    b" ",
    b"\0",
    b"\xef\xbb\xbf",
    b"\xff",
    b"1",
    b"-",
    b"e",
    b".",
    b"NA",
    b"\n\n",
]


def cell(chance: random.Random, delimiter: bytes) -> bytes:
    kind = chance.random()
    if kind < 0.7:
        return chance.choice(NUMBERS)
    if kind < 0.9:
        return chance.choice(MISSING)
    return chance.choice([text for text in TEXTS + COMMAS if delimiter not in text or text.startswith(b'"')])


def table(chance: random.Random, delimiter: bytes) -> bytes:
    """Something like a table, in all the ways in which tables are written."""
    columns, ending = chance.randint(1, 4), chance.choice([b"\n", b"\n", b"\r\n"])
    texts = chance.random() < 0.5  # else numbers and missing cells alone

    def line(cells: list[bytes]) -> bytes:
        end = chance.choice([b"\n", b"\r\n"]) if chance.random() < 0.05 else ending
        return delimiter.join(cells) + end

    out = chance.choice([b"", b"", b"", b"\xef\xbb\xbf", b"\n", b"\r\n\n"])
    out += line([chance.choice(NAMES) for _ in range(columns)])
    for _ in range(chance.randint(0, 12)):
        width = columns if chance.random() < 0.97 else chance.randint(1, 5)
        cells = [cell(chance, delimiter) if texts else chance.choice(NUMBERS + MISSING) for _ in range(width)]
        out += line(cells) + (ending if chance.random() < 0.08 else b"")
    return out if chance.random() < 0.7 else out.removesuffix(ending)


def mutated(chance: random.Random, data: bytes) -> bytes:
    for _ in range(chance.choice([0, 0, 1, 2, 5])):
        at, until = sorted(chance.randint(0, len(data)) for _ in range(2))
        kind = chance.random()
        if kind < 0.5:
            data = data[:at] + chance.choice(MARKS) + data[at:]
        elif kind < 0.7:
            data = data[:at] + data[at + 1 :]
        elif kind < 0.8:
            data = data[:at] + data[until:]
        elif kind < 0.9:
            data = data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
        else:
            data = data[:until] + data[at:until] + data[until:]
    return data


def random_job(chance: random.Random, delimiter: bytes) -> Job:
    average: dict[str, Any] = {"alpha": ["0.5"] if chance.random() < 0.8 else ["0.5", "0.1"]}
    for name in ("adjust", "std", "residual", "fill"):
        if chance.random() < 0.15:
            average[name] = True
    if chance.random() < 0.2:
        average["missing"] = chance.choice(["decay", "error"])
    for name in ("sum", "var", "cov", "double"):
        if chance.random() < 0.08:
            average[name] = True
    weights = chance.choice(["1", "b"]) if chance.random() < 0.1 else None
    return Job(
        make_average(average, weighted=weights is not None),
        weights=weights,
        delimiter=delimiter,
        header=chance.random() < 0.8,
        decimal_comma=chance.random() < 0.1,
        columns=chance.choice([(), (), ("1",), ("2",), ("a", "b")]),
        by=chance.choice([(), (), (), ("1",), ("t",), ("1", "2")]),
        invalid=chance.choice(["error", "missing"]),
        digits=chance.choice([None, None, 3]),
    )


def outcome(job: Job, data: bytes, chance: random.Random | None) -> tuple[bytes, str | None, list[str]]:
    """What a run over these bytes writes, what it complains of, and its smoothed columns."""
    out = io.BytesIO()

    @contextmanager
    def output(*_: Any) -> Iterator[BinaryIO]:
        yield cast(BinaryIO, out)

    def source(job: Job) -> Source:
        if job.source == "jsonl":
            return JsonSource(Pieces(data, chance), "stdin", job.notation)
        return TextSource(Pieces(data, chance), "stdin", input_dialect(job, "-"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "open_output", output)
        patch.setattr(pipeline, "open_inputs", source)
        try:
            names = pipeline.run(job).names
        except EmaError as error:
            return out.getvalue(), error.problem, []  # a hint is made from what has arrived so far
    return out.getvalue(), None, names


# -- the inverse of the command, which shares nothing with it


def split(data: bytes, delimiter: bytes) -> Iterator[tuple[list[bytes], bytes]]:
    """The fields of each record as they stand, and its line ending."""
    at = 0
    while at < len(data):
        fields, start = [], at
        while True:
            if data[at : at + 1] == b'"':
                at += 1
                while data[at : at + 1] and (data[at : at + 1] != b'"' or data[at : at + 2] == b'""'):
                    at += 2 if data[at : at + 1] == b'"' else 1
            while data[at : at + 1] not in (b"", b"\n", delimiter):
                at += 1
            fields.append(data[start:at])
            at += 1
            start = at
            if data[at - 1 : at] != delimiter:
                break
        ending = data[at - 1 : at]
        if fields[-1].endswith(b"\r"):
            fields[-1], ending = fields[-1][:-1], b"\r" + ending
        yield fields, ending


def without_new(output: bytes, added: int, job: Job) -> bytes:
    """The output without the last fields of its records; blank lines have none."""
    delimiter, mark = job.delimiter or b",", b"\xef\xbb\xbf"
    kept = mark if output.startswith(mark) else b""
    output = output.removeprefix(mark)
    header: list[bytes] | None = None if job.header else []
    for fields, ending in split(output, delimiter):
        if fields in ([b""], header):  # no record: blank, or the header once more
            kept += delimiter.join(fields) + ending
            continue
        header = fields[: len(fields) - added] if header is None else header
        kept += delimiter.join(fields[: len(fields) - added]) + ending
    return kept


def fields_added(job: Job, columns: int) -> int:
    return job.average.width(columns)


@EXAMPLES
@given(st.randoms(use_true_random=False))
def test_nothing_changes_and_cuts_do_not_show(chance: random.Random) -> None:
    delimiter = chance.choice([b",", b",", b";", b"\t"])
    data, job = mutated(chance, table(chance, delimiter)), random_job(chance, delimiter)
    out, problem, names = outcome(job, data, None)
    if problem is None:
        added = fields_added(job, len(names))
        assert (without_new(out, added, job) if added else out) == data
    assert outcome(job, data, chance) == (out, problem, names)


@EXAMPLES
@given(st.randoms(use_true_random=False))
def test_what_was_written_before_an_error_is_the_input_too(chance: random.Random) -> None:
    """With one column named, so that the number of new fields is known though the run failed."""
    data = mutated(chance, table(chance, b","))
    job = Job(make_average({"alpha": ["0.5"]}), columns=("1",))
    out, problem, _ = outcome(job, data, None)
    if problem is not None and out:
        assert data.startswith(without_new(out, 1, job))


@EXAMPLES
@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    job = Job(make_average({"alpha": ["0.5"]}))
    out, problem, names = outcome(job, data, None)
    if problem is None:
        assert without_new(out, len(names), job) == data


@EXAMPLES
@given(st.randoms(use_true_random=False))
def test_other_outputs_are_the_same_however_cut(chance: random.Random) -> None:
    delimiter = chance.choice([b",", b";", b"\t"])
    data, job = mutated(chance, table(chance, delimiter)), random_job(chance, delimiter)
    job = replace(job, only=chance.random() < 0.5, target=chance.choice([None, "csv", "tsv"]))
    if chance.random() < 0.3:
        timed = make_average({"halflife": ["5s"], "adjust": chance.random() < 0.5}, timed=True)
        job = replace(
            job, average=timed, time=chance.choice(["a", "t", "1"]), time_unit="s", by=(), weights=None
        )
    assert outcome(job, data, chance) == outcome(job, data, None)


# -- lines that are no records, and numbers as people write them

PREAMBLES = [b"", b"", b"Station X\n", b'one "quote\nand, two\r\n', b"\n\n", b"sep=;\n", b"sep=,\r\n"]
COMMENTED = [b"# so", b'#"', b"#,1,", b"#", b'# "open', b"// a,b", b"//"]
WRITTEN = [
    b'"1,234"',
    b"1.234,5",
    b"5 %",
    b"%7",
    b"-999",
    b"-999.0",
    b"-",
    b"$ 3",
    b"1'234",
    b"12_345",
    b"nAn",
]
WRITTEN += [b"1\xc2\xa0234", b"1\xa0234", b"0,123", b"1,2,3", b"%", b"#1", b"1 234"]


def dialect_table(chance: random.Random, delimiter: bytes) -> bytes:
    """A table with all that may stand between its records."""
    out, header = chance.choice(PREAMBLES), b""
    for line in table(chance, delimiter).split(b"\n"):
        header = header or line
        cells = line.split(delimiter)
        cells[-1:] = [chance.choice(WRITTEN)] if chance.random() < 0.3 else cells[-1:]
        record = delimiter.join(cells) + delimiter * chance.choice([0, 0, 0, 1, 2])
        record = delimiter.join(cells[:-1]) if chance.random() < 0.05 else record
        out += chance.choice([record] * 8 + [header, chance.choice(COMMENTED) + b"\n" + record]) + b"\n"
    return out


def spaced_table(chance: random.Random) -> bytes:
    lines = []
    for _ in range(chance.randint(1, 10)):
        words = [chance.choice([b"1", b"2.5", b"NA", b"x", b'"a b"', b"%3", b"-999"]) for _ in range(2)]
        gaps = [chance.choice([b"", b" ", b"\t ", b"   "]), chance.choice([b" ", b"\t", b"    "])]
        lines.append(gaps[0] + words[0] + gaps[1] + words[1] + chance.choice([b"", b"", b" ", b"\r"]))
    return chance.choice([b"", b"# no\n", b"  \n"]) + b" a   b\n" + b"\n".join(lines)


def dialect_job(chance: random.Random, delimiter: bytes) -> Job:
    comma = chance.random() < 0.3
    return replace(
        random_job(chance, delimiter),
        decimal_comma=comma,
        skip_lines=chance.choice([0, 0, 1, 2]),
        comments=chance.choice([(), ("#",), ("#", "//")]),
        ragged=chance.choice(["error", "pad"]),
        thousands=chance.choice([None, "." if comma else ",", "'", " ", "_"]),
        strip=chance.choice([(), ("%",), ("$", "%")]),
        na=chance.choice([(), ("-999",), ("-", "1,234")]),
        columns=("2",),
        by=(),
    )


NEW = re.compile(rb'(?:inf|[0-9eNa.,+ ;:"\t\r\n-])*')


def lines_of_nothing(data: bytes, job: Job) -> int:
    """Where the table begins: behind the byte order mark, the lines to skip, and Excel's."""
    at = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    excel = re.match(rb'"?sep=[^"\r\n0-9A-Za-z]"?(\r?\n|\Z)', data[at:], re.IGNORECASE)
    lines = data[at:].split(b"\n", job.skip_lines)
    begin = len(data) - len(lines[-1]) if len(lines) > job.skip_lines else len(data)
    return max(begin, at + excel.end() if excel else 0)


def only_added_to(data: bytes, out: bytes, job: Job) -> bool:
    """Whether `out` is `data` with fields spliced in before line ends, and nothing else.

    Records are not told from other lines here: what is between two line ends of the input has to come in
    that order, whole, and what stands behind it before the line end is new.
    """
    at = begin = lines_of_nothing(data, job)
    if data[:begin] != out[:begin]:
        return False
    for line in data[begin:].splitlines(keepends=True):
        text = line.rstrip(b"\r\n")
        found = out.find(text, at)
        # New fields may stand between the last line and its end, and that end before this line. What is found
        # may be part of a new name.
        while found != -1 and not (b"_ema" in out[at:found] or NEW.fullmatch(out[at:found])):
            found = out.find(text, found + 1)
        if found == -1:
            return False
        at = found + len(text)
    return True


@EXAMPLES
@given(st.randoms(use_true_random=False))
def test_dialects(chance: random.Random) -> None:
    """Preambles, comments, headers that come again, ragged records, groups of digits, units, spaces."""
    delimiter = chance.choice([b",", b";", b"\t", SPACES])
    data = spaced_table(chance) if delimiter == SPACES else dialect_table(chance, delimiter)
    data, job = mutated(chance, data), dialect_job(chance, delimiter)
    out, problem, names = outcome(job, data, None)
    if problem is None:
        assert only_added_to(data, out, job)
    assert outcome(job, data, chance) == (out, problem, names)


# -- times as they are written, orders and what looks both ways

STAMPS = [
    *(b"2024-03-31T02:30:00", b"2024-10-27 02:30", b"31.12.2023 23:59", b"2024-01-01", b"20240101", b"45000"),
    *(
        b"1700000000",
        b"1700000000123",
        b"12:30",
        b"24:00",
        b"2024-02-30",
        b"1 Jan 2024",
        b"2024-01-01T00:00:00Z",
    ),
    *(b"2024-10-27 02:30:00.123456789", b"9" * 20, b"-5", b"3.25", b"2024-06-01 12:00 PM"),
]
FORMATS = [None, None, "%d.%m.%Y %H:%M", "%Y%m%d", "%Y%m%d%H", "excel", "%Y-%m-%d %I:%M %p", "%d %b %Y"]


def timed_table(chance: random.Random) -> bytes:
    """Mostly one way of writing times, in an order that mostly holds."""
    usual, out = chance.choice(STAMPS), b"t,u,a,b\n"
    for k in range(chance.randint(0, 12)):
        stamp = (
            usual
            if chance.random() < 0.6
            else chance.choice([*STAMPS, *MISSING, b"%d" % (1_700_000_000 + 7 * k)])
        )
        step = b"%d" % (k if chance.random() < 0.8 else chance.randrange(5))
        out += b",".join([stamp, step, chance.choice(NUMBERS + MISSING), cell(chance, b",")]) + b"\n"
    return out


def timed_job(chance: random.Random) -> Job:
    timed = chance.random() < 0.7
    options: dict[str, Any] = {"adjust": chance.random() < 0.3}
    options |= {"halflife": ["5min"]} if timed else {"alpha": ["0.5"]}
    options |= {"centered": True} if chance.random() < 0.2 else {}
    options |= {"reset_gap": "1h"} if timed and chance.random() < 0.2 else {}
    two = timed and chance.random() < 0.2
    late = chance.choice(["error", "skip"] if "centered" in options else ["error", "skip", "restart"])
    return Job(
        make_average(options, timed=timed),
        inputs=("in.csv",),  # which are not looked at: rows come from `outcome`
        time="t" if timed else None,
        time_of_day="u" if two else None,
        time_unit=chance.choice([None, "s", "ms", "d"]) if timed and not two else None,
        time_format=chance.choice(FORMATS) if timed else None,
        time_zone=chance.choice([None, None, "Europe/Berlin", "UTC"]) if timed else None,
        order=None if timed else chance.choice(["t", "u", None]),
        late=late if timed else "error",
        newest_first=chance.random() < 0.2,
        columns=("a",),
        by=chance.choice([(), (), ("b",)]),
        invalid=chance.choice(["error", "missing"]),
    )


@EXAMPLES
@given(st.randoms(use_true_random=False))
def test_times_and_orders(chance: random.Random) -> None:
    data, job = mutated(chance, timed_table(chance)), timed_job(chance)
    if job.time_unit is not None and job.time_format is not None:
        job = replace(job, time_format=None)
    out, problem, names = outcome(job, data, None)
    if problem is None:
        added = fields_added(job, len(names))
        assert (without_new(out, added, replace(job, delimiter=b",")) if added else out) == data
    assert outcome(job, data, chance) == (out, problem, names)


# -- JSON lines

VALUES = [
    *(b"1", b"-2.5", b"1e300", b"0.10", b"null", b"true", b'"x"', b'"7"', b'" 8 "', b'"NaN"', b"NaN", b"-0"),
    *(
        b"[1,2]",
        b'{"c": 3}',
        b'{"c": {"d": null}}',
        b'"\\u00e9\\ud83d\\ude00"',
        b'"a\\"b"',
        b"1E400",
        b"{}",
        b"[]",
    ),
]
MEMBERS = [b'"a"', b'"b"', b'"a.b"', b'"t"', b'"a_ema"', b'"\\u0061"', b'""', b'"x y"', '"µ"'.encode()]


def json_lines(chance: random.Random) -> bytes:
    out = chance.choice([b"", b"", b"\xef\xbb\xbf", b"\n"])
    for _ in range(chance.randint(0, 12)):
        gap = chance.choice([b"", b"", b" ", b"\t"])
        members = [
            chance.choice(MEMBERS) + gap + b":" + gap + chance.choice(VALUES)
            for _ in range(chance.randint(0, 4))
        ]
        line = (
            b"{"
            + gap
            + (b"," + gap).join([b'"a": ' + chance.choice(NUMBERS[:4] + VALUES[:8]), *members])
            + b"}"
        )
        out += chance.choice([line] * 9 + [b""]) + gap + chance.choice([b"\n"] * 9 + [b"\r\n"])
    return out if chance.random() < 0.7 else out.removesuffix(b"\n")


SPLICED = re.compile(rb',?"[^"]*_ema[^"]*":(?:-?[0-9.e+-]+|null)(?=[,}])')


@EXAMPLES
@given(st.randoms(use_true_random=False))
def test_json_lines(chance: random.Random) -> None:
    """The bytes of a line pass, new members are spliced in before its closing brace."""
    data = mutated(chance, json_lines(chance))
    columns = chance.choice([(), ("a",), ("a.c",), ("a", "b")])
    job = replace(
        random_job(chance, b","), source="jsonl", weights=None, header=True, delimiter=None, columns=columns
    )
    job = replace(job, average=make_average({"alpha": ["0.5"], "missing": job.average.missing}))
    job = replace(job, by=chance.choice([(), ("t",)]), decimal_comma=False)
    out, problem, names = outcome(job, data, None)
    if problem is None and b"_ema" not in data:
        assert SPLICED.sub(b"", out) == data
    assert outcome(job, data, chance) == (out, problem, names)


HEADS = [b"", b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"PAR1", b"\xff\xfe", b"PK\x03\x04"]


def columnar(chance_bytes: bytes) -> pa.Table:
    numbers = [float(byte) if byte % 5 else None for byte in chance_bytes[:40]]
    return pa.table({"a": numbers, "t": [bytes([byte]) for byte in chance_bytes[:40]]})


def arrow_file(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, columnar(data).schema) as writer:
        writer.write_table(columnar(data), max_chunksize=7)
    return bytes(sink.getvalue())


def arrow_stream(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, columnar(data).schema) as writer:
        writer.write_table(columnar(data), max_chunksize=7)
    return bytes(sink.getvalue())


def parquet(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(columnar(data), sink, row_group_size=7)
    return bytes(sink.getvalue())


@settings(
    max_examples=EXAMPLES.max_examples // 2, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from(HEADS), st.binary(max_size=100), st.randoms(use_true_random=False))
def test_any_file(tmp_path: Path, head: bytes, body: bytes, chance: random.Random) -> None:
    """By way of magic bytes, decompression and all; a damaged file of each kind, too."""
    kind = chance.choice(
        [None, gzip.compress, bz2.compress, lzma.compress, arrow_file, arrow_stream, parquet]
    )
    data = head + body if kind is None else mutated(chance, kind(table(chance, b",")))
    name = chance.choice(["in.csv", "in.txt", "in.parquet", "in.csv.gz", "in.arrow", "in.jsonl"])
    (tmp_path / name).write_bytes(data)
    job = Job(make_average({"alpha": ["0.5"]}), (str(tmp_path / name),), "/dev/null")
    with suppress(EmaError):
        pipeline.run(job)
