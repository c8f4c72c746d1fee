"""One RPC of a server, and all that its calls go through; see servicekit/chain.py."""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Any, Final, TypeAlias

import grpc
from google.rpc import status_pb2

from cove.options.v1.options_pb2 import Role
from servicekit import calls
from servicekit.errors import DeadlineExceeded, PermissionDenied, ServiceError
from servicekit.identity import Authenticator, Caller, Identity
from servicekit.incoming import Incoming
from servicekit.observer import Calls
from servicekit.patience import Late, Patience
from servicekit.policy import Policy
from servicekit.proxies import Proxies
from servicekit.quota import Limits
from servicekit.rates import Enter
from servicekit.reach import Reach
from servicekit.spans import Recorder
from servicekit.status import DETAILS_KEY, Context, reason_name, to_status
from servicekit.streams import Streams
from servicekit.validation import Reader
from servicekit.witness import Witness
from servicekit.writing import begin

Run: TypeAlias = Callable[[Any, Context, Witness], Awaitable[Any]]

CODES: Final[Mapping[int, grpc.StatusCode]] = {code.value[0]: code for code in grpc.StatusCode}
_NO_PUSHBACK: Final = ("grpc-retry-pushback-ms", "-1")
_SERVICE: Final = Role.ROLE_SERVICE
_MOMENT: Final = 0.1


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
        patience: Patience | None,
        request_streaming: bool,
        response_streaming: bool,
        authenticator: Authenticator,
        proxies: Proxies,
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
        self._run: Run = self._send if response_streaming else self._answer
        self._reader = reader
        self._patience = patience
        self._request_streaming = request_streaming
        self._authenticator = authenticator
        self._proxies = proxies
        self._observed = observed
        self._witness = witness
        self._streams = streams
        self._recorder = recorder

    async def call(self, received: Any, context: Context) -> Any:
        """Run a call so that whatever happens is told to its caller, and observed."""
        began = time.monotonic()
        witness = self._witness()
        self._observed.began()
        code, reason = "OK", ""
        try:
            try:
                response = await self._admitted(received, context, witness)
                context.set_trailing_metadata(self._trailing(context))
                return response
            except asyncio.CancelledError as error:
                if _is_cancelled():
                    code = "DEADLINE_EXCEEDED" if _is_late(context) else "CANCELLED"
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
        code = CODES.get(status.code, grpc.StatusCode.UNKNOWN)
        trailing = [*self._trailing(context), (DETAILS_KEY, status.SerializeToString())]
        if code is grpc.StatusCode.UNAVAILABLE and not self._streams.draining:
            trailing.append(_NO_PUSHBACK)  # It was tried: whoever knows why decides on more.
        await context.abort(code, status.message, tuple(trailing))

    async def _admitted(self, received: Any, context: Context, witness: Witness) -> Any:
        metadata = text_metadata(context)
        caller = self._proxies.behind(Caller.of(metadata, context))
        call = calls.from_metadata(self._path, metadata, self._recorder)
        call.source = caller.source
        call.reads = self._policy.reads
        calls.begin(call)
        call.identity = identity = await self._authenticator.authenticate(caller)
        if identity.role == _SERVICE:
            call.limits = Limits.of(metadata)
            call.fence = calls.fence_of(metadata)
            call.entry = calls.entry_of(metadata)
        with (
            self._streams.hold(caller, identity, context, endless=self._policy.endless),
            self._enter(identity),
        ):
            await self._reached(identity, context, witness)
            request = await self._read(call, received, context, witness)
            return await self._within(call, request, context, witness)

    async def _reached(self, identity: Identity, context: Context, witness: Witness) -> None:
        """Raises `PermissionDenied`."""
        try:
            self._reach.admit(identity)
        except PermissionDenied:
            if not self._request_streaming:
                with suppress(ServiceError):  # For whom looks on, to see what it was about.
                    witness.asked(self._reader.read(await self._incoming.only(context)))
            raise

    async def _within(
        self, call: calls.Call, request: Any, context: Context, witness: Witness
    ) -> Any:
        limit = self._policy.limit(request)
        left = context.time_remaining()
        if left is not None:
            call.deadline = time.monotonic() + left
        if limit is None or (left is not None and left <= limit):
            return await self._run(request, context, witness)
        call.deadline = time.monotonic() + limit
        try:
            if self._patience is None:
                return await self._limited(limit, request, context, witness)
            with self._patience:
                return await self._run(request, context, witness)
        except Late:
            raise DeadlineExceeded("the deadline passed", seconds=f"{limit:g}") from None

    async def _limited(self, limit: float, request: Any, context: Context, witness: Witness) -> Any:
        """For RPCs that have a limit for each request. Raises `Late`."""
        try:
            async with asyncio.timeout(limit) as timer:
                return await self._run(request, context, witness)
        except TimeoutError:
            if timer.expired():
                raise Late from None
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
        begun = False
        async with aclosing(responses):
            async for response in responses:
                witness.answered(response)
                if begun:
                    await context.write(response)
                else:
                    await begin(context, response)
                    begun = True

    async def _checked(
        self, received: AsyncIterator[bytes], witness: Witness, identity: Identity
    ) -> AsyncIterator[Any]:
        async for data in received:
            request = self._reader.read(data)
            witness.asked(request)
            self._reach.check(identity, request)
            yield request

    def _trailing(self, context: Context) -> tuple[tuple[str, str | bytes], ...]:
        kept, call = context.trailing_metadata(), calls.current()
        ids = (calls.CORRELATION_KEY, call.correlation_id), (calls.TRACE_KEY, call.traceparent)
        return (*kept, *ids) if kept else ids


def _is_late(context: Context) -> bool:
    """Whether a call that was cancelled was so by its deadline: its caller breaks it off itself,
    by a clock that began a little earlier."""
    left = context.time_remaining()
    return left is not None and left < _MOMENT


def _is_cancelled() -> bool:
    """Whether the call itself was cancelled, by its caller or by a stop."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _code_name(code: Any) -> str:
    """gRPC keeps a code as a number or as a member of the enum."""
    if isinstance(code, grpc.StatusCode):
        return code.name
    return CODES.get(code, grpc.StatusCode.UNKNOWN).name


def text_metadata(context: Context) -> Mapping[str, str]:
    """The headers of a call by lower-case name; those named `-bin` are bytes in truth."""
    return dict(context.invocation_metadata() or ())  # type: ignore[arg-type]
