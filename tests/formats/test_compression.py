"""Compressed text: recognised by its first bytes, several members too; written by suffix, without a clock."""

from __future__ import annotations

import bz2
import gzip
import lzma
import time
from collections.abc import Callable

import pyarrow as pa
import pytest

from tests.conftest import SAMPLES, Workshop

TEXT = (SAMPLES / "co2.csv").read_bytes()
PACK: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda data: bytes(pa.compress(data, "zstd", asbytes=True)),
}
UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.decompress,
    "bz2": bz2.decompress,
    "xz": lzma.decompress,
    "zst": lambda data: pa.CompressedInputStream(pa.BufferReader(data), "zstd").read(),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return Workshop(tmp_path_factory.mktemp("plain")).run(SAMPLES / "co2.csv", "--alpha", "0.1").out


@pytest.mark.parametrize("suffix", PACK)
def test_read_whatever_the_name(shop: Workshop, plain: bytes, suffix: str) -> None:
    packed = PACK[suffix](TEXT)
    shop.write("named.txt", packed)
    assert shop.run("named.txt", "--alpha", "0.1").out == plain
    assert shop.run("--alpha", "0.1", stdin=packed).out == plain


@pytest.mark.parametrize("suffix", PACK)
def test_several_members_are_one_text(shop: Workshop, plain: bytes, suffix: str) -> None:
    cut = len(TEXT) // 3  # within a line
    shop.write(f"in.csv.{suffix}", PACK[suffix](TEXT[:cut]) + PACK[suffix](TEXT[cut:]))
    assert shop.run(f"in.csv.{suffix}", "--alpha", "0.1").out == plain


@pytest.mark.parametrize("suffix", PACK)
def test_written_by_suffix_and_the_same_every_time(shop: Workshop, plain: bytes, suffix: str) -> None:
    name = f"out.csv.{suffix}"
    shop.run(SAMPLES / "co2.csv", "--alpha", "0.1", "-o", name)
    first = shop.read(name)
    assert UNPACK[suffix](first) == plain
    time.sleep(1.1)  # a clock in the header counts seconds
    shop.run("--alpha", "0.1", "-o", name, stdin=TEXT)
    assert shop.read(name) == first


@pytest.mark.parametrize("suffix", PACK)
def test_cut_short_is_an_error(shop: Workshop, suffix: str) -> None:
    packed = PACK[suffix](TEXT)
    shop.write("in.csv", packed[: len(packed) // 2])
    result = shop.run("in.csv", "--alpha", "0.1", "-o", "out.csv", code=1)
    assert "damaged or cut short" in result.err
    assert not (shop.folder / "out.csv").exists()


@pytest.mark.parametrize("suffix", PACK)
def test_the_same_bytes_with_any_number_of_threads(shop: Workshop, suffix: str) -> None:
    """More text than a piece of any kind of compression has."""
    shop.write("in.csv", b"a,b\n" + b"".join(b"%d,%d\n" % (k, k * k % 977) for k in range(80_000)))
    for jobs in ("1", "3"):
        shop.run("in.csv", "--alpha", "0.1", "-j", jobs, "-o", f"{jobs}.csv.{suffix}")
    shop.run("in.csv", "--alpha", "0.1", "-o", "plain.csv")
    assert UNPACK[suffix](shop.read(f"1.csv.{suffix}")) == shop.read("plain.csv")
    assert len({shop.read(f"{jobs}.csv.{suffix}") for jobs in "13"}) == 1
