"""The messages of an upload, as gRPC is given them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any


class Body:
    """The messages of an upload, and why there are no more."""

    def __init__(self, messages: AsyncIterator[Any], pause: float) -> None:
        self._messages = messages
        self._pause = pause
        self.failure: Exception | None = None

    async def __aiter__(self) -> AsyncIterator[Any]:
        first = True
        try:
            async for message in self._messages:
                yield message
                if first and self._pause:
                    await asyncio.sleep(self._pause)
                first = False
        except Exception as error:
            self.failure = error
            raise
