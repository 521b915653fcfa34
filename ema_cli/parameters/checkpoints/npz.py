"""NumPy's .npz, read and written by slices through the zip's members; never a pickle.

NumPy writes bfloat16 as two nameless bytes (`<V2`). Files written here say in their metadata, the member
`__ema_smooth__.npy`, which tensors those are; in other files they are refused, not guessed.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Any, BinaryIO, Self

import numpy as np

from ema_cli.errors import DataError, FileTrouble
from ema_cli.io.atomic import system_words
from ema_cli.parameters.checkpoints.stream import WholeWrites
from ema_cli.parameters.tensors import Array, TensorInfo, dtype_named

_METADATA = "__ema_smooth__"
# What zipfile raises for damaged, encrypted or exotic archives.
_ZIP_TROUBLE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError)
# The earliest time a zip can hold: no clock in the output, the same tensors give the same bytes.
_NO_CLOCK = (1980, 1, 1, 0, 0, 0)


class NpzFile:
    """One .npz file; a tensor's slices are read one after the other without going back."""

    def __init__(self, name: str) -> None:
        """Raises FileTrouble where the file can't be read or is no sound .npz file."""
        self.name = name
        self.keys: Sequence[str] = ()
        try:
            self._zip = zipfile.ZipFile(name)
        except OSError as error:
            raise FileTrouble(name, system_words(error)) from error
        except _ZIP_TROUBLE as error:
            raise FileTrouble(name, "is no .npz file, or is cut short (no end of a zip archive)") from error
        self._member: IO[bytes] | None = None
        self._at = ("", 0)
        self._whole: Array | None = None
        try:
            self._read_headers()
        except BaseException:
            self._zip.close()
            raise

    def _read_headers(self) -> None:
        self.tensors: dict[str, TensorInfo] = {}
        self.others: Sequence[str] = [entry for entry in self._zip.namelist() if not entry.endswith(".npy")]
        self._fortran: set[str] = set()
        self.metadata, dtypes = self._read_metadata()
        for entry in self._zip.namelist():
            tensor = entry.removesuffix(".npy")
            if entry in self.others or tensor == _METADATA:
                continue
            if tensor in self.tensors:
                raise FileTrouble(self.name, f"holds {tensor!r} twice")
            with self._open(tensor) as member:
                shape, fortran, dtype = self._header(member, tensor)
                there = self._zip.getinfo(entry).file_size - member.tell()
            info = TensorInfo(tensor, self._named(dtype, dtypes.get(tensor), tensor), shape)
            if info.size * dtype.itemsize != there:
                raise FileTrouble(
                    self.name, f"is damaged: {tensor!r} has {there} bytes for its shape {shape}"
                )
            self.tensors[tensor] = info
            if fortran and len(shape) > 1:
                self._fortran.add(tensor)

    def _read_metadata(self) -> tuple[dict[str, str], dict[str, str]]:
        if f"{_METADATA}.npy" not in self._zip.namelist():
            return {}, {}
        with self._open(_METADATA) as member:
            shape, _, dtype = self._header(member, _METADATA)
            text = member.read() if shape == () and dtype.kind == "U" else b""
        try:
            said = json.loads(text.decode("utf-32-le" if dtype.byteorder != ">" else "utf-32-be"))
            metadata, dtypes = said["metadata"], said["dtypes"]
            sound = all(isinstance(value, str) for value in (*metadata.values(), *dtypes.values()))
        except (ValueError, KeyError, TypeError, AttributeError):
            sound = False
        if not sound:
            raise FileTrouble(self.name, f"is damaged: its {_METADATA} is not what ema-weights writes")
        return metadata, dtypes

    def _open(self, tensor: str) -> IO[bytes]:
        try:
            return self._zip.open(f"{tensor}.npy")
        except (*_ZIP_TROUBLE, OSError) as error:
            raise FileTrouble(self.name, f"is damaged at {tensor!r}: {error}") from error

    def _header(self, member: IO[bytes], tensor: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
        """(shape, Fortran order, dtype); FileTrouble for pickled objects and for what is no array."""
        try:
            version = np.lib.format.read_magic(member)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran, dtype = read(member)
        except (ValueError, KeyError, TypeError, SyntaxError, RecursionError, *_ZIP_TROUBLE) as error:
            raise FileTrouble(self.name, f"is damaged: {tensor!r} is no .npy array ({error})") from error
        if dtype.hasobject:
            raise FileTrouble(
                self.name,
                f"{tensor!r} holds pickled Python objects, which are not loaded as they can run code",
                "save arrays of numbers only",
            )
        if any(length < 0 for length in shape):
            raise FileTrouble(self.name, f"is damaged: {tensor!r} has the shape {shape}")
        return shape, fortran, dtype

    def _named(self, dtype: np.dtype[Any], name: str | None, tensor: str) -> np.dtype[Any]:
        """The dtype, by the name that our metadata has for what NumPy left nameless."""
        if dtype.kind != "V" or dtype.names is not None:
            return dtype
        try:
            named = dtype_named(name) if name is not None else None
        except DataError as error:
            raise FileTrouble(self.name, f"tensor {tensor!r}: {error.problem}", error.hint) from error
        if named is None or named.itemsize != dtype.itemsize or named.hasobject:
            raise FileTrouble(
                self.name,
                f"{tensor!r} has {dtype.itemsize} nameless bytes per value; NumPy saves bfloat16 that way",
                "save as .safetensors, or as float32",
            )
        return named

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._member is not None:
            self._member.close()
        self._zip.close()

    def read(self, info: TensorInfo, start: int, stop: int) -> Array:
        """Elements start to stop of the tensor in C order, one-dimensional. Raises FileTrouble.

        An array in Fortran order is read whole and kept until another tensor is read.
        """
        if info.name not in self._fortran:
            return self._next(info, start, stop)
        if self._whole is None or self._at[0] != info.name:
            turned = self._next(info, 0, info.size).reshape(info.shape, order="F")
            self._whole = turned.reshape(-1)
        return self._whole[start:stop]

    def _next(self, info: TensorInfo, start: int, stop: int) -> Array:
        if self._member is None or self._at != (info.name, start):
            self._go_to(info, start)
        assert self._member is not None  # _go_to opened it
        wanted = (stop - start) * info.dtype.itemsize
        data = bytearray(wanted)
        room = memoryview(data)
        try:
            while room:
                got = self._member.readinto(room)  # type: ignore[attr-defined]
                if not got:
                    raise FileTrouble(self.name, f"is cut short: values of {info.name!r} are missing")
                room = room[got:]
        except (*_ZIP_TROUBLE, OSError) as error:
            raise FileTrouble(self.name, f"is damaged at {info.name!r}: {error}") from error
        self._at = (info.name, stop)
        return np.frombuffer(data, info.dtype)

    def _go_to(self, info: TensorInfo, start: int) -> None:
        if self._member is not None:
            self._member.close()
        self._whole = None
        self._member = self._open(info.name)
        self._header(self._member, info.name)
        if start:
            self._member.seek(start * info.dtype.itemsize, 1)


class NpzWriter:
    """Writes an uncompressed .npz as `np.savez` does, but by slices and without a clock in it."""

    def __init__(
        self, out: BinaryIO, name: str, infos: Sequence[TensorInfo], metadata: Mapping[str, str]
    ) -> None:
        """Raises FileTrouble for a name that the format lacks."""
        self.order = sorted(infos, key=lambda info: info.name)
        if any(info.name == _METADATA for info in infos):
            raise FileTrouble(name, f"{_METADATA!r} can't be a tensor's name in .npz", "write .safetensors")
        self._out = WholeWrites(out, name)
        self._zip = zipfile.ZipFile(self._out, "w", allowZip64=True)
        self._member: IO[bytes] | None = None
        self._tensor: str | None = None
        nameless = {info.name: info.dtype.name for info in infos if info.dtype.kind == "V"}
        said = {"metadata": dict(metadata), "dtypes": nameless}
        text = np.array(json.dumps(said, sort_keys=True))
        try:
            self.write(TensorInfo(_METADATA, text.dtype, ()), text)
        except BaseException:
            self._close(complete=False)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(complete=kind is None)

    def _close(self, *, complete: bool) -> None:
        if not complete:
            self._out.give_up()  # closing a zip writes, which on a full disk would fail again
        if self._member is not None:
            self._member.close()
        self._zip.close()

    def write(self, info: TensorInfo, values: Array) -> None:
        """The next values of the tensor, in C order whatever their strides. Raises FileTrouble."""
        if info.name != self._tensor or self._member is None:
            self._begin(info)
        assert self._member is not None  # _begin opened it
        flat = np.ascontiguousarray(values, info.dtype.newbyteorder("<")).reshape(-1)
        self._member.write(flat.tobytes())

    def _begin(self, info: TensorInfo) -> None:
        if self._member is not None:
            self._member.close()
        entry = zipfile.ZipInfo(f"{info.name}.npy", _NO_CLOCK)
        entry.external_attr = 0o644 << 16
        self._member = self._zip.open(entry, "w", force_zip64=True)
        self._tensor = info.name
        dtype = info.dtype.newbyteorder("<")
        descr = f"<V{dtype.itemsize}" if dtype.kind == "V" else np.lib.format.dtype_to_descr(dtype)
        header = {"descr": descr, "fortran_order": False, "shape": info.shape}
        np.lib.format.write_array_header_2_0(self._member, header)
