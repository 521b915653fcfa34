"""NumPy's .npz, read and written by slices; never a pickle.

NumPy writes bfloat16 as two nameless bytes (`<V2`). Files written here name such dtypes in the comment of the
member; in other files they are refused, not guessed. Metadata is the archive's comment, as JSON
(`unzip -z FILE` prints it), so that nothing lies beside the model's arrays.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

from ema_cli.errors import DataError, FileTrouble
from ema_cli.io.archive import MOST_COMMENT, ArchiveReader, ArchiveWriter, Member, NpyHeader
from ema_cli.parameters.checkpoints.stream import METADATA_KEY, Checkpoint, CheckpointWriter
from ema_cli.parameters.checkpoints.turned import Turned
from ema_cli.parameters.tensors import Array, TensorInfo, dtype_named, some_of

# Where files of version 0.1 kept metadata and the names of nameless dtypes: an array beside the model's.
_OLD_METADATA = "__ema_smooth__"
# Metadata that a comment has no room for, in practice that of a state with a thousand parameters or files.
_LONG_METADATA = "ema_smooth.json"
_NO_METADATA = "is not what ema-weights writes"


class NpzFile(Checkpoint):
    """One .npz file. Large members that NumPy compressed are quickest read from begin to end."""

    def __init__(self, name: str) -> None:
        """Raises FileTrouble where the file can't be read or is no sound .npz file."""
        super().__init__(name)
        self._archive = ArchiveReader(name)
        self._open: tuple[str, Member, NpyHeader] | None = None
        self._turned: Turned | None = None
        self._fortran: set[str] = set()
        try:
            dtypes = self._read_metadata()
            for member, entry in self._archive.members.items():
                tensor = member.removesuffix(".npy")
                if member in (_LONG_METADATA, f"{_OLD_METADATA}.npy"):
                    continue
                if tensor == member:
                    self.others.append(member)
                    continue
                _, header = self._archive.header(member)
                self._add(tensor, header, dtypes.get(tensor) or entry.comment.decode("ascii", "replace"))
            if self.others and not (self.tensors or self.refused):
                raise FileTrouble(name, f"holds no arrays: {some_of(self.others)}")
        except BaseException:
            self._archive.close()
            raise

    def _add(self, tensor: str, header: NpyHeader, named: str) -> None:
        dtype = header.dtype
        if dtype.hasobject:
            self.refused[tensor] = (
                "holds pickled Python objects, which are not loaded as they can run code; "
                "arrays of numbers are averaged"
            )
            return
        if dtype.kind == "V" and dtype.names is None:
            try:
                known = dtype_named(named) if named else None
            except DataError as error:
                raise FileTrouble(self.name, f"tensor {tensor!r}: {error.problem}", error.hint) from error
            if known is None or known.itemsize != dtype.itemsize or known.hasobject:
                self.refused[tensor] = (
                    f"has {dtype.itemsize} nameless bytes per value; NumPy saves bfloat16 that way, "
                    ".safetensors or float32 would keep it"
                )
                return
            dtype = known
        self.tensors[tensor] = TensorInfo(tensor, dtype, header.shape)
        if header.fortran:
            self._fortran.add(tensor)

    def _read_metadata(self) -> dict[str, str]:
        """Read the metadata; return the dtypes that older files name there."""
        dtypes: dict[str, str] = {}
        try:
            if f"{_OLD_METADATA}.npy" in self._archive.members:
                said = json.loads(str(self._archive.array(f"{_OLD_METADATA}.npy")[()]))
                metadata, dtypes = said["metadata"], said["dtypes"]
                if not all(isinstance(value, str) for value in (*metadata.values(), *dtypes.values())):
                    raise TypeError
                self.metadata = dict(metadata)
            elif _LONG_METADATA in self._archive.members:
                self.metadata = _metadata_in(self._archive.read(_LONG_METADATA))
            else:
                with contextlib.suppress(ValueError, AttributeError, RecursionError):  # somebody else's words
                    self.metadata = _metadata_in(self._archive.comment)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, FileTrouble):
                raise
            raise FileTrouble(self.name, f"is damaged: its metadata {_NO_METADATA}") from error
        return dtypes

    def read(self, info: TensorInfo, start: int, stop: int) -> Array:
        """Elements start to stop of the tensor in C order, one-dimensional. Raises FileTrouble."""
        if self._open is None or self._open[0] != info.name:
            self._go_to(info)
        assert self._open is not None  # _go_to set it
        if self._turned is not None:
            return self._turned.read(start, stop)
        _, member, header = self._open
        at = header.begin + start * info.dtype.itemsize
        if not member.move_to(at):
            self._go_to(info)
            return self.read(info, start, stop)
        values = np.empty(stop - start, info.dtype)
        member.readinto(memoryview(values.view(np.uint8).data))
        return values

    def _go_to(self, info: TensorInfo) -> None:
        self._let_go()
        self._open = (info.name, *self._archive.header(f"{info.name}.npy"))
        if info.name in self._fortran:
            self._turned = Turned(*self._open[1:])

    def _let_go(self) -> None:
        if self._turned is not None:
            self._turned.close()
        self._open = self._turned = None

    def close(self) -> None:
        self._let_go()
        self._archive.close()


def _metadata_in(text: bytes) -> dict[str, str]:
    """Texts by name; our own entry is JSON within the JSON, so that a reader sees it plainly."""
    said = json.loads(text)
    return {
        str(key): value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        for key, value in said.items()
    }


class NpzWriter(CheckpointWriter):
    """Writes an uncompressed .npz as `np.savez` does, but by slices and without a clock in it."""

    def __init__(
        self, out: BinaryIO, name: str, infos: Sequence[TensorInfo], metadata: Mapping[str, str]
    ) -> None:
        """Raises FileTrouble for a name that the format lacks."""
        self.order = sorted(infos, key=lambda info: info.name)
        if any(info.name == _OLD_METADATA for info in infos):
            raise FileTrouble(
                name, f"{_OLD_METADATA!r} can't be a tensor's name in .npz", "write .safetensors"
            )
        said: dict[str, Any] = dict(metadata)
        if METADATA_KEY in said:
            said[METADATA_KEY] = json.loads(said[METADATA_KEY])
        self._comment = json.dumps(said, sort_keys=True).encode() if said else b""
        self._archive = ArchiveWriter(out, name)
        self._tensor: str | None = None

    def write(self, info: TensorInfo, values: Array) -> None:
        """The next values of the tensor, in C order whatever their strides. Raises FileTrouble."""
        if info.name != self._tensor:
            self._tensor = info.name
            named = info.dtype.name.encode() if info.dtype.kind == "V" else b""
            self._archive.begin_array(f"{info.name}.npy", info.dtype, info.shape, named)
        self._archive.write(values)

    def close(self, *, complete: bool) -> None:
        """Write the metadata and the directory. Raises FileTrouble."""
        try:
            if complete:
                self._write_metadata()
        except BaseException:
            self._archive.close(complete=False)
            raise
        self._archive.close(complete=complete)

    def _write_metadata(self) -> None:
        if len(self._comment) <= MOST_COMMENT:
            self._archive.comment = self._comment
        else:
            self._archive.begin(_LONG_METADATA)
            self._archive.write(self._comment)
