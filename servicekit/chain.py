"""What every call of this suite goes through, in one interceptor.

In this order: correlation id, identity, rate and number of calls, role, form and rules
of the request, what a share reaches, deadline, the handler; then the status, and the
observer, whatever happened. One wrapper per RPC is made and kept. Health speaks for
itself, and reflection wants an identity only.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeAlias

import grpc

from cove.options.v1.options_pb2 import Role
from servicekit.identity import Authenticator, Caller
from servicekit.incoming import Incoming
from servicekit.observer import Observer
from servicekit.patience import Patience
from servicekit.policy import Policy, method_of, policy_of
from servicekit.proxies import NO_PROXIES, Proxies
from servicekit.rates import Admission, Enter, everyone
from servicekit.reach import Reach
from servicekit.rpc import CODES, Rpc, text_metadata
from servicekit.spans import Recorder
from servicekit.status import DETAILS_KEY, Context, to_status
from servicekit.streams import Streams
from servicekit.validation import Reader
from servicekit.witness import Witnesses, nobody
from servicekit.writing import begin

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"

_OURS: Final = "/cove."
_REFLECTION: Final = "/grpc.reflection."
_LOOKED_AT: Final = Policy(role=Role.ROLE_UNSPECIFIED, limit=lambda _: None, reads=True)


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
        proxies: Proxies = NO_PROXIES,
    ) -> None:
        self._admission = admission
        self._proxies = proxies
        self._incoming = Incoming()
        self._authenticator = authenticator
        self._observer = observer
        self._max_message_size = max_message_size
        self._witnesses = witnesses
        self._recorder = recorder
        self._handlers: dict[str, Handler] = {}
        self._patiences: dict[float, Patience] = {}
        self._streams = Streams()

    def drain(self) -> None:
        self._streams.drain()

    def checked(self) -> AbstractAsyncContextManager[None]:
        """While the block runs, calls end whose callers are not let in any more."""
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
            enter = self._admission(path, _LOOKED_AT)
            run = _guard(self._authenticator, self._proxies, enter, self._streams, behavior)
            return make(run, handler.request_deserializer, handler.response_serializer)
        policy, kind = policy_of(path), method_of(path).input_type
        rpc = Rpc(
            path=path,
            policy=policy,
            reach=Reach(policy, kind),
            enter=self._admission(path, policy),
            incoming=self._incoming,
            behavior=behavior,
            reader=Reader(handler.request_deserializer, kind, self._max_message_size),
            patience=self._patience(policy.fixed),
            request_streaming=handler.request_streaming,
            response_streaming=handler.response_streaming,
            authenticator=self._authenticator,
            proxies=self._proxies,
            observed=self._observer.of(path),
            witness=self._witnesses(path),
            streams=self._streams,
            recorder=self._recorder,
        )
        # Requests stay bytes until the caller is known: see `Reader`.
        return make(rpc.call, None, handler.response_serializer)

    def _patience(self, seconds: float | None) -> Patience | None:
        """One for all RPCs that have so many seconds."""
        return None if seconds is None else self._patiences.setdefault(seconds, Patience(seconds))


def _guard(
    authenticator: Authenticator,
    proxies: Proxies,
    enter: Enter,
    streams: Streams,
    behavior: Callable[[Any, Context], AsyncIterator[Any]],
) -> Callable[[Any, Context], Awaitable[None]]:
    """Reflection: for anyone with an identity, for as long as who it is may come."""

    async def run(requests: Any, context: Context) -> None:
        try:
            caller = proxies.behind(Caller.of(text_metadata(context), context))
            identity = await authenticator.authenticate(caller)
            with streams.hold(caller, identity, context, endless=True), enter(identity):
                async for response in behavior(requests, context):
                    await begin(context, response)  # Each, as there are few.
        except grpc.aio.BaseError:  # Its caller has just left.
            raise
        except Exception as error:
            status = to_status(error)
            packed = ((DETAILS_KEY, status.SerializeToString()),)
            await context.abort(CODES[status.code], status.message, packed)

    return run
