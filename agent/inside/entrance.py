"""The first steps in a container, which no launcher has prepared: then it is an agent like any.

Its listener and its lock come through a door, a socket that whoever started the container waits at;
so no name of the listener is visible inside, and the lock is held without a gap.
"""

import os
import struct
import sys
from _socket import (
    AF_UNIX,
    CMSG_SPACE,
    SCM_RIGHTS,
    SOCK_CLOEXEC,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
)

from agent import DOOR
from agent.inside import main as agent
from agent.inside import system

FILTER = "/.cove/lib/seccomp"
_NEITHER_IN_NOR_OUT = os.O_RDWR | os.O_CLOEXEC
_FIRST_FREE = 4
_CLEAR = 100


def enter() -> int:
    """Take what is handed in, close the system call filter, and be the agent. Its exit status."""
    listener, lock = _handed_in()
    nothing = os.open("/dev/null", _NEITHER_IN_NOR_OUT)
    for descriptor, number in ((lock, agent.LOCK), (nothing, 1), (listener, agent.LISTENER)):
        os.dup2(descriptor, number, inheritable=False)
    system.close_from(_FIRST_FREE)
    with open(FILTER, "rb") as file:
        system.filter_calls(file.read())
    return agent.main()


def _handed_in() -> tuple[int, int]:
    """Copies of the two descriptors, where none is overwritten by the other. Raises OSError."""
    import fcntl  # As everywhere here: only where it is needed.

    door = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    door.connect(DOOR)
    data, ancillary, _, _ = door.recvmsg(1, CMSG_SPACE(8))
    for level, kind, content in ancillary:
        if data and (level, kind) == (SOL_SOCKET, SCM_RIGHTS) and len(content) == 8:
            listener, lock = struct.unpack("2i", content)
            duplicate = fcntl.F_DUPFD_CLOEXEC
            return fcntl.fcntl(listener, duplicate, _CLEAR), fcntl.fcntl(lock, duplicate, _CLEAR)
    raise OSError("nobody is at the door")


def main() -> int:
    """As `agent.inside.main`. What fails is told on standard error, which the engine keeps."""
    try:
        return enter()
    except OSError as error:
        os.write(2, f"the agent does not come in: {error}\n".encode())
        return 1


if __name__ == "__main__":
    sys.exit(main())
