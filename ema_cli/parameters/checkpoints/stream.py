"""What every checkpoint reader and writer is: tensors by name, values in flat slices."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import BinaryIO, Protocol, Self

from ema_cli.errors import FileTrouble
from ema_cli.io.atomic import system_words
from ema_cli.parameters.tensors import Array, TensorInfo

# The one key of a checkpoint's metadata that is ours; its value is JSON.
METADATA_KEY = "ema_smooth"


class Checkpoint(Protocol):
    """An open checkpoint. `tensors` by name in the file's order; `others`: names of what is no tensor.

    keys: where the file holds dicts of tensors beside other things, the names of those dicts.
    """

    name: str

    # Properties, as a protocol's plain attributes would have to be of these very types.
    @property
    def tensors(self) -> Mapping[str, TensorInfo]: ...

    @property
    def metadata(self) -> Mapping[str, str]: ...

    @property
    def others(self) -> Sequence[str]: ...

    @property
    def keys(self) -> Sequence[str]: ...

    def read(self, info: TensorInfo, start: int, stop: int) -> Array:
        """Elements start to stop of the tensor in C order, one-dimensional. Raises FileTrouble."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class CheckpointWriter(Protocol):
    """Writes tensors one after the other, each in one piece or several, best in the order of `order`."""

    @property
    def order(self) -> Sequence[TensorInfo]: ...

    def write(self, info: TensorInfo, values: Array) -> None:
        """The next values of the tensor, in C order, of its dtype. Raises FileTrouble."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class NothingToClose:
    """The context manager of a reader or writer that holds no file open between its calls."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class WholeWrites(io.RawIOBase):
    """A raw file whose `write` writes all it is given, and whose troubles name the file."""

    def __init__(self, out: BinaryIO, name: str) -> None:
        super().__init__()
        self._out = out
        self._name = name
        self._given_up = False

    def give_up(self) -> None:
        """Let all that is still written go nowhere: the file is thrown away, and may be closed by now."""
        self._given_up = True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._out.seekable()

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return 0 if self._given_up else self._out.seek(offset, whence)

    def tell(self) -> int:
        return 0 if self._given_up else self._out.tell()

    def write(self, data: object, /) -> int:
        left = memoryview(data)  # type: ignore[arg-type]
        if left.nbytes == 0:
            return 0
        left = left.cast("B")
        total = len(left)
        if self._given_up:
            return total
        try:
            while left:
                left = left[self._out.write(left) :]
        except BrokenPipeError:
            raise  # a closed pipe is the reader's choice, no trouble with a file
        except OSError as error:
            raise FileTrouble(self._name, system_words(error)) from error
        return total
