"""Talks to the stand-in of a driver, as the provider does."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Self

from agent import PROTOCOL_VERSION, protocol
from agent.channel import Channel, PeerGone, PeerTooOld
from agent.verbs import ask

__all__ = ["PeerGone", "PeerTooOld", "StandinClient", "StandinError"]

_TIMEOUT: Final = 10.0


class StandinError(Exception):
    """It was refused. `reason` is the driver's own word for why."""

    def __init__(self, said: str) -> None:
        try:
            told = protocol.decode(said.encode())
        except ValueError:
            told = {"message": said}
        super().__init__(str(told.get("message", "unknown")))
        self.reason = str(told.get("reason", ""))
        self.remedy = str(told.get("remedy", ""))


class StandinClient:
    """A connection. Every request is idempotent by uid."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    @classmethod
    @asynccontextmanager
    async def connect(cls, path: Path) -> AsyncIterator[Self]:
        """To the one at `path`, which must be root's or ours. Raises PeerGone, PeerTooOld."""
        async with Channel.open(path, _TIMEOUT) as channel:
            client = cls(channel)
            found = await client.ask("hello")
            if channel.uid not in (0, os.getuid()):
                raise PeerGone("somebody else answered")
            if found.get("version") != PROTOCOL_VERSION:
                raise PeerTooOld(f"the stand-in speaks version {found.get('version')}")
            yield client

    async def ask(self, verb: str, timeout: float = _TIMEOUT, **arguments: Any) -> dict[str, Any]:
        """Its answer. Raises StandinError, PeerGone."""
        return await ask(self._channel, StandinError, verb, timeout, (), **arguments)
