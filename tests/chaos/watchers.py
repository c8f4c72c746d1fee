"""Follow all changes through everything, and hold what they come to."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Final

import grpc

from cove import status
from cove.client import Client
from cove.gateway.v1 import gateway_pb2
from cove.registry.v1 import registry_pb2 as pb
from cove.registry.v1.registry_pb2_grpc import RegistryServiceStub
from cove.watch import Delete, Put

AGAIN: Final = 0.1
RESUMABLE: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


class OfWorkspaces:
    """As a caller follows them, by the gateway."""

    def __init__(self) -> None:
        self.revision = 0
        self.view: dict[str, gateway_pb2.Workspace] = {}
        self.wrong: list[str] = []

    async def follow(self, client: Client) -> None:
        """Until cancelled."""
        while True:
            try:
                async with aclosing(client.workspaces.watch(self.revision)) as changes:
                    async for change in changes:
                        self._take(change)
            except status.Unavailable:
                await asyncio.sleep(AGAIN)

    def _take(self, change: object) -> None:
        if isinstance(change, Put):
            self._rise(change.revision)
            self.view[change.workspace.name] = change.workspace
        elif isinstance(change, Delete):
            self._rise(change.revision)
            if self.view.pop(change.name, None) is None:
                self.wrong.append(f"{change.name} is gone at {change.revision}, and never was")

    def _rise(self, revision: int) -> None:
        if revision:  # What there is at first has none.
            if revision <= self.revision:
                self.wrong.append(f"revision {revision} after {self.revision}")
            self.revision = revision


class OfEnvironments:
    """As a gateway follows them: every revision, each once."""

    def __init__(self) -> None:
        self.revision = 0
        self.view: dict[str, pb.Environment] = {}
        self.uids: dict[str, str] = {}
        """All that ever were, with their names."""
        self.past: dict[str, list[str]] = {}
        """What became of each name, for whoever looks for the cause of a failure."""
        self.wrong: list[str] = []

    async def follow(self, address: Callable[[], str]) -> None:
        """Until cancelled. The registry is where `address` says, also when it is back."""
        while True:
            try:
                async with grpc.aio.insecure_channel(
                    address(), [("grpc.use_local_subchannel_pool", 1)]
                ) as channel:
                    await self._follow(channel)
            except grpc.aio.AioRpcError as error:
                if error.code() not in RESUMABLE:
                    self.wrong.append(f"from {self.revision}: {error.code()} {error.details()}")
            await asyncio.sleep(AGAIN)

    async def _follow(self, channel: grpc.aio.Channel) -> None:
        request = pb.WatchEnvironmentsRequest(from_revision=self.revision, tenant="-")
        call = RegistryServiceStub(channel).WatchEnvironments(request)
        fresh: dict[str, pb.Environment] = {}
        async for event in call:
            match event.WhichOneof("event"):
                case "snapshot":
                    fresh[event.snapshot.name] = event.snapshot
                    self.uids[event.snapshot.uid] = event.snapshot.name
                case "snapshot_end":
                    self.view, self.revision = fresh, event.snapshot_end.revision
                case "put":
                    self._next(event.put.revision)
                    self.view[event.put.name] = event.put
                    self.uids[event.put.uid] = event.put.name
                    self._note(event.put)
                case "delete":
                    self._next(event.delete.revision)
                    self.past.setdefault(event.delete.name, []).append("gone")
                    gone = self.view.pop(event.delete.name, None)
                    if gone is None or gone.uid != event.delete.uid:
                        self.wrong.append(f"{event.delete.name} is gone, and was not there")
                case "heartbeat" if event.heartbeat.revision != self.revision:
                    self.wrong.append(f"{event.heartbeat.revision} told, at {self.revision}")

    def _next(self, revision: int) -> None:
        if self.revision and revision != self.revision + 1:
            self.wrong.append(f"revision {revision} after {self.revision}")
        self.revision = revision

    def _note(self, put: pb.Environment) -> None:
        state = pb.Environment.State.Name(put.state).removeprefix("STATE_")
        operation = pb.Environment.Operation.Name(put.operation).removeprefix("OPERATION_")
        told = f"{put.update_time.ToJsonString()} {put.uid} {state} {operation}"
        self.past.setdefault(put.name, []).append(told)
