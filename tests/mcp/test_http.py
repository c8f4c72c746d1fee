"""Over HTTP: for those who show the token, and for no page in a browser."""

import asyncio
import signal
from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio

from tests.mcp.agent import Served, serving
from tests.support.suite import Suite

pytestmark = pytest.mark.asyncio(loop_scope="package")

HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
TOKEN = {"COVE_MCP_TOKEN": "a-token-of-the-operator"}


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def served(suite: Suite) -> AsyncIterator[Served]:
    async with serving(suite) as running:
        yield running


async def post(served: Served, **headers: str) -> int:
    """The status that a first message gets."""
    sent = {"accept": "application/json, text/event-stream"}
    if "authorization" not in headers:
        sent["authorization"] = f"Bearer {served.token}"
    async with httpx2.AsyncClient(timeout=30) as client:
        answer = await client.post(served.url, json=HELLO, headers={**sent, **headers})
    return answer.status_code


async def test_where_it_listens_is_told_and_tools_are_called(served: Served) -> None:
    assert served.url.startswith("http://127.0.0.1:")
    assert ":0/" not in served.url
    assert await post(served) == 200
    async with served.agent() as agent:
        assert await agent.data("list")


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("authorization", "", 401),
        ("authorization", "Bearer wrong", 401),
        ("authorization", "Basic wrong", 401),
        ("host", "evil.example", 421),
        ("host", "evil.example:7422", 421),
        ("host", "127.0.0.1.evil.example:7422", 421),
        ("origin", "https://evil.example", 403),
        ("origin", "http://127.0.0.1.evil.example:80", 403),
        ("origin", "null", 403),
        ("host", "localhost:1", 200),
        ("origin", "http://localhost:8080", 200),
    ],
)
async def test_strangers_are_refused(served: Served, header: str, value: str, status: int) -> None:
    assert await post(served, **{header: value}) == status


async def test_a_token_that_is_given_is_the_one_and_is_not_told(suite: Suite) -> None:
    async with serving(suite, env=TOKEN) as served:
        assert served.said.keys() == {"mcp"}
        assert await post(served) == 200
        assert await post(served, authorization="Bearer a-token-of-another") == 401


async def test_a_token_that_is_made_is_another_each_time(suite: Suite, served: Served) -> None:
    async with serving(suite) as other:
        assert other.token != served.token
        assert len(other.token) > 30


async def test_a_body_that_is_too_large_is_refused(served: Served) -> None:
    async with httpx2.AsyncClient(timeout=30) as client:
        answer = await client.post(
            served.url,
            content=b" " * (9 << 20),
            headers={
                "authorization": f"Bearer {served.token}",
                "content-type": "application/json",
                "accept": "application/json, text/event-stream",
            },
        )
    assert answer.status_code == 413


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it(suite: Suite, number: signal.Signals) -> None:
    async with serving(suite) as served:
        served.process.send_signal(number)
        async with asyncio.timeout(30):
            assert await served.process.wait() == 0


@pytest.mark.parametrize(
    ("where", "said", "status"),
    [
        ("0.0.0.0:0", "remedy: Whoever may call this server runs commands: set COVE_MCP_TOKEN", 2),
        ("[::]:0", "COVE_MCP_TOKEN is not set", 2),
        ("nonsense", "error: nonsense is not of the form HOST:PORT", 2),
        ("127.0.0.1:99999", "99999 is not a port", 2),
        ("192.0.2.1:0", "COVE_MCP_TOKEN is not set", 2),
    ],
)
async def test_where_it_does_not_listen(suite: Suite, where: str, said: str, status: int) -> None:
    done = await suite.cove("mcp", "--http", where)
    assert said in done.errors
    assert (done.status, done.text) == (status, "")


async def test_a_port_that_is_taken_is_told(suite: Suite, served: Served) -> None:
    where = served.url.removeprefix("http://").removesuffix("/mcp")
    done = await suite.cove("mcp", "--http", where)
    assert done.status == 1
    assert done.errors.startswith(f"error: {where}: Address already in use\nremedy: ")


async def test_beyond_loopback_the_token_guards_it(suite: Suite) -> None:
    async with serving(suite, "0.0.0.0:0", TOKEN) as served:
        here = served.url.replace("0.0.0.0", "127.0.0.1")
        async with httpx2.AsyncClient(timeout=30) as client:
            assert (await client.post(here, json=HELLO)).status_code == 401
        async with Served(here, served.token, served.said, served.process).agent() as agent:
            assert await agent.data("list")
