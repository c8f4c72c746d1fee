"""The messages of a stream of requests, as gRPC is given them."""

from collections.abc import AsyncIterator
from typing import Any


class Body:
    """The messages, and why there are no more."""

    def __init__(self, messages: AsyncIterator[Any]) -> None:
        self._messages = messages
        self.failure: Exception | None = None

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            async for message in self._messages:
                yield message
        except Exception as error:
            self.failure = error
            raise
