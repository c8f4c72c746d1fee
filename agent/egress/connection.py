"""One connection out of a sandbox: one request, then bytes between the two ends.

Nothing is buffered but the piece in hand, so that who does not read holds up the other end and
nobody else.
"""

import asyncio
import socket
from collections.abc import Coroutine
from typing import Any, Final, Protocol

from agent.egress.body import Incoming, pass_on
from agent.egress.names import Address, Host, shown
from agent.egress.request import BadRequestError, Request, parsed

_PIECE: Final = 32 << 10
_LONGEST_HEAD: Final = 16 << 10
_HEAD: Final = 10.0
"""Seconds in which a client must have said what it wants."""
_REACH: Final = 20.0
"""Seconds in which the host must have been found and have answered."""
_TOO_LATE: Final = "not_reachable_in_time"
_IDLE: Final = 300.0
"""Seconds without a byte in either direction."""
_GOODBYE: Final = 2.0
_MOMENT: Final = 1.0
_TEXTS: Final = {400: "Bad Request", 403: "Forbidden", 408: "Request Timeout"} | {
    502: "Bad Gateway",
    504: "Gateway Timeout",
}


class Refused(Exception):
    """Not passed on. `why` is one word for logs and for the client."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


class Ways(Protocol):
    """What a connection needs of its door."""

    def say(self, decision: str, host: Host | str, port: int, why: str) -> None: ...

    async def reach(self, host: Host, port: int) -> tuple[socket.socket, Address]: ...


class Connection:
    def __init__(self, client: socket.socket, door: Ways) -> None:
        self.reached: tuple[Host, int, Address] | None = None
        """Whom it is connected to."""
        self._client = client
        self._door = door
        self._loop = asyncio.get_running_loop()
        self._moved = self._loop.time()
        self._watching: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """To its end. Nothing of either end is open after that."""
        upstream: socket.socket | None = None
        task = asyncio.current_task()
        assert task
        self._watch(task)
        try:
            request, rest = await self._asked()
            upstream, address = await self._reach(request)
            self.reached = request.host, request.port, address
            if request.tunnel:
                await self._tunnel(upstream, rest)
            else:
                await self._exchange(upstream, request, rest)
        except Refused as refused:
            await self._refuse(refused.status, refused.why)
        except BadRequestError as error:
            self._door.say("refused", "", 0, "malformed")
            await self._refuse(400, str(error))
        except OSError:  # One of the two ends is gone.
            return
        finally:
            if self._watching:
                self._watching.cancel()
            self._client.close()
            if upstream:
                upstream.close()

    async def _asked(self) -> tuple[Request, bytes]:
        data = b""
        try:
            async with asyncio.timeout(_HEAD):
                while (end := data.find(b"\r\n\r\n")) < 0:
                    if len(data) > _LONGEST_HEAD:
                        raise BadRequestError("the head of the request is too long")
                    piece = await self._loop.sock_recv(self._client, 4096)
                    if not piece:
                        raise ConnectionError("it has said nothing")
                    data += piece
        except TimeoutError:
            raise Refused(408, "said_nothing_in_time") from None
        return parsed(data[: end + 4]), data[end + 4 :]

    async def _reach(self, request: Request) -> tuple[socket.socket, Address]:
        try:
            async with asyncio.timeout(_REACH):
                return await self._door.reach(request.host, request.port)
        except TimeoutError:
            self._door.say("refused", request.host, request.port, _TOO_LATE)
            raise Refused(504, _TOO_LATE) from None

    async def _tunnel(self, upstream: socket.socket, rest: bytes) -> None:
        await self._send(self._client, b"HTTP/1.1 200 Connection established\r\n\r\n")
        await self._send(upstream, rest)
        await _together(self._copy(self._client, upstream), self._copy(upstream, self._client))

    async def _exchange(self, upstream: socket.socket, request: Request, rest: bytes) -> None:
        """The answer may come, and be all, before the body has."""
        await self._send(upstream, request.head)
        answering = asyncio.create_task(self._copy(upstream, self._client))
        asking = asyncio.create_task(self._ask(upstream, request, rest))
        try:
            await asyncio.wait((asking, answering), return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                await asking
            await answering
        finally:
            await _end(asking, answering)

    async def _ask(self, upstream: socket.socket, request: Request, rest: bytes) -> None:
        """Raises ConnectionError when the client is gone, or asks for a second thing."""

        async def receive(most: int) -> bytes:
            return await self._receive(self._client, most)

        async def send(data: bytes) -> None:
            await self._send(upstream, data)

        incoming = Incoming(receive, rest)
        try:
            await pass_on(incoming, request.length, send)
        except BadRequestError as error:
            raise ConnectionError(str(error)) from error
        while data := await incoming.some():
            if data.strip(b"\r\n"):
                self._door.say("cut", request.host, request.port, "second_request")
                await self._silence()
                raise ConnectionError("a second request")

    async def _silence(self) -> None:
        """Returns when nothing has moved for a moment: what is on its way still arrives."""
        while (left := self._moved + _MOMENT - self._loop.time()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(left)

    async def _copy(self, source: socket.socket, target: socket.socket) -> None:
        while data := await self._receive(source, _PIECE):
            await self._send(target, data)
        target.shutdown(socket.SHUT_WR)

    async def _receive(self, source: socket.socket, most: int) -> bytes:
        await asyncio.sleep(0)  # What is there already comes without a pause for the others.
        data = await self._loop.sock_recv(source, most)
        self._moved = self._loop.time()
        return data

    async def _send(self, target: socket.socket, data: bytes) -> None:
        await self._loop.sock_sendall(target, data)
        self._moved = self._loop.time()

    def _watch(self, task: "asyncio.Task[None]") -> None:
        """End it when nothing has moved for long."""
        left = self._moved + _IDLE - self._loop.time()
        if left <= 0:
            task.cancel()
        else:
            self._watching = self._loop.call_later(left, self._watch, task)

    async def _refuse(self, status: int, why: str) -> None:
        host = "" if self.reached is None else shown(self.reached[0])
        text = f"cove: the way out of this workspace is closed here: {why} {host}".rstrip() + "\n"
        answer = (
            f"HTTP/1.1 {status} {_TEXTS[status]}\r\nX-Cove-Refused: {why}\r\n"
            f"Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(text)}\r\n"
            f"Connection: close\r\n\r\n{text}"
        )
        try:
            async with asyncio.timeout(_GOODBYE):
                await self._loop.sock_sendall(self._client, answer.encode())
                self._client.shutdown(socket.SHUT_WR)
                # What is unread when it is closed would take the answer away.
                while await self._loop.sock_recv(self._client, _PIECE):  # noqa: ASYNC110
                    await asyncio.sleep(0)  # Else the limit above would never come.
        except OSError:
            return


async def _together(*work: Coroutine[Any, Any, None]) -> None:
    """Until all are done, or one has failed."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        await _end(*tasks)


async def _end(*tasks: "asyncio.Task[None]") -> None:
    for each in tasks:
        each.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
