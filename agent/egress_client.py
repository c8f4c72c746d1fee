"""Talks to the proxy of this node."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from agent import PROTOCOL_VERSION
from agent.channel import Channel, PeerGone, PeerTooOld
from agent.egress import EGRESS_UID
from agent.verbs import ask

__all__ = ["EgressClient", "EgressError", "PeerGone", "PeerTooOld", "WayOut"]

_TIMEOUT: Final = 10.0


class EgressError(Exception):
    """The proxy refused; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WayOut:
    """What the sandbox of `uid` may reach."""

    uid: str
    rules: Sequence[tuple[str, Sequence[int]]]
    """Hosts, as `egress.policy.Rule` has them, and ports."""
    networks: Sequence[str] = ()
    """Addresses that are not public and may be reached all the same, by hosts that are named."""
    request_id: str = ""
    """Of the call it comes from, for the log."""


class EgressClient:
    """A connection to the proxy. What it serves goes on when the connection ends."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, path: Path, uid: int | None = None, timeout: float = _TIMEOUT
    ) -> AsyncIterator[Self]:
        """Connect to the proxy at `path`, which was started by root or `uid` (default: us).

        Raises PeerGone when it is away, EgressError when it cannot work on this host.
        """
        async with Channel.open(path, timeout) as channel:
            client = cls(channel)
            facts = await client._ask("hello")
            if channel.uid not in (0, EGRESS_UID, os.getuid() if uid is None else uid):
                raise PeerGone("somebody else answered")
            if facts.get("version") != PROTOCOL_VERSION:
                raise PeerTooOld(f"the proxy speaks version {facts.get('version')}")
            if not facts.get("available"):
                raise EgressError("it needs Linux 5.14 or newer")
            yield client

    async def gone(self) -> None:
        """Returns when the connection has ended."""
        await self._channel.gone.wait()

    async def open(self, way: WayOut, pid: int, descriptors: tuple[int, int]) -> int:
        """Put a policy in force; says how many connections it cut. Idempotent.

        `pid` is the agent's, `descriptors` its listener and its pidfd; they stay the caller's.
        """
        rules = [{"host": host, "ports": list(ports)} for host, ports in way.rules]
        answer = await self._ask(
            "open",
            descriptors,
            uid=way.uid,
            pid=pid,
            rules=rules,
            networks=list(way.networks),
            request_id=way.request_id,
        )
        return int(answer["cut"])

    async def close(self, uid: str) -> bool:
        """Cut all that is open and let nothing out any more; false when there was no way out."""
        return bool((await self._ask("close", uid=uid))["found"])

    async def list(self) -> tuple[str, ...]:
        """The uids that have a way out."""
        return tuple((await self._ask("list"))["uids"])

    async def _ask(
        self, verb: str, descriptors: Sequence[int] = (), **arguments: Any
    ) -> dict[str, Any]:
        return await ask(self._channel, EgressError, verb, _TIMEOUT, descriptors, **arguments)
