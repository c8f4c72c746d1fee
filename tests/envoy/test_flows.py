"""What callers do, the same way directly and through Envoy."""

import hashlib
import json
import uuid
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect

from cove.client import Client
from cove.executor.v1.executor_pb2 import Chunk, Exit
from cove.status import AlreadyExists, InvalidArgument, NotFound
from tests.envoy.behind import tls_of
from tests.envoy.edge import Edge
from tests.support.repository import git
from tests.support.suite import Suite

SIZE = 8 << 20
NUMBERS = f"seq -w 1 1200000 | head -c {SIZE}"

pytestmark = pytest.mark.long


async def test_from_a_repository_to_a_push(client: Client, origin: Path, way: str) -> None:
    async with await client.workspaces.create(f"file://{origin}", id=f"push-{way}") as workspace:
        result = await workspace.execute("sh", "-c", "cat README.md; echo 1 > new.txt; exit 3")
        assert (result.text, result.exit_status) == ("hello\n", 3)
        assert [each.path for each in (await workspace.status()).entries] == ["new.txt"]
        commit = await workspace.source.commit("Add new.txt")
        await workspace.source.push()
    pushed = git(origin, "rev-parse", f"refs/heads/cove/push-{way}").strip()
    assert pushed == commit.commit.id


async def test_every_byte_of_a_long_output(client: Client, way: str) -> None:
    async with await client.workspaces.create(id=f"long-{way}") as workspace:
        execution = await workspace.start(script=NUMBERS)
        digest, length = hashlib.sha256(), 0
        async for event in execution.output():
            if isinstance(event, Chunk):
                assert event.offset == length
                digest.update(event.data)
                length += len(event.data)
        result = await workspace.execute(script=f"{NUMBERS} | sha256sum")
        assert (length, digest.hexdigest()) == (SIZE, result.text.split()[0])


async def test_a_terminal_both_ways(client: Client, way: str) -> None:
    async with await client.workspaces.create(id=f"term-{way}") as workspace:
        execution = await workspace.start("sh", "-c", "read a; echo got $a", stdin=True)
        async with await execution.attach() as attached:
            await attached.write("one\n")
            heard = b""
            async for event in attached.events():
                if isinstance(event, Chunk):
                    heard += event.data
                if isinstance(event, Exit):
                    assert event.code == 0
        assert heard == b"got one\n"


async def test_files_of_any_bytes(client: Client, way: str) -> None:
    content = bytes(range(256)) * 4096
    async with await client.workspaces.create(id=f"files-{way}") as workspace:
        await workspace.files.write("a b/\N{SNOWMAN}", content, make_parents=True)
        assert await workspace.files.read("a b/\N{SNOWMAN}") == content


async def test_failures_say_why(client: Client, way: str) -> None:
    with pytest.raises(NotFound) as missing:
        await client.workspaces.get("nowhere")
    assert missing.value.reason == "ERROR_REASON_WORKSPACE_NOT_FOUND"
    assert missing.value.remedy
    with pytest.raises(InvalidArgument) as invalid:
        await client.workspaces.create(id="No Such!")
    assert [each.field for each in invalid.value.fields] == ["workspace_id"]
    async with await client.workspaces.create(id=f"twice-{way}"):
        with pytest.raises(AlreadyExists) as taken:
            await client.workspaces.create(id=f"twice-{way}")
    assert taken.value.reason == "ERROR_REASON_WORKSPACE_EXISTS"


async def test_by_http(http: httpx.AsyncClient, way: str) -> None:
    name = f"http-{way}"
    made = await http.post("/workspaces", params={"workspace_id": name}, json={})
    assert (made.status_code, made.headers["location"]) == (201, f"/workspaces/{name}")
    content = bytes(range(256))
    await http.put(f"/workspaces/{name}/files/x", content=content)
    assert (await http.get(f"/workspaces/{name}/files/x")).content == content
    unseen = await http.get(f"/workspaces/{name}/files/x", headers={"range": "bytes=1-2"})
    assert (unseen.status_code, unseen.content) == (206, b"\x01\x02")
    run = {"spec": {"argv": ["sh", "-c", "echo hi"], "timeout": "60s"}}
    done = await http.post(f"/workspaces/{name}/execute", json=run)
    assert (done.status_code, done.json()["stdout"]) == (200, {"text": "hi\n"})
    for accept, first in (("application/x-ndjson", b'{"exec'), ("text/event-stream", b"data: {")):
        path = f"/workspaces/{name}/execute"
        async with http.stream("POST", path, json=run, headers={"accept": accept}) as events:
            assert events.headers["content-type"] == accept
            body = await events.aread()
        assert body.startswith(first)
        assert b'"exit":{"code":0' in body.rsplit(b"data" if b"data: " in body else b"\n{", 1)[1]
    key = {"idempotency-key": str(uuid.uuid4())}
    twice = [await http.post(f"/workspaces/{name}:snapshot", json={}, headers=key) for _ in "12"]
    assert [each.status_code for each in twice] == [201, 201]
    assert twice[0].json() == twice[1].json()
    assert (await http.delete(f"/workspaces/{name}?force=true")).status_code == 200


async def test_a_web_socket(suite: Suite, front: Edge, http: httpx.AsyncClient, way: str) -> None:
    name = f"socket-{way}"
    await http.post("/workspaces", params={"workspace_id": name}, json={})
    spec = {"spec": {"argv": ["sh"], "terminal": {"rows": 24, "cols": 80}}}
    path = f"/workspaces/{name}/executions"
    await http.post(path, params={"execution_id": "shell"}, json=spec)
    base = f"wss://{front.address}" if way == "envoy" else f"ws://{suite.http}"
    async with connect(
        f"{base}{path}/shell:attach",
        additional_headers={"authorization": f"Bearer {suite.token}"},
        ssl=tls_of(front.files) if way == "envoy" else None,
        proxy=None,
    ) as socket:
        await socket.send(b"exit 5\n")
        last = ""
        async for message in socket:
            last = message if isinstance(message, str) else last
    assert json.loads(last)["exit"]["code"] == 5
    await http.delete(f"/workspaces/{name}?force=true")
