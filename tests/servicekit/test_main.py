"""`main`, run for real as a process."""

import asyncio
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

_PROGRAM = """
import gc
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import ClassVar

from servicekit import loops
from servicekit.config import ServerConfig, StartError
from servicekit.main import main
from servicekit.server import serving

@dataclass(frozen=True, slots=True, kw_only=True)
class Config(ServerConfig):
    service: ClassVar[str] = "demo"

@asynccontextmanager
async def demo(config):
    if config.admin_address == "broken":
        raise StartError("the database is too new")
    async with serving(config, {}) as served:
        yield served
    print("closed" if gc.isenabled() else "nothing was ever collected", flush=True)

gc.disable()
sys.exit(main(Config.from_env, demo, loops.fast))
"""


@asynccontextmanager
async def process(folder: Path, **variables: str) -> AsyncIterator[Process]:
    env = {"PATH": os.defpath, "COVE_STATE": f"{folder}/s", "COVE_RUNTIME": f"{folder}/r"}
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PROGRAM, env=env | variables, stdout=PIPE, stderr=PIPE
    )
    try:
        async with asyncio.timeout(30):
            yield running
    finally:
        if running.returncode is None:
            running.kill()
        await running.communicate()


async def line(stream: asyncio.StreamReader | None) -> Any:
    assert stream is not None
    return json.loads(await stream.readline())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_serves_until_it_is_told_to_stop(tmp_path: Path, number: signal.Signals) -> None:
    async with process(tmp_path) as running:
        ready = await line(running.stdout)
        assert ready == {"service": "demo", "addresses": [f"unix:{tmp_path}/r/demo"]}
        async with grpc.aio.insecure_channel(ready["addresses"][0]) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest())
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        running.send_signal(number)
        out, err = await running.communicate()
        assert running.returncode == 0
        assert out == b"closed\n"
        logged = [json.loads(text) for text in err.splitlines()]
        assert [each["message"] for each in logged] == ["serving", "stopping"]
        assert {each["service"] for each in logged} == {"demo"}


async def test_a_supervisor_is_told_when_it_serves_and_when_it_stops(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(f"{tmp_path}/notify")
        supervisor.settimeout(30)
        async with process(tmp_path, NOTIFY_SOCKET=f"{tmp_path}/notify") as running:
            assert await asyncio.to_thread(supervisor.recv, 100) == b"READY=1"
            async with grpc.aio.insecure_channel(f"unix:{tmp_path}/r/demo") as channel:
                stub: Any = health_pb2_grpc.HealthStub(channel)
                await stub.Check(health_pb2.HealthCheckRequest())
            running.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(supervisor.recv, 100) == b"STOPPING=1"


async def test_nobody_to_tell_is_no_failure(tmp_path: Path) -> None:
    async with process(tmp_path, NOTIFY_SOCKET=f"{tmp_path}/nobody") as running:
        await line(running.stdout)
        running.send_signal(signal.SIGTERM)
        await running.communicate()
    assert running.returncode == 0


async def test_it_serves_without_uvloop_too(tmp_path: Path) -> None:
    (tmp_path / "uvloop.py").write_text("raise ImportError")
    async with process(tmp_path, PYTHONPATH=f"{tmp_path}") as running:
        address = (await line(running.stdout))["addresses"][0]
        async with grpc.aio.insecure_channel(address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            await stub.Check(health_pb2.HealthCheckRequest())
        running.send_signal(signal.SIGTERM)
        out, _ = await running.communicate()
    assert (running.returncode, out) == (0, b"closed\n")


async def test_a_bad_config_exits_with_2_and_tells_all(tmp_path: Path) -> None:
    bad = {"COVE_DEMO__X": "1", "COVE_DEMO__SHUTDOWN_GRACE": "soon"}
    async with process(tmp_path, **bad) as running:
        out, err = await running.communicate()
    assert running.returncode == 2
    assert out == b""
    assert err.decode().splitlines() == [
        "COVE_DEMO__SHUTDOWN_GRACE: not a duration like 30, 30s, 5m or 1h30m",
        "COVE_DEMO__X: unknown",
    ]


async def test_an_address_in_use_exits_with_1(tmp_path: Path) -> None:
    async with process(tmp_path) as first:
        await line(first.stdout)
        async with process(tmp_path) as second:
            _, err = await second.communicate()
        assert second.returncode == 1
        assert b"another server listens here" in err
        assert first.returncode is None


async def test_what_cannot_start_exits_with_1(tmp_path: Path) -> None:
    async with process(tmp_path, COVE_DEMO__ADMIN_ADDRESS="broken") as running:
        _, err = await running.communicate()
    assert (running.returncode, err) == (1, b"the database is too new\n")


@pytest.mark.parametrize("package", ["servicekit", "services", "gateway", "services.registry"])
async def test_how_grpc_works_is_set_before_it_is_imported(package: str) -> None:
    program = f"""
import os, sys
import {package}
assert "grpc" not in sys.modules or {package!r} not in ("servicekit", "services", "gateway")
assert os.environ["GRPC_ENABLE_FORK_SUPPORT"] == "0"
assert os.environ["GRPC_VERBOSITY"] == "ERROR"
"""
    running = await asyncio.create_subprocess_exec(sys.executable, "-c", program, env={})
    assert await running.wait() == 0
