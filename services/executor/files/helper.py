"""A helper of an agent, as the executor sees it: what it says is as untrusted as the agent is."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from agent import frames
from agent.client import AgentClient, AgentError, ErrorCode, PeerGone, PeerTooOld
from servicekit.errors import ServiceError
from services.executor.agents import Agents
from services.executor.background import Background
from services.executor.errors import (
    AgentTooOld,
    AgentUnavailable,
    ArchiveInvalid,
    ArchiveTooLarge,
    FileChanged,
    ProcessLimit,
    WatchLimit,
)
from services.executor.files.failures import failure

_COMMIT: Final = b"commit"
_PIECE: Final = 64 << 10

Beginning = Callable[[AgentClient, int, int], Awaitable[int]]
"""Asks an agent for a helper on a stream and a control socket; gives the helper's number."""


class Helper:
    """One helper at work."""

    def __init__(self, uid: str, data: socket.socket, control: socket.socket) -> None:
        self._uid = uid
        self._data = data
        self._control = control
        self._loop = asyncio.get_running_loop()
        self.over = False
        """It has said its last."""

    async def read(self) -> bytes:
        """Some data; empty at the end."""
        try:
            return await self._loop.sock_recv(self._data, _PIECE)
        except ConnectionError:
            return b""

    async def write(self, data: bytes) -> bool:
        """False when it takes no more, which `told` explains."""
        try:
            await self._loop.sock_sendall(self._data, data)
        except OSError:
            return False
        return True

    def end(self) -> None:
        """No more is written."""
        with suppress(OSError):
            self._data.shutdown(socket.SHUT_WR)

    async def commit(self) -> None:
        """Have it do what it has prepared."""
        with suppress(OSError):
            await self._loop.sock_sendall(self._control, _COMMIT)

    async def packet(self) -> list[bytes]:
        """What it says next. Raises AgentUnavailable when it is gone, or says nonsense."""
        try:
            said = frames.unpack(await self._loop.sock_recv(self._control, frames.MAX_PACKET))
        except (OSError, ValueError):
            said = []
        if not said:
            raise AgentUnavailable("what moves the files in the sandbox is gone", uid=self._uid)
        return said

    async def changes(self, path: str) -> list[bytes]:
        """The fields of a packet of changes. Raises what a caller is told."""
        said, *fields = await self.packet()
        if said == frames.CHANGES:
            return fields
        self.over = True
        try:
            raise _refusal(fields, path)
        except ValueError as error:
            raise AgentUnavailable("the helper says nonsense", uid=self._uid) from error

    async def told(self, kind: bytes, path: str) -> tuple[int, int]:
        """The two numbers that it ends with, or its first part. Raises what a caller is told."""
        said, *fields = await self.packet()
        self.over = said in (frames.FAILED, frames.DONE)
        try:
            if said == frames.FAILED:
                raise _refusal(fields, path)
            if said == kind:
                first, second = (int(field) for field in fields)
                return first, second
        except ValueError:
            pass
        raise AgentUnavailable("the helper says nonsense", uid=self._uid)


class Helpers:
    """Has agents of this node begin helpers."""

    def __init__(self, agents: Agents, background: Background) -> None:
        self._agents = agents
        self._background = background

    @asynccontextmanager
    async def helper(self, uid: str, begin: Beginning) -> AsyncIterator[Helper]:
        """One that is gone when the block ends. The sandbox stays awake meanwhile.

        Raises EnvironmentDormant, AgentUnavailable, AgentTooOld, ProcessLimit.
        """
        ours, theirs = socket.socketpair()
        control, their_control = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with ours, theirs, control, their_control:
            ours.setblocking(False)
            control.setblocking(False)
            async with self._agents.awake(uid) as agent:
                number = await _begun(uid, begin(agent, theirs.fileno(), their_control.fileno()))
                theirs.close()
                their_control.close()
                helper = Helper(uid, ours, control)
                try:
                    yield helper
                finally:
                    if not helper.over:
                        await self._background.finish(self._end(uid, number))

    async def _end(self, uid: str, number: int) -> None:
        with suppress(AgentError, PeerGone, PeerTooOld):
            async with self._agents.link(uid) as agent:
                await agent.end_helper(number)


async def _begun(uid: str, beginning: Awaitable[int]) -> int:
    try:
        return await beginning
    except AgentError as error:
        if error.code is ErrorCode.BAD_REQUEST:
            raise AgentTooOld("the agent is of an earlier version", uid=uid) from error
        if error.code is ErrorCode.LIMIT_REACHED:
            raise ProcessLimit("no further process may be made", uid=uid) from error
        raise AgentUnavailable("the agent began no helper", uid=uid) from error


def _refusal(fields: list[bytes], path: str) -> ServiceError:
    """What a caller is told. Raises ValueError when it is nonsense."""
    code, number, why, name, placed = fields
    said, where = _printable(why), _printable(name)
    found = _told(ErrorCode(code.decode()), int(number), said, where, path)
    if int(placed):
        found.metadata["placed"] = str(int(placed))
    if where:
        found.metadata["entry"] = where
    return found


def _told(code: ErrorCode, number: int, why: str, where: str, path: str) -> ServiceError:
    if code is ErrorCode.ARCHIVE_INVALID:
        return ArchiveInvalid("data", f"not unpacked: {why}", path=where, why=why)
    if code is ErrorCode.ARCHIVE_TOO_LARGE:
        return ArchiveTooLarge(f"beyond a limit: {why}", path=where or path, why=why)
    if code is ErrorCode.FILE_CHANGED:
        return FileChanged("a file got shorter while it was read", path=where)
    if code is ErrorCode.WATCH_LIMIT:
        return WatchLimit(f"it cannot be watched: {why}", path=path, why=why)
    told = failure(AgentError(code, number, why), where or path)
    return told or AgentUnavailable("the helper failed", path=path)


def _printable(text: bytes) -> str:
    """For people; what is not believed may hold anything."""
    shown = text.decode(errors="backslashreplace")
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in shown)
