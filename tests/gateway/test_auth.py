"""Who is let in, and what the gateway shows to whom."""

import os
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from cove.gateway.v1 import gateway_pb2 as pb
from gateway.config import Config
from gateway.identity.certificates import CertificateAuthenticator, Handed
from gateway.identity.file import FileAuthenticator
from gateway.identity.keys import FileKeys
from servicekit.config import ConfigError
from servicekit.errors import Unauthenticated
from servicekit.identity import Caller
from tests.gateway.stage import Gateway, Stage, eventually
from tests.servicekit.failing import failure
from tests.support.processes import no_descriptors

TOKEN = "cove_" + "t" * 43
SERVICES = {
    f"cove.gateway.v1.{name}Service"
    for name in ("Workspace", "Execution", "File", "Source", "Access", "Audit")
}


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    return _write(tmp_path / "token", TOKEN)


async def test_who_shows_the_token_is_let_in_as_admin(stage: Stage, token_file: Path) -> None:
    async with stage.gateway(no_auth=False, token_file=token_file) as gateway:
        made = await gateway.workspaces.CreateWorkspace(stage.create(), metadata=_bearer(TOKEN))
        assert made.workspace.creator == "admin"


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", TOKEN),),
        (("authorization", f"Basic {TOKEN}"),),
        (("authorization", "Bearer"),),
        (("authorization", "Bearer "),),
        (("authorization", f"Bearer {TOKEN}x"),),
        (("authorization", f"Bearer {TOKEN[:-1]}"),),
        (("cove-principal", "admin"), ("cove-tenant", "default")),
        (("cove-service-token", TOKEN),),
    ],
)
async def test_who_does_not_is_not_let_in(
    stage: Stage, token_file: Path, metadata: tuple[tuple[str, str], ...]
) -> None:
    async with stage.gateway(no_auth=False, token_file=token_file) as gateway:
        for call in (
            gateway.workspaces.ListWorkspaces(pb.ListWorkspacesRequest(), metadata=metadata),
            gateway.files.ReadFile(pb.ReadFileRequest(name="workspaces/x"), metadata=metadata),
        ):
            failed = await failure(call)
            assert failed.code is grpc.StatusCode.UNAUTHENTICATED
            assert failed.reason == "UNAUTHENTICATED"


async def test_a_caller_cannot_choose_who_it_is(stage: Stage, token_file: Path) -> None:
    async with stage.gateway(no_auth=False, token_file=token_file) as gateway:
        forged = (*_bearer(TOKEN), ("cove-principal", "eve"))
        await gateway.workspaces.CreateWorkspace(stage.create(), metadata=forged)
    (record,) = await stage.records()
    assert (record.tenant, record.creator) == ("default", "admin")


async def test_a_new_token_counts_at_once(stage: Stage, token_file: Path) -> None:
    async with stage.gateway(no_auth=False, token_file=token_file) as gateway:
        await _list(gateway, TOKEN)
        fresh = _write(token_file.with_name("fresh"), "another-token")
        fresh.replace(token_file)
        await _list(gateway, "another-token")
        assert (await failure(_listing(gateway, TOKEN))).reason == "UNAUTHENTICATED"


async def test_an_old_token_is_believed_for_some_milliseconds(token_file: Path) -> None:
    now = 0.0
    authenticator = FileAuthenticator(token_file, lambda: now)
    caller = Caller(dict(_bearer(TOKEN)), "unix:")
    await authenticator.authenticate(caller)
    _write(token_file.with_name("fresh"), "another-token").replace(token_file)
    now = 0.019
    await authenticator.authenticate(caller)
    now = 0.021
    with pytest.raises(Unauthenticated):
        await authenticator.authenticate(caller)


async def test_a_token_file_that_others_can_read_lets_nobody_in(
    stage: Stage, token_file: Path
) -> None:
    async with stage.gateway(no_auth=False, token_file=token_file) as gateway:
        token_file.chmod(0o640)
        assert (await failure(_listing(gateway, TOKEN))).reason == "UNAUTHENTICATED"
        token_file.chmod(0o600)
        await _list(gateway, TOKEN)
        token_file.unlink()
        await eventually(lambda: _refused(gateway, TOKEN))
    token_file.touch(mode=0o644)
    with pytest.raises(ConfigError, match="chmod 0600"):
        async with stage.gateway(no_auth=False, token_file=token_file):
            pass


async def test_a_file_that_could_not_be_opened_just_then_is_opened_later(
    token_file: Path, tmp_path: Path
) -> None:
    """As when no descriptor is left in the moment after it was replaced."""
    rules, keys = tmp_path / "rules", tmp_path / "keys"
    rules.write_text("spiffe://acme.test/x acme reader\n")
    keys.write_text('{"keys": []}')
    by_token, by_keys = FileAuthenticator(token_file), FileKeys(keys)
    by_certificate = CertificateAuthenticator(rules, Handed())
    bot = Caller({}, "ipv4:127.0.0.1:1", ("spiffe://acme.test/x",))
    before = by_keys.generation
    for path in (token_file, rules, keys):
        _write(path.with_suffix(".fresh"), path.read_text()).replace(path)
    with no_descriptors():
        for known, caller in ((by_token, Caller(dict(_bearer(TOKEN)), "")), (by_certificate, bot)):
            with pytest.raises(Unauthenticated):
                await known.authenticate(caller)
        assert by_keys.generation == before
    await by_token.authenticate(Caller(dict(_bearer(TOKEN)), ""))
    await by_certificate.authenticate(bot)
    assert by_keys.generation == before + 1


async def test_a_token_file_that_cannot_be_one_is_told_at_the_start(
    stage: Stage, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir(mode=0o700)
    with pytest.raises(ConfigError, match="folder: cannot be read: Is a directory"):
        async with stage.gateway(no_auth=False, token_file=tmp_path / "folder"):
            pass


async def test_a_token_that_is_not_there_yet_is_told_and_counts_once_it_is(
    stage: Stage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with stage.gateway(no_auth=False, token_file=tmp_path / "later") as gateway:
        assert f"no caller is let in until there is {tmp_path}/later" in caplog.text
        _write(tmp_path / "later", TOKEN)
        await _list(gateway, TOKEN)


@pytest.mark.parametrize("field", ["grpc", "http", "address"])
@pytest.mark.parametrize("address", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "example.org:1", ":1"])
def test_no_auth_is_refused_where_others_can_come(tmp_path: Path, field: str, address: str) -> None:
    value: Any = (address,) if field == "address" else address
    with pytest.raises(ConfigError, match="NO_AUTH"):
        Config(state=tmp_path, runtime=tmp_path, no_auth=True, **{field: value})


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:1", "localhost:1"])
def test_no_auth_is_allowed_on_loopback(tmp_path: Path, address: str) -> None:
    config = Config(state=tmp_path, runtime=tmp_path, no_auth=True, grpc=address, http=address)
    assert config.addresses == (address, f"unix:{tmp_path}/gateway")


def test_the_tools_are_behind_their_unix_sockets_unless_named(tmp_path: Path) -> None:
    env = {
        "COVE_STATE": str(tmp_path),
        "COVE_RUNTIME": str(tmp_path),
        "COVE_GATEWAY__GIT": "git.internal:7000",
    }
    config = Config.from_env(env)
    assert config.tool("git") == "git.internal:7000"
    assert config.tool("registry") == f"unix:{tmp_path}/registry"
    assert config.token_path == tmp_path / "registry" / "token"


async def test_health_is_told_to_everyone_and_reflection_to_who_is_let_in(
    stage: Stage, token_file: Path
) -> None:
    async with (
        stage.gateway(no_auth=False, token_file=token_file) as gateway,
        grpc.aio.insecure_channel(gateway.address) as channel,
    ):
        health: Any = health_pb2_grpc.HealthStub(channel)
        for service in ("", *SERVICES):
            request = health_pb2.HealthCheckRequest(service=service)
            watch = health.Watch(request, timeout=30)
            try:  # It is ready when the tools have answered.
                while (await watch.read()).status != health_pb2.HealthCheckResponse.SERVING:
                    pass
            finally:
                watch.cancel()
            answer = await health.Check(request)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        listed = await _reflected(channel, _bearer(TOKEN))
        assert listed >= {*SERVICES, "grpc.health.v1.Health"}
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _reflected(channel, ())
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_it_also_serves_on_tcp_and_http(stage: Stage) -> None:
    async with stage.gateway(grpc="127.0.0.1:0", http="127.0.0.1:0") as gateway:
        assert gateway.address.startswith("127.0.0.1:")
        await gateway.workspaces.ListWorkspaces(pb.ListWorkspacesRequest())


async def _reflected(channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...]) -> set[str]:
    messages: Any = reflection_pb2
    make: Any = reflection_pb2_grpc.ServerReflectionStub
    request = messages.ServerReflectionRequest(list_services="")
    call = make(channel).ServerReflectionInfo(iter([request]), metadata=metadata)
    answers = [answer async for answer in call]
    return {each.name for answer in answers for each in answer.list_services_response.service}


def _listing(gateway: Gateway, token: str) -> Any:
    return gateway.workspaces.ListWorkspaces(pb.ListWorkspacesRequest(), metadata=_bearer(token))


async def _list(gateway: Gateway, token: str) -> None:
    await _listing(gateway, token)


async def _refused(gateway: Gateway, token: str) -> bool:
    try:
        await _list(gateway, token)
    except grpc.aio.AioRpcError as error:
        return error.code() is grpc.StatusCode.UNAUTHENTICATED
    return False


def _bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def _write(path: Path, token: str) -> Path:
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(token + "\n")
    return path
