"""The audit log: entries are kept once, read page by page, and go when they are old."""

import asyncio
import uuid
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from cove.registry.v1 import audit_pb2
from cove.registry.v1 import registry_pb2 as pb
from cove.registry.v1.audit_pb2 import AuditEntry
from cove.registry.v1.audit_pb2_grpc import AuditServiceStub
from cove.registry.v1.registry_pb2_grpc import RegistryServiceStub
from services.registry import trail
from services.registry.app import registry
from services.registry.config import Config
from tests.registry.caller import Clock, refused, register

DAY = 24 * 3600


class Log:
    """The log of one tenant."""

    def __init__(self, channel: grpc.aio.Channel, clock: Clock, tenant: str = "acme") -> None:
        self._stub = AuditServiceStub(channel)
        self._clock = clock
        self._tenant = tenant

    def entry(self, **fields: Any) -> AuditEntry:
        time = Timestamp()
        time.FromNanoseconds(self._clock())
        given = {
            "id": str(uuid.uuid4()),
            "time": time,
            "tenant": self._tenant,
            "action": "WorkspaceService.CreateWorkspace",
            "code": "OK",
            "count": 1,
        }
        return AuditEntry(**{**given, **fields})

    async def append(self, *entries: AuditEntry) -> int:
        request = audit_pb2.AppendAuditEntriesRequest(entries=entries)
        return int((await self._stub.AppendAuditEntries(request)).appended)

    async def page(self, **fields: Any) -> audit_pb2.ListAuditEntriesResponse:
        request = audit_pb2.ListAuditEntriesRequest(**fields)
        metadata = (("cove-tenant", self._tenant),)
        return await self._stub.ListAuditEntries(request, metadata=metadata)

    async def all(self, **fields: Any) -> list[AuditEntry]:
        found: list[AuditEntry] = []
        token = ""
        while True:
            page = await self.page(page_token=token, **fields)
            found += page.entries
            token = page.next_page_token
            if not token:
                return found


@pytest.fixture
def log(channel: grpc.aio.Channel, clock: Clock) -> Log:
    return Log(channel, clock)


async def test_an_entry_is_kept_once_and_as_it_came(log: Log) -> None:
    first, second = log.entry(principal="ada", uid="u", source="unix:"), log.entry()
    assert await log.append(first) == 1
    assert await log.append(first, second) == 1
    changed = AuditEntry()
    changed.CopyFrom(first)
    changed.code = "ABORTED"
    assert await log.append(changed) == 0
    assert sorted(each.id for each in await log.all()) == sorted((first.id, second.id))
    assert first in await log.all()


def with_entry(entry: AuditEntry | bytes) -> Any:
    data = entry if isinstance(entry, bytes) else entry.SerializeToString()
    return (("cove-tenant", "acme"), ("cove-principal", "ada"), ("cove-audit-entry-bin", data))


async def test_what_is_written_has_its_entry_in_the_same_commit(
    log: Log, channel: grpc.aio.Channel, clock: Clock
) -> None:
    registry_ = RegistryServiceStub(channel)
    request = register("demo", request_id=str(uuid.uuid4()))
    begun = log.entry(code="UNKNOWN", resource="workspaces/demo")
    await registry_.RegisterEnvironment(request, metadata=with_entry(begun))
    assert await log.all() == [begun]  # It need not be sent to be there.

    replayed = log.entry(code="UNKNOWN")
    await registry_.RegisterEnvironment(request, metadata=with_entry(replayed))
    taken = log.entry(code="UNKNOWN")
    with refused(grpc.StatusCode.ALREADY_EXISTS, "ENVIRONMENT_EXISTS"):
        await registry_.RegisterEnvironment(register("demo"), metadata=with_entry(taken))
    update = pb.UpdateEnvironmentRequest(environment=pb.Environment(name="environments/demo"))
    update.update_mask.paths.append("node")
    await registry_.UpdateEnvironment(update, metadata=with_entry(log.entry(code="UNKNOWN")))
    assert await log.all() == [begun]  # Nothing was changed by these.

    update.environment.node = "n"
    await asyncio.gather(  # A call that writes more than once has one.
        registry_.UpdateEnvironment(update, metadata=with_entry(begun)),
        registry_.DeregisterEnvironment(
            pb.DeregisterEnvironmentRequest(name="environments/demo"), metadata=with_entry(begun)
        ),
        return_exceptions=True,
    )
    assert await log.all() == [begun]


async def test_how_it_ended_takes_the_place_of_what_began(log: Log, clock: Clock) -> None:
    begun = log.entry(code="UNKNOWN")
    clock.move(1)
    later = log.entry(code="UNKNOWN")
    clock.move(1)
    ended = AuditEntry()
    ended.CopyFrom(begun)
    ended.code = "ABORTED"
    ended.time.FromNanoseconds(clock())
    assert await log.append(begun, later) == 2
    assert await log.append(ended) == 1
    assert await log.append(begun) == 0
    assert await log.all() == [later, ended]
    changed = AuditEntry()
    changed.CopyFrom(ended)
    changed.code = "OK"
    assert await log.append(changed) == 0
    assert await log.all() == [later, ended]


async def test_one_that_comes_twice_at_once_is_kept_once(log: Log) -> None:
    begun = log.entry(code="UNKNOWN")
    ended, late = AuditEntry(), AuditEntry()
    for each, code in ((ended, "ABORTED"), (late, "OK")):
        each.CopyFrom(begun)
        each.code = code
    other = log.entry()
    assert await log.append(begun, ended, other, late, begun) == 2
    assert sorted((each.id, each.code) for each in await log.all()) == sorted(
        (each.id, each.code) for each in (ended, other)
    )


async def test_no_entry_is_such_that_it_cannot_be_kept(log: Log, channel: grpc.aio.Channel) -> None:
    """All that come with it would wait for ever, and so would every call that changes something."""
    odd = log.entry(principal="a\0da", resource="workspaces/\0", time=Timestamp(seconds=10**11))
    late = log.entry(time=Timestamp(seconds=250_000_000_000))
    assert await log.append(odd, late, log.entry()) == 3
    assert odd in await log.all()
    assert [each.id for each in await log.all()][:2] == sorted((odd.id, late.id), reverse=True)
    begun = log.entry(code="UNKNOWN", resource="workspaces/\0", time=late.time)
    await RegistryServiceStub(channel).RegisterEnvironment(
        register("demo"), metadata=with_entry(begun)
    )
    assert begun in await log.all()


@pytest.mark.parametrize("data", [b"\xff", b"x" * 5000, AuditEntry(id="a").SerializeToString()])
async def test_what_is_no_entry_is_refused(channel: grpc.aio.Channel, data: bytes) -> None:
    registry_ = RegistryServiceStub(channel)
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"):
        await registry_.RegisterEnvironment(register("demo"), metadata=with_entry(data))
    exists = pb.EnvironmentExistsRequest(name="environments/demo")
    assert not (await registry_.EnvironmentExists(exists, metadata=with_entry(data))).exists


async def test_of_entries_that_come_at_once_none_is_lost(log: Log) -> None:
    entries = [log.entry() for _ in range(200)]
    await asyncio.gather(*(log.append(each) for each in [*entries, *entries]))
    assert {each.id for each in await log.all(page_size=7)} == {each.id for each in entries}


async def test_the_latest_come_first_and_pages_hold_still(log: Log, clock: Clock) -> None:
    made = []
    for number in range(10):
        made.append(log.entry(principal=f"p{number}"))
        await log.append(made[-1])
        clock.move(1)
    page = await log.page(page_size=4)
    await log.append(log.entry(principal="late"))
    rest = await log.page(page_size=100, page_token=page.next_page_token)
    assert [*page.entries, *rest.entries] == made[::-1]
    assert rest.next_page_token == ""


async def test_each_tenant_sees_its_own(channel: grpc.aio.Channel, log: Log, clock: Clock) -> None:
    other = Log(channel, clock, "other")
    await log.append(log.entry(), other.entry())
    assert [each.tenant for each in await log.all()] == ["acme"]
    page = await log.page(page_size=1)
    assert page.next_page_token == ""
    await log.append(log.entry())
    token = (await log.page(page_size=1)).next_page_token
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID"):
        await other.page(page_size=1, page_token=token)


async def test_entries_are_found_by_who_what_where_and_when(log: Log, clock: Clock) -> None:
    begin = Timestamp()
    begin.FromNanoseconds(clock())
    await log.append(
        log.entry(principal="ada", resource="workspaces/a", code="ABORTED"),
        log.entry(principal="bob", resource="workspaces/a/executions/x"),
        log.entry(principal="bob", resource="workspaces/ab", action="ExecutionService.Execute"),
    )
    clock.move(10)
    middle = Timestamp()
    middle.FromNanoseconds(clock())
    await log.append(log.entry(principal="eve"))

    async def who(**fields: Any) -> list[str]:
        return sorted(each.principal for each in await log.all(**fields))

    assert await who(principal="bob") == ["bob", "bob"]
    assert await who(resource="workspaces/a") == ["ada", "bob"]
    assert await who(resource="workspaces/ab") == ["bob"]
    assert await who(action="Execute") == ["bob"]
    assert await who(action="ExecutionService.Execute") == ["bob"]
    assert await who(action="cute") == []
    assert await who(code="ABORTED") == ["ada"]
    assert await who(start_time=middle) == ["eve"]
    assert await who(start_time=begin, end_time=middle) == ["ada", "bob", "bob"]
    long_ago, far_off = Timestamp(seconds=-60_000_000_000), Timestamp(seconds=250_000_000_000)
    assert await who(start_time=long_ago, end_time=far_off) == ["ada", "bob", "bob", "eve"]
    assert await who(start_time=far_off) == []
    assert await who(end_time=long_ago) == await who(end_time=Timestamp()) == []


async def test_a_page_looks_at_a_bounded_number(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trail, "LOOKED_AT", 10)
    wanted = log.entry(principal="ada")
    await log.append(wanted, *(log.entry(principal="bob") for _ in range(95)))
    page = await log.page(principal="ada", page_size=1)
    assert page.next_page_token
    assert await log.all(principal="ada") == [wanted]


async def test_what_is_too_old_goes_and_that_is_told(config: Config, clock: Clock) -> None:
    """Oldest first. Nobody can tell a log that was swept from one where nothing happened, else."""
    async with (
        registry(config, now=clock) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        log, other, third = (Log(channel, clock, name) for name in ("acme", "other", "third"))
        for _ in range(2):
            await log.append(*(log.entry() for _ in range(750)))
        await other.append(*(other.entry() for _ in range(3)))
        clock.move(50 * DAY)
        kept = log.entry()
        await log.append(kept, third.entry())
        page = await log.page()
        assert not page.HasField("removed_until")
        until = clock() - 50 * DAY * 10**9
        clock.move(41 * DAY)
    async with (  # It sweeps when it starts.
        registry(config, now=clock) as served,
        grpc.aio.insecure_channel(served.address) as channel,
        asyncio.timeout(30),
    ):
        log, other, third = (Log(channel, clock, name) for name in ("acme", "other", "third"))
        while True:
            page = await log.page()
            if page.removed + (await other.page()).removed == 1503:
                break
            await asyncio.sleep(0.01)
        page = await log.page()
        assert list(page.entries) == [kept]
        assert (page.removed, page.removed_until.ToNanoseconds()) == (1500, until + 1)
        assert (await other.page()).removed == 3  # Each is told of its own, nobody of others.
        page = await third.page()
        assert (page.removed, page.HasField("removed_until")) == (0, False)


async def test_no_rpc_changes_or_removes_an_entry() -> None:
    methods = audit_pb2.DESCRIPTOR.services_by_name["AuditService"].methods
    assert {each.name for each in methods} == {"AppendAuditEntries", "ListAuditEntries"}
