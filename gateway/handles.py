"""Handles that move: what is done in an environment may give it the next one.

Whoever did it tells; here that is noted in the record, before its caller has the answer, so that
the next call finds the environment through any gateway. What cannot be noted is, when the
reconciler looks, as the provider tells it too.
"""

import logging
from collections.abc import Iterable
from typing import Final, Protocol

import grpc

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.executor.v1 import executor_pb2
from cove.registry.v1.registry_pb2 import Environment
from gateway import names
from gateway.records import Records
from servicekit.errors import ServiceError
from servicekit.status import reason

_log = logging.getLogger(__name__)

FIELDS: Final = ("handle", "handle_generation")
_TRIES: Final = 8


class Told(Protocol):
    """An answer that may tell of the next handle."""

    handle: bytes
    generation: int


class Handles:
    def __init__(self, records: Records) -> None:
        self._records = records

    async def executed(self, environment: Environment, *executions: executor_pb2.Execution) -> None:
        """See `follow`."""
        await self.follow(environment, [each.exit for each in executions if each.HasField("exit")])

    async def follow(self, environment: Environment, answers: Iterable[Told]) -> None:
        """Note the latest handle that these tell of, and take it out of them: it is no caller's."""
        latest, generation = b"", environment.handle_generation
        for each in answers:
            if each.handle and each.generation > generation:
                latest, generation = each.handle, each.generation
            each.handle, each.generation = b"", 0
        if latest:
            await self.note(environment, latest, generation)

    async def note(self, environment: Environment, handle: bytes, generation: int) -> None:
        """Have the record of `environment` tell this handle, unless it tells a later one."""
        try:
            await self._note(environment, handle, generation)
        except (ServiceError, grpc.aio.AioRpcError) as error:
            _log.warning("cannot note a handle: %s", error, extra=_fields(environment.uid))

    async def _note(self, environment: Environment, handle: bytes, generation: int) -> None:
        """By compare and swap: a later handle, or one of another environment, is not replaced."""
        current = environment
        for _ in range(_TRIES):
            moved = next_handle(current, handle, generation)
            try:
                await self._records.update(moved, FIELDS, etag=current.etag)
            except grpc.aio.AioRpcError as error:
                if reason(error) != ErrorReason.ERROR_REASON_ETAG_MISMATCH:
                    raise
            else:
                _log.info("its handle moved", extra=_fields(environment.uid))
                return
            current = await self._records.get(names.workspace_name(environment.name))
            if current.uid != environment.uid or current.handle_generation >= generation:
                return
        _log.warning("its record is written all the time", extra=_fields(environment.uid))


def next_handle(environment: Environment, handle: bytes, generation: int) -> Environment:
    """What to write into its record."""
    return Environment(name=environment.name, handle=handle, handle_generation=generation)


def _fields(uid: str) -> dict[str, dict[str, str]]:
    return {"fields": {"uid": uid}}
