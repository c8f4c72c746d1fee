"""Clients of the SDK at work, for whom every failure that reaches them counts."""

import asyncio
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from cove.client import Client
from cove.executions import Execution
from cove.executor.v1.executor_pb2 import Chunk, Exit, Gap
from cove.workspace import Workspace

TICKS = """\
i=0
while [ ! -e stop ]; do echo $i; i=$((i + 1)); sleep 0.02; done
echo end $i
"""


@dataclass
class Tally:
    """What became of all calls."""

    done: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    async def call(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except AssertionError as error:
            self.wrong.append(f"{name}: {error}")
        except Exception:
            self.failed.append(f"{name}: {traceback.format_exc()}")
        else:
            self.done[name] += 1


class Worker:
    """Makes a workspace, works in it, throws it away, again and again; and follows one command
    all the while."""

    def __init__(self, number: int, client: Client, tally: Tally, leave: asyncio.Event) -> None:
        self._number = number
        self._client = client
        self._tally = tally
        self._leave = leave

    async def live(self) -> None:
        workspace = await self._client.workspaces.create(id=f"long-{self._number}")
        execution = await workspace.start(script=TICKS, id="ticks")
        following = asyncio.create_task(self._tally.call("stream", lambda: self._follow(execution)))
        watching = asyncio.create_task(self._watch())
        asking = asyncio.create_task(self._ask(workspace))
        turn = 0
        while not self._leave.is_set():
            turn += 1
            await self._tally.call("life", lambda turn=turn: self._turn(turn))  # type: ignore[misc]
        await self._tally.call("stop", lambda: _ignored(workspace.files.write("stop", b"")))
        await asyncio.gather(following, asking)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await self._tally.call("delete", lambda: _ignored(workspace.delete(force=True)))

    async def _ask(self, workspace: Workspace) -> None:
        """One short call after the other, to every service."""

        async def once() -> None:
            await workspace.refresh()
            await workspace.source.status()
            await workspace.executions.named("ticks").refresh()
            await workspace.files.write("asked", b"x")

        while not self._leave.is_set():
            await self._tally.call("ask", once)

    async def _turn(self, turn: int) -> None:
        name = f"w{self._number}-{turn}"
        workspace = await self._client.workspaces.create(id=name)
        content = name.encode() * 1000
        await workspace.files.write("file", content)
        result = await workspace.execute(script="cat file | wc -c; sleep 0.2; exit 7")
        assert result.text.strip() == str(len(content)), result
        assert result.exit_status == 7, result
        assert await workspace.files.read("file") == content
        status = await workspace.source.status()
        assert [each.path for each in status.entries] == ["file"], status
        found = [each.id async for each in self._client.workspaces.list()]
        assert name in found, found
        await workspace.delete(force=True)

    async def _follow(self, execution: Execution) -> None:
        """Every byte, once, in order."""
        output = b""
        async for event in execution.output():
            match event:
                case Chunk():
                    assert event.offset == len(output), (event.offset, len(output))
                    output += event.data
                case Gap():
                    raise AssertionError(f"a gap: {event}")
                case Exit():
                    assert event.code == 0, event
        lines = output.decode().splitlines()
        assert lines[:-1] == [str(each) for each in range(len(lines) - 1)], lines[-3:]
        assert lines[-1] == f"end {len(lines) - 1}", lines[-3:]

    async def _watch(self) -> None:
        """Ends with the test; whatever else ends it is a failure."""

        async def forever() -> None:
            async for _ in self._client.workspaces.watch():
                pass
            raise AssertionError("it ended")

        await self._tally.call("watch", forever)


async def _ignored(work: Awaitable[object]) -> None:
    await work
