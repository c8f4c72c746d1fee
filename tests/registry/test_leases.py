"""Who may work on an environment, and who may no more."""

import asyncio
from functools import partial

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from cove.registry.v1 import registry_pb2 as pb
from services.registry.errors import OperationInProgress
from services.registry.rules import Rules
from services.registry.store import Key
from tests.registry.caller import Caller, Clock, claim, refused, register
from tests.registry.stores import open_store

ABORTED = grpc.StatusCode.ABORTED
READY = pb.Environment.STATE_READY


async def test_a_running_lease_keeps_others_out(ada: Caller, clock: Clock) -> None:
    await ada.register("demo", holder="a")
    clock.move(29)
    with refused(ABORTED, "OPERATION_IN_PROGRESS", operation="OPERATION_CREATING", holder="a"):
        await ada.claim("demo", "b")


async def test_a_lease_that_ran_out_is_taken_over_and_its_holder_fenced_off(
    ada: Caller, clock: Clock
) -> None:
    old = await ada.register("demo", holder="a")
    clock.move(30)
    new = await ada.claim("demo", "b")
    assert new.fencing_token > old.fencing_token
    assert new.operation_holder == "b"
    token = old.fencing_token
    with refused(ABORTED, "LEASE_LOST", name=old.name):
        await ada.renew("demo", token)
    with refused(ABORTED, "LEASE_LOST", name=old.name):
        await ada.release("demo", token)
    with refused(ABORTED, "LEASE_LOST", name=old.name):
        await ada.move("demo", READY, fencing_token=token)
    with refused(ABORTED, "LEASE_LOST", name=old.name):
        await ada.update(pb.Environment(name=old.name, node="n"), "node", fencing_token=token)
    with refused(ABORTED, "LEASE_LOST", name=old.name):
        await ada.deregister("demo", fencing_token=token)
    assert await ada.get("demo") == new


async def test_a_lease_that_ran_out_is_still_its_holders_until_taken(
    ada: Caller, clock: Clock
) -> None:
    made = await ada.register("demo")
    clock.move(1000)
    assert (await ada.move("demo", READY, fencing_token=made.fencing_token)).state == READY
    renewed = await ada.renew("demo", made.fencing_token, seconds=10)
    assert renewed.lease_expire_time.ToNanoseconds() == clock.now + 10 * 10**9
    with refused(ABORTED, "OPERATION_IN_PROGRESS"):
        await ada.claim("demo")


async def test_a_holder_may_claim_again_with_a_new_token(ada: Caller) -> None:
    old = await ada.register("demo", holder="a")
    new = await ada.claim("demo", "a")
    assert new.fencing_token > old.fencing_token


async def test_release_is_safe_to_repeat_and_ends_the_lease(ada: Caller) -> None:
    made = await ada.register("demo")
    await ada.update(pb.Environment(name=made.name, progress=pb.Progress(phase="x")), "progress")
    released = await ada.release("demo", made.fencing_token)
    assert released.operation == pb.Environment.OPERATION_NONE
    assert not released.HasField("progress")
    assert await ada.release("demo", made.fencing_token) == released
    with refused(ABORTED, "LEASE_LOST"):
        await ada.renew("demo", made.fencing_token)
    claimed = await ada.claim("demo")
    with refused(ABORTED, "LEASE_LOST"):
        await ada.release("demo", made.fencing_token)
    assert await ada.get("demo") == claimed


async def test_one_of_many_claims_wins(ada: Caller) -> None:
    made = await ada.register("demo")
    await ada.release("demo", made.fencing_token)
    calls = [ada(claim("demo", f"holder-{number}")) for number in range(900)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    won = [answer for answer in answers if isinstance(answer, pb.ClaimOperationResponse)]
    lost = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert len(won) == 1
    assert {error.code() for error in lost} == {ABORTED}
    assert len(lost) == 899
    assert await ada.get("demo") == won[0].environment


async def test_one_of_thousands_of_claims_wins_in_the_store(database: str, clock: Clock) -> None:
    # gRPC itself turns calls away when more than 1,000 wait, so these go in below it.
    rules = Rules(clock)
    key = Key("acme", "environments/demo")
    async with open_store(database, now=clock) as store:
        await store.write(key, partial(rules.register, register("demo"), key, "ada"))
        clock.move(31)
        claims = (claim("demo", f"holder-{number}") for number in range(3000))
        answers = await asyncio.gather(
            *(store.write(key, partial(rules.claim, each)) for each in claims),
            return_exceptions=True,
        )
    assert sum(isinstance(answer, bytes) for answer in answers) == 1
    assert sum(isinstance(answer, OperationInProgress) for answer in answers) == 2999


@pytest.mark.parametrize("back", [6, 3600, 10**8])
async def test_a_clock_set_back_does_not_make_a_lease_last(
    ada: Caller, clock: Clock, back: int
) -> None:
    await ada.register("demo", holder="a")
    clock.move(-back)
    new = await ada.claim("demo", "b")
    assert new.lease_expire_time.ToNanoseconds() == clock.now + 30 * 10**9
    clock.move(29)
    with refused(ABORTED, "OPERATION_IN_PROGRESS", holder="b"):
        await ada.claim("demo", "c")
    clock.move(1)
    await ada.claim("demo", "c")


async def test_a_small_step_back_takes_no_lease_away(ada: Caller, clock: Clock) -> None:
    await ada.register("demo", holder="a")
    clock.move(-1)
    with refused(ABORTED, "OPERATION_IN_PROGRESS", holder="a"):
        await ada.claim("demo", "b")


async def test_other_writes_do_not_lengthen_a_lease(ada: Caller, clock: Clock) -> None:
    made = await ada.register("demo", holder="a")
    clock.move(-3600)
    await ada.update(pb.Environment(name=made.name, node="n"), "node")
    await ada.claim("demo", "b")


@pytest.mark.parametrize("operation", [0, 1, 99])
async def test_an_operation_has_to_be_one(ada: Caller, operation: int) -> None:
    await ada.register("demo")
    request = claim("demo", "a")
    request.operation = operation  # type: ignore[assignment]
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"):
        await ada(request)


async def test_a_token_of_nothing_is_refused(ada: Caller) -> None:
    await ada.register("demo")
    request = pb.RenewOperationRequest(name="environments/demo", lease=Duration(seconds=1))
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"):
        await ada(request)
