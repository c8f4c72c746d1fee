"""Containers end during a long output, and it is all there, compared by its hash."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Final

from cove.executions import Execution
from cove.executor.v1.executor_pb2 import Chunk, Exit
from cove.executor.v1.executor_pb2 import Execution as Message
from cove.workspace import Workspace
from tests.compose.daemon import Suite
from tests.compose.machine import say

_RESTARTED: Final = ("registry", "git", "provider", "executor", "gateway")
_BOUND: Final = 180.0
_SOME: Final = 200_000
_OUTPUT: Final = (
    "rm -f stop; until [ -e stop ]; do head -c 24000 /dev/urandom | base64; sleep 0.05; done"
    " | tee ~/copy"
)
_IN_PIPES: Final = 256 << 10
"""What may be on its way from the command to the log, or to its copy, when all is killed."""


async def check_restarts(suite: Suite, workspace: Workspace) -> None:
    """No byte is lost by the end of any container but the launcher's, which is told."""
    for service in _RESTARTED:
        await _survives(suite, workspace, service)
    await _ends_with_the_launcher(suite, workspace)


async def _survives(suite: Suite, workspace: Workspace, service: str) -> None:
    """The container is restarted by hand, then killed and brought back by Docker."""
    async with _running(workspace, f"during-{service}") as (execution, reading):
        await reading.more()
        await asyncio.to_thread(suite.restart, service)
        await reading.more()
        await asyncio.to_thread(suite.kill, service)
        await reading.more()
        assert (await execution.refresh()).state == Message.STATE_RUNNING, execution.message
        await workspace.write("stop", b"")
        end = await reading.end
    assert end.WhichOneof("reason") == "code", end
    assert end.code == 0, end
    size, digest = await _copied(workspace)
    assert (len(reading.seen), sha256(reading.seen).hexdigest()) == (size, digest)
    assert await _read_again(execution) == digest
    say(f"{service} restarted, killed and back by itself: {size} bytes, {digest[:16]}")


async def _ends_with_the_launcher(suite: Suite, workspace: Workspace) -> None:
    """The one container whose end is the sandboxes' end: that is told, and work goes on."""
    for name, end_it in (("restarted", suite.restart), ("killed", suite.kill)):
        async with _running(workspace, f"launcher-{name}") as (execution, reading):
            await reading.more()
            await asyncio.to_thread(end_it, "launcher")
            end = await reading.end
        assert end.WhichOneof("reason") == "lost", end
        await asyncio.to_thread(suite.healthy)
        size, _ = await _copied(workspace)
        both = min(size, len(reading.seen))
        assert max(size, len(reading.seen)) - both <= _IN_PIPES, (size, len(reading.seen))
        assert await _copied(workspace, both) == (both, sha256(reading.seen[:both]).hexdigest())
        assert await _read_again(execution) == sha256(reading.seen).hexdigest()
        say(
            f"launcher {name}: lost, as told ({end.lost.reason}); {len(reading.seen)} bytes stay, "
            "the next command runs"
        )


class _Reading:
    """Follows the output of an execution from its start."""

    def __init__(self, execution: Execution) -> None:
        self.seen = bytearray()
        self.end: asyncio.Task[Exit]
        self._execution = execution
        self._grown = asyncio.Event()

    async def follow(self) -> Exit:
        async for event in self._execution.output():
            if isinstance(event, Exit):
                return event
            assert isinstance(event, Chunk), event
            self.seen += event.data
            self._grown.set()
        raise AssertionError("no end")

    async def more(self) -> None:
        """Wait until what is written from now on has come."""
        enough = len(self.seen) + _SOME
        while len(self.seen) < enough:
            self._grown.clear()
            await self._grown.wait()


@asynccontextmanager
async def _running(workspace: Workspace, name: str) -> AsyncIterator[tuple[Execution, _Reading]]:
    """A command that writes half a megabyte a second until it is stopped, and its reader."""
    execution = await workspace.start("sh", "-c", _OUTPUT, id=name)
    async with asyncio.timeout(_BOUND), asyncio.TaskGroup() as group:
        reading = _Reading(execution)
        reading.end = group.create_task(reading.follow())
        yield execution, reading


async def _copied(workspace: Workspace, first: int | None = None) -> tuple[int, str]:
    """How much of its output the command put aside, and its hash; or that of its beginning."""
    part = "cat ~/copy" if first is None else f"head -c {first} ~/copy"
    ran = await workspace.execute(script=f"{part} | wc -c; {part} | sha256sum")
    found = re.fullmatch(r"(\d+)\n([0-9a-f]{64})  -\n", ran.check().text)
    assert found, ran
    return int(found[1]), found[2]


async def _read_again(execution: Execution) -> str:
    again = _Reading(execution)
    async with asyncio.timeout(_BOUND):
        await again.follow()
    return sha256(again.seen).hexdigest()
