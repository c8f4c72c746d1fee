"""A suite whose workspaces stand on one driver, and what its tests need to know of that."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc

from cove.client import Client
from cove.provider.v1 import provider_pb2
from cove.provider.v1.provider_pb2_grpc import ProviderServiceStub
from cove.workspace import Workspace
from tests.support.suite import Suite, running_suite

LIMIT: Final = 60.0
_LOOK: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a driver's workspaces are made with."""

    name: str
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables of the suite, besides COVE_DRIVERS."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `create`, besides the driver: an image, say."""
    left: Callable[[Path], Awaitable[list[str]]] | None = None
    """What its engine still has of the workspaces of a state directory; none must be left."""


Maker = Callable[[Path], AbstractAsyncContextManager[Standing]]
"""Starts what a driver stands on, for the tests of a session."""


@dataclass(slots=True, kw_only=True)
class Stage:
    """One suite on one driver."""

    suite: Suite
    client: Client
    standing: Standing
    can: frozenset[str]
    """What the driver says that its workspaces can do."""

    async def create(self, repository: Path | str = "", **changes: Any) -> Workspace:
        wanted = {"driver": self.standing.name, **self.standing.spec, **changes}
        return await self.client.workspaces.create(repository, **wanted)

    @asynccontextmanager
    async def provider(self) -> AsyncIterator[ProviderServiceStub]:
        """The provider itself, as the gateway sees it."""
        address = self.suite.address("provider")
        async with grpc.aio.insecure_channel(address) as channel:
            yield ProviderServiceStub(channel)

    async def provisioned(self, uid: str) -> provider_pb2.Observation | None:
        """What the provider finds of it."""
        async with self.provider() as provider:
            request = provider_pb2.ListProvisionedRequest(page_size=1000)
            answer = await provider.ListProvisioned(request)
        found = [each for each in answer.observations if each.uid == uid]
        return found[0] if found else None


@asynccontextmanager
async def staged(maker: Maker, tmp_path: Path) -> AsyncIterator[Stage]:
    """Start what the driver stands on, and a suite on it; nothing is left of either after."""
    async with maker(tmp_path) as standing:
        # The node's own sandboxes first: they are the default, as for most who have several.
        drivers = dict.fromkeys(("local", standing.name))
        env = {"COVE_DRIVERS": ",".join(drivers), **standing.env}
        async with (
            running_suite(tmp_path, env=env) as suite,
            suite.client(patience=LIMIT) as client,
        ):
            told = await client.capabilities()
            of_it = [each for each in told.drivers if each.driver == standing.name]
            assert of_it, f"no driver {standing.name}: {told}"
            assert not of_it[0].remedy, of_it[0].remedy
            yield Stage(
                suite=suite,
                client=client,
                standing=standing,
                can=frozenset(of_it[0].capabilities),
            )
            state = suite.state
        if standing.left:
            assert await standing.left(state) == []


async def eventually(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait for something that other processes bring about."""
    try:
        async with asyncio.timeout(LIMIT):
            while not await holds():  # noqa: ASYNC110
                await asyncio.sleep(_LOOK)
    except TimeoutError:
        raise AssertionError(f"not in {LIMIT} s: {what}") from None


@asynccontextmanager
async def local(tmp_path: Path) -> AsyncIterator[Standing]:
    """The node's own sandboxes."""
    yield Standing(name="local")
