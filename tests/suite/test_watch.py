"""Watching all workspaces of a real suite, whatever dies meanwhile."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import grpc
import httpx
import pytest
import pytest_asyncio

from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import WorkspaceServiceStub
from cove.watch import Change, Delete, Put, SnapshotEnd
from tests.servicekit.failing import failure
from tests.support.suite import Suite, running_suite

pytestmark = pytest.mark.asyncio(loop_scope="package")

KEPT = 20
"""Changes that the registry keeps; it throws the others away when it starts."""


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def suite(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Suite]:
    env = {"COVE_REGISTRY__HISTORY_REVISIONS": str(KEPT)}
    async with running_suite(tmp_path_factory.mktemp("suite"), env=env) as running:
        yield running


async def until_gone(changes: AsyncGenerator[Change, None], name: str) -> list[Change]:
    """The changes up to the end of a workspace."""
    found: list[Change] = []
    async with asyncio.timeout(60):
        async for change in changes:
            found.append(change)
            if isinstance(change, Delete) and change.name == name:
                return found
    raise AssertionError("the watch ended")


@pytest.mark.parametrize("service", ["registry", "gateway"])
async def test_a_watch_is_whole_over_the_death_of_a_service(suite: Suite, service: str) -> None:
    async with suite.client() as cove, aclosing(cove.workspaces.watch()) as changes:
        await cove.workspaces.create(id=f"first-{service}")  # So that there is a revision.
        async with asyncio.timeout(30):
            while not isinstance(end := await anext(changes), SnapshotEnd):
                pass
        before = await cove.workspaces.create(id=f"before-{service}")
        first = await anext(changes)
        assert isinstance(first, Put)
        await suite.kill(service)
        await before.delete(force=True)
        seen = [first, *await until_gone(changes, before.name)]
        async with aclosing(cove.workspaces.watch(end.revision)) as again:
            assert await until_gone(again, before.name) == seen
    revisions = [each.revision for each in seen]
    assert revisions == sorted(set(revisions))
    assert not [each for each in seen if isinstance(each, SnapshotEnd)]


async def test_a_caller_without_our_client_is_told_of_a_registry_that_died(suite: Suite) -> None:
    async with grpc.aio.insecure_channel(suite.grpc) as channel:
        call = WorkspaceServiceStub(channel).WatchWorkspaces(
            pb.WatchWorkspacesRequest(), metadata=(("authorization", f"Bearer {suite.token}"),)
        )
        event = await call.read()
        assert isinstance(event, pb.WatchWorkspacesResponse)
        await suite.kill("registry")
        failed = await failure(call)
    assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVICE_UNAVAILABLE")


async def test_history_that_is_lost_is_told_and_our_client_begins_anew(
    suite: Suite, http: httpx.AsyncClient
) -> None:
    async with suite.client() as cove:
        workspace = await cove.workspaces.create(id="kept")
        for number in range(KEPT + 5):
            answer = await http.patch("/workspaces/kept", json={"labels": {"n": str(number)}})
            assert answer.status_code == 200
        await suite.kill("registry")

        async def refused() -> bool:
            async with http.stream("GET", "/workspaces:watch?from_revision=1") as answer:
                await answer.aread()
                return answer.status_code == 400 and "REVISION_COMPACTED" in answer.text

        async with asyncio.timeout(30):  # The sweep comes soon after the start.
            while not await refused():
                pass
        labels: dict[str, str] = {}
        async with asyncio.timeout(30), aclosing(cove.workspaces.watch(1)) as changes:
            while isinstance(change := await anext(changes), Put):
                labels[change.workspace.name] = change.workspace.labels["n"]
        assert isinstance(change, SnapshotEnd)
        assert labels[workspace.name] == str(KEPT + 4)
        await workspace.delete(force=True)


async def test_a_browser_resumes_by_the_id_of_the_last_event(http: httpx.AsyncClient) -> None:
    accept = {"accept": "text/event-stream"}
    async with http.stream("GET", "/workspaces:watch", headers=accept) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        lines = answer.aiter_lines()
        async with asyncio.timeout(30):
            while not (line := await anext(lines)).startswith("id: "):
                pass
    assert (await http.post("/workspaces?workspace_id=browsed", json={})).status_code == 201
    resumed = {**accept, "last-event-id": line.removeprefix("id: ")}
    async with http.stream("GET", "/workspaces:watch", headers=resumed) as answer:
        lines = answer.aiter_lines()
        async with asyncio.timeout(30):
            first = await anext(lines)
            assert '"put"' in await anext(lines)
    assert int(first.removeprefix("id: ")) == int(resumed["last-event-id"]) + 1
    assert (await http.delete("/workspaces/browsed?force=true")).status_code == 200
