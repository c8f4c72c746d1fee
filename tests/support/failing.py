"""The network in front of a real server: lets calls through, or fails, holds, or loses them.

It is a double of the network and not of a server: it knows paths and bytes only, so
it cannot prove what a server does, only what its caller does when calls go wrong.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import grpc

from servicekit.errors import ServiceError
from servicekit.status import DETAILS_KEY, to_status

_NO_PUSHBACK: Final = ("grpc-retry-pushback-ms", "-1")
_OPTIONS: Final = (
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.http2.max_ping_strikes", 0),  # A stage may stand for minutes, with a stream that waits.
)

Alter: TypeAlias = Callable[[bytes], bytes]


@dataclass(slots=True)
class Fault:
    """What happens to calls of one RPC."""

    error: ServiceError | None = None
    """What its caller is told; None: what a broken connection tells."""

    code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE
    """Of a broken connection."""

    times: int | None = None
    """How many calls; None: all."""

    done: bool = False
    """Whether the server still does it, so that only its answer is lost."""


@dataclass(slots=True)
class Hold:
    """Calls of one RPC wait here, before the server gets them or, with `done`, after."""

    rpc: str
    done: bool = False
    correlation_id: str = ""
    """Only calls with this one; empty: all."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)


class Proxy:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._faults: dict[str, Fault] = {}
        self._holds: list[Hold] = []
        self._going: dict[str, set[asyncio.Task[None]]] = {}
        self._alters: dict[str, Alter] = {}
        self.calls: list[str] = []
        """The RPCs that came, in order."""

        self.refused: list[str] = []
        """Those that the server did not do, in order."""

        self.open = 0
        """How many calls are going on."""

        self.port = 0
        """Where it listens, unless that is a socket's path."""

    def fail(
        self,
        rpc: str,
        error: ServiceError | None = None,
        *,
        code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE,
        times: int | None = None,
        done: bool = False,
    ) -> None:
        self._faults[rpc] = Fault(error, code, times, done)

    def hold(self, rpc: str, *, done: bool = False, correlation_id: str = "") -> Hold:
        held = Hold(rpc, done, correlation_id)
        self._holds.append(held)
        return held

    def alter(self, rpc: str, alter: Alter) -> None:
        """Send on what this makes of each answer."""
        self._alters[rpc] = alter

    def cut(self, rpc: str) -> None:
        """Break the calls that are going on."""
        for task in self._going.get(rpc, ()):
            task.cancel()

    def heal(self) -> None:
        """Let everything through from now on, as it is."""
        self._faults.clear()
        self._alters.clear()
        for held in self._holds:
            held.go_on.set()
        self._holds.clear()

    async def relay(self, path: str, requests: AsyncIterator[bytes], context: Any) -> None:
        rpc = path.rpartition("/")[2]
        self.calls.append(rpc)
        self.open += 1
        relaying = asyncio.create_task(self._relay(rpc, path, requests, context))
        self._going.setdefault(rpc, set()).add(relaying)
        try:
            await relaying
        except asyncio.CancelledError:
            if (own := asyncio.current_task()) and own.cancelling():
                raise
            await _abort(Fault(), context)
        finally:
            relaying.cancel()
            self._going[rpc].discard(relaying)
            self.open -= 1

    async def _relay(
        self, rpc: str, path: str, requests: AsyncIterator[bytes], context: Any
    ) -> None:
        fault, held = self._due(rpc), self._held(rpc, context)
        if fault and not fault.done:
            await _abort(fault, context)
        if held and not held.done:
            await _wait(held)
        answers, failure = await self._forward(
            path, requests, context, buffered=bool(fault or held)
        )
        if held and held.done:
            await _wait(held)
        if fault:
            await _abort(fault, context)
        for answer in answers:
            await context.write(answer)
        if failure:
            self.refused.append(rpc)
            trailing = tuple(failure.trailing_metadata())
            await context.abort(failure.code(), failure.details() or "", trailing)

    async def _forward(
        self, path: str, requests: AsyncIterator[bytes], context: Any, *, buffered: bool
    ) -> tuple[list[bytes], grpc.aio.AioRpcError | None]:
        """What the server answered; without `buffered` the answers are sent on at once."""
        metadata = [
            (key, value)
            for key, value in context.invocation_metadata()
            if not key.startswith(("grpc-", "user-agent"))
        ]
        method: Any = self._channel.stream_stream(path)
        call = method(requests, timeout=context.time_remaining(), metadata=metadata)
        answers = []
        alter = self._alters.get(path.rpartition("/")[2], bytes)
        try:
            async for received in call:
                answer = alter(received)
                if buffered:
                    answers.append(answer)
                else:
                    await context.write(answer)
        except grpc.aio.AioRpcError as error:
            return answers, error
        finally:
            call.cancel()
        return answers, None

    def _held(self, rpc: str, context: Any) -> Hold | None:
        correlation_id = dict(context.invocation_metadata()).get("x-request-id")
        return next(
            (
                held
                for held in self._holds
                if held.rpc == rpc and held.correlation_id in ("", correlation_id)
            ),
            None,
        )

    def _due(self, rpc: str) -> Fault | None:
        fault = self._faults.get(rpc)
        if fault and fault.times is not None:
            fault.times -= 1
            if fault.times <= 0:
                del self._faults[rpc]
        return fault


@asynccontextmanager
async def proxied(
    target: str, address: str, credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[Proxy]:
    """A proxy that listens on `address` in front of `target`; with credentials by TLS."""
    server = grpc.aio.server(options=_OPTIONS)
    async with grpc.aio.insecure_channel(target, options=_OPTIONS) as channel:
        proxy = Proxy(channel)
        server.add_generic_rpc_handlers((_Everything(proxy),))
        if credentials:
            proxy.port = server.add_secure_port(address, credentials)
        else:
            proxy.port = server.add_insecure_port(address)
        await server.start()
        try:
            yield proxy
        finally:
            proxy.heal()
            await server.stop(0)


class _Everything(grpc.GenericRpcHandler):
    """On the wire every call is a stream of requests and one of answers."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        path = handler_call_details.method

        async def run(requests: AsyncIterator[bytes], context: Any) -> None:
            await self._proxy.relay(path, requests, context)

        make: Callable[..., Any] = grpc.stream_stream_rpc_method_handler
        return make(run)


async def _wait(held: Hold) -> None:
    held.reached.set()
    await held.go_on.wait()


async def _abort(fault: Fault, context: Any) -> None:
    if fault.error is None:
        await context.abort(fault.code, "connection reset")
        return
    status = to_status(fault.error)
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    trailing = ((DETAILS_KEY, status.SerializeToString()), _NO_PUSHBACK)
    await context.abort(code, status.message, trailing)
