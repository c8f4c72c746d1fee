"""Settings of the registry."""

from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import ClassVar, Final

from servicekit.config import ByteSize, ConfigError, ServerConfig
from servicekit.quota import Limits

_SCHEMES: Final = ("postgresql://", "postgres://")
_MOST: Final = 2**63 - 1
_QUOTAS: Final = tuple(f"quota_{each.name}" for each in fields(Limits))


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(ServerConfig):
    """Each field is set by the variable `COVE_REGISTRY__<FIELD>`."""

    service: ClassVar[str] = "registry"

    database: str = field(default="", repr=False)
    """Path of the SQLite file of every environment, made if absent, 0600 in a folder of 0700;
    or `postgresql://user:password@host/database`, which several registries may share, see
    docs/postgres.md. Default: `registry/registry.db` in the state directory."""

    token_file: Path | None = None
    """File (0600) with the token of the first user; made at the first start.
    Default: `registry/token` in the state directory."""

    history: timedelta = timedelta(hours=24)
    """How long changes are kept for watchers to resume from."""

    history_revisions: int = 100_000
    """How many changes are kept at most."""

    heartbeat: timedelta = timedelta(seconds=10)
    """How long a watch is silent before it tells that it is alive."""

    quota_workspaces: int = 0
    """How many workspaces a tenant may have that are not deleted, where nothing else was set
    for it. 0: any number."""

    quota_active_environments: int = 0
    """How many of its sandboxes may run at one time on a node. 0: any number."""

    quota_executions: int = 0
    """How many of its commands may run at one time on a node. 0: any number."""

    quota_disk_bytes: ByteSize = 0
    """What all its workspaces may have on the disk of a node. 0: as much as there is."""

    audit_age: timedelta = timedelta(days=90)
    """How long entries of the audit log are kept."""

    def __post_init__(self) -> None:
        ServerConfig.__post_init__(self)  # super() does not work in a class with slots.
        problems = [
            f"{self.name_of(name)}: more than {_MOST}"
            for name in _QUOTAS
            if getattr(self, name) > _MOST
        ]
        if not self.heartbeat:
            problems.append(f"{self.name_of('heartbeat')}: not more than 0")
        if problems:
            raise ConfigError("\n".join(problems))

    @property
    def quota(self) -> Limits:
        return Limits(
            workspaces=self.quota_workspaces,
            active_environments=self.quota_active_environments,
            executions=self.quota_executions,
            disk_bytes=self.quota_disk_bytes,
        )

    @property
    def database_path(self) -> Path:
        return Path(self.database or self.state / "registry" / "registry.db")

    @property
    def database_url(self) -> str:
        """Of PostgreSQL; empty when the database is a file."""
        return self.database if self.database.startswith(_SCHEMES) else ""

    @property
    def token_path(self) -> Path:
        return self.token_file or self.state / "registry" / "token"
