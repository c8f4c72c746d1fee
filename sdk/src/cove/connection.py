"""Calls to a gateway: deadline, identity, retries, and failures as `CoveError`.

Every RPC of Cove is safe to repeat: one that reads by nature, one that writes by its
request id, which is made once per call and sent again with each retry. Retries are made here
and not by the channel, so that they can be bounded in time, start anew after progress, honour the
delay a server asks for, and cover uploads.
"""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, Final, Generic, Self, TypeVar

import grpc
from google.protobuf.message import Message

from cove import secure, status
from cove.deadlines import deadline
from cove.ended import First
from cove.endpoint import Endpoint
from cove.patience import Patience as Patience
from cove.upload_body import Body

Req = TypeVar("Req", bound=Message)
Res = TypeVar("Res")
C = TypeVar("C", bound=grpc.aio.Call)

_FIRST_PATIENCE: Final = 3.0
"""Seconds to wait for a gateway that has never answered."""

_UNREACHED: Final = ("failed to connect", "DNS resolution failed", "errors resolving")
"""How gRPC begins to tell of a call that never had a connection."""

_SILENCE: Final = 35.0
"""Seconds without an event after which a stream counts as dropped: heartbeats come every 10."""

_SETTLING: Final = 0.2
"""Seconds for a stream to end after its last answer, and for gRPC to call back about a call that
was broken off. It tells nobody when it has; on a quiet machine it takes less than 10 ms."""

_OPTIONS: Final[tuple[tuple[str, Any], ...]] = (
    ("grpc.enable_retries", 0),  # Made here.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 5000),  # In truth what an attempt to connect may take.
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # A new client makes a new connection.
)

_NARROW: Final[tuple[tuple[str, Any], ...]] = (
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 256 << 10),
)


class Connection:
    """One channel to a gateway."""

    def __init__(
        self,
        endpoint: Endpoint,
        patience: float,
        silence: float = _SILENCE,
        *,
        options: tuple[tuple[str, Any], ...] = (),
    ) -> None:
        _need_running_loop()
        self.endpoint = endpoint
        self.channel = secure.channel(endpoint.address, endpoint.tls, _OPTIONS + options)
        self._patience = patience
        self._silence = silence
        self._reached = False
        self._under_way: set[grpc.aio.Call] = set()
        self._closed = False
        self._settled = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel; calls in progress are cancelled. May be done twice.

        Waits until gRPC has done with calls that were broken off just before: what comes for an
        event loop that has ended, another loop of the process would print as an exception.
        """
        self._closed = True
        for call in tuple(self._under_way):
            self.end(call)
        await self.channel.close()
        await asyncio.sleep(self._settled - asyncio.get_running_loop().time())

    def end(self, call: grpc.aio.Call) -> None:
        """Break a call off, if it has not ended."""
        self._under_way.discard(call)
        if call.cancel() or call.cancelled():
            self._settled = asyncio.get_running_loop().time() + _SETTLING

    def narrow(self) -> "Connection":
        """Another connection, for streams that may stand still with what was sent: a channel
        keeps megabytes of each otherwise. Whoever calls this closes it."""
        return Connection(self.endpoint, self._patience, options=_NARROW)

    def patience(self) -> Patience:
        """For one call and its retries."""
        return Patience(
            lambda: self._patience if self._reached else min(self._patience, _FIRST_PATIENCE)
        )

    async def unary(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Req, Res],
        request: Req,
        *,
        timeout: float | None = None,
    ) -> Res:
        """One request, one answer; repeated while nobody answers.

        `timeout` in seconds is for each attempt; the RPC's own deadline when it is None.
        """
        limit = timeout if timeout is not None else deadline(request)
        patience, metadata = self.patience(), self._metadata()
        while True:
            patience.begin()
            call = self._begun(method(request, timeout=limit, metadata=metadata))
            try:
                response = await call
            except grpc.aio.AioRpcError as error:
                await patience.wait(self.failure(error))
            else:
                self._reached = True
                return response
            finally:
                self.end(call)

    async def upload(
        self,
        method: "grpc.aio.StreamUnaryMultiCallable[Req, Res]",
        requests: Callable[[], AsyncIterator[Req]],
        *,
        timeout: float,
    ) -> Res:
        """Many requests, one answer. `requests` makes them anew for each attempt."""
        patience, metadata = self.patience(), self._metadata()
        while True:
            patience.begin()
            body = Body(requests())
            call = self._begun(method(aiter(body), timeout=timeout, metadata=metadata))
            first = First(call)
            try:
                response = await call
            except grpc.aio.AioRpcError as error:
                await patience.wait(self.failure(first.meant(error)))
            except asyncio.CancelledError:
                if body.failure:  # gRPC makes a cancellation of it.
                    raise body.failure from None
                if self._closed or ((task := asyncio.current_task()) and task.cancelling()):
                    raise
                # And of a gateway that broke off while it was told of the end.
                await patience.wait(status.broken_off(self.endpoint.address))
            else:
                self._reached = True
                return response
            finally:
                self.end(call)

    def stream(
        self, method: grpc.aio.UnaryStreamMultiCallable[Req, Res], request: Req
    ) -> "Answers[Res]":
        """One request, many answers, one attempt."""
        limit = deadline(request)
        call = self._begun(method(request, timeout=limit, metadata=self._metadata()))
        return Answers(self, call, self._silence)

    def exchange(
        self, method: "grpc.aio.StreamStreamMultiCallable[Req, Res]"
    ) -> "grpc.aio.StreamStreamCall[Req, Res]":
        """Many requests, many answers, one attempt. Whoever calls this `end`s what it returns."""
        return self._begun(method(metadata=self._metadata()))

    def answers(self, call: "grpc.aio.StreamStreamCall[Any, Res]") -> "Answers[Res]":
        """Those of an exchange, as of a stream."""
        return Answers(self, call, self._silence)

    def reached(self) -> None:
        """The gateway answered."""
        self._reached = True

    def failure(self, error: grpc.aio.AioRpcError) -> status.CoveError:
        """What the call failed with."""
        failed = status.of(error, self.endpoint.address)
        unreached = failed.broken_off and (error.details() or "").startswith(_UNREACHED)
        self._reached = self._reached or not unreached
        return failed

    def _begun(self, call: C) -> C:
        self._under_way.add(call)
        return call

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        pairs = (
            ("x-request-id", str(uuid.uuid4())),
            ("authorization", f"Bearer {self.endpoint.token}" if self.endpoint.token else ""),
            ("cove-tenant", self.endpoint.tenant),
        )
        return tuple(pair for pair in pairs if pair[1])


class Answers(Generic[Res]):
    """The answers of a stream, as an async context manager that ends the call. Raises `CoveError`.

    It is no generator: asyncio, when it ends, closes all generators at once, and those within
    others would be closed twice.
    """

    def __init__(
        self,
        connection: Connection,
        call: "grpc.aio.UnaryStreamCall[Any, Res] | grpc.aio.StreamStreamCall[Any, Res]",
        silence: float,
    ) -> None:
        self._connection = connection
        self._call = call
        self._answers = aiter(call)
        self._first = First(call)
        self._silence = silence

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and not self._call.done():
                # After the last answer that a reader wants, a stream ends by itself: that is
                # waited for, so that no connection is told of a reset for each.
                with suppress(TimeoutError, StopAsyncIteration, grpc.aio.AioRpcError):
                    async with asyncio.timeout(_SETTLING):
                        await anext(self._answers)
        finally:
            self.close()

    def close(self) -> None:
        """Break the call off, if it has not ended."""
        self._connection.end(self._call)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Res:
        try:
            async with asyncio.timeout(self._silence):
                answer = await anext(self._answers)
        except TimeoutError:
            raise status.Unavailable("the stream went silent", broken_off=True) from None
        except grpc.aio.AioRpcError as error:
            raise self._connection.failure(self._first.meant(error)) from None
        self._connection.reached()
        return answer


def _need_running_loop() -> None:
    """gRPC binds the channel to it: there must be one."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "no event loop runs: make the async client in a coroutine, or use cove.sync.Client"
        ) from None


def request_id(given: str = "") -> str:
    """An idempotency key for one call and all its retries: the caller's own, or a new one."""
    return given or str(uuid.UUID(bytes=os.urandom(16), version=4))
