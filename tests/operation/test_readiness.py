"""A gateway says that it is ready when it can do its work, and not before."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cove import health
from gateway.readiness import Readiness
from servicekit.health import NOT_SERVING, SERVING, Health
from tests.support.suite import running_suite

SOURCE = "cove.gateway.v1.SourceService"
WORKSPACES = "cove.gateway.v1.WorkspaceService"


async def test_without_a_registry_it_is_not_ready(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    token.chmod(0o600)
    (tmp_path / "r").mkdir(mode=0o700)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "gateway"),
        env={
            "PATH": os.environ["PATH"],
            "COVE_STATE": f"{tmp_path}/s",
            "COVE_RUNTIME": f"{tmp_path}/r",
            "COVE_GATEWAY__TOKEN_FILE": str(token),
            "COVE_GATEWAY__HTTP": "127.0.0.1:0",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert process.stdout
        async with asyncio.timeout(30):
            ready = json.loads(await process.stdout.readline())
            assert await health.ask(ready["addresses"][0], timeout=30) == "NOT_SERVING"
            async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
                assert (await http.get(f"http://{ready['http']}/readyz")).status_code == 503
                assert (await http.get(f"http://{ready['http']}/healthz")).status_code == 200
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_restart_is_no_reason_and_an_outage_is() -> None:
    """One service's tool away is no reason for the others."""
    there = {"registry": True, "git": True}

    async def registry() -> bool:
        return there["registry"]

    async def git() -> bool:
        return there["git"]

    readiness, told = Readiness({"registry": registry, "git": git, "executor": registry}), Health()
    services = dict.fromkeys((SOURCE, WORKSPACES))

    async def after(looks: int) -> tuple[int, int, int]:
        for _ in range(looks):
            for tool in readiness.told():
                await readiness.look(tool)
        readiness.tell(told, services)
        return tuple([await status(told, each) for each in ("", SOURCE, WORKSPACES)])  # type: ignore[return-value]

    assert await after(0) == (NOT_SERVING, NOT_SERVING, NOT_SERVING)
    assert await after(1) == (SERVING, SERVING, SERVING)
    there["git"] = False
    assert await after(4) == (SERVING, SERVING, SERVING)
    assert await after(1) == (SERVING, NOT_SERVING, SERVING)
    there.update(git=True, registry=False)
    assert await after(5) == (NOT_SERVING, NOT_SERVING, NOT_SERVING)
    there["registry"] = True
    assert await after(1) == (SERVING, SERVING, SERVING)


async def status(told: Health, service: str) -> int:
    server = grpc.aio.server()
    told.add_to(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            request = health_pb2.HealthCheckRequest(service=service)
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(request)
            return int(answer.status)
    finally:
        await server.stop(0)


@pytest.mark.long
async def test_a_registry_that_stands_still_is_told_of_and_comes_back(tmp_path: Path) -> None:
    async with running_suite(tmp_path) as suite:
        assert await health.ask(suite.grpc) == "SERVING"
        registry = suite.pid("registry")
        os.kill(registry, signal.SIGSTOP)
        try:
            await becomes(suite.grpc, "NOT_SERVING")
        finally:
            os.kill(registry, signal.SIGCONT)
        await becomes(suite.grpc, "SERVING")


async def becomes(address: str, wanted: str) -> None:
    async with asyncio.timeout(60):
        while await health.ask(address) != wanted:  # noqa: ASYNC110 - of another process.
            await asyncio.sleep(0.05)
