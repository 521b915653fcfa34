"""Compressed files that are packed piece by piece: the same bytes however they are written."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import threading
import zlib
from collections.abc import Callable

import pyarrow as pa
import pytest

from ema_cli.io import packed
from ema_cli.io.packed import PACKINGS, PackedFile, Packing
from ema_cli.process import threads_for, usable_processors

RANDOM = random.Random(1)
TEXT = b"".join(b"%d,%.3f,%.9f\n" % (k, RANDOM.random(), RANDOM.random()) for k in range(250_000))
# Of tests in which it does not matter how long a piece is.
PIECE = 1 << 16
# One stream as the library makes it, and what unpacks one or more.
LIBRARY: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    "gzip": (lambda text: gzip.compress(text, packed.GZIP_LEVEL), gzip.decompress),
    "bzip2": (bz2.compress, bz2.decompress),
    "xz": (lzma.compress, lzma.decompress),
    "zstd": (
        lambda text: bytes(pa.compress(text, "zstd", asbytes=True)),
        lambda data: bytes(pa.CompressedInputStream(pa.BufferReader(data), "zstd").read()),
    ),
}
KINDS = pytest.mark.parametrize("kind", LIBRARY)


def in_short_pieces(kind: str) -> Packing:
    packing = PACKINGS[kind]()
    packing.piece = PIECE
    return packing


def written(packing: Packing, text: bytes, step: int, threads: int) -> bytes:
    out = io.BytesIO()
    with PackedFile(out, packing, threads) as file:
        for begin in range(0, len(text), step):
            assert file.write(memoryview(text)[begin : begin + step]) == len(text[begin : begin + step])
    return out.getvalue()


@KINDS
def test_the_same_bytes_however_it_is_written(kind: str) -> None:
    ways = [(54_321, 1), (PIECE, 2), (len(TEXT), 5)]
    (found,) = {written(in_short_pieces(kind), TEXT[: 9 * PIECE], *how) for how in ways}
    assert LIBRARY[kind][1](found) == TEXT[: 9 * PIECE]


@KINDS
def test_hardly_larger_than_one_stream(kind: str) -> None:
    text = TEXT[: PACKINGS[kind]().piece * 5 // 4]
    pack, unpack = LIBRARY[kind]
    found = written(PACKINGS[kind](), text, PIECE, 2)
    assert unpack(found) == text
    assert len(found) < 1.01 * len(pack(text))


def test_gzip_is_one_member() -> None:
    reader = zlib.decompressobj(16 + zlib.MAX_WBITS)
    assert reader.decompress(written(PACKINGS["gzip"](), TEXT, PIECE, 2)) == TEXT
    assert (reader.eof, reader.unused_data) == (True, b"")


@KINDS
@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_any_length(kind: str, beyond: int) -> None:
    for text in (TEXT[: PIECE + beyond], TEXT[: 1 + beyond]):
        assert LIBRARY[kind][1](written(in_short_pieces(kind), text, PIECE // 3, 2)) == text


@KINDS
def test_pieces_are_packed_side_by_side(kind: str) -> None:
    packing, both = in_short_pieces(kind), threading.Barrier(2, timeout=60)
    call = packing.call

    def meet(piece: bytes, *, last: bool) -> Callable[[], bytes]:
        pack = call(piece, last=last)
        return lambda: (pack(), last or both.wait())[0]

    packing.call = meet  # type: ignore[method-assign]
    text, out = TEXT[: 2 * PIECE], io.BytesIO()
    with PackedFile(out, packing, 2) as file:
        file.write(text)
    assert LIBRARY[kind][1](out.getvalue()) == text


@KINDS
@pytest.mark.parametrize("size", [10, 2 * PIECE, 9 * PIECE])
def test_what_goes_wrong_is_raised_and_leaves_no_end(kind: str, size: int) -> None:
    class Full(io.BytesIO):
        def write(self, data: object, /) -> int:
            if data == packed.GZIP_HEADER or not data:
                return super().write(data)  # type: ignore[arg-type]
            raise OSError(28, "no space left")

    out = Full()
    with pytest.raises(OSError, match="no space"), PackedFile(out, in_short_pieces(kind), 2) as file:
        file.write(TEXT[:size])
    assert out.getvalue() == PACKINGS[kind]().header
    assert file.closed


def test_as_many_threads_as_were_asked_for_at_most_the_processors() -> None:
    assert threads_for(1) == 1
    assert threads_for(0) == threads_for(1000) == usable_processors()
