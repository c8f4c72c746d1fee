"""JSON that Envoy turns into calls: the same answers as the gateway's own HTTP, and where not."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import pytest_asyncio

from scripts.envoy_descriptors import transcoded
from tests.envoy.conftest import SCOPE
from tests.envoy.edge import Edge
from tests.support.suite import Suite

pytestmark = pytest.mark.long

NAME: Final = "json"
RUN: Final = {"spec": {"argv": ["sh", "-c", "echo hi; echo 1 > new.txt"]}}
SAME: Final = (
    ("GET", "/workspaces?page_size=1", None),
    ("GET", "/workspaces?pageSize=7&filter=labels.team%20%3D%20docs", None),
    ("GET", "/capabilities", None),
    ("GET", f"/workspaces/{NAME}/snapshots", None),
    ("GET", f"/workspaces/{NAME}/executions", None),
    ("GET", f"/workspaces/{NAME}/files:list?path=.", None),
    ("GET", f"/workspaces/{NAME}/git/log", None),
    ("GET", f"/workspaces/{NAME}/git/branches", None),
    ("GET", "/signing-key", None),
    ("GET", "/tokens", None),
    ("GET", "/workspaces/nowhere/executions", None),
    ("GET", "/workspaces/nowhere/git/log", None),
    ("DELETE", f"/workspaces/{NAME}/files/none", None),
    ("DELETE", "/workspaces/nowhere", None),
    ("DELETE", "/workspaces/nowhere?allow_missing=true", None),
    ("DELETE", f"/workspaces/{NAME}/executions/none", None),
    ("POST", "/workspaces/nowhere/execute", RUN),
    (
        "POST",
        "/workspaces:previewConflicts",
        {"workspaces": ["workspaces/json", "workspaces/nowhere"]},
    ),
    ("POST", f"/workspaces/{NAME}/executions/none:write", {"data": "aGk="}),
)


@pytest_asyncio.fixture(scope=SCOPE, loop_scope=SCOPE)
async def both(
    suite: Suite, front: Edge, origin: Path
) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    headers = {"authorization": f"Bearer {suite.token}"}
    direct = httpx.AsyncClient(
        base_url=f"http://{suite.http}", headers=headers, timeout=60, trust_env=False
    )
    async with direct, front.http(headers=headers, timeout=60) as through:
        spec = {"spec": {"repository": f"file://{origin}"}, "labels": {"team": "docs"}}
        made = await direct.post("/workspaces", params={"workspace_id": NAME}, json=spec)
        assert made.status_code == 201, made.text
        yield through, direct
        await direct.delete(f"/workspaces/{NAME}?force=true")


async def calls(front: Edge) -> int:
    """How many went to gateways as gRPC."""
    return sum((await front.stats("cluster.gateways.upstream_rq_total")).values())


@pytest.mark.parametrize(("method", "path", "body"), SAME)
async def test_the_same_answer(front: Edge, both: Any, method: str, path: str, body: Any) -> None:
    through, direct = both
    before = await calls(front)
    one, other = [await each.request(method, path, json=body) for each in (through, direct)]
    assert await calls(front) == before + 1
    assert one.status_code == other.status_code
    assert one.json() == other.json()
    for name in ("content-type", "cache-control", "x-content-type-options"):
        assert one.headers[name] == other.headers[name]
    assert one.headers["x-request-id"]


async def test_a_command_and_its_commit(front: Edge, both: Any) -> None:
    """What changes something has an answer of its own each time."""
    through, _ = both
    before = await calls(front)
    done = await through.post(f"/workspaces/{NAME}/execute", json=RUN)
    assert done.json()["stdout"] == {"text": "hi\n"}
    assert done.json()["execution"]["exit"]["code"] == 0
    made = await through.post(
        f"/workspaces/{NAME}/git/commit",
        json={"commit": {"message": "Add", "author": {"name": "Ada", "email": "ada@example.org"}}},
    )
    assert made.json()["commit"]["author"]["name"] == "Ada"
    pushed = await through.post(f"/workspaces/{NAME}/git/push", json={})
    assert pushed.status_code == 200
    assert await calls(front) == before + 3


async def test_what_is_not_the_same(both: Any) -> None:
    """As docs/envoy.md says it: this is what to change there when it changes."""
    nothing = {"commit": {"message": "Nothing"}}
    path = f"/workspaces/{NAME}/git/commit"
    one, other = [await each.post(path, json=nothing) for each in both]
    assert one.json() == other.json()
    assert (one.status_code, other.status_code) == (400, 409)  # FAILED_PRECONDITION
    run = RUN | {"nonsense": 1}
    path = "/workspaces/nowhere/execute"
    unknown = [await each.post(path, json=run) for each in both]
    assert [each.status_code for each in unknown] == [404, 400]  # In a body Envoy passes it over.
    query = [await each.get("/workspaces?nonsense=1") for each in both]
    broken = [await each.post(path, content=b"{") for each in both]
    for one, other in (query, broken):
        assert (one.status_code, other.status_code) == (400, 400)
        assert one.json()["code"] == other.json()["code"] == 3
        assert "details" not in one.json()  # Envoy has looked, not Cove.


def test_what_is_tried_is_most_of_what_is_there() -> None:
    assert len(transcoded()) >= 20
