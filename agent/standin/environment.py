"""The socket of one environment, and what is answered on it."""

import asyncio
import errno
import logging
import os
import socket
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from agent import formats, frames
from agent.clients import Clients
from agent.inside.connection import Connection
from agent.standin import wire
from agent.standin.executions import Executions, Leaving
from agent.standin.relay import Relay
from agent.standin.runner import Ending, Refused, Runner

_log = logging.getLogger(__name__)

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
        self._relays: dict[Connection, Relay] = {}
        self._limits: dict[tuple[Connection, bytes], tuple[int, str]] = {}
        self._kept = Relay(files)
        self._tasks: set[asyncio.Task[None]] = set()
        self.leaving = False
        """It takes no more."""
        self.closed = asyncio.Event()
        self._worked_at = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self.executions = Executions(uid, runner, self._rest, self._over)
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(64)
        users = (0, os.getuid())
        self._clients = Clients(listener, users, _MAX_CLIENTS, self._receive, self._left_us)
        self._keep(self._hold())
        self._rest()

    @property
    def quiet(self) -> float:
        """Seconds for which nothing has run."""
        return 0.0 if self.executions.running else time.monotonic() - self._worked_at

    def shut(self) -> None:
        """Take no more, neither who comes nor a start: they find the environment dormant."""
        if not self.leaving:
            self._path.unlink(missing_ok=True)  # Later it may be another one's.
        self.leaving = True
        self._clients.shut()
        self.executions.shut()
        if self._timer:
            self._timer.cancel()

    async def close(self) -> None:
        """End everything of it."""
        self.shut()
        await self.executions.close()
        relays = [self._kept, *self._relays.values()]
        self._clients.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for each in relays:
            await each.close()
        self.closed.set()

    def _rest(self) -> None:
        """Nothing runs: leave after the idle timeout, unless something happens."""
        self._worked_at = time.monotonic()
        if self._timer:
            self._timer.cancel()
        if self._idle_timeout and not self.leaving:
            self._timer = self._loop.call_later(self._idle_timeout, self._look)

    def _look(self) -> None:
        if len(self._clients) or self.executions.running:
            self._timer = self._loop.call_later(self._idle_timeout, self._look)
        else:
            self.shut()
            self._keep(self._leave())

    async def _leave(self) -> None:
        with suppress(Refused):  # It is gone already.
            await self._kept.leave()
        self._gone(self.uid)

    async def _hold(self) -> None:
        """What moves files goes by itself when nobody is connected to it."""
        with suppress(Refused):
            await self._kept.hold()

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _receive(self, client: Connection) -> None:
        for kind, number, payload, descriptors in client.receive():
            if not self._at_once(client, kind, number, payload, descriptors):
                self._keep(self._answered(client, kind, number, payload, descriptors))

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

    def _left_us(self, client: Connection) -> None:
        if relay := self._relays.pop(client, None):
            self._keep(relay.close())
        for each in [each for each in self._limits if each[0] is client]:
            del self._limits[each]

    def _over(self, client: Connection, number: int) -> None:
        """What it waited for has ended."""
        client.reply(frames.OK, number, b"")
        self._clients.look(client)

    async def _answered(
        self, client: Connection, kind: int, number: int, payload: bytes, descriptors: list[int]
    ) -> None:
        try:
            await self._answer(client, kind, number, payload, descriptors)
        except (Refused, ValueError, IndexError, OSError) as error:
            _refuse(client, number, error)
        except Leaving:  # As of an agent that has ended: its clients look for another one.
            client.close()
        except Exception:  # An error of ours must not keep anybody waiting.
            _log.exception("a request failed")
            _refuse(client, number, OSError(errno.EIO, "the stand-in failed"))
        finally:
            for each in descriptors:
                os.close(each)
            descriptors.clear()
            self._clients.look(client)

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
            if client in self._clients:  # Else nobody waits for it any more.
                relay = self._relays.setdefault(client, Relay(self._files))
                await relay.ask(client, kind, number, payload, descriptors)
            if wire.changes(kind, fields):  # A command that began meanwhile may have missed it.
                self._runner.touched(self.uid)
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
            with suppress(Refused):  # It is gone already.
                await self._kept.leave()
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
