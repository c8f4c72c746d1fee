"""The whole suite, as `cove up` starts it: real processes, sockets, git and sandboxes."""

import asyncio
import json
import os
import shutil
import signal
import socket
import struct
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent.launcher_client import LauncherClient, PeerGone
from cove import health
from cove.client import Client
from tests.support.people import as_user, entering

SERVICES: Final = ("registry", "git", "provider", "executor", "gateway")

_START: Final = 60.0
_COMMAND: Final = 120.0
_BOUND: Final = 30.0
_POLL: Final = 0.02


@dataclass(frozen=True, slots=True)
class Done:
    """A command that ended."""

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        return self.stdout.decode()

    @property
    def errors(self) -> str:
        return self.stderr.decode()


@dataclass(slots=True, kw_only=True)
class Suite:
    """A suite that runs."""

    grpc: str
    http: str
    token_file: Path | None
    state: Path
    runtime: Path
    process: asyncio.subprocess.Process = field(repr=False)
    user: int | None
    env: Mapping[str, str]
    log: Path

    @property
    def token(self) -> str:
        """What callers show; empty without authentication."""
        return self.token_file.read_text().strip() if self.token_file else ""

    def client(self, patience: float = 30) -> Client:
        """To be used as an async context manager."""
        return Client(self.grpc, self.token, patience=patience)

    def command(self, *arguments: str) -> list[str]:
        """Argv of the real `cove`, run as the user of the suite."""
        argv = [sys.executable, "-P", "-m", "cove", *arguments]
        return entering(self.process.pid, self.user, argv) if self.user is not None else argv

    async def cove(self, *arguments: str, stdin: bytes = b"", cwd: Path | None = None) -> Done:
        """Run the real `cove` to its end."""
        process = await asyncio.create_subprocess_exec(
            *self.command(*arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**self.env, "COVE_STATE": str(self.state)},
            cwd=cwd,
        )
        async with asyncio.timeout(_COMMAND):
            stdout, stderr = await process.communicate(stdin)
        assert process.returncode is not None
        return Done(process.returncode, stdout, stderr)

    def address(self, service: str) -> str:
        """Where a service is called by the others."""
        return f"unix:{self.runtime}/{service}"

    def pid(self, service: str) -> int:
        """Of a service; 0 while it is down."""
        module = service if service == "gateway" else f"services.{service}"
        for pid in children(self.process.pid):
            if command_line(pid)[-1:] == [module]:
                return pid
        return 0

    def launcher_pid(self) -> int:
        """Of the launcher; 0 while it is down."""
        return listening(self.runtime / "launcher")

    def proxy_pid(self) -> int:
        """Of the way out of sandboxes; 0 while it is down."""
        return listening(self.runtime / "egress")

    async def up(self, service: str) -> int:
        """The pid of a service, as soon as it is there: 0 is not to be killed, it is all of us."""
        async with asyncio.timeout(_BOUND):
            while not (pid := self.pid(service)):  # noqa: ASYNC110
                await asyncio.sleep(_POLL)
        return pid

    async def kill(self, service: str) -> int:
        """Kill a service with SIGKILL. Returns the pid of its successor, when that is healthy."""
        before = await self.up(service)
        os.kill(before, signal.SIGKILL)
        await until(lambda: self.pid(service) not in (0, before), f"{service} is started again")
        async with asyncio.timeout(_BOUND):
            while await health.ask(self.address(service)) != health.SERVING:  # noqa: ASYNC110
                await asyncio.sleep(_POLL)
        return self.pid(service)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal to `cove up` and wait for its end; returns its status."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(_BOUND):
            return await self.process.wait()


@asynccontextmanager
async def running_suite(
    tmp_path: Path,
    *,
    user: int | None = None,
    env: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
    state: Path | None = None,
    runtime: Path | None = None,
) -> AsyncIterator[Suite]:
    """Start the suite on free ports, and stop it with all its sandboxes at the end.

    `user` is a uid to run it as; its directories are then not below `tmp_path`, which it could
    not reach. With `state` and `runtime` it goes on where another one left off.
    """
    base = Path(tempfile.mkdtemp(prefix="cv-", dir="/tmp"))
    if user is not None:
        os.chown(base, user, user)
    state = state or (base / "state" if user is not None else tmp_path / "state")
    runtime = runtime or base / "r"
    clean = {"PATH": os.environ["PATH"], "HOME": str(base), "LANG": "C.UTF-8", **(env or {})}
    log = base / "up.log"
    try:
        with log.open("wb") as errors:
            argv = [sys.executable, "-P", "-m", "cove", "up", "--state", str(state)]
            argv += ["--runtime", str(runtime), "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"]
            argv += arguments
            process = await asyncio.create_subprocess_exec(
                *(as_user(user, argv) if user is not None else argv),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env=clean,
                cwd=base,
            )
        try:
            assert process.stdout
            async with asyncio.timeout(_START):
                line = await process.stdout.readline()
            assert line, f"cove up ended: {log.read_text()[-4000:]}"
            ready = json.loads(line)
            suite = Suite(
                grpc=ready["grpc"],
                http=ready["http"],
                token_file=Path(ready["token_file"]) if ready["token_file"] else None,
                state=Path(ready["state"]),
                runtime=runtime,
                process=process,
                user=user,
                env=clean,
                log=log,
            )
            yield suite
        finally:
            await _end(process, runtime)
    finally:
        shutil.rmtree(base, ignore_errors=True)


async def _end(process: asyncio.subprocess.Process, runtime: Path) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(_BOUND):
            await process.communicate()
    except TimeoutError:
        process.kill()
        await process.communicate()
        raise
    with suppress(PeerGone):  # Left alone by --keep, or by the death of `cove up`.
        async with LauncherClient.connect(runtime / "launcher") as launcher:
            await launcher.shutdown(stop_sandboxes=True)
    if proxy := listening(runtime / "egress"):
        os.kill(proxy, signal.SIGTERM)


def listening(path: Path) -> int:
    """The pid of who listens on a unix socket, told by the kernel; 0 when nobody does."""
    with socket.socket(socket.AF_UNIX) as peer:
        try:
            peer.connect(str(path))
        except OSError:
            return 0
        got = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("3i", got)[0])


def children(pid: int) -> list[int]:
    """The processes that a process started, as long as it lives."""
    found: list[int] = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):  # This one of its threads has just ended.
                found += map(int, (thread / "children").read_text().split())
    return found


def command_line(pid: int) -> list[str]:
    """Argv of a process; empty when it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
    return []


async def until(holds: Callable[[], bool], what: str, bound: float = _BOUND) -> None:
    """Wait for something that other processes bring about, at most `bound` seconds."""
    try:
        async with asyncio.timeout(bound):
            while not holds():  # noqa: ASYNC110
                await asyncio.sleep(_POLL)
    except TimeoutError:
        raise AssertionError(f"not in {bound} s: {what}") from None
