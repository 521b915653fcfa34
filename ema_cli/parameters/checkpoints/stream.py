"""What every checkpoint reader and writer is: tensors by name, values in flat slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from ema_cli.io.output import Output
from ema_cli.parameters.tensors import Array, TensorInfo

if TYPE_CHECKING:
    from typing_extensions import Buffer

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


class WholeWrites(Output):
    """An output that can be given up: a file that is thrown away, and may be closed before its last write."""

    _given_up = False

    def give_up(self) -> None:
        """Let all that is still written go nowhere."""
        self._given_up = True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return 0 if self._given_up else super().seek(offset, whence)

    def tell(self) -> int:
        return 0 if self._given_up else super().tell()

    def write(self, data: Buffer, /) -> int:
        return memoryview(data).nbytes if self._given_up else super().write(data)
