"""Calls to the services behind this one.

A call that a handler drops is never collected by gRPC, and so runs on in the
other service (grpc#43462). Hence nothing calls a stub directly: the four ways
of a `Peer` cancel in `finally`, and pass on who calls and how long they wait.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, Final, TypeVar

import grpc
from grpc_health.v1 import health_pb2

from cove.ended import First
from cove.upload_body import Body
from servicekit import calls
from servicekit.health import SERVING
from servicekit.identity import PRINCIPAL_KEY, TENANT_KEY, TOKEN_KEY
from servicekit.quota import LIMITS_KEY
from servicekit.secured import Secure, secured
from servicekit.status import away, told, untold

Req = TypeVar("Req")
Res = TypeVar("Res")

_UNIX: Final = "unix:"
_MAX_RECEIVED: Final = 64 << 20

_CHECK: Final = "/grpc.health.v1.Health/Check"
_PATIENCE: Final = 2.0

_AHEAD: Final = 128 << 10
"""Bytes that come of one stream before they are asked for."""

# Every RPC of the suite is safe to repeat. What a handler answered is not repeated
# by the channel (servers push back), so this is for a service that restarts.
_RETRY: Final = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.2s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
_OPTIONS: Final[tuple[tuple[str, Any], ...]] = (
    ("grpc.service_config", json.dumps(_RETRY)),
    ("grpc.enable_retries", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # In truth what an attempt to connect may take; see docs/decisions/0036-nodes.md.
    ("grpc.min_reconnect_backoff_ms", 3000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A container that starts again may have another address; gRPC would ask after 30 s.
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
    # By itself gRPC lets megabytes come for each stream that nobody reads.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", _AHEAD),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.max_receive_message_length", _MAX_RECEIVED),
    ("grpc.max_send_message_length", -1),
)


_NARROW: Final[tuple[tuple[str, Any], ...]] = (
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 256 << 10),
    ("grpc.use_local_subchannel_pool", 1),
)


class Peer:
    """A service behind this one.

    Failures are an `AioRpcError` that carries what the service said, or a
    `ServiceError` when nothing behind said a reason.
    """

    def __init__(
        self, channel: grpc.aio.Channel, service: str, token: str, *, keeps_entries: bool = False
    ) -> None:
        self.channel = channel
        self._keeps_entries = keeps_entries
        self._service = service
        self._token = token

    async def answers(self) -> bool:
        """Whether it says, within 2 seconds, that it serves."""
        check: Any = self.channel.unary_unary(
            _CHECK,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        call = check(health_pb2.HealthCheckRequest(), timeout=_PATIENCE)
        try:
            return bool((await call).status == SERVING)
        except grpc.aio.AioRpcError:
            return False
        finally:
            call.cancel()

    async def unary(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Req, Res],
        request: Req,
        *,
        timeout: float | None = None,
    ) -> Res:
        """One request, one answer. `timeout` in seconds only ever shortens the deadline."""
        call = method(request, timeout=_shorter(timeout), metadata=self._metadata())
        with self._ending(call):
            return await call

    @asynccontextmanager
    async def stream(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[Req, Res],
        request: Req,
        *,
        timeout: float | None = None,
    ) -> AsyncIterator[AsyncIterator[Res]]:
        """One request, many answers, until the block ends."""
        call = method(request, timeout=_shorter(timeout), metadata=self._metadata())
        with self._ending(call):
            yield aiter(call)

    async def upload(
        self,
        method: "grpc.aio.StreamUnaryMultiCallable[Req, Res]",
        requests: AsyncIterator[Req],
        *,
        timeout: float | None = None,
    ) -> Res:
        """Many requests, one answer. A failure of `requests` is raised as it is."""
        sent = _Requests(requests, self._service)
        call = method(aiter(sent), timeout=_shorter(timeout), metadata=self._metadata())
        with self._ending(call, First(call)), sent.raising():
            return await call

    @asynccontextmanager
    async def exchange(
        self,
        method: "grpc.aio.StreamStreamMultiCallable[Req, Res]",
        requests: AsyncIterator[Req],
        *,
        timeout: float | None = None,
    ) -> AsyncIterator[AsyncIterator[Res]]:
        """Many requests, many answers, until the block ends."""
        sent = _Requests(requests, self._service)
        call = method(aiter(sent), timeout=_shorter(timeout), metadata=self._metadata())
        with self._ending(call, First(call)), sent.raising():
            yield aiter(call)

    @contextmanager
    def _ending(self, call: grpc.aio.Call, first: First | None = None) -> Iterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            meant = first.meant(error) if first else error
            if told(meant):
                raise meant from None
            raise untold(meant, self._service) from error
        finally:
            call.cancel()

    def _metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        call = calls.current()
        pairs: tuple[tuple[str, str | bytes], ...] = (
            (calls.CORRELATION_KEY, call.correlation_id),
            (calls.TRACE_KEY, call.traceparent if call.traced else ""),
            (PRINCIPAL_KEY, call.identity.principal),
            (TENANT_KEY, call.identity.tenant),
            (calls.FENCING_KEY, "{}/{}".format(*call.fence) if call.fence else ""),
            (TOKEN_KEY, self._token),
            (LIMITS_KEY, call.limits.header()),
            (calls.ENTRY_KEY, call.entry if self._keeps_entries else b""),
        )
        return tuple(pair for pair in pairs if pair[1])


class _Requests(Body):
    """Requests whose failure gRPC would turn into a cancelled call."""

    def __init__(self, requests: AsyncIterator[Any], service: str) -> None:
        super().__init__(requests)
        self._service = service

    @contextmanager
    def raising(self) -> Iterator[None]:
        try:
            yield
        except (asyncio.CancelledError, grpc.aio.AioRpcError) as error:
            task = asyncio.current_task()
            if task and task.cancelling():
                raise
            if self.failure is not None:
                raise self.failure from None
            if isinstance(error, asyncio.CancelledError):
                # gRPC's word for a service that broke off while it was told of the last request.
                raise away(self._service) from None
            raise


@asynccontextmanager
async def connected(
    target: str,
    *,
    service: str,
    token: str = "",
    secure: Secure | None = None,
    narrow: bool = False,
    keeps_entries: bool = False,
) -> AsyncIterator[Peer]:
    """A `Peer` at `host:port` or `unix:/path`; it need not be up yet. `secure`: TCP is TLS.

    `narrow`: for streams that stand still with what was sent; a channel keeps megabytes of each
    otherwise. `keeps_entries`: it is told the entry of the audit log that a call has.
    """
    options = (*_OPTIONS, *_NARROW) if narrow else _OPTIONS
    async with AsyncExitStack() as stack:
        if secure and not target.startswith(_UNIX):
            target = await stack.enter_async_context(secured(target, service, secure))
        opened = grpc.aio.insecure_channel(target, options=options)
        channel = await stack.enter_async_context(opened)
        yield Peer(channel, service, token, keeps_entries=keeps_entries)


def _shorter(timeout: float | None) -> float | None:
    left = calls.current().remaining()
    return min((each for each in (timeout, left) if each is not None), default=None)
