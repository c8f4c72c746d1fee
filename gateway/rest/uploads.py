"""Bodies that are streamed to an RPC as its messages."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from gateway.rest.backend import Backend
from gateway.rest.errors import fields_of, status_of
from gateway.rest.exchange import Exchange
from gateway.rest.routes import Route


async def upload(backend: Backend, exchange: Exchange, route: Route, first: Any, token: str) -> Any:
    """Send `first`, the body part by part, and the end; a body that breaks off has no end."""
    failures: list[Exception] = []

    async def requests() -> AsyncIterator[Any]:
        yield first
        size = 0
        try:
            async for part in exchange.parts():
                yield route.request(data=part)
                size += len(part)
        except Exception as error:
            failures.append(error)
            raise  # gRPC cancels the call then. Without `end` nothing is written.
        yield route.request(end={"bytes": size})

    try:
        async with exchange.watched(body_follows=True):
            return await backend.upload(route, requests(), token)
    except asyncio.CancelledError:
        if failures:
            raise failures[0] from None
        raise
    except Exception as error:
        if failures:
            raise failures[0] from None
        raise await _reason(backend, route, first, token, error) from None


async def _reason(
    backend: Backend, route: Route, first: Any, token: str, error: Exception
) -> Exception:
    """Why an upload was refused, as far as its header says it.

    grpc.aio loses the status that comes while it writes, and says INTERNAL. So the
    header is sent again, with a second one, which nobody accepts.
    """
    if not isinstance(error, grpc.aio.AioRpcError):
        return error
    if error.code() is not grpc.StatusCode.INTERNAL:
        return error

    async def headers() -> AsyncIterator[Any]:
        yield first
        yield first

    try:
        await backend.upload(route, headers(), token)
    except grpc.aio.AioRpcError as refusal:
        if fields_of(status_of(refusal)) != ["header"]:
            return refusal
    return error
