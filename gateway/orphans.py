"""Removes what the tools of the node have and no record points at."""

import logging
import time
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Final, NamedTuple, TypeAlias

import grpc

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.executor.v1 import executor_pb2
from cove.git.v1 import git_pb2
from cove.options.v1.options_pb2 import Role
from cove.provider.v1 import provider_pb2
from cove.registry.v1.registry_pb2 import Environment
from gateway import names
from gateway.acts import Acts
from gateway.provisioned import provisioned
from gateway.teardown import Teardown
from gateway.tools import Tools
from servicekit import calls
from servicekit.errors import ServiceError
from servicekit.identity import Identity
from servicekit.status import OlderService, reason

_log = logging.getLogger(__name__)

_SECONDS: Final = 30.0
_PAGE: Final = 500
_PRINCIPAL: Final = "gateway"

ITSELF: Final = Identity(_PRINCIPAL, "", Role.ROLE_SERVICE)
"""The gateway, when it acts for no tenant."""


@dataclass(frozen=True, slots=True)
class Found:
    """What tools have of one environment."""

    tenant: str
    incomplete: bool = False
    """Whether its worktree was never finished, and so holds no work."""
    worktree: bool = False
    kept_commit: str = ""
    """What is kept here of its commits, while it is on another node."""
    provisioned: bool = False
    active: bool = False
    """Whether a sandbox of it runs."""
    executed: bool = False
    handle: bytes = b""
    generation: int = 0

    @property
    def is_copy(self) -> bool:
        """Whether there are commits and nothing else."""
        return not (self.worktree or self.provisioned or self.executed)


Key: TypeAlias = tuple[str, str]
"""Of what is found: the node, empty where there is one only, and the uid."""


class Looked(NamedTuple):
    """What was found, and on which nodes was looked."""

    found: Mapping[Key, Found]
    nodes: frozenset[str]
    partly: frozenset[str]
    """Those of them where a driver did not tell what it has."""

    def tells_all(self, key: Key) -> bool:
        """Whether all that there is of it was found: its driver may be one that did not tell."""
        node, found = key[0], self.found.get(key)
        return node in self.nodes and (node not in self.partly or bool(found and found.provisioned))


class Orphans:
    """`grace` is how long something must have been seen without a record to be removed:
    records that are gone by mistake can be brought back until then."""

    def __init__(self, tools: Tools, teardown: Teardown, acts: Acts, grace: timedelta) -> None:
        self._tools = tools
        self._nodes = tools.nodes
        self._teardown = teardown
        self._acts = acts
        self._grace = grace.total_seconds()
        self._seen: dict[Key, float] = {}

    async def candidates(self) -> Looked:
        """Whatever the tools of the nodes have that answer."""
        found: dict[Key, Found] = {}
        seen: set[str] = set()
        partly: set[str] = set()
        for node in self._nodes.answering():
            name = node.name if self._nodes.several else ""
            try:
                with self._nodes.at(node):
                    here, unreachable = await self._look()
            except (ServiceError, grpc.aio.AioRpcError) as error:
                _log.warning("cannot look for orphans now: %s", error)
                continue
            seen.add(name)
            if unreachable:
                _log.warning("no answer of drivers: %s", ", ".join(sorted(unreachable)))
                partly.add(name)
            found.update(((name, uid), each) for uid, each in here.items())
        return Looked(found, frozenset(seen), frozenset(partly))

    async def _look(self) -> tuple[dict[str, Found], set[str]]:
        """What the tools of one node have, and the drivers that do not answer."""
        found: dict[str, Found] = {}
        unreachable: set[str] = set()
        async for worktree in self._worktrees():
            state = git_pb2.Worktree.State
            found[worktree.uid] = Found(
                worktree.tenant,
                worktree.state == state.STATE_CREATING,
                worktree=worktree.state != state.STATE_COMMITS_ONLY,
                kept_commit=worktree.kept_commit,
            )
        async for page in provisioned(self._tools.provider):
            unreachable.update(page.unreachable)
            for observation in page.observations:
                found[observation.uid] = replace(
                    found.get(observation.uid, Found(observation.tenant)),
                    provisioned=True,
                    active=observation.state == provider_pb2.Observation.STATE_ACTIVE,
                    handle=observation.handle,
                    generation=observation.generation,
                )
        async for uid in self._executed():
            found[uid] = replace(found.get(uid, Found("")), executed=True)
        return found, unreachable

    async def remove(
        self,
        found: Mapping[Key, Found],
        known: Collection[Key],
        copies: Collection[Key],
        moved: Mapping[str, Environment],
    ) -> None:
        """Remove what was found and has no record there, once its grace is over.

        Of what is in `copies` the commits stay. Of what has `moved`, its record by its uid, what
        was not committed is lost.
        """
        now = time.monotonic()
        orphans = [
            key
            for key, each in found.items()
            if key not in known and not (key in copies and each.is_copy)
        ]
        self._seen = {key: self._seen.get(key, now) for key in orphans}
        for key, since in self._seen.items():
            if now - since < self._grace:
                continue
            node, uid = key
            try:
                with calls.detached(node=node):
                    await self._remove(uid, found[key], moved.get(uid), keep_commits=key in copies)
            except (ServiceError, grpc.aio.AioRpcError) as error:
                if reason(error) == ErrorReason.ERROR_REASON_UNSAVED_WORK:
                    _log.warning("keeping a worktree without record", extra=_fields(uid))
                else:
                    _log.warning("cannot remove an orphan: %s", error, extra=_fields(uid))

    async def _remove(
        self, uid: str, found: Found, moved: Environment | None, *, keep_commits: bool
    ) -> None:
        _log.info("removing an orphan", extra=_fields(uid))
        began = time.monotonic()
        with calls.detached(identity=Identity(_PRINCIPAL, found.tenant, Role.ROLE_SERVICE)):
            removed = [await self._teardown.sandbox(uid)]
            executions = await self._teardown.executions(uid)
            if found.executed:
                removed.append(executions)
            worktree = await self._remove_worktree(uid, found, moved, keep_commits=keep_commits)
            if found.worktree or found.kept_commit:
                removed.append(worktree)
            if removed[-1]:  # Of several gateways at it, the one that removed the last of it tells.
                self._acts.removed(uid, found.tenant, time.monotonic() - began)

    async def _remove_worktree(
        self, uid: str, found: Found, moved: Environment | None, *, keep_commits: bool
    ) -> bool:
        """Whether it was there."""
        remove = partial(self._teardown.worktree, uid, keep_commits=keep_commits)
        try:
            return await remove(keep_unsaved=not found.incomplete)
        except grpc.aio.AioRpcError as error:
            unsaved = reason(error) == ErrorReason.ERROR_REASON_UNSAVED_WORK
            if not unsaved or moved is None or not await self._followed(moved):
                raise
        return await remove(keep_unsaved=False)

    async def _followed(self, moved: Environment) -> bool:
        """Whether all that was committed here is where the workspace is now."""
        git = self._tools.git
        asked = git_pb2.GetWorktreeRequest(uid=moved.uid)
        head = (await git.unary(git.rpc.GetWorktree, asked)).worktree.head_commit
        sending = git_pb2.ExportCommitsRequest(uid=moved.uid, commit=head, have=[head])
        try:
            with calls.detached(node=moved.node):
                async with git.stream(git.rpc.ExportCommits, sending) as events:
                    await anext(events)
        except grpc.aio.AioRpcError as error:
            if reason(error) == ErrorReason.ERROR_REASON_REVISION_NOT_FOUND:
                return False
            raise
        return True

    async def _worktrees(self) -> AsyncIterator[git_pb2.Worktree]:
        git = self._tools.git
        request = git_pb2.ListWorktreesRequest(page_size=_PAGE)
        while True:
            page = await git.unary(git.rpc.ListWorktrees, request, timeout=_SECONDS)
            for worktree in page.worktrees:
                yield worktree
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def _executed(self) -> AsyncIterator[str]:
        executor = self._tools.executor
        request = executor_pb2.ListExecutedRequest(page_size=_PAGE)
        while True:
            try:
                page = await executor.unary(executor.rpc.ListExecuted, request, timeout=_SECONDS)
            except OlderService:
                return
            for parent in page.parents:
                yield parent.removeprefix(names.ENVIRONMENTS)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token


def _fields(uid: str) -> dict[str, dict[str, str]]:
    return {"fields": {"uid": uid}}
