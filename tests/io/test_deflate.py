"""A gzip file that is packed piece by piece: one member, the same bytes however it is written."""

from __future__ import annotations

import gzip
import io
import random
import threading
import zlib

import pytest

from ema_cli.io import deflate
from ema_cli.io.deflate import PIECE, GzipFile

RANDOM = random.Random(1)
TEXT = b"".join(b"%d,%.3f\n" % (k, RANDOM.random()) for k in range(250_000))


def written(text: bytes, step: int, threads: int) -> bytes:
    out = io.BytesIO()
    with GzipFile(out, threads) as file:
        for begin in range(0, len(text), step):
            assert file.write(memoryview(text)[begin : begin + step]) == len(text[begin : begin + step])
    return out.getvalue()


def test_the_same_bytes_however_it_is_written() -> None:
    found = {written(TEXT, step, threads) for step in (54_321, PIECE, len(TEXT)) for threads in (1, 2, 5)}
    (packed,) = found
    reader = zlib.decompressobj(16 + zlib.MAX_WBITS)
    assert reader.decompress(packed) == TEXT
    assert (reader.eof, reader.unused_data) == (True, b"")  # one member
    assert len(packed) < 1.01 * len(gzip.compress(TEXT, deflate.LEVEL))


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE])
def test_any_length(size: int) -> None:
    text = TEXT[:size]
    assert gzip.decompress(written(text, PIECE // 3, 2)) == text


def test_pieces_are_packed_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    both, packed = threading.Barrier(2, timeout=60), deflate.packed

    def wait_for_the_other(piece: bytes, before: bytes, *, last: bool = False) -> bytes:
        if not last:
            both.wait()
        return packed(piece, before, last=last)

    monkeypatch.setattr(deflate, "packed", wait_for_the_other)
    assert gzip.decompress(written(TEXT[: 2 * PIECE], PIECE, 2)) == TEXT[: 2 * PIECE]


@pytest.mark.parametrize("size", [10, 2 * PIECE, len(TEXT)])
def test_what_goes_wrong_is_raised_and_leaves_no_end(size: int) -> None:
    class Full(io.BytesIO):
        def write(self, data: object, /) -> int:
            if self.tell():
                raise OSError(28, "no space left")
            return super().write(data)  # type: ignore[arg-type]

    out = Full()
    with pytest.raises(OSError, match="no space"), GzipFile(out, 2) as file:  # type: ignore[arg-type]
        file.write(TEXT[:size])
    assert out.getvalue() == deflate.HEADER
    assert file.closed
