"""Archives: as NumPy reads and writes them, in pieces, and whatever a hostile one may hold."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ema_cli.errors import FileTrouble
from ema_cli.io.archive import ArchiveReader, ArchiveWriter, DamagedArchive


def write(path: Path, arrays: dict[str, np.ndarray], comment: bytes = b"") -> Path:
    with path.open("wb", buffering=0) as out, ArchiveWriter(out, str(path)) as archive:
        archive.comment = comment
        for name, array in arrays.items():
            archive.begin_array(f"{name}.npy", array.dtype, array.shape)
            archive.write(array)
    return path


ARRAYS = {
    "a": np.arange(12.0).reshape(3, 4)[:, ::2],
    "": np.array(3),
    "π/b": np.zeros((0, 2), np.float32),
    "big-endian": np.arange(3, dtype=">i4"),
}


def test_numpy_reads_what_is_written_and_the_other_way_round(tmp_path: Path) -> None:
    ours = write(tmp_path / "a.npz", ARRAYS, b"hello")
    with np.load(ours) as theirs, ArchiveReader(str(ours)) as archive:
        assert (archive.comment, list(archive.members)) == (b"hello", [f"{name}.npy" for name in ARRAYS])
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(theirs[name], array)
            np.testing.assert_array_equal(archive.array(f"{name}.npy"), array)
    fortran = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "b.npz", f=fortran, many=np.zeros(300_000), none=np.zeros(0))
        with ArchiveReader(str(tmp_path / "b.npz")) as archive:
            np.testing.assert_array_equal(archive.array("f.npy"), fortran)
            assert not archive.array("many.npy").any()
            assert archive.array("none.npy").shape == (0,)


def test_a_part_of_an_array_from_any_place(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=50_000)
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", w=values)
        with ArchiveReader(str(tmp_path / "a.npz")) as archive:
            member, header = archive.header("w.npy")
            for at in (0, 10, 40_000, 49_999):
                assert member.move_to(header.begin + 8 * at)
                assert member.read(8) == values[at].tobytes()
            back = member.move_to(header.begin)
            assert back == (save is np.savez), "a deflated member goes forwards only"


def test_the_same_content_is_the_same_bytes(tmp_path: Path) -> None:
    one, two = write(tmp_path / "1.npz", ARRAYS), write(tmp_path / "2.npz", ARRAYS)
    assert one.read_bytes() == two.read_bytes()


def zipped(*members: tuple[str, bytes], how: int = zipfile.ZIP_STORED) -> bytearray:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", how) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, how)
    return bytearray(out.getvalue())


def encrypted() -> bytearray:
    content = zipped(("a", b"x"))
    content[content.index(b"PK\1\2") + 8] |= 1
    return content


def overlapping() -> bytearray:
    """Two names for the bytes of one member, as a zip bomb has by the thousand."""
    content = zipped(("a", bytes(1000)), ("b", bytes(1000)))
    second = content.rindex(b"PK\1\2")
    struct.pack_into("<L", content, second + 42, 0)  # the second begins where the first does
    return content


def read_all(path: Path) -> None:
    with ArchiveReader(str(path)) as archive:
        for member in archive.members:
            archive.read(member)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no zip archive"),
        (b"hello" * 100, "no zip archive"),
        (zipped(("a", b"x"))[:-30], "no zip archive"),
        (encrypted(), "'a': encrypted"),
        (zipped(("a", bytes(9999)), how=zipfile.ZIP_BZIP2), "'a': encrypted, or compressed in a way"),
        (overlapping(), "overlap"),
    ],
)
def test_what_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DamagedArchive, match=said):
        read_all(tmp_path / "a.npz")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_twice(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(zipped(("a", b"x"), ("a", b"y")))
    with pytest.raises(DamagedArchive, match="'a': is there twice"):
        ArchiveReader(str(tmp_path / "a.npz"))


def test_compressed_members_where_they_are_not_wanted(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(zipped(("a", bytes(9999)), how=zipfile.ZIP_DEFLATED))
    with pytest.raises(DamagedArchive):
        ArchiveReader(str(tmp_path / "a.npz"), compressed=False)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_changed_byte_is_noticed_or_makes_no_difference(tmp_path: Path, save) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "a.npz"
    arrays = {"w": np.arange(5.0), "n": np.array([7])}
    save(path, **arrays)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        try:
            with ArchiveReader(str(path)) as archive:
                got = {name: archive.array(name) for name in archive.members if name in ("w.npy", "n.npy")}
        except FileTrouble:
            continue
        for name, array in got.items():
            np.testing.assert_array_equal(array, arrays[name.removesuffix(".npy")])


def test_a_hundred_thousand_empty_arrays_take_seconds(tmp_path: Path) -> None:
    names = [f"layer.{i}" for i in range(100_000)]
    write(tmp_path / "a.npz", dict.fromkeys(names, np.zeros(0, np.float32)))
    begin = time.process_time()
    with ArchiveReader(str(tmp_path / "a.npz")) as archive:
        for name in names:
            archive.header(f"{name}.npy")
    # Through zipfile and NumPy's parser it took eleven.
    assert time.process_time() - begin < 6


def test_a_length_that_is_a_lie_asks_for_no_memory(tmp_path: Path) -> None:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40,)})
    (tmp_path / "a.npz").write_bytes(zipped(("w.npy", head.getvalue())))
    tracemalloc.start()
    with ArchiveReader(str(tmp_path / "a.npz")) as archive, pytest.raises(DamagedArchive, match="0 bytes"):
        archive.array("w.npy")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
