"""A bounded part of a command's output, as text."""

import asyncio
import codecs
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

from cove.executions import Execution
from cove.executor.v1.executor_pb2 import Chunk, Exit, Gap
from cove.output import Event


class Page:
    """What of an output came, up to a bound. A character is never cut in two."""

    def __init__(self, offset: int, limit: int) -> None:
        self.begin = offset
        """Where it begins; known with the first event when that was counted from the end."""
        self.end = offset
        """Where the next one begins."""
        self._left = limit
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text: list[str] = []

    @property
    def text(self) -> str:
        """What is not UTF-8 is replaced."""
        return "".join(self._text)

    @classmethod
    async def read(
        cls, execution: Execution, offset: int, limit: int, *, wait: float = 0
    ) -> "Page":
        """From an offset on, negative: from the end. Waits so many seconds for more to come."""
        page = cls(offset, limit)
        events = execution.output(offset, follow=wait > 0)
        with suppress(TimeoutError):
            async with asyncio.timeout(wait or None):
                await page._fill(events)
        page._finish()
        return page

    async def _fill(self, events: AsyncGenerator[Event, None]) -> None:
        async with aclosing(events):
            async for event in events:
                match event:
                    case Chunk():
                        self._chunk(event)
                    case Gap():
                        self._gap(event)
                    case Exit():
                        self._text.append(self._decoder.decode(b"", final=True))
                if not self._left:
                    return

    def _chunk(self, chunk: Chunk) -> None:
        if self.begin < 0:
            self.begin = chunk.offset
        data = chunk.data[: self._left]
        self._left -= len(data)
        self.end = chunk.offset + len(data)
        self._text.append(self._decoder.decode(data))

    def _gap(self, gap: Gap) -> None:
        first = getattr(gap, "from")
        if self.begin < 0:
            self.begin = first
        reason = Gap.Reason.Name(gap.reason).removeprefix("REASON_").lower()
        self._text.append(self._decoder.decode(b"", final=True))
        self._text.append(f"\n[{gap.to - first} bytes of output are missing: {reason}]\n")
        self.end = gap.to

    def _finish(self) -> None:
        """Leave the beginning of a character to the next page."""
        pending, _ = self._decoder.getstate()
        self.end -= len(pending)
