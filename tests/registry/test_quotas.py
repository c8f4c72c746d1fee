"""Quotas: how many workspaces a tenant may have is decided where they are registered."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2

from cove.registry.v1 import access_pb2, registry_pb2
from cove.registry.v1.access_pb2_grpc import AccessServiceStub
from cove.registry.v1.registry_pb2 import Environment
from servicekit.status import told
from services.registry.app import registry
from services.registry.config import Config
from tests.registry.caller import Caller, Clock, refused, register

READY = Environment.STATE_READY
DELETING = Environment.STATE_DELETING
DELETED = Environment.STATE_DELETED
RESUMING = Environment.OPERATION_RESUMING
REQUEST = "6f9619ff-8b86-d011-b42d-00cf4fc964ff"

EXCEEDED = grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED"


class Access:
    """The quotas as the gateway asks for them, for one tenant."""

    def __init__(self, channel: grpc.aio.Channel, tenant: str = "acme") -> None:
        self._stub = AccessServiceStub(channel)
        self._metadata = (("cove-tenant", tenant), ("cove-principal", "ada"))

    async def get(self, tenant: str = "") -> access_pb2.Quota:
        request = access_pb2.GetQuotaRequest(tenant=tenant)
        return (await self._stub.GetQuota(request, metadata=self._metadata)).quota

    async def used(self) -> int:
        return (await self.get()).use.workspaces

    async def set(
        self, *paths: str, etag: str = "", request_id: str = "", **limits: int
    ) -> access_pb2.Quota:
        request = access_pb2.UpdateQuotaRequest(
            quota=access_pb2.Quota(limits=access_pb2.QuotaLimits(**limits), etag=etag),
            update_mask=FieldMask(paths=paths or [f"limits.{name}" for name in limits]),
            request_id=request_id,
        )
        return (await self._stub.UpdateQuota(request, metadata=self._metadata)).quota

    async def recount(self, *, dry_run: bool = False) -> list[tuple[str, int, int]]:
        request = access_pb2.RecountQuotasRequest(dry_run=dry_run)
        answer = await self._stub.RecountQuotas(request, metadata=self._metadata)
        return [(each.tenant, each.counted, each.found) for each in answer.corrections]


@pytest.fixture
def access(channel: grpc.aio.Channel) -> Access:
    return Access(channel)


async def _delete(ada: Caller, id_: str) -> None:
    await ada.move(id_, DELETING)
    await ada.move(id_, DELETED)


async def test_of_many_who_create_at_once_just_as_many_as_may_succeed(
    ada: Caller, access: Access
) -> None:
    await access.set(workspaces=10)
    ends = await asyncio.gather(
        *(ada.register(f"w{number}") for number in range(50)), return_exceptions=True
    )
    made = [each for each in ends if isinstance(each, Environment)]
    refusals = [each for each in ends if isinstance(each, grpc.aio.AioRpcError)]
    assert (len(made), len(refusals)) == (10, 40)
    assert {each.code() for each in refusals} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert await access.used() == 10
    assert await access.recount() == []


async def test_a_refusal_says_of_what_and_how_many(ada: Caller, access: Access) -> None:
    await access.set(workspaces=1)
    await ada.register("one")
    with refused(*EXCEEDED, quota="workspaces", limit="1", used="1"):
        await ada.register("two")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ada.register("two")
    status = told(caught.value)
    assert status
    quota, retry = error_details_pb2.QuotaFailure(), error_details_pb2.RetryInfo()
    assert any(detail.Unpack(quota) for detail in status.details)
    violation = quota.violations[0]
    assert (violation.subject, violation.quota_metric) == ("tenants/acme", "workspaces")
    assert violation.quota_value == 1
    assert any(detail.Unpack(retry) for detail in status.details)
    assert retry.retry_delay.seconds == 60


async def test_another_tenant_has_room_of_its_own(
    channel: grpc.aio.Channel, ada: Caller, access: Access
) -> None:
    await access.set(workspaces=1)
    await ada.register("one")
    await Caller(channel, tenant="other").register("one")
    await Caller(channel, tenant="other").register("two")
    with refused(*EXCEEDED):
        await ada.register("two")


async def test_a_request_that_comes_again_is_counted_once(ada: Caller, access: Access) -> None:
    await access.set(workspaces=2)
    first = await ada.register("one", request_id=REQUEST)
    again = await asyncio.gather(*(ada.register("one", request_id=REQUEST) for _ in range(20)))
    assert {each.uid for each in again} == {first.uid}
    assert await access.used() == 1
    await ada.register("two")
    assert await ada.register("one", request_id=REQUEST) == first  # Though nothing more fits.


async def test_what_failed_gives_its_place_back(ada: Caller, access: Access) -> None:
    await access.set(workspaces=1)
    await ada.register("one")
    with refused(grpc.StatusCode.ALREADY_EXISTS, "ENVIRONMENT_EXISTS"):
        await ada.register("one")
    assert await access.used() == 1
    await ada.move("one", DELETING)
    with refused(*EXCEEDED):  # What it stands on is still there.
        await ada.register("two")
    await ada.deregister("one")
    assert await access.used() == 0
    await ada.register("two")


async def test_a_deleted_one_counts_no_more_and_needs_a_place_to_come_back(
    ada: Caller, access: Access
) -> None:
    await access.set(workspaces=1)
    await ada.register("one")
    await ada.move("one", READY, release_operation=True)
    await _delete(ada, "one")
    assert await access.used() == 0
    await ada.register("two")
    with refused(*EXCEEDED):
        await ada.claim("one", operation=RESUMING)
    await ada.deregister("two")
    claimed = await ada.claim("one", operation=RESUMING)
    assert await access.used() == 1  # Before anything is made of it.
    with refused(*EXCEEDED):
        await ada.register("two")
    await ada.release("one", claimed.fencing_token)
    assert await access.used() == 0
    await ada.claim("one", operation=RESUMING)
    await ada.move("one", READY, release_operation=True)
    assert await access.used() == 1


async def test_purging_is_never_refused(ada: Caller, access: Access) -> None:
    await access.set(workspaces=1)
    await ada.register("one")
    await ada.move("one", READY, release_operation=True)
    await _delete(ada, "one")
    await ada.register("two")
    await ada.claim("one", operation=Environment.OPERATION_DELETING)
    await ada.move("one", DELETING)
    await ada.deregister("one")
    assert await access.used() == 1
    assert await access.recount() == []


async def test_a_limit_below_what_there_is_takes_nothing(ada: Caller, access: Access) -> None:
    await asyncio.gather(*(ada.register(f"w{number}") for number in range(3)))
    await access.set(workspaces=1)
    await ada.move("w0", READY, release_operation=True)
    await ada.deregister("w1")
    with refused(*EXCEEDED, used="2"):
        await ada.register("new")
    await ada.deregister("w2")
    await ada.deregister("w0")
    await ada.register("new")


async def test_limits_are_set_one_by_one_and_on_condition(access: Access) -> None:
    first = await access.get()
    assert not first.HasField("update_time")
    assert first.effective_limits == access_pb2.QuotaLimits()
    second = await access.set(executions=5)
    third = await access.set(disk_bytes=7, workspaces=-1, etag=second.etag)
    assert third.limits == access_pb2.QuotaLimits(workspaces=-1, executions=5, disk_bytes=7)
    assert third.effective_limits == access_pb2.QuotaLimits(executions=5, disk_bytes=7)
    with refused(grpc.StatusCode.ABORTED, "ETAG_MISMATCH"):
        await access.set(executions=6, etag=second.etag)
    assert (await access.set(disk_bytes=7)).etag == third.etag  # No change is none.
    for path in ("use", "limits.use", "executions", "*"):
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "FIELD_IMMUTABLE", field=path):
            await access.set(path)
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"):
        await access.set(executions=-2)
    assert await access.get() == third
    assert (await access.set("limits")).limits == access_pb2.QuotaLimits()


async def test_setting_is_done_once_for_one_request(access: Access) -> None:
    await access.set(executions=5, request_id=REQUEST)
    later = await access.set(executions=6)
    assert (await access.set(executions=5, request_id=REQUEST)).limits.executions == 5
    assert await access.get() == later
    with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await access.set(executions=7, request_id=REQUEST)


async def test_all_tenants_are_listed_page_by_page(channel: grpc.aio.Channel) -> None:
    tenants = [f"t{number}" for number in range(5)]
    for tenant in tenants:
        await Caller(channel, tenant=tenant).register("one")
    stub = AccessServiceStub(channel)
    found: list[str] = []
    request = access_pb2.ListQuotasRequest(page_size=2)
    while True:
        page = await stub.ListQuotas(request, metadata=(("cove-tenant", ""),))
        found += [f"{each.tenant}:{each.use.workspaces}" for each in page.quotas]
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert found == [f"{tenant}:1" for tenant in tenants]


@pytest.fixture
async def limited(config: Config, clock: Clock) -> AsyncIterator[grpc.aio.Channel]:
    """A registry whose operator has a default."""
    settings = replace(config, quota_workspaces=1, quota_executions=3)
    async with (
        registry(settings, now=clock) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        yield channel


async def test_the_operators_default_holds_where_nothing_was_set(
    limited: grpc.aio.Channel,
) -> None:
    ada, access = Caller(limited), Access(limited)
    assert (await access.get()).effective_limits.executions == 3
    await ada.register("one")
    with refused(*EXCEEDED):
        await ada.register("two")
    await access.set(workspaces=2)
    await ada.register("two")
    with refused(*EXCEEDED):
        await ada.register("three")
    await access.set(workspaces=-1)
    await ada.register("three")


async def test_the_count_outlives_a_restart(config: Config, clock: Clock) -> None:
    for number in range(3):
        async with (
            registry(config, now=clock) as served,
            grpc.aio.insecure_channel(served.address) as channel,
        ):
            assert await Access(channel).used() == number
            await Caller(channel).register(f"w{number}")


async def test_tenants_are_told_apart_by_what_register_carries(ada: Caller, access: Access) -> None:
    """The message cannot say whose it is: the caller's tenant is."""
    await access.set(workspaces=1)
    environment = registry_pb2.Environment(tenant="other")
    await ada(register("one", environment=environment, lease=Duration(seconds=3)))
    assert await access.used() == 1
