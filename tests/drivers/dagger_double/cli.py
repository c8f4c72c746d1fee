"""The doubled CLI: finds the engine, says where it is to be spoken to, ends with its input.

Standard library only, as there are many of it.
"""

import array
import contextlib
import json
import os
import secrets
import select
import socket
import sys
import time

_WAIT = 0.2
"""Seconds for which an engine that has forgotten the session waits for what the CLI had: 10."""
_FORGOTTEN = json.dumps(
    {"errors": [{"message": 'waiting for client session attachables for client "x": timeout'}]}
).encode()


def session() -> int:
    address = os.environ["_EXPERIMENTAL_DAGGER_RUNNER_HOST"].removeprefix("unix://")
    os.write(2, b"connecting to engine\n")
    engine = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    while True:
        try:
            engine.connect(address)
            break
        except OSError:  # As the real one, for 10 minutes.
            if select.select([0], [], [], 0.05)[0] and not os.read(0, 1):
                return 1
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    token = secrets.token_hex(16)
    rights = array.array("i", [listener.fileno()]).tobytes()
    engine.sendmsg([token.encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    if engine.recv(64) != b"ready":
        return 1
    told = {"port": listener.getsockname()[1], "session_token": token}
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    watched: list[socket.socket | int] = [0, engine]
    while True:
        ready = select.select(watched, [], [])[0]
        if 0 in ready and not os.read(0, 4096):
            return 0
        if engine in ready and not engine.recv(64):
            watched = [0, listener]
            engine = listener
        elif listener in ready:
            _forgotten(listener)


def _forgotten(listener: socket.socket) -> None:
    """The engine restarted, and nothing connects this process to it again."""
    with contextlib.suppress(OSError), listener.accept()[0] as client:
        client.settimeout(2.0)
        client.recv(1 << 20)
        time.sleep(_WAIT)
        head = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        client.sendall(head % len(_FORGOTTEN) + _FORGOTTEN)
