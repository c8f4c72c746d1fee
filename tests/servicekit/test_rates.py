"""What is refused of too many calls, early and with a reason, and who is served all the same."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cove.gateway.v1 import gateway_pb2
from cove.options.v1.options_pb2 import Role
from servicekit.errors import Unauthenticated
from servicekit.identity import Caller, Identity
from servicekit.policy import policy_of
from servicekit.rates import BURST_SECONDS, Cost, Limiter, Rates
from servicekit.strangers import AuthenticationLimited, Guarded, host_of
from tests.servicekit.failing import failure
from tests.servicekit.kit import SERVICE, Kit, Protos, running

SAY = f"/{SERVICE}/Say"


class Clock:
    """Stands until it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Named:
    """Lets in whoever has a name, and counts how often it was asked."""

    asked = 0

    async def authenticate(self, caller: Caller) -> Identity:
        self.asked += 1
        name = caller.metadata.get("authorization", "")
        if not name:
            raise Unauthenticated("no name")
        return Identity(name, "tenant", Role.ROLE_ADMIN)


def say(kit: Kit, name: str) -> Any:
    return kit.stub.Say(kit.pb.SayRequest(text="a"), metadata=(("authorization", name),))


async def test_who_calls_too_often_is_told_when_to_come_back(
    protos: Protos, tmp_path: Path
) -> None:
    clock = Clock()
    limiter = Limiter(Rates(write=10, read=10, heavy=10), clock)
    async with running(protos, tmp_path, authenticator=Named(), admission=limiter) as kit:
        for _ in range(int(10 * BURST_SECONDS)):
            await say(kit, "ada")
        failed = await failure(say(kit, "ada"))
        assert (failed.code, failed.reason) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "RATE_LIMITED",
        )
        (quota,) = failed.detail(error_details_pb2.QuotaFailure).violations
        assert (quota.subject, quota.quota_value) == ("principal:ada", 10)
        delay = failed.detail(error_details_pb2.RetryInfo).retry_delay.ToTimedelta()
        assert 0 < delay.total_seconds() <= 0.11
        await say(kit, "bob")
        clock.now += delay.total_seconds()
        await say(kit, "ada")
        await failure(say(kit, "ada"))


async def test_calls_that_are_open_are_counted_by_principal_and_in_all(
    protos: Protos, tmp_path: Path
) -> None:
    go_on, begun = asyncio.Event(), asyncio.Semaphore(0)

    async def wait(request: Any) -> str:
        begun.release()
        await go_on.wait()
        return ""

    limiter = Limiter(Rates(open_calls=2, total_calls=3))
    async with running(protos, tmp_path, say=wait, authenticator=Named(), admission=limiter) as kit:
        calls = [say(kit, name) for name in ("ada", "ada", "bob")]
        for _ in calls:
            await begun.acquire()
        over = await failure(say(kit, "bob"))
        assert over.reason == "OVERLOADED"
        over.detail(error_details_pb2.RetryInfo)
        health: Any = health_pb2_grpc.HealthStub(kit.channel)
        answer = await health.Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        calls.pop().cancel()
        while limiter.open == 3:  # noqa: ASYNC110 - until the cancel is there.
            await asyncio.sleep(0)
        over = await failure(say(kit, "ada"))
        assert over.reason == "RATE_LIMITED"
        assert over.detail(error_details_pb2.QuotaFailure).violations[0].quota_metric == (
            "open_calls"
        )
        go_on.set()
        await asyncio.gather(*calls)
        assert limiter.open == 0
        await say(kit, "ada")


async def test_what_a_role_is_too_low_for_is_counted_as_well(
    protos: Protos, tmp_path: Path
) -> None:
    """Such a call, too, may be many, and keep its request back for long."""

    class Readers(Named):
        async def authenticate(self, caller: Caller) -> Identity:
            return replace(await super().authenticate(caller), role=Role.ROLE_READER)

    limiter = Limiter(Rates(open_calls=2))
    running_ = running(protos, tmp_path, authenticator=Readers(), admission=limiter)
    async with running_ as kit, AsyncExitStack() as stack:
        for number in (1, 2):
            call: Any = kit.channel.stream_unary(SAY)(metadata=(("authorization", "ada"),))
            stack.callback(call.cancel)
            while limiter.open < number:  # noqa: ASYNC110 - until it is there.
                await asyncio.sleep(0.01)
        assert (await failure(say(kit, "ada"))).reason == "RATE_LIMITED"
        assert (await failure(say(kit, "bob"))).reason == "PERMISSION_DENIED"


async def test_a_stranger_is_refused_before_anything_of_its_request_has_come(
    protos: Protos, tmp_path: Path
) -> None:
    async def never() -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield b""

    async with running(protos, tmp_path, authenticator=Named()) as kit:
        for path in (SAY, f"/{SERVICE}/Count"):
            call: Any = kit.channel.stream_unary(path)(never(), timeout=20)
            assert (await failure(call)).code is grpc.StatusCode.UNAUTHENTICATED
        empty: Any = kit.channel.stream_unary(SAY)(metadata=(("authorization", "ada"),), timeout=20)
        await empty.done_writing()
        assert (await failure(empty)).reason == "INVALID_FIELD"


@pytest.mark.long
async def test_a_request_that_does_not_come_is_not_waited_for(
    protos: Protos, tmp_path: Path
) -> None:
    async with running(protos, tmp_path, authenticator=Named()) as kit, AsyncExitStack() as stack:
        calls: list[Any] = [
            kit.channel.stream_unary(SAY)(metadata=(("authorization", "ada"),)) for _ in range(20)
        ]
        for call in calls:
            stack.callback(call.cancel)
            assert (await failure(call)).reason == "DEADLINE_EXCEEDED"
        await say(kit, "ada")


async def test_what_is_kept_of_principals_is_bounded() -> None:
    limiter = Limiter(Rates(read=1, write=1, heavy=1))
    enter = limiter(SAY, policy_of("/cove.gateway.v1.WorkspaceService/GetWorkspace"))
    held = enter(Identity("first", "", Role.ROLE_ADMIN))
    held.__enter__()
    for number in range(50_000):
        with enter(Identity(str(number), "", Role.ROLE_ADMIN)):
            pass
    assert limiter.kept <= 20_000
    assert limiter.open == 1
    held.__exit__(None, None, None)
    assert limiter.open == 0


async def test_a_host_that_shows_nothing_valid_is_looked_at_only_so_often() -> None:
    named, clock = Named(), Clock()
    guarded = Guarded(named, 10, clock)

    async def come(name: str, peer: str) -> str:
        try:
            await guarded.authenticate(Caller({"authorization": name}, peer))
        except Exception as error:
            return type(error).__name__
        return "in"

    assert await come("ada", "ipv4:10.0.0.1:1") == "in"
    told = [await come("", f"ipv4:10.0.0.1:{port}") for port in range(200)]
    assert told.count("Unauthenticated") == 100
    assert set(told[100:]) == {"AuthenticationLimited"}
    assert named.asked == 101
    assert await come("bob", "ipv4:10.0.0.1:1") == "AuthenticationLimited"  # Might be anybody.
    assert await come("ada", "ipv4:10.0.0.1:1") == "in"  # Was here before.
    assert await come("bob", "ipv4:10.0.0.2:1") == "in"
    clock.now += 0.2
    assert await come("eve", "ipv4:10.0.0.1:1") == "in"
    for number in range(20_000):
        await come("", f"ipv6:[2001:db8:{number:x}::1]:1")
    assert guarded.kept <= 10_000


async def test_who_goes_on_calling_stays_known_whatever_others_show() -> None:
    """One valid token can be written in very many ways, each of which is let in."""
    guarded = Guarded(Named(), 10, Clock())

    def come(name: str) -> Awaitable[Identity]:
        return guarded.authenticate(Caller({"authorization": name}, "ipv4:10.0.0.1:1"))

    for number in range(10):
        await come("ada")
        for more in range(1050):
            await come(f"eve {number} {more}")
    for _ in range(200):
        with pytest.raises((Unauthenticated, AuthenticationLimited)):
            await come("")
    await come("ada")


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:192.0.2.1:4711", "192.0.2.1"),
        ("ipv6:[2001:db8::7:1]:4711", "2001:db8::/64"),
        ("ipv6:%5B2001:db8::7:1%5D:4711", "2001:db8::/64"),
        ("ipv6:[::ffff:192.0.2.1]:1", "192.0.2.1"),
        ("unix:", "unix"),
        ("ipv6:nonsense", "ipv6"),
    ],
)
def test_hosts_are_told_apart(peer: str, host: str) -> None:
    assert host_of(peer) == host


def test_every_rpc_has_its_cost() -> None:
    costs: dict[str, Cost] = {}
    for service in gateway_pb2.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            path = f"/{service.full_name}/{method.name}"
            costs[method.name] = Cost.of(policy_of(path))
    assert costs["GetWorkspace"] is costs["ReadOutput"] is Cost.READ
    assert costs["UpdateWorkspace"] is costs["StartExecution"] is Cost.WRITE
    assert costs["CreateWorkspace"] is costs["Execute"] is costs["StreamExecution"] is Cost.HEAVY
    assert costs["CreateCommit"] is costs["Attach"] is Cost.HEAVY
