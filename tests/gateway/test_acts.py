"""What gateways do by themselves to somebody's workspace is in the audit log, once."""

import asyncio
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from cove.gateway.v1 import gateway_pb2 as pb
from cove.git.v1 import git_pb2
from cove.git.v1.git_pb2_grpc import GitServiceStub
from cove.registry.v1 import registry_pb2
from cove.registry.v1.audit_pb2 import AuditEntry
from cove.registry.v1.registry_pb2_grpc import RegistryServiceStub
from tests.gateway.stage import LIMIT, Gateway, Stage, eventually
from tests.gateway.steps import run
from tests.gateway.test_audit import entries

DEMO = "workspaces/demo"
HOUR = timedelta(hours=1)


async def acts(gateway: Gateway, uid: str) -> list[tuple[str, str, str]]:
    return [told(each) for each in await entries(gateway, principal="gateway") if each.uid == uid]


def told(entry: AuditEntry) -> tuple[str, str, str]:
    assert entry.tenant == "default"
    return entry.action.removeprefix("Reconciler."), entry.code, entry.reason


async def ended(gateway: Gateway, uid: str) -> list[tuple[str, str, str]]:
    """Those of a workspace, the latest first, once one has ended."""
    found: list[tuple[str, str, str]] = []

    async def there() -> bool:
        found[:] = await acts(gateway, uid)
        return bool(found) and all(code != "UNKNOWN" for _, code, _ in found)

    await eventually(there)
    return found


async def created(stage: Stage, gateway: Gateway, **spec: object) -> str:
    made = await gateway.workspaces.CreateWorkspace(stage.create(spec=spec))
    return made.workspace.uid


async def test_one_that_expires(stage: Stage) -> None:
    ttl = Duration()
    ttl.FromTimedelta(HOUR)
    async with stage.gateway("one") as one, stage.gateway("two"):
        uid = await created(stage, one, ttl=ttl)
        stage.times.pass_(2 * HOUR)
        await eventually(stage.empty)
        assert await ended(one, uid) == [("ExpireWorkspace", "OK", "")]
        (entry,) = [each for each in await entries(one, principal="gateway") if each.uid == uid]
        assert entry.resource == DEMO
        assert entry.duration.ToNanoseconds() > 0


async def test_unsaved_work_that_is_kept_no_longer(stage: Stage, gateway: Gateway) -> None:
    uid = await created(stage, gateway)
    await run(gateway, "echo work > work.txt")
    await gateway.workspaces.DeleteWorkspace(pb.DeleteWorkspaceRequest(name=DEMO))
    assert await acts(gateway, uid) == []
    stage.times.pass_(timedelta(days=30))
    await eventually(stage.empty)
    assert await ended(gateway, uid) == [("PurgeWorkspace", "OK", "")]


async def test_one_whose_files_are_lost(stage: Stage, gateway: Gateway) -> None:
    uid = await created(stage, gateway)
    async with stage.direct("git") as channel:
        await GitServiceStub(channel).RemoveWorktree(git_pb2.RemoveWorktreeRequest(uid=uid))
    assert await ended(gateway, uid) == [("RepairWorkspace", "OK", "WORKTREE_LOST")]


async def test_what_no_record_points_at(stage: Stage) -> None:
    async with stage.gateway("one", orphan_grace=HOUR) as one:
        uid = await created(stage, one)
    async with stage.direct("registry") as channel:
        request = registry_pb2.DeregisterEnvironmentRequest(name="environments/demo")
        await RegistryServiceStub(channel).DeregisterEnvironment(request)
    async with stage.gateway("one") as one, stage.gateway("two"):
        await eventually(stage.empty)
        assert await ended(one, uid) == [("RemoveOrphan", "OK", "")]


async def test_what_a_gateway_that_died_was_at(stage: Stage) -> None:
    """Of the create that it did not end there is its own entry, of which nobody knows the end."""
    held = stage.git.hold("CreateWorktree")
    async with stage.gateway_process() as victim:
        call = victim.workspaces.CreateWorkspace(stage.create())
        await asyncio.wait_for(held.reached.wait(), LIMIT)
        await victim.kill()
        await asyncio.gather(call, return_exceptions=True)
    stage.reset()
    (record,) = await stage.records()
    async with stage.gateway() as gateway:
        assert await ended(gateway, record.uid) == [("FinishCreate", "OK", "")]
