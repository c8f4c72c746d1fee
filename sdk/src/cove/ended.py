"""How a call ended, before gRPC forgets it.

Of a message that is sent after the end grpc.aio makes a failure of its own, in the place of what
the other side said: see https://github.com/grpc/grpc/issues/36066 and decision 0060.
"""

from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import grpc

T = TypeVar("T")

WRITE_FAILED: Final = "Internal error from Core"
"""What that failure says."""


class First:
    """What the other side failed a call with. Made as soon as the call is."""

    def __init__(self, call: grpc.aio.Call) -> None:
        self._error: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._note)

    def meant(self, error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        """`error`, or what it took the place of."""
        return self._error if self._error and error.details() == WRITE_FAILED else error

    def _note(self, call: grpc.aio.Call) -> None:
        """Some releases, 1.80 for one, tell of each failure, also of those of gRPC itself."""
        code, text = _at_once(call.code()), _at_once(call.details())
        if code is not grpc.StatusCode.OK and text != WRITE_FAILED:
            initial, trailing = _at_once(call.initial_metadata()), call.trailing_metadata()
            self._error = grpc.aio.AioRpcError(code, initial, _at_once(trailing), text)


def _at_once(told: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns that waits for nothing, as those of a call that has ended."""
    try:
        told.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    told.close()
    raise RuntimeError("the call has not ended")
