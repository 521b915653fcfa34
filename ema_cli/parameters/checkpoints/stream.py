"""What every checkpoint reader and writer is: tensors by name, values in flat slices."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from ema_cli.parameters.tensors import Array, TensorInfo

# The one key of a checkpoint's metadata that is ours; its value is JSON.
METADATA_KEY = "ema_smooth"


class Checkpoint(ABC):
    """An open checkpoint: what its file says of itself, and `read` for the values.

    Attributes
    ----------
    tensors : by name, in the file's order.
    refused : tensors that can be neither averaged nor copied, each with the reason.
    tied : names that stand for the very tensor of another name, which is in `tensors`.
    others : names of what is no tensor.
    keys : where the file holds dicts of tensors beside other things, the names of those dicts.
    metadata : the file's own texts by name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.tensors: dict[str, TensorInfo] = {}
        self.refused: dict[str, str] = {}
        self.tied: dict[str, str] = {}
        self.others: list[str] = []
        self.keys: list[str] = []
        self.metadata: dict[str, str] = {}

    @abstractmethod
    def read(self, info: TensorInfo, start: int, stop: int) -> Array:
        """Elements start to stop of the tensor in C order, one-dimensional. Raises FileTrouble."""

    def read_into(self, room: Array, info: TensorInfo, start: int, stop: int) -> Array:  # noqa: ARG002
        """As `read`, into bytes that are there already where the format can: new ones are paid for twice."""
        return self.read(info, start, stop)

    def close(self) -> None:  # noqa: B027 - most hold no file open between two reads
        """Let go of files and values."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class CheckpointWriter(ABC):
    """Writes tensors one after the other, each in one piece or several, best in the order of `order`."""

    order: Sequence[TensorInfo]

    @abstractmethod
    def write(self, info: TensorInfo, values: Array) -> None:
        """The next values of the tensor, in C order, of its dtype. Raises FileTrouble."""

    def close(self, *, complete: bool) -> None:  # noqa: B027 - some have nothing left to write
        """Write what comes last; where it is not complete, nothing, for the file is thrown away."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(complete=kind is None)
