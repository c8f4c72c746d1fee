"""Workspaces whose node is gone: noted as lost, made again elsewhere, and back with their node."""

import asyncio
import logging
from typing import Final

import grpc

from cove.errors.v1.errors_pb2 import ErrorReason
from cove.registry.v1.registry_pb2 import Environment
from gateway.deadlines import failure, said
from gateway.delete import give_back
from gateway.errors import LeaseLost
from gateway.life import Due
from gateway.nodes import Nodes
from gateway.records import Operation, Records, State
from gateway.replicas import Replicas
from gateway.saga import MADE, Saga
from gateway.tools import transient
from servicekit import calls
from servicekit.errors import ServiceError

_log = logging.getLogger(__name__)

_AT_ONCE: Final = 8
"""Workspaces that are made again at the same time."""
_HELD: Final = (State.STATE_READY, State.STATE_SUSPENDED)


class Strays:
    def __init__(self, nodes: Nodes, records: Records, saga: Saga, replicas: Replicas) -> None:
        self._nodes = nodes
        self._records = records
        self._saga = saga
        self._replicas = replicas
        self._room = asyncio.Semaphore(_AT_ONCE)

    def due(self, environment: Environment) -> Due | None:
        """What to do about a record at which nobody is, as its node has gone or come back."""
        if environment.operation != Operation.OPERATION_NONE or not self._nodes.several:
            return None
        if environment.state in _HELD and self._nodes.gone(environment.node):
            return Due(Operation.OPERATION_REPAIRING, self.lose)
        if _is_stray(environment) and not self._nodes.silent(environment.node):
            return Due(Operation.OPERATION_REPAIRING, self.find)
        return None

    async def lose(self, claimed: Environment) -> Environment:
        """Note that it is lost; or make it again on another node, where its spec allows."""
        try:
            if claimed.state not in _HELD or not self._nodes.gone(claimed.node):
                return await self._records.release(claimed)
            if claimed.spec.rebuild and (made := await self._rebuilt(claimed)):
                return made
            _log.warning("it is lost with its node", extra=_fields(claimed))
            why = failure(
                ErrorReason.ERROR_REASON_NODE_LOST, f"its node {claimed.node} does not answer"
            )
            return await self._records.move(claimed, State.STATE_FAILED, failure=why, release=True)
        except LeaseLost:
            raise
        except Exception:
            await give_back(self._records, claimed)
            raise

    async def find(self, claimed: Environment) -> Environment:
        """Its node is back, and so is it; what is missing there the reconciler finds."""
        try:
            if not _is_stray(claimed) or self._nodes.silent(claimed.node):
                return await self._records.release(claimed)
            _log.info("it is back with its node", extra=_fields(claimed))
            return await self._records.move(claimed, State.STATE_READY, release=True)
        except LeaseLost:
            raise
        except Exception:
            await give_back(self._records, claimed)
            raise

    async def _rebuilt(self, claimed: Environment) -> Environment | None:
        """It, on another node; None when it cannot be made there."""
        made = Environment()
        made.CopyFrom(claimed)
        async with self._room:
            try:
                made.node = self._replicas.at(claimed) or self._nodes.place(
                    claimed.spec, without=(claimed.node,)
                )
                with calls.detached(node=made.node):
                    await self._saga.remake(made)
            except (ServiceError, grpc.aio.AioRpcError) as error:
                if isinstance(error, LeaseLost) or transient(error):
                    raise
                _log.warning("it cannot be made again: %s", said(error), extra=_fields(claimed))
                return None
        written = await self._records.update(made, MADE, fencing_token=made.fencing_token)
        _log.warning("made again on %s", made.node, extra=_fields(claimed))
        released = await self._records.release(written)
        self._replicas.begin(released)
        return released


def _is_stray(environment: Environment) -> bool:
    lost = ErrorReason.Name(ErrorReason.ERROR_REASON_NODE_LOST)
    return environment.state == State.STATE_FAILED and environment.failure.reason == lost


def _fields(environment: Environment) -> dict[str, dict[str, str]]:
    return {"fields": {"uid": environment.uid, "node": environment.node}}
