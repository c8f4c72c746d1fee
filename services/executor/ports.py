"""Connections to ports inside. The agent opens them; it is not believed, and may keep its end.

So a descriptor is checked, and never trusted not to block: whoever has it too may change that.
"""

import asyncio
import errno
import os
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from agent.client import AgentError, ErrorCode
from services.executor.agents import Agents
from services.executor.errors import (
    AgentTooOld,
    AgentUnavailable,
    PortLimit,
    PortNotListening,
    PortReset,
)

PIECE: Final = 64 << 10
"""Bytes read at once at most."""

_MOST: Final = 64
"""Connections of one environment."""
_PATIENCE: Final = 10.0
"""Seconds in which whoever listens must take a connection: its queue may be full."""
_NETNS_COOKIE: Final = 71
_HOSTS: Final = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
_BUSY: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ETOOMANYREFS)


class Connection:
    """One connection; one reader and one writer at a time."""

    def __init__(self, sock: socket.socket, port: int) -> None:
        self._socket = sock
        self._port = port
        self._loop = asyncio.get_running_loop()
        self.whole = False
        """Set when both sides have ended: else closing it is a reset."""

    async def read(self) -> bytes:
        """What comes, at most PIECE; nothing at its end. Raises PortReset."""
        while True:
            try:
                return self._socket.recv(PIECE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                await self._until(self._loop.add_reader, self._loop.remove_reader)
            except OSError as error:
                raise self._reset() from error

    async def write(self, data: bytes) -> None:
        """Returns when the kernel has all of it. Raises PortReset."""
        flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view, flags) :]
            except BlockingIOError:
                await self._until(self._loop.add_writer, self._loop.remove_writer)
            except OSError as error:
                raise self._reset() from error

    def end(self) -> None:
        """Nothing more is written."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    async def arrived(self, host: str) -> bool:
        """Wait until it is there; false when nobody takes it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await self._until(self._loop.add_writer, self._loop.remove_writer)
                try:
                    self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    return bool(self._socket.getpeername()[:2] == (host, self._port))
                except OSError:
                    return False
        return False

    def close(self) -> None:
        # Without this it could wait for the other side.
        linger = struct.pack("ii", int(not self.whole), 0)
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._socket.close()

    async def _until(
        self, add: Callable[..., object], remove: Callable[[socket.socket], object]
    ) -> None:
        ready = asyncio.Event()
        add(self._socket, ready.set)
        try:
            await ready.wait()
        finally:
            remove(self._socket)

    def _reset(self) -> PortReset:
        return PortReset("the program inside broke off", port=str(self._port))


class Ports:
    """Opens connections to ports of environments."""

    def __init__(self, agents: Agents) -> None:
        self._agents = agents
        self._open: Counter[str] = Counter()

    @asynccontextmanager
    async def connected(self, uid: str, port: int) -> AsyncIterator[Connection]:
        """A connection while the block runs.

        Raises PortNotListening, PortLimit, AgentTooOld, and what awakes nobody.
        """
        if self._open[uid] >= _MOST:
            raise PortLimit("too many connections", limit=str(_MOST))
        self._open[uid] += 1
        connection: Connection | None = None
        try:
            for family, host in _HOSTS.items():
                connection = await self._connection(uid, port, family)
                if connection and await connection.arrived(host):
                    yield connection
                    return
                if connection:
                    connection.close()
                    connection = None
            raise PortNotListening("nothing listens on the port", port=str(port))
        finally:
            if connection:
                connection.close()
            self._open[uid] -= 1
            if not self._open[uid]:
                del self._open[uid]

    async def _connection(
        self, uid: str, port: int, family: socket.AddressFamily
    ) -> Connection | None:
        """One that is on its way; None when it cannot be."""
        async with self._agents.awake(uid) as agent:
            try:
                descriptor = await agent.connect_port(port, six=family == socket.AF_INET6)
            except AgentError as error:
                if error.code is ErrorCode.BAD_REQUEST:
                    raise AgentTooOld("the agent cannot open ports", uid=uid) from error
                if error.errno in _BUSY:
                    raise AgentUnavailable("the agent cannot open it now", uid=uid) from error
                return None
        found = checked(descriptor, family)
        if found is None:
            raise AgentUnavailable("the agent opened something else", uid=uid)
        return Connection(found, port)


def checked(descriptor: int, family: socket.AddressFamily) -> socket.socket | None:
    """The descriptor as a TCP socket of another network than ours; else it is closed."""
    try:
        found = socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        return None
    kind = found.family, found.type, found.proto
    wanted = family, socket.SOCK_STREAM, socket.IPPROTO_TCP
    try:
        listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if kind == wanted and not listens and not _ours(found):
            return found
    except OSError:
        pass
    found.close()
    return None


def _ours(found: socket.socket) -> bool:
    """Whether it is in our own network namespace. Raises OSError where the kernel cannot tell."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        cookies = [each.getsockopt(socket.SOL_SOCKET, _NETNS_COOKIE, 8) for each in (own, found)]
    return cookies[0] == cookies[1]
