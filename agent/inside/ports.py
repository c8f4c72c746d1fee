"""Connections to ports of the sandbox's own localhost."""

from _socket import AF_INET, AF_INET6, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM, socket

_PORTS = range(1, 65536)


def connecting(port: bytes, six: bytes) -> int:
    """A descriptor of a connection on its way: who gets it waits. Raises OSError, ValueError."""
    if int(port) not in _PORTS:
        raise ValueError("not a port")
    family, host = (AF_INET6, "::1") if six != b"0" else (AF_INET, "127.0.0.1")
    made = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK)
    try:
        made.connect((host, int(port)))
    except BlockingIOError:
        return made.detach()
    except BaseException:
        made.close()
        raise
    return made.detach()
