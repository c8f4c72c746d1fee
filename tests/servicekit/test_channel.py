"""Calls to a service behind this one."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.options.v1.options_pb2 import Role
from servicekit import calls, status
from servicekit.channel import Peer, connected
from servicekit.errors import NotFound, ServiceError, Unavailable
from servicekit.identity import Identity
from tests.servicekit.failing import Failure, failure
from tests.servicekit.kit import Kit, Protos, running
from tests.servicekit.names import names
from tests.support.far import far

ADA = Identity("ada", "acme", Role.ROLE_SERVICE)
AWAY = 1.5
"""Seconds: more than the pause between two attempts to connect, with which they are not to be
confused."""


class NotHere(NotFound):
    reason = ErrorReason.ERROR_REASON_FILE_NOT_FOUND


@asynccontextmanager
async def pair(
    protos: Protos,
    folder: Path,
    forward: Callable[[Peer, Any, Any], Awaitable[str]],
    **back: Any,
) -> AsyncIterator[tuple[Kit, Kit]]:
    """A front server whose `Say` forwards to a back one."""
    async with (
        running(protos, folder / "b", **back) as behind,
        connected(behind.served.address, service="back") as peer,
    ):
        stub = protos.grpc.KitServiceStub(peer.channel)

        async def say(request: Any) -> str:
            return await forward(peer, stub, request)

        async with running(protos, folder / "f", say=say) as front:
            yield front, behind


async def one(peer: Peer, stub: Any, request: Any) -> str:
    return str((await peer.unary(stub.Say, request)).text)


async def test_who_calls_and_why_is_passed_on(protos: Protos, tmp_path: Path) -> None:
    seen: list[calls.Call] = []

    async def say(request: Any) -> str:
        seen.append(calls.current())
        return "x"

    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with pair(protos, tmp_path, one, say=say) as (front, _):
        sent = {"cove-principal": "ada", "cove-tenant": "acme", "x-request-id": "id-1"}
        metadata = (*sent.items(), ("traceparent", trace))
        await front.stub.Say(front.pb.SayRequest(), metadata=metadata, timeout=20)
    assert seen[0].identity == ADA
    assert (seen[0].correlation_id, seen[0].traceparent) == ("id-1", trace)
    remaining = seen[0].deadline
    assert remaining is not None
    assert seen[0].remaining() is not None
    assert (seen[0].remaining() or 0) < 20.5


async def test_the_service_token_is_sent(protos: Protos, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("right")
    token.chmod(0o600)
    async with running(protos, tmp_path, address=("127.0.0.1:0",), service_token_file=token) as kit:
        for shown, works in (("right", True), ("wrong", False)):
            async with connected(kit.served.address, service="kit", token=shown) as peer:
                made = peer.unary(protos.grpc.KitServiceStub(peer.channel).Say, kit.pb.SayRequest())
                if works:
                    await made
                else:
                    assert (await failure(made)).code is grpc.StatusCode.UNAUTHENTICATED


async def test_a_service_that_moves_is_found_again_at_once(protos: Protos, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("right")
    token.chmod(0o600)

    def at(address: str) -> AbstractAsyncContextManager[Kit]:
        return running(protos, tmp_path, address=(address,), service_token_file=token)

    async def say(peer: Peer) -> None:
        await peer.unary(protos.grpc.KitServiceStub(peer.channel).Say, protos.pb.SayRequest())

    async with names("127.0.0.1") as server, AsyncExitStack() as first:
        kit = await first.enter_async_context(at("127.0.0.1:0"))
        port = kit.served.address.rpartition(":")[2]
        target = f"dns://{server.address}/kit.example:{port}"
        async with connected(target, service="kit", token="right") as peer:
            await say(peer)
            await first.aclose()
            server.told = "127.0.0.2"
            async with at(f"127.0.0.2:{port}"), asyncio.timeout(15):
                while True:
                    with suppress(ServiceError):
                        await say(peer)
                        break


async def test_what_a_service_behind_says_is_relayed_whole(protos: Protos, tmp_path: Path) -> None:
    async def say(request: Any) -> str:
        raise NotHere("no such file", path="a")

    async with pair(protos, tmp_path, one, say=say) as (front, behind):
        through = await failure(front.stub.Say(front.pb.SayRequest()))
        direct = await failure(behind.stub.Say(front.pb.SayRequest()))
    assert through.reason == "FILE_NOT_FOUND"
    assert through.status == direct.status
    assert (through.code, through.text) == (direct.code, direct.text)


async def test_a_reason_can_be_acted_on(protos: Protos, tmp_path: Path) -> None:
    async def say(request: Any) -> str:
        raise NotHere("no such file", path="a")

    async def forward(peer: Peer, stub: Any, request: Any) -> str:
        try:
            return await one(peer, stub, request)
        except grpc.aio.AioRpcError as error:
            if status.reason(error) == ErrorReason.ERROR_REASON_FILE_NOT_FOUND:
                return "made it"
            raise

    async with pair(protos, tmp_path, forward, say=say) as (front, _):
        assert (await front.stub.Say(front.pb.SayRequest())).text == "made it"


async def test_a_service_that_is_away_is_unavailable(protos: Protos, tmp_path: Path) -> None:
    async with connected(f"unix:{tmp_path}/none", service="git") as peer:
        stub = protos.grpc.KitServiceStub(peer.channel)

        async def stream() -> None:
            async with peer.stream(stub.Count, protos.pb.SayRequest()) as responses:
                await anext(responses)

        unary = peer.unary(stub.Say, protos.pb.SayRequest())
        for failed in await asyncio.gather(unary, stream(), return_exceptions=True):
            assert isinstance(failed, Unavailable)
            assert failed.metadata == {"service": "git"}
            assert status.reason(failed) == ErrorReason.ERROR_REASON_SERVICE_UNAVAILABLE


async def test_a_service_that_comes_back_is_reached_by_the_same_call(
    protos: Protos, tmp_path: Path
) -> None:
    async with connected(f"unix:{tmp_path}/r/kit", service="kit") as peer:
        stub = protos.grpc.KitServiceStub(peer.channel)
        calling = asyncio.create_task(peer.unary(stub.Say, protos.pb.SayRequest(text="a")))
        await asyncio.wait([calling], timeout=0.3)
        assert not calling.done()
        async with running(protos, tmp_path):
            assert (await calling).text == "a"


async def test_a_connection_that_takes_long_is_made(protos: Protos, tmp_path: Path) -> None:
    """To a node far away, or one that is slow to shake hands."""
    async with (
        running(protos, tmp_path) as kit,
        far(kit.served.address.removeprefix("unix:"), AWAY) as address,
        connected(address, service="kit") as peer,
        asyncio.timeout(20),
    ):
        stub = protos.grpc.KitServiceStub(peer.channel)
        while True:
            with suppress(ServiceError):
                await peer.unary(stub.Say, protos.pb.SayRequest())
                break


async def test_what_a_handler_answered_is_not_tried_again_by_the_channel(
    protos: Protos, tmp_path: Path
) -> None:
    times = 0

    async def say(request: Any) -> str:
        nonlocal times
        times += 1
        raise Unavailable("the remote is away")

    async with pair(protos, tmp_path, one, say=say) as (front, _):
        assert (await failure(front.stub.Say(front.pb.SayRequest()))).text == "the remote is away"
    assert times == 1


@pytest.mark.parametrize(
    ("code", "text", "expected", "reason"),
    [
        (grpc.StatusCode.UNKNOWN, "boom /root/x", grpc.StatusCode.INTERNAL, "INTERNAL"),
        (grpc.StatusCode.UNIMPLEMENTED, "no such", grpc.StatusCode.INTERNAL, "INTERNAL"),
        (grpc.StatusCode.INTERNAL, "boom", grpc.StatusCode.INTERNAL, "INTERNAL"),
        (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "SERVER: Received message larger than max (9 vs. 4)",
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "MESSAGE_TOO_LARGE",
        ),
        (grpc.StatusCode.CANCELLED, "", grpc.StatusCode.UNAVAILABLE, "SERVICE_UNAVAILABLE"),
    ],
)
async def test_a_failure_without_a_reason_gets_one(
    protos: Protos,
    tmp_path: Path,
    code: grpc.StatusCode,
    text: str,
    expected: grpc.StatusCode,
    reason: str,
) -> None:
    async with (
        raw_failing(tmp_path, code, text) as address,
        connected(address, service="raw") as peer,
    ):
        method: Any = peer.channel.unary_unary("/raw.Raw/Fail")

        async def say(request: Any) -> str:
            return str(await peer.unary(method, b""))

        async with running(protos, tmp_path, say=say) as front:
            failed = await failure(front.stub.Say(front.pb.SayRequest()))
    assert (failed.code, failed.reason) == (expected, reason)
    assert "/root" not in str(failed.status)


@asynccontextmanager
async def raw_failing(folder: Path, code: grpc.StatusCode, text: str) -> AsyncIterator[str]:
    """A server that knows nothing of Cove, whose only method fails."""

    async def fail(request: bytes, context: status.Context) -> bytes:
        await context.abort(code, text)

    server = grpc.aio.server()
    handlers: Any = {"Fail": grpc.unary_unary_rpc_method_handler(fail)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("raw.Raw", handlers),))
    server.add_insecure_port(f"unix:{folder}/raw")
    await server.start()
    try:
        yield f"unix:{folder}/raw"
    finally:
        await server.stop(0)


async def test_a_deadline_that_passes_behind_has_a_reason(protos: Protos, tmp_path: Path) -> None:
    async def say(request: Any) -> str:
        await asyncio.Event().wait()
        return ""

    async def forward(peer: Peer, stub: Any, request: Any) -> str:
        return str((await peer.unary(stub.Say, request, timeout=0.1)).text)

    async with pair(protos, tmp_path, forward, say=say) as (front, _):
        failed = await failure(front.stub.Say(front.pb.SayRequest()))
    assert (failed.code, failed.reason) == (
        grpc.StatusCode.DEADLINE_EXCEEDED,
        "DEADLINE_EXCEEDED",
    )


async def test_the_other_shapes(protos: Protos, tmp_path: Path) -> None:
    async def requests() -> AsyncIterator[Any]:
        for text in "ab":
            yield protos.pb.SayRequest(text=text)

    async with (
        running(protos, tmp_path) as kit,
        connected(kit.served.address, service="kit") as peer,
    ):
        stub = protos.grpc.KitServiceStub(peer.channel)
        assert (await peer.upload(stub.Join, requests())).text == "ab"
        async with peer.stream(stub.Count, kit.pb.SayRequest(text="x")) as responses:
            assert [each.text async for each in responses] == ["x0", "x1", "x2"]
        async with peer.exchange(stub.Echo, requests()) as responses:
            assert [each.text async for each in responses] == ["a", "b"]
        spec = kit.pb.SayRequest.Spec(label="NO")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async with peer.stream(stub.Count, kit.pb.SayRequest(spec=spec)) as responses:
                await anext(responses)
        assert Failure(caught.value).reason == "INVALID_FIELD"


async def test_a_failure_of_the_requests_is_raised_as_it_is(protos: Protos, tmp_path: Path) -> None:
    async def requests() -> AsyncIterator[Any]:
        yield protos.pb.SayRequest(text="a")
        raise NotHere("no such file", path="x")

    async with (
        running(protos, tmp_path) as kit,
        connected(kit.served.address, service="kit") as peer,
    ):
        stub = protos.grpc.KitServiceStub(peer.channel)

        async def exchange() -> None:
            async with peer.exchange(stub.Echo, requests()) as responses:
                async for _ in responses:
                    pass

        for made in (peer.upload(stub.Join, requests()), exchange()):
            with pytest.raises(NotHere):
                await made


async def test_an_upload_that_grpc_itself_cancels_is_of_a_service_that_is_away(
    protos: Protos, tmp_path: Path
) -> None:
    """It does so, rarely, when a connection ends just as it says that there are no more."""

    async def requests() -> AsyncIterator[Any]:
        yield protos.pb.SayRequest(text="a")
        await asyncio.Event().wait()

    def cancelled(*args: Any, **kwargs: Any) -> Any:
        call = stub.Join(*args, **kwargs)
        asyncio.get_running_loop().call_later(0.01, call.cancel)
        return call

    async with (
        running(protos, tmp_path) as kit,
        connected(kit.served.address, service="kit") as peer,
    ):
        stub = protos.grpc.KitServiceStub(peer.channel)
        with pytest.raises(Unavailable):
            await peer.upload(cancelled, requests())  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["Join", "Echo"])
async def test_why_a_stream_was_refused_is_told_though_it_was_written_to(
    protos: Protos, method: str
) -> None:
    """gRPC makes an INTERNAL of it, see https://github.com/grpc/grpc/issues/36066."""

    def refuse(_requests: Any, context: grpc.ServicerContext) -> Any:
        told = status.to_status(NotHere("not here", path="a"))
        context.set_trailing_metadata(((status.DETAILS_KEY, told.SerializeToString()),))
        context.abort(grpc.StatusCode.NOT_FOUND, told.message)

    async def requests() -> AsyncIterator[Any]:
        for _ in range(5):
            yield protos.pb.SayRequest(text="a")
            time.sleep(0.001)  # noqa: ASYNC251 - the refusal comes, and nobody looks.
            await asyncio.sleep(0)

    async def refused(peer: Peer, stub: Any) -> None:
        if method == "Join":
            await peer.upload(stub.Join, requests())
        async with peer.exchange(stub.Echo, requests()) as responses:
            async for _ in responses:
                pass

    handlers: dict[str, Any] = {
        "Join": grpc.stream_unary_rpc_method_handler(refuse),
        "Echo": grpc.stream_stream_rpc_method_handler(refuse),
    }
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_registered_method_handlers("cove.kittest.v1.KitService", handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        async with connected(f"127.0.0.1:{port}", service="back") as peer:
            stub = protos.grpc.KitServiceStub(peer.channel)
            for _ in range(100):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await refused(peer, stub)
                assert Failure(caught.value).reason == "FILE_NOT_FOUND"
                assert caught.value.code() is grpc.StatusCode.NOT_FOUND
                assert caught.value.details() == "not here"
    finally:
        server.stop(None).wait()


class Alive:
    """Handlers of the back server that have not ended."""

    def __init__(self) -> None:
        self.count = 0
        self.none = asyncio.Event()

    async def tick(self, request: Any) -> AsyncIterator[str]:
        self.count += 1
        self.none.clear()
        try:
            while True:
                yield "tick"
                await asyncio.sleep(0.005)
        finally:
            self.count -= 1
            if self.count == 0:
                self.none.set()


async def test_a_stream_that_is_left_ends_behind(protos: Protos, tmp_path: Path) -> None:
    """A call without `Peer.stream` runs on behind nearly always: grpc#43462, since grpcio 1.83."""
    alive = Alive()
    async with (
        running(protos, tmp_path / "b", count=alive.tick) as behind,
        connected(behind.served.address, service="back") as peer,
    ):
        stub = protos.grpc.KitServiceStub(peer.channel)

        async def count(request: Any) -> AsyncIterator[str]:
            async with peer.stream(stub.Count, request) as responses:
                async for response in responses:
                    yield response.text

        async with running(protos, tmp_path / "f", count=count) as front:
            for _ in range(10):
                streams = [front.stub.Count(front.pb.SayRequest()) for _ in range(20)]
                await asyncio.gather(*(stream.read() for stream in streams))
                for stream in streams:
                    stream.cancel()
            gc.collect()
            async with asyncio.timeout(30):
                await alive.none.wait()


async def test_a_unary_call_that_is_left_ends_behind(protos: Protos, tmp_path: Path) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def say(request: Any) -> str:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return ""

    async with pair(protos, tmp_path, one, say=say) as (front, _):
        made = front.stub.Say(front.pb.SayRequest())
        waiting = asyncio.ensure_future(made)
        await began.wait()
        made.cancel()
        async with asyncio.timeout(30):
            await ended.wait()
        await asyncio.wait([waiting])


async def test_work_that_outlives_its_call_keeps_who_and_why(
    protos: Protos, tmp_path: Path
) -> None:
    later: list[asyncio.Task[calls.Call]] = []

    async def work() -> calls.Call:
        return calls.current()

    async def say(request: Any) -> str:
        with calls.detached():
            later.append(asyncio.create_task(work()))
        return ""

    async with running(protos, tmp_path, say=say) as kit:
        metadata = (("cove-tenant", "acme"), ("cove-principal", "ada"), ("x-request-id", "id"))
        await kit.stub.Say(kit.pb.SayRequest(), metadata=metadata)
    call = await later[0]
    assert (call.identity, call.correlation_id, call.remaining()) == (ADA, "id", None)


async def test_outside_of_any_call_there_is_no_identity() -> None:
    assert calls.current().identity.principal == ""
    with calls.detached(identity=ADA) as call:
        assert call.identity == ADA
        assert len(call.correlation_id) == 32
    assert calls.current().correlation_id == ""


def test_every_kind_of_failure_has_a_code() -> None:
    kinds = {
        kind for kind in ServiceError.__subclasses__() if kind.__module__ == "servicekit.errors"
    }
    assert kinds == set(status.CODES)
