"""The socket of one environment, and what is answered on it."""

import asyncio
import errno
import os
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from agent import formats, frames
from agent.inside.connection import Connection
from agent.standin import wire
from agent.standin.executions import Executions
from agent.standin.relay import Relay
from agent.standin.runner import Ending, Refused, Runner

_MAX_CLIENTS: Final = 64
_KILL: Final = 9


class Environment:
    """Listens at `path` from its making until `close`; calls `gone` when it leaves by itself."""

    def __init__(
        self,
        uid: str,
        path: Path,
        files: Path,
        runner: Runner,
        gone: Callable[[str], None],
        idle_timeout: float = 0.0,
    ) -> None:
        self.uid = uid
        self._path = path
        self._files = files
        self._runner = runner
        self._gone = gone
        self._idle_timeout = idle_timeout
        self._loop = asyncio.get_running_loop()
        self._clients: dict[Connection, Relay] = {}
        self._descriptors: dict[Connection, int] = {}
        """Of their sockets, also when these are closed: only then they are taken from the loop."""
        self._limits: dict[tuple[Connection, bytes], tuple[int, str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._worked_at = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self.executions = Executions(uid, runner, self._rest)
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._listener.setblocking(False)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(64)
        self._loop.add_reader(self._listener, self._accept)
        self._rest()

    @property
    def quiet(self) -> float:
        """Seconds for which nothing has run."""
        return 0.0 if self.executions.running else time.monotonic() - self._worked_at

    def shut(self) -> None:
        """Take no more: whoever comes finds the environment dormant."""
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._path.unlink(missing_ok=True)
        if self._timer:
            self._timer.cancel()

    async def close(self) -> None:
        """End everything of it."""
        self.shut()
        await self.executions.close()
        for client in list(self._clients):
            self._drop(client)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _rest(self) -> None:
        """Nothing runs: leave after the idle timeout, unless something happens."""
        self._worked_at = time.monotonic()
        if self._timer:
            self._timer.cancel()
        if self._idle_timeout:
            self._timer = self._loop.call_later(self._idle_timeout, self._look)

    def _look(self) -> None:
        if self._clients or self.executions.running:
            self._timer = self._loop.call_later(self._idle_timeout, self._look)
        else:
            self._leave()

    def _leave(self) -> None:
        self.shut()
        self._gone(self.uid)

    def _accept(self) -> None:
        try:
            accepted, _ = self._listener.accept()
        except OSError:
            return
        credentials = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        _, user, _ = struct.unpack("3i", credentials)
        if user not in (0, os.getuid()) or len(self._clients) >= _MAX_CLIENTS:
            accepted.close()
            return
        client = Connection(accepted)
        self._clients[client] = Relay(self._files)
        self._descriptors[client] = accepted.fileno()
        self._loop.add_reader(accepted, self._receive, client)

    def _receive(self, client: Connection) -> None:
        for kind, number, payload, descriptors in client.receive():
            if self._at_once(client, kind, number, payload, descriptors):
                continue
            task = self._loop.create_task(
                self._answered(client, kind, number, payload, descriptors)
            )
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._flush(client)

    def _at_once(
        self, client: Connection, kind: int, number: int, payload: bytes, descriptors: list[int]
    ) -> bool:
        """Answer what must stay in order with what follows."""
        if kind == frames.HELLO:
            client.reply(frames.OK, number, b"")
        elif kind == frames.LIMITS:
            try:
                key, *told = frames.unpack(payload)
                self._limits[client, key] = wire.limits(told)
                client.reply(frames.OK, number, b"")
            except (Refused, ValueError, IndexError) as error:
                _refuse(client, number, error)
        else:
            return False
        for each in descriptors:
            os.close(each)
        return True

    def _flush(self, client: Connection) -> None:
        """Send what can be sent, and see to the rest; a client that is gone is forgotten."""
        if not client.open:
            self._drop(client)
        elif client.sending:
            self._loop.add_writer(self._descriptors[client], self._writable, client)

    def _writable(self, client: Connection) -> None:
        client.flush()
        if not (client.open and client.sending):
            self._loop.remove_writer(self._descriptors[client])
        self._flush(client)

    def _drop(self, client: Connection) -> None:
        relay = self._clients.pop(client, None)
        if relay is None:
            return
        task = self._loop.create_task(relay.close())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        for each in [each for each in self._limits if each[0] is client]:
            del self._limits[each]
        descriptor = self._descriptors.pop(client)
        self._loop.remove_reader(descriptor)
        self._loop.remove_writer(descriptor)
        client.close()

    async def _answered(
        self, client: Connection, kind: int, number: int, payload: bytes, descriptors: list[int]
    ) -> None:
        try:
            await self._answer(client, kind, number, payload, descriptors)
        except (Refused, ValueError, IndexError, OSError) as error:
            _refuse(client, number, error)
        finally:
            for each in descriptors:
                os.close(each)
            descriptors.clear()
            if client in self._clients:
                self._flush(client)

    async def _answer(
        self, client: Connection, kind: int, number: int, payload: bytes, descriptors: list[int]
    ) -> None:
        """Takes from `descriptors` what is kept. Raises what `_refuse` tells."""
        fields = frames.unpack(payload)
        reply: bytes = b""
        if kind in wire.STARTS:
            limit, unable = self._limits.pop((client, fields[0]), (0, ""))
            if unable:
                raise Refused(frames.CANNOT, unable)
            log, result = descriptors[:2]
            asked = wire.asked(kind, fields)
            del descriptors[:2]
            found = await self.executions.start(asked, limit, log, result)
            reply = frames.pack(0, int(found))
        elif kind in wire.INPUTS:
            raise Refused(frames.CANNOT, wire.input_of(kind, fields))
        elif kind in (frames.CANCEL, frames.EXCEEDED):
            key, why, _ = fields
            cancelled = kind == frames.CANCEL
            ends = formats.EXIT_CANCELLED if cancelled else formats.EXIT_LIMITED
            self._end(client, number, key, Ending(kind=ends, number=_KILL, text=why))
            return
        elif kind == frames.SIGNAL:
            key, signal, scope = fields[0], int(fields[1]), int(fields[2])
            if (signal, scope) == (_KILL, frames.TREE):
                self._end(client, number, key, Ending(kind=formats.EXIT_SIGNAL, number=_KILL))
                return
            self.executions.find(key.decode())
            await self._runner.signal(self.uid, key.decode(), signal, scope)
        elif kind == frames.LIST:
            reply = frames.pack(self.executions.running, *self.executions.rows())
        elif kind == frames.PROCESSES:
            reply = b""
        elif kind == frames.HANDLE:
            reply = await self._runner.handle(self.uid, fields[0])
        elif kind == frames.LEAVE:
            await self._left(client, number, fields)
            return
        elif kind in wire.FILES:
            if wire.changes(kind, fields):
                self._runner.touched(self.uid)
            if relay := self._clients.get(client):  # Else nobody waits for it any more.
                await relay.ask(client, kind, number, payload, descriptors)
            return
        elif kind in (frames.CONNECT, frames.LISTEN):
            raise Refused(frames.CANNOT, "ports")
        else:
            raise Refused(frames.BAD_REQUEST, "unknown request")
        client.reply(frames.OK, number, reply)

    def _end(self, client: Connection, number: int, key: bytes, ending: Ending) -> None:
        """End an execution; answered when it is over."""
        execution = self.executions.find(key.decode())
        if execution.ended:
            client.reply(frames.OK, number, b"")
            return
        execution.waiting.append((client, number))
        execution.end(ending)

    async def _left(self, client: Connection, number: int, fields: list[bytes]) -> None:
        quiet = int(self.quiet * 1000)
        wanted = int(fields[0]) if fields else 0
        leaves = not self.executions.running and quiet >= wanted
        if leaves:
            self.shut()
            if relay := self._clients.get(client):
                with suppress(Refused):  # It is gone already.
                    await relay.leave()
        told = (int(leaves), quiet if not self.executions.running else 0)
        client.reply(frames.OK, number, frames.pack(*(told if fields else told[:1])))
        if leaves:
            self._gone(self.uid)


def _refuse(client: Connection, number: int, error: Exception) -> None:
    code, failure, message = frames.BAD_REQUEST, errno.EINVAL, "malformed request"
    if isinstance(error, Refused):
        code, failure, message = error.code, error.errno, str(error)
    elif isinstance(error, OSError):
        code, failure = frames.OS_ERROR, error.errno or errno.EIO
        message = error.strerror or "failed"
    client.reply(frames.ERROR, number, frames.pack(code, failure, message.encode()))
