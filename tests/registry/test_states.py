"""The table of states, through the socket."""

import itertools

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from cove.registry.v1 import registry_pb2 as pb
from tests.registry.caller import Caller, Clock, refused

State = pb.Environment.State

PENDING = State.STATE_PENDING
READY = State.STATE_READY
SUSPENDED = State.STATE_SUSPENDED
FAILED = State.STATE_FAILED
DELETING = State.STATE_DELETING
DELETED = State.STATE_DELETED

ALLOWED = {
    (PENDING, READY),
    (PENDING, FAILED),
    (PENDING, DELETING),
    (READY, SUSPENDED),
    (READY, FAILED),
    (READY, DELETING),
    (SUSPENDED, READY),
    (SUSPENDED, FAILED),
    (SUSPENDED, DELETING),
    (FAILED, READY),
    (FAILED, DELETING),
    (DELETING, DELETED),
    (DELETING, FAILED),
    (DELETED, READY),
    (DELETED, DELETING),
}

# How a new environment comes to a state.
WAY = {
    PENDING: [],
    READY: [READY],
    SUSPENDED: [READY, SUSPENDED],
    FAILED: [FAILED],
    DELETING: [DELETING],
    DELETED: [DELETING, DELETED],
}


def pairs() -> list[tuple[State.ValueType, State.ValueType]]:
    return list(itertools.product(WAY, WAY))


@pytest.mark.parametrize(
    ("before", "after"), pairs(), ids=lambda state: State.Name(state).removeprefix("STATE_")
)
async def test_every_pair_of_states(
    ada: Caller, before: State.ValueType, after: State.ValueType
) -> None:
    stored = await ada.register("demo")
    for state in WAY[before]:
        stored = await ada.move("demo", state)
    if before == after:
        assert await ada.move("demo", after) == stored
    elif (before, after) in ALLOWED:
        assert (await ada.move("demo", after)).state == after
    else:
        names = {"from": State.Name(before), "to": State.Name(after)}
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "TRANSITION_FORBIDDEN", **names):
            await ada.move("demo", after)
        assert await ada.get("demo") == stored


@pytest.mark.parametrize("state", [0, 99])
async def test_no_state_is_refused(ada: Caller, state: State.ValueType) -> None:
    await ada.register("demo")
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"):
        await ada.move("demo", state)


async def test_a_failure_is_kept_until_it_is_ready(ada: Caller) -> None:
    await ada.register("demo")
    failure = pb.Failure(reason="ERROR_REASON_CREATE_FAILED", message="no")
    assert (await ada.move("demo", FAILED, failure=failure)).failure == failure
    later = pb.Failure(reason="ERROR_REASON_INTERNAL", message="never")
    assert (await ada.move("demo", FAILED, failure=later)).failure == later
    await ada.move("demo", DELETING)
    await ada.move("demo", DELETED)
    assert not (await ada.move("demo", READY)).HasField("failure")


async def test_delete_and_purge_time_come_and_go_with_the_state(ada: Caller, clock: Clock) -> None:
    await ada.register("demo")
    await ada.move("demo", DELETING)
    purge = Timestamp(seconds=clock.now // 10**9 + 86_400)
    deleted = await ada.move("demo", DELETED, purge_time=purge)
    assert deleted.purge_time == purge
    assert deleted.delete_time.ToNanoseconds() == clock.now
    clock.move(10)
    later = Timestamp(seconds=purge.seconds + 1)
    moved = await ada.move("demo", DELETED, purge_time=later)
    assert (moved.purge_time, moved.delete_time) == (later, deleted.delete_time)
    ready = await ada.move("demo", READY)
    assert not ready.HasField("delete_time")
    assert not ready.HasField("purge_time")


async def test_a_transition_can_end_the_operation(ada: Caller) -> None:
    made = await ada.register("demo")
    ready = await ada.move("demo", READY, fencing_token=made.fencing_token, release_operation=True)
    assert ready.operation == pb.Environment.OPERATION_NONE
    assert not ready.operation_holder
    assert not ready.HasField("lease_expire_time")
    assert ready.fencing_token == made.fencing_token
