"""Workspaces whose processes are held still while their files are read."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Final
from weakref import WeakValueDictionary

import grpc

from cove.provider.v1 import provider_pb2
from cove.registry.v1.registry_pb2 import Environment
from gateway.records import duration
from gateway.tools import Tools
from servicekit import calls
from servicekit.errors import ServiceError

_log = logging.getLogger(__name__)

_HELD: Final = timedelta(seconds=20)
"""What a gateway that dies leaves frozen goes on after this."""
_SECONDS: Final = 15.0


class Stills:
    def __init__(self, tools: Tools) -> None:
        self._provider = tools.provider
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def held(
        self, environment: Environment, *, end_idle: bool = False
    ) -> AsyncIterator[None]:
        """Hold it still within the block, one block after the other.

        With `end_idle` a sandbox in which nothing runs is ended instead. Raises what the provider
        says: CAPABILITY_MISSING where processes cannot be frozen.
        """
        lock = self._locks.setdefault(environment.uid, asyncio.Lock())
        async with lock:
            try:
                await self._suspend(environment, end_idle=end_idle)
                with calls.detached():
                    renewing = asyncio.create_task(self._renew(environment))
                try:
                    yield
                finally:
                    renewing.cancel()
            finally:
                with calls.detached():
                    resuming = asyncio.create_task(self._resume(environment))
                await asyncio.shield(resuming)

    async def _suspend(self, environment: Environment, *, end_idle: bool = False) -> None:
        request = provider_pb2.SuspendEnvironmentRequest(
            handle=environment.handle, duration=duration(_HELD), end_idle=end_idle
        )
        rpc = self._provider.rpc.SuspendEnvironment
        await self._provider.unary(rpc, request, timeout=_SECONDS)

    async def _renew(self, environment: Environment) -> None:
        while True:
            await asyncio.sleep(_HELD.total_seconds() / 4)
            with suppress(ServiceError, grpc.aio.AioRpcError):
                await self._suspend(environment)

    async def _resume(self, environment: Environment) -> None:
        """What cannot be told to go on now does so by itself."""
        request = provider_pb2.ResumeEnvironmentRequest(handle=environment.handle)
        rpc = self._provider.rpc.ResumeEnvironment
        try:
            await self._provider.unary(rpc, request, timeout=_SECONDS)
        except (ServiceError, grpc.aio.AioRpcError) as error:
            _log.warning("cannot resume: %s", error, extra={"fields": {"uid": environment.uid}})
