"""Names to addresses, outside of the sandbox, once for each connection."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Final

from agent.egress.names import Address

Resolve = Callable[[str, int], Awaitable[list[Address]]]
"""The addresses of a name, as one would connect to that port. Raises OSError."""

_THREADS: Final = 64


class Resolver:
    """The host's own. A name server that never answers holds up a thread for its time."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, "resolve")

    async def __call__(self, name: str, port: int) -> list[Address]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, _look_up, name, port)


def _look_up(name: str, port: int) -> list[Address]:
    """With a dot at the end first, which keeps the host's search list out of it."""
    kind = {"type": socket.SOCK_STREAM, "proto": socket.IPPROTO_TCP}
    try:
        found = socket.getaddrinfo(f"{name}.", port, **kind)
    except socket.gaierror:
        found = socket.getaddrinfo(name, port, **kind)
    except UnicodeError as error:
        raise OSError("not a name") from error
    return list(dict.fromkeys(ip_address(str(each[4][0]).partition("%")[0]) for each in found))
