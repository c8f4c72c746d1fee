"""Who acts in other tenants: nobody but whom the configuration calls an operator."""

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import httpx
import pytest
import pytest_asyncio

from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import AccessServiceStub, WorkspaceServiceStub
from cove.options.v1.options_pb2 import Role
from cove.registry.v1.access_pb2 import Token
from servicekit.server import Served
from tests.gateway.pki import TOKEN, Pki, serving
from tests.gateway.test_tls import register
from tests.servicekit.failing import failure
from tests.support import issuer as issuers
from tests.support.certificates import Paths
from tests.support.issuer import Issuer

PLATFORM, ADMIN = "spiffe://acme.test/platform/ops", "spiffe://acme.test/ci/bot"
RULES: Final = """\
spiffe://acme.test/platform/*  default  operator
spiffe://acme.test/ci/bot      acme     admin
"""
TENANTS: Final = ("default", "acme")


@dataclass(frozen=True)
class Shown:
    """What somebody is known by."""

    bearer: str = ""
    certificate: Paths | None = None

    def headers(self, tenant: str) -> dict[str, str]:
        shown = {"authorization": f"Bearer {self.bearer}"} if self.bearer else {}
        return {**shown, "cove-tenant": tenant}


class Stage:
    def __init__(self, served: Served, pki: Pki, issuer: Issuer, rules: Path) -> None:
        self.served = served
        self.pki = pki
        self.issuer = issuer
        self.rules = rules

    @asynccontextmanager
    async def channel(self, shown: Shown) -> AsyncIterator[grpc.aio.Channel]:
        by_token, by_certificate, _ = self.served.addresses
        address = by_certificate if shown.certificate else by_token
        credentials = self.pki.credentials(shown.certificate)
        async with grpc.aio.secure_channel(address, credentials) as channel:
            yield channel

    def jwt(self, **claims: Any) -> Shown:
        return Shown(bearer=self.issuer.token(**claims))

    def certificate(self, uri: str) -> Shown:
        return Shown(certificate=self.pki.callers.certify(uri))

    async def token(self) -> Shown:
        """Of an administrator of acme."""
        async with self.channel(Shown(bearer=TOKEN)) as channel:
            request = pb.CreateTokenRequest(token=Token(role=Role.ROLE_ADMIN))
            metadata = tuple(Shown(bearer=TOKEN).headers("acme").items())
            made = await AccessServiceStub(channel).CreateToken(request, metadata=metadata)
        return Shown(bearer=made.secret)

    async def seen(self, shown: Shown, tenant: str) -> list[str]:
        """Workspaces of a tenant by gRPC and HTTP, which say the same; and its tokens, for which
        one must be an administrator."""
        metadata = tuple(shown.headers(tenant).items())
        async with self.channel(shown) as channel:
            await AccessServiceStub(channel).ListTokens(pb.ListTokensRequest(), metadata=metadata)
            answer = await WorkspaceServiceStub(channel).ListWorkspaces(
                pb.ListWorkspacesRequest(), metadata=metadata
            )
        found = [each.name for each in answer.workspaces]
        told = await self.get(shown, tenant)
        assert [each["name"] for each in told.json()["workspaces"]] == found
        return found

    async def get(self, shown: Shown, tenant: str) -> httpx.Response:
        url = f"https://{self.served.http}/workspaces"
        async with httpx.AsyncClient(verify=self.pki.context(shown.certificate)) as client:
            return await client.get(url, headers=shown.headers(tenant))

    async def refused(self, shown: Shown, tenant: str) -> grpc.StatusCode:
        """With which code, by gRPC; HTTP says the same."""
        metadata = tuple(shown.headers(tenant).items())
        async with self.channel(shown) as channel:
            workspaces = WorkspaceServiceStub(channel)
            call = workspaces.ListWorkspaces(pb.ListWorkspacesRequest(), metadata=metadata)
            code = (await failure(call)).code
        expected = {grpc.StatusCode.PERMISSION_DENIED: 403, grpc.StatusCode.UNAUTHENTICATED: 401}
        assert (await self.get(shown, tenant)).status_code == expected[code]
        return code


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with issuers.serving() as issuer:
        yield issuer


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> AsyncIterator[Stage]:
    folder = tmp_path_factory.mktemp("operators")
    pki = Pki(folder)
    pki.rules.write_text(RULES)
    config = pki.config(
        folder,
        jwt_issuer=issuer.url,
        jwt_audience=issuer.audience,
        jwt_tenant="acme",
        jwt_role_claim="groups",
        jwt_roles=("platform=operator", "leads=admin"),
    )
    async with serving(folder, config) as served:
        async with grpc.aio.insecure_channel(f"unix:{folder}/run/registry") as channel:
            for tenant in TENANTS:
                await register(channel, tenant)
        yield Stage(served, pki, issuer, pki.rules)


async def test_operators_of_all_kinds_act_in_every_tenant(stage: Stage) -> None:
    for operator in (
        Shown(bearer=TOKEN),
        stage.certificate(PLATFORM),
        stage.jwt(groups=["leads", "platform"]),
    ):
        for tenant in TENANTS:
            assert await stage.seen(operator, tenant) == [f"workspaces/of-{tenant}"]


async def test_administrators_of_all_kinds_act_in_their_own_only(stage: Stage) -> None:
    for admin in (
        await stage.token(),
        stage.certificate(ADMIN),
        stage.jwt(groups=["leads"]),
    ):
        assert await stage.seen(admin, "acme") == ["workspaces/of-acme"]
        assert await stage.refused(admin, "default") is grpc.StatusCode.PERMISSION_DENIED


async def test_an_issuer_makes_no_operator_by_a_word(stage: Stage) -> None:
    shown = stage.jwt(groups=["operator"])
    assert await stage.refused(shown, "default") is grpc.StatusCode.UNAUTHENTICATED
    assert await stage.refused(shown, "acme") is grpc.StatusCode.UNAUTHENTICATED


async def test_who_is_an_operator_no_more_is_so_at_once(stage: Stage) -> None:
    """Also in what goes on."""
    shown = stage.certificate(PLATFORM)
    kept = stage.rules.with_suffix(".kept")
    shutil.copy(stage.rules, kept)
    async with stage.channel(shown) as channel:
        watch = WorkspaceServiceStub(channel).WatchWorkspaces(
            pb.WatchWorkspacesRequest(), metadata=(("cove-tenant", "acme"),)
        )
        await watch.read()
        stage.rules.write_text(RULES.replace("operator", "admin"))
        try:
            assert (await failure(watch)).code is grpc.StatusCode.PERMISSION_DENIED
            assert await stage.refused(shown, "acme") is grpc.StatusCode.PERMISSION_DENIED
            assert await stage.seen(shown, "default") == ["workspaces/of-default"]
        finally:
            kept.replace(stage.rules)
