"""What changes below a directory, told by a helper inside; nothing is kept for who is slow."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final, TypeAlias

from agent import frames
from agent.client import AgentClient
from services.executor.errors import AgentUnavailable
from services.executor.files.files import shown
from services.executor.files.helper import Helpers

_FIELDS: Final = 4


@dataclass(frozen=True, slots=True)
class Changed:
    """One change: `kind` is CREATED, MODIFIED, REMOVED, MOVED, OVERFLOW or GONE of `frames`."""

    kind: int
    directory: bool
    path: bytes
    before: bytes


@dataclass(frozen=True, slots=True)
class Started:
    """What changes from now on is told."""


@dataclass(frozen=True, slots=True)
class Beat:
    """Nothing happened for a while."""


Event: TypeAlias = Started | Changed | Beat


class Watches:
    """`heartbeat` in seconds."""

    def __init__(self, helpers: Helpers, heartbeat: float) -> None:
        self._helpers = helpers
        self._heartbeat = heartbeat

    async def watch(self, uid: str, path: bytes) -> AsyncGenerator[Event, None]:
        """Ends after a change of kind GONE. Raises what the helper was refused."""

        async def begin(agent: AgentClient, _: int, control: int) -> int:
            return await agent.watch(path, control)

        async with self._helpers.helper(uid, begin) as helper:
            started = False
            while True:
                packet = asyncio.ensure_future(helper.changes(shown(path)))
                try:
                    while not (await asyncio.wait((packet,), timeout=self._heartbeat))[0]:
                        yield Beat()
                finally:
                    packet.cancel()
                changes = _changes(uid, packet.result())
                if not started:
                    started = True
                    yield Started()
                for change in changes:
                    yield change
                    if change.kind == frames.GONE:
                        return


def _changes(uid: str, fields: list[bytes]) -> list[Changed]:
    try:
        rows = [fields[at : at + _FIELDS] for at in range(0, len(fields), _FIELDS)]
        found = [
            Changed(int(kind), directory != b"0", path, before)
            for kind, directory, path, before in rows
        ]
    except ValueError as error:
        raise AgentUnavailable("the helper says nonsense", uid=uid) from error
    if not all(frames.CREATED <= each.kind <= frames.GONE for each in found):
        raise AgentUnavailable("the helper says nonsense", uid=uid)
    return found
