"""Files as plain bodies."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.rest.conftest import Front
from tests.rest.raw import connected, head
from tests.rest.stand_in import etag_of
from tests.rest.test_unary import UUID, fields, reason

FILES = "/workspaces/demo/files/"
TEXT = b"0123456789"


@pytest.fixture
def url(front: Front) -> str:
    front.files.content[b"a.txt"] = TEXT
    return f"{FILES}a.txt"


async def test_a_file_is_its_bytes(front: Front, url: str) -> None:
    answer = await front.client.get(url)
    assert (answer.status_code, answer.content) == (200, TEXT)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-length"] == "10"
    assert answer.headers["etag"] == f'"{etag_of(TEXT)}"'
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("data", [b"", b"\x00\xff\r\n", bytes(range(256)) * 4096])
async def test_any_bytes_come_back_as_they_were_put(front: Front, data: bytes) -> None:
    put = await front.client.put(f"{FILES}dir/x?make_parents=true&mode=0755", content=data)
    assert put.status_code == 200
    assert put.json().get("size", "0") == str(len(data))
    assert put.headers["etag"] == f'"{etag_of(data)}"'
    header = front.seen.requests[-1]
    assert (header.name, header.path) == ("workspaces/demo", "dir/x")
    assert (header.make_parents, header.mode) == (True, 0o755)
    assert (await front.client.get(f"{FILES}dir/x")).content == data


async def test_an_upload_needs_no_length(front: Front) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield bytes(65_536)

    answer = await front.client.put(f"{FILES}big", content=parts())
    assert answer.status_code == 200
    assert len(front.files.content[b"big"]) == 6_553_600


async def test_an_upload_that_breaks_off_is_refused_not_kept(front: Front) -> None:
    async with connected(front.address) as (_, writer):
        writer.write(head("PUT", f"{FILES}half", "Content-Length: 1000") + bytes(500))
        async with asyncio.timeout(30):
            while not front.seen.requests:  # noqa: ASYNC110 - bounded, and there is no event.
                await asyncio.sleep(0.01)
    async with asyncio.timeout(30):
        await front.seen.refused.wait()
    assert b"half" not in front.files.content


async def test_an_upload_that_is_refused_is_answered_before_its_end(front: Front, url: str) -> None:
    async with connected(front.address) as (reader, writer):
        conditions = ["If-None-Match: *", "Content-Length: 100000000"]
        writer.write(head("PUT", url, *conditions) + bytes(10_000))
        async with asyncio.timeout(30):
            assert b" 412 " in await reader.readline()
    assert front.files.content[b"a.txt"] == TEXT


async def test_a_long_upload_that_is_refused_at_once_is_told_why(front: Front) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield bytes(65_536)

    headers = {"authorization": "Bearer wrong"}
    for _ in range(20):
        answer = await front.client.put(f"{FILES}x", content=parts(), headers=headers)
        assert (answer.status_code, reason(answer.json())) == (401, "UNAUTHENTICATED")


@pytest.mark.parametrize(
    ("path", "decoded"),
    [
        ("a%20b", b"a b"),
        ("a%2Fb", b"a/b"),
        ("a/b:c", b"a/b:c"),
        ("%ff%fe", b"\xff\xfe"),
        ("%3Fx%23", b"?x#"),
        ("a+b", b"a+b"),
        ("../x", b"../x"),
    ],
)
async def test_paths_are_decoded_whatever_they_hold(
    front: Front, path: str, decoded: bytes
) -> None:
    front.files.content[decoded] = TEXT
    async with connected(front.address) as (reader, writer):
        writer.write(head("GET", FILES + path, "Connection: close"))
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(TEXT)


async def test_a_path_in_a_query_may_be_bytes_too(front: Front) -> None:
    front.files.content[b"\xff"] = TEXT
    answer = await front.client.get("/workspaces/demo/files:stat?path=%ff")
    assert answer.json()["size"] == "10"


@pytest.mark.parametrize(
    ("wanted", "code", "content", "place"),
    [
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=8-", 206, b"89", "bytes 8-9/10"),
        ("bytes=8-99", 206, b"89", "bytes 8-9/10"),
        ("bytes=0-0", 206, b"0", "bytes 0-0/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=-99", 206, TEXT, "bytes 0-9/10"),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=99-", 416, None, "bytes */10"),
        ("bytes=-0", 416, None, "bytes */10"),
        ("bytes=4-2", 200, TEXT, None),
        ("bytes=1-2,4-5", 200, TEXT, None),
        ("lines=1-2", 200, TEXT, None),
        ("bytes=-", 200, TEXT, None),
    ],
)
async def test_ranges(
    front: Front, url: str, wanted: str, code: int, content: bytes | None, place: str | None
) -> None:
    answer = await front.client.get(url, headers={"range": wanted})
    assert answer.status_code == code
    assert content is None or answer.content == content
    assert answer.headers.get("content-range") == place


async def test_a_range_of_another_content_gets_the_whole_of_this_one(
    front: Front, url: str
) -> None:
    old = await front.client.get(url, headers={"range": "bytes=2-4", "if-range": '"old"'})
    assert (old.status_code, old.content) == (200, TEXT)
    headers = {"range": "bytes=2-4", "if-range": f'"{etag_of(TEXT)}"'}
    same = await front.client.get(url, headers=headers)
    assert (same.status_code, same.content) == (206, b"234")


async def test_what_the_client_has_is_not_sent_again(front: Front, url: str) -> None:
    answer = await front.client.get(url, headers={"if-none-match": f'"x", "{etag_of(TEXT)}"'})
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == f'"{etag_of(TEXT)}"'
    answer = await front.client.get(url, headers={"if-none-match": '"x"'})
    assert answer.status_code == 200


async def test_head_tells_length_and_etag(front: Front, url: str) -> None:
    answer = await front.client.head(url)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == "10"
    assert answer.headers["etag"] == f'"{etag_of(TEXT)}"'


async def test_conditions_of_a_write(front: Front, url: str) -> None:
    new = await front.client.put(f"{FILES}new", content=b"1", headers={"if-none-match": "*"})
    assert new.status_code == 200
    there = await front.client.put(url, content=b"1", headers={"if-none-match": "*"})
    assert (there.status_code, reason(there.json())) == (412, "FILE_EXISTS")
    lost = await front.client.put(url, content=b"1", headers={"if-match": '"x"'})
    assert (lost.status_code, reason(lost.json())) == (412, "FILE_CHANGED")
    headers = {"if-match": f'"{etag_of(TEXT)}"', "idempotency-key": UUID}
    won = await front.client.put(url, content=b"2", headers=headers)
    assert won.status_code == 200
    assert front.seen.requests[-1].request_id == UUID
    stale = await front.client.get(url, headers={"if-match": '"x"'})
    assert stale.status_code == 412
    lost = await front.client.delete(url, headers={"if-match": '"x"'})
    assert lost.status_code == 412
    gone = await front.client.delete(url, headers={"if-match": f'"{etag_of(b"2")}"'})
    assert (gone.status_code, gone.json()) == (200, {})


@pytest.mark.parametrize("query", ["nope=1", "mode=x", "mode=755", "name=workspaces/x", "data=x"])
async def test_a_write_with_a_wrong_query_changes_nothing(
    front: Front, url: str, query: str
) -> None:
    answer = await front.client.put(f"{url}?{query}", content=b"1")
    assert answer.status_code == 400
    assert reason(answer.json()) == "INVALID_FIELD"
    assert front.files.content[b"a.txt"] == TEXT


@pytest.mark.parametrize("path", ["dir", "dir/", "", None])
async def test_a_directory_is_listed_as_json(front: Front, url: str, path: str | None) -> None:
    front.files.content[b"dir/"] = b""
    answer = await front.client.get(url.removesuffix("/a.txt") if path is None else FILES + path)
    assert answer.status_code == 200
    assert [each["path"] for each in answer.json()["files"]] == ["a.txt", "dir/"]
    assert front.seen.requests[-1].path == (path or ".").rstrip("/")


async def test_a_missing_file_is_404(front: Front) -> None:
    answer = await front.client.get(f"{FILES}none")
    assert (answer.status_code, reason(answer.json())) == (404, "FILE_NOT_FOUND")


async def test_a_read_that_fails_midway_breaks_the_connection_off(front: Front) -> None:
    front.files.content[b"broken"] = TEXT
    async with connected(front.address) as (reader, writer):
        writer.write(head("GET", f"{FILES}broken"))
        async with asyncio.timeout(30):
            answer = await reader.read()
    assert b"content-length: 10" in answer
    assert answer.endswith(b"\r\n\r\n0")


async def test_a_query_may_cut_a_part_out(front: Front, url: str) -> None:
    answer = await front.client.get(f"{url}?offset=2&limit=3")
    assert (answer.status_code, answer.content) == (200, b"234")
    wrong = await front.client.get(f"{url}?nope=3")
    assert (wrong.status_code, fields(wrong.json())) == (400, ["nope"])
