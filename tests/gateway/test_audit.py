"""Whatever changes something leaves one entry, whatever happens, and nothing of its contents."""

import asyncio
import sqlite3
import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2 as pb
from cove.git.v1 import git_pb2
from cove.options.v1.options_pb2 import Role
from cove.registry.v1.audit_pb2 import AuditEntry
from gateway import trail
from servicekit import policy
from servicekit.errors import Unavailable
from tests.gateway.stage import LIMIT, Gateway, Stage, eventually
from tests.servicekit.failing import failure

DEMO = "workspaces/demo"
TOKEN = "cove_" + "t" * 43
METHODS = [
    method
    for service in pb.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if method.GetOptions().idempotency_level != MethodOptions.NO_SIDE_EFFECTS
]
APPEND = "AppendAuditEntries"


async def entries(gateway: Gateway, *, metadata: Any = (), **fields: Any) -> list[AuditEntry]:
    """All that are there, the latest first."""
    found: list[AuditEntry] = []
    request = pb.ListAuditEntriesRequest(**fields)
    while True:
        page = await gateway.audit.ListAuditEntries(request, metadata=metadata)
        found += page.entries
        request.page_token = page.next_page_token
        if not request.page_token:
            return found


async def of_call(
    gateway: Gateway, correlation_id: str, *, ended: bool = True, **kwargs: Any
) -> list[AuditEntry]:
    """Those of one call, once there are any, or of one that ended."""
    found: list[AuditEntry] = []

    async def there() -> bool:
        found[:] = [
            each
            for each in await entries(gateway, **kwargs)
            if each.correlation_id == correlation_id and not (ended and each.code == "UNKNOWN")
        ]
        return bool(found)

    await eventually(there)
    return found


def named(correlation_id: str) -> Any:
    return (("x-request-id", correlation_id),)


def new() -> str:
    return uuid.uuid4().hex


async def test_an_entry_says_who_did_what_to_what_and_how_it_ended(
    stage: Stage, gateway: Gateway
) -> None:
    create = stage.create(request_id=str(uuid.uuid4()))
    id_ = new()
    made = (await gateway.workspaces.CreateWorkspace(create, metadata=named(id_))).workspace
    (entry,) = await of_call(gateway, id_)
    assert (entry.tenant, entry.principal) == ("default", "anonymous")
    assert entry.action == "WorkspaceService.CreateWorkspace"
    assert (entry.resource, entry.uid) == (DEMO, made.uid)
    assert (entry.code, entry.reason) == ("OK", "")
    assert entry.request_id == create.request_id
    assert entry.source.startswith("unix:")
    assert entry.count == 1
    assert entry.duration.ToNanoseconds() > 0

    id_ = new()
    await failure(gateway.workspaces.CreateWorkspace(stage.create(), metadata=named(id_)))
    (entry,) = await of_call(gateway, id_)
    assert (entry.resource, entry.code, entry.reason) == (
        DEMO,
        "ALREADY_EXISTS",
        "WORKSPACE_EXISTS",
    )

    id_ = new()
    start = pb.StreamExecutionRequest(
        name=DEMO, execution_id="one", spec=executor_pb2.ExecutionSpec(script="true")
    )
    async for _ in gateway.executions.StreamExecution(start, metadata=named(id_)):
        pass
    (entry,) = await of_call(gateway, id_)
    assert (entry.resource, entry.uid) == (f"{DEMO}/executions/one", made.uid)

    id_ = new()
    delete = pb.DeleteWorkspaceRequest(name=DEMO, force=True)
    await gateway.workspaces.DeleteWorkspace(delete, metadata=named(id_))
    (entry,) = await of_call(gateway, id_)
    assert (entry.resource, entry.uid) == (DEMO, made.uid)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
async def test_no_rpc_that_changes_something_is_left_out(
    gateway: Gateway, method: MethodDescriptor
) -> None:
    """Also one that is added tomorrow: this asks the descriptors."""
    id_ = new()
    async with grpc.aio.insecure_channel(gateway.address) as channel:
        await failure(_empty_call(channel, method, named(id_)))
    (entry,) = await of_call(gateway, id_)
    assert entry.action == f"{method.containing_service.name}.{method.name}"
    assert entry.code == "INVALID_ARGUMENT"


def _empty_call(channel: grpc.aio.Channel, method: MethodDescriptor, metadata: Any) -> Any:
    """A request that no RPC takes: what is not there cannot be right."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    answer = message_factory.GetMessageClass(method.output_type).FromString
    kind = "_".join(
        "stream" if streaming else "unary"
        for streaming in (method.client_streaming, method.server_streaming)
    )
    call = getattr(channel, kind)(path, lambda data: data, answer)
    garbage = b"\xff\xff\xff"
    return call(iter([garbage]) if method.client_streaming else garbage, metadata=metadata)


async def test_what_only_reads_leaves_none(gateway: Gateway) -> None:
    ids = [new() for _ in range(3)]
    await gateway.workspaces.ListWorkspaces(pb.ListWorkspacesRequest(), metadata=named(ids[0]))
    get = pb.GetWorkspaceRequest(name="workspaces/none")
    await failure(gateway.workspaces.GetWorkspace(get, metadata=named(ids[1])))
    await entries(gateway, metadata=named(ids[2]))
    await failure(
        gateway.workspaces.CreateWorkspace(
            pb.CreateWorkspaceRequest(workspace_id="NO"), metadata=named("last")
        )
    )
    await of_call(gateway, "last")
    assert not {each.correlation_id for each in await entries(gateway)} & set(ids)


async def test_nothing_of_the_contents_is_in_the_log(stage: Stage, gateway: Gateway) -> None:
    canary = f"canary{uuid.uuid4().hex}"
    create = stage.create(spec={"env": {"SECRET": canary}})
    create.workspace.labels["secret"] = canary
    create.workspace.annotations["secret"] = canary
    https = git_pb2.Credentials.Https(username=canary, password=canary)
    refused = stage.create(
        "refused",
        spec={"revision": canary, "branch": canary},
        credentials=git_pb2.Credentials(https=https),
    )
    await failure(gateway.workspaces.CreateWorkspace(refused))
    spec = executor_pb2.ExecutionSpec(
        argv=["echo", canary], env={"A": canary}, secrets={"TOKEN": canary}
    )
    await gateway.workspaces.CreateWorkspace(create)
    await gateway.executions.Execute(pb.ExecuteRequest(name=DEMO, spec=spec))
    script = executor_pb2.ExecutionSpec(script=f"echo {canary} > {canary}; cat {canary}")
    await gateway.executions.Execute(pb.ExecuteRequest(name=DEMO, spec=script))
    await failure(gateway.files.MakeDirectory(pb.MakeDirectoryRequest(name=DEMO, path=canary)))
    made = await gateway.sources.CreateCommit(
        pb.CreateCommitRequest(
            parent=DEMO,
            commit=git_pb2.Commit(
                message=canary, author=git_pb2.Signature(name=canary, email=f"{canary}@x.org")
            ),
        )
    )
    assert made.commit.id
    written = pb.WriteInputRequest(name=f"{DEMO}/executions/none", data=canary.encode())
    await failure(gateway.executions.WriteInput(written))
    upload = [
        pb.WriteFileRequest(header=pb.WriteFileHeader(name=DEMO, path=canary + "2")),
        pb.WriteFileRequest(data=canary.encode()),
        pb.WriteFileRequest(end=executor_pb2.WriteFileEnd(bytes=len(canary))),
    ]
    await gateway.files.WriteFile(iter(upload))
    id_ = new()
    await gateway.workspaces.DeleteWorkspace(
        pb.DeleteWorkspaceRequest(name=DEMO, force=True), metadata=named(id_)
    )
    await of_call(gateway, id_)
    kept = _rows(stage.state / "registry" / "registry.db")
    assert len(kept) >= 7
    assert not [row for row in kept if canary.encode() in row]
    spools = list((stage.runtime / "audit").iterdir())
    assert spools
    assert not [each for each in spools if canary.encode() in each.read_bytes()]


def _rows(database: Path) -> list[bytes]:
    db = sqlite3.connect(database)
    try:
        return [repr(row).encode() for row in db.execute("SELECT * FROM audit")]
    finally:
        db.close()


async def test_while_the_registry_takes_none_they_wait(stage: Stage, gateway: Gateway) -> None:
    """Or its answers are lost: each is there once."""
    stage.registry.fail(APPEND, Unavailable("away"), times=2)
    ids = [new() for _ in range(5)]
    await asyncio.gather(*(nothing(gateway, id_) for id_ in ids))
    stage.registry.fail(APPEND, times=2, done=True)
    more = [new() for _ in range(5)]
    await asyncio.gather(*(nothing(gateway, id_) for id_ in more))
    for id_ in [*ids, *more]:
        assert len(await of_call(gateway, id_)) == 1


async def nothing(gateway: Gateway, correlation_id: str) -> None:
    delete = pb.DeleteWorkspaceRequest(name="workspaces/none", allow_missing=True)
    await gateway.workspaces.DeleteWorkspace(delete, metadata=named(correlation_id))


async def test_when_too_many_wait_nothing_is_begun_that_would_leave_one_more(
    stage: Stage, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail, "_UNSENT", 3)
    stage.registry.fail(APPEND, Unavailable("away"))
    ids = [new() for _ in range(3)]
    for id_ in ids:
        await nothing(gateway, id_)
    delete = pb.DeleteWorkspaceRequest(name="workspaces/none", allow_missing=True)
    refused = await failure(gateway.workspaces.DeleteWorkspace(delete))
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVICE_UNAVAILABLE")
    await gateway.workspaces.ListWorkspaces(pb.ListWorkspacesRequest())  # Who only reads goes on.
    stage.registry.heal()
    for id_ in ids:
        assert len(await of_call(gateway, id_)) == 1
    await nothing(gateway, new())


async def test_an_entry_outlives_its_gateway(stage: Stage) -> None:
    """Killed when the call was answered, and no entry had left."""
    id_ = new()
    held = stage.registry.hold(APPEND)
    async with stage.gateway_process() as victim:
        await nothing(victim, id_)
        await asyncio.wait_for(held.reached.wait(), LIMIT)
        await victim.kill()
    stage.reset()
    async with stage.gateway() as gateway:
        (entry,) = await of_call(gateway, id_)
        assert entry.code == "OK"


async def test_a_call_whose_gateway_was_killed_is_in_the_log(stage: Stage) -> None:
    """Though nobody knows how it ended, as its work may go on."""
    id_ = new()
    held = stage.git.hold("CreateWorktree")
    async with stage.gateway_process() as victim:
        call = victim.workspaces.CreateWorkspace(stage.create(), metadata=named(id_))
        await asyncio.wait_for(held.reached.wait(), LIMIT)
        await victim.kill()
        await asyncio.gather(call, return_exceptions=True)
    stage.reset()
    async with stage.gateway() as gateway:
        (entry,) = await of_call(gateway, id_, ended=False)
        assert (entry.code, entry.resource) == ("UNKNOWN", DEMO)
        assert entry.action == "WorkspaceService.CreateWorkspace"


async def test_what_the_registry_keeps_has_an_entry_though_the_gateway_lost_all_of_its_own(
    stage: Stage,
) -> None:
    """As a loss of power does: what waits in files of a gateway is not synced."""
    id_ = new()
    stage.registry.fail(APPEND, Unavailable("away"))
    async with stage.gateway_process() as victim:
        await victim.workspaces.CreateWorkspace(stage.create(), metadata=named(id_))
        await victim.kill()
    for spool in (stage.runtime / "audit").iterdir():
        spool.unlink()
    stage.reset()
    async with stage.gateway() as gateway:
        (entry,) = await of_call(gateway, id_, ended=False)
        assert (entry.action, entry.code) == ("WorkspaceService.CreateWorkspace", "UNKNOWN")
        assert (entry.resource, entry.principal) == (DEMO, "anonymous")


async def test_a_gateway_that_stops_leaves_nothing_behind(stage: Stage) -> None:
    id_ = new()
    folder = stage.runtime / "audit"
    async with stage.gateway("first") as first:
        await nothing(first, id_)
        mine = set(folder.iterdir())
    assert not mine & set(folder.iterdir())
    async with stage.gateway() as gateway:
        assert len(await of_call(gateway, id_)) == 1


async def test_a_file_that_cannot_be_read_holds_up_no_other(stage: Stage) -> None:
    """As a loss of power leaves one: what is whole in it is kept."""
    folder = stage.runtime / "audit"
    folder.mkdir(exist_ok=True)
    entries_ = [
        AuditEntry(id=str(uuid.uuid4()), action="x", code="OK", correlation_id=new(), count=1)
        for _ in range(2)
    ]
    for number, (entry, rest) in enumerate(
        zip(entries_, (b"E\0\0\0\3\xff\xff\xff", bytes(64)), strict=True)
    ):
        entry.time.GetCurrentTime()
        entry.tenant = "default"
        whole = entry.SerializeToString()
        frame = b"E" + len(whole).to_bytes(4, "big") + whole
        (folder / f"0{number}.spool").write_bytes(frame + rest)
    async with stage.gateway() as gateway:
        for entry in entries_:
            assert await of_call(gateway, entry.correlation_id) == [entry]


async def test_strangers_are_told_of_together(stage: Stage, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN)
    token_file.chmod(0o600)
    bearer = (("authorization", f"Bearer {TOKEN}"),)
    async with stage.gateway(no_auth=False, token_file=token_file) as gateway:
        strangers = {"metadata": bearer, "code": "UNAUTHENTICATED"}
        before = {each.id for each in await entries(gateway, **strangers)}
        wrong = (("authorization", "Bearer guessed"),)
        request = pb.ListWorkspacesRequest()
        began = time.monotonic()
        calls = (gateway.workspaces.ListWorkspaces(request, metadata=wrong) for _ in range(50))
        await asyncio.gather(*map(failure, calls))
        took = time.monotonic() - began
        found: list[AuditEntry] = []

        async def all_told() -> bool:
            found[:] = [e for e in await entries(gateway, **strangers) if e.id not in before]
            return sum(each.count for each in found) == 50

        await eventually(all_told)
        # In each second that it took: the first, and all the others.
        assert len(found) <= 2 * (took / trail._ALIKE_SECONDS + 2)  # noqa: SLF001
        assert {each.action for each in found} == {"WorkspaceService.ListWorkspaces"}
        assert {(each.principal, each.tenant) for each in found} == {("", "default")}


async def test_who_may_not_is_in_the_log_with_what_it_was_about(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No caller has too small a role yet, so the RPC is given a larger one."""
    real = policy.policy_of

    def larger(path: str) -> policy.Policy:
        found = real(path)
        if path.endswith("/GetWorkspace"):
            return policy.Policy(Role.ROLE_SERVICE, found.limit)
        return found

    monkeypatch.setattr("servicekit.chain.policy_of", larger)
    id_ = new()
    async with stage.gateway("strict") as gateway:
        get = pb.GetWorkspaceRequest(name=DEMO)
        refused = await failure(gateway.workspaces.GetWorkspace(get, metadata=named(id_)))
        assert refused.reason == "PERMISSION_DENIED"
        (entry,) = await of_call(gateway, id_)
        assert (entry.principal, entry.resource) == ("anonymous", DEMO)
        assert (entry.code, entry.reason) == ("PERMISSION_DENIED", "PERMISSION_DENIED")


async def test_no_call_waits_for_its_entry(stage: Stage) -> None:
    """As long as one is held that sends entries, others are answered all the same."""
    held = stage.registry.hold(APPEND)
    async with stage.gateway(shutdown_grace=timedelta(seconds=1)) as gateway:
        await nothing(gateway, new())
        await asyncio.wait_for(held.reached.wait(), LIMIT)
        async with asyncio.timeout(LIMIT):
            for _ in range(20):
                await nothing(gateway, new())
        held.go_on.set()
