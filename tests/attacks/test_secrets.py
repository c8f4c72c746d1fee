"""Secrets are nowhere but where they belong: not in what is told to anybody, nor on the disk."""

import secrets
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from cove import Unauthenticated
from cove.client import Client
from tests.support.suite import SERVICES, Suite, running_suite

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.long]


@pytest.fixture(scope="module")
def runtime() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="cv-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def suite(tmp_path_factory: pytest.TempPathFactory, runtime: Path) -> AsyncIterator[Suite]:
    """One that tells all that it tells anybody: metrics, and every line of the log."""
    env = {}
    for service in SERVICES:
        env[f"COVE_{service.upper()}__ADMIN_ADDRESS"] = f"unix:{runtime}/{service}.admin"
        env[f"COVE_{service.upper()}__LOG_LEVEL"] = "debug"
    folder = tmp_path_factory.mktemp("suite")
    async with running_suite(folder, env=env, runtime=runtime / "r") as running:
        yield running


async def test_secrets_are_nowhere_but_where_they_belong(suite: Suite, runtime: Path) -> None:
    """Of each kind one that nothing else has: in what is told to anybody, and on the disk."""
    password, value, content, wrong = (f"canary{secrets.token_hex(16)}" for _ in range(4))
    async with Client(suite.grpc, suite.token, acting_for="acme") as operator:
        admin = (await operator.tokens.create("admin")).secret
    async with Client(suite.grpc, admin) as acme:
        token = (await acme.tokens.create("reader", description="canary")).secret
        guest = Client(suite.grpc, token)
        async with guest, Client(suite.grpc, wrong) as stranger:
            [each async for each in guest.workspaces.list()]
            with pytest.raises(Unauthenticated):
                await stranger.workspaces.get("canary")
        workspace = await acme.workspaces.create(id="canary")
        await workspace.write("secret.txt", content)
        done = await workspace.execute("sh", "-c", 'test -n "$CANARY"', secrets={"CANARY": value})
        assert done.exit_status == 0
        async with httpx.AsyncClient(base_url=f"http://{suite.http}", timeout=60) as http:
            headers = {"authorization": f"Bearer {admin}"}
            credentials = {"https": {"username": "x", "password": password}}
            answers = [
                await http.post(
                    "/workspaces/canary/git/push",
                    json={"remote": "https://127.0.0.1/x.git", "credentials": credentials},
                    headers=headers,
                ),
                await http.post("/workspaces", json={"odd": password}, headers=headers),
                await http.get("/workspaces", headers={"authorization": f"Bearer {wrong}"}),
                await http.get("/audit?pageSize=1000", headers=headers),
            ]
        told = [each.content for each in answers]
    metrics = []
    with ExitStack() as stack:
        for service in SERVICES:
            transport = httpx.HTTPTransport(uds=str(runtime / f"{service}.admin"))
            web = stack.enter_context(
                httpx.Client(transport=transport, base_url="http://x", timeout=60)
            )
            metrics.append(web.get("/metrics").content)
    assert all(b"cove_" in each for each in metrics)
    everything = (password, value, content, wrong, token)
    for text in (*told, *metrics, suite.log.read_bytes()):
        assert [each for each in everything if each.encode() in text] == []
    assert "CreateToken" in answers[-1].text
    for each, belongs in (
        (password, ""),
        (value, ""),
        (wrong, ""),
        (token, ""),
        (content, "git/worktrees"),
    ):
        found = subprocess.run(
            ["grep", "-rlaF", "--devices=skip", each, suite.state, runtime],
            capture_output=True,
            text=True,
        ).stdout.splitlines()
        assert [path for path in found if not belongs or belongs not in path] == []
        assert bool(found) == bool(belongs)


async def test_services_leave_no_core(suite: Suite) -> None:
    for service in SERVICES:
        limits = Path(f"/proc/{suite.pid(service)}/limits").read_text()
        (line,) = [each for each in limits.splitlines() if each.startswith("Max core file size")]
        assert set(line.split()[4:6]) <= {"0", "1"}
