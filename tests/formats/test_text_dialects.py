"""Text as people have it: what is no part of the table passes, the numbers are right, however it is cut."""

from __future__ import annotations

import gzip
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ema_cli.cli import command, make_job
from ema_cli.formats.text.cells import BadCellError, NumberReader
from ema_cli.formats.text.records import Records
from ema_cli.job import Job
from ema_cli.notation import MARKS, Notation, make_notation
from tests.conftest import Workshop
from tests.faults.test_fuzz import outcome


@dataclass(frozen=True)
class Dialect:
    """Options, the lines before a table with its header, its rows, and what becomes of all of them."""

    name: str
    options: str
    head: str
    rows: Sequence[str]
    out_head: str
    out_rows: Sequence[str]


DIALECTS = [
    Dialect(
        "preamble",
        "--skip-lines 2",
        'Station "X\n\nt,v\n',
        ["0,1\n", "1,3\n", "2,\n", "3,4\n"],
        'Station "X\n\nt,v,v_ema\n',
        ["0,1,1.0\n", "1,3,2.0\n", "2,,\n", "3,4,3.0\n"],
    ),
    Dialect(
        "comments",
        "--comment # --comment //",
        "# it's 5\" long, or so\n\nt,v\n",
        ["0,1\n", '# a "quote, opened\n', "1,3\n", "//\n", '"2\n# no comment",4\n', "#\r\n"],
        "# it's 5\" long, or so\n\nt,v,v_ema\n",
        ["0,1,1.0\n", '# a "quote, opened\n', "1,3,2.0\n", "//\n", '"2\n# no comment",4,3.0\n', "#\r\n"],
    ),
    Dialect(
        "comments-beside-loose-quotes",
        "--comment #",
        "t,v\n",
        ['5" pipe,1\n', '# "\n', 'x"y,3\n', '# it"s\n', '"2\n# no",4\n'],
        "t,v,v_ema\n",
        ['5" pipe,1,1.0\n', '# "\n', 'x"y,3,2.0\n', '# it"s\n', '"2\n# no",4,3.0\n'],
    ),
    Dialect(
        "excel",
        "--decimal ,",
        "\ufeffsep=;\r\nt;v\r\n",
        ["0;1,5\r\n", "1;2,5\r\n"],
        "\ufeffsep=;\r\nt;v;v_ema\r\n",
        ["0;1,5;1,5\r\n", "1;2,5;2,0\r\n"],
    ),
    Dialect(
        "trailing-delimiters",
        "--ragged pad",
        "t,v\n",
        ["0,1,\n", "1\n", "2,3,,\n", "\n", "3,4\r\n", '"4",5,,\n'],
        "t,v,,,v_ema\n",
        ["0,1,,,1.0\n", "1,,,,\n", "2,3,,,2.0\n", "\n", "3,4,,,3.0\r\n", '"4",5,,,4.0\n'],
    ),
    Dialect(
        "spaces",
        "-d spaces",
        "  t   v\t w\n",
        [" 0  1 x\n", "1\t3   x  \r\n", "   \n", '2 NA "a b"\n', "3 4 x"],
        "  t   v\t w v_ema\n",
        [" 0  1 x 1.0\n", "1\t3   x   2.0\r\n", "   \n", '2 NA "a b" NaN\n', "3 4 x 3.0"],
    ),
    Dialect(
        "header-again",
        "",
        "t,v\n",
        ["0,1\n", "t,v\n", "1,3\n", "t,v\n", "t,v\n", "2,4\n", "t,v\n"],
        "t,v,v_ema\n",
        ["0,1,1.0\n", "t,v\n", "1,3,2.0\n", "t,v\n", "t,v\n", "2,4,3.0\n", "t,v\n"],
    ),
    Dialect(
        "numbers",
        "--thousands , --strip $ --strip USD --strip % --na -999 --na -",
        "t,v\n",
        ['0,"$1,000"\n', "1,-999.0\n", '2,"3,000.0 USD"\n', "3, - \n", '4,"$ 4,000 %"\n', "5,nAN\n"],
        "t,v,v_ema\n",
        [
            *('0,"$1,000",1000.0\n', "1,-999.0,\n", '2,"3,000.0 USD",2000.0\n', "3, - ,\n"),
            *('4,"$ 4,000 %",3000.0\n', "5,nAN,\n"),
        ],
    ),
    Dialect(
        "no-header",
        "--no-header --skip-lines 1 --comment #",
        "first\n",
        ["0,1\n", "# between\n", "1,3\n"],
        "first\n",
        ["0,1,1.0\n", "# between\n", "1,3,2.0\n"],
    ),
]
EACH = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)


def arguments(dialect: Dialect) -> list[str]:
    column = "2" if "--no-header" in dialect.options else "v"
    return [*dialect.options.split(), "-c", column, "--alpha", "0.5"]


def job_of(dialect: Dialect) -> Job:
    with command.make_context("ema-smooth", ["-", *arguments(dialect)]) as context:
        return make_job(context.params)


def table(dialect: Dialect) -> tuple[bytes, bytes]:
    """The input, and what is to be written."""
    before = dialect.head + "".join(dialect.rows)
    return before.encode(), (dialect.out_head + "".join(dialect.out_rows)).encode()


@EACH
def test_it_passes_and_the_numbers_are_right(dialect: Dialect) -> None:
    data, expected = table(dialect)
    assert outcome(job_of(dialect), data, None)[:2] == (expected, None)


@EACH
def test_cuts_do_not_show(dialect: Dialect) -> None:
    data, expected = table(dialect)
    for seed in range(10):
        assert outcome(job_of(dialect), data, random.Random(seed))[:2] == (expected, None)


@EACH
def test_parts_and_states_are_one_series(dialect: Dialect, shop: Workshop) -> None:
    """Every part has its own preamble, comments and header, of which the first one's are written."""
    whole = table(dialect)[1]
    for cut in range(1, len(dialect.rows)):
        if "pad" in dialect.options:  # the widest record is looked for in each part
            continue
        first, rest = ("".join(rows) for rows in (dialect.rows[:cut], dialect.rows[cut:]))
        shop.write("a.csv", dialect.head + first)
        shop.write("b.csv", dialect.head + rest)
        assert shop.run("a.csv", "b.csv", *arguments(dialect)).out == whole
        one = shop.run("a.csv", *arguments(dialect), "--state", f"{cut}.ema").out
        two = shop.run("b.csv", *arguments(dialect), "--state", f"{cut}.ema").out
        assert one + two.removeprefix(dialect.out_head.encode()) == whole
        break  # one cut: every run is a process


@EACH
def test_folders_and_compressed_inputs(dialect: Dialect, shop: Workshop) -> None:
    data, expected = table(dialect)
    shop.write("x.csv.gz", gzip.compress(data))
    shop.run("x.csv.gz", *arguments(dialect), "--output-dir", "out")
    assert gzip.decompress(shop.read("out/x.csv.gz")) == expected


def test_lines_are_answered_as_they_come(shop: Workshop) -> None:
    process = shop.start("--comment", "#", "--skip-lines", "1", "-c", "v", "--alpha", "0.5")
    assert process.stdin is not None
    assert process.stdout is not None
    for line, answers in [
        (b"preamble\n# note\nt,v\n0,1\n", [b"preamble\n", b"# note\n", b"t,v,v_ema\n", b"0,1,1.0\n"]),
        (b"# between\n1,3\n", [b"# between\n", b"1,3,2.0\n"]),
    ]:
        process.stdin.write(line)
        process.stdin.flush()
        assert [process.stdout.readline() for _ in answers] == answers
    process.communicate()


# -- cells


def cell_of(reader: NumberReader, cells: list[bytes]) -> list[float | None]:
    """Cells as a column is read; None for one that is no number."""
    data = b"".join(cell + b"\n" for cell in cells)
    ends = np.cumsum([len(cell) + 1 for cell in cells]) - 1
    starts = np.append(0, ends[:-1] + 1)
    records = Records(data, starts, ends, ends[:, np.newaxis], len(data))
    values, oddities = reader.read(records)
    odd = {oddity.row for oddity in oddities}
    return [None if row in odd else float(values[row, 0]) for row in range(len(cells))]


PIECES = [
    *"0123456789",
    *"+-.,eE' _%$()",
    "\u00a0",
    "\u202f",
    "\u2019",
    "°C",
    "123",
    "1,234",
    "1.234.567",
    "nan",
    "NA",
]


@given(
    st.lists(st.lists(st.sampled_from(PIECES), max_size=8).map("".join), min_size=1, max_size=12),
    st.sampled_from([None, *MARKS]),
    st.booleans(),
    st.sampled_from([(), ("%",), ("°C", "$")]),
    st.sampled_from([(), ("-999", "x"), ("1,234",)]),
)
def test_a_column_reads_as_its_cells_do(
    texts: list[str], mark: str | None, comma: bool, strip: tuple[str, ...], na: tuple[str, ...]
) -> None:
    if mark == ("," if comma else "."):
        return
    notation = make_notation(decimal="," if comma else ".", thousands=mark, strip=strip, na=na)
    cells = [text.encode() for text in texts]
    expected = [notation.read(cell) for cell in cells]
    try:
        found = [cell_of(NumberReader([0], notation, "missing"), [cell])[0] for cell in cells]
        together = cell_of(NumberReader([0], notation, "missing"), cells)
    except BadCellError:
        pytest.fail("missing was asked for")
    assert len(together) == len(cells)
    for cell, one, other, right in zip(cells, found, together, expected, strict=True):
        if right is None:
            assert one is None, cell
        else:
            assert one is not None, cell
            assert np.array_equal([one], [right], equal_nan=True), cell
            assert other is None or np.array_equal([other], [right], equal_nan=True), cell


@pytest.mark.parametrize(
    ("cell", "mark", "comma", "value"),
    [
        ("1,234", ",", False, 1234.0),
        ("1,234,567.8", ",", False, 1234567.8),
        ("-12,345", ",", False, -12345.0),
        ("1234", ",", False, 1234.0),
        ("1,23", ",", False, None),
        ("1234,567", ",", False, None),
        ("0,123", ",", False, None),
        (",123", ",", False, None),
        ("1,2345", ",", False, None),
        ("1,234.567,890", ",", False, None),
        ("1.234,5", ".", True, 1234.5),
        ("1.5", ".", True, None),
        ("1\u00a0234", " ", False, 1234.0),
        ("1\u202f234,5", " ", True, 1234.5),
        ("1 234", " ", False, 1234.0),
        ("1’234.5", "'", False, 1234.5),
        ("1_000", "_", False, 1000.0),
        ("1_000", ",", False, None),
        ("1e1,000", ",", False, None),
    ],
)
def test_groups_are_of_three(cell: str, mark: str, comma: bool, value: float | None) -> None:
    assert Notation(comma, mark).read(cell.encode()) == value
    assert cell_of(NumberReader([0], Notation(comma, mark), "missing"), [cell.encode(), b"7"]) == [
        value,
        7.0,
    ] or (value is None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--thousands", "."], "is the decimal mark too"),
        (["--thousands", ",", "--decimal", ","], "is the decimal mark too"),
        (["--thousands", "x"], "not a grouping mark"),
        (["--strip", "1."], "may be a part of the number"),
        (["--strip", " "], "may be a part of the number"),
        (["--comment", ""], "not the beginning of a line"),
        (["--ragged", "maybe"], "--ragged"),
        (["--skip-lines", "-1"], "--skip-lines"),
    ],
)
def test_options_that_make_no_sense(options: list[str], said: str, shop: Workshop) -> None:
    result = shop.run("m.csv", "--alpha", "0.5", *options, code=2)
    assert said in result.err


@pytest.mark.parametrize("blank", [b"", b"\t", b" \t\n", b"\n \t \r", b"\r\n\t\r\n ", b"# no\n  "])
@pytest.mark.parametrize("options", [["--skip-lines", "1"], ["--skip-lines", "1", "--no-header"]])
def test_what_holds_no_record_passes(options: list[str], blank: bytes, shop: Workshop) -> None:
    """Lines of spaces are no records of a table that spaces separate, the last one without an end too."""
    result = shop.run(
        "-d", "spaces", "--comment", "#", "--alpha", "0.5", *options, stdin=b"Station\n" + blank
    )
    assert (result.code, result.out) == (0, b"Station\n" + blank)
    assert result.err == "ema-smooth: stdin: empty, passed on as it is\n"


def test_a_wider_record_behind_the_first_thousand_is_an_error(shop: Workshop) -> None:
    shop.write("m.csv", "a,b\n" + "1,2,\n" * 1000 + "1,2,,\n")
    result = shop.run("m.csv", "--alpha", "0.5", "--ragged", "pad", code=1)
    assert "m.csv, line 1002: 4 fields" in result.err


def test_surplus_fields_that_say_something_are_an_error(shop: Workshop) -> None:
    shop.write("m.csv", "a,b\n1,2,\n1,2,3\n")
    result = shop.run("m.csv", "--alpha", "0.5", "--ragged", "pad", code=1)
    assert "m.csv, line 3: 3 fields" in result.err


def test_a_header_of_numbers_comes_again_as_a_row(shop: Workshop) -> None:
    shop.write("m.csv", "k,2020\nk,2020\nk,2022\n")
    assert shop.run("m.csv", "-c", "2", "--alpha", "0.5").out.endswith(b"k,2020,2020.0\nk,2022,2021.0\n")


def test_sentinels_in_parquet(shop: Workshop, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"v": [1, -999, 3], "w": [1.0, -999.0, 3.0]}), tmp_path / "m.parquet")
    out = shop.run("m.parquet", "--alpha", "0.5", "--na", "-999").out
    assert out == b"v,w,v_ema,w_ema\n1,1.0,1.0,1.0\n-999,-999.0,,\n3,3.0,2.0,2.0\n"


def test_weights_before_and_in_what_they_weigh(shop: Workshop) -> None:
    """Columns are read in the order of the table, whatever they are for."""
    shop.write("m.csv", "w,x,y\n1,3,1\n3,5,\n")
    told = shop.run("m.csv", "-c", "x", "--alpha", "0.5", "--weights", "w", "--only")
    assert told.out == b"x_ema\n3.0\n4.5\n"
    told = shop.run("m.csv", "-c", "w", "-c", "y", "--alpha", "0.5", "--weights", "w", "--only")
    assert told.out == b"w_ema,y_ema\n1.0,1.0\n2.5,\n"
