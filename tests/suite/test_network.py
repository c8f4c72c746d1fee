"""The network of a workspace by every way of asking for it, on a suite whose parts are killed."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from cove import sync
from cove.status import InvalidArgument
from tests.egress.world import HERE, Outside, outside
from tests.support.suite import Suite, running_suite, until

pytestmark = pytest.mark.asyncio(loop_scope="package")

STATUS = 'curl -sS -o /dev/null -w "%{http_code}" -m 20 '


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def suite(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Suite]:
    env = {"COVE_PROVIDER__EGRESS_NETWORKS": "127.0.0.0/8"}
    async with running_suite(tmp_path_factory.mktemp("suite"), env=env) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="package")
async def server() -> AsyncIterator[Outside]:
    async with outside() as server:
        yield server


async def test_by_the_command_line_and_the_clients(suite: Suite, server: Outside) -> None:
    get = f"{STATUS} http://{HERE}:{server.port}/"
    allowed = f"{HERE}:{server.port}"
    made = await suite.cove("create", "--id", "cli", "--network", allowed, "--network", "pypi.org")
    assert made.status == 0, made.errors
    shown = await suite.cove("show", "cli")
    assert f"network:    {allowed} pypi.org:443\n" in shown.text
    assert (await suite.cove("exec", "cli", "--script", get)).text == "200"
    assert (await suite.cove("update", "cli", "--no-network", "-l", "a=b")).text == "cli\n"
    shown = await suite.cove("show", "cli")
    assert "network:" not in shown.text
    assert "labels:     a=b" in shown.text
    assert (await suite.cove("exec", "cli", "--script", get)).text == "000"
    wrong = await suite.cove("update", "cli", "--network", f"{HERE}:http")
    assert wrong.status == 2
    wrong = await suite.cove("update", "cli", "--network", "0x7f.1")
    assert (wrong.status, "workspace.spec.network.allow[0].host" in wrong.errors) == (1, True)
    async with suite.client() as cove:
        workspace = cove.workspaces.named("cli")
        await workspace.update(network=[allowed])
        assert (await workspace.execute(script=get)).text == "200"
        await workspace.update(labels={})
        assert (await workspace.execute(script=get)).text == "200"
        with pytest.raises(InvalidArgument):
            await workspace.update(network=["a b"])
        await workspace.delete()

    def blocking() -> str:
        with (
            sync.Client(suite.grpc, suite.token) as cove,
            cove.workspaces.create(id="sync", network=[allowed]) as workspace,
        ):
            found = workspace.execute(script=get).text
            workspace.update(network=[])
            return found + workspace.execute(script=get).text

    assert await asyncio.to_thread(blocking) == "200000"


async def test_over_http(suite: Suite, http: httpx.AsyncClient, server: Outside) -> None:
    network = {"allow": [{"host": HERE, "ports": [server.port]}]}
    made = await http.post("/workspaces?workspace_id=rest", json={"spec": {"network": network}})
    assert made.json()["spec"]["network"] == network
    command = {"spec": {"script": f"{STATUS} http://{HERE}:{server.port}/"}}
    ran = await http.post("/workspaces/rest/execute", json=command)
    assert ran.json()["stdout"]["text"] == "200"
    mask = "/workspaces/rest?update_mask=spec.network"
    network["allow"][0]["ports"] = [1]
    changed = await http.patch(mask, json={"spec": {"network": network}})
    assert changed.json()["spec"]["network"] == network
    ran = await http.post("/workspaces/rest/execute", json=command)
    assert ran.json()["stdout"]["text"] == "403"
    for wrong in ({"host": "a b", "ports": [1]}, {"host": "a"}, {"host": "a", "ports": [0]}):
        refused = await http.patch(mask, json={"spec": {"network": {"allow": [wrong]}}})
        assert refused.status_code == 400
        assert "spec.network.allow[0]" in refused.text
    assert (await http.patch(mask, json={})).json()["spec"].get("network", {}) == {}
    ran = await http.post("/workspaces/rest/execute", json=command)
    assert ran.json()["stdout"]["text"] == "000"
    await http.delete("/workspaces/rest")


@pytest.mark.long
async def test_a_connection_outlives_the_services_and_a_list_the_proxy(suite: Suite) -> None:
    async with outside(echo=True) as server, suite.client() as cove:
        allowed = [f"{HERE}:{server.port}"]
        workspace = await cove.workspaces.create(id="kills", network=allowed)
        talk = f"""
import socket
peer = socket.create_connection(("127.0.0.1", 3128))
peer.sendall(b"CONNECT {HERE}:{server.port} HTTP/1.1\\r\\n\\r\\n")
peer.recv(4096)
open("begun", "w").close()
import os, time
while not os.path.exists("go"): time.sleep(0.05)
peer.sendall(b"still")
print(peer.recv(5))
"""
        execution = await workspace.start("python3", "-c", talk)
        while (await workspace.execute("test", "-e", "begun")).exit_status:
            pass
        for service in ("provider", "gateway", "executor", "registry"):
            await suite.kill(service)
        await workspace.write("go", b"")
        assert (await execution.wait()).exit.code == 0
        # The proxy itself: what comes is served by the next one.
        before = suite.proxy_pid()
        os.kill(before, signal.SIGKILL)
        await until(lambda: suite.proxy_pid() not in (0, before), "the proxy is started again")
        tunnel = talk.replace('open("begun", "w").close()', "")
        assert (await workspace.execute("python3", "-c", tunnel)).text == "b'still'\n"
        await workspace.delete(force=True)
