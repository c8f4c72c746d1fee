"""One command: from a generation of an environment to the next."""

import asyncio
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import dagger

from engines.dagger import applying
from engines.dagger.containers import GIT, WORKSPACE, container_of, identified, worktree
from engines.dagger.errors import CommandLost
from engines.dagger.heads import Head, Heads, Record
from engines.dagger.images import USER
from engines.dagger.pool import Engine
from engines.dagger.preview import Listener
from engines.dagger.session import Session
from engines.dagger.shim import CODE, ERR, OUT

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that is over, and what is in its files."""

    head: Head
    code: str
    """As the shim wrote it."""
    out: Path
    err: Path


@dataclass(frozen=True, slots=True)
class Begin:
    """What a command begins with."""

    head: Head
    record: Record
    touches: int
    """How often its worktree had been touched: see `Heads.settle`."""


class Run:
    """One command: begun by `Environments.run`."""

    def __init__(
        self,
        engine: Engine,
        heads: Heads,
        begin: Begin,
        argv: tuple[str, ...],
        variables: tuple[tuple[str, str], ...],
    ) -> None:
        self._engine = engine
        self._heads = heads
        self._head = begin.head
        self._record = begin.record
        self._touches = begin.touches
        self._argv = argv
        self._variables = variables

    async def wait(self, folder: Path, listener: Listener | None = None) -> Ran:
        """Run it, take its output into `folder` and what it changed into the worktree.

        Cancelled, or with CommandLost, the environment is as it was before; once its changes are on
        their way into the worktree, it is too late for that. It is sent once. `listener` hears what
        is seen live.
        """
        async with self._engine.session() as session:
            return await self._wait(session, folder, listener)

    async def _wait(self, session: Session, folder: Path, listener: Listener | None) -> Ran:
        client = session.client
        head = self._head
        before = container_of(client, head)
        if head.dirty:
            before = before.without_directory(WORKSPACE).with_directory(
                WORKSPACE, worktree(client, self._record), owner=USER
            )
        fresh = replace(
            head,
            generation=head.generation + 1,
            layers=head.layers + (3 if head.dirty else 1),
            dirty=False,
        )
        # What is asked for after it is told by the engine as if the command had written it.
        with session.previews.heard(listener) if listener else nullcontext():
            after = await self._after(client, before, fresh).sync()
        fresh = replace(fresh, container=await after.id())
        ran = await _collected(after, fresh, folder)
        removed = await self._export(before, after, folder / "changes")
        head = await uninterrupted(self._taken, fresh, folder / "changes", removed)
        return replace(ran, head=head)

    def _taken(self, fresh: Head, changes: Path, removed: list[str] | None) -> Head:
        """Bring the changes into the worktree, if there are any, and keep the generation."""
        if removed is not None:
            applying.apply(changes, removed, Path(self._record.tree))
        return self._heads.settle(fresh, self._touches)

    def _after(
        self, client: dagger.Client, before: dagger.Container, fresh: Head
    ) -> dagger.Container:
        container = identified(before, fresh)
        for name, value in self._variables:
            # The name is of the engine's, and shared by all its clients; the value is not.
            secret = client.set_secret(f"{fresh.uid}.{fresh.generation}.{name}", value)
            container = container.with_secret_variable(name, secret)
        container = container.with_exec(
            list(self._argv),
            redirect_stdout=OUT,
            redirect_stderr=ERR,
            expect=dagger.ReturnType.ANY,
        )
        for name, _ in self._variables:
            container = container.without_secret_variable(name)
        return container

    async def _export(
        self, before: dagger.Container, after: dagger.Container, folder: Path
    ) -> list[str] | None:
        """Write what was made, or changed, below `folder`; what was removed. None: nothing was."""
        work = after.directory(WORKSPACE)
        if await work.exists(GIT):  # The worktree has its own, which is git's business.
            work = work.without_directory(GIT)
        changes = work.changes(before.directory(WORKSPACE))
        if await changes.is_empty():
            return None
        removed = await changes.removed_paths()
        await changes.layer().export(str(folder))
        return removed


async def uninterrupted(work: Callable[..., T], *arguments: Any) -> T:
    """What `work` gives, in a thread. That cannot be stopped, so it is waited for in any case: what
    it works on would be closed, or somebody else's, before it ends."""
    task = asyncio.create_task(asyncio.to_thread(work, *arguments))
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait((task,))
    return task.result()


async def _collected(after: dagger.Container, fresh: Head, folder: Path) -> Ran:
    try:
        code = await after.file(CODE).contents()
    except dagger.QueryError as error:
        raise CommandLost("the command was killed with its shell", 137) from error
    out, err = folder / "out", folder / "err"
    await asyncio.gather(after.file(OUT).export(str(out)), after.file(ERR).export(str(err)))
    return Ran(fresh, code, out, err)
