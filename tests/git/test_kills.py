"""The service is killed at any point of what it does: nothing is half there, a retry does it."""

import asyncio
import os
import shutil
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.git.v1 import git_pb2 as pb
from servicekit import status
from services.git.repository import head_ref
from tests.git.node import ACME, Moment, Node
from tests.git.parts import make_source, run_git

READY: Final = pb.Worktree.STATE_READY
POINTS: Final = int(os.environ.get("COVE_KILL_POINTS", "36"))
"""Of each operation in `make test-long`."""
FEW: Final = 1


@dataclass(frozen=True)
class Case:
    """One time that an operation is cut off."""

    node: Node
    origin: Path
    number: int

    @property
    def uid(self) -> str:
        return _uid("a", self.number)

    @property
    def other(self) -> str:
        return _uid("b", self.number)

    @property
    def request_id(self) -> str:
        return str(uuid.UUID(int=self.number))

    @property
    def own_origin(self) -> Path:
        """A repository that nobody has used before."""
        path = self.origin.with_name(f"{self.number}.git")
        if not path.exists():
            shutil.copytree(self.origin, path)
        return path

    async def create_anew(self) -> pb.CreateWorktreeResponse:
        """Of a repository that was not here before."""
        return await replace(self, origin=self.own_origin).create()

    async def create(self) -> pb.CreateWorktreeResponse:
        request = pb.CreateWorktreeRequest(
            uid=self.uid,
            repository=f"file://{self.origin}",
            branch=f"cove/{self.uid}",
            request_id=self.request_id,
        )
        answer: pb.CreateWorktreeResponse = await self.node.stub.CreateWorktree(
            request, metadata=ACME
        )
        return answer

    async def changed(self) -> None:
        """Make the worktree, with a change in it."""
        await self.create()
        folder = self.node.git / "worktrees" / self.uid
        tree = next(path for path in (folder / "upper", folder / "tree") if path.is_dir())
        owner = tree.stat()
        for name in ("new", "README"):
            path = tree / name
            path.write_text(f"{self.number}\n")
            os.chown(path, owner.st_uid, owner.st_gid)

    async def commit(self) -> pb.CreateCommitResponse:
        request = pb.CreateCommitRequest(
            uid=self.uid, commit=pb.Commit(message="Change"), request_id=self.request_id
        )
        answer: pb.CreateCommitResponse = await self.node.stub.CreateCommit(request, metadata=ACME)
        return answer

    async def entries(self, uid: str) -> list[str]:
        request = pb.GetWorktreeStatusRequest(uid=uid)
        found = await self.node.stub.GetWorktreeStatus(request, metadata=ACME)
        return [entry.path for entry in found.status.entries]

    async def commits(self, uid: str) -> list[str]:
        found = await self.node.stub.ListCommits(pb.ListCommitsRequest(uid=uid), metadata=ACME)
        return [one.id for one in found.commits]

    async def forget(self) -> None:
        """Remove what there is."""
        for uid in await self.node.worktrees():
            await self.node.stub.RemoveWorktree(pb.RemoveWorktreeRequest(uid=uid), metadata=ACME)


@dataclass(frozen=True)
class Operation:
    """What is cut off; `check` gets what the retry answered."""

    prepare: Callable[[Case], Awaitable[Any]]
    call: Callable[[Case], Awaitable[Any]]
    check: Callable[[Case, Any], Awaitable[None]]
    again: Callable[[Case], Awaitable[Any]] | None = None
    """What the caller does then; the same, unless this is given."""


async def _nothing(_: Case) -> None:
    pass


async def _check_create(case: Case, answer: pb.CreateWorktreeResponse) -> None:
    assert answer.worktree.state == READY
    assert set(await case.node.worktrees()) == {case.uid}
    assert await case.entries(case.uid) == []
    assert len(await case.commits(case.uid)) == int(
        run_git(case.origin, "rev-list", "--count", "main")
    )


async def _check_commit(case: Case, answer: pb.CreateCommitResponse) -> None:
    listed = await case.commits(case.uid)
    assert listed[0] == answer.commit.id
    assert len(listed) == int(run_git(case.origin, "rev-list", "--count", "main")) + 1
    assert await case.entries(case.uid) == []
    assert await case.commit() == answer


async def _fork(case: Case) -> pb.ForkWorktreeResponse:
    request = pb.ForkWorktreeRequest(
        uid=case.other,
        source_uid=case.uid,
        branch=f"cove/{case.other}",
        request_id=case.request_id,
    )
    answer: pb.ForkWorktreeResponse = await case.node.stub.ForkWorktree(request, metadata=ACME)
    return answer


async def _check_fork(case: Case, answer: pb.ForkWorktreeResponse) -> None:
    assert answer.worktree.state == READY
    assert set(await case.node.worktrees()) == {case.uid, case.other}
    for uid in (case.uid, case.other):
        assert await case.entries(uid) == ["README", "new"]


async def _snapshot(case: Case) -> pb.SnapshotWorktreeResponse:
    request = pb.SnapshotWorktreeRequest(
        uid=case.uid, snapshot_id="kept", request_id=case.request_id
    )
    answer: pb.SnapshotWorktreeResponse = await case.node.stub.SnapshotWorktree(
        request, metadata=ACME
    )
    return answer


async def _check_snapshot(case: Case, answer: pb.SnapshotWorktreeResponse) -> None:
    assert answer.snapshot.id == "kept"
    request = pb.ForkWorktreeRequest(
        uid=case.other, source_uid=case.uid, snapshot_id="kept", branch=f"cove/{case.other}"
    )
    await case.node.stub.ForkWorktree(request, metadata=ACME)
    for uid in (case.uid, case.other):
        assert await case.entries(uid) == ["README", "new"]


async def _committed(case: Case) -> None:
    await case.changed()
    await case.commit()


async def _merge(case: Case) -> pb.MergeBranchResponse:
    request = pb.MergeBranchRequest(
        uid=case.uid,
        strategy=pb.MERGE_STRATEGY_MERGE,
        request_id=case.request_id,
    )
    answer: pb.MergeBranchResponse = await case.node.stub.MergeBranch(request, metadata=ACME)
    return answer


async def _merge_again(case: Case) -> pb.MergeBranchResponse:
    """Git's own `receive-pack` leaves a lock where it is killed, and the origin is not ours."""
    lock = case.origin / "refs" / "heads" / "main.lock"
    if lock.exists():
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _merge(case)
        assert status.reason(caught.value) == ErrorReason.ERROR_REASON_PUSH_REJECTED
        lock.unlink()
    return await _merge(case)


async def _check_merge(case: Case, answer: pb.MergeBranchResponse) -> None:
    head = run_git(case.origin, "rev-parse", "main")
    assert answer.commit.id == head
    assert run_git(case.origin, "show", "main:new") == str(case.number)
    ours = (await case.commits(case.uid))[0]
    merges = run_git(case.origin, "rev-list", "--min-parents=2", f"{ours}..main").split()
    assert merges == [head]
    run_git(case.origin, "fsck", "--full", "--strict")


async def _remove(case: Case) -> pb.RemoveWorktreeResponse:
    request = pb.RemoveWorktreeRequest(uid=case.uid, request_id=case.request_id)
    answer: pb.RemoveWorktreeResponse = await case.node.stub.RemoveWorktree(request, metadata=ACME)
    return answer


async def _check_remove(case: Case, answer: pb.RemoveWorktreeResponse) -> None:
    assert await case.node.worktrees() == {}
    for store in case.node.git.glob("repositories/*/*.git"):
        assert not (store / head_ref(case.uid)).exists()
    # What was written before must not be left either: this is the next write.
    await Case(case.node, case.origin, case.number + 1_000_000).create()


OPERATIONS: Final = {
    "first create": Operation(_nothing, Case.create_anew, _check_create),
    "create": Operation(_nothing, Case.create, _check_create),
    "commit": Operation(Case.changed, Case.commit, _check_commit),
    "snapshot": Operation(Case.changed, _snapshot, _check_snapshot),
    "fork": Operation(Case.changed, _fork, _check_fork),
    "merge": Operation(_committed, _merge, _check_merge, _merge_again),
    "remove": Operation(_committed, _remove, _check_remove),
}


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """Nobody has its `main` checked out, so that it can be merged into."""
    source = make_source(tmp_path / "source", {f"d/{n}": f"{n}\n" for n in range(40)})
    path = tmp_path / "bare.git"
    run_git(tmp_path, "clone", "-q", "--bare", str(source), str(path))
    return path


@pytest.mark.parametrize("name", ["create", "commit", "merge"])
async def test_a_service_killed_at_some_points_does_it_once(
    name: str, tmp_path: Path, origin: Path
) -> None:
    await kill_at_points(OPERATIONS[name], tmp_path, origin, FEW)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", OPERATIONS)
async def test_a_service_killed_at_any_point_does_it_once(
    name: str, tmp_path: Path, origin: Path
) -> None:
    early = await kill_at_points(OPERATIONS[name], tmp_path, origin, POINTS)
    print(f"{name}: {POINTS} points, {early} while it was under way")  # noqa: T201


async def kill_at_points(operation: Operation, tmp_path: Path, origin: Path, points: int) -> int:
    """Half of the points are spread over how long it takes, half over what can be seen of it."""
    early = 0
    async with Node(tmp_path) as node:
        await Case(node, origin, 0).create()  # What comes next does not wait for a clone.
        await Case(node, origin, 0).forget()
        whole, events = await _measure(operation, Case(node, origin, 1))
        half = points // 2
        moments = [Moment(seconds=whole * (n + 0.5) / half) for n in range(half)]
        moments += [Moment(event=1 + n * events // (points - half)) for n in range(points - half)]
        for number, moment in enumerate(moments, 2):
            case = Case(node, origin, number)
            await operation.prepare(case)
            try:
                early += await node.cut_off(operation.call(case), moment)
                await node.check_nothing_is_half_there()
                again = operation.again or operation.call
                await operation.check(case, await again(case))
                assert node.leftovers() == []
                await node.fsck()
            except BaseException as error:
                error.add_note(f"cut off at {moment} of {whole:.2f} s and {events} events")
                raise
            await case.forget()
            await node.check_nothing_is_half_there()
    return early


async def _measure(operation: Operation, case: Case) -> tuple[float, int]:
    """Seconds that it takes, and how much is to be seen meanwhile."""
    await operation.prepare(case)
    began = time.monotonic()
    calling = asyncio.ensure_future(operation.call(case))
    seen = case.node.there()
    new = 0
    while not calling.done():
        await asyncio.sleep(0)
        now = case.node.there()
        new += len(now - seen)
        seen |= now
    whole = time.monotonic() - began
    await operation.check(case, await calling)
    await case.forget()
    return whole, max(new, 1)


def _uid(letter: str, number: int) -> str:
    digits = "abcdefghijklmnopqrstuvwxyz234567"
    text = "".join(digits[number >> 5 * place & 31] for place in range(6))
    return letter * 10 + text
