"""Whether what a caller's handle says, what is kept here and what an engine has are the same."""

import asyncio
from dataclasses import replace

import dagger

from engines.dagger.containers import ENV, GENERATION, container_of
from engines.dagger.errors import (
    EngineFull,
    EngineLost,
    HandleBehind,
    HandleInvalid,
    HandleStale,
    failure,
)
from engines.dagger.heads import Head, Heads
from engines.dagger.pool import Engines


class Proofs:
    """Of the environments of this node."""

    def __init__(self, node: str, heads: Heads, engines: Engines) -> None:
        self._node = node
        self._heads = heads
        self._engines = engines

    async def opened(self, uid: str, handle: bytes) -> Head:
        """See `Environments.opened`."""
        head = self._heads.head(uid)
        if handle:
            head = await self._compared(head, self._told(uid, handle))
        if head is None:
            raise HandleStale("nothing is kept of it on this node")
        await self.verify(head)
        return head

    def newest(self, uid: str, handle: bytes) -> bool:
        """Whether the handle is of the newest generation that is kept; the engine is not asked.

        Raises HandleInvalid.
        """
        head = self._heads.head(uid)
        return self._told(uid, handle) == (replace(head, dirty=True, layers=0) if head else None)

    async def verify(self, head: Head) -> None:
        """Raises HandleStale unless its container is there and says that it is the one."""
        async with self._engines.named(head.engine).client() as client:
            container = container_of(client, head)
            try:
                found = await asyncio.gather(
                    container.env_variable(ENV), container.env_variable(GENERATION)
                )
            except dagger.QueryError as error:
                known = failure(error.error.message)
                if isinstance(known, EngineLost | EngineFull):
                    raise known from error
                raise HandleStale(f"the engine does not have it: {error}"[:300]) from error
            except KeyError as error:  # What has its name now is no container.
                raise HandleStale("the engine has something else in its place") from error
        if tuple(found) != (f"{head.uid}.{head.epoch}", str(head.generation)):
            raise HandleStale("the engine has another in its place")

    def _told(self, uid: str, handle: bytes) -> Head:
        try:
            told = Head.of(handle, self._node)
        except ValueError as error:
            raise HandleInvalid(str(error)) from error
        if told.uid != uid:
            raise HandleInvalid("of another environment")
        self._engines.named(told.engine)
        return told

    async def _compared(self, kept: Head | None, told: Head) -> Head:
        """Which of both counts. What is told and not kept must be proven by the engine."""
        if kept and kept.generation > told.generation:
            raise HandleBehind(kept.generation)
        if kept and kept.generation == told.generation:
            if replace(told, dirty=kept.dirty, layers=kept.layers) != kept:
                raise HandleInvalid("not a handle that was given")
            return kept
        await self.verify(told)
        await asyncio.to_thread(self._heads.keep, told)
        return told
