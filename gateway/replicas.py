"""Keeps the commits of workspaces with `rebuild` on a second node.

Who commits waits for that a little; what is missed, as the second node was away or the commit was
made inside, the reconciler does. The record says which node has them, and up to which commit.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, Self
from weakref import WeakValueDictionary

import grpc

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.git.v1 import git_pb2
from cove.registry.v1.registry_pb2 import Environment
from gateway import names
from gateway.deadlines import said
from gateway.errors import WorkspaceNotFound
from gateway.node import Node
from gateway.orphans import Found, Key
from gateway.records import Operation, Records, State
from gateway.teardown import Teardown
from gateway.tools import Tools
from servicekit import calls
from servicekit.errors import ServiceError, Unavailable
from servicekit.status import reason

_log = logging.getLogger(__name__)

COPY: Final = ("copy_node", "copy_commit")
"""The fields of a record that say who has a copy of its commits."""
_PATIENCE: Final = 5.0
"""Seconds that a caller waits for it."""
_SECONDS: Final = 600.0
_AT_ONCE: Final = 4
_TRIES: Final = 5
_HELD: Final = (State.STATE_READY, State.STATE_SUSPENDED)
_FAILURES: Final = (ServiceError, grpc.aio.AioRpcError, TimeoutError)


class Replicas:
    """Use `open`."""

    def __init__(self, tools: Tools, records: Records, teardown: Teardown) -> None:
        self._nodes = tools.nodes
        self._git = tools.git
        self._records = records
        self._teardown = teardown
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._tasks: dict[asyncio.Task[None], str] = {}
        self._seen: dict[str, tuple[object, ...]] = {}
        """By uid: what there was to see of it when its commits were kept last."""

    @classmethod
    @asynccontextmanager
    async def open(cls, tools: Tools, records: Records, teardown: Teardown) -> AsyncIterator[Self]:
        """On leaving, what goes on is dropped: the next gateway does it."""
        replicas = cls(tools, records, teardown)
        try:
            yield replicas
        finally:
            tasks = [*replicas._tasks]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def kept(self, environment: Environment) -> str:
        """Have its commits kept; what its caller should know, if they are not yet."""
        if not self._concerns(environment):
            return ""
        task = self.begin(environment)
        await asyncio.wait([task], timeout=_PATIENCE)
        if task.done() and (task.cancelled() or task.exception() is None):
            return ""
        why = _told(task.exception()) if task.done() else "it takes longer"
        return f"the commit is on no second node yet, which goes on: {why}"

    def begin(self, environment: Environment) -> "asyncio.Task[None]":
        """Have its commits kept. What it raises is in the log, too."""
        with calls.detached():
            task = asyncio.create_task(self._keep(environment))
        self._tasks[task] = environment.uid
        task.add_done_callback(lambda done: self._ended(environment, done))
        return task

    def look(
        self, environment: Environment, found: Mapping[Key, Found], nodes: Collection[str]
    ) -> None:
        """Begin what was missed, given what was found on these nodes of what is at rest."""
        idle = environment.operation == Operation.OPERATION_NONE
        if not idle or not self._concerns(environment) or self._nodes.silent(environment.node):
            return
        uid, second = environment.uid, environment.copy_node
        own = found.get((environment.node, uid))
        active = environment.last_active_time.ToNanoseconds()
        seen = (active, environment.head_commit, environment.node, second)
        lost = second in nodes and not found.get((second, uid), Found("")).kept_commit
        settled = (
            self._seen.get(uid) == seen
            and not (own and own.active)
            and not lost
            and not self._nodes.gone(second)
        )
        if settled or self._second(environment) is None:
            return
        if lost:
            environment.copy_commit = ""
        self._seen[uid] = seen if not (own and own.active) else ()
        self.begin(environment)

    def forget(self, known: Collection[str]) -> None:
        """Of what has no record, nothing is remembered."""
        self._seen = {uid: seen for uid, seen in self._seen.items() if uid in known}

    def at(self, environment: Environment) -> str:
        """The other node that has its commits, if that can have all of it; else empty."""
        for node in self._nodes.answering():
            if node.name == environment.copy_node != environment.node:
                return node.name if node.can(environment.spec) else ""
        return ""

    async def release(self, environment: Environment) -> None:
        """Keep no copy of it. What cannot be removed now goes as an orphan does."""
        for task, uid in self._tasks.items():
            if uid == environment.uid:
                task.cancel()
        async with self._locks.setdefault(environment.uid, asyncio.Lock()):
            current = await self._current(environment)
            if current and current.copy_node not in ("", current.node):
                await self._remove(current.uid, current.copy_node)

    async def _keep(self, environment: Environment) -> None:
        """Raises what stands in the way."""
        lock = self._locks.setdefault(environment.uid, asyncio.Lock())
        async with lock, self._room, asyncio.timeout(_SECONDS):
            current = await self._current(environment)
            if current is None or current.state not in _HELD:
                return
            if not environment.copy_commit:
                current.copy_commit = ""
            node = self._second(current)
            if node is None:
                raise Unavailable("no other node answers", service="nodes")
            commit = await self._sent(current, node.name)
            if not commit:
                return
            former = current.copy_node
            await self._note(current, node.name, commit)
            if former not in ("", node.name, current.node) and not self._nodes.silent(former):
                await self._remove(current.uid, former)

    async def _sent(self, current: Environment, node: str) -> str:
        """The commit that the node has now; empty where there is none but the origin's."""
        base = [commit for commit in (current.worktree.base_commit,) if commit]
        last = [current.copy_commit] if node == current.copy_node and current.copy_commit else []
        tries = [have for have in ([*last, *base] if last else [], base) if have]
        for have in (*tries, []):
            try:
                return await self._send(current, node, have)
            except grpc.aio.AioRpcError as error:
                told = reason(error)
                if told == ErrorReason.ERROR_REASON_REVISION_NOT_FOUND:
                    return ""
                if told != ErrorReason.ERROR_REASON_COMMITS_MISSING or not have:
                    raise
        return ""

    async def _send(self, current: Environment, node: str, have: Sequence[str]) -> str:
        git = self._git
        asked = git_pb2.ExportCommitsRequest(uid=current.uid, have=have)
        with calls.detached(node=current.node):
            async with git.stream(git.rpc.ExportCommits, asked) as events:
                header = (await anext(events)).header
                there = (node, header.commit) == (current.copy_node, current.copy_commit)
                if there or _is_origins(current, header.commit):
                    return "" if not there else header.commit
                with calls.detached(node=node):
                    sending = _requests(current, header, events)
                    await git.upload(git.rpc.ImportCommits, sending)
        return header.commit

    async def _note(self, current: Environment, node: str, commit: str) -> None:
        """Have the record say so, and what the head is, unless that has moved since."""
        head, latest = current.head_commit, current
        for attempt in range(_TRIES):
            if (latest.copy_node, latest.copy_commit, latest.head_commit) == (node, commit, commit):
                return
            noted = Environment(
                name=latest.name, copy_node=node, copy_commit=commit, head_commit=commit
            )
            fields = (*COPY, "head_commit") if latest.head_commit == head else COPY
            try:
                await self._records.update(noted, fields, etag=latest.etag)
                return
            except grpc.aio.AioRpcError as error:
                if error.code() != grpc.StatusCode.ABORTED or attempt + 1 == _TRIES:
                    raise
            again = await self._current(current)
            if again is None:
                return
            latest = again

    async def _current(self, environment: Environment) -> Environment | None:
        """Its record; None where it is gone."""
        try:
            current = await self._records.get(names.workspace_name(environment.name))
        except WorkspaceNotFound:
            return None
        return current if current.uid == environment.uid else None

    async def _remove(self, uid: str, node: str) -> None:
        try:
            with calls.detached(node=node):
                await self._teardown.worktree(uid, keep_unsaved=False)
        except _FAILURES as error:
            _log.info("a copy is not removed now: %s", error, extra={"fields": {"uid": uid}})

    def _second(self, environment: Environment) -> Node | None:
        """The one that has a copy, while that answers; else the one with the least to do."""
        others = [each for each in self._nodes.answering() if each.name != environment.node]
        for each in others:
            if each.name == environment.copy_node:
                return each
        able = [each for each in others if each.can(environment.spec)] or others
        return min(able, key=lambda each: each.load, default=None)

    def _concerns(self, environment: Environment) -> bool:
        held = environment.state in _HELD
        return self._nodes.several and environment.spec.rebuild and held

    def _ended(self, environment: Environment, task: "asyncio.Task[None]") -> None:
        del self._tasks[task]
        if task.cancelled() or (error := task.exception()) is None:
            return
        self._seen.pop(environment.uid, None)
        known = isinstance(error, _FAILURES)
        fields = {"fields": {"uid": environment.uid}}
        _log.warning(
            "its commits are on no second node: %s", error, exc_info=not known, extra=fields
        )


async def _requests(
    current: Environment,
    header: git_pb2.ExportedCommits,
    events: AsyncIterator[git_pb2.ExportCommitsResponse],
) -> AsyncIterator[git_pb2.ImportCommitsRequest]:
    """What one node sends, as the other one takes it."""
    spec = current.spec
    yield git_pb2.ImportCommitsRequest(
        header=git_pb2.ImportCommitsHeader(
            uid=current.uid,
            repository=spec.repository,
            revision=spec.revision,
            depth=spec.depth,
            filter=spec.filter,
            commit=header.commit,
            prerequisites=header.prerequisites,
        )
    )
    async for event in events:
        match event.WhichOneof("part"):
            case "data":
                yield git_pb2.ImportCommitsRequest(data=event.data)
            case "end":
                yield git_pb2.ImportCommitsRequest(end=event.end)


def _is_origins(environment: Environment, commit: str) -> bool:
    """Whether nothing was committed since it was made of its origin."""
    made = environment.worktree.base_commit
    return commit == made and not environment.copy_commit and not environment.HasField("source")


def _told(error: BaseException | None) -> str:
    return said(error) if isinstance(error, Exception) else "internal error"
