"""What is registered, found, changed and removed."""

import asyncio
import uuid
from datetime import timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from cove.mount.v1 import mount_pb2
from cove.registry.v1 import registry_pb2 as pb
from tests.registry.caller import Caller, Clock, claim, refused, register

ABORTED = grpc.StatusCode.ABORTED
EXISTS = grpc.StatusCode.ALREADY_EXISTS
INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND

State = pb.Environment.State


async def test_a_new_environment_is_pending_and_leased_to_its_maker(
    ada: Caller, clock: Clock
) -> None:
    asked = pb.Environment(
        labels={"team": "red"},
        spec=pb.EnvironmentSpec(repository="file:///r.git"),
        keep_on_failure=True,
        state=State.STATE_READY,
        uid="mine",
    )
    made = await ada.register("demo", environment=asked)
    assert made.name == "environments/demo"
    assert len(made.uid) == 16
    assert set(made.uid) <= set("abcdefghijklmnopqrstuvwxyz234567")
    assert (made.tenant, made.creator) == ("acme", "ada")
    assert (made.state, made.operation) == (State.STATE_PENDING, pb.Environment.OPERATION_CREATING)
    assert made.operation_holder == "a"
    assert made.lease_expire_time.ToNanoseconds() == clock.now + 30 * 10**9
    assert made.create_time.ToNanoseconds() == made.update_time.ToNanoseconds() == clock.now
    assert made.fencing_token > 0
    assert made.etag
    assert (made.labels, made.spec) == (asked.labels, asked.spec)
    assert made.keep_on_failure
    assert await ada.get("demo") == made


async def test_without_an_id_the_registry_makes_one(ada: Caller) -> None:
    first, second = await ada.register(""), await ada.register("")
    assert first.name != second.name
    assert await ada.get(first.name.removeprefix("environments/")) == first


async def test_a_taken_id_is_refused(ada: Caller) -> None:
    await ada.register("demo")
    with refused(EXISTS, "ENVIRONMENT_EXISTS", name="environments/demo"):
        await ada.register("demo")


async def test_an_id_freed_by_deregister_gets_a_new_uid(ada: Caller) -> None:
    first = await ada.register("demo")
    assert await ada.deregister("demo")
    second = await ada.register("demo")
    assert second.uid != first.uid
    assert second.fencing_token > first.fencing_token
    with refused(NOT_FOUND, "ENVIRONMENT_NOT_FOUND"):
        await ada.deregister("demo", uid=first.uid)
    with refused(ABORTED, "LEASE_LOST"):
        await ada.renew("demo", first.fencing_token)


@pytest.mark.parametrize("environment_id", ["Demo", "-demo", "demo-", "a/b", "a" * 64])
async def test_a_bad_id_is_refused(ada: Caller, environment_id: str) -> None:
    with refused(INVALID, "INVALID_FIELD"):
        await ada.register(environment_id)


@pytest.mark.parametrize("lease", [timedelta(0), timedelta(hours=2)])
async def test_a_lease_has_bounds(ada: Caller, lease: timedelta) -> None:
    length = Duration()
    length.FromTimedelta(lease)
    with refused(INVALID, "INVALID_FIELD"):
        await ada.register("demo", lease=length)


@pytest.mark.parametrize(
    "request_",
    [
        pb.GetEnvironmentRequest(name="environments/demo"),
        pb.DeregisterEnvironmentRequest(name="environments/demo"),
        pb.UpdateEnvironmentRequest(
            environment=pb.Environment(name="environments/demo"),
            update_mask={"paths": ["labels"]},  # type: ignore[arg-type]
        ),
        pb.UpdateEnvironmentStatusRequest(name="environments/demo", state=State.STATE_READY),
        claim("demo"),
        pb.RenewOperationRequest(
            name="environments/demo", fencing_token=1, lease=Duration(seconds=1)
        ),
        pb.ReleaseOperationRequest(name="environments/demo", fencing_token=1),
    ],
    ids=lambda request: request.DESCRIPTOR.name,
)
async def test_what_another_tenant_has_is_not_there(
    channel: grpc.aio.Channel, ada: Caller, request_: object
) -> None:
    with refused(NOT_FOUND, "ENVIRONMENT_NOT_FOUND", name="environments/demo"):
        await ada(request_)
    made = await Caller(channel, tenant="other").register("demo")
    with refused(NOT_FOUND, "ENVIRONMENT_NOT_FOUND", name="environments/demo"):
        await ada(request_)
    assert await Caller(channel, tenant="other").get("demo") == made


async def test_exists_tells_of_any_state_of_the_own_tenant(
    channel: grpc.aio.Channel, ada: Caller
) -> None:
    request = pb.EnvironmentExistsRequest(name="environments/demo")
    assert not (await ada(request)).exists
    await ada.register("demo")
    await ada.move("demo", State.STATE_FAILED)
    assert (await ada(request)).exists
    assert not (await Caller(channel, tenant="other")(request)).exists


async def test_an_update_writes_what_its_mask_names(ada: Caller) -> None:
    made = await ada.register("demo", environment=pb.Environment(labels={"a": "1", "b": "2"}))
    new = pb.Environment(
        name=made.name,
        labels={"c": "3"},
        handle=b"h",
        handle_generation=2,
        driver="local",
        node="n",
        mount=mount_pb2.Mount(worktree="w"),
        worktree=pb.EnvironmentWorktree(branch="cove/demo"),
        warnings=["careful"],
        head_commit="0" * 40,
    )
    paths = ("labels", "handle", "handle_generation", "mount", "worktree", "warnings")
    written = await ada.update(new, *paths, "annotations")
    assert dict(written.labels) == {"c": "3"}
    assert (written.handle, written.handle_generation) == (b"h", 2)
    assert (written.mount, written.worktree) == (new.mount, new.worktree)
    assert list(written.warnings) == ["careful"]
    assert not written.driver
    assert not written.head_commit
    assert written.revision > made.revision
    assert written.etag != made.etag


async def test_who_has_a_copy_is_written_and_selected_by(ada: Caller) -> None:
    await ada.register("other")
    made = await ada.register("demo")
    copied = pb.Environment(name=made.name, copy_node="east", copy_commit="0" * 40)
    written = await ada.update(copied, "copy_node", "copy_commit")
    assert (written.copy_node, written.copy_commit) == ("east", "0" * 40)
    chosen = f'copy_node = "east" AND copy_commit = "{"0" * 40}"'
    found = await ada(pb.ListEnvironmentsRequest(filter=chosen))
    assert [each.name for each in found.environments] == [made.name]
    cleared = await ada.update(pb.Environment(name=made.name), "worktree", "labels")
    assert not cleared.HasField("worktree")
    assert not cleared.labels


async def test_an_update_that_changes_nothing_is_no_write(ada: Caller) -> None:
    made = await ada.register("demo", environment=pb.Environment(labels={"a": "1"}))
    assert await ada.update(made, "labels") == made


@pytest.mark.parametrize("path", ["*", "state", "spec", "name", "operation", "labels.a", "none"])
async def test_other_fields_cannot_be_updated(ada: Caller, path: str) -> None:
    made = await ada.register("demo")
    with refused(INVALID, "FIELD_IMMUTABLE", field=path):
        await ada.update(made, "labels", path)
    assert await ada.get("demo") == made


async def test_an_update_without_a_mask_is_refused(ada: Caller) -> None:
    made = await ada.register("demo")
    with refused(INVALID, "INVALID_FIELD"):
        await ada.update(made)


async def test_the_handle_generation_never_falls(ada: Caller) -> None:
    made = await ada.register("demo")
    await ada.update(pb.Environment(name=made.name, handle_generation=2), "handle_generation")
    with refused(INVALID, "INVALID_FIELD"):
        await ada.update(pb.Environment(name=made.name, handle_generation=1), "handle_generation")


async def test_each_conditional_write_loses_with_an_old_etag(ada: Caller) -> None:
    old = await ada.register("demo")
    new = await ada.update(pb.Environment(name=old.name, node="n"), "node")
    with refused(ABORTED, "ETAG_MISMATCH", name=old.name):
        await ada.update(pb.Environment(name=old.name, etag=old.etag, node="m"), "node")
    with refused(ABORTED, "ETAG_MISMATCH", name=old.name):
        await ada.move("demo", State.STATE_READY, etag=old.etag)
    with refused(ABORTED, "ETAG_MISMATCH", name=old.name):
        await ada.claim("demo", etag=old.etag)
    with refused(ABORTED, "ETAG_MISMATCH", name=old.name):
        await ada.deregister("demo", etag=old.etag)
    assert await ada.get("demo") == new
    assert await ada.deregister("demo", etag=new.etag)


async def test_an_environment_has_a_largest_size(ada: Caller) -> None:
    big = pb.Environment(annotations={"x": "y" * (1 << 20)})
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE", limit=str(1 << 20)):
        await ada.register("demo", environment=big)


async def test_deregister_of_nothing_is_an_error_unless_allowed(ada: Caller) -> None:
    with refused(NOT_FOUND, "ENVIRONMENT_NOT_FOUND"):
        await ada.deregister("demo")
    assert not await ada.deregister("demo", allow_missing=True)


async def test_a_request_that_comes_again_changes_nothing(ada: Caller) -> None:
    id_ = str(uuid.uuid4())
    first = await ada.register("", request_id=id_)
    assert await ada.register("", request_id=id_, holder="another") == first
    name = first.name.removeprefix("environments/")
    await ada.move(name, State.STATE_READY, release_operation=True)
    claimed = await ada.claim(name, request_id=id_)
    assert await ada.claim(name, request_id=id_) == claimed
    assert await ada.deregister(name, request_id=id_)
    assert await ada.deregister(name, request_id=id_)
    assert await ada.register("", request_id=id_) == first


async def test_a_request_id_is_good_for_one_content(ada: Caller) -> None:
    id_ = str(uuid.uuid4())
    await ada.register("demo", request_id=id_)
    with refused(EXISTS, "REQUEST_ID_REUSED", request_id=id_):
        await ada.register("other", request_id=id_)
    claimed = await ada.claim("demo", holder="a", request_id=id_)
    assert await ada.claim("demo", holder="b", request_id=id_) == claimed
    with refused(EXISTS, "REQUEST_ID_REUSED", request_id=id_):
        await ada.claim("demo", request_id=id_, operation=pb.Environment.OPERATION_FORKING)


async def test_a_request_id_is_the_callers_own(channel: grpc.aio.Channel, ada: Caller) -> None:
    id_ = str(uuid.uuid4())
    await ada.register("one", request_id=id_)
    bob = Caller(channel, who="bob")
    assert (await bob.register("two", request_id=id_)).name == "environments/two"


async def test_a_failure_is_not_remembered(ada: Caller) -> None:
    id_ = str(uuid.uuid4())
    await ada.register("demo")
    with refused(EXISTS, "ENVIRONMENT_EXISTS"):
        await ada.register("demo", request_id=id_)
    await ada.deregister("demo")
    assert await ada.register("demo", request_id=id_)


async def test_a_request_id_is_forgotten_after_a_day(ada: Caller, clock: Clock) -> None:
    id_ = str(uuid.uuid4())
    await ada.register("demo", request_id=id_)
    clock.move(24 * 3600 + 1)
    assert (await ada.register("other", request_id=id_)).name == "environments/other"


async def test_one_of_many_with_the_same_id_wins(ada: Caller) -> None:
    calls = [ada(register("demo")) for _ in range(50)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(answer, pb.RegisterEnvironmentResponse) for answer in answers) == 1


async def names(caller: Caller, tenant: str = "", **fields: object) -> list[str]:
    """All pages, by name."""
    found: list[str] = []
    token = ""
    while True:
        request = pb.ListEnvironmentsRequest(tenant=tenant, page_token=token, **fields)  # type: ignore[arg-type]
        page = await caller(request)
        found += [each.name.removeprefix("environments/") for each in page.environments]
        token = page.next_page_token
        if not token:
            return found


async def test_a_list_is_in_the_order_of_names(ada: Caller) -> None:
    for id_ in ("c", "a", "e", "b", "d"):
        await ada.register(id_)
    await ada.move("b", State.STATE_READY)
    for size in (0, 1, 2, 5, 6):
        assert await names(ada, page_size=size) == ["a", "b", "c", "d", "e"]
    assert await names(ada, states=[State.STATE_READY]) == ["b"]
    assert await names(ada, states=[State.STATE_PENDING], page_size=3) == ["a", "c", "d", "e"]


async def test_pages_are_stable_while_others_write(ada: Caller) -> None:
    for id_ in ("b", "d", "f", "h"):
        await ada.register(id_)
    first = await ada(pb.ListEnvironmentsRequest(page_size=2))
    for id_ in ("a", "e"):
        await ada.register(id_)
    await ada.deregister("b")
    request = pb.ListEnvironmentsRequest(page_size=9, page_token=first.next_page_token)
    rest = await ada(request)
    found = [each.name[-1] for each in (*first.environments, *rest.environments)]
    assert found == ["b", "d", "e", "f", "h"]


async def test_a_service_lists_all_tenants(channel: grpc.aio.Channel, ada: Caller) -> None:
    other = Caller(channel, tenant="other")
    for id_ in ("a", "b"):
        await ada.register(id_)
        await other.register(id_)
    assert await names(ada) == ["a", "b"]
    assert await names(ada, "-", page_size=1) == ["a", "a", "b", "b"]


async def test_a_page_that_is_too_large_is_cut(ada: Caller) -> None:
    await ada.register("demo")
    assert (await ada(pb.ListEnvironmentsRequest(page_size=5000))).page_size == 1000
    big = pb.Environment(annotations={"x": "y" * 900_000})
    for id_ in ("big-1", "big-2", "big-3", "big-4"):
        await ada.register(id_, environment=big)
    page = await ada(pb.ListEnvironmentsRequest(page_size=1000))
    assert len(page.environments) == 2
    assert await names(ada) == ["big-1", "big-2", "big-3", "big-4", "demo"]


async def test_a_page_token_is_good_for_its_list_only(
    channel: grpc.aio.Channel, ada: Caller
) -> None:
    for id_ in ("a", "b"):
        await ada.register(id_)
    token = (await ada(pb.ListEnvironmentsRequest(page_size=1))).next_page_token
    with refused(INVALID, "PAGE_TOKEN_INVALID"):
        await ada(pb.ListEnvironmentsRequest(page_token=f"{token}x"))
    with refused(INVALID, "PAGE_TOKEN_INVALID"):
        await ada(pb.ListEnvironmentsRequest(page_token=token, tenant="-"))
    with refused(INVALID, "PAGE_TOKEN_INVALID"):
        await Caller(channel, tenant="other")(pb.ListEnvironmentsRequest(page_token=token))
