"""JSON lines in and out: the bytes of each line pass, new members are spliced in, however it is cut."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ema_cli.average import make_average
from ema_cli.errors import EmaError
from ema_cli.formats.base import Source
from ema_cli.formats.jsonl import source as jsonl
from ema_cli.formats.jsonl.lines import BadLineError, index_lines, parse
from ema_cli.formats.jsonl.source import JsonSource
from ema_cli.job import Job
from ema_cli.run import pipeline
from ema_cli.trends import Trends
from tests.conftest import Pieces, Workshop

LOG = b"""{"step": 1, "loss": 4.0, "m": {"x": 1}, "k": "a"}
{"step": 2, "loss": 2.0, "eval_loss": 1.0, "k": "b"}
{"step": 3, "loss": "3.0", "m": {"x": 3}, "k": "a"}
"""
HALF = make_average({"alpha": ["0.5"]})


def outcome(job: Job, data: bytes, chance: random.Random | None = None) -> tuple[bytes, str | None]:
    """What a run over these bytes writes, and what it complains of or notes."""
    out = io.BytesIO()

    @contextmanager
    def output(*_: Any) -> Iterator[BinaryIO]:
        yield cast(BinaryIO, out)

    def source(job: Job) -> Source:
        return JsonSource(Pieces(data, chance), "stdin", job.notation)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "open_output", output)
        patch.setattr(pipeline, "open_inputs", source)
        try:
            notes = pipeline.run(replace(job, source="jsonl")).notes
        except EmaError as error:
            return out.getvalue(), str(error)
    return out.getvalue(), "\n".join(notes)


NAMES = st.sampled_from(["v", "w", "k", "t", "é", 'q"', "a.b", "v_ema x", ""])
CELLS = st.one_of(
    st.none(), st.integers(-9, 9), st.floats(-9, 9), st.sampled_from(["1.5", " 2 ", "NA", "x", "", "a}\n{"]),
    st.booleans(), st.just({"b": 2.5, "v": None}), st.just([{"v": 1}]), st.just(float("nan")),
)  # fmt: skip
OBJECTS = st.dictionaries(NAMES, CELLS, max_size=4)
SPACES = st.sampled_from([b"", b"", b" ", b"\t "])


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """Lines of JSON as people and programs write them."""
    out = draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf"]))
    for record in draw(st.lists(OBJECTS, max_size=12)):
        separators = draw(st.sampled_from([None, (",", ":"), (" , ", " : ")]))
        text = json.dumps(record, ensure_ascii=draw(st.booleans()), separators=separators).encode()
        inside = draw(SPACES)
        text = text[:-1] + inside + b"}"
        out += (
            draw(SPACES)
            + text
            + draw(SPACES)
            + draw(st.sampled_from([b"\n", b"\n", b"\r\n", b"\n\n", b"\n \n"]))
        )
    return out if draw(st.booleans()) else out.removesuffix(b"\n")


def records_of(data: bytes) -> list[tuple[int, dict[str, Any]]]:
    """Where the closing brace of each object is, and what it says, by Python's own reader."""
    found, at = [], 0
    for line in data.split(b"\n"):
        text = line.removeprefix(b"\xef\xbb\xbf") if not at else line
        if text.strip(b" \t\r"):
            found.append((at + line.rstrip(b" \t\r").__len__() - 1, json.loads(text)))
        at += len(line) + 1
    return found


def number(cell: Any) -> float:
    if isinstance(cell, str):
        return {"1.5": 1.5, " 2 ": 2.0}.get(cell, np.nan)
    return np.nan if cell is None or isinstance(cell, bool | dict | list) else float(cell)


def expected(data: bytes, name: str) -> bytes:
    """The output for one member by a plain loop: each line's bytes, and the new member before its brace."""
    records = records_of(data)
    values = np.array([[number(record.get(name))] for _, record in records]).reshape(-1, 1)
    trend = Trends(HALF, 1).update(values)[:, 0].tolist() if len(records) else []
    out, at = b"", 0
    for (brace, record), y in zip(records, trend, strict=True):
        text = orjson.dumps(y).decode()  # null where blank; 2.5e-05 has another spelling than in Python
        out += data[at:brace] + b"," * bool(record) + f"{json.dumps(name + '_ema')}:{text}".encode()
        at = brace
    return out + data[at:]


@settings(deadline=None, max_examples=max(150, settings.default.max_examples if settings.default else 0))
@given(documents(), st.randoms(use_true_random=False))
def test_lines_pass_and_cuts_do_not_show(data: bytes, chance: random.Random) -> None:
    for columns in (("v",), (), ("v", "w"), ("a.b",)):
        job = Job(HALF, columns=columns, invalid=chance.choice(["error", "missing"]))
        job = replace(job, by=chance.choice([(), (), ("k",)]), only=chance.random() < 0.2)
        job = replace(job, target=chance.choice([None, None, None, "csv"]))
        whole = outcome(job, data)
        assert outcome(job, data, chance) == whole
    out, said = outcome(Job(HALF, columns=("v",), invalid="missing"), data)
    if not said:
        assert out == expected(data, "v")


FRAGMENTS = [
    *(
        b'{"a":1}',
        b'{"a":1},{"b":2}',
        b'{"a":[{"x":1}',
        b'{"y":2}]}',
        b'{"a":1',
        b'"b":2}',
        b"[1]",
        b"",
        b"null",
    ),
    *(
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b'{"a":NaN}',
        b'{"a":1e999}',
        b"}",
        b"{",
        b'{"a":{"b":1}}',
        b",null,",
    ),
]


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=6))
def test_a_line_is_an_object_whatever_its_neighbours_are(lines: list[bytes]) -> None:
    """Lines are parsed many at once: that gives what each gives by itself."""
    filled = list(filter(None, lines))
    alone = [_parsed([text]) for text in filled]
    bad = next((k for k, found in enumerate(alone) if isinstance(found, int)), None)
    right = bad if bad is not None else str([record for found in alone for record in found])
    found = _parsed(lines)
    assert (found if isinstance(found, int) else str(found)) == right


def _parsed(lines: list[bytes]) -> Any:
    """The objects, or the row of the first line that is none."""
    try:
        return parse(index_lines(b"\n".join(lines), True))
    except BadLineError as error:
        return error.row


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_files_pipes_and_compressed(shop: Workshop, pack: Any) -> None:
    shop.write("in.jsonl", pack(LOG))
    right = LOG.replace(b'"a"}', b'"a","loss_ema":Y}').replace(b'"b"}', b'"b","loss_ema":3.0}')
    right = right.replace(b"Y", b"4.0", 1).replace(b"Y", b"3.0", 1)
    assert shop.run("in.jsonl", "-c", "loss", "--alpha", "0.5").out == right
    assert shop.run("--from", "jsonl", "-c", "loss", "--alpha", "0.5", stdin=pack(LOG)).out == right
    shop.run("in.jsonl", "-c", "loss", "--alpha", "0.5", "-o", "out.ndjson.gz")
    assert gzip.decompress(shop.read("out.ndjson.gz")) == right


def test_a_live_pipe_is_answered_line_by_line(shop: Workshop) -> None:
    with shop.start("--from", "jsonl", "--alpha", "0.5") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line, answer in (
            (b'{"x":1}', b'{"x":1,"x_ema":1.0}'),
            (b'{"x":2,"y":5}', b'{"x":2,"y":5,"x_ema":1.5}'),
        ):
            process.stdin.write(line + b"\n")
            process.stdin.flush()
            assert process.stdout.readline() == answer + b"\n"  # before the next line is sent
        process.stdin.close()
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert b"'y' (-c y)" in process.stderr.read()


def test_nested_members_keys_times_and_a_state(shop: Workshop) -> None:
    rows = [{"at": {"t": k + k // 3}, "s": {"id": "ab"[k % 2]}, "v": k * 1.5} for k in range(12)]
    lines = [json.dumps(row).encode() + b"\n" for row in rows]
    options = [
        "--from",
        "jsonl",
        "-c",
        "v",
        "--by",
        "s.id",
        "--time",
        "at.t",
        "--time-unit",
        "s",
        "--halflife",
        "2s",
    ]
    whole = shop.run(*options, stdin=b"".join(lines)).out
    parts = [
        shop.run(*options, "--state", "st", stdin=b"".join(lines[a:b])).out
        for a, b in ((0, 5), (5, 6), (6, 12))
    ]
    assert b"".join(parts) == whole
    assert [json.loads(line)["v"] for line in whole.splitlines()] == [row["v"] for row in rows]
    shop.write("in.csv", "t,id,v\n" + "".join(f"{r['at']['t']},{r['s']['id']},{r['v']}\n" for r in rows))  # type: ignore[index]
    table = shop.run(
        "in.csv", "-c", "v", "--by", "id", "--time", "t", "--time-unit", "s", "--halflife", "2s"
    ).out
    assert [line.split(b",")[-1] for line in table.splitlines()[1:]] == [
        json.dumps(json.loads(line)["v_ema"]).encode() for line in whole.splitlines()
    ]


def test_other_formats_get_what_was_asked_for(shop: Workshop) -> None:
    shop.write("in.jsonl", LOG)
    text = shop.run("in.jsonl", "-c", "loss", "-c", "m.x", "--by", "k", "--alpha", "0.5", "--to", "csv").out
    assert text == b"loss,k,m.x,loss_ema,m.x_ema\n4.0,a,1.0,4.0,1.0\n2.0,b,,2.0,\n3.0,a,3.0,3.5,2.0\n"
    only = shop.run("in.jsonl", "-c", "loss", "--by", "k", "--alpha", "0.5", "--only").out
    assert only == b'{"k":"a","loss_ema":4.0}\n{"k":"b","loss_ema":2.0}\n{"k":"a","loss_ema":3.5}\n'
    shop.run("in.jsonl", "-c", "loss", "--by", "k", "--alpha", "0.5", "-o", "o.parquet")
    assert pq.read_table(shop.folder / "o.parquet").to_pydict() == {
        "loss": [4.0, 2.0, 3.0], "k": ["a", "b", "a"], "loss_ema": [4.0, 2.0, 3.5],
    }  # fmt: skip
    pq.write_table(pq.read_table(shop.folder / "o.parquet").select(["loss"]), shop.folder / "p.parquet")
    back = shop.run("p.parquet", "-c", "loss", "--alpha", "1", "--to", "jsonl", "--only").out
    assert back == b'{"loss_ema":4.0}\n{"loss_ema":2.0}\n{"loss_ema":3.0}\n'
    many = shop.run("in.jsonl", "--output-dir", "out", "-c", "loss", "--alpha", "0.5", "--digits", "2")
    assert "1 of 1 file" in many.err
    assert shop.read("out/in.jsonl").splitlines()[1].endswith(b'"k": "b","loss_ema":3.00}')


def test_from_a_table_every_value_is_exact(shop: Workshop) -> None:
    table = 'v,s,n\n1.50,"a ""b""\n",007\n,é,\n'
    out = shop.run("--alpha", "1", "-c", "v", "--to", "jsonl", stdin=table.encode()).out.decode()
    assert out.splitlines() == [
        r'{"v":1.5,"s":"a \"b\"\n","n":"007","v_ema":1.5}',
        '{"v":null,"s":"é","n":"","v_ema":null}',
    ]


def test_parts_follow_each_other(shop: Workshop) -> None:
    """One without a last newline, one with a mark, one that has other members."""
    shop.write("a.jsonl", b'\xef\xbb\xbf{"v":1}')
    shop.write("b.jsonl", b'\xef\xbb\xbf{"w":9}\n{"v":3}\n')
    out = shop.run("a.jsonl", "b.jsonl", "-c", "v", "--alpha", "0.5").out
    assert out == b'\xef\xbb\xbf{"v":1,"v_ema":1.0}\n{"w":9,"v_ema":null}\n{"v":3,"v_ema":2.0}\n'
    assert "no column 'x'" in shop.run("a.jsonl", "b.jsonl", "-c", "x", "--alpha", "0.5", code=2).err
    assert shop.run("a.jsonl", "b.jsonl", "-c", "w", "--alpha", "0.5").out.count(b"\n") == 3


@pytest.mark.parametrize(("data", "words"), [
    (b'[{"a":1}]', "jq -c '.[]'"), (b'[\n{"a":1}\n]', "a JSON array"), (b'{\n  "a": 1\n}\n', "jq -c . |"),
    (b'{"best": null,\n "log_history": [\n  {"loss": 1}]}', "jq -c '.log_history[]'"),
    (b"<!DOCTYPE html>\n<html>", "HTML"), (b"a,b\n1,2\n", "--from csv"), (b'{"a":1}\n{"a":\n', "line 2"),
    (b'{"a":1}\n7\n', "a number"), (b'{"a":1}\n{"a":tru}\n', "line 2"), (b'{"a":1,"a_ema":2}\n', "already"),
])  # fmt: skip
def test_what_is_no_json_lines_says_so(shop: Workshop, data: bytes, words: str) -> None:
    assert words in shop.run("--from", "jsonl", "--alpha", "0.5", stdin=data, code=None).err


def test_auto_and_newest_first_read_the_input_again(shop: Workshop) -> None:
    """With members that the first object does not have, which have to be found again."""
    rows = [{"n": k, **({"m": {"v": (k * 7) % 5}} if k else {})} for k in range(9)]
    lines = [json.dumps(row).encode() + b"\n" for row in rows]
    shop.write("in.jsonl", b"".join(lines))
    done = shop.run("in.jsonl", "-c", "m.v", "--alpha", "auto")
    assert "column m.v: --alpha" in done.err
    there = shop.run("-c", "m.v", "--alpha", "0.5", "--from", "jsonl", stdin=b"".join(lines[::-1])).out
    back = shop.run("in.jsonl", "-c", "m.v", "--alpha", "0.5", "--newest-first").out
    assert back.splitlines() == there.splitlines()[::-1]


def test_errors_come_after_the_lines_above(shop: Workshop) -> None:
    done = shop.run("--from", "jsonl", "--alpha", "0.5", stdin=b'\n{"a":1}\n{"a":"x"}\n', code=1)
    assert done.out == b'\n{"a":1,"a_ema":1.0}\n'
    assert "stdin, line 3, column 'a': not a number: \"x\"" in done.err
    done = shop.run("--from", "jsonl", "--alpha", "0.5", stdin=b'{"a":1}\n{"a":2},{"a":3}\n', code=1)
    assert done.out == b'{"a":1,"a_ema":1.0}\n'


def test_a_misspelt_member_is_an_error_and_writes_no_file(shop: Workshop) -> None:
    shop.write("in.jsonl", LOG)
    done = shop.run("in.jsonl", "-c", "los", "--alpha", "0.5", "-o", "o.jsonl", code=2)
    assert "no column 'los'; there are: step, loss, m, k" in done.err
    assert "try: -c loss" in done.err
    done = shop.run("in.jsonl", "-c", "loss", "--weights", "stepp", "--alpha", "0.5", "-o", "o.jsonl", code=2)
    assert "try: --weights step" in done.err
    assert shop.names() == ["in.jsonl"]


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=120), st.randoms(use_true_random=False))
def test_any_bytes(data: bytes, chance: random.Random) -> None:
    for begin in (b"", b'{"a":1}\n'):
        job = Job(HALF, columns=chance.choice([(), ("a",)]))
        assert outcome(job, begin + data) == outcome(job, begin + data, chance)


def test_wide_blocks_are_cut_into_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"".join(b'{"v":%d}\n' % k for k in range(1000))
    whole = outcome(Job(HALF), data)
    monkeypatch.setattr(jsonl, "BATCH_ROWS", 7)
    assert outcome(Job(HALF), data) == whole
    assert tmp_path.is_dir()
