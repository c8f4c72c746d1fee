"""Refusing what is still being sent."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from servicekit.errors import ServiceError


@asynccontextmanager
async def heard(requests: AsyncIterator[Any]) -> AsyncIterator[None]:
    """A refusal in the block waits for the rest of an upload.

    gRPC tells many a caller who is answered while sending of an internal error, and not why it
    was refused.
    """
    try:
        yield
    except ServiceError:
        with suppress(ServiceError):  # The first one counts.
            async for _ in requests:
                pass
        raise
