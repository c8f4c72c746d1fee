"""How servers start, tell of themselves, and stop."""

import asyncio
import socket
import sys
import threading
import time
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from servicekit import chain, health
from servicekit.config import ConfigError
from servicekit.errors import Unavailable
from servicekit.sockets import AddressError
from servicekit.streams import Streams
from tests.servicekit.failing import failure
from tests.servicekit.kit import SERVICE, Protos, reflecting, running

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


def health_request(service: str) -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=service)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def outliving(folder: Path) -> grpc.aio.Channel:
    """A channel that is there before the server and after it, as those of callers are."""
    return grpc.aio.insecure_channel(f"unix:{folder}/r/kit")


async def test_health_is_told_by_service_name(protos: Protos, tmp_path: Path) -> None:
    async with running(protos, tmp_path) as kit:
        stub: Any = health_pb2_grpc.HealthStub(kit.channel)
        for service in ("", SERVICE):
            assert (await stub.Check(health_request(service))).status == SERVING
        assert (await failure(stub.Check(health_request("x")))).code is grpc.StatusCode.NOT_FOUND


async def test_a_question_after_health_that_does_not_come_is_not_waited_for(
    protos: Protos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of strangers, who else could have any number of messages of megabytes wait for their end."""
    monkeypatch.setattr(health, "SECONDS", 0.1)

    async def never() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    async with running(protos, tmp_path) as kit, asyncio.timeout(30):
        check: Any = kit.channel.stream_unary("/grpc.health.v1.Health/Check")
        watch: Any = kit.channel.stream_stream("/grpc.health.v1.Health/Watch")
        assert (await failure(check(never()))).code is grpc.StatusCode.DEADLINE_EXCEEDED
        watching = watch(never())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await watching.read()
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_host_watches_health_only_so_often(
    protos: Protos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "WATCHES", 2)
    async with running(protos, tmp_path) as kit, asyncio.timeout(30):
        stub: Any = health_pb2_grpc.HealthStub(kit.channel)
        watches = [stub.Watch(health_request("")) for _ in range(2)]
        for watch in watches:
            assert (await watch.read()).status == SERVING
        refused = await failure(stub.Watch(health_request("")))
        assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await stub.Check(health_request(""))).status == SERVING
        watches[0].cancel()
        while True:  # When it is seen that one has left.
            watch = stub.Watch(health_request(""))
            with suppress(grpc.aio.AioRpcError):
                assert (await watch.read()).status == SERVING
                break


async def test_every_watcher_sees_every_change_and_the_end(protos: Protos, tmp_path: Path) -> None:
    async with running(protos, tmp_path) as kit, asyncio.timeout(30):
        stub: Any = health_pb2_grpc.HealthStub(kit.channel)
        leaving, first, second, unknown = (
            stub.Watch(health_request(name)) for name in (SERVICE, SERVICE, SERVICE, "x")
        )
        for watch in (leaving, first, second):
            assert (await watch.read()).status == SERVING
        assert (await unknown.read()).status == UNKNOWN
        leaving.cancel()
        kit.served.health.set(SERVICE, NOT_SERVING)
        for watch in (first, second):
            assert (await watch.read()).status == NOT_SERVING
        kit.served.health.set(SERVICE, SERVING)
        assert (await first.read()).status == SERVING
        kit.served.health.stop()
        assert (await first.read()).status == NOT_SERVING
        assert await first.read() is grpc.aio.EOF


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_lists_every_service(protos: Protos, tmp_path: Path, version: str) -> None:
    async with running(protos, tmp_path) as kit:
        (response,) = await reflect(kit.channel, version)
        listed = {each.name for each in response.list_services_response.service}
    assert listed == {
        SERVICE,
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    }


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["list"], SERVICE),
        (["list", SERVICE], f"{SERVICE}.Count"),
        (["describe", "cove.kittest.v1.SayRequest"], ".cove.kittest.v1.SayRequest.Spec spec = 3"),
        ([f"{SERVICE}/Say"], '"text": "hello"'),
    ],
)
async def test_grpcurl_needs_no_proto_files(
    protos: Protos, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    async def say(request: Any) -> str:
        return "hello"

    async with running(protos, tmp_path, say=say):
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("grpcurl")),
            *("-plaintext", "-unix", f"{tmp_path}/r/kit"),
            *arguments,
            stdout=PIPE,
            stderr=STDOUT,
        )
        out, _ = await process.communicate()
    assert process.returncode == 0, out
    assert expected in out.decode()


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_health_needs_no_identity_and_reflection_does(
    protos: Protos, tmp_path: Path, version: str
) -> None:
    token = tmp_path / "token"
    token.write_text("right")
    token.chmod(0o600)
    async with running(protos, tmp_path, address=("127.0.0.1:0",), service_token_file=token) as kit:
        stub: Any = health_pb2_grpc.HealthStub(kit.channel)
        assert (await stub.Check(health_request(""))).status == SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            # A client that writes while it is refused may be told of the write only.
            await reflect(kit.channel, version, requests=silent())
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert await reflect(kit.channel, version, (("cove-service-token", "right"),))


async def silent() -> AsyncIterator[Any]:
    """Requests of a client that waits first."""
    await asyncio.Event().wait()
    yield


async def reflect(
    channel: grpc.aio.Channel, version: str, metadata: Any = (), requests: Any = None
) -> list[Any]:
    ask = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    sent = requests or iter([request])
    return [response async for response in ask(sent, metadata=metadata)]


async def test_a_stop_lets_a_running_call_end(protos: Protos, tmp_path: Path) -> None:
    began, go_on = asyncio.Event(), asyncio.Event()

    async def say(request: Any) -> str:
        began.set()
        await go_on.wait()
        return "done"

    grace = timedelta(hours=1)
    async with asyncio.timeout(60), outliving(tmp_path) as channel:
        async with running(protos, tmp_path, say=say, shutdown_grace=grace) as kit:
            health: Any = health_pb2_grpc.HealthStub(channel)
            watch = health.Watch(health_request(SERVICE))
            assert (await watch.read()).status == SERVING
            made = protos.grpc.KitServiceStub(channel).Say(kit.pb.SayRequest())
            await began.wait()

            async def drain() -> None:
                assert (await watch.read()).status == NOT_SERVING
                go_on.set()

            drained = asyncio.create_task(drain())
        await drained
        assert (await made).text == "done"


async def test_a_stop_ends_endless_streams_at_once_with_a_reason(
    protos: Protos, tmp_path: Path
) -> None:
    async def count(request: Any) -> AsyncIterator[str]:
        yield "one"
        await asyncio.Event().wait()

    loop = asyncio.get_running_loop()
    grace = timedelta(hours=1)
    async with outliving(tmp_path) as channel:
        async with running(protos, tmp_path, count=count, shutdown_grace=grace) as kit:
            stub = protos.grpc.KitServiceStub(channel)
            streams = [
                stub.Count(kit.pb.SayRequest()),
                stub.Count(kit.pb.SayRequest(), timeout=60),
                stub.CountByWriting(kit.pb.SayRequest()),
            ]
            for stream in streams:
                assert (await stream.read()).text == "one"
            streams.append(await reflecting(channel))
            failures = [asyncio.create_task(failure(stream)) for stream in streams]
            began = loop.time()
        assert loop.time() - began < 30
        ended = await asyncio.gather(*failures)
    for failed in ended:
        assert failed.code is grpc.StatusCode.UNAVAILABLE
        assert failed.reason == "SHUTTING_DOWN"
    assert kit.servicer.cleaned == ["Count", "Count"]


async def test_a_stop_does_not_wait_for_who_looks_at_the_protos(
    protos: Protos, tmp_path: Path
) -> None:
    async with asyncio.timeout(60), outliving(tmp_path) as channel:
        async with running(protos, tmp_path, shutdown_grace=timedelta(hours=1)):
            stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]
            looking = stub.ServerReflectionInfo()
            await looking.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            assert (await looking.read()).list_services_response.service
            failing = asyncio.create_task(failure(looking))
        assert (await failing).reason == "SHUTTING_DOWN"


async def test_a_stream_that_is_ended_as_its_first_message_goes_out_is_told_so(
    protos: Protos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In that moment gRPC can tell nothing else."""
    streams = Streams()
    monkeypatch.setattr(chain, "Streams", lambda: streams)

    async def count(_: Any) -> AsyncIterator[str]:
        asyncio.get_running_loop().call_soon(streams.drain)
        yield "a"
        await asyncio.Event().wait()

    async with running(protos, tmp_path, count=count) as kit, asyncio.timeout(60):
        stream = kit.stub.Count(kit.pb.SayRequest())
        assert (await stream.read()).text == "a"
        assert (await failure(stream)).reason == "SHUTTING_DOWN"


async def test_a_call_that_outlasts_the_grace_is_cancelled(protos: Protos, tmp_path: Path) -> None:
    cancelled = asyncio.Event()
    began = asyncio.Event()

    async def say(request: Any) -> str:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return ""

    grace = timedelta(milliseconds=50)
    async with asyncio.timeout(30), outliving(tmp_path) as channel:
        async with running(protos, tmp_path, say=say, shutdown_grace=grace) as kit:
            made = protos.grpc.KitServiceStub(channel).Say(kit.pb.SayRequest())
            failing = asyncio.create_task(failure(made))
            await began.wait()
        await cancelled.wait()
        assert (await failing).code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


async def test_a_burst_of_calls_is_served(protos: Protos, tmp_path: Path) -> None:
    async with running(protos, tmp_path) as kit:
        made = [kit.stub.Say(kit.pb.SayRequest(text="a")) for _ in range(2000)]
        assert {each.text for each in await asyncio.gather(*made)} == {"a"}


@pytest.mark.long
async def test_a_call_that_waits_for_a_busy_service_is_served(
    protos: Protos, tmp_path: Path
) -> None:
    """Even for longer than gRPC itself lets one wait."""
    busy = threading.Event()

    def call(address: str) -> list[str]:
        with grpc.insecure_channel(address) as channel:
            stub = protos.grpc.KitServiceStub(channel)
            busy.wait()
            made = [stub.Say.future(protos.pb.SayRequest(text="a")) for _ in range(5)]
            return [each.result().text for each in made]

    async with running(protos, tmp_path) as kit:
        calling = asyncio.create_task(asyncio.to_thread(call, kit.served.address))
        await asyncio.sleep(0)
        busy.set()
        time.sleep(35)  # noqa: ASYNC251 - so busy it is.
        assert await calling == ["a"] * 5


async def test_several_addresses_serve_the_same(protos: Protos, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("right")
    token.chmod(0o600)
    addresses = (f"unix:{tmp_path}/a", f"unix:{tmp_path}/b", "127.0.0.1:0")
    async with running(protos, tmp_path, address=addresses, service_token_file=token) as kit:
        assert kit.served.addresses[:2] == addresses[:2]
        assert not kit.served.addresses[2].endswith(":0")
        for address in kit.served.addresses:
            async with grpc.aio.insecure_channel(address) as channel:
                stub: Any = health_pb2_grpc.HealthStub(channel)
                assert (await stub.Check(health_request(""))).status == SERVING


async def test_a_stale_socket_is_replaced(protos: Protos, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    folder.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(folder / "kit"))
    async with running(protos, tmp_path) as kit:
        await kit.stub.Say(kit.pb.SayRequest())
    assert not (folder / "kit").exists()


async def test_a_socket_in_use_is_left_alone(protos: Protos, tmp_path: Path) -> None:
    async with running(protos, tmp_path) as kit:
        with pytest.raises(AddressError, match="another server listens here"):
            async with running(protos, tmp_path):
                pass
        await kit.stub.Say(kit.pb.SayRequest())


@pytest.mark.timeout(60)
async def test_a_socket_of_who_takes_nothing_any_more_is_left_alone(
    protos: Protos, tmp_path: Path
) -> None:
    (tmp_path / "r").mkdir(mode=0o700)
    path = f"{tmp_path}/r/kit"
    with socket.socket(socket.AF_UNIX) as stuck, socket.socket(socket.AF_UNIX) as waiting:
        stuck.bind(path)
        stuck.listen(0)
        waiting.connect(path)
        with pytest.raises(AddressError, match="another server listens here"):
            async with running(protos, tmp_path):
                pass


async def test_a_file_in_the_place_of_a_socket_is_left_alone(
    protos: Protos, tmp_path: Path
) -> None:
    file = tmp_path / "r" / "kit"
    file.parent.mkdir(mode=0o700)
    file.write_text("precious")
    with pytest.raises(AddressError, match="not a socket"):
        async with running(protos, tmp_path):
            pass
    assert file.read_text() == "precious"


async def test_a_folder_that_others_can_write_is_refused(protos: Protos, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(AddressError, match="chmod 0700"):
        async with running(protos, tmp_path):
            pass


async def test_a_port_in_use_is_an_error(protos: Protos, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("right")
    token.chmod(0o600)
    async with running(protos, tmp_path, address=("127.0.0.1:0",), service_token_file=token) as kit:
        with pytest.raises(AddressError, match="cannot listen"):
            async with running(
                protos, tmp_path, address=(kit.served.address,), service_token_file=token
            ):
                pass


async def test_a_tool_on_tcp_without_token_does_not_start(protos: Protos, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="COVE_KIT__SERVICE_TOKEN_FILE: required"):
        async with running(protos, tmp_path, address=("127.0.0.1:0",)):
            pass


@pytest.mark.parametrize(
    ("mode", "text", "problem"),
    [
        (0o644, "x", "open to everyone"),
        (0o600, "", "empty"),
        (0o000, None, "cannot be read"),
        (0o600, "tökén", "not one line of ASCII"),
        (0o600, "one\ntwo", "not one line of ASCII"),
    ],
)
async def test_a_bad_token_file_is_refused(
    protos: Protos, tmp_path: Path, mode: int, text: str | None, problem: str
) -> None:
    file = tmp_path / "token"
    if text is not None:
        file.write_text(text)
        file.chmod(mode)
    with pytest.raises(ConfigError, match=problem):
        async with running(protos, tmp_path, service_token_file=file):
            pass


async def test_metrics_count_calls_by_code(protos: Protos, tmp_path: Path) -> None:
    async def say(request: Any) -> str:
        if request.text:
            raise Unavailable("away")
        return ""

    admin = f"unix:{tmp_path}/admin"
    transport = httpx.AsyncHTTPTransport(uds=f"{tmp_path}/admin")
    async with (
        running(protos, tmp_path, say=say, admin_address=admin) as kit,
        httpx.AsyncClient(transport=transport, base_url="http://admin", timeout=30) as http,
    ):
        for text in ("", "", "fail"):
            call = kit.stub.Say(kit.pb.SayRequest(text=text))
            await (failure(call) if text else call)
        method = f'method="/{SERVICE}/Say"'
        failed = f'code="UNAVAILABLE",{method},reason="SERVICE_UNAVAILABLE"'
        wanted = {
            f'cove_calls_total{{code="OK",{method},reason=""}} 2.0',
            f"cove_calls_total{{{failed}}} 1.0",
            f"cove_call_seconds_count{{{method}}} 3.0",
            f"cove_calls_open{{{method}}} 0.0",
        }
        async with asyncio.timeout(30):  # A caller may be told before the call is counted.
            while wanted - {*(await http.get("/metrics")).text.splitlines()}:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (await http.get("/other")).status_code == 404
        assert mode(tmp_path / "admin") == 0o600


@pytest.mark.parametrize("address", ["0.0.0.0:0", "example.org:80", "127.0.0.1", ":9000"])
async def test_the_admin_address_stays_on_this_machine(
    protos: Protos, tmp_path: Path, address: str
) -> None:
    with pytest.raises(ConfigError, match="not a loopback address"):
        async with running(protos, tmp_path, admin_address=address):
            pass


async def test_an_admin_address_that_cannot_be_had_is_told(protos: Protos, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        for address, expected in ((taken, AddressError), ("127.0.0.1:65536", ConfigError)):
            with pytest.raises(expected, match=address):
                async with running(protos, tmp_path, admin_address=address):
                    pass
