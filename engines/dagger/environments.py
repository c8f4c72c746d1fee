"""Environments as generations of containers: every command yields the next one, or nothing.

One writer at a time. What a caller's handle says is compared with what is kept here, and both with
what is inside the container: only when all agree is anything opened. A container that is gone, or
another's, is never guessed at; it is made anew, from the image, the setup and the worktree.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from weakref import WeakValueDictionary

from engines.dagger import applying
from engines.dagger.command import Begin, Run
from engines.dagger.containers import (
    WORKSPACE,
    container_of,
    kept,
    marked,
    worktree,
)
from engines.dagger.errors import (
    EngineLost,
    HandleInvalid,
    HandleStale,
    TooManyLayers,
)
from engines.dagger.heads import Head, Heads, Record
from engines.dagger.images import USER, Builder
from engines.dagger.pool import Engine, Engines
from engines.dagger.proving import Proofs
from engines.dagger.settings import Settings

_log = logging.getLogger(__name__)


class Environments:
    """All of this node. Failures are those of `engines.dagger.errors`."""

    def __init__(self, settings: Settings, engines: Engines, heads: Heads) -> None:
        self._settings = settings
        self._engines = engines
        self._scratch = settings.state / "scratch"
        self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.images = settings.state / "images"
        self.images.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.heads = heads
        self._proofs = Proofs(settings.node, self.heads, engines)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def writing(self, uid: str) -> asyncio.Lock:
        """Held by whoever makes the next generation: two from one container would fork it."""
        return self._locks.setdefault(uid, asyncio.Lock())

    async def create(
        self,
        uid: str,
        tenant: str,
        image: str,
        setup: Sequence[str],
        tree: str,
        *,
        rebuild: bool = False,
        source: str = "",
    ) -> Head:
        """Make one, or find the one of that uid. Raises HandleInvalid when it is another.

        As a fork of `source` where there is that one, of the same tenant, image and setup.
        """
        wanted = Record(
            uid=uid,
            tenant=tenant,
            image=image or self._settings.image,
            digest="",
            setup=tuple(setup),
            tree=tree,
            made=time.time(),
            rebuild=rebuild,
        )
        async with self.writing(uid):
            record, head = self.heads.record(uid), self.heads.head(uid)
            if record and not record.same(wanted):
                raise HandleInvalid("the uid has another environment")
            if record and head:
                return head
            origin = self.heads.record(source) if source else None
            if record is None and origin and origin.same(replace(wanted, tree=origin.tree)):
                begin, _ = await self.recovered(source)
                return await self._forked(begin, replace(wanted, digest=origin.digest))
            engine = await self._engines.answering()
            if record is None:
                async with engine.client() as client:
                    digest = await Builder(client, self.images).resolve(wanted.image)
                record = replace(wanted, digest=digest)
            touches = self.heads.touches(uid)
            head = await self._made(engine, record, 1)
            await asyncio.to_thread(self.heads.keep, record)
            return await asyncio.to_thread(self.heads.settle, head, touches)

    async def opened(self, uid: str, handle: bytes = b"") -> Head:
        """The newest generation, which is there and is its own.

        Raises HandleBehind for a handle of an older one; HandleInvalid for one that was never
        given; HandleStale when the engine does not have it: see `rebuild`.
        """
        return await self._proofs.opened(uid, handle)

    async def recovered(self, uid: str, handle: bytes = b"") -> tuple[Head, bool]:
        """As `opened`; what the engine has lost is made anew, and then true.

        Where the engine itself does not answer, on another one, if its record allows that.
        """
        before, engine = self.heads.head(uid), None
        try:
            return await self.opened(uid, handle), False
        except (HandleStale, EngineLost) as error:
            if handle and not self._proofs.newest(uid, handle):
                raise
            if isinstance(error, EngineLost):
                engine = await self._another(uid)
                if engine is None:
                    raise
        return await self.rebuild(uid, before, engine), True

    async def _another(self, uid: str) -> Engine | None:
        """An engine on which it may be made anew, as its own is surely away; else None."""
        record, head = self.heads.record(uid), self.heads.head(uid)
        if not (record and record.rebuild and head):
            return None
        if await self._engines.named(head.engine).answers():
            return None
        return await self._engines.other(head.engine)

    async def rebuild(
        self, uid: str, before: Head | None = None, engine: Engine | None = None
    ) -> Head:
        """Make it anew: image, setup, worktree. What else it had is gone.

        On its engine, or on the one that is given; not if somebody did since it was `before`.
        """
        async with self.writing(uid):
            record, head = self.heads.record(uid), self.heads.head(uid)
            if record is None:
                raise HandleStale("nothing is kept of it on this node")
            if before and head and head.generation > before.generation:
                return head
            if engine is None:
                engine = self._engines.named(head.engine) if head else self._engines.default()
            touches = self.heads.touches(uid)
            made = await self._made(engine, record, (head.generation if head else 0) + 1)
            return await asyncio.to_thread(self.heads.settle, made, touches)

    async def fork(self, head: Head, record: Record) -> Head:
        """Another environment that begins as a generation of this one. Costs no copy.

        Its worktree is `record.tree`, and is brought in before its first command.
        """
        async with self.writing(record.uid):
            return await self._forked(head, record)

    async def snapshot(self, head: Head, path: Path) -> None:
        """Write a generation to a tar of OCI, which outlives the engine."""
        async with self._engines.named(head.engine).client() as client:
            await self._proofs.verify(head)
            await container_of(client, head).as_tarball().export(str(path))

    async def run(
        self, head: Head, argv: Sequence[str], variables: Sequence[tuple[str, str]] = ()
    ) -> Run:
        """Begin the next generation by a command; `variables` are secret. The caller holds
        `writing`, and has `head` from `opened`."""
        record = self.heads.record(head.uid)
        kept = self.heads.head(head.uid)
        if record is None or kept is None:
            raise HandleStale("nothing is kept of it on this node")
        touches = self.heads.touches(head.uid)
        head = replace(
            head, dirty=head.dirty or kept.dirty
        )  # Somebody may have touched it meanwhile.
        if head.layers >= self._settings.generations:
            head = await self._compacted(head, record)
        # From here on the worktree may get what this generation has not, should we be killed.
        await asyncio.to_thread(self.heads.keep, replace(head, dirty=True))
        begin = Begin(head, record, touches)
        return Run(self.engine(head), self.heads, begin, tuple(argv), tuple(variables))

    async def export(self, image: str, setup: Sequence[str], path: Path, *, docker: bool) -> None:
        """Write an image after its setup to a tar, as `Builder.export`."""
        async with self._engines.default().client() as client:
            builder = Builder(client, self.images)
            digest = await builder.resolve(image or self._settings.image)
            await builder.export(digest, setup, path, docker=docker)

    async def has_program(self, head: Head, program: str, path: str, cwd: str) -> bool:
        """Whether there is something to run. What the worktree has new is not seen."""
        names = [program] if "/" in program else [f"{each}/{program}" for each in path.split(":")]
        async with self._engines.named(head.engine).client() as client:
            container = container_of(client, head)
            asked = [name if name.startswith("/") else f"{cwd}/{name}" for name in names]
            found = await asyncio.gather(*(container.exists(name) for name in asked))
        return any(found)

    def engine(self, head: Head) -> Engine:
        return self._engines.named(head.engine)

    @asynccontextmanager
    async def scratch(self) -> AsyncIterator[Path]:
        """A new directory, for what an engine writes to this host."""
        folder = self._scratch / secrets.token_hex(8)
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            await asyncio.to_thread(applying.remove, folder)

    async def _forked(self, head: Head, record: Record) -> Head:
        await self._proofs.verify(head)
        fresh = replace(head, uid=record.uid, epoch=secrets.token_hex(8), generation=1, dirty=True)
        async with self.engine(head).client() as client:
            container = marked(container_of(client, head), fresh)
            fresh = replace(fresh, container=await kept(container))
        # In this order: without a record it is none, and is forked again.
        await asyncio.to_thread(self.heads.keep, fresh)
        await asyncio.to_thread(self.heads.keep, record)
        return fresh

    async def _made(self, engine: Engine, record: Record, generation: int) -> Head:
        head = Head(
            uid=record.uid,
            engine=engine.name,
            epoch=secrets.token_hex(8),
            generation=generation,
            container="",
            layers=2,
        )
        async with engine.client() as client:
            base = await Builder(client, self.images).built(record.digest, record.setup)
            container = base.with_user(USER).with_directory(
                WORKSPACE, worktree(client, record), owner=USER
            )
            container = marked(container, head)
            return replace(head, container=await kept(container))

    async def _compacted(self, head: Head, record: Record) -> Head:
        """The same in one layer; or made anew, where the engine cannot mount it any more."""
        try:
            async with self.engine(head).client() as client:
                container = container_of(client, head)
                flat = client.directory().with_directory("/", container.rootfs())
                fresh = replace(
                    head, generation=head.generation + 1, epoch=secrets.token_hex(8), layers=2
                )
                fresh = replace(
                    fresh, container=await kept(marked(container.with_rootfs(flat), fresh))
                )
        except TooManyLayers:
            fresh = await self._made(self.engine(head), record, head.generation + 1)
        await asyncio.to_thread(self.heads.keep, fresh)
        return fresh
