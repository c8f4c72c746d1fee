"""Health by service name, as meshes and probes ask for it.

grpcio's own asyncio servicer forgets all watchers of a service when one of them
leaves, and lets a watcher that does not read hold up everyone else. Whoever asks is a
stranger, so requests are taken as servicekit/incoming.py says.
"""

import asyncio
from collections import Counter
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from servicekit.errors import DeadlineExceeded, InvalidArgument
from servicekit.incoming import Incoming
from servicekit.status import Context
from servicekit.strangers import host_of

SERVING: Final = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN: Final = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
SERVICE: Final = "grpc.health.v1.Health"
SECONDS: Final = 5.0
"""In which a request must have come."""
WATCHES: Final = 5000
"""Of one host at once: some 75 MiB."""


class Health:
    """Status of each service; the empty name is the whole server."""

    def __init__(self) -> None:
        self._statuses: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._stopping = False
        self._incoming = Incoming(SECONDS)
        self._watches: Counter[str] = Counter()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Have the server answer by it."""
        told = health_pb2.HealthCheckResponse.SerializeToString
        handlers: Any = {
            "Check": grpc.stream_unary_rpc_method_handler(self._check, None, told),
            "Watch": grpc.stream_stream_rpc_method_handler(self._watch, None, told),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

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

    async def _check(self, _requests: Any, context: Context) -> health_pb2.HealthCheckResponse:
        status = self._statuses.get(await self._asked(context))
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return health_pb2.HealthCheckResponse(status=status)

    async def _watch(self, _requests: Any, context: Context) -> None:
        host = host_of(context.peer())
        if self._watches[host] >= WATCHES:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many watch from there")
        self._watches[host] += 1
        try:
            await self._tell(await self._asked(context), context)
        finally:
            self._watches[host] -= 1
            if not self._watches[host]:
                del self._watches[host]

    async def _tell(self, service: str, context: Context) -> None:
        sent = None
        while True:
            changed, stopping = self._changed, self._stopping
            status = self._statuses.get(service, UNKNOWN)
            if status != sent:
                await context.write(health_pb2.HealthCheckResponse(status=status))
                sent = status
            if stopping:
                return
            await changed.wait()

    async def _asked(self, context: Context) -> str:
        """After which service."""
        try:
            data = await self._incoming.only(context)
            return health_pb2.HealthCheckRequest.FromString(data).service
        except DeadlineExceeded as error:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, error.message)
        except (InvalidArgument, DecodeError):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no question after health")
