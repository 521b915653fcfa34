"""Input that is odd on purpose or by accident: a clear error or the right answer, in bounded memory."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa
import pytest

from tests.conftest import Workshop

MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Measured:
    """A run that was fed from here: exit code, the end of its stdout, stderr, MB at its peak, CPU seconds."""

    code: int
    out: bytes
    err: str
    peak: float
    seconds: float


# A small process to start it from, for a process begins with its parent's peak.
LAUNCHER = """
import os, sys
pid = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
_, status, used = os.wait4(pid, 0)
with open(sys.argv[1], "w") as file:
    file.write(f"{used.ru_maxrss} {used.ru_utime + used.ru_stime}")
sys.exit(os.waitstatus_to_exitcode(status) & 255)
"""


def feed(shop: Workshop, pieces: Iterable[bytes], *arguments: str) -> Measured:
    """Run ema-smooth over these pieces on stdin as long as it wants them."""
    out, err = shop.folder / "measured.out", shop.folder / "measured.err"
    command = [sys.executable, "-S", "-c", LAUNCHER, "measured.peak", *shop.command(*arguments)]
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            command, bufsize=0, stdin=subprocess.PIPE, stdout=stdout, stderr=stderr,
            cwd=shop.folder, env=shop.environment,
        )  # fmt: skip
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            for piece in pieces:
                process.stdin.write(piece)
        process.stdin.close()
        process.wait(120)
    with out.open("rb") as file:
        file.seek(max(0, out.stat().st_size - 100))
        end = file.read()
    peak, seconds = map(float, shop.read("measured.peak").split())
    return Measured(process.returncode, end, err.read_text(), peak / 1024, seconds)


@pytest.fixture(scope="module")
def plain_peak(tmp_path_factory: pytest.TempPathFactory) -> float:
    """What a run takes that has nothing to do, in MB."""
    return feed(Workshop(tmp_path_factory.mktemp("plain")), [b"v\n1\n"], "--alpha", "0.1").peak


# -- too much of something


@pytest.mark.parametrize(
    "start", [b"v\n", b"", b'v\n"', b"a,b\n1,"], ids=["row", "header", "quoted", "field"]
)
def test_a_line_of_a_gigabyte(shop: Workshop, plain_peak: float, start: bytes) -> None:
    piece = b"1" * MEGABYTE if start != b'v\n"' else (b"1\n" * (MEGABYTE // 2))
    result = feed(shop, [start, *(piece for _ in range(1024))], "--alpha", "0.1")
    assert result.code == 1
    assert "a record longer than 64 MiB" in result.err
    assert result.peak < plain_peak + 300


def test_blank_lines_without_end(shop: Workshop, plain_peak: float) -> None:
    result = feed(shop, [b"\n" * MEGABYTE for _ in range(100)], "--alpha", "0.1")
    assert result.code == 1
    assert result.peak < plain_peak + 300
    rows = [b"a,b\n1,2\n", *(b"\n" * MEGABYTE for _ in range(20)), b"3,4\n"]
    result = feed(shop, rows, "--alpha", "0.1", "-c", "a")
    assert result.code == 0
    assert result.out.endswith(b"\n\n3,4,1.2\n")
    assert result.peak < plain_peak + 150


def bomb(kind: str, text: bytes, times: int) -> bytes:
    """The text so many times over, compressed."""
    if kind == "zstd":
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as out:
            for _ in range(times):
                out.write(text)
        return bytes(sink.getvalue())
    member = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}[kind]
    return member(text) * times  # members follow each other


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "zstd"])
def test_decompression_bombs(shop: Workshop, plain_peak: float, kind: str) -> None:
    """As little memory as for any text, be it a table that is much larger than its file or no text at all."""
    line = b"1," + b"x" * 10_000 + b"\n"
    table = bomb(kind, b"v,w\n", 1) + bomb(kind, line * 800, 15)  # 120 MB
    assert len(table) < MEGABYTE
    result = feed(shop, [table], "--alpha", "0.1", "-c", "v", "--only", "-o", "/dev/null")
    assert result.code == 0
    assert result.peak < plain_peak + 150
    result = feed(shop, [bomb(kind, bytes(8 * MEGABYTE), 12)], "--alpha", "0.1")
    assert result.code == 1
    assert result.peak < plain_peak + 300


def test_an_xz_file_that_asks_for_gigabytes(shop: Workshop) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 1, "dict_size": 1 << 30}]
    # The head says how large a window the reader is to keep; its checksum says so too.
    compressor = lzma.LZMACompressor(lzma.FORMAT_XZ, filters=[{**filters[0], "dict_size": 512 << 20}])
    result = feed(shop, [compressor.compress(b"v\n1\n") + compressor.flush()], "--alpha", "0.1")
    assert result.code == 1
    assert "xz data" in result.err


def test_a_hundred_thousand_columns(shop: Workshop, plain_peak: float) -> None:
    count = 100_000
    header = b",".join(b"c%d" % k for k in range(count)) + b"\n"
    rows = [b",".join([b"%d" % k] * count) + b"\n" for k in range(3)]
    result = feed(shop, [header, *rows], "--alpha", "0.5", "-o", "all.csv")
    assert result.code == 0, result.err
    assert result.seconds < 30  # of CPU: nothing grows with the square of the columns
    assert result.peak < plain_peak + 500
    out = shop.read("all.csv").split(b"\n")
    assert out[3] == rows[2][:-1] + b",1.25" * count
    result = feed(shop, [header, *rows], "--alpha", "0.5", "-c", "c99999")
    assert result.out.endswith(b",2,2,1.25\n")
    missing = feed(shop, [header, *rows], "--alpha", "0.5", "-c", "c100000")
    assert missing.code == 2
    assert len(missing.err) < 1000


@pytest.mark.parametrize(
    "names", [[b"n" * 10_000_000, b"v"], [b"%07d" % k for k in range(1_250_000)]], ids=["one", "many"]
)
def test_a_header_of_ten_megabytes(shop: Workshop, plain_peak: float, names: list[bytes]) -> None:
    header = b",".join(names)
    row = b",".join([b"7"] * len(names))
    result = feed(shop, [header, b"\n", row, b"\n"], "--alpha", "0.5", "-c", str(len(names)), "-o", "out.csv")
    assert result.code == 0, result.err
    assert shop.read("out.csv") == header + b"," + names[-1] + b"_ema\n" + row + b",7.0\n"
    assert result.peak < plain_peak + 800
    error = feed(shop, [header, b"\n", row[:-1], b"x\n"], "--alpha", "0.5", "-c", str(len(names)))
    assert error.code == 1
    assert len(error.err) < 1000


# -- bytes that are no text, or another


def test_nul_bytes(shop: Workshop) -> None:
    result = shop.run("--alpha", "0.5", stdin=b"a\0,b\n1,2\n", code=1)
    assert "NUL" in result.err
    assert shop.run("--alpha", "0.5", "-c", "a", stdin=b"a,b\n1,x\0y\n").out == b"a,b,a_ema\n1,x\0y,1.0\n"
    result = shop.run("--alpha", "0.5", "-c", "a", stdin=b"a,b\n1\0,x\n", code=1)
    assert "line 2, column 'a': not a number" in result.err
    result = shop.run("--alpha", "0.5", "-c", "a", "--invalid", "missing", stdin=b"a,b\n1\0,x\n2,y\n")
    assert result.out == b"a,b,a_ema\n1\0,x,\n2,y,2.0\n"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_wide_encodings_are_refused_in_words(shop: Workshop, encoding: str) -> None:
    shop.write("in.csv", "v,w\n1,2\n".encode(encoding))
    result = shop.run("in.csv", "--alpha", "0.5", code=1)
    assert result.out == b""
    assert "in.csv" in result.err
    assert "UTF-16" in result.err or "UTF-32" in result.err
    assert "iconv" in result.err


def test_latin_1_and_broken_utf_8_pass_through(shop: Workshop) -> None:
    for text in ("température,ville\n1,Orléans\n".encode("latin-1"), b"\xff\xfe\xfd,\xc3(\n1,\xed\xa0\x80\n"):
        if text.startswith(b"\xff\xfe"):
            text = b"x" + text  # else it would be UTF-16's mark  # noqa: PLW2901
        header, row, _ = text.split(b"\n")
        name = header.split(b",")[0]
        expected = header + b"," + name + b"_ema\n" + row + b",1.0\n"
        assert shop.run("--alpha", "0.5", stdin=text).out == expected
        assert shop.run("--alpha", "0.5", "-c", os.fsdecode(name), stdin=text).out == expected
        keyed = shop.run("--alpha", "0.5", "-c", "1", "--by", os.fsdecode(header.split(b",")[1]), stdin=text)
        assert keyed.out == expected
        refused = shop.run("--alpha", "0.5", "--to", "parquet", "-o", "x.parquet", stdin=text, code=1)
        assert "UTF-8" in refused.err
        assert shop.names() == []


def test_a_bad_name_is_shown_as_it_can_be(shop: Workshop) -> None:
    result = shop.run("--alpha", "0.5", "-c", "x", stdin=b"a\xffb,\x1b[31m\n1,2\n", code=2)
    assert "no column 'x'" in result.err


@pytest.mark.parametrize("ending", [b"\r", b"\r\r\n", b"\n\r"])
def test_odd_line_endings(shop: Workshop, ending: bytes) -> None:
    result = shop.run("--alpha", "0.5", "-c", "1", stdin=b"a,b" + ending + b"1,2" + ending, code=None)
    assert result.code in (0, 1)


@pytest.mark.parametrize("name", ["-rf", "--help", "a b", "ü", "%s", "a\nb", "$(x)", "*"])
def test_odd_file_names(shop: Workshop, name: str) -> None:
    shop.write(name, "v\n1\n")
    shop.run("--alpha", "0.5", "-o", f"out{name}", "--", name)
    assert shop.read(f"out{name}") == b"v,v_ema\n1,1.0\n"


def test_memory_does_not_grow_with_the_input(shop: Workshop) -> None:
    block = "".join(f"{k},{k * 0.37:.3f},{k % 7}\n" for k in range(40_000)).encode()

    def peak(blocks: int) -> float:
        return feed(
            shop, [b"t,x,key\n", *[block] * blocks], "-c", "x", "--alpha", "0.1", "-o", "/dev/null"
        ).peak

    # The inputs differ by 150 MB; 1.5 GB took 111 MB where 28 MB took 106.
    assert peak(240) < peak(24) + 35


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("options", [[], ["--from", "jsonl"]])
def test_wide_encodings_are_told_alike_however_cut(shop: Workshop, encoding: str, options: list[str]) -> None:
    """The newline's NUL may arrive after its other byte; here the letter before it has none."""
    data = "v,я\n1,2\n".encode(encoding)
    whole = shop.run("--alpha", "0.5", *options, stdin=data, code=1)
    assert f"UTF-{encoding[4:6]}" in whole.err
    for cut in range(data.index(b"\n"), data.index(b"\n") + 3):
        result = feed(shop, [data[:cut], data[cut:]], "--alpha", "0.5", *options)
        assert (result.code, result.err) == (1, whole.err)
