"""What makes sandboxes, each with an agent in it: all that such drivers differ by."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol, TypeAlias

from agent.protocol import Facts, SandboxSpec, SandboxStatus
from services.provider.capabilities import Capability
from services.provider.driver import Spec
from services.provider.drivers.records import Record

BUILD: Final = 590.0
"""Seconds that an image and its setup may take: a little less than a create has."""

OnStart: TypeAlias = Callable[[str, float], None]
"""Is told of each start of a sandbox: the driver, and the seconds that it took."""


def unheard(_driver: str, _seconds: float) -> None:
    """Nobody wants to know."""


class Sandboxes(Protocol):
    """All that run. A connection to a launcher is this."""

    async def facts(self) -> Facts:
        """What is enforced here, and how; nothing is tried."""
        ...

    async def list(self) -> tuple[SandboxStatus, ...]: ...

    async def inspect(self, uid: str) -> SandboxStatus:
        """ABSENT when nothing runs."""
        ...

    async def kill(self, uid: str) -> bool:
        """Returns when nothing of it is left; true when there was something."""
        ...

    async def freeze(self, uid: str, seconds: float) -> bool:
        """Hold all its processes still for so long at most; false when there are none."""
        ...

    async def thaw(self, uid: str) -> bool:
        """False when they were not frozen."""
        ...


class Maker(Protocol):
    """Makes them. Everything raises Unavailable where whoever does the work is away."""

    @property
    def name(self) -> str:
        """Of the driver."""
        ...

    @property
    def can(self) -> frozenset[Capability]:
        """Beyond what Facts tell."""
        ...

    def connected(self) -> AbstractAsyncContextManager[Sandboxes]: ...

    async def probed(self) -> Facts:
        """What it can do here. Raises SandboxUnavailable when that is nothing."""
        ...

    async def told(self) -> tuple[Facts, str]:
        """The same, and what to do where that is nothing."""
        ...

    async def check(self, spec: Spec) -> None:
        """Raises InvalidArgument, CapabilityMissing."""
        ...

    async def chosen(self, record: Record) -> Record:
        """What is provisioned now, with what must not change later. See `Driver.provision`."""
        ...

    async def start(self, sandboxes: Sandboxes, record: Record, spec: SandboxSpec) -> bool:
        """Start it until its agent answers; false when it did so already.

        Raises ActivationFailed, HandleInvalid, and what `chosen` does.
        """
        ...
