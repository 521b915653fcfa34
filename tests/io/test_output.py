"""Everything is written, whatever a file or pipe takes at once."""

from __future__ import annotations

import errno
import os
import random
import threading
from pathlib import Path

import numpy as np
import pytest

from ema_cli.errors import FileTrouble
from ema_cli.io import output
from ema_cli.io.output import Output, wait_until_ready, write_all


class Reluctant:
    """Takes a few bytes at a time, and now and then none."""

    def __init__(self, seed: int) -> None:
        self.chance, self.taken = random.Random(seed), b""

    def write(self, data: memoryview) -> int | None:
        if self.chance.random() < 0.3:
            return None
        part = bytes(data[: self.chance.randrange(1, 9)])
        self.taken += part
        return len(part)


@pytest.mark.parametrize("seed", range(5))
def test_all_is_written_in_order(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "_PAUSE", 0)
    out, data = Reluctant(seed), bytes(range(256)) * 3
    assert write_all(out, data) == len(data)
    assert write_all(out, np.arange(4, dtype=np.uint16).data) == 8
    assert write_all(out, b"") == 0
    assert out.taken == data + np.arange(4, dtype=np.uint16).tobytes()


def test_a_pipe_that_is_full_is_waited_for() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    data, got = os.urandom(1 << 20), bytearray()

    def drain() -> None:
        while len(got) < len(data):
            got.extend(os.read(read, 1 << 16))

    thread = threading.Thread(target=drain)
    thread.start()
    with os.fdopen(write, "wb", buffering=0) as out:
        assert write_all(out, data) == len(data)
        thread.join(20)
        assert bytes(got) == data
    os.close(read)


def test_waiting_where_the_system_can_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows select takes sockets only."""

    def refuse(*_: object) -> None:
        raise OSError(10038, "not a socket")

    slept: list[float] = []
    monkeypatch.setattr(output.select, "select", refuse)
    monkeypatch.setattr(output.time, "sleep", slept.append)
    wait_until_ready(object(), writing=True)
    assert slept == [output._PAUSE]


class Failing:
    def __init__(self, number: int, fileno: int) -> None:
        self.number, self.fileno = number, lambda: fileno

    def write(self, _: object) -> int:
        raise OSError(self.number, os.strerror(self.number))


def test_windows_says_invalid_argument_of_a_closed_pipe(tmp_path: Path) -> None:
    read, write = os.pipe()
    with pytest.raises(BrokenPipeError):
        write_all(Failing(errno.EINVAL, write), b"x")
    os.close(read)
    os.close(write)
    with (tmp_path / "file").open("wb") as file, pytest.raises(OSError, match="nvalid argument") as caught:
        write_all(Failing(errno.EINVAL, file.fileno()), b"x")
    assert not isinstance(caught.value, BrokenPipeError)


def test_a_full_disk_in_words() -> None:
    with pytest.raises(FileTrouble, match=r"big.csv: no space left(.|\n)*make room"):
        Output(Failing(errno.ENOSPC, 1), "big.csv").write(b"x")  # type: ignore[arg-type]
