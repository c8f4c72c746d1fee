"""Talks to the launcher of this node."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Self

from agent import PROTOCOL_VERSION, SANDBOX_UID
from agent.channel import Channel, PeerGone, PeerTooOld
from agent.client import AgentClient
from agent.protocol import SPEC_VERSION, Facts, Mode, SandboxSpec, SandboxStatus, State
from agent.verbs import ask

__all__ = ["LauncherClient", "LauncherError", "PeerGone", "PeerTooOld", "ProbeFailed"]

_TIMEOUT: Final = 10.0
_PAGE: Final = 500
"""Sandboxes in one answer, which has a limit."""
_PROBE: Final = "probe"
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz234567"
_LOOK: Final = 0.02
_LOOKS: Final = 100


class LauncherError(Exception):
    """The launcher refused or failed; the message says why."""


class ProbeFailed(Exception):
    """No sandbox can be made on this host. The message holds cause and remedy."""


class LauncherClient:
    """A connection to the launcher. Every request is idempotent by uid."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, path: Path, uid: int | None = None, timeout: float = _TIMEOUT
    ) -> AsyncIterator[Self]:
        """Connect to the launcher at `path`, which must be root's or of `uid` (default: ours).

        Raises PeerGone when it is away.
        """
        async with Channel.open(path, timeout) as channel:
            client = cls(channel)
            facts = await client.facts()
            if channel.uid not in (0, os.getuid() if uid is None else uid):
                raise PeerGone("somebody else answered")
            if facts.version != PROTOCOL_VERSION:
                raise PeerTooOld(f"the launcher speaks version {facts.version}")
            yield client

    async def facts(self) -> Facts:
        """What is enforced here, and how; nothing is tried."""
        return Facts.from_json(await self._ask("facts", spec=SPEC_VERSION))

    async def probe(self) -> Facts:
        """Start a sandbox, hear its agent, and remove it. Raises ProbeFailed with the remedy.

        Any number of probes may be made at once. LauncherError is a probe that told nothing.
        """
        facts = await self.facts()
        if facts.problem:
            raise ProbeFailed(facts.problem)
        name = _PROBE + "".join(secrets.choice(_LETTERS) for _ in range(8))
        status = await self.start(SandboxSpec(uid=name, idle_timeout_seconds=30))
        uid = SANDBOX_UID if facts.mode is Mode.ROOT else self._channel.uid
        try:
            async with AgentClient.connect(Path(status.socket), uid):
                return facts
        except PeerGone as error:
            if said := await self.last_words(name):
                raise ProbeFailed(said) from error
            raise LauncherError(f"the agent of a probe does not answer: {error}") from error
        finally:
            await self.kill(name)

    async def start(self, spec: SandboxSpec) -> SandboxStatus:
        """Start a sandbox unless it runs. Does not wait for its agent: connecting to it does.

        When that connect fails, `inspect` has the reason in `error`. Raises LauncherError, also
        for what the launcher is too old to read: `Facts.spec` tells.
        """
        return SandboxStatus.from_json(await self._ask("start", spec=spec.to_json()))

    async def inspect(self, uid: str) -> SandboxStatus:
        """What is there of `uid`; ABSENT when nothing."""
        return SandboxStatus.from_json(await self._ask("inspect", uid=uid))

    async def last_words(self, uid: str) -> str:
        """Why the sandbox of `uid`, whose agent did not answer, ended; empty while it has not."""
        for _ in range(_LOOKS):
            status = await self.inspect(uid)
            if status.state is State.ABSENT:
                return status.error
            await asyncio.sleep(_LOOK)
        return ""

    async def list(self) -> tuple[SandboxStatus, ...]:
        """All sandboxes that are there."""
        found: dict[str, SandboxStatus] = {}
        while True:
            # A launcher of an earlier version tells all at once.
            answer = await self._ask("list", after=max(found, default=""), most=_PAGE)
            statuses = [SandboxStatus.from_json(each) for each in answer["sandboxes"]]
            found.update((each.uid, each) for each in statuses)
            if not (statuses and answer.get("more")):
                return tuple(found.values())

    async def kill(self, uid: str, timeout: float = 30.0) -> bool:
        """Kill a sandbox; true when one was there. Returns when nothing of it is left."""
        return bool((await self._ask("kill", timeout, uid=uid))["found"])

    async def freeze(self, uid: str, seconds: float) -> bool:
        """Hold all processes of a sandbox still; false when there is none. Returns when they are.

        They go on after `seconds`, whatever happens. `Facts.freeze` tells whether a launcher can.
        """
        return bool((await self._ask("freeze", uid=uid, seconds=seconds))["found"])

    async def thaw(self, uid: str) -> bool:
        """Let them go on; false when they were not frozen."""
        return bool((await self._ask("thaw", uid=uid))["thawed"])

    async def shutdown(self, *, stop_sandboxes: bool, timeout: float = 60.0) -> None:
        """End the launcher, and before it all sandboxes where `stop_sandboxes`."""
        await self._ask("shutdown", timeout, stop_sandboxes=stop_sandboxes)

    async def _ask(self, verb: str, timeout: float = _TIMEOUT, **arguments: Any) -> dict[str, Any]:
        return await ask(self._channel, LauncherError, verb, timeout, **arguments)
