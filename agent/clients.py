"""Clients of a socket in an event loop: who comes, what they are sent, and when they have gone."""

import asyncio
import socket
import struct
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Final

from agent.inside.connection import EXHAUSTED, REST, Connection

_CREDENTIALS: Final = struct.Struct("3i")


class Clients:
    """Accepts who is one of `users`, at most `most` at once.

    `came` is called when a client may have sent something, `gone` when one has ended.
    """

    def __init__(
        self,
        listener: socket.socket,
        users: Collection[int],
        most: int,
        came: Callable[[Connection], object],
        gone: Callable[[Connection], object] = lambda _: None,
    ) -> None:
        self._listener = listener
        self._users = users
        self._most = most
        self._came = came
        self._gone = gone
        self._loop = asyncio.get_running_loop()
        self._descriptors: dict[Connection, int] = {}
        """Of their sockets, also when these are closed: only then they are taken from the loop."""
        self._resting: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        self._loop.add_reader(listener, self._accept)

    def __contains__(self, client: Connection) -> bool:
        return client in self._descriptors

    def __len__(self) -> int:
        return len(self._descriptors)

    def shut(self) -> None:
        """Take no more."""
        if self._resting:
            self._resting.cancel()
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)
            self._listener.close()

    def close(self) -> None:
        """Take no more, and end those that are here."""
        self.shut()
        for client in list(self._descriptors):
            self._drop(client)

    def look(self, client: Connection) -> None:
        """To be called after whatever may have been sent to it, so that all of it goes out; and
        whoever has gone is forgotten."""
        if not client.open:
            self._drop(client)
        elif client.sending and client in self._descriptors:
            self._loop.add_writer(self._descriptors[client], self._writable, client)

    def _accept(self) -> None:
        try:
            accepted, _ = self._listener.accept()
        except OSError as error:
            if error.errno in EXHAUSTED:
                # Whoever waits stays there, so that the loop would come back at once.
                self._loop.remove_reader(self._listener)
                self._resting = self._loop.call_later(REST, self._again)
            return
        told = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, user, _ = _CREDENTIALS.unpack(told)
        if user not in self._users or len(self._descriptors) >= self._most:
            accepted.close()
            return
        client = Connection(accepted)
        self._descriptors[client] = accepted.fileno()
        self._loop.add_reader(accepted, self._receive, client)

    def _again(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener, self._accept)

    def _receive(self, client: Connection) -> None:
        self._came(client)
        self.look(client)

    def _writable(self, client: Connection) -> None:
        client.flush()
        if client.open and not client.sending:
            self._loop.remove_writer(self._descriptors[client])
        self.look(client)

    def _drop(self, client: Connection) -> None:
        descriptor = self._descriptors.pop(client, None)
        if descriptor is None:
            return
        with suppress(OSError):  # It is closed, and was waited for in both ways.
            self._loop.remove_reader(descriptor)
        self._loop.remove_writer(descriptor)
        client.close()
        self._gone(client)
