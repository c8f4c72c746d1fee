"""The git service as a process of its own, which is killed and started over the same state."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import grpc

from cove.git.v1 import git_pb2 as pb
from cove.git.v1.git_pb2_grpc import GitServiceStub
from services.git.cell import Bind, Cell, Cells
from services.git.command import Command
from services.git.transport import STORE

ACME: Final = (("cove-tenant", "acme"), ("cove-principal", "ada"))
_BOUND: Final = 30
_LEFT: Final = re.compile(r"\.(?!git$).*|.*\.lock|tmp_.*")
"""Names of what is being written, or of locks."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When a call is cut off: after `seconds`, or when the `event`th file or process is there."""

    seconds: float = 0.0
    event: int = 0


class Node:
    """One node's git service. Use it as an async context manager."""

    def __init__(self, home: Path, more: Mapping[str, str] | None = None) -> None:
        """Its directories are below `home`; `more` variables than it needs may be given."""
        self._more = more or {}
        self.state = home / "s"
        self._home = home
        self._process: asyncio.subprocess.Process | None = None
        self._channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end(signal.SIGTERM)

    @property
    def git(self) -> Path:
        """Everything that the service keeps."""
        return self.state / "git"

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    @property
    def stub(self) -> GitServiceStub:
        assert self._channel
        return GitServiceStub(self._channel)

    async def start(self) -> None:
        env = {
            "PATH": os.environ["PATH"],
            "COVE_STATE": str(self.state),
            "COVE_RUNTIME": str(self._home / "r"),
            "COVE_GIT__LOCAL_ROOTS": "/",
            **self._more,
        }
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.git", env=env, stdout=asyncio.subprocess.PIPE
        )
        assert self._process.stdout
        assert await self._process.stdout.readline()
        self._channel = grpc.aio.insecure_channel(f"unix:{self._home}/r/git")

    async def kill(self) -> None:
        await self._end(signal.SIGKILL)

    async def cut_off(self, call: Awaitable[Any], moment: Moment) -> bool:
        """Kill it at some moment of a call, and start it again; whether the call was under way."""
        calling = asyncio.ensure_future(call)
        if moment.event:
            await self._happens(calling, moment.event)
        else:
            await asyncio.wait([calling], timeout=moment.seconds)
        early = not calling.done()
        await self.kill()
        await asyncio.gather(calling, return_exceptions=True)
        await self.start()
        return early

    async def _happens(self, calling: "asyncio.Future[Any]", count: int) -> None:
        seen = self.there()
        while not calling.done():
            await asyncio.sleep(0)
            now = self.there()
            count -= len(now - seen)
            seen |= now
            if count <= 0:
                return

    def there(self) -> set[str]:
        """Processes and files."""
        assert self._process
        return {*descendants(self._process.pid), *_files(self.git)}

    async def _end(self, number: signal.Signals) -> None:
        assert self._process
        assert self._channel
        if self._process.returncode is None:
            self._process.send_signal(number)
        await self._process.communicate()
        await self._channel.close()

    async def worktrees(self) -> dict[str, pb.Worktree]:
        found = await self.stub.ListWorktrees(pb.ListWorktreesRequest(page_size=1000))
        return {one.uid: one for one in found.worktrees}

    async def check_nothing_is_half_there(self) -> None:
        """Call it while nothing is made: all there is belongs to a record."""
        known = await self.worktrees()
        assert {path.name for path in (self.git / "worktrees").iterdir()} == set(known)
        stood_on = {"empty"}
        for uid in known:
            record = json.loads((self.git / "worktrees" / uid / "record.json").read_bytes())
            stood_on.update(record["layers"], *(one["layers"] for one in record["snapshots"]))
        assert {path.name for path in (self.git / "layers").iterdir()} <= stood_on
        async with asyncio.timeout(_BOUND):  # They are removed while it serves.
            while _hidden(self.git / "checkouts"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        for one in (self.git / "checkouts").glob("*/*/*"):
            assert (one / "meta.json").exists()

    def leftovers(self) -> list[str]:
        """What a command or the service did not finish writing."""
        return [
            path
            for path in _files(self.git)
            if _LEFT.fullmatch(path.rpartition("/")[2]) and "/.git/" not in path
        ]

    async def fsck(self) -> None:
        """Have git look through each repository, as its owner."""
        async with Cells([self.git / "repositories"]) as cells:
            for path in self.git.glob("repositories/*/*.git"):
                cell = Cell(identity=cells.keeper, binds=[Bind(source=path, target=STORE)])
                argv = ("git", f"--git-dir={STORE}", "fsck", "--full", "--strict")
                command = Command(name="fsck", argv=argv, env={"PATH": "/usr/bin:/bin"})
                done = await cells.run(cell, command)
                assert done.code == 0, done.errors


def descendants(pid: int) -> Iterable[str]:
    """Pids of all processes below one."""
    try:
        threads = [path.name for path in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return
    for thread in threads:
        try:
            text = Path(f"/proc/{pid}/task/{thread}/children").read_text()
        except OSError:
            continue
        for child in text.split():
            yield child
            yield from descendants(int(child))


def _files(root: Path) -> Iterable[str]:
    for folder, folders, names in os.walk(root):
        for name in (*folders, *names):
            yield f"{folder}/{name}"


def _hidden(folder: Path) -> bool:
    """Whether something is still half-made or half-removed there."""
    try:
        return any(path.name != ".git" for path in folder.rglob(".*"))
    except FileNotFoundError:  # Just going.
        return True
