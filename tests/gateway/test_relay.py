"""Executions, files and git of a workspace, through the gateway."""

import asyncio
import io
import tarfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import pytest_asyncio
from google.rpc.error_details_pb2 import BadRequest, RetryInfo

from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb
from cove.git.v1 import git_pb2
from cove.registry.v1.registry_pb2 import EnvironmentSpec
from servicekit.errors import InvalidArgument
from tests.gateway.conftest import SESSION
from tests.gateway.stage import LIMIT, Gateway, Stage, eventually
from tests.servicekit.failing import failure

Check: TypeAlias = Callable[[], Awaitable[bool]]

DEMO = "workspaces/demo"


@pytest_asyncio.fixture(loop_scope=SESSION)
async def demo(stage: Stage, gateway: Gateway) -> AsyncIterator[Gateway]:
    """A gateway that has a workspace."""
    request = stage.create()
    request.workspace.spec.MergeFrom(EnvironmentSpec(env={"COLOUR": "green"}))
    await gateway.workspaces.CreateWorkspace(request)
    yield gateway


async def test_a_dormant_workspace_wakes_for_a_command(stage: Stage, demo: Gateway) -> None:
    answer = await demo.executions.Execute(_execute("echo $COLOUR; pwd; echo oops >&2; exit 3"))
    assert answer.stdout.text == "green\n/workspace\n"
    assert answer.stderr.text == "oops\n"
    assert answer.execution.exit.code == 3
    assert answer.execution.name.startswith("workspaces/demo/executions/")
    assert stage.executor.calls.count("Execute") == 2
    assert stage.provider.calls.count("ActivateEnvironment") == 1


async def test_a_dormant_workspace_wakes_for_a_stream(stage: Stage, demo: Gateway) -> None:
    request = pb.StreamExecutionRequest(
        name=DEMO, execution_id="one", spec=executor_pb2.ExecutionSpec(script="echo hi")
    )
    events = [event async for event in demo.executions.StreamExecution(request)]
    assert events[0].execution.name == "workspaces/demo/executions/one"
    assert b"".join(event.chunk.data for event in events) == b"hi\n"
    assert events[-1].exit.code == 0
    assert stage.provider.calls.count("ActivateEnvironment") == 1


async def test_only_who_asks_for_batches_gets_them(demo: Gateway) -> None:
    spec = executor_pb2.ExecutionSpec(script="head -c 1000000 /dev/zero; echo end >&2")
    start = pb.StreamExecutionRequest(name=DEMO, execution_id="much", spec=spec)
    read = pb.ReadOutputRequest(name=f"{DEMO}/executions/much", follow=True)
    streams: dict[Any, Any] = {
        demo.executions.StreamExecution: start,
        demo.executions.ReadOutput: read,
    }
    for make, request in streams.items():
        plain = [event async for event in make(request)]
        request.batched = True
        batched = [event async for event in make(request)]
        assert not any(event.HasField("chunks") for event in plain)
        assert not any(event.HasField("chunk") for event in batched)
        chunks = [chunk for event in batched for chunk in event.chunks.chunks]
        assert b"".join(each.data for each in chunks) == bytes(1_000_000) + b"end\n"
        assert chunks == [event.chunk for event in plain if event.HasField("chunk")]
        assert batched[-1] == plain[-1]


async def test_an_upload_whose_sandbox_ends_before_it_comes_is_to_be_repeated(
    stage: Stage, demo: Gateway
) -> None:
    upload = [
        pb.WriteFileRequest(header=pb.WriteFileHeader(name=DEMO, path="new.txt")),
        pb.WriteFileRequest(data=b"new"),
        pb.WriteFileRequest(end=executor_pb2.WriteFileEnd(bytes=3)),
    ]
    held = stage.executor.hold("WriteFile")
    writing = asyncio.ensure_future(failure(demo.files.WriteFile(iter(upload))))
    await asyncio.wait_for(held.reached.wait(), LIMIT)
    await stage.end_sandbox("demo")
    stage.executor.heal()
    failed = await writing
    assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "AGENT_UNAVAILABLE")
    assert (await demo.files.WriteFile(iter(upload))).file.size == 3


async def test_a_dormant_workspace_wakes_for_files(stage: Stage, demo: Gateway) -> None:
    request = pb.ReadFileRequest(name=DEMO, path="hello.txt")
    events = [event async for event in demo.files.ReadFile(request)]
    assert b"".join(event.data for event in events) == b"hello\n"
    assert events[0].file.size == events[-1].end.bytes == 6


async def test_a_retry_without_execution_id_runs_nothing_twice(stage: Stage, demo: Gateway) -> None:
    request = _execute("echo x >> count; cat count", request_id=str(uuid.uuid4()))
    stage.executor.fail("Execute", times=1, done=True)
    answers = [await demo.executions.Execute(request) for _ in range(2)]
    assert answers[0].execution.name == answers[1].execution.name
    assert (await demo.executions.Execute(_execute("cat count"))).stdout.text == "x\n"


async def test_an_execution_is_known_by_the_name_of_its_workspace(
    stage: Stage, demo: Gateway
) -> None:
    name = f"{DEMO}/executions/build-1"
    started = await demo.executions.StartExecution(
        pb.StartExecutionRequest(
            parent=DEMO,
            execution_id="build-1",
            execution=executor_pb2.Execution(
                spec=executor_pb2.ExecutionSpec(script="echo one; read x; echo two")
            ),
        )
    )
    assert started.execution.name == name
    ended = await demo.executions.WaitExecution(pb.WaitExecutionRequest(name=name))
    assert ended.execution.name == name
    assert ended.execution.state == executor_pb2.Execution.STATE_ENDED
    got = await demo.executions.GetExecution(pb.GetExecutionRequest(name=name))
    assert got.execution.processes.total == 0
    got.execution.ClearField("processes")  # Which a wait does not tell of.
    assert got.execution == ended.execution
    listed = await demo.executions.ListExecutions(pb.ListExecutionsRequest(parent=DEMO))
    assert [each.name for each in listed.executions] == [name]
    request = pb.ReadOutputRequest(name=name, from_offset=4, follow=True)
    events = [event async for event in demo.executions.ReadOutput(request)]
    assert b"".join(event.chunk.data for event in events) == b"two\n"
    await demo.executions.DeleteExecution(pb.DeleteExecutionRequest(name=name))
    missing = await failure(demo.executions.GetExecution(pb.GetExecutionRequest(name=name)))
    assert missing.code is grpc.StatusCode.NOT_FOUND
    assert missing.reason == "EXECUTION_NOT_FOUND"
    assert missing.info.metadata["name"] == name


async def test_a_signal_reaches_the_command(stage: Stage, demo: Gateway) -> None:
    name = f"{DEMO}/executions/sleeper"
    spec = executor_pb2.ExecutionSpec(argv=["sleep", "1000"])
    await demo.executions.StartExecution(
        pb.StartExecutionRequest(
            parent=DEMO, execution_id="sleeper", execution=executor_pb2.Execution(spec=spec)
        )
    )
    await demo.executions.SignalExecution(
        pb.SignalExecutionRequest(name=name, signal=executor_pb2.SIGNAL_TERM)
    )
    ended = await demo.executions.WaitExecution(pb.WaitExecutionRequest(name=name))
    assert ended.execution.exit.signal.number == 15


async def test_a_reader_that_leaves_leaves_no_call_behind(stage: Stage, demo: Gateway) -> None:
    script = "echo begun; sleep 1000"
    for _ in range(20):
        call = demo.executions.StreamExecution(
            pb.StreamExecutionRequest(
                name=DEMO,
                spec=executor_pb2.ExecutionSpec(script=script),
                cancel_on_disconnect=True,
            )
        )
        first = await call.read()
        assert isinstance(first, pb.StreamExecutionResponse)
        assert first.HasField("execution")
        call.cancel()
    await eventually(_idle(stage))


async def test_failures_of_the_executor_come_whole(stage: Stage, demo: Gateway) -> None:
    failed = await failure(
        demo.executions.Execute(
            pb.ExecuteRequest(name=DEMO, spec=executor_pb2.ExecutionSpec(argv=["no-such-program"]))
        )
    )
    assert failed.code is grpc.StatusCode.NOT_FOUND
    assert failed.reason == "PROGRAM_NOT_FOUND"
    assert failed.info.metadata["program"] == "no-such-program"


async def test_a_bad_spec_is_refused_before_anything_is_asked(stage: Stage, demo: Gateway) -> None:
    stage.reset()
    failed = await failure(demo.executions.Execute(pb.ExecuteRequest(name=DEMO)))
    assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [each.field for each in failed.detail(BadRequest).field_violations] == ["spec"]
    assert "Execute" not in stage.executor.calls


async def test_what_the_gateway_itself_does_wrong_is_internal(stage: Stage, demo: Gateway) -> None:
    stage.executor.fail("Execute", InvalidArgument("handle", "not one of ours"), times=1)
    failed = await failure(demo.executions.Execute(_execute("true")))
    assert failed.code is grpc.StatusCode.INTERNAL
    assert failed.reason == "INTERNAL"
    assert "handle" not in failed.text


async def test_a_tool_that_is_away_is_named_and_may_be_asked_again(
    stage: Stage, demo: Gateway
) -> None:
    stage.git.fail("GetWorktreeStatus")
    request = pb.GetWorktreeStatusRequest(name=DEMO)
    failed = await failure(demo.sources.GetWorktreeStatus(request))
    assert failed.code is grpc.StatusCode.UNAVAILABLE
    assert failed.reason == "SERVICE_UNAVAILABLE"
    assert failed.info.metadata["service"] == "git"
    assert failed.detail(RetryInfo).retry_delay.ToTimedelta()


async def test_a_workspace_that_is_not_there_is_told_by_its_name(
    stage: Stage, gateway: Gateway
) -> None:
    for call in (
        gateway.executions.Execute(_execute("true")),
        gateway.executions.StreamExecution(
            pb.StreamExecutionRequest(name=DEMO, spec=executor_pb2.ExecutionSpec(script="true"))
        ),
        gateway.files.ReadFile(pb.ReadFileRequest(name=DEMO, path="a")),
        gateway.files.WriteFile(iter([_header("a")])),
        gateway.sources.GetDiff(pb.GetDiffRequest(name=DEMO)),
        gateway.sources.CreateCommit(_commit("m")),
    ):
        failed = await failure(call)
        assert failed.code is grpc.StatusCode.NOT_FOUND
        assert failed.reason == "WORKSPACE_NOT_FOUND"
        assert failed.info.metadata["name"] == DEMO


async def test_a_directory_goes_through_as_an_archive(stage: Stage, demo: Gateway) -> None:
    whole = b""
    async for event in demo.files.ReadArchive(pb.ReadArchiveRequest(name=DEMO)):
        whole += event.data
    assert (event.end.bytes, b"hello.txt" in whole) == (len(whole), True)
    watch: Any = demo.files.WatchFiles(pb.WatchFilesRequest(name=DEMO))
    assert (await watch.read()).HasField("started")

    async def upload(data: bytes, path: str) -> AsyncIterator[pb.WriteArchiveRequest]:
        header = pb.WriteArchiveHeader(name=DEMO, path=path, request_id=str(uuid.uuid4()))
        yield pb.WriteArchiveRequest(header=header)
        yield pb.WriteArchiveRequest(data=data)
        yield pb.WriteArchiveRequest(end=executor_pb2.WriteFileEnd(bytes=len(data)))

    answer = await demo.files.WriteArchive(upload(_packed("sub/new", b"new"), "there"))
    assert (answer.unpacked.entries, answer.unpacked.bytes) == (1, 3)
    change = (await watch.read()).change
    assert (change.kind, change.path) == (executor_pb2.FileChange.KIND_CREATED, "there")
    watch.cancel()
    refused = await failure(demo.files.WriteArchive(upload(b"x" * 3_000_000, "there")))
    assert refused.reason == "ARCHIVE_INVALID"
    outside = await failure(demo.files.WriteArchive(upload(_packed("sub/new", b"new"), "/etc")))
    assert outside.reason == "PATH_OUTSIDE"


async def test_files_are_written_moved_listed_and_removed(stage: Stage, demo: Gateway) -> None:
    content = bytes(range(256)) * 4096
    parts = [content[at : at + 65536] for at in range(0, len(content), 65536)]
    written = await demo.files.WriteFile(_upload("dir/blob", *parts, make_parents=True))
    assert written.file.size == len(content)
    moved = await demo.files.MoveFile(
        pb.MoveFileRequest(name=DEMO, path="dir/blob", new_path="dir/moved")
    )
    assert moved.file.path == "dir/moved"
    listed = await demo.files.ListFiles(pb.ListFilesRequest(name=DEMO, path="dir"))
    assert [each.path for each in listed.files] == ["dir/moved"]
    stat = await demo.files.StatFile(pb.StatFileRequest(name=DEMO, path="dir/moved"))
    assert stat.file.etag == listed.files[0].etag
    read = demo.files.ReadFile(pb.ReadFileRequest(name=DEMO, path="dir/moved", offset=10, limit=9))
    assert b"".join([event.data async for event in read]) == content[10:19]
    await demo.files.RemoveFile(pb.RemoveFileRequest(name=DEMO, path="dir", recursive=True))
    made = await demo.files.MakeDirectory(pb.MakeDirectoryRequest(name=DEMO, path="dir"))
    assert made.file.kind == executor_pb2.File.KIND_DIRECTORY
    gone = await failure(demo.files.StatFile(pb.StatFileRequest(name=DEMO, path="dir/moved")))
    assert gone.reason == "FILE_NOT_FOUND"


async def test_an_upload_that_is_wrong_changes_nothing(stage: Stage, demo: Gateway) -> None:
    no_header = await failure(demo.files.WriteFile(iter([pb.WriteFileRequest(data=b"x")])))
    assert no_header.code is grpc.StatusCode.INVALID_ARGUMENT
    twice = await failure(demo.files.WriteFile(iter([_header("new"), _header("new")])))
    assert twice.code is grpc.StatusCode.INVALID_ARGUMENT
    cut = await failure(demo.files.WriteFile(_cut("new", b"x")))
    assert cut.code is grpc.StatusCode.ABORTED
    assert cut.reason == "UPLOAD_INCOMPLETE"
    outside = await failure(demo.files.WriteFile(_upload("../../etc/passwd", b"x")))
    assert outside.reason == "PATH_OUTSIDE"
    status = await demo.sources.GetWorktreeStatus(pb.GetWorktreeStatusRequest(name=DEMO))
    assert not status.status.entries


async def test_an_upload_whose_caller_leaves_changes_nothing(stage: Stage, demo: Gateway) -> None:
    sent = asyncio.Event()

    async def upload() -> AsyncIterator[pb.WriteFileRequest]:
        async for request in _cut("new", b"x" * 100_000):
            yield request
        sent.set()
        await asyncio.Event().wait()

    call = demo.files.WriteFile(upload())
    await asyncio.wait_for(sent.wait(), LIMIT)
    await eventually(_called(stage, "WriteFile"))
    call.cancel()
    await eventually(_idle(stage))

    async def gone() -> bool:
        listed = await demo.files.ListFiles(pb.ListFilesRequest(name=DEMO))
        return {each.path for each in listed.files} <= {".git", "hello.txt"}

    await eventually(gone)  # What had come so far is removed after the call.


async def test_nobody_sees_a_file_that_is_not_all_there(stage: Stage, demo: Gateway) -> None:
    """Not in a list or an archive, nor among the changes, nor in a commit. What is only called
    much alike is a file like others."""
    going_on = asyncio.Event()

    async def upload() -> AsyncIterator[pb.WriteFileRequest]:
        requests = [each async for each in _upload("new", b"x" * 100_000)]
        for request in requests[:-1]:
            yield request
        await going_on.wait()
        yield requests[-1]

    async def unpack() -> AsyncIterator[pb.WriteArchiveRequest]:
        yield pb.WriteArchiveRequest(header=pb.WriteArchiveHeader(name=DEMO, path="folder"))
        yield pb.WriteArchiveRequest(data=packed)
        await going_on.wait()
        end = executor_pb2.WriteFileEnd(bytes=len(packed))
        yield pb.WriteArchiveRequest(end=end)

    async def both() -> bool:
        found = await demo.executions.Execute(_execute("ls -A"))
        return found.stdout.text.count(".cove-") == 2

    packed = _packed("a", b"content")
    calls = demo.files.WriteFile(upload()), demo.files.WriteArchive(unpack())
    await eventually(both)
    listed = await demo.files.ListFiles(pb.ListFilesRequest(name=DEMO))
    assert {each.path for each in listed.files} == {".git", "hello.txt"}
    status = await demo.sources.GetWorktreeStatus(pb.GetWorktreeStatusRequest(name=DEMO))
    assert not status.status.entries
    refused = await failure(demo.sources.CreateCommit(_commit("Nothing")))
    assert refused.reason == "NOTHING_TO_COMMIT"
    inside = await demo.executions.Execute(_execute("git status --porcelain"))
    assert inside.stdout.text == ""
    events = demo.files.ReadArchive(pb.ReadArchiveRequest(name=DEMO))
    read = io.BytesIO(b"".join([event.data async for event in events]))
    with tarfile.open(fileobj=read) as archive:
        assert not [name for name in archive.getnames() if name.startswith(".cove-")]

    going_on.set()
    await asyncio.gather(*calls)
    alike = [".cove-0123456789abcde", ".cove-0123456789abcdefg", ".cove-0123456789abcdeg"]
    await demo.executions.Execute(_execute(f"touch {' '.join(alike)}"))
    status = await demo.sources.GetWorktreeStatus(pb.GetWorktreeStatusRequest(name=DEMO))
    assert [each.path for each in status.status.entries] == [*sorted(alike), "folder/a", "new"]
    listed = await demo.files.ListFiles(pb.ListFilesRequest(name=DEMO))
    assert {*alike} < {each.path for each in listed.files}


async def test_work_is_shown_committed_and_pushed(stage: Stage, demo: Gateway) -> None:
    await demo.executions.Execute(_execute("echo 1 > new.txt"))
    status = (await demo.sources.GetWorktreeStatus(pb.GetWorktreeStatusRequest(name=DEMO))).status
    assert [(each.path, each.work_state) for each in status.entries] == [
        ("new.txt", git_pb2.StatusEntry.WORK_STATE_UNTRACKED)
    ]
    diff = [event async for event in demo.sources.GetDiff(pb.GetDiffRequest(name=DEMO))]
    assert diff[0].file.path == "new.txt"
    assert diff[-1].end.files == 1
    commit = (await demo.sources.CreateCommit(_commit("Add new.txt"))).commit
    assert commit.author.name == "Ada"
    got = await demo.workspaces.GetWorkspace(pb.GetWorkspaceRequest(name=DEMO))
    assert got.workspace.head_commit == commit.id
    log = await demo.sources.ListCommits(pb.ListCommitsRequest(parent=DEMO))
    assert [each.id for each in log.commits] == [commit.id, *commit.parents]
    branches = await demo.sources.ListBranches(pb.ListBranchesRequest(parent=DEMO))
    assert [each.name for each in branches.branches] == ["cove/demo", "main"]
    pushed = await demo.sources.PushBranch(pb.PushBranchRequest(name=DEMO))
    assert (pushed.remote_branch, pushed.commit) == ("cove/demo", commit.id)
    assert commit.id in await stage.origin("show-ref", "refs/heads/cove/demo")
    await stage.origin("update-ref", "-d", "refs/heads/cove/demo")


async def test_work_is_merged_into_a_branch_of_the_origin(stage: Stage, demo: Gateway) -> None:
    await demo.executions.Execute(_execute("echo 1 > merged.txt"))
    commit = (await demo.sources.CreateCommit(_commit("Add merged.txt"))).commit
    await stage.origin("branch", "next", "main")
    asked = pb.PreviewMergeRequest(name=DEMO, target="next", fetch=True)
    seen = (await demo.sources.PreviewMerge(asked)).preview
    assert (seen.source_commit, seen.mergeable, seen.changed_files) == (commit.id, True, 1)
    merging = pb.MergeBranchRequest(name=DEMO, target="next", request_id=str(uuid.uuid4()))
    merged = await demo.sources.MergeBranch(merging)
    assert list(merged.commit.parents) == [seen.target_commit, commit.id]
    assert merged.remote.startswith("file://")
    assert await demo.sources.MergeBranch(merging) == merged
    assert merged.commit.id in await stage.origin("show-ref", "refs/heads/next")
    own = await failure(
        demo.sources.MergeBranch(pb.MergeBranchRequest(name=DEMO, target="cove/demo"))
    )
    assert own.reason == "INVALID_FIELD"
    merging.target = "main"
    reused = await failure(demo.sources.MergeBranch(merging))
    assert reused.info.metadata["request_id"] == merging.request_id
    await stage.origin("update-ref", "-d", "refs/heads/next")


async def test_workspaces_that_will_collide_are_told_by_their_names(
    stage: Stage, demo: Gateway
) -> None:
    other = "workspaces/other"
    await demo.workspaces.CreateWorkspace(stage.create(workspace_id="other"))
    await demo.executions.Execute(_execute("echo ours > hello.txt"))
    asked = _execute("rm hello.txt")
    asked.name = other
    await demo.executions.Execute(asked)
    request = pb.PreviewConflictsRequest(workspaces=[DEMO, other])
    answer = await demo.sources.PreviewConflicts(request)
    [found] = answer.collisions
    assert (found.workspace_a, found.workspace_b) == (DEMO, other)
    assert [each.path for each in found.conflicts] == ["hello.txt"]
    assert other in found.conflicts[0].message
    assert [(each.name, each.uncommitted) for each in answer.workspaces] == [
        (DEMO, True),
        (other, True),
    ]
    request.include_uncommitted = False
    assert not (await demo.sources.PreviewConflicts(request)).collisions
    await demo.workspaces.CreateWorkspace(pb.CreateWorkspaceRequest(workspace_id="empty"))
    request.workspaces.append("workspaces/empty")
    refused = await failure(demo.sources.PreviewConflicts(request))
    assert refused.reason == "INVALID_FIELD"
    assert [each.field for each in refused.detail(BadRequest).field_violations] == ["workspaces"]


async def test_a_request_id_that_comes_again_is_told_as_the_caller_sent_it(
    stage: Stage, demo: Gateway
) -> None:
    await demo.executions.Execute(_execute("echo 1 > new.txt"))
    request_id = str(uuid.uuid4())
    first = await demo.sources.CreateCommit(_commit("one", request_id=request_id))
    assert await demo.sources.CreateCommit(_commit("one", request_id=request_id)) == first
    failed = await failure(demo.sources.CreateCommit(_commit("two", request_id=request_id)))
    assert failed.reason == "REQUEST_ID_REUSED"
    assert failed.info.metadata["request_id"] == request_id


async def test_the_deadline_of_a_caller_is_passed_on(stage: Stage, demo: Gateway) -> None:
    call = demo.executions.Execute(_execute("sleep 1000"), timeout=1)
    failed = await failure(call)
    assert failed.code is grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually(_idle(stage))


def _execute(script: str, **fields: str) -> pb.ExecuteRequest:
    return pb.ExecuteRequest(name=DEMO, spec=executor_pb2.ExecutionSpec(script=script), **fields)


def _header(path: str, *, make_parents: bool = False) -> pb.WriteFileRequest:
    header = pb.WriteFileHeader(name=DEMO, path=path, make_parents=make_parents)
    return pb.WriteFileRequest(header=header)


async def _upload(
    path: str, *parts: bytes, make_parents: bool = False
) -> AsyncIterator[pb.WriteFileRequest]:
    yield _header(path, make_parents=make_parents)
    for part in parts:
        yield pb.WriteFileRequest(data=part)
    end = executor_pb2.WriteFileEnd(bytes=sum(map(len, parts)))
    yield pb.WriteFileRequest(end=end)


async def _cut(path: str, *parts: bytes) -> AsyncIterator[pb.WriteFileRequest]:
    """An upload without its end."""
    async for request in _upload(path, *parts):
        if not request.HasField("end"):
            yield request


def _packed(name: str, content: bytes) -> bytes:
    """An archive of one file."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return made.getvalue()


def _commit(message: str, request_id: str = "") -> pb.CreateCommitRequest:
    author = git_pb2.Signature(name="Ada", email="ada@example.org")
    return pb.CreateCommitRequest(
        parent=DEMO,
        commit=git_pb2.Commit(message=message, author=author),
        request_id=request_id,
    )


def _called(stage: Stage, rpc: str) -> Check:
    async def check() -> bool:
        return rpc in stage.executor.calls

    return check


def _idle(stage: Stage) -> Check:
    async def check() -> bool:
        return stage.executor.open == 0

    return check
