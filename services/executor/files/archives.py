"""Archives of an environment's files, in and out. They are made and read inside, by a helper.

So whatever an archive holds, it is read where it can harm its own workspace only, by a process that
may do no more there than a command; the executor moves the bytes, and reads none of them.
"""

import asyncio
import hashlib
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from agent import drafts, frames
from agent.client import AgentClient, AgentError
from services.executor.agents import Agents
from services.executor.background import Background
from services.executor.errors import AgentUnavailable, EnvironmentDormant, WrongFileType
from services.executor.files.drafts import Drafts, Note
from services.executor.files.files import missing, parent, shown, telling
from services.executor.files.helper import Helper, Helpers
from services.executor.files.places import Places
from services.executor.files.writing import join, place_of

T = TypeVar("T")

_ROOTS: Final = (b"", b"/workspace", b"/home/cove", b"/tmp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where an archive is to be unpacked."""

    uid: str
    path: bytes
    make_parents: bool = False


@dataclass(frozen=True, slots=True)
class Counted:
    """What was moved."""

    entries: int
    other: int
    """Bytes of the files of an archive that was unpacked; things left out of one that was made."""


class Outgoing:
    """An archive on its way out."""

    def __init__(self, helper: Helper, path: str, first: bytes) -> None:
        self._helper = helper
        self._path = path
        self._first = first
        self.bytes = 0
        """Sent so far."""

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        piece = self._first
        while piece:
            self.bytes += len(piece)
            yield piece
            piece = await self._helper.read()

    async def end(self) -> Counted:
        """After all pieces. Raises what made it incomplete."""
        return Counted(*await self._helper.told(frames.DONE, self._path))


class Incoming:
    """An archive on its way in. Nothing is in place before `commit`."""

    def __init__(self, helper: Helper, target: Target, stage: bytes, note: Note) -> None:
        self._helper = helper
        self._hash = hashlib.sha256()
        self.target = target
        self.stage = stage
        self.note = note
        self.size = 0
        """Bytes that came."""
        self.work: asyncio.Task[object] | None = None

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    async def write(self, data: bytes) -> None:
        """Raises what the archive is refused for."""
        self._hash.update(data)
        self.size += len(data)
        if not await self._helper.write(data):
            await self._helper.told(frames.STAGED, shown(self.target.path))
            raise AgentUnavailable("the helper reads no more", uid=self.target.uid)

    async def staged(self) -> Counted:
        """All came. Raises what the archive is refused for."""
        self._helper.end()
        return Counted(*await self._helper.told(frames.STAGED, shown(self.target.path)))

    async def commit(self) -> Counted:
        """Put what was staged in place."""
        await self._helper.commit()
        return Counted(*await self._helper.told(frames.DONE, shown(self.target.path)))


class Archives:
    """Archives of this node's environments."""

    def __init__(
        self,
        *,
        agents: Agents,
        places: Places,
        helpers: Helpers,
        drafts: Drafts,
        background: Background,
    ) -> None:
        self._agents = agents
        self._places = places
        self._helpers = helpers
        self._drafts = drafts
        self._background = background

    @asynccontextmanager
    async def reading(self, uid: str, path: bytes) -> AsyncIterator[Outgoing]:
        """What is at a path. Raises before anything came, if it cannot be read."""

        async def begin(agent: AgentClient, data: int, control: int) -> int:
            return await agent.read_archive(path, data, control)

        async with self._helpers.helper(uid, begin) as helper:
            first = await helper.read()
            if not first:
                await helper.told(frames.DONE, shown(path))
            yield Outgoing(helper, shown(path), first)

    @asynccontextmanager
    async def writing(self, target: Target) -> AsyncIterator[Incoming]:
        """What is not committed when the block ends is gone."""
        stage = await self._stage(target)
        note = self._drafts.note(target.uid, stage)

        async def begin(agent: AgentClient, data: int, control: int) -> int:
            return await agent.write_archive(target.path, stage, data, control)

        incoming: Incoming | None = None
        try:
            async with self._helpers.helper(target.uid, begin) as helper:
                incoming = Incoming(helper, target, stage, note)
                try:
                    yield incoming
                finally:
                    if incoming.work:  # It goes on when the caller leaves.
                        await self._background.finish(_ended(incoming.work))
        finally:
            await self._background.finish(self._clean(target.uid, stage, note))

    async def finish(self, incoming: Incoming, work: Coroutine[Any, Any, T]) -> T:
        """Do what commits to its end, also when the caller leaves."""
        task = self._background.begin(work)
        incoming.work = task
        return await asyncio.shield(task)

    async def _stage(self, target: Target) -> bytes:
        """Where to unpack: beside the place, and in it if that is a root."""
        name = drafts.new()
        with telling(target.path):
            async with self._agents.awake(target.uid) as agent:
                place, there = await place_of(agent, self._places, target.uid, target.path)
                if there and not stat.S_ISDIR(there.stat.st_mode):
                    raise WrongFileType("not a directory", path=shown(target.path))
                plain = place.rstrip(b"/")
                if plain in _ROOTS or plain.rpartition(b"/")[2] in (b".", b".."):
                    return join(plain, name)
                folder = parent(plain)
                if target.make_parents and folder:
                    await agent.make_directory(folder, parents=True)
                with missing(target.path, made=target.make_parents):
                    await agent.stat(folder or b".", follow=True)
                return join(folder, name)

    async def _clean(self, uid: str, stage: bytes, note: Note) -> None:
        gone = False
        with suppress(AgentUnavailable, EnvironmentDormant):
            async with self._agents.awake(uid) as agent:
                with suppress(AgentError):  # It is in its place, or was never made.
                    await agent.remove(stage, recursive=True)
                gone = True
        self._drafts.forget(note, gone=gone)


async def _ended(task: "asyncio.Task[object]") -> None:
    await asyncio.wait((task,))
