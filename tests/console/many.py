"""Very many workspaces, by the fastest way that is honest.

They are records, written into the registry as the gateway writes them: claimed, with a state, let
go. Nothing is on disk for them, so they can be listed, watched and deleted, and not worked in.
"""

import asyncio

import grpc

from cove.registry.v1 import registry_pb2 as pb
from cove.registry.v1.registry_pb2_grpc import RegistryServiceStub
from tests.support.suite import Suite

_SERVICE = (("cove-tenant", "default"), ("cove-principal", "admin"))
_LEASE = 600
_AT_ONCE = 50
_STATES = (
    pb.Environment.STATE_READY,
    pb.Environment.STATE_READY,
    pb.Environment.STATE_READY,
    pb.Environment.STATE_FAILED,
)


async def register(suite: Suite, count: int) -> None:
    """Make workspaces `many-0000` and so on."""
    async with grpc.aio.insecure_channel(suite.address("registry")) as channel:
        registry = RegistryServiceStub(channel)
        for begin in range(0, count, _AT_ONCE):
            numbers = range(begin, min(begin + _AT_ONCE, count))
            await asyncio.gather(*(_register(registry, number) for number in numbers))


async def _register(registry: RegistryServiceStub, number: int) -> None:
    request = pb.RegisterEnvironmentRequest(
        environment_id=f"many-{number:04}",
        environment=pb.Environment(
            driver="local",
            labels={"team": ("web", "data", "infra")[number % 3]},
            spec=pb.EnvironmentSpec(repository=f"https://example.org/team/app-{number % 20}.git"),
            head_commit=f"{number:040x}",
        ),
        holder="test",
    )
    request.lease.seconds = _LEASE
    made = (await registry.RegisterEnvironment(request, metadata=_SERVICE)).environment
    state = _STATES[number % len(_STATES)]
    status = pb.UpdateEnvironmentStatusRequest(
        name=made.name, state=state, fencing_token=made.fencing_token, release_operation=True
    )
    if state == pb.Environment.STATE_FAILED:
        status.failure.reason = "REMOTE_UNAVAILABLE"
        status.failure.message = "the remote did not answer"
        status.failure.remedy = "Make it again when the remote answers."
    await registry.UpdateEnvironmentStatus(status, metadata=_SERVICE)
