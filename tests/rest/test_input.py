"""Input and terminals over HTTP, on the stand-in gateway."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK, InvalidStatus
from websockets.typing import Subprotocol

from gateway.rest.terminal import MAX_MESSAGE
from tests.rest.conftest import Front
from tests.rest.stand_in import TOKEN

PATH = "/workspaces/demo/executions"
BEARER = {"authorization": f"Bearer {TOKEN}"}


def attached(front: Front, name: str = "term", query: str = "") -> connect:
    uri = f"ws://{front.address}{PATH}/{name}:attach{query}"
    return connect(uri, additional_headers=BEARER, max_size=None, close_timeout=0.5)


async def seen(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not done():  # noqa: ASYNC110 # Nobody tells.
            await asyncio.sleep(0.005)


async def to_the_end(socket: ClientConnection) -> None:
    while True:
        await event(socket)


async def event(socket: ClientConnection) -> dict[str, object]:
    async with asyncio.timeout(30):
        while True:
            message = await socket.recv()
            if isinstance(message, str):
                found: dict[str, object] = json.loads(message)
                return found


async def test_input_is_written_in_json(front: Front) -> None:
    said = {"offset": "0", "data": "YWJj", "close": True}
    answer = await front.client.post(f"{PATH}/one:write", json=said)
    assert (answer.status_code, answer.json()) == (200, {"offset": "3", "closed": True})
    assert front.seen.requests[-1].data == b"abc"
    missing = await front.client.post(f"{PATH}/one:write", json={"data": "YWJj"})
    assert missing.status_code == 400
    assert "offset" in missing.text


async def test_a_body_is_written_while_it_comes(front: Front) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"ab"
        await seen(lambda: any(each.data == b"ab" for each in front.seen.requests))
        yield b"cd"

    path = f"{PATH}/one/input?offset=4&close=true"
    answer = await front.client.put(path, content=body())
    assert answer.json() == {"offset": "8", "closed": True}
    written = [(each.offset, each.data, each.close) for each in front.seen.requests if each.data]
    assert written == [(4, b"ab", False), (6, b"cd", False)]
    assert front.seen.requests[-1].release
    assert len({each.writer for each in front.seen.requests}) == 1


async def test_a_body_that_breaks_off_is_let_go(front: Front) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"ab"
        await seen(lambda: any(each.data == b"ab" for each in front.seen.requests))
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await front.client.put(f"{PATH}/one/input?offset=0&close=true", content=body())
    await seen(lambda: front.seen.requests[-1].release)
    assert not any(each.close for each in front.seen.requests)


async def test_why_input_is_refused_is_told(front: Front) -> None:
    answer = await front.client.put(f"{PATH}/held/input?offset=0", content=b"x" * 100_000)
    assert answer.status_code == 409
    assert "INPUT_HELD" in answer.text


async def test_a_terminal_is_resized(front: Front) -> None:
    answer = await front.client.post(
        f"{PATH}/one:resize", json={"terminal": {"rows": 24, "cols": 80}}
    )
    assert (answer.status_code, answer.json()) == (200, {})
    wrong = await front.client.post(f"{PATH}/one:resize", json={"terminal": {"rows": 0}})
    assert wrong.status_code == 400


async def test_a_terminal_by_websocket(front: Front) -> None:
    async with attached(front, query="?from_offset=3&writer=me&take_over=true") as socket:
        assert await event(socket) == {
            "execution": {"name": "workspaces/demo/executions/term", "inputBytes": "7"}
        }
        await socket.send(b"\x03typed")
        assert await socket.recv() == b"\x03typed"
        assert await event(socket) == {"input": {"offset": "13"}}
        await socket.send('{"resize": {"rows": 3, "cols": 4}}')
        assert await socket.recv() == b"3x4"
        await socket.send('{"input": {"offset": "13", "data": "AA==", "close": true}}')
        assert await event(socket) == {"exit": {"code": 0}}
        with pytest.raises(ConnectionClosedOK):
            await socket.recv()
    opened = front.seen.requests[-1].open
    assert (opened.name, opened.from_offset) == ("workspaces/demo/executions/term", 3)
    assert (opened.writer, opened.take_over) == ("me", True)


async def test_a_page_offers_its_token_as_a_protocol(front: Front) -> None:
    coded = base64.urlsafe_b64encode(TOKEN.encode()).decode().rstrip("=")
    uri = f"ws://{front.address}{PATH}/term:attach"
    offered = [Subprotocol("cove"), Subprotocol(f"cove.bearer.{coded}")]
    async with connect(uri, subprotocols=offered) as socket:
        assert socket.subprotocol == "cove"
        assert "execution" in await event(socket)
    for wrong in ("", "AAAA", "A", "%41", "w6k", "Cg"):
        offered = [Subprotocol("cove"), Subprotocol(f"cove.bearer.{wrong}")]
        with pytest.raises(InvalidStatus) as caught:
            async with connect(uri, subprotocols=offered):
                pass
        assert caught.value.response.status_code == 401


async def test_a_websocket_that_is_refused_is_told_why(front: Front) -> None:
    for name, query, status, why in (
        ("held", "", 409, "INPUT_HELD"),
        ("term", "?unknown=1", 400, "unknown query parameter"),
        ("term", "?from_offset=x", 400, "INVALID_FIELD"),
        ("TERM", "", 400, "INVALID_FIELD"),
    ):
        with pytest.raises(InvalidStatus) as caught:
            async with attached(front, name, query):
                pass
        response = caught.value.response
        assert (response.status_code, why in (response.body or b"").decode()) == (status, True)
        assert "x-request-id" in response.headers
    for path, status in ((f"{PATH}/term", 404), (f"{PATH}/term:attach", 401)):
        with pytest.raises(InvalidStatus) as caught:
            async with connect(f"ws://{front.address}{path}"):
                pass
        assert caught.value.response.status_code == status


async def test_a_websocket_whose_client_leaves_ends_behind(front: Front) -> None:
    async with attached(front) as socket:
        await event(socket)
    async with asyncio.timeout(30):
        await front.seen.cancelled.wait()


@pytest.mark.parametrize("wrong", ["no json", '{"unknown": 1}', "{}", '{"open": {"name": "x"}}'])
async def test_what_is_no_message_is_told_and_ends_it(front: Front, wrong: str) -> None:
    async with attached(front) as socket:
        await event(socket)
        await socket.send(wrong)
        assert "error" in await event(socket)
        with pytest.raises(ConnectionClosed):
            await socket.recv()


async def test_a_message_that_is_too_large_ends_it(front: Front) -> None:
    async with attached(front) as socket:
        await event(socket)
        with suppress(ConnectionClosed):
            await socket.send(bytes(MAX_MESSAGE + 1))
        with pytest.raises(ConnectionClosed) as caught:
            await event(socket)
        assert caught.value.rcvd is None or caught.value.rcvd.code == 1009


async def test_a_client_that_does_not_read_holds_up_nobody_else(front: Front) -> None:
    async with attached(front, "flood") as socket:
        await event(socket)
        await asyncio.wait_for(front.seen.held_up(), 30)
        assert (await front.client.get("/healthz")).status_code == 200


async def test_a_stop_ends_websockets(front: Front) -> None:
    async with attached(front) as socket:
        await event(socket)
        await front.stack.aclose()
        with pytest.raises(ConnectionClosed):
            await to_the_end(socket)


async def test_a_plain_request_is_told_what_is_wanted(front: Front) -> None:
    answer = await front.client.get(f"{PATH}/term:attach")
    assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")
