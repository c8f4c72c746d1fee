"""Takes the request of a call off the wire, when it is known who makes the call.

gRPC by itself reads the one request of a call first, up to its limit, and waits for it as long as
the caller likes: strangers could have any number of those wait, and fill the memory. So handlers of
all shapes are registered as if they took a stream.
"""

from typing import Final

import grpc

from servicekit.errors import DeadlineExceeded, InvalidArgument
from servicekit.patience import Late, Patience
from servicekit.status import Context

SECONDS: Final = 30.0
"""In which a request must have come."""


class Incoming:
    """Of one server."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._patience = Patience(seconds)

    async def only(self, context: Context) -> bytes:
        """The one request. Raises `InvalidArgument` and `DeadlineExceeded`."""
        try:
            with self._patience:
                data = await context.read()
        except Late:
            raise DeadlineExceeded("the request does not come") from None
        if data is grpc.aio.EOF:
            raise InvalidArgument("", "there is no request in this call")
        return data  # type: ignore[no-any-return]
