"""A command of any shell as a fork of the server: python -SE forkclient.py SOCKET PROGRAM ARGUMENT...

It hands over its own streams, folder and environment, and ends as the command ends.
"""

import json
import os
import signal
import socket
import sys


def ask(path: str, program: str, arguments: list[str], files: list[int]) -> socket.socket:
    """Have the command run; its exit code will come over the connection."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(path)
    folder = os.getcwd()  # noqa: PTH109 - pathlib takes longer to load than all the rest
    request = json.dumps([program, arguments, folder, dict(os.environ)]).encode()
    socket.send_fds(connection, [len(request).to_bytes(8, "big")], files)
    connection.sendall(request)
    return connection


def answer(connection: socket.socket) -> int:
    """How the command ended: its exit code, or minus the number of the signal."""
    data = b""
    while len(data) < 8:
        part = connection.recv(8 - len(data))
        if not part:
            raise EOFError("the fork server is gone")
        data += part
    return int.from_bytes(data, "big", signed=True)


if __name__ == "__main__":
    code = answer(ask(sys.argv[1], sys.argv[2], sys.argv[3:], [0, 1, 2]))
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)
