"""Runs commands for the tests as forks of one process that has imported everything already.

A new Python spends most of a command's time on importing NumPy and Arrow, and the suite runs thousands of
commands. Each test process starts one server; a command is a fork of it, with a folder, an environment and
streams of its own. `forkclient.py` is a command for shells. Tests of how a process starts, is signalled or is
watched start a real one (`Workshop.start`).
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
PARTS = 1 << 16


class ForkServer:
    """The client's side; `run` is what `subprocess.run` is."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.folder = tempfile.mkdtemp(prefix="ema-forks-")
        self.socket = f"{self.folder}/socket"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.socket)
            listener.listen(64)
            command = [sys.executable, __file__, str(listener.fileno())]
            self.process = subprocess.Popen(
                command, env=environment, pass_fds=[listener.fileno()], cwd=ROOT, stdin=subprocess.PIPE
            )

    def run(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        stdin: bytes,
        timeout: float,
    ) -> tuple[int, bytes, bytes]:
        """ema-smooth's exit code (negative: the signal that ended it), stdout and stderr."""
        request = json.dumps(["ema-smooth", list(arguments), str(folder), dict(environment)]).encode()
        pipes = [os.pipe() for _ in range(3)]
        theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
        outputs = [bytearray(), bytearray()]
        threads = [threading.Thread(target=_feed, args=(pipes[0][1], stdin), daemon=True)]
        threads += [
            threading.Thread(target=_drain, args=(pipes[k + 1][0], outputs[k]), daemon=True) for k in range(2)
        ]
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            connection.connect(self.socket)
            socket.send_fds(connection, [len(request).to_bytes(8, "big")], theirs)
            connection.sendall(request)
            for file in theirs:
                os.close(file)
            for thread in threads:
                thread.start()
            code = int.from_bytes(_exactly(connection, 8), "big", signed=True)
        for thread in threads:
            thread.join(timeout)
        return code, bytes(outputs[0]), bytes(outputs[1])

    def script(self, path: Path, program: str) -> None:
        """Write a script that is `program` for a shell."""
        client = Path(__file__).with_name("forkclient.py")
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -SE "{client}" "{self.socket}" {program} "$@"\n')
        path.chmod(0o755)

    def close(self) -> None:
        """The server ends with its stdin, and so does it if the test process is killed."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)


def _feed(file: int, data: bytes) -> None:
    with os.fdopen(file, "wb", buffering=0) as pipe:
        view = memoryview(data)
        try:
            while view:
                view = view[pipe.write(view) :]
        except BrokenPipeError:
            pass  # the command wants no more


def _drain(file: int, into: bytearray) -> None:
    with os.fdopen(file, "rb", buffering=0) as pipe:
        while data := pipe.read(PARTS):
            into += data


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data


# -- the server's side


def serve(listener: socket.socket) -> NoReturn:
    """A fork for each connection, so that commands of one pipeline run side by side."""
    from ema_cli.process import set_process_defaults

    set_process_defaults()
    import ema_cli.cli
    import ema_cli.formats.text
    import ema_cli.observing
    import ema_cli.run.describe
    import ema_cli.run.pipeline  # noqa: F401

    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    while True:
        connection, _ = listener.accept()
        if not os.fork():
            listener.close()
            _handle(connection)
        connection.close()


def _end_with_stdin() -> None:
    os.read(0, 1)
    os._exit(0)


def _handle(connection: socket.socket) -> NoReturn:
    """One request: fork the command, and tell how it ended."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        head, files, _, _ = socket.recv_fds(connection, 8, 3)
        head += _exactly(connection, 8 - len(head))
        request = json.loads(_exactly(connection, int.from_bytes(head, "big")))
        child = os.fork()
        if not child:
            connection.close()
            _be_command(*request, files)
        for file in files:
            os.close(file)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        connection.sendall(code.to_bytes(8, "big", signed=True))
    finally:
        os._exit(0)


def _be_command(
    program: str, arguments: list[str], folder: str, environment: dict[str, str], files: list[int]
) -> NoReturn:
    """What a new Python with `-m ema_cli` would be."""
    try:
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.stdin = open(0, closefd=False, encoding="utf-8")
        sys.stdout = open(1, "w", closefd=False, encoding="utf-8")
        sys.stderr = open(2, "w", closefd=False, encoding="utf-8", errors="backslashreplace")
        sys.argv = [program, *arguments]
        if program == "ema-weights":
            from ema_cli.weights_cli import main
        else:
            from ema_cli.__main__ import main
        main()
    except BaseException:
        traceback.print_exc()
    os._exit(1)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    with socket.socket(fileno=int(sys.argv[1])) as listening:
        serve(listening)
