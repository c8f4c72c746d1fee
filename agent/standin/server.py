"""The process of a stand-in: what its driver, in the provider, asks it for.

One JSON object each way, as with the launcher. `Engine` is the driver's own part.
"""

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from agent import PROTOCOL_VERSION, frames, protocol
from agent.inside.connection import Connection
from agent.standin.environment import Environment
from agent.standin.runner import Runner

_MAX_CLIENTS: Final = 64

Verb = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class Told(Exception):
    """What the driver is told: `reason` is for it, the rest for people."""

    def __init__(self, reason: str, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.remedy = remedy

    def encode(self) -> str:
        said = {"reason": self.reason, "message": str(self), "remedy": self.remedy}
        return protocol.encode(said).decode()


class Server:
    """Serves the driver at `runtime/name`, and the environments that it activates at `a/<uid>`."""

    def __init__(self, name: str, runtime: Path, runner: Runner, verbs: Mapping[str, Verb]) -> None:
        self._runtime = runtime
        self._runner = runner
        self._verbs = {
            "hello": self._hello,
            "bind": self._bind,
            "leave": self._leave,
            "unbind": self._unbind,
            "bound": self._bound,
            **verbs,
        }
        self._loop = asyncio.get_running_loop()
        self._environments: dict[str, Environment] = {}
        self._clients: dict[Connection, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._path = runtime / name
        (runtime / "a").mkdir(mode=0o700, exist_ok=True)
        self._path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._listener.setblocking(False)
        self._listener.bind(str(self._path))
        self._path.chmod(0o600)
        self._listener.listen(64)
        self._loop.add_reader(self._listener, self._accept)

    def active(self, uid: str) -> bool:
        """Whether its socket is there."""
        return uid in self._environments

    async def close(self) -> None:
        """End everything that runs, and all sockets."""
        self._loop.remove_reader(self._listener)
        self._listener.close()
        self._path.unlink(missing_ok=True)
        for each in list(self._environments.values()):
            await each.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for client, descriptor in self._clients.items():
            self._loop.remove_reader(descriptor)
            client.close()

    async def _hello(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"version": PROTOCOL_VERSION}

    async def _bind(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer for an environment from now on."""
        uid = str(request["uid"])
        if uid in self._environments:
            return {"started": False}
        self._environments[uid] = Environment(
            uid,
            self._runtime / "a" / uid,
            self._runtime / "f" / uid,
            self._runner,
            self._gone,
            float(request.get("idle", 0.0)),
        )
        return {"started": True}

    async def _leave(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer no more, if nothing has run for so long, or with `force`."""
        found = self._environments.get(str(request["uid"]))
        if found is None:
            return {"ended": True, "quiet": 0.0}
        quiet = found.quiet
        busy = found.executions.running or quiet < float(request.get("quiet", 0.0))
        if busy and not request.get("force"):
            return {"ended": False, "quiet": quiet}
        if request.get("force"):
            await found.executions.cancel(b"stopped")
        del self._environments[found.uid]
        await found.close()
        return {"ended": True, "quiet": quiet}

    async def _unbind(self, request: dict[str, Any]) -> dict[str, Any]:
        """As `leave`, and what runs is lost."""
        found = self._environments.pop(str(request["uid"]), None)
        if found:
            await found.close()
        return {"found": found is not None}

    async def _bound(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"uids": sorted(self._environments)}

    def _gone(self, uid: str) -> None:
        """It left by itself."""
        if found := self._environments.pop(uid, None):
            self._keep(found.close())

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
        self._clients[client] = accepted.fileno()
        self._loop.add_reader(accepted, self._receive, client)

    def _receive(self, client: Connection) -> None:
        for _, number, payload, descriptors in client.receive():
            for each in descriptors:
                os.close(each)
            self._keep(self._answer(client, number, payload))
        self._see_to(client)

    def _see_to(self, client: Connection) -> None:
        """One that is gone is forgotten, also where that shows when it is answered."""
        if not client.open and client in self._clients:
            self._loop.remove_reader(self._clients.pop(client))

    async def _answer(self, client: Connection, number: int, payload: bytes) -> None:
        try:
            request = protocol.decode(payload)
            kind, answer = frames.OK, await self._verbs[request.pop("verb")](request)
        except Told as error:
            kind, answer = frames.ERROR, {"error": error.encode()}
        except (ValueError, KeyError, TypeError, OSError) as error:
            told = Told("failed", f"{type(error).__name__}: {error}"[:300])
            kind, answer = frames.ERROR, {"error": told.encode()}
        client.reply(kind, number, protocol.encode(answer))
        self._see_to(client)

    def _keep(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
