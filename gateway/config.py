"""Settings of the gateway."""

import ipaddress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from servicekit.config import ConfigError, ServerConfig

_UNIX = "unix:"
_NODE = "{node}"
_OF_NODES = ("git", "provider", "executor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(ServerConfig):
    """Each field is set by the variable `COVE_GATEWAY__<FIELD>`."""

    service: ClassVar[str] = "gateway"

    grpc: str = ""
    """Where callers reach it by gRPC, `host:port`, besides its unix socket. Port 0 takes a
    free one. Empty: only the unix socket."""

    http: str = ""
    """Where callers reach it by HTTP, `host:port`. Port 0 takes a free one. Empty: nowhere."""

    token_file: Path | None = None
    """File (0600) with the token that callers show; read again when it changes.
    Default: `registry/token` in the state directory."""

    no_auth: bool = False
    """Let in whoever connects, with no token at all. Only on loopback and unix sockets."""

    registry: str = ""
    """Address of the registry. Empty: its unix socket in `COVE_RUNTIME`."""

    nodes: tuple[str, ...] = ()
    """The hosts that workspaces are made on, separated by commas; `dns:` and a name stands for
    all its addresses, which are looked up again all the time. Empty: one, of this machine."""

    git: str = ""
    """Address of git; `{node}` in it stands for each of the nodes. Empty: its unix socket in
    `COVE_RUNTIME`."""

    provider: str = ""
    """Address of the provider, likewise."""

    executor: str = ""
    """Address of the executor, likewise."""

    lease: timedelta = timedelta(seconds=60)
    """How long an operation stays this gateway's when nothing more is heard of it."""

    undelete_window: timedelta = timedelta(hours=24)
    """How long the unsaved work of a deleted workspace is kept."""

    activity_interval: timedelta = timedelta(seconds=30)
    """How often at most it is written into the record of a workspace that it is used. The
    shortest `idle_timeout` is twice that."""

    create_limit: timedelta = timedelta(hours=1)
    """After this long a create that cannot be finished is given up and undone."""

    operation_limit: timedelta = timedelta(hours=24)
    """After this long a delete or an update that cannot be finished is given up: the workspace
    is FAILED and says why."""

    progress_interval: timedelta = timedelta(milliseconds=500)
    """How often the progress of a clone is written into the record."""

    reconcile_interval: timedelta = timedelta(seconds=60)
    """How often abandoned operations and orphans are looked for."""

    orphan_grace: timedelta = timedelta(minutes=10)
    """How long something must have been seen without a record to be removed, and a record
    without what it tells of to be marked as lost."""

    def __post_init__(self) -> None:
        ServerConfig.__post_init__(self)  # super() does not work in a class with slots.
        for name in _OF_NODES if self.nodes else ():
            if _NODE not in getattr(self, name):
                raise ConfigError(
                    f"COVE_GATEWAY__{name.upper()}: with COVE_GATEWAY__NODES it needs {_NODE}, say "
                    f"{_NODE}:7501"
                )
        if self.no_auth:
            for address in (*self.addresses, self.http):
                if not _local(address):
                    raise ConfigError(
                        f"{address}: others can reach it; not with COVE_GATEWAY__NO_AUTH"
                    )

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where to listen for gRPC, the one for callers first."""
        inner = self.address or (f"{_UNIX}{self.runtime}/{self.service}",)
        return (self.grpc, *inner) if self.grpc else inner

    @property
    def token_path(self) -> Path:
        return self.token_file or self.state / "registry" / "token"

    def tool(self, name: str) -> str:
        """Address of the registry, git, provider or executor."""
        address: str = getattr(self, name)
        return address or f"{_UNIX}{self.runtime}/{name}"

    def at(self, name: str, node: str) -> str:
        """Address of git, provider or executor of a node."""
        return self.tool(name).replace(_NODE, node)


def _local(address: str) -> bool:
    """Whether only processes of this machine reach the address."""
    host = address.rpartition(":")[0].strip("[]")
    if not address or address.startswith(_UNIX) or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
