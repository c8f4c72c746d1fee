"""The beginning of an answer that has several messages."""

import asyncio
from typing import Any, Final

from servicekit.status import Context

_PATIENCE: Final = 1.0
"""Seconds. A caller that reads nothing may keep what is large on its way for ever."""


async def begin(context: Context, message: Any) -> None:
    """Write the first message. Who is cancelled meanwhile waits until it is out.

    gRPC cannot tell a failure before: the call would go on, with nobody at it, until its caller
    leaves or the server is gone.
    """
    writing = asyncio.ensure_future(context.write(message))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        writing.add_done_callback(_look)
        await asyncio.wait((writing,), timeout=_PATIENCE)
        raise


def _look(writing: "asyncio.Future[None]") -> None:
    """Nobody else asks how it ended."""
    if not writing.cancelled():
        writing.exception()
