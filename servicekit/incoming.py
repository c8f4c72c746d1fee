"""Takes the request of a call off the wire, when it is known who makes the call.

gRPC by itself reads the one request of a call first, up to its limit, and waits for it as long as
the caller likes: strangers could have any number of those wait, and fill the memory. So handlers of
all shapes are registered as if they took a stream.
"""

import asyncio
from typing import Any, Final

import grpc

from servicekit.errors import DeadlineExceeded, InvalidArgument
from servicekit.status import Context

SECONDS: Final = 30.0
"""In which a request must have come."""


class Incoming:
    """Of one server. One timer for all: one for each call would cost as much as its checks."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._since: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def only(self, context: Context) -> bytes:
        """The one request. Raises `InvalidArgument` and `DeadlineExceeded`."""
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        self._since[task] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._look)
        try:
            data = await context.read()
        except asyncio.CancelledError:
            if task not in self._late or task.uncancel() > 0:
                raise
            raise DeadlineExceeded("the request does not come") from None
        finally:
            del self._since[task]
            self._late.discard(task)
        if data is grpc.aio.EOF:
            raise InvalidArgument("", "there is no request in this call")
        return data  # type: ignore[no-any-return]

    def _look(self) -> None:
        """End the waits that began long ago; look again when the next one is due."""
        loop = asyncio.get_running_loop()
        self._timer = None
        for task, since in self._since.items():  # From the oldest on.
            if since + self._seconds > loop.time():
                self._timer = loop.call_at(since + self._seconds, self._look)
                return
            if task not in self._late:
                self._late.add(task)
                task.cancel()
