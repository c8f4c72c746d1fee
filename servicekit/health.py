"""Health by service name, as meshes and probes ask for it.

grpcio's own asyncio servicer forgets all watchers of a service when one of them
leaves, and lets a watcher that does not read hold up everyone else.
"""

import asyncio
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from servicekit.status import Context

SERVING: Final = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN: Final = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
SERVICE: Final = "grpc.health.v1.Health"


class Health(health_pb2_grpc.HealthServicer):
    """Status of each service; the empty name is the whole server."""

    def __init__(self) -> None:
        self._statuses: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._stopping = False

    def set(self, service: str, status: int) -> None:
        """After `stop`, nothing but NOT_SERVING is kept."""
        status = NOT_SERVING if self._stopping else status
        if self._statuses.get(service) == status:
            return
        self._statuses[service] = status
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def stop(self) -> None:
        """Say NOT_SERVING of everything, and end the watches."""
        self._stopping = True
        for service in self._statuses:
            self.set(service, NOT_SERVING)
        self._wake()  # Also where all said so before.

    async def Check(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        status = self._statuses.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> None:
        sent = None
        while True:
            changed, stopping = self._changed, self._stopping
            status = self._statuses.get(request.service, UNKNOWN)
            if status != sent:
                await context.write(health_pb2.HealthCheckResponse(status=status))
                sent = status
            if stopping:
                return
            await changed.wait()
