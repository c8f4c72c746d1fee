"""TLS before HTTP: how many may be at their handshake."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from gateway.rest.exchange import source
from gateway.rest.protocol import Connections
from servicekit.rates import Overloaded, RateLimited
from servicekit.strangers import host_of

_log = logging.getLogger(__name__)

_PAUSE: Final = 1.0
"""Seconds after which it is tried again to take connections, where there is no descriptor left."""


class Greeter:
    """Takes the connections that come to a listener, and lets go at once of those that are too
    many. An asyncio server tells of none before its handshake, of which it begins any number.

    It begins when it is made. A client has so many `seconds` for its handshake.
    """

    def __init__(
        self,
        listener: socket.socket,
        connection: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext,
        seconds: float,
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._connection = connection
        self._context = context
        self._seconds = seconds
        self._connections = Connections()
        """At their handshake."""
        self._tasks = {asyncio.create_task(self._accept())}

    def close(self) -> None:
        """Take nobody any more; handshakes that go on are broken off."""
        for task in self._tasks:
            task.cancel()
        self._listener.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, peer = await loop.sock_accept(self._listener)
            except ConnectionError:
                continue
            except OSError as error:
                _log.error("no connection can be taken: %s", error.strerror)
                await asyncio.sleep(_PAUSE)
                continue
            host = host_of(source({"client": peer[:2]}))
            try:
                self._connections.enter(host)
            except (Overloaded, RateLimited):
                accepted.close()
                continue
            task = asyncio.create_task(self._greet(accepted, host))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _greet(self, accepted: socket.socket, host: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            with suppress(OSError):  # An `SSLError` is one, and so is that it took too long.
                await loop.connect_accepted_socket(
                    self._connection,
                    accepted,
                    ssl=self._context,
                    ssl_handshake_timeout=self._seconds,
                )
        finally:
            self._connections.leave(host)
