"""Several registries on one PostgreSQL, in one process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc

from services.registry.app import registry
from services.registry.config import Config
from services.registry.store import Store
from tests.registry.caller import Caller, Clock


@asynccontextmanager
async def replicas(
    config: Config, folder: Path, *, count: int = 2, clock: Clock | None = None
) -> AsyncIterator[list[Caller]]:
    """Registries on the config's database, and a caller of each."""
    async with AsyncExitStack() as stack:
        callers = []
        for number in range(count):
            mine = replace(config, runtime=folder / f"r{number}")
            served = await stack.enter_async_context(registry(mine, now=clock))
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(served.address))
            callers.append(Caller(channel))
        yield callers


async def reached(store: Store, revision: int) -> None:
    """Returns when the feed has come to the revision."""
    async with asyncio.timeout(30):
        while store.feed.latest < revision:
            await store.feed.after(store.feed.latest, 30)
