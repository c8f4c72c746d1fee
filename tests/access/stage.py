"""Two gateways before one registry, and callers of all kinds. There are no other tools: whoever
gets as far as those got further than these tests ask. Between the second gateway and the registry
is a network that can fail."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import grpc
import httpx
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.rpc import status_pb2

from cove.ended import First
from cove.gateway.v1 import gateway_pb2 as pb
from cove.gateway.v1.gateway_pb2_grpc import AccessServiceStub
from cove.options.v1.options_pb2 import Role
from cove.registry.v1.access_pb2 import Token
from cove.registry.v1.registry_pb2 import Environment
from gateway.app import gateway
from gateway.config import Config
from servicekit.status import reason_name, told
from services.registry.app import registry
from services.registry.config import Config as RegistryConfig
from tests.registry.caller import Caller, Clock
from tests.support.failing import Proxy, proxied

ACME, OTHER = "acme", "other"
SHARED: Final = "workspaces/shared-0"
"""Of acme: there, and of which there are shares."""
THERE: Final = "workspaces/there-00"
"""Of acme: there, and not shared."""
MISSING: Final = "workspaces/nowhere0"
"""Of nobody. All three are as long."""
LONG: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Answer:
    """How a call ended."""

    code: grpc.StatusCode
    status: status_pb2.Status
    reason: str = ""


@dataclass(slots=True, kw_only=True)
class Stage:
    addresses: tuple[str, str]
    """Of both gateways, by gRPC."""
    http: str
    """Of the first."""
    registry: str
    network: Proxy
    """Between the second and the registry."""
    clock: Clock
    """Of the registry."""
    admin: str
    """The token of the file."""
    secrets: dict[str, str] = field(default_factory=dict)
    """By what their owner is: `acme reader`, `other admin`, `share writer`, `expired`, ..."""
    channels: list[grpc.aio.Channel] = field(default_factory=list)

    def access(self, which: int = 0) -> AccessServiceStub:
        return AccessServiceStub(self.channels[which])

    async def create(
        self, role: Role.ValueType, tenant: str = ACME, ttl: float = LONG, **fields: Any
    ) -> pb.CreateTokenResponse:
        token = Token(role=role, **fields)
        token.ttl.FromTimedelta(timedelta(seconds=ttl))
        request = pb.CreateTokenRequest(token=token)
        return await self.access().CreateToken(request, metadata=bearer(self.admin, tenant))

    async def revoke(self, name: str, tenant: str = ACME, which: int = 0) -> None:
        request = pb.RevokeTokenRequest(name=name)
        await self.access(which).RevokeToken(request, metadata=bearer(self.admin, tenant))

    async def call(
        self,
        method: MethodDescriptor,
        request: Any,
        secret: str,
        *,
        tenant: str = "",
        which: int = 0,
        seconds: float = 20,
    ) -> Answer:
        """Make the call, whatever its shape, up to its first answer."""
        metadata = bearer(secret, tenant)
        channel = self.channels[which]
        path = f"/{method.containing_service.full_name}/{method.name}"
        answer = message_factory.GetMessageClass(method.output_type)
        kinds = {
            (False, False): channel.unary_unary,
            (False, True): channel.unary_stream,
            (True, False): channel.stream_unary,
            (True, True): channel.stream_stream,
        }
        make = kinds[method.client_streaming, method.server_streaming]
        multi: Any = make(path, type(request).SerializeToString, answer.FromString)
        sent = iter([request]) if method.client_streaming else request
        call = multi(sent, metadata=metadata, timeout=seconds)
        first = First(call)
        try:
            if method.server_streaming:
                await anext(aiter(call), None)
            else:
                await call
        except grpc.aio.AioRpcError as error:
            return answered(first.meant(error))
        finally:
            call.cancel()
        return Answer(grpc.StatusCode.OK, status_pb2.Status())

    def web(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=f"http://{self.http}", timeout=20)


def answered(error: grpc.aio.AioRpcError) -> Answer:
    status = told(error) or status_pb2.Status()
    return Answer(error.code(), status, reason_name(status))


def bearer(secret: str, tenant: str = "") -> Any:
    pairs: Mapping[str, str] = {
        "authorization": f"Bearer {secret}" if secret else "",
        "cove-tenant": tenant,
    }
    return tuple((key, value) for key, value in pairs.items() if value)


@asynccontextmanager
async def staged(folder: Path) -> AsyncIterator[Stage]:
    clock = Clock()
    settings: dict[str, Any] = {"state": folder / "s", "runtime": folder / "r"}
    async with AsyncExitStack() as stack:
        served = await stack.enter_async_context(
            registry(RegistryConfig(**settings, shutdown_grace=timedelta(seconds=1)), now=clock)
        )
        behind = f"unix:{folder}/r/n"
        network = await stack.enter_async_context(proxied(served.address, behind))
        gateways = [
            await stack.enter_async_context(
                gateway(
                    Config(
                        **settings,
                        registry=behind if number else served.address,
                        address=(f"unix:{folder}/r/g{number}",),
                        http="127.0.0.1:0",
                        shutdown_grace=timedelta(seconds=1),
                        stranger_rate=10 if number else 100,
                    )
                )
            )
            for number in range(2)
        ]
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(each.address))
            for each in gateways
        ]
        stage = Stage(
            addresses=(gateways[0].address, gateways[1].address),
            http=gateways[0].http,
            registry=served.address,
            network=network,
            clock=clock,
            admin=(folder / "s" / "registry" / "token").read_text().strip(),
            channels=channels,
        )
        await _people(stage)
        yield stage


async def _people(stage: Stage) -> None:
    async with grpc.aio.insecure_channel(stage.registry) as channel:
        acme = Caller(channel, ACME)
        for name in (SHARED, THERE):
            id_ = name.removeprefix("workspaces/")
            await acme.register(id_)
            # One that failed answers every call at once, without a tool.
            await acme.move(id_, Environment.STATE_FAILED, release_operation=True)
    roles = {"reader": Role.ROLE_READER, "writer": Role.ROLE_WRITER, "admin": Role.ROLE_ADMIN}
    for name, role in roles.items():
        for tenant in (ACME, OTHER):
            stage.secrets[f"{tenant} {name}"] = (await stage.create(role, tenant)).secret
        if role < Role.ROLE_ADMIN:
            share = await stage.create(role, workspace=SHARED)
            stage.secrets[f"share {name}"] = share.secret
    stage.secrets["expired"] = (await stage.create(Role.ROLE_ADMIN, ttl=1)).secret
    stage.clock.move(2)
    revoked = await stage.create(Role.ROLE_ADMIN)
    stage.secrets["revoked"] = revoked.secret
    await stage.revoke(revoked.token.name)
