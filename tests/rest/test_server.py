"""The HTTP server itself."""

import asyncio
import signal
import socket
import struct
import time
from datetime import timedelta

import httpx
import pytest

from gateway.rest.app import RestConfig, rest
from servicekit import loops
from servicekit.sockets import AddressError
from tests.rest.conftest import Front
from tests.rest.raw import connected, head
from tests.rest.stand_in import TOKEN


async def test_health_needs_no_token(front: Front) -> None:
    async with httpx.AsyncClient(base_url=f"http://{front.address}", timeout=30) as client:
        assert (await client.get("/healthz")).json() == {"status": "SERVING"}
        assert (await client.get("/readyz")).json() == {"status": "SERVING"}


async def test_it_is_alive_but_not_ready_while_the_gateway_is_away() -> None:
    async with (
        rest(RestConfig(target="unix:/tmp/cove-no-such-socket")) as address,
        httpx.AsyncClient(base_url=f"http://{address}", timeout=30) as client,
    ):
        assert (await client.get("/healthz")).status_code == 200
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"status": "NOT_SERVING"})
        assert (await client.get("/workspaces")).status_code == 503


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999", "1.2.3.4:80"])
async def test_an_address_that_cannot_be_is_told(address: str) -> None:
    with pytest.raises(AddressError):
        async with rest(RestConfig(target="unix:/x", address=address)):
            pass


async def test_a_taken_address_is_told(front: Front) -> None:
    with pytest.raises(AddressError):
        async with rest(RestConfig(target="unix:/x", address=front.address)):
            pass


async def test_an_answer_does_not_wait_for_the_client_to_acknowledge_its_head(
    front: Front,
) -> None:
    times = []
    for _ in range(50):
        began = time.perf_counter()
        await front.client.get("/healthz")
        times.append(time.perf_counter() - began)
    # Linux delays an acknowledgement by 40 ms. A machine that does other things delays most of what
    # is asked, but some of it is done in one go.
    assert sorted(times)[5] < 0.03


def test_a_client_that_is_gone_before_it_is_let_in_is_no_error() -> None:
    """On the loop of gateways: there nobody knows any more who it was."""
    failures: list[object] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: failures.append(what))
        async with rest(RestConfig(target="unix:/tmp/cove-no-such-socket")) as address:
            host, _, port = address.rpartition(":")
            for _ in range(20):  # Nothing is accepted while this does not wait.
                with socket.create_connection((host, int(port))) as gone:
                    gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            async with httpx.AsyncClient(timeout=30) as client:
                assert (await client.get(f"http://{address}/healthz")).status_code == 200

    with asyncio.Runner(loop_factory=loops.fast) as runner:
        runner.run(run())
    assert failures == []


async def test_it_serves_on_ipv6_too(front: Front) -> None:
    config = RestConfig(target=front.target, address="[::1]:0")
    async with rest(config) as address, httpx.AsyncClient(timeout=30) as client:
        assert address.startswith("[::1]:")
        assert (await client.get(f"http://{address}/readyz")).status_code == 200


async def test_it_leaves_the_signals_of_the_process_alone(front: Front) -> None:
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    async with rest(RestConfig(target=front.target)):
        assert [signal.getsignal(number) for number in numbers] == before


@pytest.mark.parametrize("sent", [b"", b"GET / HT", head("GET", "/healthz") + b"GET"])
async def test_a_client_that_is_slow_with_its_headers_is_cut_off(front: Front, sent: bytes) -> None:
    config = RestConfig(target=front.target, idle_timeout=timedelta(seconds=1))
    async with rest(config) as address, connected(address) as (reader, writer):
        writer.write(sent)
        async with asyncio.timeout(10):  # It would have 15 s otherwise.
            await reader.read()


async def test_drops_that_come_in_time_do_not_keep_a_connection(front: Front) -> None:
    config = RestConfig(target=front.target, idle_timeout=timedelta(seconds=1))
    async with rest(config) as address, connected(address) as (reader, writer):
        closed = asyncio.create_task(reader.read())
        async with asyncio.timeout(30):
            while not closed.done():
                writer.write(b"G")
                await asyncio.wait({closed}, timeout=0.2)


async def test_a_body_that_does_not_come_is_given_up(front: Front) -> None:
    config = RestConfig(target=front.target, body_timeout=timedelta(seconds=0.2))
    async with rest(config) as address:
        for method, path in (("POST", "execute"), ("PUT", "files/x")):
            async with connected(address) as (reader, writer):
                request = head(method, f"/workspaces/demo/{path}", "Content-Length: 10")
                writer.write(request + b"{")
                async with asyncio.timeout(30):
                    assert b" 504 " in await reader.readline()
    assert front.files.content == {}


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, 200),
        ({"host": "localhost:80"}, 200),
        ({"host": "[::1]"}, 200),
        ({"host": "rebound.example"}, 403),
        ({"host": "127.0.0.1.example"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"host": "localhost", "origin": "http://localhost"}, 200),
    ],
)
async def test_without_a_token_a_browser_elsewhere_gets_nothing(
    front: Front, headers: dict[str, str], code: int
) -> None:
    config = RestConfig(target=front.target, local_only=True)
    headers = {"authorization": f"Bearer {TOKEN}"} | headers
    async with rest(config) as address, httpx.AsyncClient(timeout=30) as client:
        answer = await client.get(f"http://{address}/workspaces", headers=headers)
        assert answer.status_code == code


async def test_stopping_gives_an_open_request_its_grace_and_then_tells_it(front: Front) -> None:
    config = RestConfig(target=front.target, grace=timedelta(seconds=0.3))
    async with httpx.AsyncClient(
        headers={"authorization": f"Bearer {TOKEN}"}, timeout=30
    ) as client:
        async with rest(config) as address:
            url = f"http://{address}/workspaces/demo/executions/x:wait"
            waiting = asyncio.create_task(client.get(url))
            async with asyncio.timeout(30):
                while not front.seen.requests:  # noqa: ASYNC110 - bounded; there is no event.
                    await asyncio.sleep(0.01)
        answer = await waiting
    assert answer.status_code == 503
    assert "SHUTTING_DOWN" in answer.text


async def told(writer: asyncio.StreamWriter) -> None:
    """Until the other side has hung up."""
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


async def test_a_client_that_takes_nothing_of_its_answer_is_cut_off(front: Front) -> None:
    front.files.content[b"big"] = bytes(64 << 20)
    config = RestConfig(target=front.target, unread_timeout=timedelta(seconds=0.5))
    async with rest(config) as address, connected(address) as (_, writer):
        writer.write(head("GET", "/workspaces/demo/files/big"))
        async with asyncio.timeout(30):
            with pytest.raises(ConnectionError):
                await told(writer)
