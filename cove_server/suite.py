"""The whole suite on one machine."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import servicekit  # noqa: F401 - sets what gRPC reads when it is imported.
from cove import health
from cove.endpoint import FILE
from cove_server import console
from cove_server.companion import Companion
from cove_server.dagger import Dagger
from cove_server.egress import Egress
from cove_server.errors import CannotStart
from cove_server.launcher import Launcher
from cove_server.places import Places
from cove_server.ports import reserved
from cove_server.process import Program, Service
from servicekit import logs

T = TypeVar("T")

_TOOLS: Final = ("registry", "git", "provider", "executor")
_POLL: Final = 0.05
_READY: Final = 120.0
"""Seconds in which all must be up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `cove up` was told."""

    places: Places
    grpc: str
    http: str
    no_auth: bool
    console: bool
    keep: bool
    env: Mapping[str, str]


def serve(settings: Settings) -> int:
    """Run the suite until SIGTERM, SIGINT or SIGHUP. Returns the exit status."""
    logs.set_up("up", "info")
    try:
        if settings.console:
            console.folder(settings.env)  # Before anything is started.
        with (
            settings.places.held() as lock,
            reserved(settings.grpc) as grpc,
            reserved(settings.http) as http,
        ):
            asyncio.run(_Suite(settings, grpc, http, lock).run())
    except CannotStart as error:
        sys.stderr.write(f"error: {error}\n")
        if error.remedy:
            sys.stderr.write(f"remedy: {error.remedy}\n")
        return error.status
    return 0


class _Stopped(Exception):
    """A signal came before the suite was up."""


class _Suite:
    def __init__(self, settings: Settings, grpc: str, http: str, lock: int) -> None:
        self._settings = settings
        self._places = settings.places
        self._grpc = grpc
        self._http = http
        self._lock = lock
        self._stop = asyncio.Event()
        self._services: dict[str, Service] = {}

    async def run(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._signalled)
        env = self._settings.env
        companions: list[Companion] = [Launcher(self._places, env), Egress(self._places, env)]
        if Dagger.name in env.get("COVE_DRIVERS", "").replace(" ", "").split(","):
            companions.append(Dagger(self._places, env))
        try:
            async with asyncio.timeout(_READY):
                for each in companions:
                    await self._unless_stopped(each.start())
                started = await self._unless_stopped(self._start())
            self._tell(started)
            await self._stop.wait()
        except _Stopped:
            pass
        except TimeoutError:
            raise CannotStart("the services are not up in time", "Their log says why.") from None
        finally:
            (self._places.state / FILE).unlink(missing_ok=True)
            await self._drain()
            for each in companions:
                await each.stop(keep=self._settings.keep)

    async def _start(self) -> dict[str, str]:
        """Start all services; returns the address of each."""
        await asyncio.gather(*(self._service(name).start() for name in _TOOLS))
        await self._service("gateway").start()
        found = {name: f"unix:{self._places.socket(name)}" for name in self._services}
        await asyncio.gather(*(_healthy(address) for address in [*found.values(), *self._open]))
        return found

    @property
    def _is_secure(self) -> bool:
        return bool(self._settings.env.get("COVE_GATEWAY__CERTIFICATE_FILE"))

    @property
    def _open(self) -> list[str]:
        """Where the gateway can be asked without TLS, besides its socket."""
        return [] if self._is_secure else [self._grpc]

    def _service(self, name: str) -> Service:
        module = "gateway" if name == "gateway" else f"services.{name}"
        program = Program(name, module, self._env(), self._lock)
        self._services[name] = service = Service(program)
        return service

    def _env(self) -> dict[str, str]:
        """Of every service. It reads the variables of its own name, and the shared ones."""
        defaults = {"COVE_GIT__LOCAL_ROOTS": "/"}
        defaults |= {f"COVE_{name}__NODE": self._places.node() for name in ("EXECUTOR", "PROVIDER")}
        env = {**defaults, **self._settings.env}
        env["COVE_STATE"] = os.fspath(self._places.state)
        env["COVE_RUNTIME"] = os.fspath(self._places.runtime)
        env["COVE_GATEWAY__GRPC"] = self._grpc
        env["COVE_GATEWAY__HTTP"] = self._http
        if self._settings.console:
            env["COVE_GATEWAY__CONSOLE"] = os.fspath(console.folder(env))
        if self._settings.no_auth:
            env["COVE_GATEWAY__NO_AUTH"] = "true"
        return env

    def _tell(self, services: Mapping[str, str]) -> None:
        """Write where the suite is: for `cove` into the state directory, and as one line."""
        token = Path(self._settings.env.get("COVE_GATEWAY__TOKEN_FILE") or self._places.token)
        scheme = "https://" if self._is_secure else ""
        ready = {
            "grpc": f"{scheme}{self._grpc}",
            "http": f"{scheme}{self._http}",
            "token_file": None if self._settings.no_auth else os.fspath(token),
            "state": os.fspath(self._places.state),
        }
        if self._settings.console:
            ready["console"] = f"{scheme or 'http://'}{self._http}/console/"
        path = self._places.state / FILE
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps({**ready, "pid": os.getpid(), "services": dict(services)}))
        fresh.replace(path)
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.write(f"{json.dumps(ready)}\n")
            sys.stdout.flush()

    async def _drain(self) -> None:
        """The gateway first, so that no call is cut off by what it needs."""
        if gateway := self._services.pop("gateway", None):
            await gateway.stop()
        await asyncio.gather(*(service.stop() for service in self._services.values()))

    def _signalled(self) -> None:
        if self._stop.is_set():  # The second one: whoever sends it will not wait.
            for service in self._services.values():
                service.kill()
        self._stop.set()

    async def _unless_stopped(self, doing: Awaitable[T]) -> T:
        """What `doing` returns. Raises `_Stopped` when a signal comes first."""
        work = asyncio.ensure_future(doing)
        stop = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([work, stop], return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            raise _Stopped
        finally:
            for task in (work, stop):
                task.cancel()
            await asyncio.gather(work, stop, return_exceptions=True)


async def _healthy(address: str) -> None:
    """Wait until the server at `address` says so; one that died meanwhile is started again."""
    while await health.ask(address) != health.SERVING:  # noqa: ASYNC110 - of another process.
        await asyncio.sleep(_POLL)
