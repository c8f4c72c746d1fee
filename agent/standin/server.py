"""The process of a stand-in: what its driver, in the provider, asks it for.

One JSON object each way, as with the launcher. `Engine` is the driver's own part.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final

from agent import PROTOCOL_VERSION, frames, protocol
from agent.clients import Clients
from agent.inside.connection import Connection
from agent.standin.environment import Environment
from agent.standin.runner import Runner

_log = logging.getLogger(__name__)

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
        self._environments: dict[str, Environment] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._path = runtime / name
        (runtime / "a").mkdir(mode=0o700, exist_ok=True)
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        listener.bind(str(self._path))
        self._path.chmod(0o600)
        listener.listen(64)
        self._clients = Clients(listener, (0, os.getuid()), _MAX_CLIENTS, self._receive)

    def active(self, uid: str) -> bool:
        """Whether its socket is there."""
        return uid in self._environments

    async def close(self) -> None:
        """End everything that runs, and all sockets."""
        self._clients.shut()
        self._path.unlink(missing_ok=True)
        for each in list(self._environments.values()):
            await each.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._clients.close()

    async def _hello(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"version": PROTOCOL_VERSION}

    async def _bind(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer for an environment from now on."""
        uid = str(request["uid"])
        while found := self._environments.get(uid):
            if not found.leaving:
                return {"started": False}
            await found.closed.wait()
            self._forget(found)
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
        found.shut()
        if request.get("force"):
            await found.executions.cancel(b"stopped")
        await self._end(found)
        return {"ended": True, "quiet": quiet}

    async def _unbind(self, request: dict[str, Any]) -> dict[str, Any]:
        """As `leave`, and what runs is lost."""
        found = self._environments.get(str(request["uid"]))
        if found:
            await self._end(found)
        return {"found": found is not None}

    async def _bound(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"uids": sorted(self._environments)}

    def _gone(self, uid: str) -> None:
        """It leaves by itself."""
        if found := self._environments.get(uid):
            self._keep(self._end(found))

    async def _end(self, found: Environment) -> None:
        """Returns when nothing of it runs. Until then it is known, so that nobody begins anew."""
        await found.close()
        self._forget(found)

    def _forget(self, ended: Environment) -> None:
        if self._environments.get(ended.uid) is ended:
            del self._environments[ended.uid]

    def _receive(self, client: Connection) -> None:
        for _, number, payload, descriptors in client.receive():
            for each in descriptors:
                os.close(each)
            self._keep(self._answer(client, number, payload))

    async def _answer(self, client: Connection, number: int, payload: bytes) -> None:
        try:
            request = protocol.decode(payload)
            kind, answer = frames.OK, await self._verbs[request.pop("verb")](request)
        except Told as error:
            kind, answer = frames.ERROR, {"error": error.encode()}
        except (ValueError, KeyError, TypeError, OSError) as error:
            told = Told("failed", f"{type(error).__name__}: {error}"[:300])
            kind, answer = frames.ERROR, {"error": told.encode()}
        except Exception as error:  # An error of ours must not keep anybody waiting.
            _log.exception("a request failed")
            told = Told("failed", f"{type(error).__name__}"[:300])
            kind, answer = frames.ERROR, {"error": told.encode()}
        client.reply(kind, number, protocol.encode(answer))
        self._clients.look(client)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
