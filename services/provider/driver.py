"""What an environment stands on, as every driver offers it."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Protocol

from services.provider.capabilities import Capabilities, Mounting


class Found(Enum):
    """How an environment was found."""

    DORMANT = "dormant"
    ACTIVE = "active"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """0 is no limit, or where a driver has one its default."""

    memory_bytes: int = 0
    processes: int = 0
    milli_cpus: int = 0
    disk_bytes: int = 0
    """Kept by the executor, as `open_files`: the driver only says whether it can be."""
    open_files: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """`host` is a name, `*.` and a name, an address, or `*` for every public host."""

    host: str
    ports: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What may be reached; without rules, nothing."""

    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    driver: str = ""
    limits: Limits = field(default_factory=Limits)
    network: Network = field(default_factory=Network)
    image: str = ""
    setup: tuple[str, ...] = ()
    """Shell scripts that are run on the image, once for all who name the same ones."""
    required: frozenset[str] = frozenset()
    """Names of capabilities, of whatever driver."""
    rebuild: bool = False
    """Whether it may be made anew elsewhere on this node when what it stands on is lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worktree:
    """Where the parts of a worktree are, relative to the state directory; empty where it has none.

    It is either one directory, `tree`, or `upper` over `lowers`, the topmost of them first.
    """

    tree: str = ""
    git_view: str = ""
    objects: str = ""
    lowers: tuple[str, ...] = ()
    upper: str = ""
    work: str = ""
    xattrs: str = ""
    """`trusted` or `user`: where the marks of the layers are."""
    lock: str = ""
    outside: str = ""
    stack: str = ""
    """A file that names layers above `lowers`; it changes from one activation to the next."""
    layers: str = ""
    """The directory that they are in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisioned:
    handle: bytes
    generation: int
    driver: str
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    uid: str
    state: Found
    driver: str
    tenant: str = ""
    provision_time: datetime | None = None
    activate_time: datetime | None = None
    handle: bytes = b""
    """How it is found now."""
    generation: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """What became of an environment that was to stop."""

    stopped: bool
    quiet: timedelta = timedelta(0)
    """For how long nothing has run in it, where it is not stopped."""
    superseded: bool = False
    """A later call has decided: this one changed nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a tenant has: sandboxes that run, and bytes, as they were measured last."""

    active: int
    disk_bytes: int
    disk_time: datetime


class Driver(Protocol):
    """Idempotent by uid. Reports what it finds; keeps no state but what the environment is."""

    @property
    def name(self) -> str: ...

    @property
    def mounts(self) -> frozenset[Mounting]:
        """How the files of a worktree may come together for it."""
        ...

    async def capabilities(self) -> Capabilities:
        """What it can here. Where it cannot make any environment now the remedy says why."""
        ...

    async def validate(self, spec: Spec) -> Spec:
        """The spec with defaults. Raises CapabilityMissing, SandboxUnavailable."""
        ...

    async def provision(
        self, uid: str, tenant: str, spec: Spec, worktree: Worktree, source: str = ""
    ) -> Provisioned:
        """Make it; with FORK_STATE as `source`, another uid, is now, where that is like it.

        Also raises InvalidArgument for the worktree, ProvisionedDifferently, DiskFull.

        CapabilityMissing, too, for a worktree that cannot be mounted here.
        """
        ...

    async def activate(self, handle: bytes) -> bool:
        """True when it had to be started.

        Raises HandleInvalid, NotProvisioned, SandboxUnavailable, ActivationFailed,
        EnvironmentStopped, QuotaExceeded by the limits that came with the call, and
        InvalidArgument or CapabilityMissing for a worktree that is not as it was.
        """
        ...

    async def inspect(self, handle: bytes) -> Observation:
        """Raises HandleInvalid, NotProvisioned."""
        ...

    async def suspend(self, handle: bytes, duration: timedelta, *, end_idle: bool) -> bool:
        """Hold it still, at most so long. False when it is dormant: nothing was done.

        With `end_idle` one in which nothing runs is made dormant.

        Raises HandleInvalid, NotProvisioned, CapabilityMissing, Unavailable.
        """
        ...

    async def resume(self, handle: bytes) -> bool:
        """True when it was suspended. Raises HandleInvalid, NotProvisioned."""
        ...

    async def stop(
        self, handle: bytes, revision: int, *, force: bool, quiet: timedelta
    ) -> Stopping:
        """End its sandbox, and forbid that one is started; with `force` whatever runs.

        Else only if nothing has run for `quiet`. Raises HandleInvalid, NotProvisioned, Unavailable.
        """
        ...

    async def reopen(self, handle: bytes, revision: int) -> bool:
        """Allow that its sandbox is started; False when a later call has decided.

        Raises HandleInvalid, NotProvisioned.
        """
        ...

    async def update_network(
        self, handle: bytes, network: Network, revision: int
    ) -> tuple[bool, int]:
        """Whether a later one is in force instead, and how many connections were cut.

        Raises HandleInvalid, NotProvisioned, CapabilityMissing, ProxyPortTaken, AgentTooOld,
        Unavailable. After all but the first three it is in force, and nothing gets out.
        """
        ...

    def has(self, uid: str) -> bool:
        """Whether that is surely this driver's, as its record says. It reads the disk."""
        ...

    async def release(self, uid: str) -> bool:
        """True when anything was there; nothing is after. What is another driver's stays."""
        ...

    async def usage(self, tenant: str) -> Usage:
        """What a tenant has here."""
        ...

    async def admit(self, tenant: str, disk_bytes: int) -> None:
        """Raises QuotaExceeded when it has that much on the disk; 0 is no limit."""
        ...

    async def list(self) -> tuple[Observation, ...]:
        """All of this driver that is there, in the order of uids."""
        ...
