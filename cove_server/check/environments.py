"""Environments whose parts are not all there, and parts of which no environment is."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from cove.provider.v1 import provider_pb2
from cove.registry.v1.registry_pb2 import Environment
from cove_server.admin.database import Registry
from cove_server.check.aside import Aside
from cove_server.check.finding import Finding
from cove_server.check.node import Node
from gateway.convert import provider_spec
from services.git.record import Record, State, layers_of
from services.provider import mending as provider
from services.provider.config import Config
from services.registry import mending

_REASON: Final = "WORKTREE_NOT_FOUND"
_LOST: Final = "the files of the workspace were not on disk when they were looked for"


class Environments:
    def __init__(self, node: Node, registry: Registry, config: Config, aside: Aside) -> None:
        self._node = node
        self._registry = registry
        self._config = config
        self._aside = aside

    def look(self) -> Iterator[Finding]:
        yield from self._missing()
        yield from self._unknown()

    def _missing(self) -> Iterator[Finding]:
        node = self._node
        for each in node.settled:
            worktree = node.worktrees.get(each.uid)
            record = worktree.record if worktree else None
            if worktree is None or (record and record.state is State.REMOVING):
                yield Finding(
                    "worktree-missing",
                    each.uid,
                    f"{each.name} of {each.tenant} has no worktree",
                    self._failing(each),
                )
            elif record and each.uid not in node.provisioned:
                yield Finding(
                    "environment-missing",
                    each.uid,
                    f"{each.name} of {each.tenant} is not provisioned",
                    self._provisioning(each),
                )
        for uid, each in node.environments.items():
            deleted = each.state == Environment.STATE_DELETED and uid not in node.busy
            if deleted and uid not in node.worktrees:
                yield Finding(
                    "worktree-missing",
                    uid,
                    f"{each.name} of {each.tenant} is deleted, and its work is not there",
                    self._forgetting(each),
                )

    def _unknown(self) -> Iterator[Finding]:
        node = self._node
        for uid in node.unknown(node.worktrees):
            worktree = node.worktrees[uid]
            found = "of no environment" + (f"; {worktree.problem}" if worktree.problem else "")
            yield Finding("worktree-unknown", uid, found, self._losing(uid, worktree.record))
        for uid, worktree in node.worktrees.items():
            if uid in node.environments and worktree.record is None and uid not in node.busy:
                yield Finding(
                    "worktree-damaged",
                    uid,
                    worktree.problem,
                    self._losing(uid, None, node.environments[uid]),
                )
        for kind, uids, folder in (
            ("environment-unknown", node.provisioned, "provider/environments"),
            ("executions-unknown", node.executions, "executor/executions"),
        ):
            for uid in node.unknown(uids):
                yield Finding(kind, uid, "of no environment", self._moving(kind, folder, uid))

    def _failing(self, each: Environment) -> Callable[[], Awaitable[str]]:
        async def mend() -> str:
            async with self._registry.store() as store:
                await mending.mark_failed(store, each, _REASON, _LOST)
            return "marked as failed"

        return mend

    def _forgetting(self, each: Environment) -> Callable[[], Awaitable[str]]:
        async def mend() -> str:
            async with self._registry.store() as store:
                await mending.forget(store, each)
            return "its record was removed"

        return mend

    def _provisioning(self, each: Environment) -> Callable[[], Awaitable[str]]:
        async def mend() -> str:
            spec: provider_pb2.Spec = provider_spec(each.spec)
            provider.provision(self._config, each.uid, each.tenant, spec, each.mount)
            return "provisioned anew"

        return mend

    def _moving(self, kind: str, folder: str, uid: str) -> Callable[[], Awaitable[str]]:
        async def mend() -> str:
            return self._aside.move(f"{folder}/{uid}", uid, f"{kind}: no environment has this uid")

        return mend

    def _losing(
        self, uid: str, record: Record | None, environment: Environment | None = None
    ) -> Callable[[], Awaitable[str]]:
        """Move a worktree with all it stands on: its commits go by `refs-unknown`."""

        async def mend() -> str:
            why = "the worktree has no environment, or no record"
            needed = {
                name
                for other, each in self._node.worktrees.items()
                if each.record and other != uid
                for name in layers_of(each.record)
            }
            for name in dict.fromkeys(layers_of(record) if record else ()):
                if (self._node.state / "git" / "layers" / name).exists():
                    keep = self._aside.copy if name in needed else self._aside.move
                    await asyncio.to_thread(keep, f"git/layers/{name}", uid, why)
            said = self._aside.move(f"git/worktrees/{uid}", uid, why)
            if environment is not None:
                async with self._registry.store() as store:
                    await mending.mark_failed(store, environment, _REASON, _LOST)
                said += ", and the workspace is marked as failed"
            return said

        return mend
