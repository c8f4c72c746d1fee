"""Passes requests about files on to a real agent, descriptors and all."""

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from agent import frames
from agent.channel import Channel, PeerGone, PeerTooOld
from agent.inside.connection import Connection
from agent.standin.runner import Refused

_CONNECT: Final = 10.0
_ANSWER: Final = 300.0


class Relay:
    """One client's connection to the agent at `path`: what that started for it ends with it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._channel: Channel | None = None

    async def ask(
        self, client: Connection, kind: int, number: int, payload: bytes, descriptors: list[int]
    ) -> None:
        """Have one request answered. Raises Refused when nobody is there to answer."""
        try:
            channel = await self._connected()
            reply = await channel.request(kind, payload, _ANSWER, descriptors)
        except (PeerGone, PeerTooOld) as error:
            raise Refused(frames.OS_ERROR, f"no agent for files: {error}", 107) from error
        for each in reply.descriptors[1:]:  # There is never more than one.
            os.close(each)
        first = reply.descriptors[0] if reply.descriptors else -1
        if not client.open:
            if first >= 0:
                os.close(first)
            return
        client.reply(frames.OK if reply.ok else frames.ERROR, number, reply.payload, first)

    async def hold(self) -> None:
        """Be connected: until `close` that agent does not go idle. Raises Refused."""
        try:
            await self._connected()
        except (PeerGone, PeerTooOld) as error:
            raise Refused(frames.OS_ERROR, str(error), 107) from error

    async def leave(self) -> None:
        """Have that agent end, if it has nothing to do. Raises Refused."""
        try:
            channel = await self._connected()
            await channel.request(frames.LEAVE, b"", _CONNECT)
        except (PeerGone, PeerTooOld) as error:
            raise Refused(frames.OS_ERROR, str(error), 107) from error

    async def close(self) -> None:
        await self._stack.aclose()

    async def _connected(self) -> Channel:
        async with self._opening:
            if self._channel is None or self._channel.gone.is_set():
                await self._stack.aclose()
                self._channel = await self._stack.enter_async_context(
                    Channel.open(self._path, _CONNECT)
                )
            return self._channel
