"""Ports, processes and secrets as callers have them: SDK, blocking SDK, HTTP, command line."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from cove import NotFound, Workspace, sync
from cove.cli.errors import UsageError
from cove.cli.secrets import given
from tests.support.suite import Suite, until
from tests.support.walking import contents

pytestmark = pytest.mark.asyncio(loop_scope="package")

VALUE = "hush-7a1e55e8-hush"
PORT = 8000
SERVER = "python3 -m http.server --bind 127.0.0.1 8000 >/dev/null 2>&1 & "
WAIT = "until (: </dev/tcp/127.0.0.1/8000) 2>/dev/null; do sleep 0.02; done"


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def served(suite: Suite) -> AsyncIterator[Workspace]:
    """A workspace whose first execution left a server behind."""
    async with suite.client() as cove:
        workspace = await cove.workspaces.create(id="served")
        await workspace.write("hello.txt", b"hello from inside\n")
        started = await workspace.execute(script=SERVER, id="server")
        assert started.exit_status == 0
        up = await workspace.execute("bash", "-c", WAIT, timeout=30)
        assert up.exit_status == 0
        yield workspace
        await workspace.delete(force=True)


async def run(*argv: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return output.decode()


async def test_a_server_is_reached_from_the_next_execution_and_from_outside(
    served: Workspace,
) -> None:
    fetch = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8000/hello.txt').read())"
    inside = await served.execute("python3", "-c", fetch)
    assert inside.text == "b'hello from inside\\n'\n"
    async with served.forward(PORT) as forward:
        address = f"http://127.0.0.1:{forward.port}/hello.txt"
        for _ in range(3):
            assert await run("curl", "-sS", "-m", "20", address) == "hello from inside\n"
        assert await served.execute("true")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", int(address.split(":")[2].split("/")[0]))


async def test_many_connections_at_once(served: Workspace) -> None:
    async with served.forward(PORT) as forward, httpx.AsyncClient(trust_env=False) as client:
        address = f"http://127.0.0.1:{forward.port}/hello.txt"
        answers = await asyncio.gather(*(client.get(address, timeout=30) for _ in range(30)))
        assert {each.text for each in answers} == {"hello from inside\n"}


async def test_where_nothing_listens_the_connection_is_reset_and_told(served: Workspace) -> None:
    told: list[str] = []
    forward = served.forward(9)
    forward.on_failure = lambda error: told.append(error.reason)
    async with forward:
        reader, writer = await asyncio.open_connection("127.0.0.1", forward.port)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
    assert told == ["ERROR_REASON_PORT_NOT_LISTENING"]


async def test_the_blocking_client_forwards_too(suite: Suite, served: Workspace) -> None:
    def fetch() -> str:
        with (
            sync.Client(suite.grpc, suite.token) as cove,
            cove.workspaces.get(served.id).forward(PORT) as forward,
        ):
            address = f"http://127.0.0.1:{forward.port}/hello.txt"
            return httpx.get(address, timeout=20, trust_env=False).text

    assert await asyncio.to_thread(fetch) == "hello from inside\n"


@asynccontextmanager
async def forwarding(suite: Suite, *arguments: str) -> AsyncIterator[dict[str, object]]:
    """`cove forward --json`; what its first line says."""
    process = await asyncio.create_subprocess_exec(
        *suite.command("forward", "--json", *arguments),
        stdout=asyncio.subprocess.PIPE,
        env={**suite.env, "COVE_STATE": str(suite.state)},
    )
    try:
        assert process.stdout
        yield json.loads(await asyncio.wait_for(process.stdout.readline(), 30))
    finally:
        process.terminate()
        assert await process.wait() == 0


async def test_cove_forward_with_curl(suite: Suite, served: Workspace) -> None:
    async with forwarding(suite, served.id, f"0:{PORT}") as told:
        assert told["port"] == PORT
        text = await run("curl", "-sS", "-m", "20", f"http://{told['address']}/hello.txt")
        assert text == "hello from inside\n"
    assert (await suite.cove("forward", served.id, "1:2:3")).status == 2
    assert (await suite.cove("forward", "no-such", "80")).status == 1


async def test_what_an_ended_command_left_is_shown(suite: Suite, served: Workspace) -> None:
    found = await served.executions.named("server").refresh()
    assert found.exit.code == 0
    assert [each.argv[:3] for each in found.processes.processes] == [
        ["python3", "-m", "http.server"]
    ]
    shown = (await suite.cove("ps", served.id)).text
    assert "http.server" in shown.split("PROCESS\n")[1]
    answers = json.loads((await suite.cove("ps", "--json", served.id)).text)["executions"]
    totals = {
        each["name"].rpartition("/")[2]: each["processes"]["total"]
        for each in answers
        if each["processes"]
    }
    assert totals == {"server": 1}


def everything(suite: Suite) -> Iterator[tuple[str, bytes]]:
    """All that is kept of the suite, and what /proc tells of every process."""
    for folder in (suite.state, suite.runtime, suite.log.parent):
        yield from ((str(each), data) for each, data in contents(folder))
    for each in Path("/proc").glob("[0-9]*"):
        if int(each.name) != os.getpid():
            for name in ("cmdline", "environ"):
                with suppress(OSError):
                    yield f"{each}/{name}", (each / name).read_bytes()


async def test_a_secret_is_nowhere_but_in_its_command(
    suite: Suite, served: Workspace, http: httpx.AsyncClient
) -> None:
    script = "echo $TOKEN; touch ready; until [ -e over ]; do sleep 0.02; done"
    spec = {"script": script, "secrets": {"TOKEN": VALUE}, "redact": True}
    path = f"/workspaces/{served.id}/executions?execution_id=secret"
    headers = {"idempotency-key": "5a0a1c5e-94cb-4c1c-8b75-5dbb5c3d9d10"}
    for _ in range(2):
        answer = await http.post(path, json={"spec": spec}, headers=headers)
        assert answer.status_code == 201, answer.text
        assert VALUE not in answer.text
        assert answer.json()["spec"]["secrets"] == {"TOKEN": ""}

    await served.execute("sh", "-c", "until [ -e ready ]; do sleep 0.02; done", timeout=30)
    seen = await served.execute("sh", "-c", "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline")
    assert VALUE.encode() not in seen.stdout
    assert b"PATH=" in seen.stdout
    found = await asyncio.to_thread(list, everything(suite))
    having = {name: data for name, data in found if VALUE.encode() in data}
    assert having
    for name, data in having.items():  # The command, and what it runs.
        assert name.endswith("/environ")
        assert b"COVE_EXECUTION_ID=secret." in data
    await served.execute("touch", "over")
    ended = await served.executions.named("secret").wait()
    assert ended.exit.code == 0
    await until(
        lambda: not any(VALUE.encode() in data for _, data in everything(suite)), "it is gone"
    )
    result = await served.execute("sh", "-c", "echo $TOKEN", secrets={"TOKEN": VALUE}, redact=True)
    assert result.text == "***\n"


async def test_a_secret_of_the_wrong_type_is_refused_and_not_logged(
    suite: Suite, served: Workspace, http: httpx.AsyncClient
) -> None:
    for secrets in ({"TOKEN": {"value": VALUE}}, {"TOKEN": [VALUE]}, VALUE, {VALUE: "x"}):
        body = {"spec": {"script": "true", "secrets": secrets}}
        answer = await http.post(f"/workspaces/{served.id}/execute", json=body)
        assert answer.status_code == 400
    assert VALUE.encode() not in suite.log.read_bytes()


async def test_cove_exec_takes_secrets_from_environment_and_file(
    suite: Suite, served: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text(f"{VALUE}\n")
    name = f"FILE=@{tmp_path}/key"
    argv = [
        "exec",
        served.id,
        "--secret",
        name,
        "--redact",
        "--script",
        "echo =$FILE=; echo ${#FILE}",
    ]
    assert (await suite.cove(*argv)).text == f"=***=\n{len(VALUE)}\n"
    suite_env = {**suite.env, "COVE_STATE": str(suite.state), "HUSH": VALUE}
    process = await asyncio.create_subprocess_exec(
        *suite.command("exec", served.id, "--secret", "HUSH", "printenv", "HUSH"),
        stdout=asyncio.subprocess.PIPE,
        env=suite_env,
    )
    output, _ = await process.communicate()
    assert output.decode() == f"{VALUE}\n"
    with pytest.raises(UsageError) as caught:
        given([f"HUSH={VALUE}"], [])
    assert VALUE not in str(caught.value)
    for bad in ("NOT_SET_ANYWHERE", "HUSH=@/no/such"):
        with pytest.raises(UsageError):
            given([bad], [])


async def test_what_the_server_keeps_is_given_by_name(suite: Suite, served: Workspace) -> None:
    with pytest.raises(NotFound):
        await served.execute("true", secrets={"KEPT": None})
    folder = suite.state / "executor" / "secrets" / "default"
    folder.mkdir(parents=True, mode=0o700)
    (folder / "KEPT").touch(mode=0o600)
    (folder / "KEPT").write_text(VALUE)
    done = await served.execute("printenv", "KEPT", secrets={"KEPT": None})
    assert done.text == f"{VALUE}\n"
    assert given([], ["KEPT"]) == {"KEPT": None}
