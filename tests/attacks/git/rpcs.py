"""Every RPC of git that looks at a workspace, called one after the other."""

import asyncio
import secrets
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from cove import status
from cove.git.v1 import git_pb2 as pb
from cove.git.v1.git_pb2_grpc import GitServiceStub
from cove.status import CoveError
from cove.workspace import Workspace

PATIENCE: Final = 30.0
"""Seconds within which every call has an answer, whatever is in the workspace."""

_SERVICE: Final = pb.DESCRIPTOR.services_by_name["GitService"]
_FIRST: Final = frozenset(
    {"GetWorktreeStatus", "GetDiff", "CreateCommit", "ListCommits", "ListBranches"}
    | {"FetchRepository", "PushBranch"}
)
LOOKING: Final = frozenset(
    method.name for method in _SERVICE.methods if "uid" in method.input_type.fields_by_name
) - {"CreateWorktree", "RemoveWorktree"}
"""What looks at a workspace, but for that by which each attack begins and ends."""
_OTHERS: Final = [method.name for method in _SERVICE.methods if method.name in LOOKING - _FIRST]
# What they are given beyond the uid. `topic` is a branch that conflicts with any workspace.
_FIELDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "PreviewMerge": {"target": "topic", "fetch": True},
    "MergeBranch": {"target": "topic"},
    "SnapshotWorktree": {"snapshot_id": "attack", "copy_live": True},
    "RemoveSnapshot": {"snapshot_id": "attack"},
}
_NO_ANSWERS: Final = frozenset(
    {
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNAVAILABLE,
    }
)
_KINDS: Final = pb.DiffRange


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a call said: a message, or the failure."""

    rpc: str
    text: bytes
    failure: str = ""
    """Code and reason; empty when it succeeded."""
    message: Any = None
    is_told: bool = True
    """Whether it is a failure of the caller or of the workspace, not of the service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A workspace and the git service behind it."""

    workspace: Workspace
    git: GitServiceStub
    tenant: str
    bare: Path
    """A repository that one may push to."""

    @property
    def uid(self) -> str:
        return self.workspace.message.uid

    async def all(self) -> AsyncIterator[Answer]:
        """Call each. Asserts that every one answers in time."""
        for rpc, call in self._calls():
            yield await self.ask(rpc, call)

    async def ask(self, rpc: str, call: Callable[[], Awaitable[Any]]) -> Answer:
        """One call, in bounded time."""
        try:
            async with asyncio.timeout(PATIENCE):
                message = await call()
        except TimeoutError:
            raise AssertionError(f"{rpc} does not answer") from None
        except CoveError as error:
            return _failed(rpc, error)
        except grpc.aio.AioRpcError as error:
            return _failed(rpc, status.of(error, "git"))
        return Answer(rpc=rpc, text=_bytes(message), message=message)

    def _calls(self) -> Iterator[tuple[str, Callable[[], Awaitable[Any]]]]:
        kinds = [_KINDS.KIND_HEAD_TO_WORK, _KINDS.KIND_BASE_TO_WORK, _KINDS.KIND_BASE_TO_HEAD]
        yield "GetWorktreeStatus", self.workspace.status
        for kind in kinds:
            yield "GetDiff", lambda kind=kind: self.diff(kind)  # type: ignore[misc]
        # Through the gateway, as what is in the sandbox is to follow it.
        yield "CreateCommit", lambda: self.workspace.commit("All that can be")
        yield "GetDiff", lambda: self.diff(_KINDS.KIND_BASE_TO_HEAD)
        yield "GetDiff", lambda: self.diff(_KINDS.KIND_COMMITS)
        yield "ListCommits", lambda: self.call("ListCommits")
        yield "ListBranches", lambda: self.call("ListBranches")
        yield "FetchRepository", lambda: self.call("FetchRepository")
        yield "PushBranch", lambda: self.call("PushBranch")
        yield (
            "PushBranch",
            lambda: self.call("PushBranch", remote=f"file://{self.bare}", remote_branch=self.uid),
        )
        for rpc in _OTHERS:
            if rpc == "ForkWorktree":
                yield rpc, self.fork
            else:
                yield rpc, lambda rpc=rpc: self.call(rpc)  # type: ignore[misc]
        yield "GetWorktreeStatus", self.workspace.status
        yield "CreateCommit", lambda: self.call("CreateCommit", commit=pb.Commit(message="Again"))

    async def call(self, rpc: str, **fields: Any) -> Message | list[Message]:
        """A call of the service itself; of one that streams, all that comes."""
        descriptor = _SERVICE.methods_by_name[rpc].input_type
        given = {"uid": self.uid, "request_id": str(uuid.uuid4()), **_FIELDS.get(rpc, {}), **fields}
        known = {name: value for name, value in given.items() if name in descriptor.fields_by_name}
        request = getattr(pb, descriptor.name)(**known)
        method = getattr(self.git, rpc)
        asked = method(request, metadata=self._metadata, timeout=PATIENCE)
        if _SERVICE.methods_by_name[rpc].server_streaming:
            return [event async for event in asked]
        answer: Message = await asked
        return answer

    async def fork(self) -> Message | list[Message]:
        """Fork it, and remove the fork."""
        uid = "".join(secrets.choice("abcdefgh234567") for _ in range(16))
        try:
            return await self.call(
                "ForkWorktree", uid=uid, source_uid=self.uid, branch=uid, copy_live=True
            )
        finally:
            await self.call("RemoveWorktree", uid=uid)

    async def diff(self, kind: int) -> list[Message]:
        """All events of a diff."""
        request = pb.GetDiffRequest(uid=self.uid)
        request.range.kind = kind  # type: ignore[assignment]
        if kind == _KINDS.KIND_COMMITS:
            base = self.workspace.message.base_commit
            request.range.MergeFrom(pb.DiffRange(**{"from": base, "to": "HEAD"}))  # type: ignore[arg-type]
        return [
            event
            async for event in self.git.GetDiff(request, metadata=self._metadata, timeout=PATIENCE)
        ]

    @property
    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("cove-tenant", self.tenant), ("cove-principal", "tests"))


def _bytes(message: Any) -> bytes:
    parts = message if isinstance(message, list) else [message]
    return b"".join(part.SerializeToString() for part in parts)


def _failed(rpc: str, error: CoveError) -> Answer:
    text = "\n".join([str(error), *getattr(error, "__notes__", [])])
    failure = f"{error.code.name} {error.reason}"
    return Answer(
        rpc=rpc,
        text=text.encode(errors="replace"),
        failure=failure,
        is_told=error.code not in _NO_ANSWERS,
    )
