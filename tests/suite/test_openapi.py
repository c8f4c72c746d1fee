"""What the real suite answers over HTTP is what the OpenAPI document says."""

import io
import json
import tarfile
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from tests.support.openapi import OpenApi
from tests.support.suite import Suite

_WATCH = "/workspaces:watch"
_ENDLESS = (_WATCH, "/files:watch", "/usage")
_BY_THE_TEST = "read by the test"

pytestmark = pytest.mark.asyncio(loop_scope="package")


@pytest.fixture
def api() -> OpenApi:
    return OpenApi()


@pytest.fixture
def succeeded() -> set[str]:
    """The operations that went well."""
    return set()


@pytest_asyncio.fixture(loop_scope="package")
async def held(suite: Suite, api: OpenApi, succeeded: set[str]) -> AsyncIterator[httpx.AsyncClient]:
    """A client each of whose answers is held to the document, and each request that went well."""

    async def check(response: httpx.Response) -> None:
        if _BY_THE_TEST in response.request.extensions:
            return
        if response.request.url.path.endswith(_ENDLESS):
            response = await _beginning(response)
        await response.aread()
        operation = api.check_answer(response)
        if response.is_success:
            api.check_request(response.request)
            succeeded.add(operation.id)

    async with httpx.AsyncClient(
        base_url=f"http://{suite.http}",
        headers={"authorization": f"Bearer {suite.token}"},
        timeout=60,
        trust_env=False,
        event_hooks={"response": [check]},
    ) as client:
        yield client


async def test_every_operation_answers_as_the_document_says(
    held: httpx.AsyncClient,
    repository: Path,
    api: OpenApi,
    succeeded: set[str],
) -> None:
    await _workspaces(held, repository)
    await _creates(held)
    await _commands(held)
    await _inside(held, repository)
    await _health_and_document(held)
    await _tenant(held)
    await _watch(held)
    await _every_event_of_a_watch(held, api)
    by_web_socket = {"ExecutionService_Attach"}
    assert {each.id for each in api.operations} - succeeded == by_web_socket


async def _workspaces(held: httpx.AsyncClient, repository: Path) -> None:
    key = {"idempotency-key": str(uuid.uuid4())}
    spec = {"repository": f"file://{repository}", "revision": "main", "env": {"A": "b"}}
    body = {"spec": spec, "labels": {"team": "x"}}
    made = await held.post("/workspaces?workspaceId=api", json=body, headers=key)
    assert made.status_code == 201
    assert (await held.post("/workspaces?workspaceId=api", json=body, headers=key)).is_success
    assert (await held.post("/workspaces?workspaceId=api", json=body)).status_code == 409
    assert (await held.get("/workspaces/api")).json()["uid"] == made.json()["uid"]
    assert len((await held.get("/workspaces")).json()["workspaces"]) == 1
    etag = {"if-match": made.headers["etag"]}
    labels = {"labels": {"team": "y"}}
    updated = await held.patch("/workspaces/api?updateMask=labels", json=labels, headers=etag)
    assert updated.json()["labels"] == {"team": "y"}
    stale = await held.patch("/workspaces/api", json=labels, headers=etag)
    assert stale.status_code == 412
    assert (await held.patch("/workspaces/api", json={"spec": spec})).status_code == 400
    for verb, state in (("suspend", "STATE_SUSPENDED"), ("resume", "STATE_READY")):
        answer = await held.post(f"/workspaces/api:{verb}", json={})
        assert (answer.status_code, answer.json()["state"]) == (200, state)
    await _unsaved_work_is_kept(held)
    assert (await held.delete("/workspaces/api?force=true")).json() == {}
    assert (await held.get("/workspaces/api")).status_code == 404


async def _unsaved_work_is_kept(held: httpx.AsyncClient) -> None:
    assert (await held.put("/workspaces/api/files/new", content=b"1")).status_code == 200
    deleted = await held.delete("/workspaces/api")
    assert deleted.json()["workspace"]["state"] == "STATE_DELETED"
    shown = (await held.get("/workspaces?showDeleted=true")).json()
    assert shown["workspaces"][0]["purgeTime"]
    refused = await held.post("/workspaces/api/execute", json={"spec": {"argv": ["true"]}})
    assert refused.status_code == 409
    assert (await held.post("/workspaces/api:undelete", json={})).status_code == 200
    assert (await held.post("/workspaces/api:undelete", json={})).status_code == 409


async def _creates(held: httpx.AsyncClient) -> None:
    body = {"workspaceId": "later", "returnWhen": "RETURN_WHEN_ACCEPTED"}
    assert (await held.post("/workspaces:create", json=body)).status_code == 202
    again = {"workspaceId": "later", "workspace": {"spec": {"repository": "file:///other"}}}
    assert (await held.post("/workspaces:create", json=again)).status_code == 409
    for url, code in (("file:///nowhere/at-all.git", 404), ("ext::sh -c id", 400)):
        failed = await held.post("/workspaces", json={"spec": {"repository": url}})
        assert failed.status_code == code
    await held.delete("/workspaces/later?force=true&allowMissing=true")


async def _commands(held: httpx.AsyncClient) -> None:
    assert (await held.post("/workspaces?workspaceId=run", json={})).status_code == 201
    script = "echo hi; echo no >&2; printf '\\377'"
    asked = {"spec": {"script": script, "timeout": "60s"}, "requestId": str(uuid.uuid4())}
    ran = await held.post("/workspaces/run/execute", json=asked)
    assert ran.json()["execution"]["exit"]["code"] == 0
    for accept in ("application/x-ndjson", "text/event-stream"):
        for path in ("execute", "execute:stream"):
            asked = {"spec": {"argv": ["sh", "-c", script]}}
            wanted = {"accept": accept}
            events = await held.post(f"/workspaces/run/{path}", json=asked, headers=wanted)
            assert events.headers["content-type"] == accept
            assert "exit" in events.text
    start = "/workspaces/run/executions"
    asked = {"spec": {"argv": ["sleep", "600"]}}
    started = await held.post(f"{start}?executionId=long", json=asked)
    assert started.status_code == 201
    assert (await held.get(f"{start}/long")).json()["state"] == "STATE_RUNNING"
    assert (await held.get(f"{start}/long/output")).text.startswith('{"end":')
    assert (await held.delete(f"{start}/long")).status_code == 409
    kill = {"signal": "SIGNAL_KILL", "scope": "SIGNAL_SCOPE_TREE"}
    assert (await held.post(f"{start}/none:signal", json=kill)).status_code == 404
    assert (await held.post(f"{start}/long:signal", json=kill)).status_code == 200
    assert (await held.get(f"{start}/long:wait")).json()["exit"]["signal"]["number"] == 9
    assert (await held.get(f"{start}?pageSize=2")).json()["nextPageToken"]
    executions = (await held.get(start)).json()["executions"]
    ended = next(each for each in executions if "outputBytes" in each)
    output = f"/{ended['name']}/output"
    assert (await held.get(f"{output}?follow=true")).status_code == 200
    at_end = {"last-event-id": ended["outputBytes"]}
    assert (await held.get(output, headers=at_end)).status_code == 204
    assert (await held.get(f"{output}?fromOffset=999999")).status_code == 400
    assert (await held.delete(f"{start}/long")).status_code == 200
    assert (await held.get(f"{start}/long")).status_code == 404
    for spec, code in (
        ({"argv": ["no-such-program"]}, 404),
        ({"argv": ["true"], "cwd": "none"}, 404),
        ({"argv": ["/etc/passwd"]}, 403),
        ({}, 400),
    ):
        for path in ("execute", "execute:stream"):
            refused = await held.post(f"/workspaces/run/{path}", json={"spec": spec})
            assert refused.status_code == code, refused.text
    await _input_and_usage(held)
    assert (await held.post("/workspaces/run/execute", content=b"{")).status_code == 400
    huge = {"spec": {"argv": ["true", "x" * (6 << 20)]}}
    assert (await held.post("/workspaces/run/execute", json=huge)).status_code == 413
    assert (await held.delete("/workspaces/run?force=true")).status_code == 200


async def _input_and_usage(held: httpx.AsyncClient) -> None:
    start = "/workspaces/run/executions"
    for name, spec in (
        ("fed", {"argv": ["cat"], "stdin": "STDIN_OPEN"}),
        ("seen", {"argv": ["sh"], "terminal": {"rows": 24, "cols": 80}}),
    ):
        begun = await held.post(f"{start}?executionId={name}", json={"spec": spec})
        assert begun.status_code == 201, begun.text
    first = {"offset": "0", "data": "eA=="}
    assert (await held.post(f"{start}/fed:write", json=first)).json()["offset"] == "1"
    gap = {"offset": "9", "data": "eA=="}
    assert (await held.post(f"{start}/fed:write", json=gap)).status_code == 400
    for path in ("/workspaces/run/usage", f"{start}/fed/usage"):
        async with held.stream("GET", path) as samples:
            assert samples.status_code == 200
    plain = await held.get(f"{start}/fed:attach", extensions={_BY_THE_TEST: True})
    assert plain.status_code == 426
    rest = await held.put(f"{start}/fed/input?offset=1&close=true", content=b"y")
    assert rest.json() == {"offset": "2", "closed": True}
    size = {"terminal": {"rows": 40, "cols": 120}}
    assert (await held.post(f"{start}/fed:resize", json=size)).status_code == 409
    assert (await held.post(f"{start}/seen:resize", json=size)).json() == {}
    assert (await held.post(f"{start}/seen:write", json=first | {"data": "ZXhpdAo="})).is_success


async def _archives(held: httpx.AsyncClient) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("empty"))
    at = "/workspaces/src/archive/packed"
    assert (await held.put(at, content=made.getvalue())).is_success
    assert (await held.put(at, content=b"no archive")).status_code == 400
    read = await held.get(at)
    with tarfile.open(fileobj=io.BytesIO(read.content)) as archive:
        assert "empty" in str(archive.getnames())
    assert (await held.get("/workspaces/src/archive/none")).status_code == 404
    async with held.stream("GET", "/workspaces/src/files:watch?path=packed") as changes:
        assert changes.status_code == 200
    assert (await held.delete("/workspaces/src/files/packed?recursive=true")).is_success


async def _inside(held: httpx.AsyncClient, repository: Path) -> None:
    spec = {"repository": f"file://{repository}"}
    made = await held.post("/workspaces?workspaceId=src", json={"spec": spec})
    assert made.status_code == 201
    await _files(held)
    await _archives(held)
    await _git(held, made.json()["baseCommit"])
    await _forks_and_merges(held)
    assert (await held.delete("/workspaces/src?force=true")).status_code == 200


async def _forks_and_merges(held: httpx.AsyncClient) -> None:
    taken = await held.post("/workspaces/src:snapshot", json={"snapshotId": "one"})
    assert taken.is_success, taken.text
    assert (
        await held.post("/workspaces/src:snapshot", json={"snapshotId": "one"})
    ).status_code == 409
    assert len((await held.get("/workspaces/src/snapshots")).json()["snapshots"]) == 1
    forked = await held.post(
        "/workspaces/src:fork", json={"workspaceId": "fork", "snapshotId": "one"}
    )
    assert forked.status_code in (200, 201), forked.text
    absent = {"workspaceId": "none", "snapshotId": "absent"}
    assert (await held.post("/workspaces/src:fork", json=absent)).status_code == 404
    assert (await held.delete("/workspaces/src/snapshots/one")).is_success
    for name in ("src", "fork"):
        assert (await held.put(f"/workspaces/{name}/files/same", content=name.encode())).is_success
    both = {"workspaces": ["workspaces/src", "workspaces/fork"]}
    told = (await held.post("/workspaces:previewConflicts", json=both)).json()
    assert told["collisions"][0]["conflicts"][0]["path"] == "same"
    lone = {"workspaces": ["workspaces/src"]}
    assert (await held.post("/workspaces:previewConflicts", json=lone)).status_code == 400
    commit = {"commit": {"message": "Same"}}
    assert (await held.post("/workspaces/fork/git/commit", json=commit)).is_success
    target = {"target": "main", "fetch": True}
    preview = (await held.post("/workspaces/fork/git/merge:preview", json=target)).json()
    assert preview["mergeable"]
    merged = await held.post("/workspaces/fork/git/merge", json={"target": "main"})
    assert merged.is_success, merged.text
    assert (await held.post("/workspaces/fork/git/merge", json={"target": "no"})).status_code == 404
    assert (await held.delete("/workspaces/fork?force=true")).is_success


async def _files(held: httpx.AsyncClient) -> None:
    at = "/workspaces/src/files"
    assert (await held.post(f"{at}:mkdir", json={"path": "a/b", "makeParents": True})).is_success
    assert (await held.post(f"{at}:mkdir", json={"path": "README"})).status_code == 409
    new = {"if-none-match": "*"}
    written = await held.put(f"{at}/a/b/c?mode=0755", content=b"content", headers=new)
    assert written.json()["mode"] == 0o755
    assert (await held.put(f"{at}/a/b/c", content=b"", headers=new)).status_code == 412
    assert (await held.put(f"{at}/a/b/c?mustNotExist=true", content=b"")).status_code == 409
    assert (await held.put(f"{at}/a/b", content=b"")).status_code == 409
    assert (await held.put(f"{at}/x/y/z", content=b"")).status_code == 404
    # A client that knows no more than the document encodes the slashes.
    assert (await held.get(f"{at}/a%2Fb%2Fc")).content == b"content"
    for headers, code in (
        ({"range": "bytes=1-2"}, 206),
        ({"range": "bytes=100-"}, 416),
        ({"if-none-match": written.headers["etag"]}, 304),
        ({"if-match": '"other"'}, 412),
    ):
        assert (await held.get(f"{at}/a/b/c", headers=headers)).status_code == code
    assert (await held.get(f"{at}/a")).json()["files"][0]["kind"] == "KIND_DIRECTORY"
    assert (await held.get(f"{at}/none")).status_code == 404
    assert (await held.get(f"{at}/a?offset=x")).status_code == 400
    assert (await held.get(f"{at}:list?path=.&pageSize=1")).json()["nextPageToken"]
    assert (await held.get(f"{at}:list?path=README")).status_code == 409
    assert (await held.get(f"{at}:stat?path=README")).json()["kind"] == "KIND_FILE"
    assert (await held.get(f"{at}:stat?path=../../etc/passwd")).status_code == 400
    assert (await held.post(f"{at}:move", json={"path": "a/b/c", "newPath": "d"})).is_success
    taken = {"path": "d", "newPath": "README"}
    assert (await held.post(f"{at}:move", json=taken)).status_code == 409
    stale = {"if-match": '"other"'}
    assert (await held.delete(f"{at}/d", headers=stale)).status_code == 412
    assert (await held.delete(f"{at}/a")).status_code == 409
    assert (await held.delete(f"{at}/a?recursive=true")).json() == {}
    assert (await held.delete(f"{at}/a")).status_code == 404


async def _git(held: httpx.AsyncClient, base: str) -> None:
    at = "/workspaces/src/git"
    status = (await held.get(f"{at}/status")).json()
    assert status["entries"] == [{"path": "d", "workState": "WORK_STATE_UNTRACKED"}]
    assert '"patch"' in (await held.get(f"{at}/diff?range.kind=KIND_BASE_TO_WORK")).text
    nothing = "range.kind=KIND_COMMITS&range.from=no&range.to=HEAD"
    assert (await held.get(f"{at}/diff?{nothing}")).status_code == 404
    author = {"name": "Ada", "email": "ada@example.org"}
    trailers = [{"key": "Reviewed-by", "value": "Bob <bob@example.org>"}]
    commit = {"message": "Add d", "author": author, "trailers": trailers}
    moved = await held.post(f"{at}/commit", json={"commit": commit, "expectedHead": "0" * 40})
    assert moved.status_code == 409
    signed = {"commit": commit, "paths": ["d"], "provenance": True}
    done = await held.post(f"{at}/commit", json=signed)
    assert done.json()["commit"]["parents"] == [base]
    assert (await held.post(f"{at}/commit", json={"commit": commit})).status_code == 409
    assert len((await held.get(f"{at}/log")).json()["commits"]) == 2
    assert (await held.get(f"{at}/log?revision=none")).status_code == 404
    assert (await held.get(f"{at}/log?pageToken=made-up")).status_code == 400
    provenance = (await held.get(f"{at}/provenance")).json()
    assert provenance["commit"] == done.json()["commit"]["id"]
    key = (await held.get("/signing-key")).json()["keyId"]
    assert json.loads(provenance["envelope"])["signatures"][0]["keyid"] == key
    assert (await held.get(f"{at}/provenance?revision={base}")).status_code == 404
    assert (await held.get(f"{at}/branches")).json()["branches"][0]["kind"] == "KIND_OWN"
    pushed = (await held.post(f"{at}/push", json={})).json()
    assert pushed["commit"] == done.json()["commit"]["id"]
    elsewhere = {"remote": "ext::sh -c id"}
    assert (await held.post(f"{at}/push", json=elsewhere)).status_code == 400


async def _tenant(held: httpx.AsyncClient) -> None:
    assert (await held.get("/quota")).is_success
    limits = {"limits": {"workspaces": "1000"}}
    assert (await held.patch("/quota", json=limits)).json()["limits"] == limits["limits"]
    assert (await held.get("/audit?resource=workspaces/api&pageSize=1")).is_success
    made = await held.post("/tokens?tokenId=api", json={"role": "ROLE_READER", "ttl": "60s"})
    assert (made.status_code, made.headers["location"]) == (201, "/tokens/api")
    assert made.json()["secret"].startswith("cove_")
    again = await held.post("/tokens?tokenId=api", json={"role": "ROLE_READER"})
    assert again.status_code == 409
    assert (await held.get("/tokens")).json()["tokens"]
    assert (await held.post("/tokens/api:revoke", json={})).json()["revokeTime"]
    assert (await held.post("/tokens/none:revoke", json={})).status_code == 404


async def _health_and_document(held: httpx.AsyncClient) -> None:
    assert (await held.get("/capabilities")).json()["provider"]["drivers"]
    for path in ("/healthz", "/readyz"):
        assert (await held.get(path, headers={"authorization": ""})).status_code == 200
    document = await held.get("/openapi.json")
    assert document.json()["openapi"] == "3.1.0"
    known = {"if-none-match": document.headers["etag"]}
    assert (await held.get("/openapi.json", headers=known)).status_code == 304
    for path in ("/openapi.json", "/workspaces"):
        stranger = await held.get(path, headers={"authorization": "Bearer no"})
        assert stranger.status_code == 401


async def _watch(held: httpx.AsyncClient) -> None:
    for accept in ("application/x-ndjson", "text/event-stream"):
        async with held.stream("GET", _WATCH, headers={"accept": accept}) as events:
            assert events.headers["content-type"] == accept
    async with held.stream("GET", f"{_WATCH}?fromRevision=none") as refused:
        assert refused.status_code == 400


async def _every_event_of_a_watch(held: httpx.AsyncClient, api: OpenApi) -> None:
    answer = api.operation("GET", _WATCH).said["responses"]["200"]
    event_schema = answer["content"]["application/x-ndjson"]["schema"]["contentSchema"]
    assert (await held.post("/workspaces?workspace_id=watched", json={})).status_code == 201
    kinds: set[str] = set()
    async with held.stream("GET", _WATCH, extensions={_BY_THE_TEST: True}) as events:
        async for line in events.aiter_lines():
            event = json.loads(line)
            api.check(event_schema, event)
            kinds |= set(event)
            if "snapshotEnd" in event:
                assert (await held.delete("/workspaces/watched?force=true")).is_success
            if "delete" in event:
                break
    assert kinds - {"heartbeat"} == {"snapshot", "snapshotEnd", "put", "delete"}


async def _beginning(response: httpx.Response) -> httpx.Response:
    """The same up to its first event, of a stream that goes on for ever."""
    content = b""
    async for piece in response.aiter_raw():
        content += piece
        if content.endswith(b"\n"):
            break
    return httpx.Response(
        response.status_code,
        headers=response.headers,
        content=content,
        request=response.request,
    )
