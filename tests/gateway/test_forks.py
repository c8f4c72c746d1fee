"""Forks and snapshots of workspaces, and commits of workspaces that are held still."""

import asyncio
import uuid
from collections import Counter
from typing import Any

import pytest

from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb
from cove.git.v1 import git_pb2
from services.provider.errors import CapabilityMissing
from tests.gateway.stage import LIMIT, Gateway, Stage, State, eventually
from tests.gateway.steps import Step, killed_at, steps
from tests.servicekit.failing import failure

DEMO = "workspaces/demo"
READY = pb.Workspace.STATE_READY
WORK = (
    "echo changed > hello.txt; echo new > new.txt; echo '*.o' > .gitignore; echo object > a.o; "
    "git config user.name A; git config user.email a@b; git add new.txt; git commit -qm Inside; "
    "git stash list > /dev/null; git tag kept; echo staged > staged; git add staged"
)
SEEN = (
    "cat hello.txt new.txt a.o staged; git log --format=%s; git tag; git status --porcelain; "
    "git branch --show-current"
)
FORK = [
    ("registry", "RegisterEnvironment"),
    ("git", "ForkWorktree"),
    ("provider", "ProvisionEnvironment"),
    ("registry", "UpdateEnvironment"),
    ("registry", "UpdateEnvironmentStatus"),
]
LIVE = [("provider", "SuspendEnvironment"), ("provider", "ResumeEnvironment")]
COUNT = (
    "n=0; put() { echo $n > .new && mv .new $1; }; "
    "while true; do n=$((n+1)); put one; put two; done"
)
"""Writes two files that are the same, or one behind."""


async def run(gateway: Gateway, script: str, name: str = DEMO) -> str:
    spec = executor_pb2.ExecutionSpec(script=script)
    answer = await gateway.executions.Execute(pb.ExecuteRequest(name=name, spec=spec))
    return answer.stdout.text + answer.stderr.text


async def counting(gateway: Gateway, name: str = DEMO) -> None:
    """Have it write all the time."""
    spec = executor_pb2.ExecutionSpec(script=COUNT)
    await gateway.executions.StartExecution(
        pb.StartExecutionRequest(
            parent=name, execution_id="count", execution=executor_pb2.Execution(spec=spec)
        )
    )

    async def both() -> bool:
        return "two" in await run(gateway, "ls", name)

    await eventually(both)


async def moves(gateway: Gateway, name: str = DEMO) -> None:
    before = await run(gateway, "cat one", name)

    async def moved() -> bool:
        return await run(gateway, "cat one", name) != before

    await eventually(moved)


async def made(stage: Stage, gateway: Gateway) -> None:
    await gateway.workspaces.CreateWorkspace(stage.create(spec={"env": {"KEY": "value"}}))


def fork(workspace_id: str = "child", **fields: Any) -> pb.ForkWorkspaceRequest:
    return pb.ForkWorkspaceRequest(name=DEMO, workspace_id=workspace_id, **fields)


async def test_a_fork_has_all_of_its_source_and_neither_sees_the_other(
    stage: Stage, gateway: Gateway
) -> None:
    await made(stage, gateway)
    await run(gateway, WORK + "; echo mine > ~/home; echo mine > /tmp/tmp")
    await stage.end_sandbox("demo")
    stage.reset()
    answer = await gateway.workspaces.ForkWorkspace(fork(labels={"a": "b"}))
    child = answer.workspace
    assert "SuspendEnvironment" not in stage.provider.calls
    assert (child.name, child.state, child.branch) == ("workspaces/child", READY, "cove/child")
    assert (child.source, dict(child.labels)) == (DEMO, {"a": "b"})
    assert child.spec.env["KEY"] == "value"
    parents = await run(gateway, SEEN)
    assert await run(gateway, SEEN, child.name) == parents.replace("cove/demo", "cove/child")
    assert "Inside" in parents
    assert await run(gateway, 'echo "$KEY"; ls -A ~ /tmp | wc -w', child.name) == "value\n2\n"
    await run(gateway, "echo theirs > new.txt; rm a.o", child.name)
    await run(gateway, "echo ours > staged")
    assert await run(gateway, SEEN) != parents
    assert await run(gateway, "cat new.txt a.o") == "new\nobject\n"
    assert await run(gateway, "cat staged", child.name) == "staged\n"
    shown = await gateway.workspaces.GetWorkspace(pb.GetWorkspaceRequest(name=DEMO))
    assert shown.workspace.source == ""
    await gateway.workspaces.DeleteWorkspace(pb.DeleteWorkspaceRequest(name=DEMO, force=True))
    assert await run(gateway, "cat staged hello.txt", child.name) == "staged\nchanged\n"


async def test_a_source_in_which_nothing_runs_is_not_copied(stage: Stage, gateway: Gateway) -> None:
    await made(stage, gateway)
    await run(gateway, "echo new > new.txt")
    assert await stage.active("demo")
    await gateway.workspaces.ForkWorkspace(fork())
    assert not await stage.active("demo")
    assert await run(gateway, "cat new.txt", "workspaces/child") == "new\n"
    assert await run(gateway, "cat new.txt") == "new\n"


async def test_commands_that_are_started_while_it_is_forked_run_once(
    stage: Stage, gateway: Gateway
) -> None:
    await made(stage, gateway)
    working = [run(gateway, f"echo {n} >> lines; echo {n}") for n in range(30)]
    forking = [gateway.workspaces.ForkWorkspace(fork(f"child-{n}")) for n in range(5)]
    told, _ = await asyncio.gather(asyncio.gather(*working), asyncio.gather(*forking))
    assert told == [f"{n}\n" for n in range(30)]
    lines = (await run(gateway, "cat lines")).split()
    assert sorted(map(int, lines)) == list(range(30))


async def test_a_command_is_run_however_often_its_sandbox_was_ended_for_a_fork(
    stage: Stage, gateway: Gateway
) -> None:
    await made(stage, gateway)
    await stage.end_sandbox("demo")
    held = stage.provider.hold("ActivateEnvironment", done=True)
    running = asyncio.create_task(run(gateway, "echo ran >> lines; cat lines"))
    for _ in range(6):
        await asyncio.wait_for(held.reached.wait(), LIMIT)
        await stage.end_sandbox("demo")
        stage.provider.heal()
        held = stage.provider.hold("ActivateEnvironment", done=True)
    await asyncio.wait_for(held.reached.wait(), LIMIT)
    stage.provider.heal()
    assert await running == "ran\n"


async def test_while_something_writes_a_fork_is_of_one_moment(
    stage: Stage, gateway: Gateway
) -> None:
    await made(stage, gateway)
    await counting(gateway)
    for number in range(3):
        await gateway.workspaces.ForkWorkspace(fork(f"child-{number}"))
        await moves(gateway)
        one, two = (await run(gateway, "cat one two", f"workspaces/child-{number}")).split()
        assert int(one) - int(two) in (0, 1)
        assert int(one) > 0
    calls = Counter(stage.provider.calls)
    assert calls["SuspendEnvironment"] >= 3
    assert calls["ResumeEnvironment"] >= 3


async def test_twenty_forks_at_once(stage: Stage, gateway: Gateway) -> None:
    await made(stage, gateway)
    await run(gateway, "echo new > new.txt")
    await stage.end_sandbox("demo")
    forks = [gateway.workspaces.ForkWorkspace(fork(f"child-{n}")) for n in range(20)]
    answers = await asyncio.gather(*forks)
    assert [each.workspace.state for each in answers] == [READY] * 20
    seen = await asyncio.gather(
        *(run(gateway, "cat new.txt", each.workspace.name) for each in answers[::5])
    )
    assert seen == ["new\n"] * 4


@pytest.mark.long
async def test_forks_at_once_while_something_runs(stage: Stage, gateway: Gateway) -> None:
    await made(stage, gateway)
    await counting(gateway)
    forks = [gateway.workspaces.ForkWorkspace(fork(f"child-{n}")) for n in range(5)]
    for answer in await asyncio.gather(*forks):
        one, two = (await run(gateway, "cat one two", answer.workspace.name)).split()
        assert int(one) - int(two) in (0, 1)
    await moves(gateway)


async def test_a_snapshot_is_forked_from_as_it_was(stage: Stage, gateway: Gateway) -> None:
    await made(stage, gateway)
    await run(gateway, "echo first > new.txt")
    request = pb.SnapshotWorkspaceRequest(
        name=DEMO, snapshot_id="first", request_id=str(uuid.uuid4())
    )
    snapshot = (await gateway.workspaces.SnapshotWorkspace(request)).snapshot
    assert snapshot.name == f"{DEMO}/snapshots/first"
    assert (await gateway.workspaces.SnapshotWorkspace(request)).snapshot == snapshot
    await stage.end_sandbox("demo")
    assert (await gateway.workspaces.SnapshotWorkspace(request)).snapshot == snapshot
    await run(gateway, "echo second > new.txt")
    other = await gateway.workspaces.SnapshotWorkspace(pb.SnapshotWorkspaceRequest(name=DEMO))
    listed = await gateway.workspaces.ListSnapshots(pb.ListSnapshotsRequest(parent=DEMO))
    assert list(listed.snapshots) == [snapshot, other.snapshot]
    child = (await gateway.workspaces.ForkWorkspace(fork(snapshot_id="first"))).workspace
    assert child.source == snapshot.name
    assert await run(gateway, "cat new.txt", child.name) == "first\n"
    delete = pb.DeleteSnapshotRequest(name=snapshot.name)
    await gateway.workspaces.DeleteSnapshot(delete)
    failed = await failure(gateway.workspaces.DeleteSnapshot(delete))
    assert failed.reason == "SNAPSHOT_NOT_FOUND"
    delete.allow_missing = True
    await gateway.workspaces.DeleteSnapshot(delete)
    assert await run(gateway, "cat new.txt", child.name) == "first\n"


async def test_what_cannot_be_is_refused(stage: Stage, gateway: Gateway) -> None:
    failed = await failure(gateway.workspaces.ForkWorkspace(fork()))
    assert failed.reason == "WORKSPACE_NOT_FOUND"
    await made(stage, gateway)
    failed = await failure(gateway.workspaces.ForkWorkspace(fork(snapshot_id="none")))
    assert failed.reason == "SNAPSHOT_NOT_FOUND"
    assert len(await stage.records()) == 1
    failed = await failure(gateway.workspaces.ForkWorkspace(fork("demo")))
    assert failed.reason == "WORKSPACE_EXISTS"
    request = pb.SnapshotWorkspaceRequest(name=DEMO, snapshot_id="s")
    await gateway.workspaces.SnapshotWorkspace(request)
    failed = await failure(gateway.workspaces.SnapshotWorkspace(request))
    assert failed.reason == "SNAPSHOT_EXISTS"
    request.request_id = str(uuid.uuid4())
    failed = await failure(gateway.workspaces.SnapshotWorkspace(request))
    assert failed.reason == "SNAPSHOT_EXISTS"


async def test_a_repeated_fork_is_one(stage: Stage, gateway: Gateway) -> None:
    await made(stage, gateway)
    request = fork("", request_id=str(uuid.uuid4()))
    first = await gateway.workspaces.ForkWorkspace(request)
    again = await gateway.workspaces.ForkWorkspace(request)
    assert first.workspace.uid == again.workspace.uid
    request.snapshot_id = "other"
    failed = await failure(gateway.workspaces.ForkWorkspace(request))
    assert failed.reason == "REQUEST_ID_REUSED"


@pytest.mark.long
async def test_forks_are_finished_wherever_their_gateway_is_killed(stage: Stage) -> None:
    async with stage.gateway() as gateway:
        await made(stage, gateway)
        await run(gateway, "echo new > new.txt")
        await stage.end_sandbox("demo")
    requests = {step: fork(step.id, request_id=str(uuid.uuid4())) for step in steps(FORK)}
    await killed_at(stage, "ForkWorkspace", requests)
    async with stage.gateway() as gateway:
        await eventually(stage.settled)
        assert all(record.state == State.STATE_READY for record in await stage.records())
        for step, request in requests.items():
            retried = await gateway.workspaces.ForkWorkspace(request)
            assert retried.workspace.state == READY, step
            assert await run(gateway, "cat new.txt", f"workspaces/{step.id}") == "new\n", step


@pytest.mark.long
@pytest.mark.parametrize("step", steps(LIVE), ids=lambda step: step.id)
async def test_a_source_that_is_held_goes_on_when_its_gateway_is_killed(
    stage: Stage, step: Step
) -> None:
    async with stage.gateway() as gateway:
        await made(stage, gateway)
        await counting(gateway)
    request = fork(request_id=str(uuid.uuid4()))
    await killed_at(stage, "ForkWorkspace", {Step("", *step[1:]): request})
    async with stage.gateway() as gateway:
        await eventually(stage.settled)
        one, two = (await run(gateway, "cat one two", "workspaces/child")).split()
        assert int(one) - int(two) in (0, 1)
        await moves(gateway)


async def test_a_fork_whose_snapshot_is_gone_when_it_is_taken_over_is_undone(
    stage: Stage,
) -> None:
    snapshot = pb.SnapshotWorkspaceRequest(name=DEMO, snapshot_id="s")
    async with stage.gateway() as gateway:
        await made(stage, gateway)
        await gateway.workspaces.SnapshotWorkspace(snapshot)
    held = Step("forking", "git", "ForkWorktree")
    await killed_at(stage, "ForkWorkspace", {held: fork(snapshot_id="s")})
    await stage.remove_snapshot("demo", "s")
    async with stage.gateway():
        await eventually(stage.settled)
        assert [each.name for each in await stage.records()] == ["environments/demo"]


async def test_a_frozen_commit_is_of_one_moment(stage: Stage, gateway: Gateway) -> None:
    await made(stage, gateway)
    capable = await gateway.workspaces.GetCapabilities(pb.GetCapabilitiesRequest())
    assert capable.provider.freeze
    await counting(gateway)
    commit = pb.CreateCommitRequest(
        parent=DEMO,
        commit=git_pb2.Commit(message="Still"),
        consistency=pb.CONSISTENCY_FROZEN,
    )
    stage.reset()
    for _ in range(3):
        done = await gateway.sources.CreateCommit(commit)
        await moves(gateway)
        shown = "; ".join(f"git show {done.commit.id}:{name}" for name in ("one", "two"))
        one, two = (await run(gateway, shown)).split()
        assert int(one) - int(two) in (0, 1)
    calls = Counter(stage.provider.calls)
    assert calls["ResumeEnvironment"] == 3
    assert calls["SuspendEnvironment"] >= 3  # It is asked for again while a commit takes long.


async def test_where_nothing_can_be_frozen_nothing_is_committed(
    stage: Stage, gateway: Gateway
) -> None:
    await made(stage, gateway)
    await run(gateway, "echo new > new.txt")
    commit = pb.CreateCommitRequest(parent=DEMO, commit=git_pb2.Commit(message="Still"))
    commit.consistency = pb.CONSISTENCY_FROZEN
    missing = CapabilityMissing("it cannot", remedy="None.", capability="freeze")
    stage.provider.fail("SuspendEnvironment", missing)
    failed = await failure(gateway.sources.CreateCommit(commit))
    assert failed.reason == "CAPABILITY_MISSING"
    assert "CreateCommit" not in stage.git.calls
    failed = await failure(gateway.workspaces.ForkWorkspace(fork()))
    assert failed.reason == "CAPABILITY_MISSING"
    commit.consistency = pb.CONSISTENCY_LIVE
    await gateway.sources.CreateCommit(commit)
