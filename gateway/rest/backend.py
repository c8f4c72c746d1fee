"""The gateway's own gRPC socket, as HTTP's side sees it.

The caller's token goes along, and for whom an operator acts, and nothing else of what the
caller says of itself: one stack of interceptors decides, for gRPC and HTTP alike.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, TypeVar

import grpc
from grpc_health.v1 import health_pb2

from gateway.rest.errors import ShuttingDown
from gateway.rest.routes import Route
from servicekit import calls
from servicekit.identity import SOURCE_KEY, TENANT_KEY

T = TypeVar("T")

_MAX_RECEIVED: Final = 64 << 20
_OPTIONS: Final = (
    ("grpc.enable_retries", 0),  # It is this very process: a retry helps nobody.
    ("grpc.max_receive_message_length", _MAX_RECEIVED),
    ("grpc.max_send_message_length", -1),
    # By itself gRPC lets megabytes come for each stream whose client does not read.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 256 << 10),
)
_READY_TIMEOUT: Final = 2.0
_CHECK: Final = "/grpc.health.v1.Health/Check"


class Backend:
    """Calls the RPCs of routes. Every call is cancelled when its block is left."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._endless: set[grpc.aio.Call] = set()
        self.draining = False

    async def unary(self, route: Route, request: Any, token: str) -> Any:
        method = self._channel.unary_unary(
            route.path, route.request.SerializeToString, route.response.FromString
        )
        call = method(request, metadata=_metadata(token))
        with self._ending(call, route):
            return await call

    @asynccontextmanager
    async def stream(self, route: Route, request: Any, token: str) -> AsyncIterator[Any]:
        """Yields an async iterator of responses."""
        method = self._channel.unary_stream(
            route.path, route.request.SerializeToString, route.response.FromString
        )
        call = method(request, metadata=_metadata(token))
        with self._ending(call, route):
            yield self._events(call)

    async def upload(self, route: Route, requests: AsyncIterator[Any], token: str) -> Any:
        method = self._channel.stream_unary(
            route.path, route.request.SerializeToString, route.response.FromString
        )
        call = method(requests, metadata=_metadata(token))
        with self._ending(call, route):
            return await call

    @asynccontextmanager
    async def exchange(
        self, route: Route, requests: AsyncIterator[Any], token: str
    ) -> AsyncIterator[AsyncIterator[Any]]:
        """As `stream`, with many requests. A failure of `requests` is raised as it is."""
        failures: list[Exception] = []

        async def sent() -> AsyncIterator[Any]:
            try:
                async for request in requests:
                    yield request
            except Exception as error:
                failures.append(error)
                raise  # gRPC cancels the call then.

        method = self._channel.stream_stream(
            route.path, route.request.SerializeToString, route.response.FromString
        )
        call = method(sent(), metadata=_metadata(token))
        with self._ending(call, route):
            yield self._events(call, failures)

    async def ready(self) -> bool:
        """Whether the gateway says that it serves."""
        if self.draining:
            return False
        check = self._channel.unary_unary(
            _CHECK,
            health_pb2.HealthCheckRequest.SerializeToString,
            health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = await check(health_pb2.HealthCheckRequest(), timeout=_READY_TIMEOUT)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def drain(self) -> None:
        """End the streams that would not end by themselves."""
        self.draining = True
        for call in self._endless:
            call.cancel()

    @contextmanager
    def _ending(self, call: Any, route: Route) -> Iterator[None]:
        if route.endless:
            self._endless.add(call)
        try:
            yield
        finally:
            self._endless.discard(call)
            call.cancel()

    async def _events(self, call: Any, failures: Sequence[Exception] = ()) -> AsyncIterator[Any]:
        task = asyncio.current_task()
        try:
            async for event in call:
                yield event
        except (asyncio.CancelledError, grpc.aio.AioRpcError):
            if failures and task and not task.cancelling():
                raise failures[0] from None
            if self.draining and task and not task.cancelling():  # It was `drain`.
                raise ShuttingDown("the service is stopping") from None
            raise


@asynccontextmanager
async def backend(target: str) -> AsyncIterator[Backend]:
    async with grpc.aio.insecure_channel(target, options=_OPTIONS) as channel:
        yield Backend(channel)


def _metadata(token: str) -> tuple[tuple[str, str], ...]:
    call = calls.current()
    pairs = (
        ("authorization", token),
        (calls.CORRELATION_KEY, call.correlation_id),
        (calls.TRACE_KEY, call.traceparent if call.traced else ""),
        (SOURCE_KEY, call.source),
        (TENANT_KEY, call.acting_for),
    )
    return tuple(pair for pair in pairs if pair[1])
