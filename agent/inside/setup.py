"""The first program of a container that becomes an image: runs the scripts of a setup, as root.

It is no agent, and is asked nothing. What a script breaks is the image of whoever named it.
"""

import os
import struct
import sys
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_CLOEXEC, SOCK_STREAM, SOL_SOCKET, socket

from agent import DOOR
from agent.inside import system
from agent.inside.entrance import FILTER
from agent.inside.wayout import WayOut

_SHELL = "/bin/sh"
_NO_SHELL = 127
_SIGNALS = 128


def set_up(port: int, scripts: list[str]) -> int:
    """Run them, one after another, until one fails; its code, or 0. Raises OSError.

    With a port something listens there on the loopback, and whoever is at the door has it.
    """
    _come_in(port)
    with open(FILTER, "rb") as file:
        system.filter_calls(file.read())
    for number, script in enumerate(scripts, 1):
        if code := _ran(script):
            os.write(2, f"command {number} of the setup ended with {code}\n".encode())
            return code
    return 0


def _come_in(port: int) -> None:
    """Returns when whoever waits at the door has seen to the way out."""
    door = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    door.connect(DOOR)
    listener = [struct.pack("i", WayOut().open(port))] if port else []
    door.sendmsg([b"."], [(SOL_SOCKET, SCM_RIGHTS, each) for each in listener])
    if not door.recv(1):
        raise OSError("nobody is at the door")
    door.close()


def _ran(script: str) -> int:
    """Its code, as a shell tells it. What it leaves behind ends with us."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        try:
            os.execv(_SHELL, [_SHELL, "-c", script])  # noqa: S606
        except OSError as error:
            os.write(2, f"{_SHELL}: {error.strerror}\n".encode())
        os._exit(_NO_SHELL)
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else _SIGNALS - code


def main() -> int:
    """Arguments: the Python version, which the loader has seen to; a port, or 0; the scripts."""
    _, _, port, *scripts = sys.argv
    try:
        return set_up(int(port), scripts)
    except OSError as error:
        os.write(2, f"the setup does not begin: {error}\n".encode())
        return 1
