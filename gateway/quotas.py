"""What the caller's tenant may have: asked of the registry now and then, told to the tools."""

import time
from collections import OrderedDict
from typing import Final, NamedTuple

import grpc

from cove.executor.v1 import executor_pb2
from cove.provider.v1 import provider_pb2
from cove.registry.v1 import access_pb2
from cove.registry.v1.access_pb2 import Quota
from gateway.tools import Tools
from servicekit import calls
from servicekit.errors import ServiceError
from servicekit.quota import Limits

_FRESH: Final = 5.0
"""Seconds for which what was read is gone by."""
_STALE: Final = 600.0
"""The same while the registry is away."""
_TENANTS: Final = 10_000
_USE_SECONDS: Final = 10.0


class _Known(NamedTuple):
    read: float
    limits: Limits


class Quotas:
    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def tell(self) -> None:
        """From now on, the tools are told with the current call what its tenant may have."""
        calls.limited(await self._limits())

    async def admit(self) -> None:
        """Raises what the provider says of a tenant that has no room on the disk for more."""
        await self.tell()
        if calls.current().limits.disk_bytes:
            provider = self._tools.provider
            request = provider_pb2.GetTenantUsageRequest(admit=True)
            await provider.unary(provider.rpc.GetTenantUsage, request)

    async def get(self) -> Quota:
        """With what each tool counts; what one that is away counts is left out."""
        access = self._tools.access
        asked = access_pb2.GetQuotaRequest()
        quota = (await access.unary(access.rpc.GetQuota, asked)).quota
        await self._use(quota)
        return quota

    async def update(self, request: access_pb2.UpdateQuotaRequest) -> Quota:
        access = self._tools.access
        quota = (await access.unary(access.rpc.UpdateQuota, request)).quota
        self._known.pop(calls.current().identity.tenant, None)
        await self._use(quota)
        return quota

    async def _limits(self) -> Limits:
        tenant = calls.current().identity.tenant
        now = time.monotonic()
        known = self._known.get(tenant)
        if known and now < known.read + _FRESH:
            return known.limits
        access = self._tools.access
        try:
            asked = access_pb2.GetQuotaRequest()
            answer = await access.unary(access.rpc.GetQuota, asked)
        except (ServiceError, grpc.aio.AioRpcError):
            if known and now < known.read + _STALE:
                return known.limits
            raise
        given = answer.quota.effective_limits
        limits = Limits(
            workspaces=given.workspaces,
            active_environments=given.active_environments,
            executions=given.executions,
            disk_bytes=given.disk_bytes,
        )
        self._known[tenant] = _Known(now, limits)
        self._known.move_to_end(tenant)
        if len(self._known) > _TENANTS:
            self._known.popitem(last=False)
        return limits

    async def _use(self, quota: Quota) -> None:
        for node in self._tools.nodes.answering():
            with self._tools.nodes.at(node):
                await self._use_of_node(quota)

    async def _use_of_node(self, quota: Quota) -> None:
        """Add what the tenant uses there."""
        provider, executor = self._tools.provider, self._tools.executor
        try:
            asked = provider_pb2.GetTenantUsageRequest()
            used = await provider.unary(provider.rpc.GetTenantUsage, asked, timeout=_USE_SECONDS)
            quota.use.active_environments += used.active_environments
            quota.use.disk_bytes += used.disk_bytes
            quota.use.disk_measure_time.CopyFrom(used.disk_measure_time)
        except (ServiceError, grpc.aio.AioRpcError):
            pass
        try:
            running = await executor.unary(
                executor.rpc.GetTenantUsage,
                executor_pb2.GetTenantUsageRequest(),
                timeout=_USE_SECONDS,
            )
            quota.use.executions += running.executions
        except (ServiceError, grpc.aio.AioRpcError):
            pass
