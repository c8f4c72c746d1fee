"""The four tools behind the gateway, and what their refusals mean here."""

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final, Generic, TypeVar
from weakref import WeakKeyDictionary

import grpc
from google.rpc import error_details_pb2, status_pb2

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.executor.v1.executor_pb2_grpc import ExecutorServiceStub, FileServiceStub
from cove.git.v1.git_pb2_grpc import GitServiceStub
from cove.provider.v1.provider_pb2_grpc import ProviderServiceStub
from cove.registry.v1.access_pb2_grpc import AccessServiceStub
from cove.registry.v1.audit_pb2_grpc import AuditServiceStub
from cove.registry.v1.registry_pb2_grpc import RegistryServiceStub
from gateway.config import Config
from gateway.errors import LeaseLost, OwnFault
from gateway.nodes import Nodes
from gateway.reach import Reach
from servicekit.channel import Peer
from servicekit.errors import ServiceError
from servicekit.status import DETAILS_KEY, DOMAIN, reason, reason_of, told

_log = logging.getLogger(__name__)

S = TypeVar("S")
Req = TypeVar("Req")
Res = TypeVar("Res")

# What a caller of the gateway has no part in: a tool that refuses it found a bug here.
_OWN_CODE: Final = grpc.StatusCode.UNAUTHENTICATED
OWN_REASONS: Final = (
    ErrorReason.ERROR_REASON_HANDLE_INVALID,
    ErrorReason.ERROR_REASON_PERMISSION_DENIED,
)
_OWN_FIELDS: Final = frozenset(
    {
        *("uid", "name", "parent", "handle", "header.handle", "target.handle", "mount"),
        *("holder", "lease", "operation", "fencing_token", "environment.name"),
    }
)


class Tool(Generic[S]):
    """One service of a tool. The RPCs are in `rpc`, and are called through the methods.

    Of a tool that each node has it is the one where the environment is which the current call is
    about. Raises what the tool said, and a `ServiceError`: `Unavailable` when it is away,
    `OlderService`, `LeaseLost`, `OwnFault`, `NodeUnavailable`.
    """

    def __init__(self, peer: Callable[[], Peer], stub: Callable[[grpc.aio.Channel], S]) -> None:
        self._find = peer
        self._stub = stub
        self._rpcs: WeakKeyDictionary[Peer, S] = WeakKeyDictionary()

    @property
    def _peer(self) -> Peer:
        return self._find()

    @property
    def rpc(self) -> S:
        """What can be called."""
        peer = self._find()
        found = self._rpcs.get(peer)
        if found is None:
            found = self._rpcs[peer] = self._stub(peer.channel)
        return found

    async def answers(self) -> bool:
        """Whether it says, within 2 seconds, that it serves."""
        return await self._peer.answers()

    async def unary(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Req, Res],
        request: Req,
        *,
        timeout: float | None = None,
    ) -> Res:
        with _own_faults():
            return await self._peer.unary(method, request, timeout=timeout)

    @asynccontextmanager
    async def stream(
        self, method: grpc.aio.UnaryStreamMultiCallable[Req, Res], request: Req
    ) -> AsyncIterator[AsyncIterator[Res]]:
        with _own_faults():
            async with self._peer.stream(method, request) as responses:
                yield responses

    async def upload(
        self,
        method: "grpc.aio.StreamUnaryMultiCallable[Req, Res]",
        requests: AsyncIterator[Req],
    ) -> Res:
        with _own_faults():
            return await self._peer.upload(method, requests)

    @asynccontextmanager
    async def exchange(
        self,
        method: "grpc.aio.StreamStreamMultiCallable[Req, Res]",
        requests: AsyncIterator[Req],
    ) -> AsyncIterator[AsyncIterator[Res]]:
        with _own_faults():
            async with self._peer.exchange(method, requests) as responses:
                yield responses


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    nodes: Nodes
    registry: Tool[RegistryServiceStub]
    access: Tool[AccessServiceStub]
    audit: Tool[AuditServiceStub]
    git: Tool[GitServiceStub]
    provider: Tool[ProviderServiceStub]
    executor: Tool[ExecutorServiceStub]
    files: Tool[FileServiceStub]
    ports: Tool[ExecutorServiceStub]
    """The executor, for ForwardPort."""


@asynccontextmanager
async def tools(config: Config) -> AsyncIterator[Tools]:
    """The tools at their addresses; they need not be up yet."""
    reach = Reach(config)
    async with (
        reach.to("registry", keeps_entries=True) as registry,
        Nodes.open(config, reach) as nodes,
    ):
        yield Tools(
            nodes=nodes,
            registry=Tool(lambda: registry, RegistryServiceStub),
            access=Tool(lambda: registry, AccessServiceStub),
            audit=Tool(lambda: registry, AuditServiceStub),
            git=Tool(lambda: nodes.here().git, GitServiceStub),
            provider=Tool(lambda: nodes.here().provider, ProviderServiceStub),
            executor=Tool(lambda: nodes.here().executor, ExecutorServiceStub),
            files=Tool(lambda: nodes.here().executor, FileServiceStub),
            ports=Tool(lambda: nodes.here().ports, ExecutorServiceStub),
        )


def retold(
    error: grpc.aio.AioRpcError,
    *,
    words: Mapping[str, str] | None = None,
    fields: Mapping[str, str] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> grpc.aio.AioRpcError:
    """What a tool said, in words of the gateway's API: the same code, reason and details.

    `words` are replaced wherever the failure names something, `fields` in its field
    violations, and where the message names them; `metadata` is added.
    """
    status = told(error)
    if status is None:
        return error

    def worded(text: str) -> str:
        for old, new in (words or {}).items():
            text = text.replace(old, new)
        return text

    told_again = status_pb2.Status(code=status.code, message=worded(status.message))
    info = error_details_pb2.ErrorInfo()
    bad = error_details_pb2.BadRequest()
    precondition = error_details_pb2.PreconditionFailure()
    for detail in status.details:
        packed = told_again.details.add()
        if detail.Unpack(info) and info.domain == DOMAIN:
            said = {key: worded(value) for key, value in info.metadata.items()}
            info.metadata.update(said | dict(metadata or {}))
            packed.Pack(info)
        elif detail.Unpack(bad):
            for field in bad.field_violations:
                before = f"{field.field}: {field.description}"
                field.field = (fields or {}).get(field.field, field.field)
                if told_again.message == before:
                    told_again.message = f"{field.field}: {field.description}"
            packed.Pack(bad)
        elif detail.Unpack(precondition):
            for each in precondition.violations:
                each.subject = worded(each.subject)
            packed.Pack(precondition)
        else:
            packed.CopyFrom(detail)
    trailing = grpc.aio.Metadata((DETAILS_KEY, told_again.SerializeToString()))
    return grpc.aio.AioRpcError(
        error.code(), grpc.aio.Metadata(), trailing, details=told_again.message
    )


def transient(error: Exception) -> bool:
    """Whether the same call may well succeed later."""
    if isinstance(error, grpc.aio.AioRpcError):
        passing = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        return error.code() in passing or reason(error) == ErrorReason.ERROR_REASON_OVERLOADED
    return isinstance(error, ServiceError) and error.reason in (
        ErrorReason.ERROR_REASON_SERVICE_UNAVAILABLE,
        ErrorReason.ERROR_REASON_NODE_UNAVAILABLE,
        ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED,
    )


@contextmanager
def _own_faults() -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        status = told(error)
        if status and reason_of(status) == ErrorReason.ERROR_REASON_LEASE_LOST:
            raise LeaseLost("another gateway has it") from None
        if status and _is_own_fault(error, status):
            _log.error("a tool refused our request: %s", error.details())
            raise OwnFault from error
        raise


def _is_own_fault(error: grpc.aio.AioRpcError, status: status_pb2.Status) -> bool:
    bad = error_details_pb2.BadRequest()
    fields = {
        violation.field
        for detail in status.details
        if detail.Unpack(bad)
        for violation in bad.field_violations
    }
    return (
        error.code() is _OWN_CODE
        or reason_of(status) in OWN_REASONS
        or not fields.isdisjoint(_OWN_FIELDS)
    )
