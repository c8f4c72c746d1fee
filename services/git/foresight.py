"""Which live worktrees of one repository will collide, before any of them is merged.

The work of each is looked at as a commit would have it, written as objects beside its worktree
for as long as it takes, and merged with each other where nothing of it is kept.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from servicekit.disk import DiskGuard
from servicekit.errors import InvalidArgument, ServiceError
from services.git import changes, inside
from services.git.collisions import Collision, Collisions, Head
from services.git.worktrees import Worktrees

_AT_ONCE: Final = 4
_MOST: Final = 256 << 20
"""Bytes of uncommitted contents of one worktree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A worktree that was looked at, with the work on its head, if any; or why it was not."""

    uid: str
    head: str = ""
    uncommitted: bool = False
    error: ServiceError | None = None


class Foresight:
    def __init__(self, worktrees: Worktrees, collisions: Collisions, disk: DiskGuard) -> None:
        self._worktrees = worktrees
        self._collisions = collisions
        self._disk = disk

    async def look(
        self, uids: Sequence[str], tenant: str, *, include_uncommitted: bool
    ) -> tuple[list[Seen], list[Collision]]:
        """All worktrees, and each pair that collides, in the order of `uids`.

        Raises `WorktreeNotFound`, `GitTooOld`, and `InvalidArgument` where they are not all of
        one tenant and repository.
        """
        uids = list(dict.fromkeys(uids))
        records = [self._worktrees.owned(uid, tenant) for uid in uids]
        if len({(record.tenant, record.key) for record in records}) > 1:
            raise InvalidArgument("uids", "the worktrees are not all of one repository")
        if include_uncommitted:
            self._disk.check()
        slots = asyncio.Semaphore(_AT_ONCE)
        async with AsyncExitStack() as stack:

            async def see(uid: str) -> tuple[Seen, Head]:
                async with slots:
                    try:
                        return await self._see(stack, uid, tenant, work=include_uncommitted)
                    except ServiceError as error:
                        return Seen(uid=uid, error=error), Head(name=uid, commit="")

            found = await asyncio.gather(*map(see, uids))
            heads = [head for _, head in found if head.commit or head.tree]
            repository = self._worktrees.repository_of(records[0])
            collisions = await self._collisions.find(repository, heads)
        return [seen for seen, _ in found], collisions

    async def _see(
        self, stack: AsyncExitStack, uid: str, tenant: str, *, work: bool
    ) -> tuple[Seen, Head]:
        _, workspace = await self._worktrees.ready(uid, tenant)
        inside.check_followed(workspace)
        async with workspace.lock:
            head = workspace.head
            seen, found = Seen(uid=uid, head=head), Head(name=uid, commit=head)
            if not work:
                return seen, found
            where = await stack.enter_async_context(workspace.scratch())
            planned = await changes.write_tree(workspace, head, (), where.objects, _MOST)
        if not planned.changed:
            return seen, found
        objects: Path | None = workspace.in_scratch(where)
        return (
            replace(seen, uncommitted=True),
            replace(found, tree=planned.tree, objects=objects),
        )
