"""What uvicorn's own protocol has no limit for: how many connections there are, how long a client
takes for its headers, and how long it does not read its answer."""

import asyncio
import json
from collections import Counter
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

from gateway.rest.errors import status_json, status_of
from gateway.rest.exchange import CERTIFICATE, JSON, source
from servicekit.rates import SOON, Overloaded, RateLimited
from servicekit.strangers import host_of
from servicekit.tls import uris

_MOST: Final = 4096
_MOST_OF_A_HOST: Final = 1024


class Connections:
    """Those that are open, by host."""

    def __init__(self, most: int = _MOST, most_of_a_host: int = _MOST_OF_A_HOST) -> None:
        self._most = most
        self._most_of_a_host = most_of_a_host
        self._hosts: Counter[str] = Counter()
        self._open = 0

    def enter(self, host: str) -> None:
        """Raises `Overloaded` and `RateLimited`."""
        if self._open >= self._most:
            raise Overloaded(
                "too many connections are open", retry_after=SOON, limit=str(self._most)
            )
        if self._hosts[host] >= self._most_of_a_host:
            raise RateLimited(
                "too many connections from there are open",
                retry_after=SOON,
                quota="connections",
                limit=str(self._most_of_a_host),
            )
        self._open += 1
        self._hosts[host] += 1

    def leave(self, host: str) -> None:
        self._open -= 1
        self._hosts[host] -= 1
        if not self._hosts[host]:
            del self._hosts[host]


def protocol(connections: Connections, unread: float) -> type[H11Protocol]:
    """Of one server. `unread`: seconds for which a client may take nothing of its answer."""
    return type("Protocol", (_Protocol,), {"connections_": connections, "unread_seconds": unread})


class _Protocol(H11Protocol):
    connections_: ClassVar[Connections]
    unread_seconds: ClassVar[float]

    _head: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _host: str | None = None
    """None: it was not let in."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        peer = transport.get_extra_info("peername")
        if peer is None:  # It is gone already.
            transport.abort()
            return
        host = host_of(source({"client": peer[:2]}))
        try:
            self.connections_.enter(host)
        except (Overloaded, RateLimited) as error:
            transport.write(_refusal(error))
            transport.close()
            return
        self._host = host
        super().connection_made(transport)
        self.app_state = {CERTIFICATE: uris(transport)}
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        if self._host is None:
            return
        super().data_received(data)
        if self.transport.get_protocol() is self:
            self._expect_head()

    def handle_websocket_upgrade(self, event: Any) -> None:
        self._forget_head()
        super().handle_websocket_upgrade(event)
        if (after := self.transport.get_protocol()) is not self:
            self._follow(after)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._host is None:
            return
        super().connection_lost(exc)
        self._ended()
        self._forget_head()
        self._read_again()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(self.unread_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._read_again()

    def _read_again(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _follow(self, after: Any) -> None:
        """Have the connection counted until the one that took it over has lost it."""
        lost = after.connection_lost

        def connection_lost(exc: Exception | None) -> None:
            lost(exc)
            self._ended()

        after.connection_lost = connection_lost

    def _ended(self) -> None:
        if self._host is not None:
            self.connections_.leave(self._host)
            self._host = None

    def _expect_head(self) -> None:
        """More of a head does not buy more time."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget_head()
        elif self._head is None:
            self._head = self.loop.call_later(self.timeout_keep_alive, self._give_up)

    def _forget_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _give_up(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
            # What is left of an answer is not waited for without end.
            self.loop.call_later(self.timeout_keep_alive, self.transport.abort)


def _refusal(error: Overloaded | RateLimited) -> bytes:
    body = json.dumps(status_json(status_of(error))).encode()
    head = (
        f"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-type: {JSON}\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
