"""How long a token is believed, on a clock that the test moves, before a real registry."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import grpc
import pytest
import pytest_asyncio

from cove.options.v1.options_pb2 import Role
from cove.registry.v1 import access_pb2
from cove.registry.v1.access_pb2_grpc import AccessServiceStub
from gateway.identity import secret
from gateway.identity.bearer import LIMIT, BearerAuthenticator
from servicekit import streams
from servicekit.errors import Unauthenticated, Unavailable
from servicekit.identity import Caller
from servicekit.strangers import AuthenticationLimited, Guarded
from tests.access.conftest import SESSION
from tests.access.stage import Stage

PROMISED = 5.0


class Ways:
    """To the registry: it can be cut, and counts what was asked."""

    def __init__(self, stub: AccessServiceStub) -> None:
        self._stub = stub
        self.cut = False
        self.asked = 0

    async def look_up(
        self, hashes: Sequence[bytes], timeout: float
    ) -> access_pb2.LookUpTokensResponse:
        self.asked += 1
        if self.cut:
            raise Unavailable("away")
        return await self._stub.LookUpTokens(access_pb2.LookUpTokensRequest(hashes=hashes))


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest_asyncio.fixture(loop_scope=SESSION)
async def ways(stage: Stage) -> AsyncIterator[Ways]:
    async with grpc.aio.insecure_channel(stage.registry) as channel:
        yield Ways(AccessServiceStub(channel))


@pytest.fixture
def time() -> Time:
    return Time()


@pytest_asyncio.fixture(loop_scope=SESSION)
async def gate(ways: Ways, time: Time) -> AsyncIterator[BearerAuthenticator]:
    async with BearerAuthenticator.open(ways, time) as gate:
        yield gate


def caller(secret: str, peer: str = "ipv4:192.0.2.1:1") -> Caller:
    return Caller({"authorization": f"Bearer {secret}"}, peer)


def test_the_promise_is_kept_with_room_to_spare() -> None:
    looked_at = streams._YOUNG + streams._EVERY + streams._PATIENCE  # noqa: SLF001
    assert LIMIT + looked_at < PROMISED


async def test_it_ends_at_the_moment_that_it_expires(
    stage: Stage, gate: BearerAuthenticator, time: Time, ways: Ways
) -> None:
    made = await stage.create(Role.ROLE_READER, ttl=2)
    assert (await gate.authenticate(caller(made.secret))).tenant == "acme"
    ways.cut = True
    time.now += 2 - 1e-6
    assert await gate.authenticate(caller(made.secret))
    ways.cut = False
    stage.clock.move(2)
    time.now += 1e-6
    with pytest.raises(Unauthenticated):
        await gate.authenticate(caller(made.secret))


async def test_a_revoked_one_is_believed_no_longer_than_the_limit(
    stage: Stage, gate: BearerAuthenticator, time: Time, ways: Ways
) -> None:
    """Whether the registry is there or not; and while it is away briefly nobody notices."""
    made = await stage.create(Role.ROLE_READER)
    await gate.authenticate(caller(made.secret))
    await stage.revoke(made.token.name)
    ways.cut = True
    time.now += LIMIT - 1e-6
    assert await gate.authenticate(caller(made.secret))
    time.now += 1e-6
    with pytest.raises(Unavailable):
        await gate.authenticate(caller(made.secret))
    ways.cut = False
    with pytest.raises(Unauthenticated):
        await gate.authenticate(caller(made.secret))


async def test_who_revokes_here_is_believed_here_at_once(
    stage: Stage, gate: BearerAuthenticator, ways: Ways
) -> None:
    made = await stage.create(Role.ROLE_READER)
    await gate.authenticate(caller(made.secret))
    await stage.revoke(made.token.name)
    gate.forget("acme", made.token.name)
    with pytest.raises(Unauthenticated):
        await gate.authenticate(caller(made.secret))


async def test_no_guesses_from_there_hide_that_one_was_revoked(
    stage: Stage, gate: BearerAuthenticator, time: Time
) -> None:
    guarded = Guarded(gate, 10, time)
    made = await stage.create(Role.ROLE_READER)
    await guarded.authenticate(caller(made.secret))
    for _ in range(100):
        with pytest.raises(Unauthenticated):
            await guarded.authenticate(caller(secret.new()))
    with pytest.raises(AuthenticationLimited):
        await guarded.authenticate(caller(secret.new()))
    await guarded.authenticate(caller(made.secret))
    await stage.revoke(made.token.name)
    gate.forget("acme", made.token.name)
    with pytest.raises(Unauthenticated):
        await guarded.authenticate(caller(made.secret))


async def test_one_in_use_costs_no_lookup_for_each_call(
    stage: Stage, gate: BearerAuthenticator, time: Time, ways: Ways
) -> None:
    made = await stage.create(Role.ROLE_READER)
    for _ in range(100):
        await gate.authenticate(caller(made.secret))
    assert ways.asked == 1


async def test_many_that_come_at_once_are_asked_for_together(
    gate: BearerAuthenticator, ways: Ways
) -> None:
    guesses = (gate.authenticate(caller(secret.new())) for _ in range(400))
    told = await asyncio.gather(*guesses, return_exceptions=True)
    assert {type(each) for each in told} == {Unauthenticated}
    assert ways.asked == 1


async def test_what_is_not_valid_is_not_asked_for_again_and_again(
    stage: Stage, gate: BearerAuthenticator, time: Time, ways: Ways
) -> None:
    wrong = secret.new()
    for _ in range(50):
        with pytest.raises(Unauthenticated):
            await gate.authenticate(caller(wrong))
    assert ways.asked == 1
