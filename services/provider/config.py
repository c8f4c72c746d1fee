"""Settings of provider."""

from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import ClassVar, Final, Literal

from servicekit.config import ConfigError, ServerConfig

_MOST_PROCESSES: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(ServerConfig):
    """Each field is set by the variable `COVE_PROVIDER__<FIELD>`."""

    service: ClassVar[str] = "provider"

    drivers: tuple[Literal["dagger", "docker", "local"], ...] = field(
        default=("local",), metadata={"variable": "COVE_DRIVERS"}
    )
    """What environments of this node may stand on, separated by commas; the first where none is
    named."""

    binds: tuple[Path, ...] = ()
    """Directories of this host that every sandbox sees read-only at the same path, separated
    by commas."""

    idle_timeout: timedelta = timedelta(minutes=10)
    """After how long without a process and a connection a sandbox ends. 0: never."""

    processes: int = 4096
    """How many processes and threads an environment may have where its spec does not say. 0: any
    number."""

    sandbox_uids: str = ""
    """Uids outside, `first-last`, of which each tenant's sandboxes get one of their own; git, which
    gives them out, is told by the same variable. Only as root, and with the driver `local` alone.
    Empty: all are of one user."""

    egress_networks: tuple[str, ...] = ()
    """Networks that are not public, as `10.1.0.0/16`, whose hosts workspaces may reach all the
    same if their own list names them; separated by commas. Loopback is this host's own."""

    dagger_network: Literal["", "none", "open"] = ""
    """What commands on a Dagger engine reach, which Cove can neither see nor limit: `none`, where
    the engine has no way out but to its registry, or `open`: whatever the engine does. Until it is
    said, the driver `dagger` makes no environment."""

    disk_limit: float = 0.9
    """From which share of the disk on, as `df` counts it, nothing new is provisioned; at most 1."""

    node: str = ""
    """Name of this node, for the drivers that ask no launcher for it: docker. `cove up` sets it."""

    docker_socket: Path = Path("/run/docker.sock")
    """Where the engine of the driver docker listens. Whoever may connect to it is root: give it to
    no other service."""

    docker_image: str = ""
    """The image of environments whose spec names none. Empty: it has to name one."""

    docker_runtime: str = ""
    """Which of its runtimes the engine is to use, as `runsc`. Empty: its own choice."""

    docker_setup_age: timedelta = timedelta(days=14)
    """After how long without use the image of a setup is removed from the engine. One that an
    environment stands on stays."""

    def __post_init__(self) -> None:
        ServerConfig.__post_init__(self)
        if not self.drivers:
            raise ConfigError("COVE_DRIVERS: names no driver")
        if len({*self.drivers}) != len(self.drivers):
            raise ConfigError("COVE_DRIVERS: names a driver twice")
        if "docker" in self.drivers and not self.node:
            raise ConfigError("COVE_PROVIDER__NODE: the driver docker needs it")
        if self.sandbox_uids and self.drivers != ("local",):
            raise ConfigError("COVE_PROVIDER__SANDBOX_UIDS: only with the driver local alone")
        if not 0 < self.disk_limit <= 1:
            raise ConfigError(f"{self.name_of('disk_limit')}: not more than 0 and at most 1")
        if not 0 <= self.processes <= _MOST_PROCESSES:
            raise ConfigError(f"{self.name_of('processes')}: not from 0 to {_MOST_PROCESSES}")
        for each in self.egress_networks:
            try:
                ip_network(each)
            except ValueError as error:
                raise ConfigError(f"COVE_PROVIDER__EGRESS_NETWORKS: {error}") from None
