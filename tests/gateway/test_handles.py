"""Handles that move: what is done in an environment gives it the next one.

No driver here moves them. So the network in front of the executor writes the next one into
real answers, as such a driver's would have it: this proves what the gateway makes of that, not
that a driver tells it. The executor is handed what was noted, and takes it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest_asyncio

from agent.handle import Handle
from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb
from servicekit.errors import Unavailable
from tests.gateway.conftest import SESSION
from tests.gateway.stage import Gateway, Stage
from tests.gateway.steps import run

DEMO = "workspaces/demo"
EXECUTION = f"{DEMO}/executions/one"


class Driver:
    """Moves the handle of the environment with each answer of these RPCs."""

    def __init__(self, stage: Stage, first: bytes) -> None:
        self._stage = stage
        self._handle = Handle.decode(first)

    def moved(self) -> bytes:
        one = self._handle
        self._handle = Handle(
            driver=one.driver, node=one.node, uid=one.uid, generation=one.generation + 1
        )
        return self._handle.encode()

    @property
    def now(self) -> tuple[bytes, int]:
        return self._handle.encode(), self._handle.generation

    def moves(self, rpc: str, answer: Callable[[], Any], *ends: str) -> None:
        """With each answer of `rpc`, in its field `ends`, or in itself."""

        def alter(data: bytes) -> bytes:
            message = answer().FromString(data)
            told = message
            for name in ends:
                if not told.HasField(name):
                    return data
                told = getattr(told, name)
            told.handle, told.generation = self.moved(), self._handle.generation
            altered: bytes = message.SerializeToString()
            return altered

        self._stage.executor.alter(rpc, alter)


@pytest_asyncio.fixture(loop_scope=SESSION)
async def driver(stage: Stage, gateway: Gateway) -> AsyncIterator[Driver]:
    await gateway.workspaces.CreateWorkspace(stage.create())
    yield Driver(stage, (await stage.records())[0].handle)


async def noted(stage: Stage) -> tuple[bytes, int]:
    (record,) = await stage.records()
    return record.handle, record.handle_generation


def spec(script: str = "cat hello.txt") -> executor_pb2.ExecutionSpec:
    return executor_pb2.ExecutionSpec(script=script)


async def test_the_next_call_of_any_gateway_has_the_handle_that_an_answer_told(
    stage: Stage, gateway: Gateway, driver: Driver
) -> None:
    driver.moves("Execute", executor_pb2.ExecuteResponse, "execution", "exit")
    request = pb.ExecuteRequest(name=DEMO, spec=spec())
    answer = await gateway.executions.Execute(request)
    assert await noted(stage) == driver.now
    assert answer.execution.exit.handle == b""
    assert answer.execution.exit.generation == 0
    async with stage.gateway("other") as other:
        assert await run(other) == "hello\n"
    assert await noted(stage) == driver.now
    assert driver.now[1] == 3


async def test_every_answer_that_can_tell_is_listened_to(
    stage: Stage, gateway: Gateway, driver: Driver
) -> None:
    driver.moves("StreamExecution", executor_pb2.StreamExecutionResponse, "exit")
    stream = pb.StreamExecutionRequest(name=DEMO, execution_id="one", spec=spec())
    events = [each async for each in gateway.executions.StreamExecution(stream)]
    assert events[-1].HasField("exit")
    assert events[-1].exit.generation == 0
    assert await noted(stage) == driver.now

    driver.moves("WaitExecution", executor_pb2.WaitExecutionResponse, "execution", "exit")
    await gateway.executions.WaitExecution(pb.WaitExecutionRequest(name=EXECUTION))
    assert await noted(stage) == driver.now

    driver.moves("ReadOutput", executor_pb2.ReadOutputResponse, "exit")
    reading = pb.ReadOutputRequest(name=EXECUTION, follow=True)
    read = [each async for each in gateway.executions.ReadOutput(reading)]
    assert read[-1].exit.generation == 0
    assert await noted(stage) == driver.now

    driver.moves("MakeDirectory", executor_pb2.MakeDirectoryResponse)
    await gateway.files.MakeDirectory(pb.MakeDirectoryRequest(name=DEMO, path="d"))
    assert await noted(stage) == driver.now

    driver.moves("WriteFile", executor_pb2.WriteFileResponse)
    await gateway.files.WriteFile(iter(_written("d/f")))
    assert await noted(stage) == driver.now

    driver.moves("MoveFile", executor_pb2.MoveFileResponse)
    await gateway.files.MoveFile(pb.MoveFileRequest(name=DEMO, path="d/f", new_path="d/g"))
    assert await noted(stage) == driver.now

    driver.moves("RemoveFile", executor_pb2.RemoveFileResponse)
    await gateway.files.RemoveFile(pb.RemoveFileRequest(name=DEMO, path="d/g"))
    assert await noted(stage) == driver.now
    assert driver.now[1] == 8


async def test_a_later_handle_is_never_replaced_by_an_earlier_one(
    stage: Stage, gateway: Gateway, driver: Driver
) -> None:
    """Two gateways read the record, and are told of two moves in the other order."""
    driver.moves("Execute", executor_pb2.ExecuteResponse, "execution", "exit")
    async with stage.gateway("other") as other:
        held = stage.registry.hold("UpdateEnvironment", correlation_id="earlier")
        slow = asyncio.ensure_future(
            gateway.executions.Execute(
                pb.ExecuteRequest(name=DEMO, spec=spec()), metadata=(("x-request-id", "earlier"),)
            )
        )
        await held.reached.wait()
        await run(other)
        assert await noted(stage) == driver.now
        held.go_on.set()
        await slow
    assert await noted(stage) == driver.now


async def test_a_record_that_was_written_meanwhile_has_the_handle_all_the_same(
    stage: Stage, gateway: Gateway, driver: Driver
) -> None:
    await run(gateway)
    driver.moves("Execute", executor_pb2.ExecuteResponse, "execution", "exit")
    held = stage.executor.hold("Execute", done=True)
    call = asyncio.ensure_future(
        gateway.executions.Execute(pb.ExecuteRequest(name=DEMO, spec=spec()))
    )
    await held.reached.wait()
    labels = pb.Workspace(name=DEMO, labels={"team": "web"})
    await gateway.workspaces.UpdateWorkspace(pb.UpdateWorkspaceRequest(workspace=labels))
    held.go_on.set()
    await call
    assert await noted(stage) == driver.now
    assert (await stage.records())[0].labels == {"team": "web"}


async def test_an_environment_that_took_the_name_meanwhile_keeps_its_own(
    stage: Stage, gateway: Gateway, driver: Driver
) -> None:
    await run(gateway)
    driver.moves("Execute", executor_pb2.ExecuteResponse, "execution", "exit")
    held = stage.executor.hold("Execute", done=True)
    call = asyncio.ensure_future(
        gateway.executions.Execute(pb.ExecuteRequest(name=DEMO, spec=spec()))
    )
    await held.reached.wait()
    await gateway.workspaces.DeleteWorkspace(pb.DeleteWorkspaceRequest(name=DEMO, force=True))
    await gateway.workspaces.CreateWorkspace(stage.create())
    before = await noted(stage)
    held.go_on.set()
    await call
    assert await noted(stage) == before


async def test_a_registry_that_is_away_fails_no_command(
    stage: Stage, gateway: Gateway, driver: Driver
) -> None:
    driver.moves("Execute", executor_pb2.ExecuteResponse, "execution", "exit")
    stage.registry.fail("UpdateEnvironment", Unavailable("away"))
    before = await noted(stage)
    assert await run(gateway) == "hello\n"
    assert await noted(stage) == before


def _written(path: str) -> list[pb.WriteFileRequest]:
    return [
        pb.WriteFileRequest(header=pb.WriteFileHeader(name=DEMO, path=path, mode=0o644)),
        pb.WriteFileRequest(data=b"x"),
        pb.WriteFileRequest(end=executor_pb2.WriteFileEnd(bytes=1)),
    ]
