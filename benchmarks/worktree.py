"""Worktrees of the git service against those of git: made, looked at, committed, removed.

The commit is given by its id and its checkout is there; both sides stand on the same commit
and have the same changes, which are made in the upper layer as the sandbox's user would.
"""

import asyncio
import base64
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Final
from uuid import uuid4

import grpc

from agent import SANDBOX_UID
from benchmarks.measure import Action, interleaved, report
from benchmarks.repository import GIT, Source, make
from benchmarks.suite import SERVICE_METADATA, Suite
from cove.git.v1 import git_pb2 as pb
from cove.git.v1.git_pb2_grpc import GitServiceStub

SIZES: Final = (100, 2_500, 15_000, 100_000)
_COMPARED: Final = 15_000
_CHANGES: Final = 10
_FORKED: Final = 256 << 20
_DORMANT: Final = 50


async def run(suite: Suite, folder: Path) -> None:
    sources = {files: make(folder / f"repo{files}.git", files) for files in SIZES}
    async with _service(suite) as service:
        for source in sources.values():
            await service.remove(await service.create(source))  # Fills the checkout.
        await _creates(service, sources)
        compared = sources[_COMPARED]
        await _against_git(suite, service, compared, folder)
        for files in (_COMPARED, max(SIZES)):
            await _changes(service, sources[files], folder / str(files))
        await _fork(service, sources[min(SIZES)], folder)
        await _dormant(suite, service, sources[min(SIZES)])
    for source in sources.values():
        shutil.rmtree(source.path)


async def _creates(service: "Service", sources: dict[int, Source]) -> None:
    """However large the repository is."""
    made: list[str] = []

    def create(source: Source) -> Action:
        async def one() -> None:
            made.append(await service.create(source))

        return one

    actions = {f"{files} files": create(source) for files, source in sources.items()}
    medians = await interleaved(actions, rounds=30)
    report("git service: create, by size", medians, [f"{min(sources)} files"])
    for uid in made:
        await service.remove(uid)


async def _against_git(suite: Suite, service: "Service", source: Source, folder: Path) -> None:
    made: list[str] = []
    added: list[Path] = []
    numbers = count()

    async def create() -> None:
        made.append(await service.create(source))

    async def add() -> None:
        path = folder / f"added{next(numbers)}"
        await _git(source.path, "worktree", "add", "-q", "-b", path.name, str(path), source.commit)
        added.append(path)

    named = count()

    async def through_gateway() -> None:
        await suite.create(source.path, f"compared{next(named)}", source.commit)

    async def remove() -> None:
        await service.remove(made.pop())

    async def remove_added() -> None:
        await _git(source.path, "worktree", "remove", "--force", str(added.pop()))

    actions = {
        "create": create,
        "create, through the gateway": through_gateway,
        "git worktree add": add,
        "remove": remove,
        "git worktree remove": remove_added,
    }
    medians = await interleaved(actions, rounds=4, warmup=1)
    title = f"git service, {len(source.files)} files"
    creates = ("create", "create, through the gateway", "git worktree add")
    report(title, _of(medians, *creates), ["git worktree add"])
    report(title, _of(medians, "remove", "git worktree remove"), ["git worktree remove"])
    for number in range(next(named)):
        await suite.delete(f"compared{number}")


async def _changes(service: "Service", source: Source, folder: Path) -> None:
    """Status and commit of ten changes, and what they cost git."""
    uid = await service.create(source)
    upper, beside = service.upper(uid), folder / "beside"
    await _git(source.path, "worktree", "add", "-q", "-b", "beside", str(beside), source.commit)
    step = len(source.files) // (_CHANGES * 2)
    edited = source.files[::step][: _CHANGES * 6 // 10]
    new = [f"{path}.new" for path in source.files[step // 2 :: step][: _CHANGES * 4 // 10]]
    rounds = count()

    async def change() -> None:
        number = next(rounds)
        for root in (upper, beside):
            await asyncio.to_thread(edit, root, [*edited, *new], f"round {number}\n" * 20)

    async def status() -> None:
        answer = await service.stub.GetWorktreeStatus(
            pb.GetWorktreeStatusRequest(uid=uid), metadata=SERVICE_METADATA
        )
        assert answer.status.total == _CHANGES, answer.status.total

    async def git_status() -> None:
        assert (await _git(beside, "status", "--porcelain")).count(b"\n") == _CHANGES

    await change()
    actions: dict[str, Action] = {"status": status, "git status": git_status}
    title = f"git service, {_CHANGES} changes in {len(source.files)} files"
    report(title, await interleaved(actions, rounds=50), ["git status"])
    actions = {"change": change, "status of changes just made": status, "git status": git_status}
    medians = await interleaved(actions, rounds=20)
    report(title, _of(medians, "status of changes just made", "git status"), ["git status"])

    async def commit() -> None:
        await service.stub.CreateCommit(
            pb.CreateCommitRequest(
                uid=uid, commit=pb.Commit(message="round"), request_id=str(uuid4())
            ),
            metadata=SERVICE_METADATA,
        )

    async def git_commit() -> None:
        await _git(beside, "add", "-A")
        await _git(beside, "commit", "-qm", "round")

    actions = {"change": change, "commit": commit, "git add -A, commit": git_commit}
    medians = await interleaved(actions, rounds=20)
    report(title, _of(medians, "commit", "git add -A, commit"), ["git add -A, commit"])
    await service.remove(uid)
    await _git(source.path, "worktree", "remove", "--force", str(beside))


async def _fork(service: "Service", source: Source, folder: Path) -> None:
    """A worktree with much that has changed, against a copy of that."""
    uid = await service.create(source)
    size, beside, numbers = _FORKED >> 6, folder / "changed", count()
    for root in (service.upper(uid), beside):
        edit(root, [f"large{number}" for number in range(64)], "0123456789abcdef" * (size >> 4))
    made: list[str] = []

    async def fork() -> None:
        made.append(await service.fork(uid))

    async def copy() -> None:
        command = ("cp", "-a", str(beside), str(folder / f"copy{next(numbers)}"))
        process = await asyncio.create_subprocess_exec(*command)
        assert await process.wait() == 0

    actions: dict[str, Action] = {"fork": fork, "cp -a": copy}
    medians = await interleaved(actions, rounds=5, warmup=1)
    report(f"git service, {_FORKED >> 20} MiB changed", medians, ["cp -a"])
    for each in (*made, uid):
        await service.remove(each)
    for path in (beside, *folder.glob("copy*")):
        shutil.rmtree(path)


async def _dormant(suite: Suite, service: "Service", source: Source) -> None:
    """What a workspace takes that nobody uses."""
    disk = await asyncio.to_thread(service.disk)
    processes = len(suite.descendants())
    for number in range(_DORMANT):
        await suite.create(source.path, f"dormant{number}", source.commit)
    each = (await asyncio.to_thread(service.disk) - disk) / _DORMANT
    more = max(0, len(suite.descendants()) - processes)
    print(f"\na dormant workspace, of {_DORMANT}")
    print(f"  {each / 1024:.1f} KiB of disk, {more / _DORMANT:.2f} processes")
    for number in range(_DORMANT):
        await suite.delete(f"dormant{number}")


def edit(root: Path, paths: Sequence[str], content: str) -> None:
    """Write files, and the directories above them, as the sandbox's user."""
    owner = SANDBOX_UID if os.geteuid() == 0 else os.geteuid()
    for name in paths:
        path = root / name
        missing = [each for each in path.parents if not each.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        for each in (*missing, path):
            os.chown(each, owner, owner)


class Service:
    """The git service through its gRPC face, without the gateway."""

    def __init__(self, stub: GitServiceStub, state: Path) -> None:
        self.stub = stub
        self._state = state

    async def create(self, source: Source) -> str:
        """The uid of a new worktree."""
        uid = _new_uid()
        request = pb.CreateWorktreeRequest(
            uid=uid,
            repository=source.url,
            revision=source.commit,
            branch=f"work/{uid}",
            request_id=str(uuid4()),
        )
        await self.stub.CreateWorktree(request, metadata=SERVICE_METADATA)
        return uid

    async def remove(self, uid: str) -> None:
        request = pb.RemoveWorktreeRequest(uid=uid, request_id=str(uuid4()))
        await self.stub.RemoveWorktree(request, metadata=SERVICE_METADATA)

    async def fork(self, source: str) -> str:
        """The uid of a fork of a worktree."""
        uid = _new_uid()
        request = pb.ForkWorktreeRequest(
            uid=uid, source_uid=source, branch=f"work/{uid}", request_id=str(uuid4())
        )
        await self.stub.ForkWorktree(request, metadata=SERVICE_METADATA)
        return uid

    def disk(self) -> int:
        """Bytes that the whole state takes, but for journals of databases, which are used again."""
        found = subprocess.run(
            ["du", "-sk", "--exclude=*.db-wal", str(self._state)],
            capture_output=True,
            text=True,
            check=True,
        )
        return int(found.stdout.split()[0]) * 1024

    def directory(self, uid: str) -> Path:
        """Where everything of a worktree is."""
        return self._state / "git" / "worktrees" / uid

    def upper(self, uid: str) -> Path:
        """Where its sandbox writes."""
        upper = self.directory(uid) / "upper"
        return upper if upper.exists() else self.directory(uid) / "tree"


def _new_uid() -> str:
    return base64.b32encode(uuid4().bytes[:10]).decode().lower()


@asynccontextmanager
async def _service(suite: Suite) -> AsyncIterator[Service]:
    async with grpc.aio.insecure_channel(f"unix:{suite.runtime}/git") as channel:
        yield Service(GitServiceStub(channel), suite.state)


async def _git(folder: Path, *words: str) -> bytes:
    """Run git, which must succeed; what it prints."""
    process = await asyncio.create_subprocess_exec(
        *GIT, "-c", "safe.directory=*", *words, cwd=folder, stdout=subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, words
    return output


def _of(medians: Mapping[str, float], *names: str) -> dict[str, float]:
    return {name: medians[name] for name in names}
