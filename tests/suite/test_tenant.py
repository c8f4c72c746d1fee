"""Quota and audit log as callers see them: over HTTP, the SDK, and `cove`."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import pytest_asyncio

from cove import ResourceExhausted, sync
from tests.support.suite import Suite, running_suite

pytestmark = pytest.mark.asyncio(loop_scope="package")


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def suite(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Suite]:
    """Whose one tenant has nothing yet."""
    async with running_suite(tmp_path_factory.mktemp("suite")) as running:
        yield running


async def test_a_quota_holds_whoever_sets_it(suite: Suite, http: httpx.AsyncClient) -> None:
    first = (await http.get("/quota")).json()
    assert (first["tenant"], first["use"]["workspaces"]) == ("default", "0")
    set_ = await http.patch("/quota", json={"limits": {"workspaces": "1"}})
    assert set_.json()["effectiveLimits"] == {"workspaces": "1"}
    try:
        async with suite.client() as cove:
            await cove.workspaces.create(id="one")
            with pytest.raises(ResourceExhausted) as caught:
                await cove.workspaces.create(id="two")
            assert caught.value.reason == "ERROR_REASON_QUOTA_EXCEEDED"
            assert caught.value.retry_after == 60
            assert "quota" in caught.value.remedy
            refused = await http.post("/workspaces?workspace_id=two", json={"spec": {}})
            assert refused.status_code == 429
            assert refused.json()["details"][0]["reason"] == "ERROR_REASON_QUOTA_EXCEEDED"
            done = await suite.cove("quota", "set", "--executions", "1", "--workspaces", "5")
            assert done.status == 0, done.errors
            started = await http.post(
                "/workspaces/one/executions?execution_id=long",
                json={"spec": {"script": "sleep 60"}},
            )
            assert started.status_code == 201
            refused = await http.post("/workspaces/one/execute", json={"spec": {"argv": ["true"]}})
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            quota = await cove.tenant.quota()
            assert (quota.use.executions, quota.use.active_environments) == (1, 1)
            done = await suite.cove("quota")
            assert "executions" in done.text
            await cove.workspaces.named("one").delete(force=True)
    finally:
        async with suite.client() as cove:
            await cove.tenant.set_quota(workspaces=0, executions=0)


async def test_the_log_is_read_whichever_way(suite: Suite, http: httpx.AsyncClient) -> None:
    since = datetime.now(UTC) - timedelta(seconds=5)
    made = await http.post("/workspaces?workspace_id=seen", json={"spec": {}})
    assert made.status_code == 201
    stranger = await http.get("/workspaces/seen", headers={"authorization": "Bearer no"})
    assert stranger.status_code == 401

    def read() -> list[tuple[str, str, str]]:
        with sync.Client(suite.grpc, suite.token) as cove:
            return [
                (each.action, each.code, each.source)
                for each in cove.tenant.audit(since=since)
                if each.code == "UNAUTHENTICATED" or each.resource == "workspaces/seen"
            ]

    async with asyncio.timeout(30):
        while len(found := await asyncio.to_thread(read)) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert {(action, code) for action, code, _ in found} == {
        ("WorkspaceService.CreateWorkspace", "OK"),
        ("WorkspaceService.GetWorkspace", "UNAUTHENTICATED"),
    }
    assert all(source.startswith("ipv4:127.0.0.1:") for _, _, source in found)
    query = {"resource": "workspaces/seen", "action": "CreateWorkspace"}
    (entry,) = (await http.get("/audit", params=query)).json()["entries"]
    assert (entry["principal"], entry["uid"]) == ("admin", made.json()["uid"])
    done = await suite.cove("audit", "--json", "--resource", "workspaces/seen")
    assert json.loads(done.text)["entries"][0]["id"] == entry["id"]
    done = await suite.cove("audit", "--since", "1h", "--code", "UNAUTHENTICATED")
    assert "GetWorkspace" in done.text
    await http.delete("/workspaces/seen?force=true")
