"""GitService, called as a client calls it."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.git.v1 import git_pb2 as pb
from cove.git.v1.git_pb2_grpc import GitServiceStub
from cove.mount.v1.mount_pb2 import Mount
from servicekit import status
from services.git.app import git
from services.git.config import Config
from services.git.repository import head_ref
from tests.git.parts import OTHER, UID, make_source, run_git
from tests.git.program import Program

ACME = (("cove-tenant", "acme"), ("cove-principal", "ada"))


def config(tmp_path: Path) -> Config:
    return Config(state=tmp_path / "s", runtime=tmp_path / "r", local_roots=(Path("/"),))


def program(mount: Mount, state: Path) -> Program:
    """The program in the sandbox of a worktree that is mounted so."""
    overlay = mount.mode == Mount.MODE_OVERLAY
    marks = {Mount.XATTRS_TRUSTED: "trusted", Mount.XATTRS_USER: "user"}
    return Program(
        {
            "xattrs": marks[mount.xattrs] if overlay else "",
            "lowers": [str(state / lower) for lower in mount.lowers],
            "upper": str(state / (mount.upper if overlay else mount.worktree)),
            "work": str(state / mount.work),
            "objects": str(state / mount.objects),
            "outside": str(state / mount.outside),
            "lock": str(state / mount.lock),
        }
    )


@pytest.fixture
async def stub(tmp_path: Path) -> AsyncIterator[GitServiceStub]:
    async with (
        git(config(tmp_path)) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        yield GitServiceStub(channel)


async def create(
    stub: GitServiceStub, source: Path, uid: str = UID, **more: Any
) -> pb.CreateWorktreeResponse:
    request = pb.CreateWorktreeRequest(
        uid=uid, repository=str(source), branch=f"cove/{uid[0]}", **more
    )
    return await stub.CreateWorktree(request, metadata=ACME)


async def test_a_worktree_is_used_from_create_to_push(
    stub: GitServiceStub, source: Path, tmp_path: Path
) -> None:
    created = await create(stub, source)
    assert created.worktree.state == pb.Worktree.STATE_READY
    assert created.worktree.tenant == "acme"
    with closing(program(created.mount, tmp_path / "s")) as inside:
        assert inside.git("log", "--format=%s") == "Change"
        inside.sh("echo 1 >new.txt")
    found = await stub.GetWorktreeStatus(pb.GetWorktreeStatusRequest(uid=UID), metadata=ACME)
    [entry] = found.status.entries
    assert (entry.path, entry.work_state) == ("new.txt", pb.StatusEntry.WORK_STATE_UNTRACKED)
    events = [event async for event in stub.GetDiff(pb.GetDiffRequest(uid=UID), metadata=ACME)]
    assert [event.WhichOneof("event") for event in events] == ["file", "patch", "end"]
    commit = pb.Commit(
        message="Add new.txt",
        author=pb.Signature(name="Ada", email="ada@example.org"),
        trailers=[pb.Trailer(key="Task", value="7")],
    )
    request = pb.CreateCommitRequest(
        uid=UID, commit=commit, request_id="9b0f3a4e-8a53-4d9a-9a55-3f4d5b6c7d8e"
    )
    made = await stub.CreateCommit(request, metadata=ACME)
    assert made.commit.message == "Add new.txt"
    assert made.commit.trailers == commit.trailers
    assert await stub.CreateCommit(request, metadata=ACME) == made
    after = await stub.GetWorktreeStatus(pb.GetWorktreeStatusRequest(uid=UID), metadata=ACME)
    assert (after.status.ahead, after.status.behind, after.status.total) == (1, 0, 0)
    pushed = await stub.PushBranch(pb.PushBranchRequest(uid=UID), metadata=ACME)
    assert pushed.commit == made.commit.id
    assert run_git(source, "rev-parse", "cove/a") == made.commit.id
    removed = await stub.RemoveWorktree(pb.RemoveWorktreeRequest(uid=UID), metadata=ACME)
    assert removed.existed


async def test_commits_and_branches_come_in_pages(stub: GitServiceStub, source: Path) -> None:
    for name in ("one", "two", "three"):
        run_git(source, "commit", "-q", "--allow-empty", "-m", name)
        run_git(source, "branch", name)
    await create(stub, source)
    seen: list[str] = []
    token = ""
    while True:
        request = pb.ListCommitsRequest(uid=UID, page_size=3, page_token=token)
        page = await stub.ListCommits(request, metadata=ACME)
        seen += [commit.message for commit in page.commits]
        if not (token := page.next_page_token):
            break
    assert seen == ["three", "two", "one", "Change"]
    names, token = [], ""
    while True:
        branches = pb.ListBranchesRequest(uid=UID, page_size=1, page_token=token)
        found = await stub.ListBranches(branches, metadata=ACME)
        names += [branch.name for branch in found.branches]
        if not (token := found.next_page_token):
            break
    assert names == ["cove/a", "main", "one", "three", "two"]


async def test_worktrees_are_listed_in_pages(stub: GitServiceStub, source: Path) -> None:
    await create(stub, source, UID)
    await create(stub, source, OTHER)
    first = await stub.ListWorktrees(pb.ListWorktreesRequest(page_size=1))
    assert [one.uid for one in first.worktrees] == [UID]
    request = pb.ListWorktreesRequest(page_size=1, page_token=first.next_page_token)
    second = await stub.ListWorktrees(request)
    assert [one.uid for one in second.worktrees] == [OTHER]
    assert second.next_page_token == ""


@pytest.mark.parametrize(
    ("repository", "revision", "code", "reason"),
    [
        ("/none", "", grpc.StatusCode.NOT_FOUND, "REPOSITORY_NOT_FOUND"),
        ("ext::sh", "", grpc.StatusCode.INVALID_ARGUMENT, "REMOTE_FORBIDDEN"),
        ("SOURCE", "none", grpc.StatusCode.NOT_FOUND, "REVISION_NOT_FOUND"),
    ],
)
async def test_failures_have_code_and_reason(
    stub: GitServiceStub,
    source: Path,
    repository: str,
    revision: str,
    code: grpc.StatusCode,
    reason: str,
) -> None:
    request = pb.CreateWorktreeRequest(
        uid=UID,
        repository=repository.replace("SOURCE", str(source)),
        revision=revision,
        branch="b",
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.CreateWorktree(request, metadata=ACME)
    assert caught.value.code() is code
    assert status.reason(caught.value) == ErrorReason.Value(f"ERROR_REASON_{reason}")


async def test_more_paths_than_a_command_takes_are_refused(
    stub: GitServiceStub, source: Path
) -> None:
    await create(stub, source)
    for count, code in ((100, grpc.StatusCode.OK), (1000, grpc.StatusCode.INVALID_ARGUMENT)):
        paths = [f"{number:04}" + "/d" * 1500 for number in range(count)]
        call = stub.GetDiff(pb.GetDiffRequest(uid=UID, paths=paths), metadata=ACME)
        with suppress(grpc.aio.AioRpcError):
            assert [event.WhichOneof("event") async for event in call] == ["end"]
        assert await call.code() is code


async def test_a_filter_that_git_does_not_take_is_no_fault_of_the_remote(
    stub: GitServiceStub, source: Path
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await create(stub, source, filter="blob:limit=999999999999g")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert status.reason(caught.value) == ErrorReason.ERROR_REASON_INVALID_FIELD


async def test_a_damaged_ref_hides_no_other_worktree(
    stub: GitServiceStub, source: Path, tmp_path: Path
) -> None:
    await create(stub, source, UID)
    other = await create(stub, source, OTHER)
    (ref,) = (tmp_path / "s" / "git").glob(f"repositories/*/*.git/{head_ref(UID)}")
    for damaged in (b"", b"what?\n"):
        ref.write_bytes(damaged)
        found = (await stub.ListWorktrees(pb.ListWorktreesRequest())).worktrees
        heads = {one.uid: one.head_commit for one in found}
        assert heads == {UID: "", OTHER: other.worktree.head_commit}


async def test_names_of_branches_that_are_no_text_are_told_as_text(
    stub: GitServiceStub, source: Path
) -> None:
    head = run_git(source, "rev-parse", "HEAD").encode()
    names = (b"caf\xe9", b"caf\xc3\xa9", b"z")
    lines = b"".join(b"create refs/heads/%s %s\n" % (name, head) for name in names)
    run_git(source, "update-ref", "--stdin", stdin=lines)
    (source / ".git" / "HEAD").write_bytes(b"ref: refs/heads/caf\xe9\n")
    await create(stub, source)
    told, token = [], ""
    while True:
        request = pb.ListBranchesRequest(uid=UID, page_size=1, page_token=token)
        page = await stub.ListBranches(request, metadata=ACME)
        told += [branch.name for branch in page.branches]
        if not (token := page.next_page_token):
            break
    assert told == ["cove/a", "caf\u00e9", "caf\ufffd", "main", "z"]
    with pytest.raises(grpc.aio.AioRpcError) as caught:  # No branch that could be named again.
        await stub.PreviewMerge(pb.PreviewMergeRequest(uid=UID), metadata=ACME)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("people", "seconds"),
    [
        (b"\x01 <a@b> 7 +0000", 7),
        (b"A <a@b> 99999999999999999999 +0000", 253_402_300_799),
        *(
            pytest.param(people, seconds, marks=pytest.mark.long)
            for people, seconds in (
                (b"A <\x01> 7 +0000", 7),
                (b"A <a@b> 253402300799 +0000", 253_402_300_799),
                (b"A <a@b> 253402300800 +0000", 253_402_300_799),
                (b"A <a@b> " + b"9" * 5000 + b" +0000", 253_402_300_799),
                (b"A <a@b> long ago", 0),
                (b"nobody", 0),
            )
        ),
    ],
)
async def test_a_commit_that_says_anything_of_people_and_times_is_listed(
    people: bytes, seconds: int, stub: GitServiceStub, source: Path
) -> None:
    tree = run_git(source, "rev-parse", "HEAD^{tree}").encode()
    data = b"tree %s\nauthor %s\ncommitter %s\n\nx\n" % (tree, people, people)
    options = ("-t", "commit", "-w", "--literally", "--stdin")
    commit = run_git(source, "hash-object", *options, stdin=data)
    run_git(source, "update-ref", "refs/heads/main", commit)
    await create(stub, source)
    answer = await stub.ListCommits(pb.ListCommitsRequest(uid=UID), metadata=ACME)
    [found] = answer.commits
    assert (found.id, found.message) == (commit, "x")
    assert found.author.time.seconds == found.committer.time.seconds == seconds
    assert MessageToDict(answer)


@asynccontextmanager
async def process(tmp_path: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The service as a process of its own."""
    env = {
        "PATH": os.environ["PATH"],
        "COVE_STATE": str(tmp_path / "s"),
        "COVE_RUNTIME": str(tmp_path / "r"),
        "COVE_GIT__LOCAL_ROOTS": "/",
    }
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.git", env=env, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert running.stdout
        await running.stdout.readline()
        yield running, f"unix:{tmp_path}/r/git"
    finally:
        if running.returncode is None:
            running.send_signal(signal.SIGTERM)
        await running.communicate()


@pytest.mark.parametrize("part", [{}, {"depth": 1}, {"depth": 1, "filter": "blob:none"}])
@pytest.mark.parametrize(
    "moment", [0.08, *(pytest.param(each, marks=pytest.mark.long) for each in (0.02, 0.15, 0.25))]
)
async def test_a_service_killed_while_it_creates_finishes_on_retry(
    moment: float, part: dict[str, Any], tmp_path: Path
) -> None:
    source = make_source(tmp_path / "source")
    (source / "large").write_bytes(os.urandom(4 << 20))
    run_git(source, "add", "-A")
    run_git(source, "commit", "-qm", "Large")
    async with (
        process(tmp_path) as (running, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        creating = asyncio.ensure_future(create(GitServiceStub(channel), source, **part))
        await asyncio.wait([creating], timeout=moment)
        running.kill()
        await asyncio.wait([creating])
        creating.exception()
    async with (
        process(tmp_path) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub = GitServiceStub(channel)
        created = await create(stub, source, **part)
        assert created.worktree.state == pb.Worktree.STATE_READY
        log = await stub.ListCommits(pb.ListCommitsRequest(uid=UID), metadata=ACME)
        assert len(log.commits) == part.get("depth", 2)
        found = await stub.GetWorktreeStatus(pb.GetWorktreeStatusRequest(uid=UID), metadata=ACME)
        assert found.status.total == 0
        await stub.RemoveWorktree(pb.RemoveWorktreeRequest(uid=UID), metadata=ACME)
        assert not (await stub.ListWorktrees(pb.ListWorktreesRequest())).worktrees
