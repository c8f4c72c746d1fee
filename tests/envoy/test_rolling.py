"""Gateways behind Envoy are replaced one after the other, under load, and no call fails."""

import asyncio
import contextlib
import os
import sys
from typing import Any, Final

import grpc
import pytest

from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1 import gateway_pb2_grpc as rpc
from tests.envoy.behind import Files, gateways
from tests.envoy.conftest import client_of
from tests.envoy.edge import Edge, edge, healthy
from tests.envoy.test_edge import bearer
from tests.operation.clients import Tally, Worker
from tests.support.suite import Suite, until

ROUNDS: Final = int(os.environ.get("COVE_ROLLING_ROUNDS", "2"))
WORKERS: Final = 3
_BETWEEN: Final = 3
_BOUND: Final = 60.0

pytestmark = pytest.mark.long


async def _healthy(front: Edge, places: int) -> None:
    async with asyncio.timeout(_BOUND):
        while len(healthy(await front.asked("/clusters?format=json"))) != places:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


class Bare:
    """A caller without any SDK, who repeats nothing: each call counts."""

    def __init__(self, front: Edge, suite: Suite) -> None:
        self._front = front
        self._shown = bearer(suite.token)
        self.done = 0
        self.failed: list[str] = []

    async def live(self, name: str, leave: asyncio.Event) -> None:
        async with self._front.channel() as channel:
            workspaces = rpc.WorkspaceServiceStub(channel)
            files = rpc.SourceServiceStub(channel)
            executions = rpc.ExecutionServiceStub(channel)
            calls: tuple[Any, ...] = (
                lambda: workspaces.GetWorkspace(
                    pb.GetWorkspaceRequest(name=name), metadata=self._shown
                ),
                lambda: files.GetWorktreeStatus(
                    pb.GetWorktreeStatusRequest(name=name), metadata=self._shown
                ),
                lambda: executions.Execute(
                    pb.ExecuteRequest(name=name, spec=executor_pb2.ExecutionSpec(argv=["true"])),
                    metadata=self._shown,
                ),
            )
            while not leave.is_set():
                for number, call in enumerate(calls):
                    try:
                        await call()
                        self.done += 1
                    except grpc.aio.AioRpcError as error:
                        self.failed.append(f"{number}: {error.code()} {error.details()}")


@pytest.mark.timeout(120 + 60 * ROUNDS)
async def test_no_call_fails_in_a_rolling_restart_behind_envoy(suite: Suite, files: Files) -> None:
    tally, leave = Tally(), asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        # No call takes so long, not even where there is much else to do.
        behind = await stack.enter_async_context(
            gateways(suite, files, COVE_GATEWAY__SHUTDOWN_GRACE="25s")
        )
        front = await stack.enter_async_context(edge(files, behind))
        workers = []
        for number in range(WORKERS):
            client = await stack.enter_async_context(client_of(suite, front))
            workers.append(asyncio.create_task(Worker(number, client, tally, leave).live()))
        client = await stack.enter_async_context(client_of(suite, front))
        workspace = await client.workspaces.create(id="bare")
        bare = Bare(front, suite)
        alone = asyncio.create_task(bare.live(workspace.name, leave))
        try:
            for _ in range(ROUNDS):
                for each in behind:
                    await each.stop()
                    await _turns(tally, workers)
                    await each.start()
                    await _healthy(front, 2 * len(behind))
                    await _turns(tally, workers)
        finally:
            leave.set()
            await asyncio.wait([*workers, alone])
            for task in (*workers, alone):
                task.result()
        await workspace.delete(force=True)
        said = front.log.read_text()
    told = "\n".join([*tally.failed, *tally.wrong])
    assert not told, f"{len(tally.failed)} of {tally.done.total()} failed:\n{told}"
    assert not bare.failed, f"{len(bare.failed)} of {bare.done}: {bare.failed[:10]}\n{said[-4000:]}"
    assert tally.done["stream"] == WORKERS
    sys.stdout.write(
        f"\n{ROUNDS} rounds of {len(behind)} gateways, none failed of {dict(tally.done)}"
        f" and of {bare.done} that nobody repeats\n"
    )


async def test_a_gateway_that_stops_gets_nothing_new_and_ends_what_it_has(
    suite: Suite, files: Files
) -> None:
    shown = bearer(suite.token)
    async with (
        gateways(suite, files, COVE_GATEWAY__SHUTDOWN_GRACE="20s") as behind,
        edge(files, behind) as front,
        front.channel() as channel,
    ):
        workspaces = rpc.WorkspaceServiceStub(channel)
        executions = rpc.ExecutionServiceStub(channel)
        name = "workspaces/draining"
        request = pb.CreateWorkspaceRequest(workspace_id="draining")
        await workspaces.CreateWorkspace(request, metadata=shown)
        script = "until [ -e go ]; do sleep 0.1; done; echo over"
        spec = executor_pb2.ExecutionSpec(script=script)
        running = [
            executions.Execute(pb.ExecuteRequest(name=name, spec=spec), metadata=shown)
            for _ in range(8)
        ]
        executing = [asyncio.ensure_future(each) for each in running]
        listing = pb.ListExecutionsRequest(parent=name)
        async with asyncio.timeout(_BOUND):
            while True:
                found = await executions.ListExecutions(listing, metadata=shown)
                if len(found.executions) == len(running):
                    break
        stopping = asyncio.create_task(behind[0].stop())
        await _healthy(front, 2)
        assert not stopping.done()  # It is there, and has calls.
        for _ in range(50):
            await workspaces.GetWorkspace(pb.GetWorkspaceRequest(name=name), metadata=shown)
        go = executor_pb2.ExecutionSpec(argv=["touch", "go"])
        await executions.Execute(pb.ExecuteRequest(name=name, spec=go), metadata=shown)
        for each in await asyncio.gather(*executing):
            assert each.stdout.text == "over\n"
        await stopping
        await behind[0].start()
        gone = pb.DeleteWorkspaceRequest(name=name, force=True)
        await workspaces.DeleteWorkspace(gone, metadata=shown)


async def _turns(tally: Tally, workers: list["asyncio.Task[None]"]) -> None:
    """Wait until the load went on for a while."""
    goal = tally.done["life"] + len(tally.failed) + len(tally.wrong) + _BETWEEN
    await until(
        lambda: (
            tally.done["life"] + len(tally.failed) + len(tally.wrong) >= goal
            or any(each.done() for each in workers)
        ),
        "the clients go on",
        2 * _BOUND,
    )
