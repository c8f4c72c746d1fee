"""Workspaces that accept calls, and sandboxes that are started when one comes."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Final, Protocol, TypeVar

import grpc

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.provider.v1 import provider_pb2
from cove.registry.v1.registry_pb2 import Environment
from gateway.activity import Activity
from gateway.delete import not_ready
from gateway.drivers import Drivers
from gateway.errors import SandboxEnded
from gateway.names import words, workspace_name
from gateway.nodes import on_node_of
from gateway.quotas import Quotas
from gateway.records import Records, State
from gateway.suspend import Suspensions
from gateway.tools import Tools, retold
from servicekit.status import reason

T = TypeVar("T")

_ACTIVATE_SECONDS: Final = 660.0
_STARTS: Final = 8
"""How often a sandbox is started for one call. Each fork of a workspace in which nothing runs ends
it, and several may before the call arrives."""
_TRIES: Final = 3
_REMEDIES: Final = {
    State.STATE_DELETED: "Undelete the workspace, then retry.",
    State.STATE_DELETING: "It is being deleted: use another workspace.",
    State.STATE_FAILED: "Delete the workspace, and create it anew.",
}


class Handled(Protocol):
    """A request to the executor, about an environment."""

    handle: bytes


class Workspaces:
    def __init__(
        self,
        tools: Tools,
        records: Records,
        activity: Activity,
        suspensions: Suspensions,
        quotas: Quotas,
        drivers: Drivers,
    ) -> None:
        self._drivers = drivers
        self._provider = tools.provider
        self._records = records
        self._activity = activity
        self._suspensions = suspensions
        self._quotas = quotas

    async def ready(self, name: str) -> Environment:
        """One to work in: it is used, until the task of this call ends. An idle one is resumed.

        Raises `WorkspaceNotFound`, `WorkspaceNotReady` and `WorkspaceSuspended`.
        """
        environment = await self._used(name)
        if _is_kept(environment):
            return await self._suspensions.awake(environment)
        raise not_ready(environment, _REMEDIES.get(environment.state, ""))

    async def kept(self, name: str) -> Environment:
        """One whose files and records are there; used likewise, but not resumed for that.

        Raises `WorkspaceNotFound` and `WorkspaceNotReady`.
        """
        environment = await self._used(name)
        if not _is_kept(environment):
            raise not_ready(environment, _REMEDIES.get(environment.state, ""))
        return environment

    async def admitted(self, name: str) -> Environment:
        """As `ready`, for what takes room. Raises what is said of a tenant that has none."""
        environment = await self.ready(name)
        await self._quotas.admit()
        return environment

    async def seen(self, name: str) -> Environment:
        """As `kept`, for who only looks on: it is not used by that."""
        environment = await self._records.look(name)
        on_node_of(environment)
        if not _is_kept(environment):
            raise not_ready(environment, _REMEDIES.get(environment.state, ""))
        return environment

    async def _used(self, name: str) -> Environment:
        environment = await self._records.look(name)
        on_node_of(environment)
        if not _is_kept(environment):
            return environment
        return await self._activity.begin(environment)

    async def activate(self, environment: Environment) -> None:
        """Start the sandbox, if it is not running."""
        await self._quotas.tell()
        rpc = self._provider.rpc.ActivateEnvironment
        for attempt in range(_TRIES):
            request = provider_pb2.ActivateEnvironmentRequest(handle=environment.handle)
            try:
                await self._provider.unary(rpc, request, timeout=_ACTIVATE_SECONDS)
                return
            except grpc.aio.AioRpcError as error:
                if attempt + 1 == _TRIES or not await self._reopened(environment, error):
                    raise

    async def _reopened(self, environment: Environment, error: grpc.aio.AioRpcError) -> bool:
        """Whether what kept it from starting is out of the way."""
        match reason(error):
            case ErrorReason.ERROR_REASON_ENVIRONMENT_STOPPED:
                await self._suspensions.reopened(environment)
            case ErrorReason.ERROR_REASON_HANDLE_STALE:
                await self._drivers.renew(environment)
            case _:
                return False
        return True

    async def awake(
        self, environment: Environment, asked: Handled, call: Callable[[], Awaitable[T]]
    ) -> T:
        """What `call`, which asks `asked`, answers; a dormant sandbox is started, a handle that
        moved is renewed, and the call made again."""
        for _ in range(_STARTS):
            try:
                return await call()
            except grpc.aio.AioRpcError as error:
                if not await self._roused(environment, asked, error):
                    raise
        return await call()

    async def awake_stream(
        self,
        environment: Environment,
        asked: Handled,
        call: Callable[[], AbstractAsyncContextManager[AsyncIterator[T]]],
    ) -> AsyncGenerator[T, None]:
        """As `awake`, for a stream: nothing has come of one that is refused so."""
        for _ in range(_STARTS):
            try:
                async with call() as responses:
                    async for response in responses:
                        yield response
                return
            except grpc.aio.AioRpcError as error:
                if not await self._roused(environment, asked, error):
                    raise
        async with call() as responses:
            async for response in responses:
                yield response

    async def _roused(
        self, environment: Environment, asked: Handled, error: grpc.aio.AioRpcError
    ) -> bool:
        """Whether a call that was refused may be taken now."""
        match reason(error):
            case ErrorReason.ERROR_REASON_ENVIRONMENT_DORMANT:
                await self.activate(environment)
            case ErrorReason.ERROR_REASON_HANDLE_STALE:
                await self._drivers.renew(environment)
            case _:
                return False
        asked.handle = environment.handle
        return True


def _is_kept(environment: Environment) -> bool:
    return environment.state in (State.STATE_READY, State.STATE_SUSPENDED)


@contextmanager
def in_words_of(environment: Environment, asked: Any = None, request: Any = None) -> Iterator[None]:
    """Failures in the block name the workspace, and the request id of `request`, not what
    the gateway sent behind. Callers know of no dormant sandbox: it is started for them."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        if reason(error) == ErrorReason.ERROR_REASON_ENVIRONMENT_DORMANT:
            raise SandboxEnded(workspace_name(environment.name)) from error
        replaced = words(environment)
        if asked is not None and request.request_id:
            replaced[asked.request_id] = request.request_id
        raise retold(error, words=replaced) from error
