"""What is signed of a commit that is made through the gateway: which commands, and no secrets."""

import json
import uuid
from collections.abc import AsyncIterator
from typing import Final

import grpc
import pytest
import pytest_asyncio

from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb
from cove.git.v1 import git_pb2
from cove.provenance import Key, Provenance, command_sha256, verify
from gateway import provenance
from tests.gateway.stage import Gateway, Stage, eventually

DEMO: Final = "workspaces/demo"
SECRET: Final = "hunter2-in-no-note"


@pytest_asyncio.fixture(loop_scope="session")
async def demo(stage: Stage, gateway: Gateway) -> AsyncIterator[Gateway]:
    await gateway.workspaces.CreateWorkspace(stage.create(spec={"env": {"TOKEN": SECRET}}))
    yield gateway


async def run(demo: Gateway, id_: str, **spec: object) -> None:
    spec_ = executor_pb2.ExecutionSpec(**spec)  # type: ignore[arg-type]
    await demo.executions.Execute(pb.ExecuteRequest(name=DEMO, execution_id=id_, spec=spec_))


async def commit(demo: Gateway, **fields: object) -> git_pb2.Commit:
    request = pb.CreateCommitRequest(
        parent=DEMO,
        commit=git_pb2.Commit(message="Change"),
        provenance=True,
        **fields,  # type: ignore[arg-type]
    )
    return (await demo.sources.CreateCommit(request)).commit


async def proven(demo: Gateway) -> Provenance:
    key = Key.load((await demo.sources.GetSigningKey(pb.GetSigningKeyRequest())).public_key)
    found = await demo.sources.GetProvenance(pb.GetProvenanceRequest(name=DEMO))
    return verify(found.envelope, key, found.commit_object)


async def test_commands_are_told_by_digest_and_end_and_each_once(
    stage: Stage, demo: Gateway
) -> None:
    await run(demo, "edit", script="echo 1 > new.txt")
    await run(demo, "test", argv=["sh", "-c", "exit 3"], cwd="/workspace", env={"B": "1", "A": "2"})
    made = await commit(demo)
    first = await proven(demo)
    assert (first.commit, first.workspace, first.principal) == (made.id, DEMO, "anonymous")
    assert [(ran.id, dict(ran.exit)) for ran in first.executions] == [
        ("edit", {"code": 0}),
        ("test", {"code": 3}),
    ]
    assert first.executions[0].command_sha256 == command_sha256(script="echo 1 > new.txt")
    assert first.executions[1].command_sha256 == command_sha256(
        *("sh", "-c", "exit 3"), cwd="/workspace", env=["A", "B"]
    )
    await run(demo, "again", script="echo 2 > new.txt; kill -9 $$")
    await commit(demo)
    second = await proven(demo)
    assert [(ran.id, dict(ran.exit)) for ran in second.executions] == [("again", {"signal": 9})]
    assert second.since == first.time


async def test_a_command_that_runs_still_is_told_again_when_it_has_ended(demo: Gateway) -> None:
    spec = executor_pb2.ExecutionSpec(script="echo 1 > new.txt; sleep 1000")
    request = pb.StartExecutionRequest(
        parent=DEMO, execution_id="long", execution=executor_pb2.Execution(spec=spec)
    )
    await demo.executions.StartExecution(request)
    await eventually(lambda: _written(demo, "new.txt"))
    await commit(demo)
    [ran] = (await proven(demo)).executions
    assert (ran.id, ran.ended, dict(ran.exit)) == ("long", None, {})
    name = f"{DEMO}/executions/long"
    signal = pb.SignalExecutionRequest(name=name, signal=executor_pb2.SIGNAL_KILL)
    await demo.executions.SignalExecution(signal)
    await demo.executions.WaitExecution(pb.WaitExecutionRequest(name=name))
    await run(demo, "edit", script="echo 2 > new.txt")
    await commit(demo)
    assert [(ran.id, dict(ran.exit)) for ran in (await proven(demo)).executions] == [
        ("long", {"signal": 9}),
        ("edit", {"code": 0}),
    ]


async def test_no_secret_is_in_the_note(stage: Stage, demo: Gateway) -> None:
    await run(demo, "edit", script=f"echo 1 > new.txt; : {SECRET}", env={"PASSWORD": SECRET})
    await run(demo, "argv", argv=["true", f"--token={SECRET}"])
    await commit(demo)
    found = await proven(demo)
    assert [ran.id for ran in found.executions] == ["edit", "argv"]
    said = json.dumps(found.statement)
    assert SECRET not in said
    assert "PASSWORD" not in said
    assert "TOKEN" not in said
    # Values of variables are not in a digest either: nobody can try them out.
    assert found.executions[0].command_sha256 == command_sha256(
        script=f"echo 1 > new.txt; : {SECRET}", env=["PASSWORD"]
    )


async def test_the_newest_are_told_and_the_others_counted(
    demo: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "MOST", 2)
    monkeypatch.setattr(provenance, "_PAGE", 1)
    for id_ in ("c", "a", "b"):
        await run(demo, id_, script=f"echo {id_} > new.txt")
    await commit(demo)
    found = await proven(demo)
    assert [ran.id for ran in found.executions] == ["a", "b"]
    assert found.executions_omitted == 1


async def test_a_retry_answers_the_same_whatever_ran_meanwhile(demo: Gateway) -> None:
    await run(demo, "edit", script="echo 1 > new.txt")
    request_id = str(uuid.uuid4())
    first = await commit(demo, request_id=request_id)
    await run(demo, "later", script="true")
    assert await commit(demo, request_id=request_id) == first
    assert [ran.id for ran in (await proven(demo)).executions] == ["edit"]


async def test_a_commit_without_has_none(demo: Gateway) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await demo.sources.GetProvenance(pb.GetProvenanceRequest(name=DEMO))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def _written(demo: Gateway, path: str) -> bool:
    try:
        await demo.files.StatFile(pb.StatFileRequest(name=DEMO, path=path))
    except grpc.aio.AioRpcError:
        return False
    return True
