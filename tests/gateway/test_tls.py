"""The gateway over TLS: who is known by a certificate, and the tools behind it."""

import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import httpx
import pytest
import pytest_asyncio

from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1 import gateway_pb2_grpc as rpc
from cove.registry.v1 import registry_pb2
from cove.registry.v1.registry_pb2_grpc import RegistryServiceStub
from gateway.app import gateway
from servicekit.config import ConfigError
from servicekit.server import Served
from services.registry.app import registry
from services.registry.config import Config as RegistryConfig
from tests.gateway.pki import BOT, HOST, READER, RULES, TOKEN, Pki, serving
from tests.servicekit.failing import Failure, failure
from tests.support.certificates import Authority


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest_asyncio.fixture(loop_scope="session")
async def served(tmp_path: Path, pki: Pki) -> AsyncIterator[Served]:
    async with serving(tmp_path, pki.config(tmp_path)) as served:
        async with grpc.aio.insecure_channel(f"unix:{tmp_path}/run/registry") as channel:
            for tenant in ("default", "acme"):
                await register(channel, tenant)
        yield served


async def register(channel: grpc.aio.Channel, tenant: str) -> None:
    """A workspace that is being made."""
    request = registry_pb2.RegisterEnvironmentRequest(
        environment_id=f"of-{tenant}", environment=registry_pb2.Environment(), holder="test"
    )
    request.environment.spec.repository = "file:///nowhere"
    request.lease.FromSeconds(3600)
    metadata = (("cove-tenant", tenant), ("cove-principal", "test"))
    await RegistryServiceStub(channel).RegisterEnvironment(request, metadata=metadata)


class Caller:
    def __init__(self, channel: grpc.aio.Channel, metadata: Any = ()) -> None:
        self._access = rpc.AccessServiceStub(channel)
        self._workspaces = rpc.WorkspaceServiceStub(channel)
        self._metadata = metadata

    async def list(self) -> list[str]:
        """Names of the workspaces of the caller's tenant."""
        request = pb.ListWorkspacesRequest()
        answer = await self._workspaces.ListWorkspaces(request, metadata=self._metadata)
        return [each.name for each in answer.workspaces]

    def limit(self) -> Any:
        """For administrators only; needs tools that are not there."""
        request = pb.UpdateQuotaRequest()
        request.quota.limits.workspaces = 1
        request.update_mask.paths.append("limits.workspaces")
        return self._access.UpdateQuota(request, metadata=self._metadata, timeout=10)

    async def failure(self) -> Failure:
        return await failure(self.list())


@asynccontextmanager
async def calling(
    address: str, credentials: grpc.ChannelCredentials, *metadata: tuple[str, str]
) -> AsyncIterator[Caller]:
    async with grpc.aio.secure_channel(address, credentials) as channel:
        yield Caller(channel, metadata)


BEARER: Final = ("authorization", f"Bearer {TOKEN}")


async def test_token_and_certificate_at_once(served: Served, pki: Pki) -> None:
    by_token, by_certificate, _ = served.addresses
    async with (
        calling(by_token, pki.credentials(), BEARER) as admin,
        calling(by_certificate, pki.credentials(pki.bot)) as bot,
        calling(by_certificate, pki.credentials(pki.reader)) as reader,
    ):
        seen = [await each.list() for each in (admin, bot, reader)]
        assert seen == [["workspaces/of-default"], *[["workspaces/of-acme"]] * 2]
        assert (await failure(reader.limit())).code is grpc.StatusCode.PERMISSION_DENIED


async def test_what_is_shown_first_decides_and_nothing_weaker(served: Served, pki: Pki) -> None:
    by_token, by_certificate, _ = served.addresses
    wrong = ("authorization", "Bearer wrong")
    for shown in (wrong, ("authorization", ""), ("authorization", f"certificate x {BOT}")):
        async with calling(by_certificate, pki.credentials(pki.bot), shown) as caller:
            assert (await caller.failure()).code is grpc.StatusCode.UNAUTHENTICATED
    async with calling(by_certificate, pki.credentials(pki.reader), BEARER) as admin:
        assert await admin.list() == ["workspaces/of-default"]
    none: tuple[tuple[str, str], ...] = ()
    for headers in (none, (("authorization", f"certificate x {BOT}"),)):
        async with calling(by_token, pki.credentials(), *headers) as caller:
            assert (await caller.failure()).code is grpc.StatusCode.UNAUTHENTICATED


async def test_a_certificate_that_no_line_fits_is_of_nobody(served: Served, pki: Pki) -> None:
    _, by_certificate, _ = served.addresses
    for uris in (
        (f"{READER}/x",),
        ("spiffe://acme.test/ci",),
        ("spiffe://acme.test.evil/ci/bot",),
        (BOT, "spiffe://acme.test/ci/other"),
        (),
    ):
        shown = pki.callers.certify(*uris, hosts=("acme.test",))
        async with calling(by_certificate, pki.credentials(shown)) as caller:
            failed = await caller.failure()
            assert (failed.code, failed.reason) == (
                grpc.StatusCode.UNAUTHENTICATED,
                "UNAUTHENTICATED",
            )
    foreign = pki.public.certify(BOT)
    async with calling(by_certificate, pki.credentials(foreign)) as caller:
        assert (await caller.failure()).code is grpc.StatusCode.UNAVAILABLE


async def test_the_rules_are_read_again(tmp_path: Path, pki: Pki) -> None:
    rules = tmp_path / "rules"
    shutil.copy(pki.rules, rules)
    async with (
        serving(tmp_path, pki.config(tmp_path, certificates_file=rules)) as served,
        calling(served.addresses[1], pki.credentials(pki.reader)) as caller,
    ):
        await caller.list()
        for text in ("nonsense\n", f"{BOT} acme reader\n"):
            rules.write_text(text)
            assert (await caller.failure()).code is grpc.StatusCode.UNAUTHENTICATED
        rules.write_text(RULES)
        await caller.list()


async def test_https(served: Served, pki: Pki) -> None:
    url = f"https://{served.http}"
    token = {"authorization": f"Bearer {TOKEN}"}
    forged = {"authorization": f"certificate x {BOT}"}
    async with httpx.AsyncClient(base_url=url, verify=pki.context()) as client:
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/workspaces", headers=token)).status_code == 200
        for headers in ({}, forged):
            assert (await client.get("/workspaces", headers=headers)).status_code == 401
    async with httpx.AsyncClient(base_url=url, verify=pki.context(pki.bot)) as client:
        assert (await client.get("/workspaces")).status_code == 200
        wrong = {"authorization": "Bearer wrong"}
        assert (await client.get("/workspaces", headers=wrong)).status_code == 401
        for headers in ({"cove-certificate": BOT}, {"x-forwarded-client-cert": f"URI={BOT}"}):
            async with httpx.AsyncClient(base_url=url, verify=pki.context()) as other:
                assert (await other.get("/workspaces", headers=headers)).status_code == 401
    stranger = pki.callers.certify("spiffe://acme.test/nobody")
    async with httpx.AsyncClient(base_url=url, verify=pki.context(stranger)) as client:
        assert (await client.get("/workspaces")).status_code == 401
    foreign = pki.public.certify(BOT)
    async with httpx.AsyncClient(base_url=url, verify=pki.context(foreign)) as client:
        with pytest.raises(httpx.TransportError):
            await client.get("/workspaces")


async def test_no_page_of_another_site_uses_the_certificate_of_a_browser(
    served: Served, pki: Pki
) -> None:
    """A browser shows it by itself, whatever page asks; a token it does not."""
    url = f"https://{served.http}"
    upgrade = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    terminal = "/workspaces/of-acme/executions/x:attach"
    async with httpx.AsyncClient(base_url=url, verify=pki.context(pki.bot)) as client:
        for origin in ("https://evil.test", "null", f"http://{served.http}.evil.test"):
            headers = {"origin": origin}
            assert (await client.get("/workspaces", headers=headers)).status_code == 403
            answer = await client.post("/workspaces", headers=headers, content=b"{}")
            assert answer.status_code == 403
            assert "PERMISSION_DENIED" in answer.text
            assert (await client.get(terminal, headers=headers | upgrade)).status_code == 403
            token = headers | {"authorization": f"Bearer {TOKEN}"}
            assert (await client.get("/workspaces", headers=token)).status_code == 200
        assert (await client.get("/workspaces", headers={"origin": url})).status_code == 200


async def test_https_shows_what_was_renewed_and_forgets_an_authority(
    tmp_path: Path, pki: Pki
) -> None:
    own = pki.public.certify(hosts=HOST)
    trusted = tmp_path / "trusted.pem"
    shutil.copy(pki.callers.path, trusted)
    config = pki.config(
        tmp_path, certificate_file=own.certificate, key_file=own.key, client_ca_file=trusted
    )
    old = pki.context(pki.bot)
    async with serving(tmp_path, config) as served:
        url = f"https://{served.http}/workspaces"
        async with httpx.AsyncClient(verify=old) as standing:
            assert (await standing.get(url)).status_code == 200
            later = Authority(tmp_path / "later")
            shutil.copy(later.path, trusted)
            own.replace(later.certify(hosts=HOST))
            assert (await standing.get(url)).status_code == 200  # Its connection stands.
        async with httpx.AsyncClient(verify=old) as client:
            with pytest.raises(httpx.TransportError):
                await client.get(url)
        new = ssl.create_default_context(cafile=str(later.path))
        paths = later.certify(BOT)
        new.load_cert_chain(paths.certificate, paths.key)
        async with httpx.AsyncClient(verify=new) as client:
            assert (await client.get(url)).status_code == 200
            new.load_cert_chain(pki.bot.certificate, pki.bot.key)
        async with httpx.AsyncClient(verify=new) as client:
            with pytest.raises(httpx.TransportError):
                await client.get(url)


async def test_a_tool_behind_tls(tmp_path: Path, pki: Pki) -> None:
    gateway_id, registry_id = "spiffe://cove.test/gateway", "spiffe://cove.test/registry"
    theirs, ours = pki.inner.certify(registry_id), pki.inner.certify(gateway_id)
    inner = RegistryConfig(
        state=tmp_path / "state",
        runtime=tmp_path / "run",
        address=("127.0.0.1:0",),
        certificate_file=theirs.certificate,
        key_file=theirs.key,
        client_ca_file=pki.inner.path,
        peers=(gateway_id,),
    )
    async with registry(inner) as behind:
        config = pki.config(
            tmp_path,
            registry=behind.address,
            registry_id=registry_id,  # No host is named in its certificate.
            tools_ca_file=pki.inner.path,
            tools_certificate_file=ours.certificate,
            tools_key_file=ours.key,
        )
        async with (
            gateway(config) as served,
            calling(served.addresses[0], pki.credentials(), BEARER) as caller,
        ):
            assert await caller.list() == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"client_ca_file": None}, "CLIENT_CA_FILE: required with MTLS"),
        ({"certificates_file": None}, "CERTIFICATES_FILE: required with MTLS"),
        ({"peers": ("spiffe://a/b",)}, "COVE_GATEWAY__PEERS: callers are in"),
        ({"git_id": "spiffe://a/b"}, "TOOLS_CA_FILE: required with GIT_ID"),
        ({"tools_certificate_file": Path("/x")}, "TOOLS_KEY_FILE: required"),
    ],
)
def test_settings_that_do_not_fit_together(
    tmp_path: Path, pki: Pki, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        pki.config(tmp_path, **changes)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("spiffe://a/b acme", "line 1: not a URI, a tenant and a role"),
        ("acme acme reader", "not a URI"),
        ("spiffe://a/*/b acme reader", "not a URI"),
        ("spiffe://a/b ACME reader", "not the name of a tenant"),
        ("spiffe://a/b acme owner", "not one of reader, writer, admin, operator"),
    ],
)
async def test_rules_that_are_none_are_told_at_the_start(
    tmp_path: Path, pki: Pki, line: str, said: str
) -> None:
    rules = tmp_path / "rules"
    rules.write_text(line)
    with pytest.raises(ConfigError, match=said):
        async with gateway(pki.config(tmp_path, certificates_file=rules)):
            pass
    rules.write_text(RULES)
    rules.chmod(0o666)
    with pytest.raises(ConfigError, match="others can change it"):
        async with gateway(pki.config(tmp_path, certificates_file=rules)):
            pass
