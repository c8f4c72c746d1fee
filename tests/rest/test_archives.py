"""Archives as bodies, and watches as events."""

import asyncio
import json

from tests.rest.conftest import Front
from tests.rest.raw import connected, head
from tests.rest.stand_in import etag_of
from tests.rest.test_unary import UUID, fields, reason

ARCHIVE = "/workspaces/demo/archive"
TAR = bytes(range(256)) * 1024


async def test_an_archive_is_the_body(front: Front) -> None:
    front.files.content[b"a/b"] = TAR
    answer = await front.client.get(f"{ARCHIVE}/a/b")
    assert (answer.status_code, answer.content) == (200, TAR)
    assert answer.headers["content-type"] == "application/x-tar"
    told = await front.client.head(f"{ARCHIVE}/a/b")
    assert (told.status_code, told.content) == (200, b"")
    missing = await front.client.get(f"{ARCHIVE}/none")
    assert (missing.status_code, reason(missing.json())) == (404, "FILE_NOT_FOUND")
    front.files.content[b""] = b"all"
    for root in (ARCHIVE, f"{ARCHIVE}/"):
        assert (await front.client.get(root)).content == b"all"


async def test_an_archive_is_unpacked_from_the_body(front: Front) -> None:
    headers = {"idempotency-key": UUID}
    put = await front.client.put(f"{ARCHIVE}/a/%ff?make_parents=true", content=TAR, headers=headers)
    assert (put.status_code, put.json()) == (200, {"entries": "1", "bytes": str(len(TAR))})
    header = front.seen.requests[-1]
    assert (header.raw_path, header.make_parents, header.request_id) == (b"a/\xff", True, UUID)
    assert front.files.content[b"a/\xff"] == TAR
    refused = await front.client.put(f"{ARCHIVE}/a", content=b"hostile")
    assert (refused.status_code, reason(refused.json())) == (400, "ARCHIVE_INVALID")
    wrong = await front.client.put(f"{ARCHIVE}/a?nope=1", content=TAR)
    assert (wrong.status_code, fields(wrong.json())) == (400, ["nope"])


async def test_an_archive_that_breaks_off_is_seen(front: Front) -> None:
    front.files.content[b"broken"] = TAR
    async with connected(front.address) as (reader, writer):
        writer.write(head("GET", f"{ARCHIVE}/broken"))
        async with asyncio.timeout(30):
            answer = await reader.read()
    assert b"transfer-encoding: chunked" in answer.lower()
    assert not answer.endswith(b"0\r\n\r\n")
    async with connected(front.address) as (_, writer):
        writer.write(head("PUT", f"{ARCHIVE}/half", "Content-Length: 1000") + bytes(500))
        await writer.drain()
    async with asyncio.timeout(30):
        await front.seen.refused.wait()
    assert b"half" not in front.files.content


async def test_a_watch_is_events(front: Front) -> None:
    answer = await front.client.get("/workspaces/demo/files:watch?path=src")
    events = [json.loads(line) for line in answer.text.splitlines()]
    assert [*map(list, events)] == [["started"], ["change"], ["overflow"], ["heartbeat"], ["end"]]
    assert events[1]["change"] == {"kind": "KIND_CREATED", "rawPath": "/w=="}
    assert front.seen.requests[-1].path == "src"
    sse = await front.client.get(
        "/workspaces/demo/files:watch", headers={"accept": "text/event-stream"}
    )
    assert sse.text.startswith('data: {"started":{}}\n\n')


async def test_a_range_of_a_file_that_is_just_replaced_is_all_of_the_new_one(front: Front) -> None:
    for header in ({"range": "bytes=-3"}, {"range": "bytes=2-3"}):
        front.files.content[b"replaced"] = b"0123"
        etag = etag_of(b"0123!")
        headers = {**header, "if-range": f'"{etag}"'}
        answer = await front.client.get("/workspaces/demo/files/replaced", headers=headers)
        assert (answer.status_code, answer.content) == (200, b"0123!!!")


async def test_a_weak_etag_is_no_condition(front: Front) -> None:
    front.files.content[b"a"] = b"1"
    weak = {"if-match": f'W/"{etag_of(b"1")}"'}
    assert (await front.client.get("/workspaces/demo/files/a", headers=weak)).status_code == 412
