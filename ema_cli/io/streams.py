"""Bytes in and out: files, stdin and stdout, plain or compressed, read as they arrive."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import os
import stat
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, Protocol, cast

import pyarrow as pa

from ema_cli.errors import FileTrouble
from ema_cli.io.atomic import atomic_write, system_words
from ema_cli.io.damage import damage_as
from ema_cli.io.names import COMPRESSED, MAGIC
from ema_cli.io.output import Output, wait_until_ready
from ema_cli.io.signals import PROMPT
from ema_cli.io.xz import Xz

# Bytes read from a file at once, and the most that is held ready from a pipe.
BLOCK_BYTES = 1 << 20
# Bytes looked at to find out what an input is.
PEEK_BYTES = 1 << 16


class Reader(Protocol):
    """read(n) gives up to n bytes, whatever has arrived, at least one; b"" at the end."""

    def read(self, n: int = -1, /) -> bytes: ...

    def close(self) -> None: ...


def is_ready(reader: Reader) -> bool:
    """Whether reading will not wait, as far as the reader can tell."""
    return bool(getattr(reader, "ready", False))


def read_into(reader: Reader, buffer: memoryview) -> int:
    """Read as `Reader.read` does, into the beginning of the buffer, and give how many bytes."""
    if isinstance(reader, Pushback):
        return reader.readinto(buffer)
    data = reader.read(len(buffer))
    buffer[: len(data)] = data
    return len(data)


def open_raw(name: str) -> InputFile:
    """The input as it is; `-` is stdin. Raises FileTrouble where it can't be read."""
    try:
        if name == "-":
            return InputFile(0, closefd=False)
        file = InputFile(name)
        if stat.S_ISDIR(os.fstat(file.fileno()).st_mode):
            raise IsADirectoryError(21, "is a folder, not a file")
        return file
    except OSError as error:
        hints: dict[type[OSError], str] = {
            FileNotFoundError: "check the spelling and the folder you are in",
            IsADirectoryError: "name the files in it, such as FOLDER/*.csv",
        }
        hint = hints.get(type(error), "")
        raise FileTrouble(name, system_words(error), hint) from error


def compression_of(head: bytes) -> str | None:
    """The compression that these first bytes announce."""
    return next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), None)


def open_text(head: Pushback) -> Reader:
    """The text of an input, decompressed where its first bytes say so.

    Pipes and compressed inputs are read ahead in a thread, so that reading overlaps with computing and
    whatever has arrived meanwhile is handed over at once.
    """
    while any(magic.startswith(head.peeked) and magic != head.peeked for magic in MAGIC) and head.peek_more():
        pass
    kind = compression_of(head.peeked)
    if kind is None:
        regular = stat.S_ISREG(os.fstat(head.fileno()).st_mode)
        return head if regular else ReadAhead(head)
    return ReadAhead(Decompressed(head, kind, head.name))


class InputFile(io.FileIO):
    """A file that notices when it is cut short while it is read; that it grows is fine."""

    def __init__(self, file: str | int, closefd: bool = True) -> None:
        super().__init__(file, "rb", closefd)
        status = os.fstat(self.fileno())
        self.size_before, self.ready = status.st_size, stat.S_ISREG(status.st_mode)

    def read(self, n: int | None = -1, /) -> bytes:
        while (data := super().read(n)) is None:
            # Another program has made the pipe non-blocking; that nothing has arrived is not the end.
            wait_until_ready(self)
        if not data and n != 0:
            self._check_end()
        return data

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        while (size := super().readinto(buffer)) is None:
            wait_until_ready(self)
        if not size and len(buffer):
            self._check_end()
        return size

    def _check_end(self) -> None:
        if os.fstat(self.fileno()).st_size < self.size_before:
            raise OSError(errno.EIO, "became shorter while it was read")


class SharedFile:
    """An open regular file, which this process and those that it is sent to can read at any place."""

    def __init__(self, file: InputFile) -> None:
        # Linux has a path for an open file, even if it has been renamed or removed.
        self.path = f"/proc/{os.getpid()}/fd/{file.fileno()}" if sys.platform == "linux" else file.name
        self.identity = _identity(file.fileno())
        self.file: io.FileIO | None = None

    @classmethod
    def of(cls, reader: object) -> SharedFile | None:
        """What is read, if that is such a file."""
        while isinstance(reader, Pushback):
            reader = reader.raw
        if not (isinstance(reader, InputFile) and reader.ready):
            return None
        shared = cls(reader)
        return shared if isinstance(shared.path, str) and shared.size else None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "file": None}

    def _opened(self) -> io.FileIO:
        if self.file is None:
            self.file = io.FileIO(self.path)
            if _identity(self.file.fileno()) != self.identity:
                self.close()
                raise FileNotFoundError(errno.ENOENT, "is another file now")
        return self.file

    @property
    def size(self) -> int:
        """Its bytes now; 0 where it can't be opened."""
        try:
            return os.fstat(self._opened().fileno()).st_size
        except OSError:
            return 0

    def read(self, begin: int, size: int) -> bytes:
        """So many bytes from a place on; fewer where it has no more, or can't be read."""
        try:
            self._opened().seek(begin)
            return self._opened().read(size)
        except OSError:
            return b""

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None


def _identity(file: int) -> tuple[int, int]:
    status = os.fstat(file)
    return status.st_dev, status.st_ino


class Pushback(io.RawIOBase):
    """A raw input whose first bytes can be peeked at. count: bytes read so far."""

    def __init__(self, raw: Reader, name: str) -> None:
        self.raw, self.name, self.peeked, self.count = raw, name, b"", 0

    def peek_more(self) -> bool:
        more = self._fetch(PEEK_BYTES)
        self.peeked += more
        return bool(more)

    def read(self, n: int = -1, /) -> bytes:
        if self.peeked:
            n = len(self.peeked) if n < 0 else n
            out, self.peeked = self.peeked[:n], self.peeked[n:]
        else:
            out = self._fetch(BLOCK_BYTES if n < 0 else n)
        self.count += len(out)
        return out

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # what the decompressors call
        if self.peeked or not isinstance(self.raw, InputFile | Pushback):
            data = self.read(len(buffer))
            buffer[: len(data)] = data
            return len(data)
        with self._wording():
            size = self.raw.readinto(buffer)
        self.count += size
        return size

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        """The offset in the file of the next byte."""
        return cast(BinaryIO, self.raw).tell() - len(self.peeked)

    def seek(self, offset: int, _whence: int = 0, /) -> int:
        self.count += offset - self.tell()
        self.peeked = b""
        return cast(BinaryIO, self.raw).seek(offset)

    @property
    def ready(self) -> bool:
        return bool(self.peeked) or is_ready(self.raw)

    def fileno(self) -> int:
        return cast(BinaryIO, self.raw).fileno()

    def _fetch(self, n: int) -> bytes:
        with self._wording():
            return self.raw.read(n) or b""

    @contextmanager
    def _wording(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise FileTrouble(self.name, system_words(error)) from error

    def close(self) -> None:
        self.raw.close()
        super().close()


class Decompressed:
    """The text inside a compressed input, member after member."""

    def __init__(self, inner: Pushback, kind: str, name: str) -> None:
        self.inner, self.kind, self.name = inner, kind, name
        if kind == "gzip":
            self.file: Reader = cast(Reader, gzip.GzipFile(fileobj=inner, mode="rb"))
        elif kind == "bzip2":
            self.file = cast(Reader, bz2.BZ2File(io.BufferedReader(inner)))
        elif kind == "xz":
            self.file = Xz(inner)
        else:
            self.file = Zstd(inner)

    def read(self, n: int = -1, /) -> bytes:
        with damage_as(self._damaged, OSError):
            return cast(bytes, getattr(self.file, "read1", self.file.read)(n))

    def _damaged(self, _: Exception) -> FileTrouble:
        return FileTrouble(
            self.name, f"the {self.kind} data is damaged or cut short", "fetch or compress it again"
        )

    def close(self) -> None:
        self.file.close()
        self.inner.close()


class Zstd:
    """zstd frames, by Arrow's codec; a frame cut short is an error."""

    def __init__(self, inner: Pushback) -> None:
        self.stream = pa.CompressedInputStream(pa.PythonFile(inner, mode="r"), "zstd")

    def read(self, n: int = -1, /) -> bytes:
        return cast(bytes, self.stream.read(n))

    def close(self) -> None:
        self.stream.close()


class ReadAhead:
    """Reads in a thread and gives all that has arrived; never holds more than two blocks.

    The thread closes its input, since a file must not be closed while another thread reads it.
    """

    def __init__(self, inner: Reader) -> None:
        self.inner = inner
        self.chunks: deque[bytes] = deque()
        self.held = 0
        self.done = False
        self.error: BaseException | None = None
        self.changed = threading.Condition()
        threading.Thread(target=self._run, name="read ahead", daemon=True).start()

    def _run(self) -> None:
        try:
            while chunk := self.inner.read(BLOCK_BYTES // 8):
                with self.changed:
                    self.chunks.append(chunk)
                    self.held += len(chunk)
                    self.changed.notify_all()
                    self.changed.wait_for(lambda: self.held < 2 * BLOCK_BYTES or self.done)
                    if self.done:
                        return
        except BaseException as error:
            self.error = error
        finally:
            with suppress(Exception):
                self.inner.close()
        with self.changed:
            self.done = True
            self.changed.notify_all()

    def read(self, n: int = -1, /) -> bytes:
        with self.changed:
            while not self.changed.wait_for(lambda: self.chunks or self.done, PROMPT):
                pass
            if not self.chunks:
                if self.error is not None:
                    raise self.error
                return b""
            parts = []
            while self.chunks and (n < 0 or n > 0):
                part = self.chunks.popleft()
                if 0 <= n < len(part):
                    self.chunks.appendleft(part[n:])
                    part = part[:n]
                parts.append(part)
                n -= len(part) if n >= 0 else 0
            self.held -= sum(map(len, parts))
            self.changed.notify_all()
            return b"".join(parts)

    @property
    def ready(self) -> bool:
        return bool(self.chunks) or self.done

    def close(self) -> None:
        with self.changed:
            self.done = True
            self.changed.notify_all()


def arrow_file(file: str | os.PathLike[str] | BinaryIO) -> Any:
    """A file for Arrow to read at any place, given by its path or open.

    Linux and macOS have a path for an open file, even an unlinked one, so that Arrow reads it without calling
    Python; elsewhere it calls Python. In either case `file` may be closed afterwards.
    """
    if isinstance(file, str | os.PathLike):
        return pa.OSFile(os.fspath(file))
    path = f"/dev/fd/{file.fileno()}"
    if os.path.exists(path):  # noqa: PTH110 - no Path where Windows has none
        return pa.OSFile(path)
    return pa.PythonFile(os.fdopen(os.dup(file.fileno()), "rb"), mode="r")


@contextmanager
def open_output(name: str | None, mode: int = 0o666, threads: int = 1) -> Iterator[BinaryIO]:
    """Where a table goes: stdout, or a file that is complete at the end of the block or not there.

    mode: of a new file, less the umask. threads: how many compress it.
    """
    if name is None or name == "-":
        stdout = open(1, "wb", buffering=0, closefd=False)
        yield cast(BinaryIO, Output(stdout, "stdout"))
        return
    with (
        atomic_write(name, mode) as raw,
        compressed(cast(BinaryIO, Output(raw, name)), name, threads) as out,
    ):
        yield out


@contextmanager
def compressed(out: BinaryIO, name: str, threads: int) -> Iterator[BinaryIO]:
    """`out`, or if the name ends in .gz, .bz2, .xz or .zst a file that compresses into it, without a date."""
    kind = next((kind for suffix, kind in COMPRESSED.items() if name.lower().endswith(suffix)), None)
    if kind is None:
        yield out
        return
    from ema_cli.io.packed import PACKINGS, PackedFile  # its threads take long to load

    with PackedFile(out, PACKINGS[kind](), threads) as file:
        yield cast(BinaryIO, file)
