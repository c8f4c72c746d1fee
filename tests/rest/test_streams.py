"""Events over HTTP: NDJSON and server-sent events."""

import asyncio
import base64
import json
from typing import Any

import httpx
import pytest

from tests.rest.conftest import Front
from tests.rest.raw import connected, head
from tests.rest.stand_in import CHUNK
from tests.rest.test_unary import fields, reason

OUTPUT = "/workspaces/demo/executions/{}/output"
SSE = {"accept": "text/event-stream"}


def lines(answer: httpx.Response) -> list[Any]:
    return [json.loads(line) for line in answer.text.splitlines()]


async def test_output_comes_as_bare_events_one_a_line_the_last_is_the_exit(front: Front) -> None:
    answer = await front.client.get(OUTPUT.format("ended") + "?from_offset=0&follow=true")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    chunk, end = lines(answer)
    assert chunk["chunk"]["stream"] == "STREAM_STDOUT"
    assert base64.b64decode(chunk["chunk"]["data"]) == b"one\ntwo\n"
    assert end == {"exit": {"code": 0, "outputBytes": "8"}}
    assert front.seen.requests[-1].follow


async def test_server_sent_events_carry_the_offset_after_them(front: Front) -> None:
    answer = await front.client.get(OUTPUT.format("ended"), headers=SSE)
    assert answer.headers["content-type"] == "text/event-stream"
    first, last, rest = answer.text.split("\n\n")
    assert first.startswith('id: 8\ndata: {"chunk":')
    assert last.startswith('id: 8\ndata: {"exit":')
    assert rest == ""


async def test_a_batch_carries_the_offset_after_all_of_it(front: Front) -> None:
    answer = await front.client.get(OUTPUT.format("ended") + "?batched=true", headers=SSE)
    first, _, _ = answer.text.split("\n\n")
    place, data = first.splitlines()
    assert place == "id: 8"
    chunks = json.loads(data.removeprefix("data: "))["chunks"]["chunks"]
    assert [base64.b64decode(each["data"]) for each in chunks] == [b"one\n", b"two\n"]


async def test_the_last_event_id_resumes(front: Front) -> None:
    path = OUTPUT.format("ended") + "?from_offset=1"
    answer = await front.client.get(path, headers=SSE | {"last-event-id": "4"})
    assert front.seen.requests[-1].from_offset == 4
    assert base64.b64encode(b"two\n").decode() in answer.text


@pytest.mark.parametrize("headers", [SSE | {"last-event-id": "8"}, {"last-event-id": "8"}])
async def test_a_read_that_resumes_at_the_end_answers_204(
    front: Front, headers: dict[str, str]
) -> None:
    answer = await front.client.get(OUTPUT.format("ended"), headers=headers)
    assert (answer.status_code, answer.content) == (204, b"")
    by_query = await front.client.get(OUTPUT.format("ended") + "?from_offset=8")
    assert by_query.status_code == 204


async def test_a_first_read_tells_of_the_exit_though_there_was_no_output(front: Front) -> None:
    answer = await front.client.get(OUTPUT.format("silent"))
    assert lines(answer) == [{"exit": {"code": 0}}]


@pytest.mark.parametrize("value", ["x", "-1", "1.5"])
async def test_a_last_event_id_that_is_no_offset_is_refused(front: Front, value: str) -> None:
    answer = await front.client.get(OUTPUT.format("ended"), headers={"last-event-id": value})
    assert (answer.status_code, fields(answer.json())) == (400, ["Last-Event-ID"])


async def test_a_last_event_id_where_nothing_can_resume_is_refused(front: Front) -> None:
    answer = await front.client.post(
        "/workspaces/demo/execute:stream",
        json={"spec": {"argv": ["true"]}},
        headers={"last-event-id": "1"},
    )
    assert (answer.status_code, fields(answer.json())) == (400, ["Last-Event-ID"])


async def test_a_failure_before_any_event_is_an_answer_with_its_code(front: Front) -> None:
    answer = await front.client.get(OUTPUT.format("unknown"), headers=SSE)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/json"
    assert reason(answer.json()) == "WORKSPACE_NOT_FOUND"


async def test_a_failure_after_events_is_the_last_event(front: Front) -> None:
    answer = await front.client.get(OUTPUT.format("breaks"))
    assert answer.status_code == 200
    first, last = lines(answer)
    assert "chunk" in first
    assert reason(last["error"]) == "SERVICE_UNAVAILABLE"
    as_sse = await front.client.get(OUTPUT.format("breaks"), headers=SSE)
    last = json.loads(as_sse.text.split("\n\n")[-2].removeprefix("data: "))
    assert last["error"]["code"] == 14


@pytest.mark.parametrize(
    ("path", "accept", "kind"),
    [
        ("execute", "*/*", "application/json"),
        ("execute", "application/json, text/event-stream;q=0.5", "application/json"),
        ("execute", "text/event-stream;q=0", "application/json"),
        ("execute", "application/x-ndjson", "application/x-ndjson"),
        ("execute", "text/event-stream", "text/event-stream"),
        ("execute:stream", "*/*", "application/x-ndjson"),
        ("execute:stream", "text/event-stream", "text/event-stream"),
    ],
)
async def test_execute_answers_in_events_when_they_are_asked_for(
    front: Front, path: str, accept: str, kind: str
) -> None:
    answer = await front.client.post(
        f"/workspaces/demo/{path}",
        json={"spec": {"argv": ["true"]}},
        headers={"accept": accept},
    )
    assert answer.status_code == 200
    assert answer.headers["content-type"] == kind
    if kind == "application/x-ndjson":
        assert [next(iter(event)) for event in lines(answer)] == ["execution", "chunk", "exit"]


async def test_a_diff_has_no_offsets(front: Front) -> None:
    answer = await front.client.get("/workspaces/demo/git/diff", headers=SSE)
    assert answer.text == 'data: {"file":{"path":"a"}}\n\ndata: {"end":{}}\n\n'


async def test_heartbeats_are_comments_for_sse_and_events_for_ndjson(front: Front) -> None:
    path = OUTPUT.format("running")
    async with front.client.stream("GET", path, headers=SSE) as answer:
        parts = answer.aiter_lines()
        async with asyncio.timeout(30):
            assert ": heartbeat" in [await anext(parts) for _ in range(4)]
    async with front.client.stream("GET", path) as answer:
        parts = answer.aiter_lines()
        async with asyncio.timeout(30):
            assert [json.loads(await anext(parts)) for _ in range(2)][1] == {
                "heartbeat": {"offset": "8"}
            }


async def test_a_watch_carries_the_revision_to_resume_from(front: Front) -> None:
    events = await first_lines(front, "/workspaces:watch", 13, SSE)
    assert "\n".join(events) == (
        'data: {"snapshot":{"name":"workspaces/demo"}}\n\n'
        'id: 4\ndata: {"snapshotEnd":{"revision":"4"}}\n\n'
        'id: 5\ndata: {"put":{"workspace":{"name":"workspaces/demo"},"revision":"5"}}\n\n'
        'id: 6\ndata: {"delete":{"name":"workspaces/demo","revision":"6"}}\n\n'
        ": heartbeat\nid: 9"
    )
    resumed = await first_lines(front, "/workspaces:watch", 1, SSE | {"last-event-id": "4"})
    assert front.seen.requests[-1].from_revision == 4
    assert resumed == ["id: 5"]
    lines = await first_lines(front, "/workspaces:watch?from_revision=4", 3)
    assert [next(iter(json.loads(line))) for line in lines] == ["put", "delete", "heartbeat"]
    async with asyncio.timeout(30):
        await front.seen.cancelled.wait()


async def first_lines(
    front: Front, path: str, count: int, headers: dict[str, str] | None = None
) -> list[str]:
    """The first lines of a stream that does not end."""
    async with front.client.stream("GET", path, headers=headers or {}) as answer:
        parts = answer.aiter_lines()
        async with asyncio.timeout(30):
            return [await anext(parts) for _ in range(count)]


async def test_a_head_of_a_stream_is_not_allowed(front: Front) -> None:
    answer = await front.client.head(OUTPUT.format("running"))
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")


@pytest.mark.parametrize("path", [OUTPUT.format("running"), "/workspaces/demo/executions/x:wait"])
async def test_the_call_is_cancelled_when_the_client_leaves(front: Front, path: str) -> None:
    async with connected(front.address) as (reader, writer):
        writer.write(head("GET", path))
        async with asyncio.timeout(30):
            if path.endswith("output"):
                await reader.readuntil(b"heartbeat")
            while not front.seen.requests:  # noqa: ASYNC110 - bounded, and there is no event.
                await asyncio.sleep(0.01)
    async with asyncio.timeout(30):
        await front.seen.cancelled.wait()


async def test_a_client_that_does_not_read_holds_the_stream_up(front: Front) -> None:
    async with connected(front.address) as (reader, writer):
        writer.write(head("GET", OUTPUT.format("flood")))
        await reader.readline()
        before, now = -1, 0
        async with asyncio.timeout(30):
            while before != now:  # Until it stands still.
                await asyncio.sleep(0.3)
                before, now = now, front.seen.chunks_sent
        assert now * CHUNK < 32 << 20
        assert not front.seen.cancelled.is_set()
    async with asyncio.timeout(30):
        await front.seen.cancelled.wait()


async def test_stopping_ends_endless_streams_with_an_event_that_says_so(front: Front) -> None:
    async with front.client.stream("GET", OUTPUT.format("running")) as answer:
        parts = answer.aiter_lines()
        async with asyncio.timeout(30):
            await anext(parts)
            await anext(parts)
            stopping = asyncio.create_task(front.stack.aclose())
            last = json.loads(await anext(parts))
            assert [part async for part in parts] == []
        assert reason(last["error"]) == "SHUTTING_DOWN"
    async with asyncio.timeout(30):
        await stopping
    with pytest.raises(httpx.ConnectError):
        await httpx.AsyncClient().get(f"http://{front.address}/healthz")
