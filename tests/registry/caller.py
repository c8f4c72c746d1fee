"""Calls the registry as the gateway does: over its socket, in someone's name."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2

from cove.registry.v1 import registry_pb2 as pb
from cove.registry.v1.registry_pb2_grpc import RegistryServiceStub
from servicekit.status import told


class Clock:
    """Stands still until it is moved. Nanoseconds."""

    def __init__(self) -> None:
        self.now = 1_800_000_000 * 10**9

    def __call__(self) -> int:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)


class Caller:
    """One principal of one tenant."""

    def __init__(self, channel: grpc.aio.Channel, tenant: str = "acme", who: str = "ada") -> None:
        self._stub = RegistryServiceStub(channel)
        self._metadata = (("cove-tenant", tenant), ("cove-principal", who))

    async def __call__(self, request: Any) -> Any:
        """Make the call that the request is of."""
        method = getattr(self._stub, request.DESCRIPTOR.name.removesuffix("Request"))
        return await method(request, metadata=self._metadata, timeout=30)

    async def register(self, id_: str, **fields: Any) -> pb.Environment:
        response: pb.RegisterEnvironmentResponse = await self(register(id_, **fields))
        return response.environment

    async def get(self, id_: str) -> pb.Environment:
        request = pb.GetEnvironmentRequest(name=f"environments/{id_}")
        response: pb.GetEnvironmentResponse = await self(request)
        return response.environment

    async def move(
        self, id_: str, state: pb.Environment.State.ValueType, **fields: Any
    ) -> pb.Environment:
        request = pb.UpdateEnvironmentStatusRequest(
            name=f"environments/{id_}", state=state, **fields
        )
        response: pb.UpdateEnvironmentStatusResponse = await self(request)
        return response.environment

    async def update(
        self, environment: pb.Environment, *paths: str, **fields: Any
    ) -> pb.Environment:
        request = pb.UpdateEnvironmentRequest(
            environment=environment, update_mask=FieldMask(paths=paths), **fields
        )
        response: pb.UpdateEnvironmentResponse = await self(request)
        return response.environment

    async def claim(self, id_: str, holder: str = "b", **fields: Any) -> pb.Environment:
        response: pb.ClaimOperationResponse = await self(claim(id_, holder, **fields))
        return response.environment

    async def renew(self, id_: str, token: int, seconds: int = 30) -> pb.Environment:
        request = pb.RenewOperationRequest(
            name=f"environments/{id_}", fencing_token=token, lease=Duration(seconds=seconds)
        )
        response: pb.RenewOperationResponse = await self(request)
        return response.environment

    async def release(self, id_: str, token: int) -> pb.Environment:
        request = pb.ReleaseOperationRequest(name=f"environments/{id_}", fencing_token=token)
        response: pb.ReleaseOperationResponse = await self(request)
        return response.environment

    async def deregister(self, id_: str, **fields: Any) -> bool:
        request = pb.DeregisterEnvironmentRequest(name=f"environments/{id_}", **fields)
        response: pb.DeregisterEnvironmentResponse = await self(request)
        return response.existed

    @contextlib.asynccontextmanager
    async def watch(
        self,
        from_revision: int = 0,
        tenant: str = "",
        filter: str = "",  # noqa: A002 - the contract's word.
        *,
        changes_only: bool = False,
    ) -> AsyncIterator[
        "grpc.aio.UnaryStreamCall[pb.WatchEnvironmentsRequest, pb.WatchEnvironmentsResponse]"
    ]:
        request = pb.WatchEnvironmentsRequest(
            from_revision=from_revision,
            tenant=tenant,
            filter=filter,
            changes_only=changes_only,
        )
        call = self._stub.WatchEnvironments(request, metadata=self._metadata)
        try:
            yield call
        finally:
            call.cancel()


def register(id_: str, **fields: Any) -> pb.RegisterEnvironmentRequest:
    fields = {
        "environment": pb.Environment(),
        "holder": "a",
        "lease": Duration(seconds=30),
        **fields,
    }
    return pb.RegisterEnvironmentRequest(environment_id=id_, **fields)


def claim(id_: str, holder: str = "b", **fields: Any) -> pb.ClaimOperationRequest:
    fields = {
        "operation": pb.Environment.OPERATION_DELETING,
        "lease": Duration(seconds=30),
        **fields,
    }
    return pb.ClaimOperationRequest(name=f"environments/{id_}", holder=holder, **fields)


@contextlib.contextmanager
def refused(code: grpc.StatusCode, reason: str, **metadata: str) -> Iterator[None]:
    """The block fails with this code and reason, and at least this metadata."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield
    assert caught.value.code() is code
    status = told(caught.value)
    assert status
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    assert (info.domain, info.reason) == ("cove", f"ERROR_REASON_{reason}")
    assert metadata.items() <= dict(info.metadata).items()
