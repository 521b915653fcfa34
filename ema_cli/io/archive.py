"""Zip archives of NumPy arrays and texts, read and written by slices: .npz files and saved states.

`zipfile` reads the directory and writes. Members are read here: small ones at a tenth of its cost, and
stored arrays from any place in them. Only what NumPy writes is accepted, stored or deflated members that do
not overlap, so no archive unpacks to more than 1,032 times its size, deflate's limit. Nothing is unpickled.
"""

from __future__ import annotations

import bisect
import contextlib
import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Self, cast

import numpy as np
import numpy.typing as npt

from ema_cli.errors import FileTrouble
from ema_cli.io.atomic import system_words
from ema_cli.io.damage import DAMAGE
from ema_cli.io.output import Output

# The longest comment that fits into a zip.
MOST_COMMENT = (1 << 16) - 1
# The earliest time that a zip can hold, instead of the clock's: the same content gives the same bytes.
_NO_CLOCK = (1980, 1, 1, 0, 0, 0)
_CHUNK = 1 << 16
_ENCRYPTED = 1
_LOCAL_HEADER, _LOCAL_MAGIC = struct.Struct("<4s22xHH"), b"PK\3\4"
Array = npt.NDArray[Any]

if TYPE_CHECKING:
    from typing_extensions import Buffer


class DamagedArchive(FileTrouble):
    """A file that is no zip archive, is damaged, or is not as NumPy writes archives."""


@dataclass(frozen=True)
class NpyHeader:
    """What the head of an .npy member says. begin: where in the member the values begin, in bytes."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    begin: int

    @property
    def nbytes(self) -> int:
        """Bytes of all values; a Python int, since a hostile header may claim any size."""
        total = self.dtype.itemsize
        for length in self.shape:
            total *= length
        return total


class ArchiveReader:
    """An open archive. `members`: their directory entries by name, in the archive's order.

    Parameters
    ----------
    name : str
        The file.
    compressed : bool
        False refuses deflated members: then none is larger than the file.

    Raises
    ------
    FileTrouble
        Where the file can't be read; DamagedArchive where it is no sound archive.
    """

    def __init__(self, name: str, *, compressed: bool = True) -> None:
        self.name = name
        try:
            self._file = Path(name).open("rb", buffering=0)
        except OSError as error:
            raise FileTrouble(name, system_words(error)) from error
        try:
            with zipfile.ZipFile(cast(BinaryIO, self._file)) as directory:
                infos, self.comment, last = directory.infolist(), directory.comment, directory.start_dir
            self.members: Mapping[str, zipfile.ZipInfo] = {info.filename: info for info in infos}
            self._bounds = [*sorted(info.header_offset for info in infos), last]
            self._check(infos, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)[: 1 + compressed])
        except OSError as error:
            self._file.close()
            raise FileTrouble(name, system_words(error)) from error
        except DAMAGE as error:
            self._file.close()
            if isinstance(error, DamagedArchive):
                raise
            raise DamagedArchive(name, "is no zip archive, or is cut short (it has no end)") from error

    def _check(self, infos: list[zipfile.ZipInfo], known: tuple[int, ...]) -> None:
        seen: set[str] = set()
        for info in infos:
            if info.filename in seen:
                raise self.damaged(info.filename, "is there twice")
            seen.add(info.filename)
            if info.compress_type not in known or info.flag_bits & _ENCRYPTED:
                raise self.damaged(info.filename, "encrypted, or compressed in a way that NumPy has not")
            if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
                raise self.damaged(info.filename, "two sizes")
        if len(set(self._bounds)) <= len(infos):
            raise DamagedArchive(self.name, "is damaged: two of its members overlap")

    def damaged(self, member: str, problem: object) -> DamagedArchive:
        """The error that something is wrong with a member."""
        return DamagedArchive(self.name, f"is damaged at {member.removesuffix('.npy')!r}: {problem}")

    def open(self, member: str) -> Member:
        """A member, to be read from its start. Raises DamagedArchive."""
        info = self.members[member]
        try:
            self._file.seek(info.header_offset)
            magic, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(self._file.read(_LOCAL_HEADER.size))
        except OSError as error:
            raise FileTrouble(self.name, system_words(error)) from error
        except struct.error as error:
            raise self.damaged(member, "it lies outside the file") from error
        begin = info.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
        after = self._bounds[bisect.bisect_right(self._bounds, info.header_offset)]
        if magic != _LOCAL_MAGIC or begin + info.compress_size > after:
            raise self.damaged(member, "no member begins there, or it overlaps the next")
        return Member(self, info, begin)

    def fill(self, at: int, buffer: memoryview, member: str) -> None:
        """Fill `buffer` with the file's bytes from `at` on. Raises FileTrouble."""
        try:
            self._file.seek(at)
            while buffer:
                got = self._file.readinto(buffer)
                if not got:
                    raise self.damaged(member, "it is cut short")
                buffer = buffer[got:]
        except OSError as error:
            raise FileTrouble(self.name, system_words(error)) from error

    def read(self, member: str) -> bytes:
        """All of a member. Raises DamagedArchive."""
        content = bytearray(self.members[member].file_size)
        self.open(member).readinto(memoryview(content))
        return bytes(content)

    def header(self, member: str) -> tuple[Member, NpyHeader]:
        """An .npy member, read up to its values, and its header.

        Raises DamagedArchive where it is no array, or its size does not fit its shape.
        """
        opened = self.open(member)
        head = bytearray(min(10, opened.size))
        opened.readinto(memoryview(head))
        # Format 1.0 has two bytes for the length of the text that follows, 2.0 has four.
        wide = len(head) == 10 and head[6] == 2 and opened.size >= 12
        if wide:
            head += opened.read(2)
        length = int.from_bytes(head[8:], "little")
        head += opened.read(min(length, opened.size - opened.at, _CHUNK))
        try:
            header = _parsed(bytes(head))
        except DAMAGE as error:
            raise self.damaged(member, f"it is no .npy array ({error})") from error
        there = opened.size - header.begin
        if not header.dtype.hasobject and header.nbytes != there:
            raise self.damaged(member, f"{there} bytes for its shape {header.shape}")
        return opened, header

    def array(self, member: str) -> Array:
        """A whole array. Raises DamagedArchive; pickled objects are damage, too."""
        opened, header = self.header(member)
        if header.dtype.hasobject:
            raise self.damaged(member, "it holds pickled objects")
        content = np.empty(header.nbytes, np.uint8)
        opened.readinto(memoryview(content.data))
        return content.view(header.dtype).reshape(header.shape, order="F" if header.fortran else "C")

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@lru_cache(maxsize=1024)
def _parsed(head: bytes) -> NpyHeader:
    """The header in the first bytes of an .npy member. Many arrays of a model have the same one."""
    file = io.BytesIO(head)
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"format {version} is not known")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if any(length < 0 for length in shape):
        raise ValueError(f"the shape {shape}")
    return NpyHeader(dtype, shape, fortran and len(shape) > 1, file.tell())


def little_endian(values: Array) -> Array:
    """The bytes of the values (uint8), little-endian and in C order whatever their strides."""
    return np.ascontiguousarray(values, values.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)


class Member:
    """The bytes of one member, read from start to end; at the end its checksum is compared.

    size: its unpacked bytes. at: how many have been read.
    """

    def __init__(self, archive: ArchiveReader, info: zipfile.ZipInfo, begin: int) -> None:
        self._archive, self._info, self._begin = archive, info, begin
        self.size, self.at = info.file_size, 0
        self._crc: int | None = 0
        deflated = info.compress_type == zipfile.ZIP_DEFLATED
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS) if deflated else None
        self._taken = 0  # compressed bytes so far

    @property
    def name(self) -> str:
        return self._info.filename

    def read(self, count: int) -> bytes:
        """The next `count` bytes. Raises DamagedArchive where there are fewer."""
        content = bytearray(count)
        self.readinto(memoryview(content))
        return bytes(content)

    def readinto(self, buffer: memoryview) -> None:
        """Fill `buffer` with the next bytes. Raises DamagedArchive where there are fewer."""
        if self.at + len(buffer) > self.size:
            raise self._archive.damaged(self.name, "it is cut short")
        if self._inflate is None:
            self._archive.fill(self._begin + self.at, buffer, self.name)
        else:
            self._unpack(buffer)
        self.at += len(buffer)
        if self._crc is not None:
            self._crc = zlib.crc32(buffer, self._crc)
            if self.at == self.size and self._crc != self._info.CRC:
                raise self._archive.damaged(self.name, "its checksum (CRC-32) is wrong")

    def _unpack(self, buffer: memoryview) -> None:
        assert self._inflate is not None  # readinto asked
        done = 0
        while done < len(buffer):
            packed = self._inflate.unconsumed_tail
            if not packed:
                packed = bytes(self._packed())
            try:
                part = self._inflate.decompress(packed, len(buffer) - done)
            except zlib.error as error:
                raise self._archive.damaged(self.name, error) from error
            buffer[done : done + len(part)] = part
            done += len(part)
            if not part and (self._inflate.eof or not packed):
                raise self._archive.damaged(self.name, "it is cut short")

    def _packed(self) -> bytearray:
        content = bytearray(min(_CHUNK, self._info.compress_size - self._taken))
        self._archive.fill(self._begin + self._taken, memoryview(content), self.name)
        self._taken += len(content)
        return content

    def move_to(self, at: int) -> bool:
        """Go on reading at byte `at`; False where that would mean going back in a deflated member."""
        if at == self.at:
            return True
        if self._inflate is None:
            self.at, self._crc = at, None  # a checksum of a part says nothing
            return True
        while self.at < at:
            self.read(min(_CHUNK, at - self.at))
        return self.at == at


# The sizes of zip64 in a member's header, and what stands before bytes that only pad.
_LONG_SIZES, _PADDING = 20, struct.Struct("<HH")


class _Discardable(Output):
    """An output that can be given up: then further writes go nowhere, even if its file is closed."""

    _given_up = False

    def give_up(self) -> None:
        """Drop whatever is written from now on."""
        self._given_up = True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return 0 if self._given_up else super().seek(offset, whence)

    def tell(self) -> int:
        return 0 if self._given_up else super().tell()

    def write(self, data: Buffer, /) -> int:
        return memoryview(data).nbytes if self._given_up else super().write(data)


class ArchiveWriter:
    """Writes an archive member after member, each in as many pieces as you like, uncompressed.

    Parameters
    ----------
    out : BinaryIO
        A raw file. What has been written to it is whole only after `close`.
    name : str
        What messages call it.

    Attributes
    ----------
    comment : bytes
        The archive's comment, at most `MOST_COMMENT` bytes.
    """

    def __init__(self, out: BinaryIO, name: str) -> None:
        self._out = _Discardable(out, name)
        self.comment = b""
        # zipfile writes a header and a name at a time, and goes back to each header.
        self._zip = zipfile.ZipFile(io.BufferedWriter(self._out, _CHUNK), "w", allowZip64=True)
        self._member: IO[bytes] | None = None

    def begin(self, member: str, comment: bytes = b"", align: int = 1) -> None:
        """Begin a member; what is written from now on belongs to it.

        Padding in its header puts its first byte at a multiple of `align`, as torch does.
        """
        if self._member is not None:
            self._member.close()
        info = zipfile.ZipInfo(member, _NO_CLOCK)
        info.comment = comment
        if align > 1 and self._zip.fp is not None:
            header = _LOCAL_HEADER.size + len(member.encode()) + _PADDING.size + _LONG_SIZES
            left = -(self._zip.fp.tell() + header) % align
            info.extra = _PADDING.pack(0x4246, left) + bytes(left)
        info.external_attr = 0o644 << 16
        self._member = self._zip.open(info, "w", force_zip64=True)

    def begin_array(
        self, member: str, dtype: np.dtype[Any], shape: tuple[int, ...], comment: bytes = b""
    ) -> None:
        """Begin an .npy member; its values follow, little-endian and in C order."""
        self.begin(member, comment)
        dtype = dtype.newbyteorder("<")
        # What NumPy has no name for, such as bfloat16, it writes as so many bytes.
        nameless = dtype.kind == "V" and dtype.names is None
        descr = f"<V{dtype.itemsize}" if nameless else np.lib.format.dtype_to_descr(dtype)
        header = {"descr": descr, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_2_0(self._open_member(), header)

    def write(self, data: bytes | Array) -> None:
        """The next bytes of the member, or the next values. Raises FileTrouble."""
        flat = little_endian(data) if isinstance(data, np.ndarray) else data
        self._open_member().write(flat)  # type: ignore[arg-type] # an array is a buffer, too

    def _open_member(self) -> IO[bytes]:
        assert self._member is not None  # begin comes first
        return self._member

    def close(self, *, complete: bool = True) -> None:
        """Write the directory and the comment; nothing if the archive is not complete."""
        if not complete:
            self._out.give_up()
            with contextlib.suppress(Exception):  # a zip can only be closed by writing, here to nowhere
                self._close()
            return
        try:
            self._close()
        except BaseException:
            self._out.give_up()
            raise

    def _close(self) -> None:
        if self._member is not None:
            self._member.close()
        self._zip.comment = self.comment
        buffer = self._zip.fp
        self._zip.close()
        if buffer is not None:
            buffer.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(complete=kind is None)
