"""The suite as its clients have it: one address, whatever dies behind it; and a disk of its own."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

from agent.launcher_client import LauncherClient, PeerGone
from agent.protocol import State
from tests.durability.parts import Breaking
from tests.registry.postgres import Postgres
from tests.support.suite import SERVICES, Suite, command_line, running_suite, until

DISK: Final = 1 << 30
"""Bytes of the disk that may be filled."""
LONG: Final = 120.0
"""Seconds in which services have noticed that `cove up` is gone."""
_UNBROKEN: Final = 1 << 60


class Wire:
    """Between the clients and the gateway."""

    def __init__(self) -> None:
        self._network = Breaking("127.0.0.1", 1, lambda: _UNBROKEN)
        self.address = ""

    def to(self, address: str) -> None:
        """From now on: connections are made to there."""
        host, _, port = address.rpartition(":")
        self._network.target = host, int(port)

    async def cut(self) -> None:
        """Reset all connections."""
        await self._network.end()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        async with self._network.listening() as self.address:
            yield


class Standing:
    """A suite that is started again where it was when `cove up` itself is killed."""

    def __init__(
        self,
        disk: Path,
        may_fill: bool,
        runtime: Path,
        env: Mapping[str, str],
        database: Postgres | None = None,
    ) -> None:
        self._disk = disk
        self.may_fill = may_fill
        self._runtime = runtime
        self.database = database
        self._env = dict(env)
        if database:
            self._env["COVE_REGISTRY__DATABASE"] = database.fresh()
        self._stack = AsyncExitStack()
        self.wire = Wire()
        self.logs: list[Path] = []
        self.suite: Suite

    async def start(self) -> None:
        """Also again, after a kill of `cove up`."""
        running = running_suite(
            self._runtime, env=self._env, state=self._disk / "state", runtime=self._runtime
        )
        self.suite = await self._stack.enter_async_context(running)
        self.logs.append(self.suite.log)
        self.wire.to(self.suite.grpc)

    async def kill_all_of_it(self) -> None:
        """`cove up`, and so its services. Returns when they are there again."""
        services = [self.suite.pid(name) for name in SERVICES]
        self.suite.process.send_signal(signal.SIGKILL)
        await self.suite.process.wait()
        # They end by themselves, and `cove up` waits for them; but not for as long as a machine
        # that does much else may need.
        await until(lambda: not any(map(command_line, services)), "the services end", LONG)
        await self.start()

    async def agents(self) -> list[int]:
        """Pids of the first processes in sandboxes; none while the launcher is down."""
        with suppress(PeerGone, OSError, TimeoutError):
            async with LauncherClient.connect(self.suite.runtime / "launcher") as launcher:
                found = await launcher.list()
            return sorted(each.pid for each in found if each.state is State.RUNNING and each.pid)
        return []

    def fill(self) -> None:
        """Leave no room on the disk."""
        with (self._disk / "ballast").open("wb") as ballast, suppress(OSError):
            while True:
                ballast.write(bytes(1 << 20))
                ballast.flush()

    def empty(self) -> None:
        (self._disk / "ballast").unlink(missing_ok=True)

    async def close(self) -> None:
        await self._stack.aclose()

    def keep_logs(self, folder: Path) -> str:
        """Copy all logs there; returns the end of the last one."""
        folder.mkdir()
        for number, log in enumerate(self.logs):
            shutil.copyfile(log, folder / f"up-{number}.log")
        shutil.copytree(self._disk / "state" / "logs", folder / "companions")
        return self.logs[-1].read_text("utf-8", "replace")[-4000:]


@asynccontextmanager
async def standing(
    folder: Path, env: Mapping[str, str], database: Postgres | None = None
) -> AsyncIterator[Standing]:
    """A suite on a disk of its own, behind a wire; its registry in `database`, or in a file."""
    with _disk(folder / "disk") as may_fill, _runtime() as runtime:
        made = Standing(folder / "disk", may_fill, runtime, env, database)
        try:
            async with made.wire.open():
                await made.start()
                yield made
        finally:
            made.empty()
            await made.close()


@contextmanager
def _disk(folder: Path) -> Iterator[bool]:
    """Mount one at `folder`; whether that could be done."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=0755", "cove-chaos", str(folder)]
    done = subprocess.run(mount, check=False, capture_output=True, text=True)
    if done.returncode:
        print(f"the disk is not filled, as none can be mounted: {done.stderr}")  # noqa: T201
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def _runtime() -> Iterator[Path]:
    """Short, as names of sockets must be."""
    with tempfile.TemporaryDirectory(prefix="cv-", dir="/tmp") as folder:
        os.chmod(folder, 0o700)  # noqa: PTH101
        yield Path(folder)
