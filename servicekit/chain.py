"""What every call of this suite goes through, in one interceptor.

In this order: correlation id, identity, role, rate and number of calls, form and rules
of the request, what a share reaches, deadline, the handler; then the status, and the
observer, whatever happened. One wrapper per RPC is made and kept. Health speaks for
itself, and reflection wants an identity only.
"""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext, suppress
from typing import Any, Final, TypeAlias

import grpc
import protovalidate
from google.rpc import status_pb2

from cove.options.v1.options_pb2 import Role
from servicekit import calls
from servicekit.errors import DeadlineExceeded, PermissionDenied, ServiceError
from servicekit.identity import Authenticator, Caller, Identity
from servicekit.incoming import Incoming
from servicekit.observer import Calls, Observer
from servicekit.policy import Policy, method_of, policy_of
from servicekit.quota import Limits
from servicekit.rates import Admission, Enter, everyone
from servicekit.reach import Reach
from servicekit.spans import Recorder
from servicekit.status import DETAILS_KEY, Context, reason_name, to_status
from servicekit.streams import LASTS, Streams
from servicekit.validation import Reader
from servicekit.witness import Witness, Witnesses, nobody

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"

Run: TypeAlias = Callable[[Any, Context, Witness], Awaitable[Any]]

_OURS: Final = "/cove."
_REFLECTION: Final = "/grpc.reflection."
_LOOKED_AT: Final = Policy(role=Role.ROLE_UNSPECIFIED, limit=lambda _: None, reads=True)
_NO_PUSHBACK: Final = ("grpc-retry-pushback-ms", "-1")
_CODES: Final[Mapping[int, grpc.StatusCode]] = {code.value[0]: code for code in grpc.StatusCode}


class Chain(grpc.aio.ServerInterceptor):
    """The interceptor of every server. `drain` ends its streams that have no deadline."""

    def __init__(
        self,
        authenticator: Authenticator,
        observer: Observer,
        max_message_size: int,
        witnesses: Witnesses = nobody,
        recorder: Recorder | None = None,
        admission: Admission = everyone,
    ) -> None:
        self._admission = admission
        self._incoming = Incoming()
        self._authenticator = authenticator
        self._observer = observer
        self._max_message_size = max_message_size
        self._witnesses = witnesses
        self._recorder = recorder
        self._validator = protovalidate.Validator()
        self._handlers: dict[str, Handler] = {}
        self._streams = Streams()

    def drain(self) -> None:
        self._streams.drain()

    def checked(self) -> AbstractAsyncContextManager[None]:
        """While the block runs, streams end whose callers are not let in any more."""
        return self._streams.checked(self._authenticator)

    def flush(self) -> None:
        """Tell of the calls that ended last."""
        self._observer.flush()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        path = handler_call_details.method
        if path in self._handlers:
            return self._handlers[path]
        handler = await continuation(handler_call_details)
        if handler is None or not path.startswith((_OURS, _REFLECTION)):
            return handler
        self._handlers[path] = self._wrap(path, handler)
        return self._handlers[path]

    def _wrap(self, path: str, handler: Any) -> Handler:
        given = "stream" if handler.request_streaming else "unary"
        told = "stream" if handler.response_streaming else "unary"
        behavior = getattr(handler, f"{given}_{told}")
        # Of whatever shape: `Incoming` says why.
        make: Callable[..., Handler] = getattr(grpc, f"stream_{told}_rpc_method_handler")
        if path.startswith(_REFLECTION):
            run = _guard(self._authenticator, self._admission(path, _LOOKED_AT), behavior)
            return make(run, handler.request_deserializer, handler.response_serializer)
        policy = policy_of(path)
        rpc = Rpc(
            path=path,
            policy=policy,
            reach=Reach(policy, method_of(path).input_type),
            enter=self._admission(path, policy),
            incoming=self._incoming,
            behavior=behavior,
            reader=Reader(handler.request_deserializer, self._validator, self._max_message_size),
            request_streaming=handler.request_streaming,
            streaming=handler.request_streaming or handler.response_streaming,
            authenticator=self._authenticator,
            observed=self._observer.of(path),
            witness=self._witnesses(path),
            streams=self._streams,
            recorder=self._recorder,
        )
        # Requests stay bytes until the caller is known: see `Reader`.
        run = rpc.stream if handler.response_streaming else rpc.unary
        return make(run, None, handler.response_serializer)


class Rpc:
    """One RPC and all that its calls go through."""

    def __init__(
        self,
        *,
        path: str,
        policy: Policy,
        reach: Reach,
        enter: Enter,
        incoming: Incoming,
        behavior: Callable[[Any, Context], Any],
        reader: Reader,
        request_streaming: bool,
        streaming: bool,
        authenticator: Authenticator,
        observed: Calls,
        witness: Callable[[], Witness],
        streams: Streams,
        recorder: Recorder | None,
    ) -> None:
        self._path = path
        self._policy = policy
        self._reach = reach
        self._enter = enter
        self._incoming = incoming
        self._behavior = behavior
        self._reader = reader
        self._request_streaming = request_streaming
        self._streaming = streaming
        self._authenticator = authenticator
        self._observed = observed
        self._witness = witness
        self._streams = streams
        self._recorder = recorder

    async def unary(self, received: Any, context: Context) -> Any:
        return await self._watched(self._answer, received, context)

    async def stream(self, received: Any, context: Context) -> None:
        await self._watched(self._send, received, context)

    async def _watched(self, run: Run, received: Any, context: Context) -> Any:
        """Run a call so that whatever happens is told to its caller, and observed."""
        began = time.monotonic()
        witness = self._witness()
        self._observed.began()
        code, reason = "OK", ""
        try:
            try:
                response = await self._admitted(run, received, context, witness)
                context.set_trailing_metadata(self._trailing(context))
                return response
            except asyncio.CancelledError as error:
                if _is_cancelled():
                    code = "DEADLINE_EXCEEDED" if context.time_remaining() == 0 else "CANCELLED"
                    raise
                status = to_status(error)  # Something the handler waited for was cancelled.
            except grpc.aio.InternalError:  # A write to a caller that has just left.
                code = "CANCELLED"
                raise asyncio.CancelledError from None
            except grpc.aio.AbortError:  # The handler has spoken for itself.
                code = _code_name(context.code())
                raise
            except Exception as error:
                status = to_status(error)
            code, reason = _code_name(status.code), reason_name(status)
            await self._fail(context, status)
        finally:
            call, seconds = calls.current(), time.monotonic() - began
            self._observed.ended(call, code, reason, seconds)
            witness.ended(call, code, reason, seconds)

    async def _fail(self, context: Context, status: status_pb2.Status) -> None:
        code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
        trailing = [*self._trailing(context), (DETAILS_KEY, status.SerializeToString())]
        if code is grpc.StatusCode.UNAVAILABLE and not self._streams.draining:
            trailing.append(_NO_PUSHBACK)  # It was tried: whoever knows why decides on more.
        await context.abort(code, status.message, tuple(trailing))

    async def _admitted(self, run: Run, received: Any, context: Context, witness: Witness) -> Any:
        metadata = text_metadata(context)
        caller = Caller.of(metadata, context)
        call = calls.from_metadata(self._path, metadata, self._recorder)
        call.source = caller.source
        call.reads = self._policy.reads
        calls.begin(call)
        call.identity = await self._authenticator.authenticate(caller)
        if call.identity.role == Role.ROLE_SERVICE:
            call.limits = Limits.of(metadata)
            call.fence = calls.fence_of(metadata)
            call.entry = calls.entry_of(metadata)
        try:
            self._reach.admit(call.identity)
        except PermissionDenied:
            if not self._request_streaming:
                with suppress(ServiceError):  # For whom looks on, to see what it was about.
                    witness.asked(self._reader.read(await self._incoming.only(context)))
            raise
        with self._enter(call.identity):
            return await self._within(call, caller, run, received, context, witness)

    async def _within(
        self,
        call: calls.Call,
        caller: Caller,
        run: Run,
        received: Any,
        context: Context,
        witness: Witness,
    ) -> Any:
        request = await self._read(call, received, context, witness)
        limit = self._policy.limit(request)
        left = context.time_remaining()
        if left is not None:
            call.deadline = time.monotonic() + left
        holding = (
            self._streams.hold(caller, context, endless=limit is None)
            if limit is None or limit > LASTS or self._streaming
            else nullcontext()
        )
        with holding:
            if limit is None or (left is not None and left <= limit):
                return await run(request, context, witness)
            call.deadline = time.monotonic() + limit
            return await self._limited(limit, run, request, context, witness)

    async def _limited(
        self, limit: float, run: Run, request: Any, context: Context, witness: Witness
    ) -> Any:
        try:
            async with asyncio.timeout(limit) as timer:
                return await run(request, context, witness)
        except TimeoutError:
            if timer.expired():
                raise DeadlineExceeded("the deadline passed", seconds=f"{limit:g}") from None
            raise

    async def _read(
        self, call: calls.Call, received: Any, context: Context, witness: Witness
    ) -> Any:
        if self._request_streaming:
            witness.admitted(call, None)
            return self._checked(received, witness, call.identity)
        try:
            request = self._reader.read(await self._incoming.only(context))
        except ServiceError:
            witness.admitted(call, None)
            raise
        if call.identity.workspace:
            witness.asked(request)
        self._reach.check(call.identity, request)
        witness.admitted(call, request)
        return request

    async def _answer(self, request: Any, context: Context, witness: Witness) -> Any:
        response = await self._behavior(request, context)
        witness.answered(response)
        return response

    async def _send(self, request: Any, context: Context, witness: Witness) -> None:
        responses = self._behavior(request, context)
        if inspect.isawaitable(responses):  # A handler that writes by itself.
            await responses
            return
        # Writing here, not yielding, lets a cancel arrive as one, and the handler's
        # generator is closed at once, not when it is collected.
        async with aclosing(responses):
            async for response in responses:
                witness.answered(response)
                await context.write(response)

    async def _checked(
        self, received: AsyncIterator[bytes], witness: Witness, identity: Identity
    ) -> AsyncIterator[Any]:
        async for data in received:
            request = self._reader.read(data)
            witness.asked(request)
            self._reach.check(identity, request)
            yield request

    def _trailing(self, context: Context) -> tuple[tuple[str, str | bytes], ...]:
        kept = tuple(context.trailing_metadata() or ())
        call = calls.current()
        ids = ((calls.CORRELATION_KEY, call.correlation_id), (calls.TRACE_KEY, call.traceparent))
        return (*kept, *(pair for pair in ids if pair[1]))


def _is_cancelled() -> bool:
    """Whether the call itself was cancelled, by its caller or by a stop."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _code_name(code: Any) -> str:
    """gRPC keeps a code as a number or as a member of the enum."""
    if isinstance(code, grpc.StatusCode):
        return code.name
    return _CODES.get(code, grpc.StatusCode.UNKNOWN).name


def text_metadata(context: Context) -> Mapping[str, str]:
    """The headers of a call by lower-case name; those named `-bin` are bytes in truth."""
    return dict(context.invocation_metadata() or ())  # type: ignore[arg-type]


def _guard(
    authenticator: Authenticator,
    enter: Enter,
    behavior: Callable[[Any, Context], AsyncIterator[Any]],
) -> Callable[[Any, Context], Awaitable[None]]:
    """Reflection: for anyone with an identity."""

    async def run(requests: Any, context: Context) -> None:
        try:
            identity = await authenticator.authenticate(Caller.of(text_metadata(context), context))
            taken = enter(identity)
        except Exception as error:
            status = to_status(error)
            packed = ((DETAILS_KEY, status.SerializeToString()),)
            await context.abort(_CODES[status.code], status.message, packed)
        with taken:
            async for response in behavior(requests, context):
                await context.write(response)

    return run
