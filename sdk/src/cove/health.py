"""Asks services how they are."""

import asyncio
from collections.abc import Mapping
from typing import Final

import grpc
from grpc_health.v1 import health_pb2

from cove import secure
from cove.endpoint import Endpoint
from cove.executor.v1 import executor_pb2
from cove.gateway.v1 import gateway_pb2
from cove.git.v1 import git_pb2
from cove.provider.v1 import provider_pb2
from cove.registry.v1 import registry_pb2
from cove.secure import Tls

SERVING: Final = "SERVING"
UNREACHABLE: Final = "UNREACHABLE"

_TIMEOUT: Final = 5.0
_FILES: Final = {
    "registry": registry_pb2,
    "git": git_pb2,
    "provider": provider_pb2,
    "executor": executor_pb2,
}


async def check(endpoint: Endpoint) -> Mapping[str, str]:
    """The health of every gRPC service that can be reached, by full name."""
    asked = [(endpoint.address, each) for each in _names(gateway_pb2)]
    for process, address in endpoint.services.items():
        if process in _FILES:
            asked += [(address, each) for each in _names(_FILES[process])]
    states = await asyncio.gather(*(_ask(*each, endpoint) for each in asked))
    return {name: state for (_, name), state in zip(asked, states, strict=True)}


async def _ask(address: str, service: str, endpoint: Endpoint) -> str:
    return await ask(address, service, tls=endpoint.tls if address == endpoint.address else None)


async def ask(
    address: str, service: str = "", timeout: float = _TIMEOUT, *, tls: Tls | None = None
) -> str:
    """What the server at `address` says of a service; of all it serves without a name."""
    async with secure.channel(address, tls) as channel:
        method = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        call = method(health_pb2.HealthCheckRequest(service=service), timeout=timeout)
        try:
            answer = await call
        except grpc.aio.AioRpcError:
            return UNREACHABLE
        finally:
            call.cancel()
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


def _names(module: object) -> list[str]:
    descriptor = module.DESCRIPTOR  # type: ignore[attr-defined]
    return [service.full_name for service in descriptor.services_by_name.values()]
