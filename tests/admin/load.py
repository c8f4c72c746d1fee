"""Clients that create, run, commit and delete all the time, and what they were told."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cove.client import Client
from cove.executor.v1.executor_pb2 import Chunk
from tests.support.suite import Suite

_WORK = 'echo "$0" > file; echo "$0" > ~/file; echo "$0"'


@dataclass(frozen=True, slots=True)
class Told:
    """A workspace with work in it, all of which was acknowledged."""

    id: str
    commit: str


@dataclass(slots=True)
class Journal:
    """What was acknowledged until now."""

    made: dict[str, Told] = field(default_factory=dict)
    leaving: set[str] = field(default_factory=set)
    """Of whom a delete was begun."""
    gone: set[str] = field(default_factory=set)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, made: int, gone: int) -> None:
        """Returns when there is so much."""
        while len(self.made) < made or len(self.gone) < gone:
            self.news.clear()
            await self.news.wait()


@asynccontextmanager
async def under_load(suite: Suite, repository: Path, clients: int = 3) -> AsyncIterator[Journal]:
    """What they are told while the block runs. At its end they stop when they have an answer."""
    journal, over = Journal(), asyncio.Event()
    async with suite.client() as cove:
        working = [
            asyncio.create_task(_work(cove, repository, f"client{number}", journal, over))
            for number in range(clients)
        ]
        try:
            yield journal
        finally:
            over.set()
            await asyncio.gather(*working)


async def _work(
    cove: Client, repository: Path, name: str, journal: Journal, over: asyncio.Event
) -> None:
    for number in itertools.count():
        if over.is_set():
            return
        key = f"{name}-{number}"
        made = await cove.workspaces.create(id=key, repository=f"file://{repository}")
        await made.execute("sh", "-c", _WORK, key, id="work")
        commit = (await made.commit("Work", author=("Ada", "ada@example.org"))).commit.id
        await made.execute("sh", "-c", "echo uncommitted > later")
        journal.made[key] = Told(key, commit)
        journal.news.set()
        if number % 3 == 0:
            journal.leaving.add(key)
            await made.delete(force=True)
            journal.gone.add(key)
            journal.news.set()


async def check(cove: Client, told: Told) -> None:
    """It is there, with all that was done in it."""
    workspace = await cove.workspaces.get(told.id)
    assert await workspace.read_text("file") == f"{told.id}\n"
    assert await workspace.read_text("later") == "uncommitted\n"
    done = await workspace.execute("cat", "/home/cove/file")
    assert done.stdout == f"{told.id}\n".encode()
    events = [each async for each in workspace.executions.named("work").output()]
    assert b"".join(each.data for each in events if isinstance(each, Chunk)) == done.stdout
    [head, *_] = [each async for each in workspace.log()]
    assert head.id == told.commit
