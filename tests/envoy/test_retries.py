"""What Envoy repeats by itself, and what it never does: whatever could happen twice."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import grpc
import pytest
import pytest_asyncio

from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1 import gateway_pb2_grpc as rpc
from tests.envoy.behind import Files, Gateway
from tests.envoy.conftest import SCOPE, client_of
from tests.envoy.edge import Edge, edge
from tests.envoy.test_edge import bearer, listed
from tests.envoy.wire import Wire, wired
from tests.servicekit.failing import failure
from tests.support.suite import Suite

NAME: Final = "workspaces/repeated"
FORCED: Final = (("x-envoy-retry-on", "5xx,reset,unavailable"), ("x-envoy-max-retries", "9"))
"""By which a caller could have Envoy repeat a call, were it let."""


@dataclass
class Losing:
    """Envoy in front of one gateway, by a wire that loses what it is told to."""

    front: Edge
    wire: Wire
    suite: Suite
    shown: tuple[tuple[str, str], ...]
    direct: grpc.aio.Channel

    async def lost(self, call: Callable[[], Any], done: Callable[[], Awaitable[bool]]) -> Any:
        """Make a call of which the gateway does all, and the answer is lost."""
        async with self.front.channel() as channel:
            await listed(channel, *self.shown)  # There is a connection now.
        self.wire.hold()
        task = asyncio.ensure_future(call())
        async with asyncio.timeout(30):
            while not await done():  # noqa: ASYNC110 - of another process.
                await asyncio.sleep(0.01)
        before = self.wire.lost
        await self.wire.cut()
        assert self.wire.lost > before
        return await task

    async def retried(self) -> int:
        return sum((await self.front.stats("cluster.gateways.upstream_rq_retry$")).values())


@pytest_asyncio.fixture(loop_scope=SCOPE)
async def losing(files: Files, behind: list[Gateway], suite: Suite) -> AsyncIterator[Losing]:
    shown = bearer(suite.token)
    async with (
        wired(behind[0].mtls) as (wire, begins),
        edge(files, [behind[0]], changes=_moved(behind[0].mtls, begins)) as front,
        grpc.aio.insecure_channel(suite.grpc) as direct,
    ):
        stub = rpc.WorkspaceServiceStub(direct)
        request = pb.CreateWorkspaceRequest(workspace_id="repeated")
        await stub.CreateWorkspace(request, metadata=shown)
        try:
            yield Losing(front, wire, suite, shown, direct)
        finally:
            gone = pb.DeleteWorkspaceRequest(name=NAME, force=True)
            await stub.DeleteWorkspace(gone, metadata=shown)


async def test_a_change_whose_answer_is_lost_is_made_once(losing: Losing) -> None:
    """Envoy repeats nothing, though its caller would have it; who made it may, with its id."""
    executions = rpc.ExecutionServiceStub(losing.direct)
    request = pb.StartExecutionRequest(
        parent=NAME,
        execution=executor_pb2.Execution(
            spec=executor_pb2.ExecutionSpec(script="echo once >> runs")
        ),
        request_id=str(uuid.uuid4()),
    )

    async def started() -> list[str]:
        listing = pb.ListExecutionsRequest(parent=NAME)
        found = await executions.ListExecutions(listing, metadata=losing.shown)
        return [each.name for each in found.executions]

    async def done() -> bool:
        return bool(await started())

    async with losing.front.channel() as channel:
        stub = rpc.ExecutionServiceStub(channel)
        metadata = (*losing.shown, *FORCED)

        async def start() -> Any:
            return await failure(stub.StartExecution(request, metadata=metadata))

        failed = await losing.lost(start, done)
        assert failed.code is grpc.StatusCode.UNAVAILABLE
        assert failed.reason == "SERVICE_UNAVAILABLE"
        assert await losing.retried() == 0
        again = await stub.StartExecution(request, metadata=losing.shown)
        assert await started() == [again.execution.name]


async def test_what_only_reads_is_asked_again(losing: Losing) -> None:
    async with losing.front.channel() as channel:
        stub = rpc.WorkspaceServiceStub(channel)
        request = pb.GetWorkspaceRequest(name=NAME)
        before = await _received(losing) + 1

        async def get() -> Any:
            return await stub.GetWorkspace(request, metadata=losing.shown)

        async def done() -> bool:
            return await _received(losing) > before

        found = await losing.lost(get, done)
        assert found.workspace.name == NAME
        assert await losing.retried() == 1


def _moved(here: str, there: str) -> dict[str, str]:
    """The same place of the configuration, elsewhere."""
    return {f"port_value: {here.rpartition(':')[2]}}}": f"port_value: {there.rpartition(':')[2]}}}"}


async def _received(losing: Losing) -> int:
    """Calls that went to the gateway."""
    return sum((await losing.front.stats("cluster.gateways.upstream_rq_total")).values())


@pytest.mark.long
async def test_the_sdk_repeats_what_envoy_does_not_and_makes_one_thing(losing: Losing) -> None:
    executions = rpc.ExecutionServiceStub(losing.direct)
    async with client_of(losing.suite, losing.front) as client:
        workspace = await client.workspaces.get("repeated")
        for number in range(5):

            async def run(number: int = number) -> Any:
                return await workspace.execute(script=f"echo {number} >> runs")

            async def done(number: int = number) -> bool:
                listing = pb.ListExecutionsRequest(parent=NAME)
                found = await executions.ListExecutions(listing, metadata=losing.shown)
                return len(found.executions) > number

            assert (await losing.lost(run, done)).exit_status == 0
        content = await workspace.files.read("runs")
    assert content.decode().split() == ["0", "1", "2", "3", "4"]
    assert await losing.retried() == 0
