"""One node: what it has told of itself, and whether it answers."""

import logging
import time
from collections import deque
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final

import grpc

from cove.provider.v1 import provider_pb2
from cove.provider.v1.provider_pb2_grpc import ProviderServiceStub
from cove.registry.v1.registry_pb2 import EnvironmentSpec
from servicekit.channel import Peer
from servicekit.errors import ServiceError

_log = logging.getLogger(__name__)

_PATIENCE: Final = 2.0
"""Seconds that it has to answer."""
_SILENT: Final = 4.0
"""So far apart are the first and the last of the questions that a node left without an answer
when it counts as gone,"""
_MISSED: Final = 3
"""and so many they are at least: time in which this gateway itself stood still does not count."""
_UNTOLD: Final = 5.0
"""Seconds in which a workspace that was placed on a node may not be there yet."""


@dataclass(slots=True, kw_only=True, eq=False)
class Node:
    """One machine, with tools of its own."""

    host: str
    git: Peer
    provider: Peer
    executor: Peer
    ports: Peer
    """The executor, for ForwardPort."""
    name: str = ""
    """As its provider tells it; empty until it has."""
    heard: bool = False
    """Whether it has answered ever."""
    missed: list[float] = field(default_factory=list)
    """When the questions were asked that it has left without an answer since it last answered, the
    first and the latest ones, of `time.monotonic()`."""
    drivers: Sequence[provider_pb2.Capabilities] = ()
    default: str = ""
    environments: int = 0
    """That it told of."""
    placed: deque[float] = field(default_factory=deque)
    """When those were placed on it that it may not tell of yet, of `time.monotonic()`."""
    processors: int = 1
    closing: AsyncExitStack = field(repr=False)

    @property
    def load(self) -> float:
        return (self.environments + len(self.placed)) / self.processors

    @property
    def there(self) -> bool:
        """Whether it answered lately."""
        gone = len(self.missed) >= _MISSED and self.missed[-1] - self.missed[0] >= _SILENT
        return self.heard and not gone

    def can(self, spec: EnvironmentSpec) -> bool:
        """Whether it has what a spec names, as far as it tells in advance."""
        wanted = spec.driver or self.default
        for each in self.drivers:
            if each.driver == wanted:
                missing = frozenset(spec.required_capabilities).difference(each.capabilities)
                return not each.remedy and not missing
        return False

    async def ask(self) -> None:
        """How it is now; whether it answers is noted."""
        stub = ProviderServiceStub(self.provider.channel)
        asked = provider_pb2.GetCapabilitiesRequest()
        begun = time.monotonic()
        try:
            told = await self.provider.unary(stub.GetCapabilities, asked, timeout=_PATIENCE)
        except (ServiceError, grpc.aio.AioRpcError) as error:
            _log.debug("the node %s does not answer: %s", self.host, error)
            self.missed = [*self.missed[:_MISSED], begun]
            return
        self.name = told.capabilities.node
        self.drivers, self.default = told.drivers, told.capabilities.default_driver
        self.processors = max(1, told.processors)
        self.environments = told.environments
        while self.placed and self.placed[0] < begun - _UNTOLD:
            self.placed.popleft()
        self.heard = True
        self.missed.clear()
