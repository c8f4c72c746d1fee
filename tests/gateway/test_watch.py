"""WatchWorkspaces: what the registry tells of the caller's tenant, in words of workspaces."""

import uuid
from typing import Any, Final, TypeAlias

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from cove.gateway.v1 import gateway_pb2 as pb
from cove.registry.v1 import registry_pb2
from cove.registry.v1.registry_pb2_grpc import RegistryServiceStub
from tests.gateway.stage import Gateway, Stage, eventually
from tests.servicekit.failing import failure

Call: TypeAlias = "grpc.aio.UnaryStreamCall[pb.WatchWorkspacesRequest, pb.WatchWorkspacesResponse]"

DEMO: Final = "workspaces/demo"
_OTHER: Final = (("cove-tenant", "other"), ("cove-principal", "eve"))


def watch(gateway: Gateway, from_revision: int = 0) -> Call:
    return gateway.workspaces.WatchWorkspaces(
        pb.WatchWorkspacesRequest(from_revision=from_revision)
    )


async def read(call: Call) -> pb.WatchWorkspacesResponse:
    """The next event that is no heartbeat. Fails when the stream ends."""
    while True:
        event = await call.read()
        assert isinstance(event, pb.WatchWorkspacesResponse)
        if not event.HasField("heartbeat"):
            return event


async def snapshot(call: Call) -> tuple[dict[str, pb.Workspace], int]:
    """All of a snapshot, and the revision it shows."""
    found: dict[str, pb.Workspace] = {}
    while (event := await read(call)).HasField("snapshot"):
        found[event.snapshot.name] = event.snapshot
    return found, event.snapshot_end.revision


async def label(gateway: Gateway, value: str, name: str = DEMO) -> pb.Workspace:
    request = pb.UpdateWorkspaceRequest(workspace=pb.Workspace(name=name, labels={"n": value}))
    return (await gateway.workspaces.UpdateWorkspace(request)).workspace


async def test_a_snapshot_comes_first_then_changes_until_it_is_gone(
    stage: Stage, gateway: Gateway
) -> None:
    made = (await gateway.workspaces.CreateWorkspace(stage.create())).workspace
    call = watch(gateway)
    found, revision = await snapshot(call)
    assert found == {DEMO: made}
    updated = await label(gateway, "1")
    event = await read(call)
    assert event.put.workspace == updated
    assert event.put.revision > revision
    await gateway.workspaces.DeleteWorkspace(pb.DeleteWorkspaceRequest(name=DEMO, force=True))
    states = []
    while (event := await read(call)).HasField("put"):
        states.append(event.put.workspace.state)
    assert set(states) == {pb.Workspace.STATE_READY, pb.Workspace.STATE_DELETING}
    assert (event.delete.name, event.delete.uid) == (DEMO, made.uid)
    assert event.delete.revision > revision
    call.cancel()


async def test_a_watch_goes_on_from_any_revision(stage: Stage, gateway: Gateway) -> None:
    await gateway.workspaces.CreateWorkspace(stage.create())
    call = watch(gateway)
    _, begin = await snapshot(call)
    for value in "abc":
        await label(gateway, value)
    puts = [(await read(call)).put for _ in range(3)]
    call.cancel()
    for place, revision in enumerate([begin, *(put.revision for put in puts[:-1])]):
        again = watch(gateway, revision)
        assert [(await read(again)).put for _ in puts[place:]] == puts[place:]
        again.cancel()


async def test_a_watch_sees_its_tenant_only(stage: Stage, gateway: Gateway) -> None:
    await gateway.workspaces.CreateWorkspace(stage.create())
    async with grpc.aio.insecure_channel(f"unix:{stage.runtime}/registry") as channel:
        registry = RegistryServiceStub(channel)
        call = watch(gateway)
        await snapshot(call)
        theirs = await registry.RegisterEnvironment(
            registry_pb2.RegisterEnvironmentRequest(
                environment_id="secret",
                environment=registry_pb2.Environment(),
                holder="them",
                lease=Duration(seconds=60),
            ),
            metadata=_OTHER,
        )
        try:
            late = watch(gateway)
            assert set((await snapshot(late))[0]) == {DEMO}
            late.cancel()
            await label(gateway, "after")
            assert (await read(call)).put.workspace.labels["n"] == "after"
            call.cancel()
        finally:
            await registry.DeregisterEnvironment(
                registry_pb2.DeregisterEnvironmentRequest(
                    name=theirs.environment.name, fencing_token=theirs.environment.fencing_token
                ),
                metadata=_OTHER,
            )


async def test_a_revision_that_is_not_there_yet_is_refused(gateway: Gateway) -> None:
    failed = await failure(watch(gateway, 1 << 40))
    assert (failed.code, failed.reason) == (grpc.StatusCode.OUT_OF_RANGE, "REVISION_IN_FUTURE")
    refused = await failure(watch(gateway, -1))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_registry_that_breaks_off_is_told(stage: Stage, gateway: Gateway) -> None:
    stage.registry.fail("WatchEnvironments", done=False)
    failed = await failure(watch(gateway))
    assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVICE_UNAVAILABLE")


async def test_a_reader_that_leaves_ends_the_watch_behind(stage: Stage, gateway: Gateway) -> None:
    call = watch(gateway)
    await snapshot(call)

    async def both() -> bool:  # The gateway has one of its own.
        return stage.registry.calls.count("WatchEnvironments") == 2

    await eventually(both)
    before = stage.registry.open
    call.cancel()

    async def ended() -> bool:
        return stage.registry.open < before

    await eventually(ended)


@pytest.mark.timeout(120)
async def test_a_reader_that_stalls_is_cut_off_and_misses_nothing(
    stage: Stage, gateway: Gateway
) -> None:
    """More changes than anything on the way may hold: the one buffer of all watchers decides."""
    await gateway.workspaces.CreateWorkspace(stage.create())
    call = watch(gateway)
    _, seen = await snapshot(call)
    notes: dict[str, str] = {f"n{number}": "x" * 16_000 for number in range(60)}
    for number in range(40):
        change: Any = pb.Workspace(name=DEMO, annotations={**notes, "n0": str(number)})
        request = pb.UpdateWorkspaceRequest(workspace=change, request_id=str(uuid.uuid4()))
        await gateway.workspaces.UpdateWorkspace(request)
    told: list[pb.WatchWorkspacesResponse.Put] = []

    async def follow(call: Call) -> None:
        while len(told) < 40:
            told.append((await read(call)).put)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await follow(call)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    again = watch(gateway, told[-1].revision if told else seen)
    await follow(again)
    assert [put.workspace.annotations["n0"] for put in told] == [str(each) for each in range(40)]
    again.cancel()


async def test_two_watchers_see_the_same(stage: Stage, gateway: Gateway) -> None:
    async with stage.gateway("second") as second:
        one, two = watch(gateway), watch(second)
        await snapshot(one)
        await snapshot(two)
        await gateway.workspaces.CreateWorkspace(stage.create())
        for call in (one, two):
            states = []
            while pb.Workspace.STATE_READY not in states:
                states.append((await read(call)).put.workspace.state)
            assert states[0] == pb.Workspace.STATE_PENDING
            call.cancel()
