"""Passes on the body of one request, and not a byte of what comes after it."""

import re
from collections.abc import Awaitable, Callable
from typing import Final

from agent.egress.request import BadRequestError

_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,12})[ \t]*(?:;[\t\x20-\x7e]*)?")
_LONGEST_LINE: Final = 256
_PIECE: Final = 32 << 10

Receive = Callable[[int], Awaitable[bytes]]
Send = Callable[[bytes], Awaitable[None]]


class Incoming:
    """What a client sends, beginning with what was read already."""

    def __init__(self, receive: Receive, begun: bytes) -> None:
        self._receive = receive
        self._begun = begun

    async def some(self, most: int = _PIECE) -> bytes:
        """At most so many bytes; none at the end."""
        if self._begun:
            data, self._begun = self._begun[:most], self._begun[most:]
            return data
        return await self._receive(min(most, _PIECE))

    async def line(self) -> bytes:
        """Up to CR LF, without it. Raises BadRequestError."""
        while b"\r\n" not in self._begun:
            if len(self._begun) > _LONGEST_LINE:
                raise BadRequestError("a malformed chunk")
            data = await self._receive(_LONGEST_LINE)
            if not data:
                raise BadRequestError("the body broke off")
            self._begun += data
        line, _, self._begun = self._begun.partition(b"\r\n")
        return line


async def pass_on(incoming: Incoming, length: int | None, send: Send) -> None:
    """Raises BadRequestError when the body is malformed or breaks off."""
    if length is not None:
        await _exactly(incoming, length, send)
        return
    while size := _size(await incoming.line()):
        await send(b"%x\r\n" % size)
        await _exactly(incoming, size, send)
        await send(b"\r\n")
        if await incoming.line():
            raise BadRequestError("a malformed chunk")
    while await incoming.line():  # Trailers are nobody's here, and none is passed on.
        pass
    await send(b"0\r\n\r\n")


async def _exactly(incoming: Incoming, length: int, send: Send) -> None:
    left = length
    while left:
        data = await incoming.some(min(left, _PIECE))
        if not data:
            raise BadRequestError("the body broke off")
        await send(data)
        left -= len(data)


def _size(line: bytes) -> int:
    found = _SIZE.fullmatch(line)
    if not found:
        raise BadRequestError("a malformed chunk")
    return int(found[1], 16)
