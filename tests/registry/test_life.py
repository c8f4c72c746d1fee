"""When environments expire, when they were last used, and why they end."""

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from cove.registry.v1 import registry_pb2 as pb
from tests.registry.caller import Caller, Clock, refused

State = pb.Environment.State
NAME = "environments/demo"
HOUR = 3600
DAY = 86400


async def test_it_expires_its_ttl_after_its_creation(ada: Caller, clock: Clock) -> None:
    made = await _register(ada, ttl=HOUR)
    assert made.expire_time.ToNanoseconds() == clock.now + HOUR * 10**9
    clock.move(HOUR / 2)
    longer = await _ttl(ada, 2 * HOUR)
    assert longer.expire_time.seconds == made.create_time.seconds + 2 * HOUR
    assert longer.spec.ttl.seconds == 2 * HOUR
    assert not (await _ttl(ada, None)).HasField("expire_time")
    for over in (1, HOUR // 2):
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"):
            await _ttl(ada, over)
    assert not (await _register(ada, "other")).HasField("expire_time")


async def test_one_that_is_being_deleted_cannot_be_prolonged(ada: Caller, clock: Clock) -> None:
    made = await _register(ada, ttl=HOUR)
    await ada.move("demo", State.STATE_READY, fencing_token=made.fencing_token)
    clock.move(HOUR)
    await _claim(ada, pb.Environment.OPERATION_DELETING, pb.Environment.CAUSE_EXPIRED)
    with refused(grpc.StatusCode.ABORTED, "OPERATION_IN_PROGRESS"):
        await _ttl(ada, DAY)
    for state in (State.STATE_DELETING, State.STATE_DELETED):
        await ada.move("demo", state, release_operation=True)
        with refused(grpc.StatusCode.ABORTED, "OPERATION_IN_PROGRESS"):
            await _ttl(ada, DAY)


async def test_one_that_is_undeleted_lives_as_long_again(ada: Caller, clock: Clock) -> None:
    await _register(ada, ttl=HOUR)
    for state in (State.STATE_DELETING, State.STATE_DELETED):
        await ada.move("demo", state)
    clock.move(DAY)
    back = await ada.move("demo", State.STATE_READY)
    assert back.expire_time.ToNanoseconds() == clock.now + HOUR * 10**9


async def test_what_a_clock_that_was_ahead_dated_counts_from_now_when_it_is_written_anew(
    ada: Caller, clock: Clock
) -> None:
    clock.move(3650 * DAY)
    await _register(ada, ttl=HOUR)
    await _register(ada, "other")
    for state in (State.STATE_DELETING, State.STATE_DELETED):
        await ada.move("other", state)
    clock.move(-3650 * DAY)
    assert (await _ttl(ada, HOUR)).expire_time.ToNanoseconds() == clock.now + HOUR * 10**9
    purge = Timestamp(seconds=clock.now // 10**9 + DAY)
    deleted = await ada.move("other", State.STATE_DELETED, purge_time=purge)
    assert deleted.delete_time.ToNanoseconds() == clock.now
    assert deleted.purge_time == purge
    clock.move(HOUR)
    again = await ada.move("other", State.STATE_DELETED, purge_time=purge)
    assert again == deleted


async def test_when_it_was_last_used_grows_and_is_not_in_the_future(
    ada: Caller, clock: Clock
) -> None:
    await _register(ada)
    ready = await ada.move("demo", State.STATE_READY)
    began = ready.last_active_time.ToNanoseconds()
    assert began == clock.now
    clock.move(HOUR)
    assert (await _seen(ada, began + 60 * 10**9)) == began + 60 * 10**9
    assert (await _seen(ada, began)) == began + 60 * 10**9
    assert (await _seen(ada, clock.now + DAY * 10**9)) == clock.now
    clock.move(-DAY)
    assert (await _seen(ada, clock.now - 1)) == clock.now


@pytest.mark.parametrize("cause", [pb.Environment.CAUSE_REQUESTED, pb.Environment.CAUSE_IDLE])
async def test_why_it_is_suspended_is_kept_until_it_is_not(
    ada: Caller, clock: Clock, cause: pb.Environment.Cause.ValueType
) -> None:
    made = await _register(ada)
    ready = await ada.move(
        "demo", State.STATE_READY, fencing_token=made.fencing_token, release_operation=True
    )
    assert not ready.cause
    claimed = await _claim(ada, pb.Environment.OPERATION_SUSPENDING, cause)
    assert claimed.cause == cause
    assert not (await ada.release("demo", claimed.fencing_token)).cause
    claimed = await _claim(ada, pb.Environment.OPERATION_SUSPENDING, cause)
    clock.move(60)
    suspended = await ada.move("demo", State.STATE_SUSPENDED, release_operation=True)
    assert suspended.cause == cause
    assert suspended.suspend_time.ToNanoseconds() == clock.now
    resuming = await ada.claim("demo")
    assert resuming.cause == cause
    back = await ada.move("demo", State.STATE_READY, release_operation=True)
    assert not back.cause
    assert not back.HasField("suspend_time")


async def _register(ada: Caller, id_: str = "demo", ttl: int = 0) -> pb.Environment:
    spec = pb.EnvironmentSpec(ttl=Duration(seconds=ttl) if ttl else None)
    request = pb.RegisterEnvironmentRequest(
        environment_id=id_,
        environment=pb.Environment(spec=spec),
        holder="holder",
        lease=Duration(seconds=30),
    )
    made: pb.RegisterEnvironmentResponse = await ada(request)
    return made.environment


async def _ttl(ada: Caller, seconds: int | None) -> pb.Environment:
    spec = pb.EnvironmentSpec(ttl=Duration(seconds=seconds) if seconds else None)
    request = pb.UpdateEnvironmentRequest(
        environment=pb.Environment(name=NAME, spec=spec), update_mask=FieldMask(paths=["spec.ttl"])
    )
    updated: pb.UpdateEnvironmentResponse = await ada(request)
    return updated.environment


async def _seen(ada: Caller, at: int) -> int:
    seen = pb.Environment(name=NAME)
    seen.last_active_time.FromNanoseconds(at)
    request = pb.UpdateEnvironmentRequest(
        environment=seen, update_mask=FieldMask(paths=["last_active_time"])
    )
    updated: pb.UpdateEnvironmentResponse = await ada(request)
    return updated.environment.last_active_time.ToNanoseconds()


async def _claim(
    ada: Caller,
    operation: pb.Environment.Operation.ValueType,
    cause: pb.Environment.Cause.ValueType,
) -> pb.Environment:
    request = pb.ClaimOperationRequest(
        name=NAME, operation=operation, holder="holder", lease=Duration(seconds=30), cause=cause
    )
    claimed: pb.ClaimOperationResponse = await ada(request)
    return claimed.environment
