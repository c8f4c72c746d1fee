"""What commands write, as it is seen live: the engine tells it as telemetry, some 200 ms late.

It is no more than a preview. It is text, so what is no UTF-8 is lost; what the engine answers from
its cache is never told; and the two streams may be in another order.
"""

import asyncio
import base64
import binascii
import json
import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from engines.dagger.connection import TRACE, Connection
from engines.dagger.errors import EngineLost

_log = logging.getLogger(__name__)

_PATH: Final = "/v1/logs"
_MOST: Final = 64 << 10

Listener = Callable[[int, bytes], None]
"""Called with the stream, 1 or 2, and what came."""


class Previews:
    """Of one session. Listens to its engine from the first use on."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._listeners: dict[str, Listener] = {}
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def heard(self, listener: Listener) -> Iterator[None]:
        """What the commands of the queries within the block write goes to `listener`."""
        trace = secrets.token_hex(16)
        self._listeners[trace] = listener
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._listen())
        token = TRACE.set(trace)
        try:
            yield
        finally:
            TRACE.reset(token)
            del self._listeners[trace]

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _listen(self) -> None:
        with suppress(EngineLost):
            async with self._connection.lines(_PATH) as lines:
                async for line in lines:
                    if line.startswith("data:"):
                        self._tell(line[5:])

    def _tell(self, data: str) -> None:
        try:
            found = list(records(json.loads(data)))
        except (ValueError, AttributeError, TypeError):
            _log.debug("telemetry that is not understood")
            return
        for trace, stream, text in found:
            if listener := self._listeners.get(trace):
                listener(stream, text)


def records(message: Any) -> Iterator[tuple[str, int, bytes]]:
    """Trace id, stream and text of what commands wrote, in one message of OTLP as JSON."""
    for resource in message.get("resourceLogs", ()):
        for scope in resource.get("scopeLogs", ()):
            for record in scope.get("logRecords", ()):
                attributes = {
                    each.get("key"): each.get("value", {}) for each in record.get("attributes", ())
                }
                stream = int(attributes.get("stdio.stream", {}).get("intValue", 0))
                text = record.get("body", {}).get("stringValue", "")
                if stream in (1, 2) and text:
                    yield _trace(record.get("traceId", "")), stream, text.encode()[:_MOST]


def _trace(text: str) -> str:
    """As hexadecimal digits; the engine's JSON has it in base64."""
    if len(text) == 32:
        return text.lower()
    try:
        return base64.b64decode(text, validate=True).hex()
    except (ValueError, binascii.Error):
        return ""
