"""What somebody who can reach the ports, with a token or without, may try."""

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio
from grpc_reflection.v1alpha import reflection_pb2_grpc

from cove.client import Client
from cove.executor.v1.executor_pb2 import Execution, ExecutionSpec
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import (
    ExecutionServiceStub,
    FileServiceStub,
    WorkspaceServiceStub,
)
from cove.git.v1.git_pb2 import Credentials
from cove.registry.v1.registry_pb2 import ListEnvironmentsRequest
from cove.registry.v1.registry_pb2_grpc import RegistryServiceStub
from cove.status import CoveError
from cove.workspace import Workspace
from tests.support.people import as_user
from tests.support.suite import Suite
from tests.support.walking import all_in

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOBODY = 65534
LIST = pb.ListWorkspacesRequest(page_size=1)


@pytest_asyncio.fixture(loop_scope="module")
async def channel(suite: Suite) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(suite.grpc) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def http(suite: Suite) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=f"http://{suite.http}", timeout=30, trust_env=False
    ) as client:
        yield client


def bearer(suite: Suite) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {suite.token}"),)


def raw(address: str, request: bytes) -> bytes:
    """Send bytes as they are; all that comes back."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), 30) as peer:
        answer = b""
        with suppress(ConnectionError):  # It may hang up on what it will not read.
            peer.sendall(request)
            while data := peer.recv(65536):
                answer += data
    return answer


def get(suite: Suite, path: str, *headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {suite.token}"]
    lines += [*headers, "Connection: close", "", ""]
    return raw(suite.http, "\r\n".join(lines).encode("latin-1"))


async def refused(call: object, *codes: grpc.StatusCode) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    assert caught.value.code() in codes, caught.value


async def test_only_the_whole_token_lets_in(
    suite: Suite, channel: grpc.aio.Channel, http: httpx.AsyncClient
) -> None:
    stub = WorkspaceServiceStub(channel)
    token = suite.token
    await stub.ListWorkspaces(LIST, metadata=bearer(suite))
    assert (
        await http.get("/workspaces", headers={"authorization": f"Bearer {token}"})
    ).status_code == 200
    wrong = ["", "Bearer", "Bearer ", f"Bearer {token[:-1]}", f"Bearer {token}x", token]
    wrong += [f"Basic {token}", f"Bearer {token[::-1]}", f"Bearer {token.swapcase()}"]
    for shown in wrong:
        metadata = (("authorization", shown),)
        await refused(stub.ListWorkspaces(LIST, metadata=metadata), grpc.StatusCode.UNAUTHENTICATED)
        answer = await http.get("/workspaces", headers={"authorization": shown.strip()})
        assert answer.status_code == 401, shown


async def test_without_a_token_nothing_but_health_answers(
    suite: Suite, channel: grpc.aio.Channel, http: httpx.AsyncClient
) -> None:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]
    # Nothing is sent: grpc.aio tells a write that races with the refusal as INTERNAL.
    stream = stub.ServerReflectionInfo()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    for path in ("/workspaces", "/workspaces/x", "/workspaces/x/files/y", "/capabilities"):
        assert (await http.get(path)).status_code in (401, 404), path
    assert (await http.get("/healthz")).status_code == 200


async def test_identity_cannot_be_smuggled_in(
    suite: Suite, channel: grpc.aio.Channel, http: httpx.AsyncClient, repository: Path
) -> None:
    claims = (("cove-principal", "mallory"), ("cove-service-token", ""))
    elsewhere = (*claims, ("cove-tenant", "other"))  # Which an operator may say, see tests/access.
    stub = WorkspaceServiceStub(channel)
    await refused(stub.ListWorkspaces(LIST, metadata=elsewhere), grpc.StatusCode.UNAUTHENTICATED)
    headers = {f"grpc-metadata-{name}": value for name, value in elsewhere}
    refusal = await http.get("/workspaces", headers=headers | dict(elsewhere))
    assert refusal.status_code == 401
    headers |= dict(claims)

    request = pb.CreateWorkspaceRequest(workspace_id=f"attack-{secrets.token_hex(4)}")
    request.workspace.spec.repository = f"file://{repository}"
    made = (await stub.CreateWorkspace(request, metadata=(*bearer(suite), *claims))).workspace
    assert made.creator == "admin"
    headers["authorization"] = f"Bearer {suite.token}"
    seen = (await http.get(f"/{made.name}", headers=headers)).json()
    assert (seen["uid"], seen["creator"]) == (made.uid, "admin")  # Still of the same tenant.
    await stub.DeleteWorkspace(
        pb.DeleteWorkspaceRequest(name=made.name, force=True), metadata=bearer(suite)
    )


async def test_the_tools_are_not_on_the_callers_port(
    suite: Suite, channel: grpc.aio.Channel
) -> None:
    call = RegistryServiceStub(channel).ListEnvironments(
        ListEnvironmentsRequest(), metadata=bearer(suite)
    )
    await refused(call, grpc.StatusCode.UNIMPLEMENTED)


async def test_no_other_user_of_the_host_reaches_sockets_or_state(suite: Suite) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    sockets = sorted(str(path) for path in all_in(suite.runtime) if path.is_socket())
    assert len(sockets) >= 6
    files = [str(suite.state / "registry" / "token"), str(suite.state / "registry")]
    script = (
        "import os, socket, sys\n"
        "for path in sys.argv[2:]:\n"
        "    try:\n"
        "        if sys.argv[1] == 'file':\n"
        "            os.close(os.open(path, os.O_RDONLY))\n"
        "        else:\n"
        "            socket.socket(socket.AF_UNIX).connect(path)\n"
        "        print(path)\n"
        "    except PermissionError:\n"
        "        pass\n"
    )
    for kind, paths in (("socket", sockets), ("file", files)):
        argv = [sys.executable, "-c", script, kind, *paths]
        reached = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        assert reached.splitlines() == paths  # Root can, so they are there.
        other = subprocess.run(as_user(NOBODY, argv), capture_output=True, text=True, check=True)
        assert other.stdout == ""


async def test_page_tokens_are_good_for_their_own_list_only(
    suite: Suite, channel: grpc.aio.Channel, workspace: Workspace, neighbour: Workspace
) -> None:
    stub, metadata = WorkspaceServiceStub(channel), bearer(suite)
    token = (await stub.ListWorkspaces(LIST, metadata=metadata)).next_page_token
    assert token
    request = pb.ListWorkspacesRequest(page_size=1, page_token=token)
    assert (await stub.ListWorkspaces(request, metadata=metadata)).workspaces
    changed = ("B" if token[0] == "A" else "A") + token[1:]
    for bad in (changed, token[1:], token + token, "é", "A" * 100, "A" * 100_000):
        request = pb.ListWorkspacesRequest(page_size=1, page_token=bad)
        await refused(
            stub.ListWorkspaces(request, metadata=metadata), grpc.StatusCode.INVALID_ARGUMENT
        )
    other = pb.ListWorkspacesRequest(page_size=1, page_token=token, show_deleted=True)
    await refused(stub.ListWorkspaces(other, metadata=metadata), grpc.StatusCode.INVALID_ARGUMENT)


@pytest.mark.parametrize(
    "path",
    [
        "../../../../etc/passwd",
        "%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "%252e%252e/%252e%252e/etc/passwd",
        "..%2f..%2f..%2fetc%2fpasswd",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "out/passwd",
        "README.md%00/../../../etc/passwd",
        "..%5c..%5cetc%5cpasswd",
        "./.git/../../etc/passwd",
        "%c0%ae%c0%ae/etc/passwd",
    ],
)
async def test_no_path_of_http_leads_out(suite: Suite, workspace: Workspace, path: str) -> None:
    await workspace.execute("ln", "-s", "/etc", "out")
    good = get(suite, f"/{workspace.name}/files/README.md")
    assert good.startswith(b"HTTP/1.1 200")
    assert good.endswith(b"hello\n")
    bad = get(suite, f"/{workspace.name}/files/{path}")
    assert bad.split()[1] in (b"400", b"404"), bad
    assert b"root:" not in bad


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "out/passwd", "/proc/1/environ", "/", "a\0b", "a/" * 3000]
)
async def test_no_path_of_grpc_leads_out(
    suite: Suite, channel: grpc.aio.Channel, workspace: Workspace, path: str
) -> None:
    await workspace.execute("ln", "-s", "/etc", "out")
    stub, metadata = FileServiceStub(channel), bearer(suite)
    for call in (
        stub.ReadFile(pb.ReadFileRequest(name=workspace.name, path=path), metadata=metadata).read(),
        stub.ListFiles(pb.ListFilesRequest(name=workspace.name, path=path), metadata=metadata),
        stub.RemoveFile(
            pb.RemoveFileRequest(name=workspace.name, path=path, recursive=True), metadata=metadata
        ),
    ):
        await refused(call, grpc.StatusCode.INVALID_ARGUMENT)


async def test_names_and_ids_are_no_paths(
    suite: Suite, channel: grpc.aio.Channel, workspace: Workspace
) -> None:
    metadata = bearer(suite)
    for name in ("workspaces/../x", "workspaces/a/b", "workspaces/a\0", "workspaces/", "x" * 9999):
        request = pb.GetWorkspaceRequest(name=name)
        call = WorkspaceServiceStub(channel).GetWorkspace(request, metadata=metadata)
        await refused(call, grpc.StatusCode.INVALID_ARGUMENT)
    for execution_id in ("../x", "a/b", "..", ".new-a", "A", "a" * 64, "a\n"):
        start = pb.StartExecutionRequest(
            parent=workspace.name,
            execution_id=execution_id,
            execution=Execution(spec=ExecutionSpec(argv=["true"])),
        )
        starting = ExecutionServiceStub(channel).StartExecution(start, metadata=metadata)
        await refused(starting, grpc.StatusCode.INVALID_ARGUMENT)


async def test_headers_cannot_be_injected_into_the_answer(
    suite: Suite, workspace: Workspace
) -> None:
    wished = "0af7651916cd43dd8448eb211c80319c"
    good = get(suite, f"/{workspace.name}", f"x-request-id: {wished}")
    assert f"x-request-id: {wished}".encode() in good  # It is echoed, so worth an attack.
    for value in ("a\rX-Evil: 1", "<script>", "a" * 5000, 'a", "level": "x'):
        answer = get(suite, f"/{workspace.name}", f"x-request-id: {value}")
        assert b"Evil" not in answer
        assert value.encode() not in answer
    answer = get(suite, "/workspaces/w%0d%0aX-Evil:1")
    assert b"\r\nX-Evil" not in answer


async def test_what_is_too_large_is_refused_unread(suite: Suite, channel: grpc.aio.Channel) -> None:
    head = f"POST /workspaces HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {suite.token}\r\n"
    answer = raw(
        suite.http, f"{head}Connection: close\r\nContent-Length: 1{'0' * 9}\r\n\r\n".encode()
    )
    assert answer.startswith(b"HTTP/1.1 413")
    answer = raw(suite.http, f"{head}X: {'a' * 300_000}\r\n\r\n".encode())
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    request = pb.CreateWorkspaceRequest()
    request.workspace.annotations["a"] = "b" * 20_000_000
    call = WorkspaceServiceStub(channel).CreateWorkspace(request, metadata=bearer(suite))
    await refused(call, grpc.StatusCode.RESOURCE_EXHAUSTED)


async def test_credentials_are_written_nowhere(
    suite: Suite, cove: Client, workspace: Workspace, repository: Path
) -> None:
    secret = f"hush{secrets.token_hex(8)}"
    https = Credentials(https=Credentials.Https(username="ada", password=secret))
    told: list[str] = []
    ssh = Credentials(ssh=Credentials.Ssh(private_key=secret, known_hosts="x"))
    for url, credentials in (
        (f"file://{repository}", https),
        ("https://127.0.0.1:1/a", https),
        ("ssh://git@127.0.0.1:1/a", ssh),
    ):
        try:
            made = await cove.workspaces.create(
                url, credentials=credentials, id=f"attack-{secrets.token_hex(4)}", keep_failed=True
            )
            await made.delete(force=True)
        except CoveError as error:
            told.append(str(error))
    assert secret not in str(told)
    with pytest.raises(CoveError):
        await workspace.push(remote="https://127.0.0.1:1/a", credentials=https)
    # The token of the suite is in its file alone; a file with it is found by the same search.
    holding = {word: holding_it(suite, word) for word in (secret, suite.token)}
    assert holding == {secret: [], suite.token: ["token"]}


def holding_it(suite: Suite, word: str) -> list[str]:
    """Names of the files in the state, and the log, that hold a word."""
    argv = ["grep", "--recursive", "--files-with-matches", "--text", "--fixed-strings", word]
    done = subprocess.run(
        [*argv, str(suite.state), str(suite.log)], capture_output=True, text=True, check=False
    )
    return [Path(line).name for line in done.stdout.splitlines()]


@pytest.mark.long
async def test_a_head_that_never_ends_is_given_up(suite: Suite) -> None:
    assert raw_slowly(suite.http) == b""


def raw_slowly(address: str) -> bytes:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), 30) as peer:
        peer.sendall(b"GET / HTTP/1.1\r\nHost:")
        return peer.recv(65536)
