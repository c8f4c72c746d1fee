"""A quota that is used up says of what, and when to look again, by gRPC and by HTTP."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import httpx
import pytest
import pytest_asyncio

from cove.client import Client
from cove.status import ResourceExhausted
from tests.support.suite import Suite

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

_RUN = {"spec": {"script": "true"}}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def busy(suite: Suite) -> None:
    """Two workspaces; in one a command runs, and has written something."""
    async with suite.client() as cove:
        demo = await cove.workspaces.create(id="demo")
        await cove.workspaces.create(id="other")
        await demo.execute("sh", "-c", "head -c 300000 /dev/urandom > big")
        await demo.start("sleep", "600", id="long")
    await suite.kill("provider")  # It measures anew when it is asked first.


async def create(cove: Client) -> None:
    await cove.workspaces.create(id="more")


async def run_here(cove: Client) -> None:
    await (await cove.workspaces.get("demo")).execute("true")


async def run_there(cove: Client) -> None:
    await (await cove.workspaces.get("other")).execute("true")


KINDS: Mapping[str, tuple[int, Callable[[Client], Awaitable[None]], str, dict[str, Any]]] = {
    "workspaces": (2, create, "/workspaces?workspaceId=more", {}),
    "executions": (1, run_here, "/workspaces/demo/execute", _RUN),
    "active_environments": (1, run_there, "/workspaces/other/execute", _RUN),
    "disk_bytes": (1000, create, "/workspaces?workspaceId=more", {}),
}


async def limited(cove: Client, quota: str, limit: int) -> None:
    values: dict[str, Any] = {quota: limit}
    await cove.tenant.set_quota(**values)


@pytest.mark.parametrize("quota", KINDS)
@pytest.mark.usefixtures("busy")
async def test_each_is_told_by_grpc_and_by_http(
    quota: str, suite: Suite, http: httpx.AsyncClient
) -> None:
    limit, call, path, body = KINDS[quota]
    async with suite.client() as cove:
        await limited(cove, quota, limit)
        try:
            with pytest.raises(ResourceExhausted) as raised:
                await call(cove)
            answer = await http.post(path, json=body)
        finally:
            await limited(cove, quota, -1)
    assert (raised.value.reason, raised.value.metadata["quota"]) == (
        "ERROR_REASON_QUOTA_EXCEEDED",
        quota,
    )
    assert raised.value.metadata["limit"] == str(limit)
    assert raised.value.retry_after
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0
    details = {each["@type"].rpartition(".")[2]: each for each in answer.json()["details"]}
    (violation,) = details["QuotaFailure"]["violations"]
    assert (violation["subject"], violation["quotaMetric"]) == ("tenants/default", quota)
    assert details["ErrorInfo"]["metadata"]["limit"] == str(limit)
    assert details["RetryInfo"]["retryDelay"]
